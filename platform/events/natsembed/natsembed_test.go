package natsembed_test

import (
	"strings"
	"testing"

	"github.com/nats-io/nats.go"

	"github.com/banyan-shop/banyan/platform/events/natsembed"
)

func TestServer(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	s, err := natsembed.Start(natsembed.Options{Dir: dir})
	if err != nil {
		t.Fatal(err)
	}
	url := s.URL()
	defer func() { s.Stop() }()
	nc, err := nats.Connect(url)
	if err != nil {
		t.Fatal(err)
	}
	nc.Close()
	_, addr, _ := strings.Cut(url, "@")
	if nc, err := nats.Connect("nats://" + addr); err == nil {
		nc.Close()
		t.Error("the server asks for no token")
	}
	if _, err := natsembed.Start(natsembed.Options{Dir: t.TempDir(), Addr: addr}); err == nil || !strings.Contains(err.Error(), "in use") {
		t.Errorf("two servers at one address: %v", err)
	}
	s.Stop()
	if s, err = natsembed.Start(natsembed.Options{Dir: dir, Addr: addr}); err != nil {
		t.Fatal(err)
	}
	if s.URL() != url {
		t.Error("a server that was started again has another address or token")
	}
}

func TestOptions(t *testing.T) {
	t.Parallel()
	for _, o := range []natsembed.Options{
		{}, {Dir: t.TempDir(), Addr: "0.0.0.0:4222"}, {Dir: t.TempDir(), Addr: ":4222"}, {Dir: t.TempDir(), Addr: "127.0.0.1:x"}, {Dir: t.TempDir(), Addr: "127.0.0.1"},
	} {
		if s, err := natsembed.Start(o); err == nil {
			s.Stop()
			t.Errorf("%+v: started", o)
		}
	}
}
