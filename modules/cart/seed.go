package cart

import (
	"context"
	"fmt"
	"time"

	"github.com/banyan-shop/banyan/platform/pg"
)

// Seed makes the promo codes of the demo shop: one that works, one whose time is over and one that is used up.
func (m *Module) Seed(ctx context.Context) error {
	begin, end := time.Date(2020, 1, 1, 0, 0, 0, 0, time.UTC), time.Date(2100, 1, 1, 0, 0, 0, 0, time.UTC)
	return m.DB.InTx(ctx, func(tx *pg.Tx) error {
		for _, p := range []promo{
			{Code: "WELCOME10", Kind: "percent", Value: 1000, From: begin, Until: end, Limit: 1_000_000_000},
			{Code: "SUMMER20", Kind: "percent", Value: 2000, From: begin, Until: begin.AddDate(0, 3, 0), Limit: 1_000_000_000},
			{Code: "FIRST100", Kind: "amount", Value: 500, Currency: "EUR", From: begin, Until: end, Limit: 100, Used: 100},
		} {
			if err := insertPromo(ctx, tx, p); err != nil {
				return fmt.Errorf("seed promo code %s: %w", p.Code, err)
			}
		}
		return nil
	})
}
