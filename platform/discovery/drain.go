package discovery

import (
	"bufio"
	"context"
	"errors"
	"io"
	"net"
	"net/http"
	"sync"
	"sync/atomic"
	"time"
)

// drainingHeader on an answer says that its instance is about to stop. It is in canonical form, to be looked up in the map.
const drainingHeader = "Banyan-Draining"

// Draining marks the answers of a process that is about to stop: while draining is true an answer carries the mark and closes
// its connection, also when the request came before. To lose nothing: let draining be true, leave Consul, keep serving until
// balancers have noticed, then Listener.Drain, and http.Server.Shutdown last.
func Draining(next http.Handler, draining func() bool) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		d := &drainingWriter{ResponseWriter: w, draining: draining}
		next.ServeHTTP(d, r)
		d.mark() // of an answer that is empty
	})
}

// drainingWriter decides when the header is written: a request may outlast the moment the process begins to stop.
type drainingWriter struct {
	http.ResponseWriter
	draining func() bool
	written  bool
}

func (w *drainingWriter) mark() {
	if !w.written && w.draining() {
		w.Header().Set(drainingHeader, "1")
		w.Header().Set("Connection", "close")
	}
	w.written = true
}

func (w *drainingWriter) WriteHeader(status int) {
	if status >= http.StatusOK { // those below are not the answer yet, or 101, whose Connection header is taken
		w.mark()
	}
	w.ResponseWriter.WriteHeader(status)
}

func (w *drainingWriter) Write(p []byte) (int, error) {
	w.mark()
	return w.ResponseWriter.Write(p)
}

// ReadFrom leaves copying to the server, which may have the kernel do it.
func (w *drainingWriter) ReadFrom(r io.Reader) (int64, error) {
	w.mark()
	return io.Copy(w.ResponseWriter, r)
}

// Flush, Hijack and Unwrap are for those who ask the writer itself, and for http.ResponseController.
func (w *drainingWriter) Flush() {
	w.mark()
	_ = http.NewResponseController(w.ResponseWriter).Flush()
}

func (w *drainingWriter) Hijack() (net.Conn, *bufio.ReadWriter, error) {
	return http.NewResponseController(w.ResponseWriter).Hijack()
}

func (w *drainingWriter) Unwrap() http.ResponseWriter { return w.ResponseWriter }

// Listener lets the connections of a server end before the server does. http.Server.Shutdown closes those that look idle, and
// drops a request that it has read but not begun; a caller can't know then whether it may ask again.
type Listener struct {
	net.Listener
	draining    chan struct{} // closed by Drain
	left        chan struct{} // closed when Accept waits on us, no more on the network
	closed      chan struct{}
	late        chan net.Conn // made before the listener closed, and not accepted yet
	drain, exit sync.Once
	close       sync.Once

	mu    sync.Mutex
	conns int
	none  chan struct{} // closed when there are none any more; nil: nobody waits
}

// NewListener counts the connections of l, for Drain. If there is TLS, it goes around this one.
func NewListener(l net.Listener) *Listener {
	return &Listener{Listener: l, draining: make(chan struct{}), left: make(chan struct{}), closed: make(chan struct{}), late: make(chan net.Conn)}
}

// Accept fails only after Close, not after Drain.
func (l *Listener) Accept() (net.Conn, error) {
	c, err := l.Listener.Accept()
	if err == nil {
		l.count(1)
		return &conn{Conn: c, l: l}, nil
	}
	select {
	case <-l.draining:
	default:
		return nil, err
	}
	l.exit.Do(func() { close(l.left) })
	select {
	case c := <-l.late:
		return c, nil
	case <-l.closed:
		return nil, net.ErrClosed
	}
}

// stop closes the listener so that no connection is lost which a caller believes to have: the kernel makes them before they are
// accepted, and resets those when the listener closes. So Accept leaves first, for the socket is closed only when nobody waits
// on it; then the kernel's queue is emptied, and the socket closed at once.
func (l *Listener) stop(ctx context.Context) {
	close(l.draining)
	if d, ok := l.Listener.(interface{ SetDeadline(time.Time) error }); ok && d.SetDeadline(time.Unix(1, 0)) == nil {
		select {
		case <-l.left:
		case <-ctx.Done():
		}
	}
	for _, c := range closeEmpty(l.Listener) {
		l.count(1)
		c = &conn{Conn: c, l: l}
		select {
		case l.late <- c:
		case <-ctx.Done():
			_ = c.Close()
		case <-l.closed:
			_ = c.Close()
		}
	}
}

// Drain takes no more connections, so that callers go elsewhere, and serves on those there are: each ends with its next answer,
// if Draining marks it, or when its caller finds it idle. Drain returns when all have ended, after a little more than
// IdleTimeout at the latest, or when ctx ends.
func (l *Listener) Drain(ctx context.Context) {
	ctx, cancel := context.WithTimeout(ctx, IdleTimeout+time.Second)
	defer cancel()
	l.drain.Do(func() { l.stop(ctx) })
	l.mu.Lock()
	none := l.none
	if none == nil {
		none = make(chan struct{})
		if l.conns == 0 {
			close(none)
		} else {
			l.none = none
		}
	}
	l.mu.Unlock()
	select {
	case <-none:
	case <-ctx.Done():
	}
}

func (l *Listener) Close() error {
	l.close.Do(func() { close(l.closed) })
	select {
	case <-l.draining:
		return nil
	default:
		return l.Listener.Close()
	}
}

func (l *Listener) count(n int) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.conns += n; l.conns == 0 && l.none != nil {
		close(l.none)
		l.none = nil
	}
}

type conn struct {
	net.Conn
	l      *Listener
	closed atomic.Bool
}

func (c *conn) Close() error {
	if !c.closed.Swap(true) {
		defer c.l.count(-1)
	}
	return c.Conn.Close()
}

// ReadFrom and CloseWrite are of the TCP connection, for net/http.
func (c *conn) ReadFrom(r io.Reader) (int64, error) { return io.Copy(c.Conn, r) }

func (c *conn) CloseWrite() error {
	if w, ok := c.Conn.(interface{ CloseWrite() error }); ok {
		return w.CloseWrite()
	}
	return errors.ErrUnsupported
}
