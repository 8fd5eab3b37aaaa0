// Package broker is what the carriers with a broker have in common: a connection that is made again and again, and messages
// handed to a hearer one by one. It knows no broker.
package broker

import (
	"context"
	"errors"
	"log/slog"
	"math/bits"
	"math/rand/v2"
	"sync"
	"time"

	"github.com/ThreeDotsLabs/watermill/message"
)

// ErrClosed is what everything says after Close.
var ErrClosed = errors.New("carrier is closed")

// ErrAway is what a publish says while there is no connection.
var ErrAway = errors.New("no connection to the broker")

// Conn is one connection. It does not heal; Close loses it.
type Conn interface {
	Lost() <-chan struct{}
	Close()
}

// Keeper keeps a connection: it dials until it has one, and again when that is lost.
type Keeper[C Conn] struct {
	stop, stopHearing context.CancelFunc
	running, hearing  sync.WaitGroup
	life              context.Context // of the subscriptions

	mu      sync.Mutex
	current *C
	changed chan struct{} // closed when current is another
	closed  bool
}

// Keep starts a keeper and returns after its first try to dial, or when ctx ends. dial's errors are logged as they are, so
// they name no secret.
func Keep[C Conn](ctx context.Context, log *slog.Logger, dial func(context.Context) (C, error)) *Keeper[C] {
	life, stop := context.WithCancel(context.WithoutCancel(ctx))
	k := &Keeper[C]{stop: stop, changed: make(chan struct{})}
	k.life, k.stopHearing = context.WithCancel(life)
	tried := make(chan struct{})
	k.running.Go(func() { k.run(life, log, dial, sync.OnceFunc(func() { close(tried) })) })
	select {
	case <-tried:
	case <-ctx.Done():
	}
	return k
}

func (k *Keeper[C]) run(ctx context.Context, log *slog.Logger, dial func(context.Context) (C, error), tried func()) {
	for failures := 0; ctx.Err() == nil; {
		dialing, cancel := context.WithTimeout(ctx, 10*time.Second)
		c, err := dial(dialing)
		cancel()
		if err != nil {
			tried()
			// The 1st, 2nd, 4th, 8th … failure in a row.
			if failures++; bits.OnesCount(uint(failures)) == 1 && ctx.Err() == nil {
				log.Error("connect to the broker", "failures", failures, "err", err)
			}
			Pause(ctx, min(100*time.Millisecond<<min(failures-1, 6), 2*time.Second))
			continue
		}
		if failures > 0 {
			log.Info("connected to the broker", "failures", failures)
		}
		failures = 0
		k.set(&c)
		tried()
		select {
		case <-ctx.Done():
		case <-c.Lost():
			log.Warn("lost the connection to the broker")
		}
		k.set(nil)
		c.Close()
	}
}

func (k *Keeper[C]) set(c *C) {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.current = c
	close(k.changed)
	k.changed = make(chan struct{})
}

// Connect waits for a connection. Its error is that of ctx, or ErrClosed.
func (k *Keeper[C]) Connect(ctx context.Context) (C, error) {
	for {
		k.mu.Lock()
		c, changed, closed := k.current, k.changed, k.closed
		k.mu.Unlock()
		switch {
		case closed:
			return *new(C), ErrClosed
		case c != nil:
			return *c, nil
		}
		select {
		case <-ctx.Done():
			return *new(C), ctx.Err()
		case <-changed:
		}
	}
}

// Current is the connection, if there is one: else ErrAway or ErrClosed.
func (k *Keeper[C]) Current() (C, error) {
	k.mu.Lock()
	defer k.mu.Unlock()
	switch {
	case k.closed:
		return *new(C), ErrClosed
	case k.current == nil:
		return *new(C), ErrAway
	}
	return *k.current, nil
}

// Close ends the subscriptions, so that what they hold goes to others at once, and then the connection, and waits for both.
// It may be called twice.
func (k *Keeper[C]) Close() {
	k.mu.Lock()
	if !k.closed {
		k.closed = true
		close(k.changed)
		k.changed = make(chan struct{})
	}
	k.mu.Unlock()
	k.stopHearing()
	k.hearing.Wait()
	k.stop()
	k.running.Wait()
}

// Attach serves one subscription: it calls consume for each connection, which returns when the connection is lost, ctx ends
// or the broker takes the subscription away, and says by ready that it hears. Attach returns when the first consume does so,
// or at once while there is no connection; end is called when no consume will be called any more.
func (k *Keeper[C]) Attach(ctx context.Context, log *slog.Logger, topic string, consume func(ctx context.Context, c C, ready func()) error, end func()) {
	attached := make(chan struct{})
	ready := sync.OnceFunc(func() { close(attached) })
	k.mu.Lock()
	if k.closed {
		k.mu.Unlock()
		end()
		return
	}
	k.hearing.Go(func() {
		defer end()
		ctx, cancel := context.WithCancel(ctx)
		defer cancel()
		defer context.AfterFunc(k.life, cancel)()
		for failures := 0; ; {
			c, err := k.Connect(ctx)
			if err != nil {
				return
			}
			begun := time.Now()
			during, done := context.WithCancel(ctx)
			k.hearing.Go(func() {
				select {
				case <-c.Lost():
					done()
				case <-during.Done():
				}
			})
			err = consume(during, c, ready)
			lost := during.Err() != nil
			done()
			if lost || err == nil {
				failures = 0
				if !lost {
					Pause(ctx, 10*time.Millisecond)
				}
				continue
			}
			if time.Since(begun) > time.Minute {
				failures = 0
			}
			if failures++; bits.OnesCount(uint(failures)) == 1 {
				log.Error("hear from the broker", "topic", topic, "failures", failures, "err", err)
			}
			Pause(ctx, min(50*time.Millisecond<<min(failures-1, 6), 2*time.Second))
		}
	})
	k.mu.Unlock()
	c, err := k.Current()
	if err != nil {
		return
	}
	select {
	case <-attached:
	case <-c.Lost():
	case <-ctx.Done():
	case <-time.After(10 * time.Second):
	}
}

// Verdict on a message that was handed over.
type Verdict int

const (
	Gone   Verdict = iota // nobody will say any more: the connection is lost or nobody hears
	Acked                 // it need not come again
	Nacked                // it comes again
)

// Hand gives msg to whoever reads out and waits for the verdict, until ctx ends. While it waits it calls alive, when not nil,
// each beat.
func Hand(ctx context.Context, out chan<- *message.Message, msg *message.Message, beat time.Duration, alive func()) Verdict {
	var tick <-chan time.Time
	if alive != nil {
		t := time.NewTicker(beat)
		defer t.Stop()
		tick = t.C
	}
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	msg.SetContext(ctx)
	for to := out; ; {
		select {
		case to <- msg:
			to = nil
		case <-tick:
			alive()
		case <-msg.Acked():
			return Acked
		case <-msg.Nacked():
			return Nacked
		case <-ctx.Done():
			return Gone
		}
	}
}

// Pause waits about d, so that many do not come back together, or until ctx ends.
func Pause(ctx context.Context, d time.Duration) {
	t := time.NewTimer(d - rand.N(d/4+1))
	defer t.Stop()
	select {
	case <-ctx.Done():
	case <-t.C:
	}
}
