package main

import (
	"context"
	"fmt"

	"github.com/banyan-shop/banyan/api/catalogapi"
	"github.com/banyan-shop/banyan/api/usersapi"
	"github.com/banyan-shop/banyan/db"
	"github.com/banyan-shop/banyan/modules/cart"
	"github.com/banyan-shop/banyan/modules/catalog"
	"github.com/banyan-shop/banyan/modules/notifications"
	"github.com/banyan-shop/banyan/modules/orders"
	"github.com/banyan-shop/banyan/modules/payments"
	"github.com/banyan-shop/banyan/modules/reviews"
	"github.com/banyan-shop/banyan/modules/shipping"
	"github.com/banyan-shop/banyan/modules/storefront"
	"github.com/banyan-shop/banyan/modules/users"
	"github.com/banyan-shop/banyan/platform/auth"
	"github.com/banyan-shop/banyan/platform/config"
	"github.com/banyan-shop/banyan/platform/events"
	"github.com/banyan-shop/banyan/platform/gateway/redislimit"
	"github.com/banyan-shop/banyan/platform/host"
	"github.com/banyan-shop/banyan/platform/ids"
	"github.com/banyan-shop/banyan/platform/rpc"
)

// modules are the shop, in dependency order: each may call only those above it. What would have to call downwards is an event.
var modules = []host.Module{
	host.Of("users", users.Build),
	host.Of("catalog", catalog.Build),
	host.Of("shipping", shipping.Build),
	host.Of("cart", cart.Build),
	host.Of("payments", payments.Build),
	host.Of("orders", orders.Build),
	host.Of("notifications", notifications.Build),
	host.Of("reviews", reviews.Build),
	host.Of("storefront", storefront.Build),
}

// shop is what the host runs, with settings that are read already.
func shop(settings *config.Source) host.Options {
	return host.Options{Modules: modules, Settings: settings, Migrations: db.Migrations, Version: version(), Keys: keys, APIKeys: apiKeys, Hear: hear, Carrier: carrier, Limiter: limiter}
}

// keys fetches the public keys of access tokens from the module that makes the tokens, wherever it runs.
func keys(d rpc.Dialer) auth.KeySource {
	u := usersapi.Dial(d)
	return func(ctx context.Context) (auth.JWKS, error) {
		k, err := u.Keys(ctx, usersapi.KeysRequest{})
		if err != nil {
			return auth.JWKS{}, fmt.Errorf("fetch the keys of access tokens: %w", err)
		}
		set, err := auth.ParseJWKS([]byte(k.JWKS))
		for _, e := range k.Ended {
			set.Ended = append(set.Ended, auth.Ended(e))
		}
		return set, err
	}
}

// apiKeys asks the same module about API keys, by their hash.
func apiKeys(d rpc.Dialer) auth.APIKeyVerifier {
	u := usersapi.Dial(d)
	return func(ctx context.Context, hash string) (auth.APIKey, error) {
		k, err := u.VerifyKey(ctx, usersapi.VerifyKeyRequest{Hash: hash})
		return auth.APIKey{ID: k.ID, Owner: ids.ID(k.Owner), Scopes: k.Scopes, Expires: k.ExpiresAt}, err
	}
}

// limiter shares rate limits through Redis.
func limiter(address string) (host.SharedLimiter, error) {
	return redislimit.Open(address, "banyan", 0)
}

// hear is what every process hears whatever it runs: that sessions and API keys ended, so that it refuses them within moments, and
// that the catalogue has changed, so that it shows nothing of before.
func hear(s *events.Subscriptions, to host.Ears) {
	events.Broadcast(s, func(_ context.Context, e usersapi.APIKeyRevoked) { to.Verifier.RevokeAPIKey(e.Key) })
	events.Broadcast(s, func(_ context.Context, e usersapi.SessionsEnded) { to.Verifier.Revoke(ids.ID(e.User), e.NotBefore) })
	events.Broadcast(s, func(context.Context, catalogapi.ProductsChanged) { to.Invalidate(catalogapi.CacheTag) })
}
