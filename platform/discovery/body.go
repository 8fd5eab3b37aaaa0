package discovery

import (
	"errors"
	"io"
	"net/http"
	"sync/atomic"
)

// unreadBody is a request's body that may go to a second instance: a transport that could not dial closes the body, although
// it has read nothing of it. Until release such a Close is only noted.
type unreadBody struct {
	io.ReadCloser
	state atomic.Uint32
}

const (
	wasRead uint32 = 1 << iota
	wasClosed
	released
)

func (b *unreadBody) Read(p []byte) (int, error) {
	if b.state.Load()&wasRead == 0 {
		b.state.Or(wasRead)
	}
	return b.ReadCloser.Read(p)
}

func (b *unreadBody) Close() error {
	if before := b.state.Or(wasClosed); before&(wasRead|released) == 0 {
		return nil // release closes it
	}
	return b.ReadCloser.Close()
}

// again readies the body for another instance, and is false if it was begun.
func (b *unreadBody) again() bool {
	return b.state.CompareAndSwap(wasClosed, 0) || b.state.Load() == 0
}

// release ends the tries: from here on Close closes.
func (b *unreadBody) release() {
	if before := b.state.Or(released); before&(wasClosed|wasRead) == wasClosed {
		_ = b.ReadCloser.Close()
	}
}

// counted keeps a response in flight until its body is closed.
func (in *instance) counted(body io.ReadCloser) io.ReadCloser {
	if body == http.NoBody {
		in.inFlight.Add(-1)
		return body
	}
	c := &countedBody{ReadCloser: body, in: in}
	if rw, ok := body.(io.ReadWriteCloser); ok { // 101: the connection itself, of a WebSocket
		return &upgradedBody{c, rw}
	}
	return c
}

type countedBody struct {
	io.ReadCloser
	in     *instance
	closed atomic.Bool
}

func (b *countedBody) Close() error {
	if !b.closed.Swap(true) {
		b.in.inFlight.Add(-1)
	}
	return b.ReadCloser.Close()
}

type upgradedBody struct {
	*countedBody
	rw io.ReadWriteCloser
}

func (b *upgradedBody) Write(p []byte) (int, error) { return b.rw.Write(p) }

func (b *upgradedBody) CloseWrite() error {
	if c, ok := b.rw.(interface{ CloseWrite() error }); ok {
		return c.CloseWrite()
	}
	return errors.ErrUnsupported
}
