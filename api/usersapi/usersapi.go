// Package usersapi is what others may ask of users: keys to check a token, API keys, addresses, and whom to write to.
package usersapi

import (
	"context"
	"time"

	"github.com/banyan-shop/banyan/platform/ids"
)

// ID names a user: usr_….
type ID ids.ID

// The accounts of the demo data, made with an embedded database only.
const (
	DemoShopper         = "shopper@example.com"
	DemoShopperPassword = "banyan-demo-shopper"
	DemoAdmin           = "admin@example.com"
	DemoAdminPassword   = "banyan-demo-admin"
)

// Users knows the people: customers and staff.
type Users interface {
	// Keys are the public keys that access tokens are signed with, and who was logged out everywhere within the life of a token.
	// May be repeated.
	Keys(ctx context.Context, r KeysRequest) (Keys, error)

	// VerifyKey tells what an API key stands for at the moment. Only for who checks tokens: the host of a process. May be
	// repeated. Codes: not_found, also when it was revoked or has expired.
	VerifyKey(ctx context.Context, r VerifyKeyRequest) (APIKey, error)

	// Address is an entry of a user's address book. May be repeated. Codes: not_found, also for somebody else's.
	Address(ctx context.Context, r AddressRequest) (Address, error)

	// Contact tells where to write to a user. Only for notifications, at the time of sending. May be repeated. Codes: not_found.
	Contact(ctx context.Context, r ContactRequest) (Contact, error)

	// MailLink is the secret link of a mail that users asked to be sent. It is made when the mail is, so no event or message
	// row holds it. Only for notifications. May be repeated. Codes: not_found, also once used or expired.
	MailLink(ctx context.Context, r MailLinkRequest) (MailLink, error)

	// Create makes a verified user with a role, or gives the role and password to the one with that e-mail. For the command
	// line. Repeat it with the same Key. Codes: invalid.
	Create(ctx context.Context, r CreateRequest) (User, error)
}

// KeysRequest asks for the public keys.
type KeysRequest struct{}

// Keys is what one must know to check an access token.
type Keys struct {
	JWKS  string  `json:"jwks"`  // a document, as at /.well-known/jwks.json
	Ended []Ended `json:"ended"` // for who was away when SessionsEnded was told
}

// Ended says that a user's access tokens issued before a time are void.
type Ended struct {
	User      ids.ID    `json:"user"`
	NotBefore time.Time `json:"not_before"`
}

// VerifyKeyRequest asks about an API key by its hash, auth.HashAPIKey: the key itself stays where it was shown.
type VerifyKeyRequest struct {
	Hash string `json:"hash"`
}

// APIKey is what an API key stands for.
type APIKey struct {
	ID        ids.ID    `json:"id"`
	Owner     ID        `json:"owner"`      // who made it
	Scopes    []string  `json:"scopes"`     // its permissions that the owner's roles still give
	ExpiresAt time.Time `json:"expires_at"` // zero: never
}

// AddressRequest asks for an address of a user.
type AddressRequest struct {
	User ids.ID `json:"user"`
	ID   ids.ID `json:"id"`
}

// Address is a postal address.
type Address struct {
	ID       ids.ID `json:"id"`
	Name     string `json:"name"`
	Line1    string `json:"line1"`
	Line2    string `json:"line2"`
	City     string `json:"city"`
	Region   string `json:"region"`
	Postcode string `json:"postcode"`
	Country  string `json:"country"`
	Phone    string `json:"phone"`
}

// ContactRequest asks where to write to a user.
type ContactRequest struct {
	User ids.ID `json:"user"`
}

// Contact is where to write to somebody.
type Contact struct {
	Email  string `json:"email"`
	Name   string `json:"name"`
	Locale string `json:"locale"`
}

// MailLinkRequest asks for the link of a mail request, named by MailRequested.
type MailLinkRequest struct {
	Mail ids.ID `json:"mail"`
}

// MailLink is a secret link and whom to send it to.
type MailLink struct {
	Email string `json:"email"`
	Name  string `json:"name"`
	Token string `json:"token"` // "" for a mere notice
}

// CreateRequest makes a user.
type CreateRequest struct {
	Key      string `json:"key"`
	Email    string `json:"email"`
	Password string `json:"password"`
	Name     string `json:"name"`
	Role     string `json:"role"`
}

// User is a person with an account.
type User struct {
	ID    ID     `json:"id"`
	Email string `json:"email"`
	Name  string `json:"name"`
}
