package discovery

import (
	"context"
	"errors"
	"io"
	"net"
	"sync"
	"sync/atomic"
	"time"
)

// Intake is a listener that stops taking connections before its server stops serving: http.Server.Shutdown drops the first
// request of a connection that it has just taken, unanswered, and no client can know whether it was served.
//
// To stop a server without that, mark answers as Draining does, call Stop, and then http.Server.Shutdown.
type Intake struct {
	net.Listener
	closed     chan struct{}
	close      sync.Once
	stopped    atomic.Bool
	unanswered atomic.Int64
}

// NewIntake takes connections from l.
func NewIntake(l net.Listener) *Intake { return &Intake{Listener: l, closed: make(chan struct{})} }

// Accept waits for Close once Stop has been called, so that the server does not take Stop for a failure.
func (i *Intake) Accept() (net.Conn, error) {
	c, err := i.Listener.Accept()
	if err != nil && i.stopped.Load() {
		<-i.closed
		return nil, net.ErrClosed
	}
	tcp, ok := c.(*net.TCPConn)
	if err != nil || !ok {
		return c, err
	}
	i.unanswered.Add(1)
	t := &taken{TCPConn: tcp, intake: i}
	t.waits.Store(true)
	return t, nil
}

// Close is for the server.
func (i *Intake) Close() error {
	i.close.Do(func() { close(i.closed) })
	if err := i.Listener.Close(); err != nil && !errors.Is(err, net.ErrClosed) {
		return err
	}
	return nil
}

// silence is how long a connection may say nothing before it is taken for one that was opened in reserve.
const silence = time.Second

// Stop refuses new connections, and returns when every request of those it has taken is being answered, or ctx ends.
func (i *Intake) Stop(ctx context.Context) error {
	i.stopped.Store(true)
	err := i.Listener.Close()
	ctx, cancel := context.WithTimeout(ctx, silence)
	defer cancel()
	tick := time.NewTicker(5 * time.Millisecond)
	defer tick.Stop()
	for i.unanswered.Load() > 0 {
		select {
		case <-ctx.Done():
			return err
		case <-tick.C:
		}
	}
	return err
}

// taken is a connection of an Intake. It is unanswered when it is new, and from the first byte of a request to the first of its
// answer.
type taken struct {
	*net.TCPConn
	intake *Intake
	waits  atomic.Bool
}

func (t *taken) asks() {
	if !t.waits.Load() && t.waits.CompareAndSwap(false, true) {
		t.intake.unanswered.Add(1)
	}
}

func (t *taken) answers() {
	if t.waits.Load() && t.waits.CompareAndSwap(true, false) {
		t.intake.unanswered.Add(-1)
	}
}

func (t *taken) Read(p []byte) (int, error) {
	n, err := t.TCPConn.Read(p)
	if n > 0 {
		t.asks()
	}
	return n, err
}

func (t *taken) Write(p []byte) (int, error) {
	t.answers()
	return t.TCPConn.Write(p)
}

func (t *taken) ReadFrom(r io.Reader) (int64, error) {
	t.answers()
	return t.TCPConn.ReadFrom(r)
}

func (t *taken) Close() error {
	t.answers()
	return t.TCPConn.Close()
}
