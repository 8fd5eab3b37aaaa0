package usersapi

import (
	"time"

	"github.com/banyan-shop/banyan/platform/ids"
)

// MailRequested asks for a mail whose link and address only MailLink tells. Its key is the mail.
type MailRequested struct {
	Mail   ids.ID `json:"mail"`
	Kind   string `json:"kind"` // verify_email, reset_password, address_taken
	Locale string `json:"locale"`
}

func (MailRequested) EventName() string  { return "users.mail_requested.v1" }
func (e MailRequested) EventKey() string { return string(e.Mail) }

// SessionsEnded says that access tokens of a user issued before a time are void: logout everywhere, reset, role change.
// Broadcast to whoever checks tokens. Its key is the user.
type SessionsEnded struct {
	User      ID        `json:"user"`
	NotBefore time.Time `json:"not_before"`
}

func (SessionsEnded) EventName() string  { return "users.sessions_ended.v1" }
func (e SessionsEnded) EventKey() string { return string(e.User) }

// APIKeyRevoked says that an API key works no more. Broadcast to whoever checks tokens. Its key is the API key's id.
type APIKeyRevoked struct {
	Key ids.ID `json:"key"`
}

func (APIKeyRevoked) EventName() string  { return "users.api_key_revoked.v1" }
func (e APIKeyRevoked) EventKey() string { return string(e.Key) }
