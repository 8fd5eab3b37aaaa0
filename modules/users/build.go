package users

import (
	"github.com/banyan-shop/banyan/platform/config"
	"github.com/banyan-shop/banyan/platform/host"
)

// The providers of the injector in wire.go.

func settings(e *host.Env) (Config, error) { return config.Decode(e.Settings, "users", Defaults()) }

func passwords(c Config) (*Passwords, error) { return NewPasswords(c.ParallelHashes) }

func keyring(e *host.Env) *Keyring { return &Keyring{DB: e.DB, Secret: e.Secret, Now: e.Now} }
