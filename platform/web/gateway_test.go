package web_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/banyan-shop/banyan/platform/auth"
	"github.com/banyan-shop/banyan/platform/errs"
	"github.com/banyan-shop/banyan/platform/web"
)

// faced is a server with one module's routes on it.
func faced(t testing.TB, c web.Config, declare func(*web.Router)) *web.Server {
	t.Helper()
	c.Router, c.Verify, c.Log = web.NewRouter(), verify, slog.New(slog.DiscardHandler)
	declare(c.Router.Module("test", nil))
	s, err := web.NewServer(c)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

type thingIn struct {
	ID    string `path:"id"`
	Sort  string `query:"sort"`
	Color string `query:"color"`
	Size  int    `query:"size"`
}

// shelf declares one cached route and counts how often its handler is asked; the handler is what answer says.
func shelf(asked *atomic.Int64, answer func(ctx context.Context, in *thingIn) (*web.Reply[string], error)) func(*web.Router) {
	return func(r *web.Router) {
		web.Get(r, "/v1/things/{id}", web.Public, web.Route{ID: "thing", Cache: web.Cache{For: 5 * time.Second, Tags: []string{"things"}}}, func(ctx context.Context, in *thingIn) (*web.Reply[string], error) {
			asked.Add(1)
			return answer(ctx, in)
		})
	}
}

func plain(_ context.Context, in *thingIn) (*web.Reply[string], error) {
	switch in.ID {
	case "none":
		return nil, errs.NotFoundf("no such thing")
	case "broken":
		return nil, errors.New("boom")
	case "tagged":
		return &web.Reply[string]{ETag: web.ETag(7), Body: in.ID}, nil
	}
	return &web.Reply[string]{Body: fmt.Sprint(in.ID, in.Sort, in.Color, strings.Repeat("x", in.Size))}, nil
}

func TestCache(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		requests []string // "METHOD target|Header: value"
		answers  string   // status and X-Cache of each
		asked    int64
	}{
		"the second is a hit":               {[]string{"GET /v1/things/a", "GET /v1/things/a"}, "200 miss, 200 hit", 1},
		"another thing":                     {[]string{"GET /v1/things/a", "GET /v1/things/b"}, "200 miss, 200 miss", 2},
		"another query":                     {[]string{"GET /v1/things/a?sort=x", "GET /v1/things/a?sort=y"}, "200 miss, 200 miss", 2},
		"the same query in another order":   {[]string{"GET /v1/things/a?sort=x&color=y", "GET /v1/things/a?color=y&sort=x"}, "200 miss, 200 hit", 1},
		"a query that looks like another":   {[]string{"GET /v1/things/a?sort=x%26color%3Dy", "GET /v1/things/a?sort=x&color=y"}, "200 miss, 200 miss", 2},
		"another form":                      {[]string{"GET /v1/things/a", "GET /v1/things/a|Accept: text/html"}, "200 miss, 200 miss", 2},
		"the same form":                     {[]string{"GET /v1/things/a", "GET /v1/things/a|Accept: application/json"}, "200 miss, 200 hit", 1},
		"a client that wants it fresh":      {[]string{"GET /v1/things/a", "GET /v1/things/a|Cache-Control: no-cache", "GET /v1/things/a"}, "200 miss, 200 bypass, 200 hit", 2},
		"a signed-in client":                {[]string{"GET /v1/things/a|Authorization: Bearer ann", "GET /v1/things/a"}, "200 miss, 200 hit", 1},
		"an expired token":                  {[]string{"GET /v1/things/a", "GET /v1/things/a|Authorization: Bearer old"}, "200 miss, 401 ", 1},
		"a HEAD":                            {[]string{"HEAD /v1/things/a", "GET /v1/things/a", "HEAD /v1/things/a"}, "200 , 200 miss, 200 hit", 2},
		"not found":                         {[]string{"GET /v1/things/none", "GET /v1/things/none"}, "404 , 404 ", 2},
		"a failure":                         {[]string{"GET /v1/things/broken", "GET /v1/things/broken"}, "500 , 500 ", 2},
		"a query nobody can read":           {[]string{"GET /v1/things/a?sort=%zz", "GET /v1/things/a?sort=%zz"}, "400 bypass, 400 bypass", 0},
		"an unknown parameter":              {[]string{"GET /v1/things/a?no=x", "GET /v1/things/a?no=x"}, "422 , 422 ", 0},
		"a client that knows it":            {[]string{`GET /v1/things/tagged`, `GET /v1/things/tagged|If-None-Match: "7"`, `GET /v1/things/tagged|If-None-Match: "6"`}, "200 miss, 304 hit, 200 hit", 1},
		"a client that knows it, first":     {[]string{`GET /v1/things/tagged|If-None-Match: "7"`, `GET /v1/things/tagged`}, "304 miss, 200 hit", 1},
		"an answer too large to keep":       {[]string{"GET /v1/things/a?size=300000", "GET /v1/things/a?size=300000"}, "200 bypass, 200 bypass", 2},
		"an address too long to keep":       {[]string{"GET /v1/things/a?color=" + strings.Repeat("x", 5000), "GET /v1/things/a?color=" + strings.Repeat("x", 5000)}, "200 bypass, 200 bypass", 2},
		"a method that changes":             {[]string{"GET /v1/things/a", "POST /v1/things/a"}, "200 miss, 405 ", 1},
		"a path in another form is another": {[]string{"GET /v1/things/a", "GET /v1/things/A"}, "200 miss, 200 miss", 2},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			var asked atomic.Int64
			h := faced(t, web.Config{CacheFor: time.Minute}, shelf(&asked, plain)).Handler()
			var got []string
			bodies := map[string]string{}
			for _, r := range c.requests {
				line, header, _ := strings.Cut(r, "|")
				method, target, _ := strings.Cut(line, " ")
				var headers []string
				if header != "" {
					headers = append(headers, header)
				}
				w := send(t, h, method, target, "", headers...)
				got = append(got, fmt.Sprint(w.Code, " ", w.Header().Get("X-Cache")))
				if w.Code == 200 && method == "GET" {
					if known, ok := bodies[target]; ok && known != w.Body.String() {
						t.Errorf("%s answers %.20s, then %.20s", target, known, w.Body)
					}
					bodies[target] = w.Body.String()
				}
				if hit := w.Header().Get("X-Cache") == "hit"; hit && (w.Header().Get("Age") != "0" || w.Header().Get("ETag") == "" || len(w.Header()["X-Request-Id"]) != 1) {
					t.Errorf("a hit has %v", w.Header())
				}
			}
			if s := strings.Join(got, ", "); s != c.answers {
				t.Errorf("got  %s\nwant %s", s, c.answers)
			}
			if asked.Load() != c.asked {
				t.Errorf("the handler was asked %d times, want %d", asked.Load(), c.asked)
			}
		})
	}
}

func TestCacheIsOffUnlessConfigured(t *testing.T) {
	t.Parallel()
	var asked atomic.Int64
	h := faced(t, web.Config{}, shelf(&asked, plain)).Handler()
	for range 2 {
		if w := send(t, h, "GET", "/v1/things/a", ""); w.Header().Get("X-Cache") != "" || w.Header().Get("Age") != "" {
			t.Errorf("got %v", w.Header())
		}
	}
	if asked.Load() != 2 {
		t.Errorf("asked %d times", asked.Load())
	}
}

func TestCachedAnswersAreNeverOlderThanDeclared(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		for _, c := range []struct{ setting, lives time.Duration }{{time.Minute, 5 * time.Second}, {2 * time.Second, 2 * time.Second}} {
			var asked atomic.Int64
			h := faced(t, web.Config{CacheFor: c.setting}, shelf(&asked, func(ctx context.Context, in *thingIn) (*web.Reply[string], error) {
				<-time.After(time.Second) // an answer is as old as its question
				return plain(ctx, in)
			})).Handler()
			began := time.Now()
			send(t, h, "GET", "/v1/things/a", "")
			for time.Since(began) < 2*c.lives {
				w := send(t, h, "GET", "/v1/things/a", "")
				age := time.Since(began)
				if hit := w.Header().Get("X-Cache") == "hit"; hit && age >= c.lives {
					t.Errorf("told after %s, of %s", age, c.lives)
				} else if hit && w.Header().Get("Age") != fmt.Sprint(int(age/time.Second)) {
					t.Errorf("Age %s after %s", w.Header().Get("Age"), age)
				} else if !hit && age < c.lives {
					t.Errorf("forgotten after %s, of %s", age, c.lives)
				} else if !hit {
					break
				}
				<-time.After(250 * time.Millisecond)
			}
		}
	})
}

func TestManyWhoAskAtOnceAskOnce(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		var asked atomic.Int64
		release := make(chan struct{})
		s := faced(t, web.Config{CacheFor: time.Minute}, shelf(&asked, func(ctx context.Context, in *thingIn) (*web.Reply[string], error) {
			<-release
			return plain(ctx, in)
		}))
		var all sync.WaitGroup
		var hits atomic.Int64
		for range 50 {
			all.Go(func() {
				w := send(t, s.Handler(), "GET", "/v1/things/a", "")
				if w.Code != 200 || w.Body.String() != `"a"` {
					t.Errorf("got %d %s", w.Code, w.Body)
				}
				if w.Header().Get("X-Cache") == "hit" {
					hits.Add(1)
				}
			})
		}
		synctest.Wait()
		if asked.Load() != 1 {
			t.Errorf("asked %d times", asked.Load())
		}
		close(release)
		all.Wait()
		if hits.Load() != 49 {
			t.Errorf("%d hits", hits.Load())
		}
	})
}

func TestInvalidate(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		tags  []string
		asked int64
	}{"its tag": {[]string{"things"}, 2}, "another tag": {[]string{"orders"}, 1}, "all": {nil, 2}, "one of two": {[]string{"orders", "things"}, 2}} {
		var asked atomic.Int64
		s := faced(t, web.Config{CacheFor: time.Minute}, shelf(&asked, plain))
		send(t, s.Handler(), "GET", "/v1/things/a", "")
		s.Invalidate(c.tags...)
		send(t, s.Handler(), "GET", "/v1/things/a", "")
		if asked.Load() != c.asked {
			t.Errorf("%s: asked %d times", name, asked.Load())
		}
	}
}

// TestWhatAGatewayAsksForIsNew: the gateway has heard of a change, and asks before this process has heard of it.
func TestWhatAGatewayAsksForIsNew(t *testing.T) {
	t.Parallel()
	var asked atomic.Int64
	s := faced(t, web.Config{CacheFor: time.Minute, Gateway: func(context.Context, string, string) (auth.Identity, error) { return auth.Identity{}, nil }}, shelf(&asked, plain))
	for i, c := range []struct {
		header []string
		kept   string
		asked  int64
	}{{nil, "miss", 1}, {nil, "hit", 1}, {[]string{"Banyan-Gateway: good", "X-Forwarded-For: 9.9.9.9"}, "", 2}, {nil, "hit", 2}} {
		w := send(t, s.Handler(), "GET", "/v1/things/1", "", c.header...)
		if w.Code != http.StatusOK || w.Header().Get("X-Cache") != c.kept || asked.Load() != c.asked {
			t.Errorf("%d: got %d, %q out of the cache, after %d questions", i, w.Code, w.Header().Get("X-Cache"), asked.Load())
		}
	}
}

func TestAnAnswerUnderWayWhenItIsInvalidatedIsNotKept(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		var asked, price atomic.Int64
		release := make(chan struct{})
		s := faced(t, web.Config{CacheFor: time.Minute}, shelf(&asked, func(context.Context, *thingIn) (*web.Reply[string], error) {
			p := price.Load()
			<-release
			return &web.Reply[string]{Body: fmt.Sprint(p)}, nil
		}))
		get := func(want string) func() {
			return func() {
				if w := send(t, s.Handler(), "GET", "/v1/things/a", ""); w.Body.String() != want {
					t.Errorf("got %s, want %s", w.Body, want)
				}
			}
		}
		var all sync.WaitGroup
		all.Go(get(`"0"`)) // reads the old price
		synctest.Wait()
		price.Store(1)
		s.Invalidate("things")
		all.Go(get(`"1"`)) // must not join
		synctest.Wait()
		close(release)
		all.Wait()
		get(`"1"`)()
	})
}

func TestWhoeverWaitsForSomebodyWhoLeavesIsAnswered(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		var asked atomic.Int64
		s := faced(t, web.Config{CacheFor: time.Minute}, shelf(&asked, func(ctx context.Context, in *thingIn) (*web.Reply[string], error) {
			if asked.Load() == 1 {
				<-ctx.Done()
				return nil, ctx.Err()
			}
			return plain(ctx, in)
		}))
		ctx, leave := context.WithCancel(t.Context())
		var all sync.WaitGroup
		all.Go(func() {
			s.Handler().ServeHTTP(httptest.NewRecorder(), httptest.NewRequest("GET", "/v1/things/a", nil).WithContext(ctx))
		})
		synctest.Wait()
		for range 5 {
			all.Go(func() {
				if w := send(t, s.Handler(), "GET", "/v1/things/a", ""); w.Code != 200 {
					t.Errorf("got %d %s", w.Code, w.Body)
				}
			})
		}
		synctest.Wait()
		leave()
		all.Wait()
		if asked.Load() != 2 {
			t.Errorf("asked %d times", asked.Load())
		}
	})
}

func TestWhoeverWaitsForAFailureIsNotSentAfterIt(t *testing.T) {
	t.Parallel()
	for _, how := range []string{"error", "panic"} {
		synctest.Test(t, func(t *testing.T) {
			var asked atomic.Int64
			release := make(chan struct{})
			s := faced(t, web.Config{CacheFor: time.Minute}, shelf(&asked, func(context.Context, *thingIn) (*web.Reply[string], error) {
				<-release
				if how == "panic" {
					panic("boom")
				}
				return nil, errs.Unavailablef("down")
			}))
			var all sync.WaitGroup
			for range 10 {
				all.Go(func() {
					if w := send(t, s.Handler(), "GET", "/v1/things/a", ""); w.Code < 500 || strings.Contains(w.Body.String(), "boom") || w.Header().Get("Content-Type") != "application/problem+json" {
						t.Errorf("got %d %s", w.Code, w.Body)
					}
				})
			}
			synctest.Wait()
			close(release)
			all.Wait()
			if asked.Load() != 1 {
				t.Errorf("%s: asked %d times", how, asked.Load())
			}
		})
	}
}

func TestARemoteAnswerThatBreaksOffIsNotKept(t *testing.T) {
	t.Parallel()
	r := web.NewRouter()
	var asked atomic.Int64
	shelf(&asked, plain)(r.Remote("test", http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Type", "application/json")
		io.WriteString(w, "[1,")
		panic(http.ErrAbortHandler)
	})))
	s, err := web.NewServer(web.Config{Router: r, CacheFor: time.Minute, Log: slog.New(slog.DiscardHandler)})
	if err != nil {
		t.Fatal(err)
	}
	for range 2 {
		if w := send(t, s.Handler(), "GET", "/v1/things/a", ""); w.Code != 502 || strings.Contains(w.Body.String(), "[1,") {
			t.Errorf("got %d %s", w.Code, w.Body)
		}
	}
}

func TestOnlyPublicGetsMayBeCached(t *testing.T) {
	t.Parallel()
	for name, declare := range map[string]func(*web.Router, web.Route){
		"a POST":          func(r *web.Router, d web.Route) { web.Post(r, "/v1/x", web.Public, d, nothing) },
		"a user's answer": func(r *web.Router, d web.Route) { web.Get(r, "/v1/x", web.SignedIn, d, nothing) },
	} {
		func() {
			defer func() {
				if recover() == nil {
					t.Errorf("%s may be cached", name)
				}
			}()
			declare(web.NewRouter(), web.Route{ID: "x", Cache: web.Cache{For: time.Second}})
		}()
	}
}

func TestKill(t *testing.T) {
	t.Parallel()
	var asked atomic.Int64
	s := faced(t, web.Config{Kill: []string{"hello"}}, func(r *web.Router) { declare(r); shelf(&asked, plain)(r) })
	status := func(target string) string {
		w := send(t, s.Handler(), "GET", target, "")
		if w.Code == 503 && (w.Header().Get("Retry-After") == "" || !strings.Contains(w.Body.String(), `"switched_off"`)) {
			t.Errorf("%s: %v %s", target, w.Header(), w.Body)
		}
		return fmt.Sprint(w.Code)
	}
	for _, c := range []struct {
		kill []string
		err  string
		want string // hello, baskets, things
	}{
		{[]string{"hello"}, "", "503 200 200"},
		{[]string{"listBaskets", "GET /v1/things/{id}"}, "", "200 503 503"},
		{[]string{"listBasket"}, `there is no route "listBasket"; did you mean "listBaskets"?`, "200 503 503"},
		{[]string{"hello", "GET /v1/thing/{id}", "xyz"}, "there is no route \"GET /v1/thing/{id}\"; did you mean \"GET /v1/things/{id}\"?\nthere is no route \"xyz\"", "200 503 503"},
		{nil, "", "200 200 200"},
	} {
		err := s.Kill(c.kill)
		if c.err == "" && err != nil || c.err != "" && (err == nil || err.Error() != c.err) {
			t.Errorf("%v: %v", c.kill, err)
		}
		if got := status("/v1/hello") + " " + status("/v1/baskets") + " " + status("/v1/things/a"); got != c.want {
			t.Errorf("%v: got %s, want %s", c.kill, got, c.want)
		}
	}
	if _, err := web.NewServer(web.Config{Router: web.NewRouter(), Kill: []string{"x"}}); err == nil {
		t.Error("a server starts with a switch of no route")
	}
}

// shared is a Limiter that is away when told so.
type shared struct {
	away  atomic.Bool
	mu    sync.Mutex
	asked []string
}

func (l *shared) Take(_ context.Context, caller string, limit web.Limit) (web.Taken, error) {
	if l.away.Load() {
		return web.Taken{}, errors.New("dial tcp 10.1.2.3: refused")
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	l.asked = append(l.asked, caller)
	return web.Taken{OK: len(l.asked) <= limit.Burst, Left: float64(max(0, limit.Burst-len(l.asked)))}, nil
}

func TestSharedLimits(t *testing.T) {
	t.Parallel()
	l := &shared{}
	s := faced(t, web.Config{Limit: web.Limit{PerSecond: 0.001, Burst: 3}, Limiter: l}, func(r *web.Router) {
		declare(r)
		web.Post(r, "/v1/guarded", web.Public, web.Route{ID: "guarded", Guarded: true}, nothing)
	})
	for i, c := range []struct {
		away           bool
		method, target string
		header         string
		status         int
		left           string
	}{
		{false, "GET", "/v1/hello", "", 200, "2"},
		{false, "GET", "/v1/me", "Authorization: Bearer ann", 200, "1"},
		{true, "GET", "/v1/hello", "", 200, "2"}, // its own buckets are full
		{true, "POST", "/v1/guarded", "", 503, ""},
		{true, "GET", "/v1/hello", "", 200, "1"},
		{true, "GET", "/v1/hello", "", 200, "0"},
		{true, "GET", "/v1/hello", "", 429, "0"},
		{false, "POST", "/v1/guarded", "", 204, "0"},
		{false, "POST", "/v1/guarded", "", 429, "0"},
	} {
		l.away.Store(c.away)
		var headers []string
		if c.header != "" {
			headers = []string{c.header}
		}
		w := send(t, s.Handler(), c.method, c.target, "", headers...)
		if w.Code != c.status || w.Header().Get("RateLimit-Remaining") != c.left || strings.Contains(w.Body.String(), "10.1.2.3") || w.Code >= 429 && w.Header().Get("Retry-After") == "" {
			t.Errorf("%d: got %d %v %s", i, w.Code, w.Header(), w.Body)
		}
	}
	if got := strings.Join(l.asked, ", "); got != "ip 192.0.2.1, user usr_ann, ip 192.0.2.1, ip 192.0.2.1" {
		t.Errorf("asked for %s", got)
	}
}

func TestAGatewaysWordNeedsSomebodyToCheckIt(t *testing.T) {
	t.Parallel()
	h := setup(t)
	if w := send(t, h, "GET", "/v1/hello", "", "Banyan-Gateway: x"); w.Code != 401 || w.Header().Get("Banyan-Gateway") != "refused" {
		t.Errorf("got %d %v", w.Code, w.Header())
	}
	h = setup(t, func(s *shop) {
		s.config.Gateway = func(_ context.Context, token, module string) (auth.Identity, error) {
			if token != "good" {
				return auth.Identity{}, errs.New(errs.Unauthenticated, "token_invalid", "no")
			}
			return auth.Identity{User: "usr_bob"}, nil
		}
	})
	for token, status := range map[string]int{"good": 200, "bad": 401, "": 401} {
		if w := send(t, h, "GET", "/v1/me", "", "Banyan-Gateway: "+token, "X-Forwarded-For: 9.9.9.9"); w.Code != status {
			t.Errorf("%s: got %d %s", token, w.Code, w.Body)
		}
	}
}
