package host

import (
	"fmt"
	"os"
	"sync/atomic"
	"time"
)

// processor tells how long it takes at present until what has come over a connection is looked at. When there is more to do than the
// processors can, Go's scheduler sees late that there is something to read, so that this grows well before its run queues do.
//
// It looks only while somebody asks: a process that has nothing to do is not to be woken for it.
type processor struct {
	in, out  *os.File
	start    time.Time
	last     atomic.Int64 // when the last byte was sent or, since then, read; since start
	underWay atomic.Bool  // it has not been read yet
	wait     atomic.Int64 // on average of late
}

const (
	askProcessor = 10 * time.Millisecond // between two looks
	ofLate       = 20 * askProcessor     // what was longer ago says nothing
)

func watchProcessor() (*processor, error) {
	out, in, err := os.Pipe()
	if err != nil {
		return nil, fmt.Errorf("watch the processor: %w", err)
	}
	p := &processor{in: in, out: out, start: time.Now()}
	go p.receive()
	return p, nil
}

func (p *processor) close() { p.in.Close() }

// queued is how long a byte in a pipe has waited of late. It sends the next one if it is time.
func (p *processor) queued() time.Duration {
	if p.age() >= askProcessor && p.underWay.CompareAndSwap(false, true) {
		if p.age() > ofLate { // anew, for whoever came by here may have been held up
			p.wait.Store(0)
		}
		p.last.Store(int64(time.Since(p.start)))
		_, _ = p.in.Write([]byte{0}) // fails once it is closed, and then nobody serves any more
	}
	return time.Duration(p.wait.Load())
}

func (p *processor) age() time.Duration { return time.Since(p.start) - time.Duration(p.last.Load()) }

func (p *processor) receive() {
	defer p.out.Close()
	for b := make([]byte, 1); ; {
		if _, err := p.out.Read(b); err != nil {
			return
		}
		now, wait := int64(time.Since(p.start)), p.wait.Load()
		p.wait.Store(wait + (now-p.last.Load()-wait)/8)
		p.last.Store(now) // a wait longer than ofLate is of late all the same
		p.underWay.Store(false)
	}
}
