package host

import (
	"fmt"
	"os"
	"sync/atomic"
	"time"
)

// processor tells how long it takes at present until what has come over a connection is looked at. When there is more to do than the
// processors can, Go's scheduler sees late that there is something to read, so that this grows well before its run queues do.
type processor struct {
	in, out *os.File
	start   time.Time
	sent    atomic.Int64 // when the byte under way was sent, since start; 0 when none is
	wait    atomic.Int64 // on average of late
}

const askProcessor = 10 * time.Millisecond // between two looks

// watchProcessor sends itself a byte every now and then, until it is closed.
func watchProcessor() (*processor, error) {
	out, in, err := os.Pipe()
	if err != nil {
		return nil, fmt.Errorf("watch the processor: %w", err)
	}
	p := &processor{in: in, out: out, start: time.Now()}
	go p.send()
	go p.receive()
	return p, nil
}

func (p *processor) close() { p.in.Close() }

func (p *processor) send() {
	tick := time.NewTicker(askProcessor)
	defer tick.Stop()
	for range tick.C {
		if !p.sent.CompareAndSwap(0, int64(time.Since(p.start))) {
			continue
		}
		if _, err := p.in.Write([]byte{0}); err != nil {
			return // closed
		}
	}
}

func (p *processor) receive() {
	defer p.out.Close()
	for b := make([]byte, 1); ; {
		if _, err := p.out.Read(b); err != nil {
			return
		}
		took, wait := int64(time.Since(p.start))-p.sent.Load(), p.wait.Load()
		p.wait.Store(wait + (took-wait)/8)
		p.sent.Store(0)
	}
}

func (p *processor) queued() time.Duration { return time.Duration(p.wait.Load()) }
