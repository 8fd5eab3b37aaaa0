package auth

import (
	"crypto/aes"
	"crypto/cipher"
	"crypto/hkdf"
	"crypto/hmac"
	"crypto/rand"
	"crypto/sha256"
	"encoding/base64"
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"strings"
)

// Secret is SHOP_SECRET: it prints as *** and seals cursors, order tokens and private keys through keys derived by purpose.
type Secret struct{ key [32]byte }

// ParseSecret reads a secret: 64 hexadecimal digits, or any text of at least 32 characters.
func ParseSecret(text string) (Secret, error) {
	text = strings.TrimSpace(text)
	if raw, err := hex.DecodeString(text); err == nil && len(raw) == 32 {
		return Secret{[32]byte(raw)}, nil
	}
	if len(text) < 32 {
		return Secret{}, errors.New("the secret is too short: set SHOP_SECRET to 64 hexadecimal digits, such as `openssl rand -hex 32` prints")
	}
	return Secret{sha256.Sum256([]byte(text))}, nil
}

// NewSecret is a fresh random secret.
func NewSecret() Secret {
	var s Secret
	rand.Read(s.key[:]) // never fails: the runtime ends the process instead
	return s
}

// SecretFile reads the secret in a file, or makes one and writes it there, readable by its owner alone. Two starters agree
// on one secret: the file appears whole or not at all, and the first wins.
func SecretFile(path string) (Secret, error) {
	text, err := os.ReadFile(path)
	if errors.Is(err, fs.ErrNotExist) {
		if err := writeOnce(path, hex.EncodeToString(fresh())+"\n"); err != nil {
			return Secret{}, fmt.Errorf("make the secret: %w", err)
		}
		text, err = os.ReadFile(path)
	}
	if err != nil {
		return Secret{}, fmt.Errorf("read the secret: %w", err)
	}
	return ParseSecret(string(text))
}

func fresh() []byte {
	s := NewSecret()
	return s.key[:]
}

// writeOnce makes path with the text unless it exists already.
func writeOnce(path, text string) error {
	if err := writeWhole(path, text, os.Link); err != nil && !errors.Is(err, fs.ErrExist) {
		return err
	}
	return nil
}

// IsZero says whether no secret was given.
func (s Secret) IsZero() bool { return s == Secret{} }

// Format prints ***, whatever the verb.
func (s Secret) Format(f fmt.State, verb rune) { f.Write([]byte("***")) }

// String is ***.
func (s Secret) String() string { return "***" }

// LogValue is ***.
func (s Secret) LogValue() slog.Value { return slog.StringValue("***") }

// MarshalText is ***, so that no encoder shows the key.
func (s Secret) MarshalText() ([]byte, error) { return []byte("***"), nil }

// Derive is a key for one purpose: the same for the same secret and purpose.
func (s Secret) Derive(purpose string) []byte {
	key, err := hkdf.Key(sha256.New, s.key[:], nil, "banyan/"+purpose, 32)
	if err != nil {
		panic(err) // only for an impossible length
	}
	return key
}

// Seal signs a short payload for one purpose: "payload.signature", URL-safe. It does not hide the payload.
func (s Secret) Seal(purpose, payload string) string {
	b := base64.RawURLEncoding
	return b.EncodeToString([]byte(payload)) + "." + b.EncodeToString(s.sign(purpose, payload))
}

// Open checks a sealed payload and returns it; false for any other text.
func (s Secret) Open(purpose, sealed string) (string, bool) {
	b := base64.RawURLEncoding.Strict()
	body, signature, ok := strings.Cut(sealed, ".")
	if !ok || strings.ContainsAny(sealed, "\r\n") { // the decoder skips line ends
		return "", false
	}
	payload, err := b.DecodeString(body)
	if err != nil {
		return "", false
	}
	got, err := b.DecodeString(signature)
	if err != nil || !hmac.Equal(got, s.sign(purpose, string(payload))) {
		return "", false
	}
	return string(payload), true
}

func (s Secret) sign(purpose, payload string) []byte {
	mac := hmac.New(sha256.New, s.Derive("seal/"+purpose))
	mac.Write([]byte(payload))
	return mac.Sum(nil)
}

// Encrypt hides and signs data for one purpose with AES-256-GCM.
func (s Secret) Encrypt(purpose string, data []byte) []byte {
	aead := s.aead(purpose)
	nonce := make([]byte, aead.NonceSize(), aead.NonceSize()+len(data)+aead.Overhead())
	rand.Read(nonce)
	return aead.Seal(nonce, nonce, data, []byte(purpose))
}

// Decrypt is what Encrypt hid; false for anything else.
func (s Secret) Decrypt(purpose string, sealed []byte) ([]byte, bool) {
	aead := s.aead(purpose)
	if len(sealed) < aead.NonceSize() {
		return nil, false
	}
	data, err := aead.Open(nil, sealed[:aead.NonceSize()], sealed[aead.NonceSize():], []byte(purpose))
	return data, err == nil
}

func (s Secret) aead(purpose string) cipher.AEAD {
	block, err := aes.NewCipher(s.Derive(purpose))
	if err != nil {
		panic(err) // only for an impossible key length
	}
	aead, err := cipher.NewGCM(block)
	if err != nil {
		panic(err)
	}
	return aead
}
