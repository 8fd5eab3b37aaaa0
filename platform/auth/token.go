package auth

import (
	"crypto/ed25519"
	"errors"
	"fmt"
	"time"

	"github.com/golang-jwt/jwt/v5"

	"github.com/banyan-shop/banyan/platform/errs"
	"github.com/banyan-shop/banyan/platform/ids"
)

const (
	// MaxAccessTTL is the longest life of an access token: it bounds how long a revocation can go unheard.
	MaxAccessTTL = 5 * time.Minute
	// MaxInternalTTL is the longest life of a token between modules.
	MaxInternalTTL = 60 * time.Second

	issuer         = "banyan"
	audience       = "shop"
	typeAccess     = "at+jwt"  // RFC 9068
	typeInternal   = "mod+jwt" // ours: an access token is never a module's and the other way round
	leeway         = 30 * time.Second
	maxTokenLength = 8 << 10
)

// claims is typed: with a map, exp 0 would count as no exp.
type claims struct {
	Issuer    string          `json:"iss"`
	Subject   string          `json:"sub,omitempty"`
	Audience  string          `json:"aud"`
	Expires   jwt.NumericDate `json:"exp"`
	NotBefore jwt.NumericDate `json:"nbf"`
	Issued    jwt.NumericDate `json:"iat"`
	// IssuedMilli is iat in milliseconds: a sign-out and the sign-in after it may fall into one second.
	IssuedMilli int64    `json:"iat_ms"`
	ID          string   `json:"jti"`
	Session     string   `json:"sid,omitempty"`
	Key         string   `json:"key,omitempty"` // the API key, in internal tokens
	Roles       []string `json:"roles,omitempty"`
	Scopes      []string `json:"scopes,omitempty"`
	Module      string   `json:"mod,omitempty"` // the calling module, in internal tokens
}

func (c *claims) GetExpirationTime() (*jwt.NumericDate, error) { return present(&c.Expires), nil }
func (c *claims) GetIssuedAt() (*jwt.NumericDate, error)       { return present(&c.Issued), nil }
func (c *claims) GetNotBefore() (*jwt.NumericDate, error)      { return present(&c.NotBefore), nil }
func (c *claims) GetIssuer() (string, error)                   { return c.Issuer, nil }
func (c *claims) GetSubject() (string, error)                  { return c.Subject, nil }
func (c *claims) GetAudience() (jwt.ClaimStrings, error)       { return jwt.ClaimStrings{c.Audience}, nil }

// present tells a claim that is absent from one that is 0.
func present(d *jwt.NumericDate) *jwt.NumericDate {
	if d.IsZero() {
		return nil
	}
	return d
}

func (c *claims) identity() Identity {
	return Identity{User: ids.ID(c.Subject), Key: ids.ID(c.Key), Session: ids.ID(c.Session), Roles: c.Roles, Scopes: c.Scopes, Module: c.Module}
}

// sign makes a token of the type for the identity.
func sign(k Key, typ, audience string, id Identity, now time.Time, ttl time.Duration) (string, error) {
	if k.IsZero() {
		return "", errors.New("sign token: no key")
	}
	t := jwt.NewWithClaims(jwt.SigningMethodEdDSA, &claims{
		Issuer: issuer, Subject: string(id.User), Audience: audience,
		Issued: *jwt.NewNumericDate(now), NotBefore: *jwt.NewNumericDate(now), Expires: *jwt.NewNumericDate(now.Add(ttl)),
		IssuedMilli: now.UnixMilli(), ID: string(ids.New[ids.ID]("tok")),
		Session: string(id.Session), Key: string(id.Key), Roles: id.Roles, Scopes: id.Scopes, Module: id.Module,
	})
	t.Header["typ"], t.Header["kid"] = typ, k.ID
	text, err := t.SignedString(k.private)
	if err != nil {
		return "", fmt.Errorf("sign token: %w", err)
	}
	if len(text) > maxTokenLength {
		return "", fmt.Errorf("sign token: %d bytes are more than anybody accepts: fewer scopes, please", len(text))
	}
	return text, nil
}

// errUnknownKey is told apart because a fresh key set may know the key.
var errUnknownKey = errors.New("unknown key")

// parse checks everything about a token but revocation.
func parse(token, typ, audience string, maxTTL time.Duration, now func() time.Time, key func(kid string) (ed25519.PublicKey, bool)) (*claims, error) {
	if !wellFormed(token) {
		return nil, invalid(nil)
	}
	parser := jwt.NewParser(jwt.WithValidMethods([]string{jwt.SigningMethodEdDSA.Alg()}), jwt.WithIssuer(issuer), jwt.WithAudience(audience),
		jwt.WithExpirationRequired(), jwt.WithLeeway(leeway), jwt.WithIssuedAt(), jwt.WithStrictDecoding(), jwt.WithTimeFunc(now))
	var c claims
	_, err := parser.ParseWithClaims(token, &c, func(t *jwt.Token) (any, error) {
		// Only what we write ourselves: a jku, jwk, x5u, crit or zip is an attempt, not a feature.
		for name := range t.Header {
			if name != "alg" && name != "typ" && name != "kid" {
				return nil, errors.New("foreign header")
			}
		}
		if t.Header["typ"] != typ {
			return nil, errors.New("another type of token")
		}
		kid, _ := t.Header["kid"].(string)
		k, ok := key(kid)
		if !ok {
			return nil, errUnknownKey
		}
		return k, nil
	})
	switch {
	case errors.Is(err, jwt.ErrTokenExpired) && !errors.Is(err, jwt.ErrTokenInvalidAudience) && !errors.Is(err, jwt.ErrTokenInvalidIssuer):
		return nil, errs.New(errs.Unauthenticated, "token_expired", "the token has expired").Because(err)
	case err != nil:
		return nil, invalid(err)
	case c.Expires.Sub(c.Issued.Time) > maxTTL || c.IssuedMilli/1000 != c.Issued.Unix() || c.Subject == "" && typ == typeAccess:
		return nil, invalid(errors.New("not a token of ours"))
	}
	return &c, nil
}

// wellFormed looks before any decoder allocates for a megabyte of dots, or skips a line end as base64's does.
func wellFormed(token string) bool {
	if len(token) > maxTokenLength {
		return false
	}
	dots := 0
	for i := range len(token) {
		switch c := token[i]; {
		case c == '.':
			dots++
		case c >= 'A' && c <= 'Z', c >= 'a' && c <= 'z', c >= '0' && c <= '9', c == '-', c == '_':
		default:
			return false
		}
	}
	return dots == 2
}

func invalid(cause error) error {
	return errs.New(errs.Unauthenticated, "token_invalid", "the token is not valid").Because(cause)
}
