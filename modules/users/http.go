package users

import (
	"context"
	"fmt"
	"net/http"

	"github.com/banyan-shop/banyan/api/usersapi"
	"github.com/banyan-shop/banyan/platform/auth"
	"github.com/banyan-shop/banyan/platform/errs"
	"github.com/banyan-shop/banyan/platform/ids"
	"github.com/banyan-shop/banyan/platform/pg"
	"github.com/banyan-shop/banyan/platform/web"
)

// Routes are the public routes of users.
func (m *Module) Routes(r *web.Router) {
	for _, p := range problems {
		r.Problem(p[0], p[1], p[2])
	}
	r.Tag("users", "Accounts, logins and the address book.")
	web.Post(r, "/v1/auth/register", web.Public, web.Route{
		ID: "register", Tag: "users", Summary: "Make an account and log in; the e-mail is verified by a link", Status: http.StatusCreated, IgnoreToken: true, Guarded: true,
	}, m.postRegister)
	web.Post(r, "/v1/auth/login", web.Public, web.Route{
		ID: "login", Tag: "users", Summary: "Log in", IgnoreToken: true, Guarded: true, Also: map[int]string{http.StatusUnauthorized: "E-mail and password do not belong together"},
	}, m.postLogin)
	web.Post(r, "/v1/auth/refresh", web.Public, web.Route{
		ID: "refresh", Tag: "users", Summary: "Exchange a refresh token for fresh tokens", IgnoreToken: true, Guarded: true,
		Also: map[int]string{http.StatusUnauthorized: "The refresh token is unknown, expired or used up: log in again"},
	}, m.postRefresh)
	web.Post(r, "/v1/auth/logout", web.SignedIn, web.Route{ID: "logout", Tag: "users", Summary: "End this session", Status: http.StatusNoContent}, m.postLogout)
	web.Post(r, "/v1/auth/logout-everywhere", web.SignedIn, web.Route{
		ID: "logoutEverywhere", Tag: "users", Summary: "End all sessions of this account", Status: http.StatusNoContent,
	}, m.postLogoutEverywhere)
	web.Post(r, "/v1/auth/verify", web.Public, web.Route{
		ID: "verifyEmail", Tag: "users", Summary: "Verify an e-mail address with the token of its mail", Status: http.StatusNoContent, IgnoreToken: true,
	}, m.postVerify)
	web.Post(r, "/v1/auth/password-resets", web.Public, web.Route{
		ID: "requestPasswordReset", Tag: "users", Summary: "Ask for a mail to set a new password", Status: http.StatusAccepted, IgnoreToken: true, Guarded: true,
	}, m.postPasswordReset)
	web.Post(r, "/v1/auth/password-resets/confirm", web.Public, web.Route{
		ID: "confirmPasswordReset", Tag: "users", Summary: "Set a new password with the token of the mail; ends all sessions", Status: http.StatusNoContent, IgnoreToken: true, Guarded: true,
	}, m.postPasswordResetConfirm)
	web.Get(r, "/v1/me", web.SignedIn, web.Route{ID: "me", Tag: "users", Summary: "The account"}, m.getMe)
	web.Patch(r, "/v1/me", web.SignedIn, web.Route{ID: "changeMe", Tag: "users", Summary: "Change the account's name"}, m.patchMe)
	web.Post(r, "/v1/me/verification-mail", web.SignedIn, web.Route{
		ID: "resendVerification", Tag: "users", Summary: "Send the verification mail again", Status: http.StatusAccepted,
	}, m.postVerificationMail)
	web.Get(r, "/v1/me/addresses", web.SignedIn, web.Route{ID: "listAddresses", Tag: "users", Summary: "The address book"}, m.getAddresses)
	web.Post(r, "/v1/me/addresses", web.SignedIn, web.Route{
		ID: "addAddress", Tag: "users", Summary: "Add an address to the address book", Status: http.StatusCreated, Idempotency: web.Keyed,
	}, m.postAddress)
	web.Delete(r, "/v1/me/addresses/{id}", web.SignedIn, web.Route{
		ID: "removeAddress", Tag: "users", Summary: "Remove an address from the address book", Status: http.StatusNoContent,
	}, m.deleteAddress)
	m.apiKeyRoutes(r)
	web.Get(r, "/.well-known/jwks.json", web.Public, web.Route{ID: "jwks", Tag: "users", Summary: "Public keys of access tokens"}, m.getKeys)
}

// problems are the codes of users' own refusals: code, title, explanation.
var problems = [][3]string{
	{"invalid_credentials", "Wrong e-mail or password", "The two do not belong together. The answer is the same for an address nobody has."},
	{"invalid_refresh_token", "Log in again", "The refresh token is unknown, expired, or was used before, which ends its session."},
	{"login_delayed", "Too many wrong passwords", "Wait as long as Retry-After says, or set a new password."},
	{"invalid_token", "The link is not valid any more", "Links in mails work once and for seven days. Ask for a new mail."},
	{"address_taken", "The address is taken", "Another account has verified this e-mail address."},
	{"unknown_role", "There is no such role", "A role is customer, support, merchant or admin."},
	{"scope_not_held", "You do not hold that permission", "An API key may do some of what its maker may, and nothing else."},
	{"too_many_api_keys", "Too many API keys", "A user has up to 100 API keys: revoke one that is not used."},
	{"invalid_address", "The address is not complete", "Some countries need a region or a postcode; errors[] says which part is missing."},
}

type none struct{}

type registerInput struct {
	Body struct {
		Email    string `json:"email" maxLength:"254" example:"gina@example.com"`
		Password string `json:"password" maxLength:"512" example:"correct horse battery staple"`
		Name     string `json:"name" minLength:"1" maxLength:"120" example:"Gina Guest"`
	}
}

func (m *Module) postRegister(ctx context.Context, in *registerInput) (*web.Reply[tokens], error) {
	t, err := m.register(ctx, in.Body.Email, in.Body.Password, in.Body.Name)
	if err != nil {
		return nil, err
	}
	return &web.Reply[tokens]{Status: http.StatusCreated, Body: t}, nil
}

type loginInput struct {
	Body struct {
		Email    string `json:"email" maxLength:"254" example:"gina@example.com"`
		Password string `json:"password" maxLength:"512" example:"correct horse battery staple"`
	}
}

func (m *Module) postLogin(ctx context.Context, in *loginInput) (*web.Reply[tokens], error) {
	t, err := m.login(ctx, in.Body.Email, in.Body.Password, web.ClientIP(ctx))
	if err != nil {
		return nil, err
	}
	return &web.Reply[tokens]{Status: http.StatusOK, Body: t}, nil
}

type refreshInput struct {
	Body struct {
		RefreshToken string `json:"refresh_token" maxLength:"200"`
	}
}

func (m *Module) postRefresh(ctx context.Context, in *refreshInput) (*web.Reply[tokens], error) {
	t, err := m.refresh(ctx, in.Body.RefreshToken)
	if err != nil {
		return nil, err
	}
	return &web.Reply[tokens]{Status: http.StatusOK, Body: t}, nil
}

func (m *Module) postLogout(ctx context.Context, _ *struct{}) (*web.Reply[none], error) {
	err := m.DB.InTx(ctx, func(tx *pg.Tx) error { return revokeSession(ctx, tx, auth.From(ctx).Session, m.Now().UTC()) })
	if err != nil {
		return nil, fmt.Errorf("log out: %w", err)
	}
	return &web.Reply[none]{Status: http.StatusNoContent}, nil
}

func (m *Module) postLogoutEverywhere(ctx context.Context, _ *struct{}) (*web.Reply[none], error) {
	err := m.DB.InTx(ctx, func(tx *pg.Tx) error { return m.endSessions(ctx, tx, usersapi.ID(auth.From(ctx).User)) })
	if err != nil {
		return nil, fmt.Errorf("log out everywhere: %w", err)
	}
	return &web.Reply[none]{Status: http.StatusNoContent}, nil
}

type tokenInput struct {
	Body struct {
		Token string `json:"token" maxLength:"200"`
	}
}

func (m *Module) postVerify(ctx context.Context, in *tokenInput) (*web.Reply[none], error) {
	if err := m.verify(ctx, in.Body.Token); err != nil {
		return nil, err
	}
	return &web.Reply[none]{Status: http.StatusNoContent}, nil
}

type resetInput struct {
	Body struct {
		Email string `json:"email" maxLength:"254"`
	}
}

type accepted struct {
	Accepted bool `json:"accepted"`
}

func (m *Module) postPasswordReset(ctx context.Context, in *resetInput) (*web.Reply[accepted], error) {
	if err := m.askReset(ctx, in.Body.Email); err != nil {
		return nil, err
	}
	return &web.Reply[accepted]{Status: http.StatusAccepted, Body: accepted{true}}, nil
}

type resetConfirmInput struct {
	Body struct {
		Token    string `json:"token" maxLength:"200"`
		Password string `json:"password" maxLength:"512" example:"correct horse battery staple"`
	}
}

func (m *Module) postPasswordResetConfirm(ctx context.Context, in *resetConfirmInput) (*web.Reply[none], error) {
	if err := m.reset(ctx, in.Body.Token, in.Body.Password); err != nil {
		return nil, err
	}
	return &web.Reply[none]{Status: http.StatusNoContent}, nil
}

// account is a user as the account's owner sees it.
type account struct {
	ID       usersapi.ID `json:"id"`
	Email    string      `json:"email"`
	Name     string      `json:"name"`
	Roles    []string    `json:"roles"`
	Verified bool        `json:"verified"`
	Locale   string      `json:"locale"`
}

func accountOf(u user) account {
	return account{u.ID, u.Email, u.Name, u.Roles, u.VerifiedAt != nil, u.Locale}
}

func (m *Module) getMe(ctx context.Context, _ *struct{}) (*web.Reply[account], error) {
	u, err := userByID(ctx, m.DB, usersapi.ID(auth.From(ctx).User))
	if pg.NoRows(err) {
		return nil, noAccount()
	}
	if err != nil {
		return nil, fmt.Errorf("account: %w", err)
	}
	return &web.Reply[account]{Body: accountOf(u)}, nil
}

type patchInput struct {
	Body struct {
		Name string `json:"name" minLength:"1" maxLength:"120"`
	}
}

func (m *Module) patchMe(ctx context.Context, in *patchInput) (*web.Reply[account], error) {
	var u user
	err := m.DB.InTx(ctx, func(tx *pg.Tx) (err error) {
		u, err = setName(ctx, tx, usersapi.ID(auth.From(ctx).User), in.Body.Name)
		return err
	})
	if pg.NoRows(err) {
		return nil, noAccount()
	}
	if err != nil {
		return nil, fmt.Errorf("change account: %w", err)
	}
	return &web.Reply[account]{Body: accountOf(u)}, nil
}

func (m *Module) postVerificationMail(ctx context.Context, _ *struct{}) (*web.Reply[accepted], error) {
	if err := m.resend(ctx, usersapi.ID(auth.From(ctx).User)); err != nil {
		return nil, err
	}
	return &web.Reply[accepted]{Status: http.StatusAccepted, Body: accepted{true}}, nil
}

func (m *Module) getAddresses(ctx context.Context, _ *struct{}) (*web.Reply[web.Page[usersapi.Address]], error) {
	rows, err := addressesOf(ctx, m.DB, auth.From(ctx).User)
	if err != nil {
		return nil, fmt.Errorf("addresses: %w", err)
	}
	page := web.Page[usersapi.Address]{Data: make([]usersapi.Address, len(rows))}
	for i, r := range rows {
		page.Data[i] = r.Address
	}
	return &web.Reply[web.Page[usersapi.Address]]{Body: page}, nil
}

type addressInput struct {
	Body struct {
		Name     string `json:"name" minLength:"1" maxLength:"120"`
		Line1    string `json:"line1" minLength:"1" maxLength:"120" example:"Hauptstr. 1"`
		Line2    string `json:"line2,omitempty" maxLength:"120"`
		City     string `json:"city" minLength:"1" maxLength:"80" example:"Berlin"`
		Region   string `json:"region,omitempty" maxLength:"80"`
		Postcode string `json:"postcode" maxLength:"20" example:"10115"`
		Country  string `json:"country" pattern:"^[A-Z]{2}$" doc:"ISO 3166 alpha-2" example:"DE"`
		Phone    string `json:"phone,omitempty" maxLength:"40"`
	}
}

func (m *Module) postAddress(ctx context.Context, in *addressInput) (*web.Reply[usersapi.Address], error) {
	b := in.Body
	a, err := m.addAddress(ctx, auth.From(ctx).User, usersapi.Address{
		Name: b.Name, Line1: b.Line1, Line2: b.Line2, City: b.City, Region: b.Region, Postcode: b.Postcode, Country: b.Country, Phone: b.Phone,
	})
	if err != nil {
		return nil, err
	}
	return &web.Reply[usersapi.Address]{Status: http.StatusCreated, Body: a}, nil
}

type addressIDInput struct {
	ID ids.ID `path:"id" maxLength:"40"`
}

func (m *Module) deleteAddress(ctx context.Context, in *addressIDInput) (*web.Reply[none], error) {
	var n int64
	err := m.DB.InTx(ctx, func(tx *pg.Tx) (err error) {
		n, err = deleteAddress(ctx, tx, auth.From(ctx).User, in.ID)
		return err
	})
	if err != nil {
		return nil, fmt.Errorf("remove address: %w", err)
	}
	if n == 0 {
		return nil, errs.NotFoundf("no such address")
	}
	return &web.Reply[none]{Status: http.StatusNoContent}, nil
}

func (m *Module) getKeys(ctx context.Context, _ *struct{}) (*web.Raw, error) {
	doc, err := m.Keyring.document(ctx)
	if err != nil {
		return nil, err
	}
	return &web.Raw{ContentType: "application/json", CacheControl: "public, max-age=60", Body: []byte(doc)}, nil
}
