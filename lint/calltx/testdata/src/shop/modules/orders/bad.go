package orders

import (
	"context"
	"net/http"
	"sync"
	"time"

	"shop/api/paymentsapi"
	"shop/platform/events"
	"shop/platform/pg"
)

func (m *Module) bad(ctx context.Context, authorize func(context.Context, paymentsapi.AuthorizeRequest) (paymentsapi.Authorization, error)) error {
	var outer *pg.Tx
	_ = outer
	return m.DB.InTx(ctx, func(tx *pg.Tx) error {
		m.Payments.Authorize(ctx, paymentsapi.AuthorizeRequest{}) // want `inside a transaction: this calls payments.Authorize; its time is the callee's`
		authorize(ctx, paymentsapi.AuthorizeRequest{})            // want `calls payments through a func value`
		f := m.Payments.Authorize                                 // want `takes payments.Authorize to call it`
		_ = f
		m.charge(ctx)            // want `inside a transaction: charge calls payments.Authorize \(line 47 of bad.go\)`
		m.deep(ctx)              // want `inside a transaction: deep leads through charge, which calls payments.Authorize`
		http.Get("http://x")     // want `calls http.Get`
		(&http.Client{}).Do(nil) // want `calls http.Do`
		time.Sleep(1)            // want `calls time.Sleep`
		<-m.wake                 // want `waits on a channel`
		m.wake <- struct{}{}     // want `waits on a channel`
		var wg sync.WaitGroup
		wg.Wait()                              // want `calls sync.Wait`
		go pure(1)                             // want `starts a goroutine`
		read(ctx, m.DB)                        // want `uses the pool DB`
		m.DB.InTx(ctx, func(tx *pg.Tx) error { // want `opens another transaction`
			return nil
		})
		m.plainTx(ctx)                         // want `plainTx opens another transaction`
		outer = tx                             // want `a transaction is assigned to a variable that may outlive it`
		ctx = context.WithValue(ctx, "tx", tx) // want `a transaction is stored in ctx`
		var once sync.Map
		once.Store("tx", tx)       // want `a transaction is given away as any`
		func() { m.charge(ctx) }() // want `charge calls payments.Authorize`
		return nil
	})
}

func (m *Module) charge(ctx context.Context) {
	m.Payments.Authorize(ctx, paymentsapi.AuthorizeRequest{})
}

func (m *Module) deep(ctx context.Context) { m.charge(ctx) }

func (m *Module) plainTx(ctx context.Context) {
	m.DB.InTx(ctx, func(tx *pg.Tx) error { return nil })
}

func (m *Module) store(ctx context.Context, tx *pg.Tx) {
	m.Payments.Authorize(ctx, paymentsapi.AuthorizeRequest{}) // want `calls payments.Authorize`
}

func (m *Module) once(ctx context.Context) {
	pg.Once(ctx, m.DB, pg.Operation{}, func(tx *pg.Tx) (int, error) {
		m.charge(ctx) // want `charge calls payments.Authorize`
		return 1, nil
	})
}

func (m *Module) subscribe(s *events.Subscriptions) {
	events.On(s, "bad", func(ctx context.Context, tx *pg.Tx, e event) error {
		m.charge(ctx) // want `charge calls payments.Authorize`

		//shop:allow calltx until=2999-01-31 owner=@orders bounded by 1 ms and measured
		time.Sleep(1)
		return nil
	})
}

type unit struct {
	tx *pg.Tx // want `a transaction is kept in a struct`
}

var current *pg.Tx // want `a transaction is kept in a package variable`

func open() *pg.Tx { return nil } // want `a transaction is returned`
