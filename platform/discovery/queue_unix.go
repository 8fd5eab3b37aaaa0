//go:build unix

package discovery

import (
	"net"
	"os"
	"syscall"
)

// closeEmpty closes l right after it has accepted all that the kernel has ready, and returns that.
func closeEmpty(l net.Listener) []net.Conn {
	var fds []int
	if s, ok := l.(syscall.Conn); ok {
		if raw, err := s.SyscallConn(); err == nil {
			_ = raw.Control(func(fd uintptr) { // never blocks: net's sockets do not
				for {
					n, _, err := syscall.Accept(int(fd))
					switch err {
					case nil:
						syscall.CloseOnExec(n)
						fds = append(fds, n)
					case syscall.EINTR, syscall.ECONNABORTED:
					default:
						return
					}
				}
			})
		}
	}
	_ = l.Close()
	var conns []net.Conn
	for _, fd := range fds {
		f := os.NewFile(uintptr(fd), "accepted")
		if c, err := net.FileConn(f); err == nil {
			conns = append(conns, c)
		}
		_ = f.Close()
	}
	return conns
}
