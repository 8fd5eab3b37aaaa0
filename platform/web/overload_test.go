package web_test

import (
	"context"
	"fmt"
	"math/rand/v2"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/banyan-shop/banyan/platform/errs"
	"github.com/banyan-shop/banyan/platform/urgency"
	"github.com/banyan-shop/banyan/platform/web"
)

// plant is a process with a bounded capacity, in virtual time: workers do one request at a time each, the others queue.
type plant struct {
	work    chan struct{}
	mu      sync.Mutex
	service time.Duration // of a worker
	apart   time.Duration // what checkouts wait for somebody else besides
	face    *web.Server
}

// patience is what a shop has when nobody has set web.overload.
const patience = 70 * time.Millisecond

func newPlant(t *testing.T, workers int, service time.Duration, o web.Overload) *plant {
	p := &plant{work: make(chan struct{}, workers), service: service}
	job := func(checkout bool) func(context.Context, *struct{}) (*web.Reply[string], error) {
		return func(ctx context.Context, _ *struct{}) (*web.Reply[string], error) {
			p.mu.Lock()
			service, apart := p.service, p.apart
			p.mu.Unlock()
			began := time.Now()
			p.work <- struct{}{}
			urgency.Of(ctx).Wait(time.Now(), time.Since(began))
			<-time.After(time.Duration((0.5 + rand.Float64()) * float64(service)))
			<-p.work
			if checkout && apart > 0 {
				<-time.After(apart)
			}
			return &web.Reply[string]{Body: "done"}, nil
		}
	}
	p.face = faced(t, web.Config{Overload: o}, func(r *web.Router) {
		web.Get(r, "/v1/list", web.Public, web.Route{ID: "list", Criticality: web.Sheddable}, job(false))
		web.Get(r, "/v1/cart", web.Public, web.Route{ID: "cart"}, job(false))
		web.Post(r, "/v1/checkout", web.Public, web.Route{ID: "checkout", Criticality: web.Critical}, job(true))
		web.Get(r, "/v1/poll", web.Public, web.Route{ID: "poll", LongPoll: true}, func(context.Context, *struct{}) (*web.Reply[string], error) {
			<-time.After(20 * time.Second)
			return &web.Reply[string]{Body: "nothing new"}, nil
		})
	})
	return p
}

func (p *plant) set(service, apart time.Duration) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.service, p.apart = service, apart
}

// outcome is one request's.
type outcome struct {
	path   string
	at     time.Duration // when it came
	took   time.Duration
	status int
}

// mix is what customers ask for: of ten requests six lists, three carts, one checkout.
var mix = [...]string{"GET /v1/list", "GET /v1/cart", "GET /v1/list", "POST /v1/checkout", "GET /v1/list", "GET /v1/cart", "GET /v1/list", "GET /v1/list", "GET /v1/cart", "GET /v1/list"}

// run sends perSecond requests a second for d, whatever becomes of them, and returns their outcomes.
func (p *plant) run(perSecond int, d time.Duration) []outcome {
	var all []outcome
	var mu sync.Mutex
	var running sync.WaitGroup
	began := time.Now()
	tick := time.NewTicker(time.Second / time.Duration(perSecond))
	defer tick.Stop()
	for i := 0; time.Since(began) < d; i++ {
		<-tick.C
		at := time.Since(began)
		running.Go(func() {
			method, path, _ := strings.Cut(mix[i%len(mix)], " ")
			w := &status{header: http.Header{}}
			p.face.Handler().ServeHTTP(w, httptest.NewRequest(method, path, nil))
			mu.Lock()
			defer mu.Unlock()
			all = append(all, outcome{path, at, time.Since(began) - at, w.status})
		})
	}
	running.Wait()
	return all
}

type status struct {
	header http.Header
	status int
}

func (s *status) Header() http.Header         { return s.header }
func (s *status) Write(b []byte) (int, error) { return len(b), nil }
func (s *status) WriteHeader(n int)           { s.status = n }

// good is how many were answered within half a second, a second; p99 the time of nearly all that were let in.
func measure(all []outcome, d time.Duration, match func(outcome) bool) (good, refused float64, p99 time.Duration) {
	var took []time.Duration
	n := 0.0
	for _, o := range all {
		if !match(o) {
			continue
		}
		n++
		if o.status == http.StatusServiceUnavailable {
			refused++
			continue
		}
		took = append(took, o.took)
		if o.took < 500*time.Millisecond {
			good++
		}
	}
	if len(took) > 0 {
		slices.Sort(took)
		p99 = took[int(float64(len(took)-1)*0.99)]
	}
	return good / d.Seconds(), refused / max(n, 1), p99
}

func everything(outcome) bool { return true }

func TestOverload(t *testing.T) {
	t.Parallel()
	o := web.Overload{Delay: patience}
	seconds := 60 * time.Second
	if testing.Short() {
		seconds = 12 * time.Second
	}
	for _, c := range []struct {
		workers int
		service time.Duration
	}{{10, 10 * time.Millisecond}, {2, 4 * time.Millisecond}, {40, 100 * time.Millisecond}, {1, 20 * time.Millisecond}} {
		capacity := float64(c.workers) / c.service.Seconds()
		t.Run(fmt.Sprintf("%d workers, %s", c.workers, c.service), func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				p := newPlant(t, c.workers, c.service, o)
				calm := p.run(int(capacity/2), 5*time.Second)
				warm := func(o outcome) bool { return o.at > 2*time.Second } // when it is known how fast things are
				if _, refused, _ := measure(calm, 3*time.Second, warm); refused > 0 {
					t.Errorf("at half of the capacity %.2f %% are turned away", refused*100)
				}
				storm := p.run(int(capacity*5), seconds)
				good, _, _ := measure(storm, seconds, everything)
				_, _, p99 := measure(storm, seconds, warm)
				if good < 0.8*capacity {
					t.Errorf("of %.0f/s only %.0f/s are well served", capacity, good)
				}
				if p99 > 500*time.Millisecond {
					t.Errorf("99 %% of those let in are served within %s", p99)
				}
				on := func(path string) func(outcome) bool {
					return func(o outcome) bool { return o.path == path && warm(o) }
				}
				_, lists, _ := measure(storm, seconds, on("/v1/list"))
				_, carts, _ := measure(storm, seconds, on("/v1/cart"))
				_, checkouts, _ := measure(storm, seconds, on("/v1/checkout"))
				if checkouts > 0.1 || carts > lists {
					t.Errorf("turned away: lists %.2f, carts %.2f, checkouts %.2f", lists, carts, checkouts)
				}
				t.Logf("capacity %.0f/s, good %.0f/s, p99 %s, turned away: lists %.2f, carts %.2f, checkouts %.2f", capacity, good, p99, lists, carts, checkouts)
				after := p.run(int(capacity/2), 8*time.Second)
				if _, refused, p99 := measure(after, 3*time.Second, func(o outcome) bool { return o.at > 5*time.Second }); refused > 0 || p99 > 5*c.service+50*time.Millisecond {
					t.Errorf("5 s after: %.3f turned away, p99 %s", refused, p99)
				}
				var burst sync.WaitGroup
				for range 40 {
					burst.Go(func() {
						w := &status{header: http.Header{}}
						p.face.Handler().ServeHTTP(w, httptest.NewRequest("GET", "/v1/list", nil))
						if w.status != http.StatusOK {
							t.Errorf("8 s after, one of forty lists at once got %d", w.status)
						}
					})
				}
				burst.Wait()
			})
		})
	}
}

func TestOverloadWithASlowProvider(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		p := newPlant(t, 10, 10*time.Millisecond, web.Overload{Delay: patience})
		p.run(500, 3*time.Second)
		p.set(10*time.Millisecond, 400*time.Millisecond) // checkouts wait for somebody else, and may be 256 at once
		const seconds = 20 * time.Second
		storm := p.run(5000, seconds)
		good, late := 0, 0
		for _, o := range storm {
			if o.status != 503 && (o.took < 500*time.Millisecond || o.path == "/v1/checkout" && o.took < 900*time.Millisecond) {
				good++
				if o.at > seconds/2 {
					late++
				}
			}
		}
		_, checkouts, _ := measure(storm, seconds/2, func(o outcome) bool { return o.path == "/v1/checkout" && o.at > seconds/2 })
		t.Logf("good %.0f/s, in the second half %.0f/s with %.3f of the checkouts turned away", float64(good)/seconds.Seconds(), float64(late)/(seconds/2).Seconds(), checkouts)
		if perSecond := float64(good) / seconds.Seconds(); perSecond < 800 {
			t.Errorf("of 1000/s only %.0f/s are well served", perSecond)
		}
		if checkouts > 0.1 {
			t.Errorf("%.2f of the checkouts are turned away", checkouts)
		}
	})
}

func TestWhatHasBecomeSlowByItselfIsLetIn(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		p := newPlant(t, 10_000, 10*time.Millisecond, web.Overload{Delay: patience})
		p.run(500, 3*time.Second)
		p.set(2*time.Second, 0) // 1000 at once, and nobody in the other's way
		answered := 0
		for _, o := range p.run(500, 60*time.Second) {
			if o.at > 50*time.Second && o.status == http.StatusOK {
				answered++
			}
		}
		if answered < 1000 { // a tenth of that if it were taken for a queue
			t.Errorf("%d requests a second are let in after most of a minute, of 500", answered/10)
		}
		t.Logf("%d/s of 500", answered/10)
	})
}

func TestOverloadComesAndGoesWithTheCapacity(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		p := newPlant(t, 10, 5*time.Millisecond, web.Overload{Delay: patience})
		p.run(1000, 3*time.Second)
		p.set(50*time.Millisecond, 0)
		low := p.run(1000, 10*time.Second)
		if good, _, _ := measure(low, 10*time.Second, everything); good < 160 {
			t.Errorf("of 200/s only %.0f/s are well served", good)
		}
		p.set(5*time.Millisecond, 0)
		back := p.run(1000, 8*time.Second)
		if _, refused, _ := measure(back, time.Second, func(o outcome) bool { return o.at > 5*time.Second }); refused > 0 {
			t.Errorf("%.2f are turned away 5 s after all is well", refused)
		}
	})
}

func TestLongPollsTakeNoPlaces(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		p := newPlant(t, 10, 10*time.Millisecond, web.Overload{Delay: patience, Max: 500})
		var polls sync.WaitGroup
		refused := make(chan int, 600)
		for range 600 {
			polls.Go(func() {
				w := &status{header: http.Header{}}
				p.face.Handler().ServeHTTP(w, httptest.NewRequest("GET", "/v1/poll", nil))
				if w.status == 503 {
					refused <- w.status
				}
			})
		}
		all := p.run(500, 5*time.Second)
		if _, refused, p99 := measure(all, time.Second, everything); refused > 0 || p99 > 100*time.Millisecond {
			t.Errorf("beside long polls %.2f are turned away, p99 %s", refused, p99)
		}
		polls.Wait()
		if len(refused) != 100 {
			t.Errorf("%d of 600 long polls are turned away, 500 may wait", len(refused))
		}
	})
}

func TestBeingTurnedAwayIsSaidAndCheap(t *testing.T) {
	t.Parallel()
	hold := make(chan struct{})
	var inside sync.WaitGroup
	s := faced(t, web.Config{Overload: web.Overload{Delay: time.Minute, Max: 10}}, func(r *web.Router) {
		for _, c := range []web.Criticality{web.Sheddable, web.Normal, web.Critical} {
			web.Get(r, fmt.Sprintf("/v1/%d", c), web.Public, web.Route{ID: fmt.Sprint("r", c), Criticality: c}, func(context.Context, *struct{}) (*web.Reply[string], error) {
				inside.Done()
				<-hold
				return &web.Reply[string]{Body: "done"}, nil
			})
		}
	})
	var all sync.WaitGroup
	fill := func(c web.Criticality, n int) {
		inside.Add(n)
		for range n {
			all.Go(func() {
				if w := send(t, s.Handler(), "GET", fmt.Sprintf("/v1/%d", c), ""); w.Code != 200 {
					t.Errorf("%d: %d", c, w.Code)
				}
			})
		}
		inside.Wait()
	}
	refused := func(c web.Criticality) {
		t.Helper()
		w := send(t, s.Handler(), "GET", fmt.Sprintf("/v1/%d", c), "")
		if w.Code != 503 || w.Header().Get("Retry-After") == "" || !strings.Contains(w.Body.String(), `"overloaded"`) {
			t.Errorf("%d: %d %v %s", c, w.Code, w.Header(), w.Body)
		}
	}
	fill(web.Sheddable, 6)
	refused(web.Sheddable)
	fill(web.Normal, 2)
	refused(web.Normal)
	refused(web.Sheddable)
	fill(web.Critical, 2)
	refused(web.Critical)
	close(hold)
	all.Wait()
}

func TestWhoIsTurnedAwayFurtherInIsCountedToo(t *testing.T) {
	t.Parallel()
	var shed []web.Criticality
	s := faced(t, web.Config{Shed: func(c web.Criticality) { shed = append(shed, c) }}, func(r *web.Router) {
		web.Get(r, "/v1/list", web.Public, web.Route{ID: "list", Criticality: web.Sheddable}, func(context.Context, *struct{}) (*web.Reply[string], error) {
			return nil, fmt.Errorf("read the list: %w", errs.Overloaded())
		})
	})
	w := send(t, s.Handler(), "GET", "/v1/list", "")
	if w.Code != 503 || w.Header().Get("Retry-After") == "" || !strings.Contains(w.Body.String(), `"overloaded"`) || strings.Contains(w.Body.String(), "read the list") {
		t.Errorf("got %d %v %s", w.Code, w.Header(), w.Body)
	}
	if !slices.Equal(shed, []web.Criticality{web.Sheddable}) {
		t.Errorf("counted %v", shed)
	}
}

func TestWhoIsTurnedAwayTakesNoPlace(t *testing.T) {
	t.Parallel()
	hold := make(chan struct{})
	var inside sync.WaitGroup
	s := faced(t, web.Config{Overload: web.Overload{Delay: time.Minute, Max: 10}}, func(r *web.Router) {
		web.Get(r, "/v1/list", web.Public, web.Route{ID: "list", Criticality: web.Sheddable}, func(context.Context, *struct{}) (*web.Reply[string], error) {
			return &web.Reply[string]{Body: "done"}, nil
		})
		web.Get(r, "/v1/cart", web.Public, web.Route{ID: "cart"}, func(context.Context, *struct{}) (*web.Reply[string], error) {
			inside.Done()
			<-hold
			return &web.Reply[string]{Body: "done"}, nil
		})
	})
	var all sync.WaitGroup
	inside.Add(8)
	for range 8 {
		all.Go(func() { send(t, s.Handler(), "GET", "/v1/cart", "") })
	}
	inside.Wait()
	for range 100 {
		if w := send(t, s.Handler(), "GET", "/v1/list", ""); w.Code != 503 {
			t.Fatalf("beside eight of ten: %d", w.Code)
		}
	}
	close(hold)
	all.Wait()
	if w := send(t, s.Handler(), "GET", "/v1/list", ""); w.Code != 200 {
		t.Errorf("when all is over: %d", w.Code)
	}
}

// TestARouteThatIsAskedForSeldomComesBack after others have made everybody wait for long.
func TestARouteThatIsAskedForSeldomComesBack(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		var slow atomic.Bool
		s := faced(t, web.Config{Overload: web.Overload{Delay: patience}}, func(r *web.Router) {
			web.Get(r, "/v1/list", web.Public, web.Route{ID: "list", Criticality: web.Sheddable}, func(ctx context.Context, _ *struct{}) (*web.Reply[string], error) {
				if slow.Load() {
					<-time.After(2 * time.Second)
					urgency.Of(ctx).Wait(time.Now(), 2*time.Second)
				}
				return &web.Reply[string]{Body: "done"}, nil
			})
		})
		ask := func(d time.Duration) (refused int) {
			var all sync.WaitGroup
			var mu sync.Mutex
			for began := time.Now(); time.Since(began) < d; <-time.After(1500 * time.Millisecond) {
				all.Go(func() {
					w := &status{header: http.Header{}}
					s.Handler().ServeHTTP(w, httptest.NewRequest("GET", "/v1/list", nil))
					mu.Lock()
					defer mu.Unlock()
					if w.status != http.StatusOK {
						refused++
					}
				})
			}
			all.Wait()
			return refused
		}
		ask(20 * time.Second)
		slow.Store(true)
		ask(time.Minute)
		slow.Store(false)
		ask(20 * time.Second)
		if n := ask(time.Minute); n > 0 {
			t.Errorf("twenty seconds after all is well, %d are turned away", n)
		}
	})
}

func TestWhatIsDoneForALongPollIsAsOldAsItsWait(t *testing.T) {
	t.Parallel()
	type kind struct {
		criticality web.Criticality
		came        time.Time
	}
	var seen []kind
	look := func(ctx context.Context, _ *struct{}) (*web.Reply[string], error) {
		r := urgency.Of(ctx)
		seen = append(seen, kind{r.Criticality, r.Came})
		return &web.Reply[string]{Body: "done"}, nil
	}
	s := faced(t, web.Config{}, func(r *web.Router) {
		web.Get(r, "/v1/poll", web.Public, web.Route{ID: "poll", LongPoll: true, Criticality: web.Critical}, look)
		web.Get(r, "/v1/list", web.Public, web.Route{ID: "list", Criticality: web.Sheddable}, look)
	})
	send(t, s.Handler(), "GET", "/v1/poll", "")
	send(t, s.Handler(), "GET", "/v1/list", "")
	if len(seen) != 2 || seen[0].criticality != web.Critical || !seen[0].came.IsZero() || seen[1].criticality != web.Sheddable || seen[1].came.IsZero() {
		t.Errorf("got %+v", seen)
	}
}
