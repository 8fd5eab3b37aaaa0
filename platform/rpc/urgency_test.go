package rpc_test

import (
	"context"
	"io"
	"net/http"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/banyan-shop/banyan/platform/auth"
	"github.com/banyan-shop/banyan/platform/errs"
	"github.com/banyan-shop/banyan/platform/rpc"
	"github.com/banyan-shop/banyan/platform/urgency"
)

func TestACalleeKnowsHowUrgentTheRequestIs(t *testing.T) {
	t.Parallel()
	var seen atomic.Pointer[urgency.Request]
	f := fake{level: func(ctx context.Context, _ levelRequest) (level, error) {
		r := urgency.Of(ctx)
		seen.Store(r)
		r.Wait(time.Now(), 30*time.Millisecond)
		return level{}, nil
	}}
	each(t, f, func(t *testing.T, s stock, _ string) {
		if _, err := s.Level(t.Context(), levelRequest{}); err != nil || seen.Load() != nil {
			t.Fatalf("work of the shop's own has become the request %+v, %v", seen.Load(), err)
		}
		r := &urgency.Request{Criticality: urgency.Critical, Came: time.Now().Add(-3 * time.Second)}
		ctx := urgency.With(t.Context(), r)
		if _, err := s.Level(ctx, levelRequest{}); err != nil {
			t.Fatal(err)
		}
		got := seen.Load()
		if age := time.Since(got.Came); got.Criticality != urgency.Critical || age < 3*time.Second || age > 5*time.Second || got.Begun() {
			t.Errorf("there it is %s, %s old, begun %v", got, age, got.Begun())
		}
		if r.Waited() < 29*time.Millisecond || r.Waited() > 65*time.Millisecond { // one placement calls twice
			t.Errorf("it waited 30 ms there, and here that is %s", r.Waited())
		}
		if r.Begun() {
			t.Error("a read counts as something done")
		}
		if _, err := s.Adjust(ctx, levelRequest{}); err != nil {
			t.Fatal(err)
		}
		r.Begin()
		if _, err := s.Level(ctx, levelRequest{}); err != nil || !seen.Load().Begun() {
			t.Errorf("there, nothing has been done yet; %v", err)
		}
	})
}

func TestAWriteElsewhereIsSomethingDone(t *testing.T) {
	t.Parallel()
	var fail atomic.Pointer[errs.Error]
	s, _ := calling(t, rpc.Policy{}, fake{level: func(ctx context.Context, _ levelRequest) (level, error) {
		if err := fail.Load(); err != nil {
			return level{}, err
		}
		urgency.Of(ctx).Begin()
		return level{}, nil
	}})
	for _, c := range []struct {
		err  *errs.Error
		done bool
	}{{nil, true}, {errs.Overloaded(), false}, {errs.Unavailablef("away"), false}, {errs.New(errs.NoAnswer, "", "perhaps"), true}, {errs.Conflictf("", "no"), false}} {
		fail.Store(c.err)
		r := &urgency.Request{Came: time.Now()}
		_, _ = s.Adjust(urgency.With(t.Context(), r), levelRequest{})
		if r.Begun() != c.done {
			t.Errorf("after %v something has been done: %v", c.err, r.Begun())
		}
		r = &urgency.Request{Came: time.Now()} // an idempotent call may be a write too: the callee says what it was
		_, _ = s.Level(urgency.With(t.Context(), r), levelRequest{})
		if done := c.err == nil; r.Begun() != done {
			t.Errorf("after an idempotent call with %v something has been done: %v", c.err, r.Begun())
		}
	}
}

func TestAnOverloadedCalleeIsAskedLessAndIsNotBroken(t *testing.T) {
	t.Parallel()
	var tries, critical atomic.Int64
	s, w := calling(t, rpc.Policy{Retries: 100}, fake{level: func(ctx context.Context, _ levelRequest) (level, error) {
		if urgency.Of(ctx).Criticality == urgency.Critical {
			critical.Add(1)
			return level{}, nil
		}
		tries.Add(1)
		return level{}, errs.Overloaded()
	}})
	ask := func(c urgency.Criticality) error {
		_, err := s.Level(urgency.With(t.Context(), &urgency.Request{Criticality: c, Came: time.Now()}), levelRequest{})
		return err
	}
	const n = 300
	for range n {
		if err := ask(urgency.Sheddable); !errs.Has(err, "overloaded") || !errs.Is(err, errs.Unavailable) {
			t.Fatalf("got %v", err)
		}
		if err := ask(urgency.Critical); err != nil {
			t.Fatalf("what is critical: %v", err)
		}
	}
	if got := tries.Load(); got > n/2 {
		t.Errorf("%d of %d requests that are refused reach the callee", got, n)
	}
	if critical.Load() != n {
		t.Errorf("%d of %d critical ones do", critical.Load(), n)
	}
	if got := status(t, w); got.Breaker != "closed" || got.Failures != 0 || got.Retries != 0 {
		t.Errorf("to be overloaded is taken for a failure: %+v", got)
	}
}

func TestAnUrgencyThatCantBeReadIsRefused(t *testing.T) {
	t.Parallel()
	internal := tokens(t)
	callee, serve := process(t, internal, nil)
	mount(callee.Server("stock"), fake{level: func(context.Context, levelRequest) (level, error) { return level{}, nil }})
	base := serve()
	token, err := internal.IssueInternal("orders", "stock", auth.Identity{})
	if err != nil {
		t.Fatal(err)
	}
	for text, want := range map[string]int{
		"critical 12": 200, "sheddable 0 begun": 200, "": 200,
		"urgent 12": 400, "critical": 400, "critical -1": 400, "critical 12 done": 400, "critical 99999999999": 400,
	} {
		r, err := http.NewRequestWithContext(t.Context(), http.MethodPost, base+"/rpc/stock/Level", strings.NewReader(`{}`))
		if err != nil {
			t.Fatal(err)
		}
		r.Header.Set("Content-Type", "application/json")
		r.Header.Set("Authorization", "Bearer "+token)
		if text != "" {
			r.Header.Set("Rpc-Urgency", text)
		}
		a, err := http.DefaultClient.Do(r)
		if err != nil {
			t.Fatal(err)
		}
		a.Body.Close()
		if a.StatusCode != want {
			t.Errorf("%q: %d, want %d", text, a.StatusCode, want)
		}
	}
}

func TestACalleeThatFailsIsNotTakenForOverloaded(t *testing.T) {
	t.Parallel()
	s, w := calling(t, rpc.Policy{}, fake{level: func(context.Context, levelRequest) (level, error) { return level{}, errs.Unavailablef("away") }})
	for range 200 {
		ctx := urgency.With(t.Context(), &urgency.Request{Came: time.Now()})
		if _, err := s.Level(ctx, levelRequest{}); errs.Has(err, "overloaded") || !errs.Is(err, errs.Unavailable) {
			t.Fatalf("got %v", err)
		}
	}
	if got := status(t, w); got.Breaker != "open" {
		t.Errorf("its breaker is %s", got.Breaker)
	}
}

func TestADoubtOutlastsARefusal(t *testing.T) {
	t.Parallel()
	internal := tokens(t)
	callee, serve := process(t, internal, nil)
	mount(callee.Server("stock"), fake{level: func(context.Context, levelRequest) (level, error) { return level{}, errs.Overloaded() }})
	base := serve()
	var tries atomic.Int64
	w, _ := process(t, internal, map[string]rpc.Remote{"stock": {Base: base, Transport: carrier(func(r *http.Request) (*http.Response, error) {
		if tries.Add(1) == 1 {
			return nil, io.ErrUnexpectedEOF
		}
		return http.DefaultTransport.RoundTrip(r)
	})}})
	if _, err := dial(w.Dialer("orders")).Level(t.Context(), levelRequest{}); !errs.Is(err, errs.NoAnswer) || tries.Load() != 2 {
		t.Errorf("after %d tries, of which the first may have done it: %v", tries.Load(), err)
	}
}

func TestWhatIsMeantIsNoFailure(t *testing.T) {
	t.Parallel()
	s, w := calling(t, rpc.Policy{}, fake{level: func(context.Context, levelRequest) (level, error) { return level{}, errs.Overloaded() }})
	for range 100 {
		_, _ = s.Level(urgency.With(t.Context(), &urgency.Request{Came: time.Now()}), levelRequest{})
	}
	text := gathered(t, w)
	if !strings.Contains(text, `kind="overloaded"`) || strings.Contains(text, `kind="unavailable"`) {
		t.Errorf("refusals are counted as failures:\n%s", text)
	}
	if got := status(t, w); got.Spared == 0 || got.Spared == 100 {
		t.Errorf("%d of 100 calls were spared", got.Spared)
	}
}
