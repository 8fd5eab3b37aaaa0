package usersapi

import (
	"context"

	"github.com/banyan-shop/banyan/platform/rpc"
)

var (
	keys      = rpc.NewMethod[KeysRequest, Keys]("users.Keys", rpc.Idempotent)
	verifyKey = rpc.NewMethod[VerifyKeyRequest, APIKey]("users.VerifyKey", rpc.Idempotent)
	address   = rpc.NewMethod[AddressRequest, Address]("users.Address", rpc.Idempotent)
	contact   = rpc.NewMethod[ContactRequest, Contact]("users.Contact", rpc.Idempotent)
	mailLink  = rpc.NewMethod[MailLinkRequest, MailLink]("users.MailLink", rpc.Idempotent)
	create    = rpc.NewMethod[CreateRequest, User]("users.Create", rpc.IdempotentByKey)
)

type client struct{ conn *rpc.Conn }

// Dial is the users module, wherever it runs.
func Dial(d rpc.Dialer) Users { return client{d.Conn("users")} }

// Mount makes x answer calls of the contract.
func Mount(s *rpc.Server, x Users) {
	keys.Handle(s, x.Keys)
	verifyKey.Handle(s, x.VerifyKey)
	address.Handle(s, x.Address)
	contact.Handle(s, x.Contact)
	mailLink.Handle(s, x.MailLink)
	create.Handle(s, x.Create)
}

func (c client) Keys(ctx context.Context, r KeysRequest) (Keys, error) {
	return keys.Call(ctx, c.conn, r)
}

func (c client) VerifyKey(ctx context.Context, r VerifyKeyRequest) (APIKey, error) {
	return verifyKey.Call(ctx, c.conn, r)
}

func (c client) Address(ctx context.Context, r AddressRequest) (Address, error) {
	return address.Call(ctx, c.conn, r)
}

func (c client) Contact(ctx context.Context, r ContactRequest) (Contact, error) {
	return contact.Call(ctx, c.conn, r)
}

func (c client) MailLink(ctx context.Context, r MailLinkRequest) (MailLink, error) {
	return mailLink.Call(ctx, c.conn, r)
}

func (c client) Create(ctx context.Context, r CreateRequest) (User, error) {
	return create.Call(ctx, c.conn, r)
}
