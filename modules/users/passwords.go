package users

import (
	"context"
	_ "embed"
	"fmt"
	"net/mail"
	"slices"
	"strings"
	"unicode/utf8"

	"github.com/alexedwards/argon2id"

	"github.com/banyan-shop/banyan/platform/errs"
)

// hashing is argon2id as OWASP recommends it for servers: 19 MiB, two passes, one lane.
func hashing() *argon2id.Params {
	return &argon2id.Params{Memory: 19 * 1024, Iterations: 2, Parallelism: 1, SaltLength: 16, KeyLength: 32}
}

// Passwords hashes and compares, a few at a time: each takes 19 MiB and some 35 ms, so a flood of logins waits or is turned
// away instead of eating the machine.
type Passwords struct {
	slots   chan struct{} // work under way
	waiting chan struct{} // work under way or waiting for it
	dummy   string        // compared when there is no account, so that this takes as long
}

// NewPasswords allows parallel hashes at a time and 32 times as many waiting.
func NewPasswords(parallel int) (*Passwords, error) {
	dummy, err := argon2id.CreateHash("the password of nobody", hashing())
	if err != nil {
		return nil, fmt.Errorf("hash: %w", err)
	}
	return &Passwords{make(chan struct{}, parallel), make(chan struct{}, parallel*32), dummy}, nil
}

// enter takes a slot, which the work itself gives back: a client that goes away must not let another one in.
func (p *Passwords) enter(ctx context.Context) error {
	select {
	case p.waiting <- struct{}{}:
	default:
		return errs.Unavailablef("too many logins at once, try again in a moment")
	}
	select {
	case p.slots <- struct{}{}:
		return nil
	case <-ctx.Done():
		<-p.waiting
		return errs.Unavailablef("too many logins at once, try again in a moment")
	}
}

func (p *Passwords) leave() { <-p.slots; <-p.waiting }

func (p *Passwords) hash(ctx context.Context, password string) (string, error) {
	if err := p.enter(ctx); err != nil {
		return "", err
	}
	defer p.leave()
	h, err := argon2id.CreateHash(password, hashing())
	if err != nil {
		return "", fmt.Errorf("hash: %w", err)
	}
	return h, nil
}

// matches compares a password with a stored hash, "" meaning that there is no account: it then takes as long and says no.
// stale says that the hash was made with other parameters and should be made anew.
func (p *Passwords) matches(ctx context.Context, password, stored string) (ok, stale bool, err error) {
	if err := p.enter(ctx); err != nil {
		return false, false, err
	}
	defer p.leave()
	against := stored
	if stored == "" {
		against = p.dummy
	}
	ok, params, err := argon2id.CheckHash(password, against)
	if err != nil {
		return false, false, fmt.Errorf("compare password: %w", err)
	}
	return ok && stored != "", params != nil && *params != *hashing(), nil
}

//go:embed common_passwords.txt
var commonPasswords string

// checkAccount refuses an e-mail or password that can't be one.
func checkAccount(email, password string) error {
	e := errs.Invalidf("validation_failed", "the account's details are not valid")
	if a, err := mail.ParseAddress(email); err != nil || a.Address != email || !strings.Contains(email, "@") || len(email) > 254 {
		e.WithField("/email", "invalid")
	}
	switch n := utf8.RuneCountInString(password); {
	case n < 8:
		e.WithField("/password", "too_short")
	case n > 128:
		e.WithField("/password", "too_long")
	case slices.Contains(strings.Fields(commonPasswords), strings.ToLower(password)):
		e.WithField("/password", "too_common")
	}
	if len(e.Fields) > 0 {
		return e
	}
	return nil
}
