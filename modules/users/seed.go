package users

import (
	"context"
	"fmt"

	"github.com/banyan-shop/banyan/api/usersapi"
	"github.com/banyan-shop/banyan/platform/ids"
	"github.com/banyan-shop/banyan/platform/pg"
)

// Seed makes the demo accounts.
func (m *Module) Seed(ctx context.Context) error {
	for _, d := range []struct{ email, password, name, role string }{
		{usersapi.DemoShopper, usersapi.DemoShopperPassword, "Sam Shopper", "customer"},
		{usersapi.DemoAdmin, usersapi.DemoAdminPassword, "Ada Admin", "admin"},
	} {
		hash, err := m.Passwords.hash(ctx, d.password)
		if err != nil {
			return err
		}
		err = m.DB.InTx(ctx, func(tx *pg.Tx) error {
			_, err := upsertVerified(ctx, tx, user{
				ID: ids.Derived[usersapi.ID]("usr", "demo", d.email), Email: d.email, Name: d.name, Hash: hash,
				Roles: []string{d.role}, CreatedAt: m.Now().UTC(),
			})
			return err
		})
		if err != nil {
			return fmt.Errorf("seed %s: %w", d.role, err)
		}
	}
	return nil
}
