package catalog

import (
	"context"
	"encoding/json"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/banyan-shop/banyan/api/catalogapi"
	"github.com/banyan-shop/banyan/api/catalogapi/catalogtest"
	"github.com/banyan-shop/banyan/platform/auth"
	"github.com/banyan-shop/banyan/platform/errs"
	"github.com/banyan-shop/banyan/platform/pg"
	"github.com/banyan-shop/banyan/platform/rpc"
	"github.com/banyan-shop/banyan/platform/shoptest"
	"github.com/banyan-shop/banyan/platform/web"
)

// bench is a catalog in a database of its own.
type bench struct {
	*Module
	clock  *shoptest.Clock
	orders catalogapi.Catalog // as orders calls it
	server http.Handler
}

func setup(t testing.TB) bench {
	t.Helper()
	return setupOn(t, shoptest.DB(t, "catalog"))
}

func setupOn(t testing.TB, db *pg.DB) bench {
	clock := shoptest.NewClock()
	m := &Module{DB: db, Cursors: web.NewCursors([]byte("tests")), Log: slog.New(slog.DiscardHandler), Now: clock.Now, Config: Defaults(), Metrics: newMetrics(nil)}
	m.Config.DemoProducts = 300
	server := rpc.NewServer("catalog")
	m.Serve(server)
	router := web.NewRouter()
	m.Routes(router.Module("catalog", db))
	face, err := web.NewServer(web.Config{Router: router, Log: m.Log, Verify: verify})
	if err != nil {
		t.Fatal(err)
	}
	orders := callers{catalogapi.Dial(rpc.Local("orders", server)), catalogapi.Dial(rpc.Local("shop", server))}
	return bench{m, clock, orders, face.Handler()}
}

// callers is a catalog as orders calls it, and as the command line does where only that may.
type callers struct {
	catalogapi.Catalog
	shop catalogapi.Catalog
}

func (c callers) Import(ctx context.Context, r catalogapi.ImportRequest) (catalogapi.ImportResult, error) {
	return c.shop.Import(ctx, r)
}

// Import is that of the command line.
func (b bench) Import(ctx context.Context, r catalogapi.ImportRequest) (catalogapi.ImportResult, error) {
	return b.orders.Import(ctx, r)
}

func TestOnlyTheCommandLineImports(t *testing.T) {
	t.Parallel()
	b := setup(t)
	for _, caller := range []string{"", "orders", "reviews"} {
		if _, err := b.Module.Import(auth.WithCaller(t.Context(), caller), catalogapi.ImportRequest{}); !errs.Is(err, errs.Forbidden) {
			t.Errorf("by %q: %v", caller, err)
		}
	}
}

// verify takes any token for a user who may do what the token says.
func verify(_ context.Context, token string) (auth.Identity, error) {
	return auth.Identity{User: "usr_1", Scopes: strings.Split(token, "+")}, nil
}

// request answers with the status, and with the body if there is one.
func (b bench) request(t testing.TB, method, path, body string, headers ...string) (*httptest.ResponseRecorder, map[string]any) {
	t.Helper()
	r := httptest.NewRequest(method, path, strings.NewReader(body))
	if body != "" {
		r.Header.Set("Content-Type", "application/json")
	}
	for i := 0; i < len(headers); i += 2 {
		r.Header.Set(headers[i], headers[i+1])
	}
	w := httptest.NewRecorder()
	b.server.ServeHTTP(w, r)
	out := map[string]any{}
	if strings.HasPrefix(w.Header().Get("Content-Type"), "application/") {
		if err := json.Unmarshal(w.Body.Bytes(), &out); err != nil {
			t.Fatalf("%s %s: %v in %s", method, path, err, w.Body)
		}
	}
	return w, out
}

func (b bench) get(t testing.TB, path string) map[string]any {
	t.Helper()
	w, out := b.request(t, "GET", path, "")
	if w.Code != 200 {
		t.Fatalf("GET %s: %d %s", path, w.Code, w.Body)
	}
	return out
}

// merchant may do all a merchant may.
const merchant = "Bearer catalog:write+catalog:read_all+stock:write"

func (b bench) stock(t testing.TB, sku string) (onHand, reserved int64) {
	t.Helper()
	rows, err := levelsAfter(t.Context(), b.DB, sku, "", 1)
	if err != nil || len(rows) != 1 {
		t.Fatalf("level of %s: %v %v", sku, rows, err)
	}
	return rows[0].OnHand, rows[0].Reserved
}

// addsUp fails the test unless every level is what its ledger and promises say.
func (b bench) addsUp(t testing.TB) {
	t.Helper()
	wrong, err := b.CheckStock(t.Context())
	if err != nil || len(wrong) > 0 {
		t.Fatalf("stock does not add up: %+v %v", wrong, err)
	}
}

func TestModule(t *testing.T) {
	t.Parallel()
	catalogtest.Suite(t, func(t *testing.T) catalogtest.Bench {
		b := setup(t)
		t.Cleanup(func() {
			if wrong, err := b.CheckStock(context.Background()); err != nil || len(wrong) > 0 {
				t.Errorf("stock does not add up: %+v %v", wrong, err)
			}
		})
		return catalogtest.Bench{Catalog: b.orders, Now: b.clock.Now, Stock: func(sku string) (int64, int64) { return b.stock(t, sku) },
			Advance: func(d time.Duration) {
				b.clock.Advance(d)
				if _, err := b.Sweep(t.Context()); err != nil {
					t.Error(err)
				}
			}}
	})
}
