package host

import (
	"runtime"
	"sync"
	"sync/atomic"
	"testing"
	"time"
)

func TestTheProcessorIsSeenToBeBusy(t *testing.T) {
	p, err := watchProcessor()
	if err != nil {
		t.Fatal(err)
	}
	defer p.close()
	within := func(what string, ok func(time.Duration) bool) {
		t.Helper()
		for end := time.Now().Add(30 * time.Second); !ok(p.queued()); runtime.Gosched() {
			if time.Now().After(end) {
				t.Fatalf("%s: %s", what, p.queued())
			}
		}
	}
	within("nothing has been measured", func(d time.Duration) bool { return d > 0 })
	idle := p.queued()

	var stop atomic.Bool
	var busy sync.WaitGroup
	for range 50 * runtime.GOMAXPROCS(0) {
		busy.Go(func() {
			for !stop.Load() {
				for range 100_000 { //nolint:revive // it is to keep a processor busy
				}
				runtime.Gosched()
			}
		})
	}
	defer busy.Wait()
	defer stop.Store(true)
	within("with fifty at work for each processor", func(d time.Duration) bool { return d > idle+time.Millisecond })
}

// What came in late says how long it waited, and is not old itself.
func TestALongWaitForTheProcessorIsNoSilence(t *testing.T) {
	p, err := watchProcessor()
	if err != nil {
		t.Fatal(err)
	}
	defer p.close()
	p.start = p.start.Add(-time.Second) // a byte was sent then
	p.underWay.Store(true)
	if _, err := p.in.Write([]byte{0}); err != nil {
		t.Fatal(err)
	}
	for p.underWay.Load() {
		runtime.Gosched()
	}
	if d := p.queued(); d < time.Second/16 {
		t.Errorf("after a wait of a second: %s", d)
	}
}
