package urgency_test

import (
	"context"
	"testing"
	"testing/synctest"
	"time"

	"github.com/banyan-shop/banyan/platform/urgency"
)

func TestWaitsAtTheSameTimeCountOnce(t *testing.T) {
	t.Parallel()
	start := time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)
	at := func(ms int) time.Time { return start.Add(time.Duration(ms) * time.Millisecond) }
	r := &urgency.Request{}
	for _, c := range []struct{ until, wait, want int }{
		{100, 40, 40},  // 60 to 100
		{100, 30, 40},  // beside it
		{120, 50, 60},  // 70 to 120: twenty more
		{300, 10, 70},  // 290 to 300
		{300, -5, 70},  // a clock that was set
		{310, 500, 80}, // what was before has been counted
	} {
		r.Wait(at(c.until), time.Duration(c.wait)*time.Millisecond)
		if got := r.Waited(); got != time.Duration(c.want)*time.Millisecond {
			t.Errorf("after %d ms until %d: %s, want %d ms", c.wait, c.until, got, c.want)
		}
	}
	var nobody *urgency.Request
	nobody.Wait(start, time.Second)
	nobody.Begin()
}

func TestAContextKnowsItsRequest(t *testing.T) {
	t.Parallel()
	r := &urgency.Request{Criticality: urgency.Critical}
	if got := urgency.Of(urgency.With(t.Context(), r)); got != r {
		t.Errorf("got %v", got)
	}
	if got := urgency.Of(context.Background()); got != nil {
		t.Errorf("got %v of nobody's context", got)
	}
	if got := urgency.Of(urgency.Own(urgency.With(t.Context(), r))); got != nil {
		t.Errorf("the shop's own work is that of %v", got)
	}
	for _, c := range []urgency.Criticality{urgency.Normal, urgency.Sheddable, urgency.Critical} {
		if got, ok := urgency.Parse(c.String()); got != c || !ok {
			t.Errorf("%s is read as %s, %v", c, got, ok)
		}
	}
	if _, ok := urgency.Parse("urgent"); ok {
		t.Error("any word is a criticality")
	}
}

func TestAThrottleLetsTwiceThroughWhatIsNotTurnedAway(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		var throttle urgency.Throttle
		of := func(c urgency.Criticality, taken float64, seconds int) (share float64) {
			let := 0
			n := seconds * 1000
			for i := range n {
				<-time.After(time.Millisecond)
				r := &urgency.Request{Criticality: c}
				if !throttle.Allow(r, time.Now()) {
					continue
				}
				let++
				if float64(i%100) >= taken*100 {
					throttle.Refused(r)
				}
			}
			return float64(let) / float64(n)
		}
		if share := of(urgency.Normal, 1, 2); share != 1 {
			t.Errorf("%.2f are let through to somebody who takes all", share)
		}
		_ = of(urgency.Normal, 0, 4)
		if share := of(urgency.Normal, 0, 2); share > 0.05 {
			t.Errorf("%.2f are let through to somebody who takes none", share)
		}
		if share := of(urgency.Critical, 1, 1); share != 1 {
			t.Errorf("%.2f of what is critical are let through when lists are refused", share)
		}
		begun := &urgency.Request{}
		begun.Begin()
		for range 100 {
			if !throttle.Allow(begun, time.Now()) || !throttle.Allow(nil, time.Now()) {
				t.Fatal("what has begun, or the shop's own work, is held back")
			}
		}
		_ = of(urgency.Normal, 1, 4)
		if share := of(urgency.Normal, 1, 1); share < 0.99 {
			t.Errorf("%.2f are let through some seconds after all is well", share)
		}
	})
}

// TestRefusalsThatComeLateCloseNoThrottle: after a moment in which it answered nobody, a callee turned all of them away at once.
func TestRefusalsThatComeLateCloseNoThrottle(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		var throttle urgency.Throttle
		r := &urgency.Request{}
		for range 200 {
			throttle.Allow(r, time.Now())
		}
		<-time.After(2 * time.Second)
		throttle.Allow(r, time.Now())
		for range 200 {
			throttle.Refused(r)
		}
		let := 0
		for range 20 {
			<-time.After(50 * time.Millisecond)
			if throttle.Allow(r, time.Now()) {
				let++
			}
		}
		if let < 10 {
			t.Errorf("%d of 20 are let through to somebody who is well again", let)
		}
	})
}

func TestAReportIsLearnt(t *testing.T) {
	t.Parallel()
	now := time.Now()
	for _, c := range []struct {
		waited time.Duration
		begun  bool
		text   string
	}{{0, false, ""}, {300 * time.Microsecond, false, ""}, {40 * time.Millisecond, false, "40"}, {0, true, "0 begun"}, {7 * time.Millisecond, true, "7 begun"}} {
		there, here := &urgency.Request{}, &urgency.Request{}
		there.Wait(now, c.waited)
		if c.begun {
			there.Begin()
		}
		if got := there.Report(); got != c.text {
			t.Errorf("%+v is reported as %q", c, got)
		}
		here.Learn(there.Report(), now)
		if here.Waited() != c.waited.Truncate(time.Millisecond) || here.Begun() != c.begun {
			t.Errorf("%q is learnt as %s, %v", c.text, here.Waited(), here.Begun())
		}
	}
	here := &urgency.Request{}
	for _, text := range []string{"soon", "-3", " begun", "12 done", "99999999999"} {
		here.Learn(text, now)
	}
	if here.Waited() != 0 || here.Begun() {
		t.Errorf("from nonsense: %s, %v", here.Waited(), here.Begun())
	}
	var nobody *urgency.Request
	nobody.Learn("12 begun", now)
	if text := nobody.Report(); text != "" {
		t.Errorf("nobody reports %q", text)
	}
}
