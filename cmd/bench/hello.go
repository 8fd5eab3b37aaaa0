package main

import (
	"context"
	"fmt"
	"net"
	"net/http"
	"os"
	"os/exec"
	"strings"

	//shop:allow boundary until=2027-11-01 owner=@bench the bare library, without anything of ours, is what the shop is compared with
	"github.com/labstack/echo/v4"
)

// helloFlag makes this program the bare server that the shop is compared with.
const helloFlag = "--serve-hello"

// serveHello answers hello on a free port, which it prints, until its standard input ends.
func serveHello() error {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return err
	}
	e := echo.New()
	e.GET("/", func(c echo.Context) error { return c.String(http.StatusOK, "hello") })
	fmt.Println(l.Addr())
	go func() {
		_, _ = os.Stdin.Read(make([]byte, 1))
		os.Exit(0)
	}()
	return http.Serve(l, e)
}

// hello runs the bare server in a process of its own and gives its address.
func hello(ctx context.Context) (address string, stop func(), err error) {
	self, err := os.Executable()
	if err != nil {
		return "", nil, err
	}
	cmd := exec.CommandContext(ctx, self, helloFlag)
	ownGroup(cmd)
	in, err := cmd.StdinPipe()
	if err != nil {
		return "", nil, err
	}
	out, err := cmd.StdoutPipe()
	if err != nil {
		return "", nil, err
	}
	if err := cmd.Start(); err != nil {
		return "", nil, err
	}
	stop = func() {
		in.Close()
		_ = cmd.Wait()
	}
	b := make([]byte, 100)
	n, err := out.Read(b)
	if err != nil {
		stop()
		return "", nil, fmt.Errorf("start the bare server: %w", err)
	}
	return strings.TrimSpace(string(b[:n])), stop, nil
}
