package pg_test

import (
	"fmt"
	"math/rand/v2"
	"sync/atomic"
	"testing"

	"github.com/banyan-shop/banyan/platform/pg"
	"github.com/banyan-shop/banyan/platform/shoptest"
)

func pool(b *testing.B, unprepared bool) *pg.DB {
	demo(b)
	c := shoptest.Config(b, "demo")
	c.MaxConns, c.Unprepared = 8, unprepared
	db := shoptest.Open(b, c)
	b.SetParallelism(4) // 8 clients on 2 cores
	b.ReportAllocs()
	b.ResetTimer()
	return db
}

func BenchmarkSelectByKey(b *testing.B) {
	for _, unprepared := range []bool{false, true} {
		b.Run(fmt.Sprintf("unprepared=%v", unprepared), func(b *testing.B) {
			db := pool(b, unprepared)
			b.RunParallel(func(p *testing.PB) {
				var one item
				for p.Next() {
					if err := db.Get(b.Context(), &one, `SELECT id, n FROM demo.items WHERE id = $1`, fmt.Sprint("seed", 1+rand.IntN(1000))); err != nil {
						b.Error(err)
						return
					}
				}
			})
			b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "selects/s")
		})
	}
}

// BenchmarkTransaction has the shape of a checkout: three reads, three writes, the hot row last.
func BenchmarkTransaction(b *testing.B) {
	for _, unprepared := range []bool{false, true} {
		b.Run(fmt.Sprintf("unprepared=%v", unprepared), func(b *testing.B) {
			db := pool(b, unprepared)
			ctx := b.Context()
			var serial atomic.Int64
			b.RunParallel(func(p *testing.PB) {
				var one item
				for p.Next() {
					err := db.InTx(ctx, func(tx *pg.Tx) error {
						for range 3 {
							if err := tx.Get(ctx, &one, `SELECT id, n FROM demo.items WHERE id = $1`, fmt.Sprint("seed", 1+rand.IntN(1000))); err != nil {
								return err
							}
						}
						for range 3 {
							if err := insert(ctx, tx, fmt.Sprint("new", serial.Add(1)), 1); err != nil {
								return err
							}
						}
						_, err := tx.Exec(ctx, `UPDATE demo.items SET n = n + 1 WHERE id = $1`, fmt.Sprint("seed", 1+rand.IntN(1000)))
						return err
					})
					if err != nil {
						b.Error(err)
						return
					}
				}
			})
			q, t := db.Counts()
			b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "tx/s")
			b.ReportMetric(float64(q)/float64(t), "roundtrips/tx")
		})
	}
}
