package storefront

import (
	"context"

	"github.com/banyan-shop/banyan/api/cartapi"
	"github.com/banyan-shop/banyan/api/ordersapi"
	"github.com/banyan-shop/banyan/platform/auth"
	"github.com/banyan-shop/banyan/platform/web"
)

// Routes are the composed pages.
func (m *Module) Routes(r *web.Router) {
	r.Tag("storefront", "Whole pages in one call; unavailable names the parts that did not answer in time.")
	web.Get(r, "/v1/storefront/products/{ref}", web.Public, web.Route{
		ID: "productPage", Tag: "storefront", Summary: "A product with its reviews and a shipping estimate",
	}, m.getProduct)
	web.Get(r, "/v1/storefront/orders/{id}", web.Public, web.Route{
		ID: "orderPage", Tag: "storefront", Summary: "An order with its payments and parcels",
	}, m.getOrder)
	web.Get(r, "/v1/storefront/carts/{id}", web.Public, web.Route{
		ID: "cartPage", Tag: "storefront", Summary: "A cart with cards of its products",
	}, m.getCart)
	web.Get(r, "/v1/storefront/account", web.SignedIn, web.Route{
		ID: "accountPage", Tag: "storefront", Summary: "The account's newest orders and where their parcels are",
	}, m.getAccount)
}

type productInput struct {
	Ref string `path:"ref" maxLength:"200" doc:"Id or slug"`
}

func (m *Module) getProduct(ctx context.Context, in *productInput) (*web.Reply[productPage], error) {
	page, err := m.productPage(ctx, in.Ref)
	if err != nil {
		return nil, err
	}
	return &web.Reply[productPage]{Body: page}, nil
}

type orderInput struct {
	ID    ordersapi.ID `path:"id" maxLength:"40"`
	Token string       `header:"X-Order-Token" maxLength:"300"`
}

func (m *Module) getOrder(ctx context.Context, in *orderInput) (*web.Reply[orderPage], error) {
	page, err := m.orderPage(ctx, ordersapi.OrderRequest{ID: in.ID, User: auth.From(ctx).User, Token: in.Token})
	if err != nil {
		return nil, err
	}
	return &web.Reply[orderPage]{Body: page}, nil
}

type cartInput struct {
	ID    cartapi.ID `path:"id" maxLength:"40"`
	Token string     `header:"X-Cart-Token" maxLength:"100"`
}

func (m *Module) getCart(ctx context.Context, in *cartInput) (*web.Reply[cartPage], error) {
	page, err := m.cartPage(ctx, cartapi.CartRequest{ID: in.ID, Owner: cartapi.Owner{User: auth.From(ctx).User, Token: in.Token}})
	if err != nil {
		return nil, err
	}
	return &web.Reply[cartPage]{Body: page}, nil
}

func (m *Module) getAccount(ctx context.Context, _ *struct{}) (*web.Reply[accountPage], error) {
	page, err := m.accountPage(ctx, auth.From(ctx).User)
	if err != nil {
		return nil, err
	}
	return &web.Reply[accountPage]{Body: page}, nil
}
