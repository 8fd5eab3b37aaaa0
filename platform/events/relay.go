package events

import (
	"context"
	"log/slog"
	"maps"
	"math/bits"
	"math/rand/v2"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/ThreeDotsLabs/watermill/message"

	"github.com/banyan-shop/banyan/platform/failpoint"
)

// relay moves one module's events from its outbox to the carrier. One goroutine talks to the table, sixteen publish: each
// has the keys of one shard, in order, so that a key that is slow to be taken holds up only its shard.
type relay struct {
	module   string
	outbox   outbox
	carrier  Carrier
	log      *slog.Logger
	metrics  *metrics
	activity func() // called when something moved, for WaitIdle
	batch    int    // most events in flight
	poll     time.Duration
	lease    time.Duration
	keep     time.Duration // age at which sent events leave the outbox
	resend   time.Duration // what is sent again to a broker that was restarted and can't tell what it holds
	refusals atomic.Int64  // of the carrier, in a row
}

// markAfter is how long a sent event may wait to be marked together with others.
const markAfter = 10 * time.Millisecond

// run relays until ctx ends. With a broker it does so in sessions, one a connection, since a broker that was away may have
// forgotten the last it took.
func (r *relay) run(ctx context.Context) {
	broker, ok := r.carrier.(Broker)
	if !ok {
		r.session(ctx, ctx, r.carrier.Publisher().Publish)
		return
	}
	for failures := 0; ctx.Err() == nil; {
		c, err := broker.Connect(ctx)
		if err == nil {
			session, end := context.WithCancel(ctx)
			ended := make(chan struct{})
			go func() {
				defer close(ended)
				select {
				case <-c.Lost():
					end()
				case <-session.Done():
				}
			}()
			var forgotten int
			if forgotten, err = r.heal(session, c); err == nil {
				failures = 0
				if forgotten > 0 {
					r.metrics.rewound.WithLabelValues(r.module).Add(float64(forgotten))
					r.log.Warn("the broker may have forgotten events that it took; they are sent again", "module", r.module, "events", forgotten)
				}
				r.session(ctx, session, c.Publish)
			}
			if session.Err() != nil {
				err = nil // the connection was lost again
			}
			end()
			<-ended
		}
		if err == nil || ctx.Err() != nil {
			continue
		}
		if failures++; worthLogging(failures) {
			r.log.Error("compare the outbox with the broker", "module", r.module, "failures", failures, "err", err)
		}
		pause(ctx, backoff(failures, 100*time.Millisecond, 5*time.Second))
	}
}

// session relays until ctx ends and gives back the leases of what is not marked. life is that of the relay: while it lasts,
// the end of ctx means that the connection is lost, and what was taken by it but not yet marked is sent again.
func (r *relay) session(life, ctx context.Context, publish func(topic string, messages ...*message.Message) error) {
	var (
		inflight = map[string]struct{}{}
		done     []string                     // taken, not yet marked
		sent     = make(chan string, r.batch) // never blocks: no more than batch are in flight
		shards   [Shards]chan record
		workers  sync.WaitGroup
	)
	for i := range shards {
		shards[i] = make(chan record, r.batch)
		workers.Go(func() {
			for rec := range shards[i] {
				if r.send(ctx, publish, rec) {
					sent <- rec.ID
				}
			}
		})
	}

	poll := time.NewTicker(r.poll)
	defer poll.Stop()
	renew := time.NewTicker(r.lease / 3)
	defer renew.Stop()
	var flush <-chan time.Time // set while done holds something
	wanted := true             // a crash may have left events
	failures := 0

	for ctx.Err() == nil {
		due := false
		if !wanted || len(inflight)-len(done) > r.batch/2 {
			select {
			case <-ctx.Done():
				continue
			case <-r.outbox.db.Woken():
				wanted = true
			case <-poll.C:
				yes, err := r.outbox.isWaiting(ctx)
				wanted = wanted || yes || err != nil
			case id := <-sent:
				done = append(done, id)
			case <-flush:
				due = true
			case <-renew.C:
				if len(inflight) > 0 {
					if err := r.outbox.renewLeases(ctx, slices.Collect(maps.Keys(inflight)), r.lease); err != nil && ctx.Err() == nil {
						r.log.Warn("renew leases of events", "module", r.module, "err", err)
					}
				}
			}
		}
		for more := true; more; {
			select {
			case id := <-sent:
				done = append(done, id)
			default:
				more = false
			}
		}
		if len(done) > 0 && flush == nil {
			flush = time.After(markAfter)
		}

		room := 0
		if wanted && len(inflight)-len(done) <= r.batch/2 {
			room = r.batch - len(inflight)
		}
		mark := due || len(done) >= r.batch/4 || len(done) > 0 && len(done) == len(inflight)
		if room <= 0 && !mark {
			continue
		}
		flush = nil
		claimed, err := r.outbox.markAndClaim(ctx, done, room, r.lease, slices.Collect(maps.Keys(inflight)))
		if err != nil {
			if ctx.Err() != nil {
				break
			}
			if failures++; worthLogging(failures) {
				r.log.Error("claim events", "module", r.module, "failures", failures, "err", err)
			}
			pause(ctx, backoff(failures, r.poll, 5*time.Second))
			continue
		}
		failures = 0
		if len(done) > 0 {
			failpoint.Hit("events.relay.after-mark")
			for _, id := range done {
				delete(inflight, id)
			}
			r.metrics.relayed.WithLabelValues(r.module).Add(float64(len(done)))
			done = done[:0]
			r.activity()
		}
		if room > 0 {
			wanted = len(claimed) == room // a full batch: there may be more
		}
		if len(claimed) > 0 {
			failpoint.Hit("events.relay.after-claim")
		}
		for _, rec := range claimed {
			inflight[rec.ID] = struct{}{}
			shards[shardOf(rec.Key)] <- rec
		}
	}

	for i := range shards {
		close(shards[i])
	}
	workers.Wait()
	close(sent)
	for id := range sent {
		done = append(done, id)
	}
	if life.Err() == nil {
		done = nil
	}
	r.laydown(context.WithoutCancel(ctx), inflight, done)
}

// laydown leaves the table so that the next relay need not wait for a lease to run out.
func (r *relay) laydown(ctx context.Context, inflight map[string]struct{}, done []string) {
	ctx, cancel := context.WithTimeout(ctx, 5*time.Second)
	defer cancel()
	for _, id := range done {
		delete(inflight, id)
	}
	if len(done) > 0 {
		if _, err := r.outbox.markAndClaim(ctx, done, 0, 0, nil); err != nil {
			r.log.Warn("mark events at the end; they will be sent again", "module", r.module, "events", len(done), "err", err)
		}
		r.activity()
	}
	if len(inflight) > 0 {
		if err := r.outbox.releaseLeases(ctx, slices.Collect(maps.Keys(inflight))); err != nil {
			r.log.Warn("give back leases of events; they wait until the leases end", "module", r.module, "events", len(inflight), "err", err)
		}
	}
}

// send publishes one event and says whether the carrier took it. An outage of the carrier costs no attempts: it goes on
// trying, with growing pauses, until ctx ends.
func (r *relay) send(ctx context.Context, publish func(topic string, messages ...*message.Message) error, rec record) bool {
	for failures := 0; ctx.Err() == nil; {
		failpoint.Hit("events.relay.before-publish")
		msg := rec.message()
		msg.SetContext(ctx)
		err := publish(Topic(rec.Name, rec.Key), msg)
		if err == nil {
			failpoint.Hit("events.relay.after-publish")
			if r.refusals.Load() > 0 {
				r.refusals.Store(0)
			}
			return true
		}
		if ctx.Err() != nil {
			return false
		}
		r.metrics.refused.WithLabelValues(r.module).Inc()
		// All shards fail together when the carrier is away: they log as one.
		if n := int(r.refusals.Add(1)); worthLogging(n) {
			r.log.Error("publish event", "module", r.module, "event", rec.Name, "id", rec.ID, "failures", n, "err", err)
		}
		failures++
		pause(ctx, backoff(failures, 100*time.Millisecond, 10*time.Second))
	}
	return false
}

// worthLogging is true for the 1st, 2nd, 4th, 8th … failure in a row.
func worthLogging(failures int) bool { return bits.OnesCount(uint(failures)) == 1 }

// backoff doubles from base with each failure up to limit, less up to a quarter so that many do not come back together.
func backoff(failures int, base, limit time.Duration) time.Duration {
	d := base << min(max(failures-1, 0), 30)
	if d > limit || d <= 0 {
		d = limit
	}
	return d - rand.N(d/4+1)
}

func pause(ctx context.Context, d time.Duration) {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-ctx.Done():
	case <-t.C:
	}
}
