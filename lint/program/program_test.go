package program_test

import (
	"strings"
	"testing"

	"github.com/banyan-shop/banyan/lint/linttest"
	"github.com/banyan-shop/banyan/lint/program"
)

func TestWholeProgram(t *testing.T) {
	t.Parallel()
	const payments = `package payments

import (
	"context"

	"shop/api/ordersapi"
	"shop/platform/events"
	"shop/platform/pg"
)

type Module struct{ Orders ordersapi.Orders }

func Build() *Module { return &Module{} }

func (m *Module) Subscribe(s *events.Subscriptions) {
	events.On(s, "capture", func(ctx context.Context, tx *pg.Tx, e ordersapi.OrderPlaced) error { return nil })
}
`
	for name, c := range map[string]struct {
		file, text string
		want       []string // parts of the findings, in order; none for a clean tree
	}{
		"clean": {},
		"an event nobody publishes": {
			file: "api/paymentsapi/events.go",
			text: "package paymentsapi\n\ntype Paid struct{}\n\nfunc (Paid) EventName() string { return \"payments.paid.v1\" }\nfunc (Paid) EventKey() string  { return \"\" }\n",
			want: []string{"api/paymentsapi/events.go:3:6: event Paid (payments.paid.v1) is declared but nobody publishes it"},
		},
		"an event heard but not published": {
			file: "modules/orders/orders.go",
			text: "package orders\n\nfunc Build() int { return 1 }\n",
			want: []string{"payments hears orders.order_placed.v1, which orders declares but nobody publishes"},
		},
		"a call down the list": {
			file: "cmd/shop/modules.go",
			text: "package main\n\nimport (\n\t\"shop/modules/orders\"\n\t\"shop/modules/payments\"\n\t\"shop/platform/host\"\n)\n\nfunc main() {\n\t_ = host.Of(\"orders\", orders.Build)\n\t_ = host.Of(\"payments\", payments.Build)\n}\n",
			want: []string{"orders calls payments, which stands below it in cmd/shop/modules.go"},
		},
		"calls that go round": {
			file: "modules/payments/payments.go", text: payments,
			want: []string{"payments calls orders, and orders calls back (payments → orders → payments)"},
		},
		"a module that is not listed": {
			file: "modules/reviews/reviews.go", text: "package reviews\n",
			want: []string{"module reviews is not in cmd/shop/modules.go, so it never runs"},
		},
		"migrations of nobody": {
			file: "db/reviews/0001.sql", text: "SELECT 1;\n",
			want: []string{"db/reviews belongs to no module"},
		},
		"a foreign key across": {
			file: "db/orders/0002_fk.sql", text: "ALTER TABLE orders.orders ADD FOREIGN KEY (p)\n  REFERENCES payments.payments (id);\n",
			want: []string{"db/orders/0002_fk.sql:2:14: a foreign key of orders points at payments.payments"},
		},
		"migrations are read although package db does not compile": {
			file: "db/db.go", text: "package db\n\nvar x int = \"\"\n",
			want: []string{"db/db.go:3:13"},
		},
		"a border crossed behind a tag": {
			file: "modules/orders/slow.go", text: "//go:build failpoints\n\npackage orders\n\nimport _ \"shop/modules/payments\"\n",
			want: []string{"modules/orders/slow.go:5:8: orders must not import module payments"},
		},
		"SQL behind a tag": {
			file: "modules/orders/slow.go", text: "//go:build failpoints\n\npackage orders\n\nimport (\n\t\"context\"\n\n\t\"shop/platform/pg\"\n)\n\nfunc peek(ctx context.Context, db *pg.DB) { db.Get(ctx, nil, `SELECT 1 FROM payments.payments`) }\n",
			want: []string{"modules/orders/slow.go:11:62: SQL of orders names payments.payments"},
		},
		"mutants are one build": {
			file: "modules/orders/mutant.go", text: "//go:build mutant_void\n\npackage orders\n\nvar state []int\n\nfunc grow() { state = append(state, 1) }\n",
			want: []string{"state is package-level state"},
		},
		"an undeclared tag": {
			file: "modules/orders/odd.go", text: "//go:build hidden && !linux\n\npackage orders\n",
			want: []string{"modules/orders/odd.go:1:1: build tag hidden is in none of shoplint's tag sets"},
		},
		"a border crossed in a package that does not compile": {
			file: "modules/orders/broken.go", text: "package orders\n\nimport \"shop/modules/payments\"\n\nvar x int = payments.Gone\n",
			want: []string{"orders must not import module payments", "undefined: payments.Gone"},
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			dir := linttest.Shop(t)
			if strings.HasPrefix(name, "calls that go round") {
				linttest.Edit(t, dir, "api/ordersapi/ordersapi.go", ordersapi)
			}
			if c.file != "" {
				linttest.Edit(t, dir, c.file, c.text)
			}
			found, err := program.Run(dir)
			if err != nil {
				t.Fatal(err)
			}
			if len(found) != len(c.want) {
				t.Errorf("%d findings, want %d: %v", len(found), len(c.want), found)
			}
			for i := range min(len(found), len(c.want)) {
				if !strings.Contains(found[i].String(), c.want[i]) {
					t.Errorf("got  %s\nwant %s", found[i], c.want[i])
				}
			}
		})
	}
}

const ordersapi = `package ordersapi

import (
	"context"

	"shop/platform/rpc"
)

type Orders interface {
	Order(ctx context.Context, r OrderRequest) (Order, error)
}

type OrderRequest struct{}
type Order struct{}

var order = rpc.NewMethod[OrderRequest, Order]("orders.Order", rpc.Idempotent)

type client struct{ conn *rpc.Conn }

func Dial(d rpc.Dialer) Orders { return client{d.Conn("orders")} }

func Mount(s *rpc.Server, o Orders) { order.Handle(s, o.Order) }

func (c client) Order(ctx context.Context, r OrderRequest) (Order, error) { return order.Call(ctx, c.conn, r) }
`
