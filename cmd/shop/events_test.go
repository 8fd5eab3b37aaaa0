package main

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"go/ast"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/banyan-shop/banyan/api/catalogapi"
	"github.com/banyan-shop/banyan/api/ordersapi"
	"github.com/banyan-shop/banyan/api/paymentsapi"
	"github.com/banyan-shop/banyan/api/reviewsapi"
	"github.com/banyan-shop/banyan/api/shippingapi"
	"github.com/banyan-shop/banyan/api/usersapi"
	"github.com/banyan-shop/banyan/platform/events"
	"github.com/banyan-shop/banyan/platform/ids"
	"github.com/banyan-shop/banyan/platform/money"
	"github.com/banyan-shop/banyan/platform/pg"
)

// published are all events of the shop. The test below finds one that is missing here.
var published = []events.Event{
	usersapi.MailRequested{}, usersapi.SessionsEnded{}, usersapi.APIKeyRevoked{},
	catalogapi.ProductsChanged{},
	shippingapi.ShipmentShipped{}, shippingapi.ShipmentDelivered{},
	paymentsapi.PaymentChanged{},
	ordersapi.OrderPlaced{}, ordersapi.OrderCancelled{}, ordersapi.PaymentDeclined{},
	reviewsapi.RatingChanged{},
}

// TestEveryEventHasAPublisherAndAHearer asks the modules what they hear and the source what is declared and made: no hearer
// waits for what nobody says, and nobody speaks to the wall.
func TestEveryEventHasAPublisherAndAHearer(t *testing.T) {
	t.Parallel()
	listed := map[string]string{} // Go type by name
	for _, e := range published {
		name := e.EventName()
		if _, ok := listed[name]; ok {
			t.Errorf("two events are named %s", name)
		}
		listed[name] = reflect.TypeOf(e).String()
	}
	declared, made := eventTypes(t)
	for typ := range declared {
		if !slices.ContainsFunc(published, func(e events.Event) bool { return reflect.TypeOf(e).String() == typ }) {
			t.Errorf("%s is an event: add it to published, and its schema to the golden file with -update", typ)
		}
	}
	heard := map[string]bool{}
	for _, m := range modules {
		for _, s := range events.Collect(m.Name, m.Nil.Subscribe) {
			heard[s.Event] = true
			if listed[s.Event] != s.Type {
				t.Errorf("%s hears %s as %s, but that event is %q", m.Name, s.Event, s.Type, listed[s.Event])
			}
		}
	}
	for name, typ := range listed {
		owner, _, _ := strings.Cut(name, ".")
		if !made[owner+" "+typ] {
			t.Errorf("module %s never makes %s", owner, typ)
		}
		if !heard[name] {
			t.Errorf("nobody hears %s", name)
		}
	}
}

// eventTypes are the event types declared in api, and those that each module makes, as "orders ordersapi.OrderPlaced".
func eventTypes(t *testing.T) (declared, made map[string]bool) {
	declared, made = map[string]bool{}, map[string]bool{}
	for _, s := range packagesIn(t, filepath.Join("..", "..", "api")) {
		for _, f := range s.files {
			for _, d := range f.Decls {
				fn, ok := d.(*ast.FuncDecl)
				if ok && fn.Recv != nil && fn.Name.Name == "EventName" {
					declared[f.Name.Name+"."+fn.Recv.List[0].Type.(*ast.Ident).Name] = true
				}
			}
		}
	}
	for _, s := range packagesIn(t, filepath.Join("..", "..", "modules")) {
		for _, f := range s.files {
			ast.Inspect(f, func(n ast.Node) bool {
				if lit, ok := n.(*ast.CompositeLit); ok {
					if sel, ok := lit.Type.(*ast.SelectorExpr); ok {
						made[fmt.Sprintf("%s %s.%s", f.Name.Name, sel.X, sel.Sel)] = true
					}
				}
				return true
			})
		}
	}
	return declared, made
}

// TestEventSchemas holds the shape of each event to a file. Events are kept and travel between releases: a change there is
// one that old and new processes, and rows written yesterday, must both live with. Fields may be added; for all else there
// is a next version of the event.
func TestEventSchemas(t *testing.T) {
	t.Parallel()
	all := map[string]any{}
	for _, e := range published {
		s := jsonSchema(t, reflect.TypeOf(e))
		s["$schema"] = "https://json-schema.org/draft/2020-12/schema"
		s["title"] = reflect.TypeOf(e).String()
		all[e.EventName()] = s
	}
	got, err := json.MarshalIndent(all, "", "  ")
	if err != nil {
		t.Fatal(err)
	}
	got = append(got, '\n')
	golden := filepath.Join("..", "..", "api", "events.golden.json")
	if *update {
		if err := os.WriteFile(golden, got, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(golden)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(string(want), string(got)); diff != "" {
		t.Errorf("events have changed; if no hearer and no stored event minds, run with -update (-want +got):\n%s", diff)
	}
	for _, e := range published { // what is written is what the schema says
		b, err := json.Marshal(e)
		if err != nil {
			t.Fatal(err)
		}
		var fields map[string]any
		if err := json.Unmarshal(b, &fields); err != nil {
			t.Fatal(err)
		}
		properties := all[e.EventName()].(map[string]any)["properties"].(map[string]any)
		for name := range fields {
			if _, ok := properties[name]; !ok {
				t.Errorf("%s writes %s, which its schema does not know", e.EventName(), name)
			}
		}
	}
}

func jsonSchema(t *testing.T, typ reflect.Type) map[string]any {
	t.Helper()
	if typ == reflect.TypeFor[time.Time]() {
		return map[string]any{"type": "string", "format": "date-time"}
	}
	switch typ.Kind() {
	case reflect.String:
		return map[string]any{"type": "string"}
	case reflect.Bool:
		return map[string]any{"type": "boolean"}
	case reflect.Int, reflect.Int64, reflect.Int32:
		return map[string]any{"type": "integer"}
	case reflect.Slice:
		return map[string]any{"type": "array", "items": jsonSchema(t, typ.Elem())}
	case reflect.Map:
		return map[string]any{"type": "object", "additionalProperties": jsonSchema(t, typ.Elem())}
	case reflect.Struct:
		properties, required := map[string]any{}, []string{}
		for i := range typ.NumField() {
			f := typ.Field(i)
			name, options, _ := strings.Cut(f.Tag.Get("json"), ",")
			if name == "" || name != strings.ToLower(name) {
				t.Errorf("%s.%s needs a json name in snake_case", typ, f.Name)
			}
			properties[name] = jsonSchema(t, f.Type)
			if options == "" {
				required = append(required, name)
			}
		}
		return map[string]any{"type": "object", "properties": properties, "required": required}
	}
	t.Errorf("an event must not hold a %s: its hearers may be elsewhere", typ)
	return nil
}

// TestNoMailOfWhatDidNotCommit publishes an order within a transaction that is rolled back, then within one that commits: the
// shopper hears of the second alone. And a checkout that comes to no order thanks nobody.
func TestNoMailOfWhatDidNotCommit(t *testing.T) {
	t.Parallel()
	w := newWorld(t, nil)
	w.quiet()
	before := w.sum()
	now := time.Now().UTC()
	placed := ordersapi.OrderPlaced{
		Order: ids.New[ordersapi.ID]("ord"), Number: "R-1", Cart: ids.New[ids.ID]("crt"), Customer: ids.ID(w.users["owner"]), Country: "DE",
		Lines: []ordersapi.PlacedLine{}, Shipping: money.Of(0, "EUR"), Tax: money.Of(0, "EUR"), Total: money.Of(0, "EUR"), PlacedAt: now,
	}
	no := errors.New("no")
	publish := func(end error) error {
		return w.h.DB("orders").InTx(t.Context(), func(tx *pg.Tx) error {
			return errors.Join(events.Publish(t.Context(), tx, placed), end)
		})
	}
	for range 5 {
		if err := publish(no); !errors.Is(err, no) {
			t.Fatal(err)
		}
	}
	w.quiet()
	w.unchanged("an order that was rolled back", before)

	if err := publish(nil); err != nil {
		t.Fatal(err)
	}
	w.quiet()
	if n := w.messages("order_confirmation", string(placed.Order)); n != 1 {
		t.Errorf("%d messages of an order that was committed", n)
	}

	e := w.fresh("guest")
	body := e.checkoutBody("tok_decline")
	a := w.must(w.send(e.as(call{method: "POST", target: "/v1/checkouts", body: body}).with("Idempotency-Key", w.key1())), 402)
	changed := bytes.ReplaceAll([]byte(body), []byte(`"amount":`), []byte(`"amount":1`))
	w.must(w.send(e.as(call{method: "POST", target: "/v1/checkouts", body: string(changed)}).with("Idempotency-Key", w.key1())), 409)
	w.quiet()
	var n int
	if err := w.admin.Get(t.Context(), &n, `SELECT count(*) FROM notifications.messages WHERE template = 'order_confirmation'`); err != nil || n != 1 {
		t.Errorf("%d confirmations after %s, %v", n, a, err)
	}
}

func (w *world) messages(template, order string) (n int) {
	w.t.Helper()
	err := w.admin.Get(w.t.Context(), &n, `SELECT count(*) FROM notifications.messages WHERE template = $1 AND recipient = 'order:' || $2`, template, order)
	if err != nil {
		w.t.Fatal(err)
	}
	return n
}
