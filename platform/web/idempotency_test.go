package web_test

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"sync"
	"testing"

	"github.com/banyan-shop/banyan/platform/errs"
	"github.com/banyan-shop/banyan/platform/ids"
	"github.com/banyan-shop/banyan/platform/pg"
	"github.com/banyan-shop/banyan/platform/shoptest"
	"github.com/banyan-shop/banyan/platform/web"
)

type note struct {
	Text string `json:"text" maxLength:"10"`
}

type noteIn struct{ Body note }

// keyed is a server whose one route writes a row of its own and answers with its id. before runs in the handler, ahead of
// its transaction, and may fail it.
type keyed struct {
	http.Handler
	db     *pg.DB
	mu     sync.Mutex
	before func() error
}

func setupKeyed(t *testing.T) *keyed {
	t.Helper()
	k := &keyed{db: shoptest.DB(t, "keytest")}
	r := web.NewRouter()
	web.Post(r.Module("keytest", k.db), "/v1/notes", web.Public, web.Route{ID: "addNote", Idempotency: web.Keyed, Status: 201},
		func(ctx context.Context, in *noteIn) (*web.Reply[note], error) {
			if err := k.first(); err != nil {
				return nil, err
			}
			made := note{string(ids.New[ids.ID]("note"))}
			err := k.db.InTx(ctx, func(tx *pg.Tx) error {
				_, err := tx.Exec(ctx, `
					INSERT INTO keytest.operations (key, method, request_hash, result)
					VALUES ($1, 'note', $2, '{}')`, made.Text, []byte{})
				if err != nil {
					return err
				}
				return web.SaveReply(ctx, tx, http.StatusCreated, web.ETag(1), made)
			})
			return &web.Reply[note]{Body: made, ETag: web.ETag(1), Location: "/v1/notes/" + made.Text}, err
		})
	web.Post(r.Module("keytest", k.db), "/v1/unsaved", web.Public, web.Route{ID: "unsaved", Idempotency: web.Keyed},
		func(context.Context, *noteIn) (*web.Reply[note], error) {
			return &web.Reply[note]{Body: note{string(ids.New[ids.ID]("note"))}}, nil
		})
	s, err := web.NewServer(web.Config{Router: r, Verify: verify, Log: slog.New(slog.DiscardHandler)})
	if err != nil {
		t.Fatal(err)
	}
	k.Handler = s.Handler()
	return k
}

func (k *keyed) first() error {
	k.mu.Lock()
	f := k.before
	k.mu.Unlock()
	if f == nil {
		return nil
	}
	return f()
}

func (k *keyed) do(f func() error) {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.before = f
}

func (k *keyed) post(t *testing.T, key, text string, headers ...string) *httptest.ResponseRecorder {
	t.Helper()
	return send(t, k, "POST", "/v1/notes", `{"text":"`+text+`"}`, append(headers, "Idempotency-Key: "+key)...)
}

func (k *keyed) effects(t *testing.T) (n int) {
	t.Helper()
	if err := k.db.Get(t.Context(), &n, `SELECT count(*) FROM keytest.operations`); err != nil {
		t.Fatal(err)
	}
	return n
}

func (k *keyed) keys(t *testing.T) (n int) {
	t.Helper()
	if err := k.db.Get(t.Context(), &n, `SELECT count(*) FROM keytest.idempotency_keys`); err != nil {
		t.Fatal(err)
	}
	return n
}

func (k *keyed) exec(t *testing.T, query string) {
	t.Helper()
	err := k.db.InTx(t.Context(), func(tx *pg.Tx) error {
		_, err := tx.Exec(t.Context(), query)
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
}

func TestKeys(t *testing.T) {
	t.Parallel()

	t.Run("the same request gets the same bytes", func(t *testing.T) {
		t.Parallel()
		k := setupKeyed(t)
		first := k.post(t, "k1", "a")
		again := k.post(t, "k1", "a")
		if first.Code != 201 || again.Code != 201 || first.Body.String() != again.Body.String() || again.Header().Get("ETag") != `"1"` {
			t.Errorf("got %d %s, then %d %s", first.Code, first.Body, again.Code, again.Body)
		}
		if first.Header().Get("Idempotent-Replayed") != "" || again.Header().Get("Idempotent-Replayed") != "true" || first.Header().Get("Location") == "" {
			t.Errorf("headers: %v, then %v", first.Header(), again.Header())
		}
		if n := k.effects(t); n != 1 {
			t.Errorf("%d effects", n)
		}
	})

	t.Run("without a key each request counts", func(t *testing.T) {
		t.Parallel()
		k := setupKeyed(t)
		for range 2 {
			if w := send(t, k, "POST", "/v1/notes", `{"text":"a"}`); w.Code != 201 {
				t.Fatal(w.Code, w.Body)
			}
		}
		if n := k.effects(t); n != 2 || k.keys(t) != 0 {
			t.Errorf("%d effects, %d keys", n, k.keys(t))
		}
	})

	t.Run("another body is refused", func(t *testing.T) {
		t.Parallel()
		k := setupKeyed(t)
		k.post(t, "k1", "a")
		if p := readProblem(t, k.post(t, "k1", "b")); p.Status != 422 || p.Code != "idempotency_key_reused" {
			t.Errorf("%+v", p)
		}
	})

	t.Run("callers do not share keys", func(t *testing.T) {
		t.Parallel()
		k := setupKeyed(t)
		for _, headers := range [][]string{nil, {"Authorization: Bearer ann"}, {"X-Cart-Token: a"}, {"X-Cart-Token: b"}} {
			if w := k.post(t, "k1", "a", headers...); w.Code != 201 || w.Header().Get("Idempotent-Replayed") != "" {
				t.Errorf("%v: %d %v", headers, w.Code, w.Header())
			}
		}
	})

	t.Run("a request under way is not run twice", func(t *testing.T) {
		t.Parallel()
		k := setupKeyed(t)
		entered, leave := make(chan struct{}), make(chan struct{})
		k.do(func() error { close(entered); <-leave; return nil })
		done := make(chan *httptest.ResponseRecorder)
		go func() { done <- k.post(t, "k1", "a") }()
		<-entered
		k.do(nil)
		w := k.post(t, "k1", "a")
		if p := readProblem(t, w); p.Status != 409 || p.Code != "request_in_progress" || w.Header().Get("Retry-After") != "1" {
			t.Errorf("%+v %v", p, w.Header())
		}
		close(leave)
		first := <-done
		if again := k.post(t, "k1", "a"); again.Body.String() != first.Body.String() {
			t.Errorf("got %s, then %s", first.Body, again.Body)
		}
	})

	t.Run("failures are not kept", func(t *testing.T) {
		t.Parallel()
		k := setupKeyed(t)
		for name, f := range map[string]func() error{
			"fault": func() error { return errors.New("boom") }, "refusal": func() error { return errs.Conflictf("", "not now") }, "panic": func() error { panic("boom") },
		} {
			k.do(f)
			if w := k.post(t, "k1", "a"); w.Code < 400 {
				t.Errorf("%s: %d", name, w.Code)
			}
			if n := k.keys(t); n != 0 {
				t.Errorf("%s: the key stays taken", name)
			}
		}
		if w := k.post(t, "k1", "longer than ten"); w.Code != 422 || k.keys(t) != 0 {
			t.Errorf("validation: %d, %d keys", w.Code, k.keys(t))
		}
		k.do(nil)
		if w := k.post(t, "k1", "a"); w.Code != 201 {
			t.Errorf("after failures: %d %s", w.Code, w.Body)
		}
	})

	t.Run("an answer that was not saved is not kept", func(t *testing.T) {
		t.Parallel()
		k := setupKeyed(t)
		first := send(t, k, "POST", "/v1/unsaved", `{"text":"a"}`, "Idempotency-Key: k1")
		again := send(t, k, "POST", "/v1/unsaved", `{"text":"a"}`, "Idempotency-Key: k1")
		if first.Code != 200 || again.Code != 200 || first.Body.String() == again.Body.String() || k.keys(t) != 0 {
			t.Errorf("got %d %s, then %d %s", first.Code, first.Body, again.Code, again.Body)
		}
	})

	t.Run("a lapsed claim is taken over and its holder's work is undone", func(t *testing.T) {
		t.Parallel()
		k := setupKeyed(t)
		entered, leave := make(chan struct{}), make(chan struct{})
		k.do(func() error { close(entered); <-leave; return nil })
		done := make(chan *httptest.ResponseRecorder)
		go func() { done <- k.post(t, "k1", "a") }()
		<-entered
		k.do(nil)
		k.exec(t, `UPDATE keytest.idempotency_keys SET claimed_until = now() - interval '1 second'`)
		second := k.post(t, "k1", "a")
		close(leave)
		if first := <-done; first.Code != 409 || second.Code != 201 {
			t.Errorf("the first got %d, the second %d", first.Code, second.Code)
		}
		if n := k.effects(t); n != 1 {
			t.Errorf("%d effects", n)
		}
		if again := k.post(t, "k1", "a"); again.Body.String() != second.Body.String() {
			t.Error("the stored answer is not the second's")
		}
	})

	t.Run("a crowd with one key has one effect", func(t *testing.T) {
		t.Parallel()
		k := setupKeyed(t)
		answers := make([]*httptest.ResponseRecorder, 32)
		var wg sync.WaitGroup
		for i := range answers {
			wg.Go(func() { answers[i] = k.post(t, "k1", "a") })
		}
		wg.Wait()
		bodies := map[string]int{}
		for _, w := range answers {
			if w.Code == 409 && w.Header().Get("Retry-After") != "" {
				continue
			}
			bodies[fmt.Sprint(w.Code, w.Body)]++
		}
		if n := k.effects(t); n != 1 || len(bodies) != 1 {
			t.Errorf("%d effects, answers %v", n, bodies)
		}
	})

	t.Run("lapsed keys are purged and can be used again", func(t *testing.T) {
		t.Parallel()
		k := setupKeyed(t)
		first := k.post(t, "k1", "a")
		k.exec(t, `UPDATE keytest.idempotency_keys SET expires_at = now() - interval '1 second'`)
		second := k.post(t, "k1", "b")
		if second.Code != 201 || second.Body.String() == first.Body.String() {
			t.Errorf("a lapsed key: %d %s", second.Code, second.Body)
		}
		if n, err := web.PurgeKeys(t.Context(), k.db); n != 0 || err != nil {
			t.Errorf("purged %d live keys, %v", n, err)
		}
		k.exec(t, `INSERT INTO keytest.idempotency_keys (caller, route, key, request_hash, expires_at)
			SELECT 'c', 'r', g::text, '', now() - interval '1 second' FROM generate_series(1, 1200) g`)
		if n, err := web.PurgeKeys(t.Context(), k.db); n != 1200 || err != nil || k.keys(t) != 1 {
			t.Errorf("purged %d, %d left, %v", n, k.keys(t), err)
		}
	})
}
