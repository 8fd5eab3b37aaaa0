package web

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"regexp"
	"strings"
	"time"

	"github.com/banyan-shop/banyan/platform/errs"
	"github.com/banyan-shop/banyan/platform/ids"
	"github.com/banyan-shop/banyan/platform/pg"
)

// Key is the request's Idempotency-Key as KeyHandled routes see it.
type Key struct {
	Caller string // who: the user's id, or a hash of the guest's token or ip
	Route  string // method and path
	Value  string // ≤ 255 visible ASCII characters
	Hash   []byte // SHA-256 of the body
}

// KeyFrom is the request's key on a Keyed, KeyRequired or KeyHandled route; false if none was sent.
func KeyFrom(ctx context.Context) (Key, bool) {
	x := exchangeOf(ctx)
	if x == nil || !x.keyed {
		return Key{}, false
	}
	return x.key, true
}

// SaveReply stores the answer to a keyed request in tx, with the effect. It does nothing when the client sent no key. The
// client gets exactly this status, tag and body, now and at each repeat; Location comes with the first answer alone. An error means that another try has taken the key over since:
// return it, so that the effect is rolled back.
func SaveReply(ctx context.Context, tx *pg.Tx, status int, etag string, body any) error {
	x := exchangeOf(ctx)
	if x == nil || x.claimed == "" {
		return nil
	}
	if tx.Schema() != x.route.keys.schema {
		return fmt.Errorf("save reply: the transaction is of %s, the route of %s", tx.Schema(), x.route.keys.schema)
	}
	var b bytes.Buffer
	if body != nil {
		if err := encode(&b, body); err != nil {
			return fmt.Errorf("save reply: %w", err)
		}
	}
	n, err := tx.Exec(ctx, x.route.keys.saveSQL, x.key.Caller, x.key.Route, x.key.Value, x.claimed, status, etag, b.Bytes())
	if err != nil {
		return fmt.Errorf("save reply: %w", err)
	}
	if n == 0 {
		return inProgress().Because(errors.New("the claim on the key was taken over"))
	}
	x.saved = &savedReply{Status: status, ETag: etag, Body: b.Bytes()}
	return nil
}

// MarkReplayed says that the answer of a KeyHandled route is the first one again.
func MarkReplayed(ctx context.Context) {
	if x := exchangeOf(ctx); x != nil {
		x.c.Response().Header().Set("Idempotent-Replayed", "true")
	}
}

// savedReply is a stored answer, or a claim when Status is 0.
type savedReply struct {
	Hash   []byte `db:"request_hash"`
	Status int    `db:"status"`
	ETag   string `db:"etag"`
	Body   []byte `db:"body"`
}

const (
	// claimFor bounds how long a crash blocks its key. It is longer than any answer takes: the server writes for 60 s.
	claimFor      = 75 * time.Second
	defaultKeyTTL = 24 * time.Hour
	maxKey        = 255
)

func inProgress() *errs.Error {
	return errs.Conflictf("request_in_progress", "A request with this Idempotency-Key is being worked on.")
}

// readKey checks the header's presence and form on routes that take one.
func (x *exchange) readKey() error {
	if x.route.Idempotency == Unkeyed {
		return nil
	}
	sent := x.c.Request().Header["Idempotency-Key"]
	if len(sent) == 0 {
		if x.route.Idempotency == Keyed {
			return nil
		}
		return errs.New(errs.PreconditionRequired, "idempotency_key_required", "Send an Idempotency-Key of your own making.").
			WithField("header.Idempotency-Key", "required")
	}
	if len(sent) > 1 || !validKey(sent[0]) {
		return errs.Invalidf("invalid_idempotency_key", "A key has 1 to %d visible ASCII characters.", maxKey).
			WithField("header.Idempotency-Key", "wrong_format")
	}
	var body []byte
	if x.buffer != nil {
		body = x.buffer.Bytes()
	}
	hash := sha256.Sum256(body)
	x.key = Key{Caller: x.caller(), Route: x.route.method + " " + x.c.Request().URL.Path, Value: sent[0], Hash: hash[:]}
	x.keyed = true
	return nil
}

func validKey(k string) bool {
	if k == "" || len(k) > maxKey {
		return false
	}
	for i := range len(k) {
		if k[i] <= ' ' || k[i] > '~' {
			return false
		}
	}
	return true
}

// caller is whose key it is: one caller never gets another one's answer.
func (x *exchange) caller() string {
	if x.identity.SignedIn() {
		return string(x.identity.User)
	}
	if x.identity.Key != "" {
		return "key:" + string(x.identity.Key)
	}
	h := x.c.Request().Header
	for _, name := range [...]string{"X-Cart-Token", "X-Order-Token"} {
		if token := h.Get(name); token != "" {
			return "guest:" + hash(name+":"+token)
		}
	}
	return "ip:" + hash(x.ip)
}

func hash(s string) string {
	sum := sha256.Sum256([]byte(s))
	return hex.EncodeToString(sum[:16])
}

// claim takes the key for this request. It says whether the answer is decided without the handler: a replay, or a refusal.
func (x *exchange) claim(ctx context.Context) (done bool) {
	ttl := x.route.KeyTTL
	if ttl == 0 {
		ttl = defaultKeyTTL
	}
	claim, stored, err := x.route.keys.begin(ctx, x.key, ttl)
	switch {
	case err != nil:
		x.refuse(fmt.Errorf("claim idempotency key: %w", err))
	case claim != "":
		x.claimed = claim
		return false
	case stored == nil:
		x.refuse(inProgress())
	case !bytes.Equal(stored.Hash, x.key.Hash):
		x.refuse(errs.Invalidf("idempotency_key_reused", "The Idempotency-Key came with another body before.").WithField("header.Idempotency-Key", "repeated"))
	case stored.Status == 0:
		x.refuse(inProgress())
	default:
		x.saved, x.replayed = stored, true
	}
	return true
}

// release gives the key back unless an answer was stored with it, so that a failed request can be tried again.
func (x *exchange) release(ctx context.Context) {
	if x.claimed == "" || x.err == nil && x.saved != nil {
		return
	}
	x.saved = nil // written in a transaction that did not commit, as far as we know; the row knows better
	if err := x.route.keys.release(ctx, x.key, x.claimed); err != nil {
		x.server.log.WarnContext(ctx, "idempotency key stays claimed until it lapses", "request", x.id, "err", err)
	}
}

func (x *exchange) writeSaved() {
	h := x.c.Response().Header()
	if x.replayed {
		h.Set("Idempotent-Replayed", "true")
	} else if x.result.location != "" {
		h.Set("Location", x.result.location)
	}
	x.tagged(x.saved.ETag, x.result.cacheControl, x.saved.Status)
	x.write(x.saved.Status, jsonType, x.saved.Body)
}

// keyStore is the idempotency_keys table of one module's schema, made by platform/migrate.
type keyStore struct {
	db                                  *pg.DB
	schema                              string
	claimSQL, readSQL, saveSQL, freeSQL string
}

// noKeys stands for the store in routes declared without a database: they are never served.
var noKeys = &keyStore{}

var schemaName = regexp.MustCompile(`^[a-z_][a-z0-9_]*$`)

// newKeyStore makes the statements of one schema. They are constant for the life of the process; the schema's name is not
// known before, and is checked to be a plain one.
func newKeyStore(db *pg.DB) *keyStore {
	schema := db.Schema()
	if !schemaName.MatchString(schema) {
		panic("web: not a schema's name: " + schema)
	}
	in := func(sql string) string { return strings.ReplaceAll(sql, "SCHEMA", schema) }
	return &keyStore{db: db, schema: schema,
		// A lapsed row may be taken by anybody, a claim without an answer by the same request once its time is over.
		claimSQL: in(`
			INSERT INTO SCHEMA.idempotency_keys AS k (caller, route, key, request_hash, claim, claimed_until, created_at, expires_at)
			VALUES ($1, $2, $3, $4, $5, now() + make_interval(secs => $6), now(), now() + make_interval(secs => $7))
			ON CONFLICT (caller, route, key) DO UPDATE
			SET request_hash = EXCLUDED.request_hash, claim = EXCLUDED.claim, claimed_until = EXCLUDED.claimed_until,
			    status = NULL, etag = NULL, body = NULL, created_at = EXCLUDED.created_at, expires_at = EXCLUDED.expires_at
			WHERE k.expires_at <= now()
			   OR k.status IS NULL AND k.claimed_until <= now() AND k.request_hash = EXCLUDED.request_hash
			RETURNING k.claim`),
		readSQL: in(`
			SELECT request_hash, COALESCE(status, 0) AS status, COALESCE(etag, '') AS etag, body
			FROM SCHEMA.idempotency_keys
			WHERE caller = $1 AND route = $2 AND key = $3`),
		saveSQL: in(`
			UPDATE SCHEMA.idempotency_keys
			SET status = $5, etag = $6, body = $7
			WHERE caller = $1 AND route = $2 AND key = $3 AND claim = $4`),
		freeSQL: in(`
			DELETE FROM SCHEMA.idempotency_keys
			WHERE caller = $1 AND route = $2 AND key = $3 AND claim = $4 AND status IS NULL`),
	}
}

// begin claims the key and returns the claim, or what is stored; neither when the row has just gone.
func (k *keyStore) begin(ctx context.Context, key Key, ttl time.Duration) (string, *savedReply, error) {
	mine := string(ids.New[ids.ID]("clm"))
	var stored *savedReply
	var got []string
	err := k.db.InTx(ctx, func(tx *pg.Tx) error {
		stored, got = nil, nil
		err := tx.Select(ctx, &got, k.claimSQL, key.Caller, key.Route, key.Value, key.Hash, mine, claimFor.Seconds(), ttl.Seconds())
		if err != nil || len(got) > 0 {
			return err
		}
		var r savedReply
		if err := tx.Get(ctx, &r, k.readSQL, key.Caller, key.Route, key.Value); err != nil {
			if pg.NoRows(err) {
				return nil
			}
			return err
		}
		stored = &r
		return nil
	})
	if err != nil || len(got) == 0 {
		return "", stored, err
	}
	return mine, nil, nil
}

func (k *keyStore) release(ctx context.Context, key Key, claim string) error {
	return k.db.InTx(ctx, func(tx *pg.Tx) error {
		_, err := tx.Exec(ctx, k.freeSQL, key.Caller, key.Route, key.Value, claim)
		return err
	})
}

const purgeChunk = 500

// PurgeKeys deletes the lapsed keys of db's module in small transactions and returns how many there were.
func PurgeKeys(ctx context.Context, db *pg.DB) (int64, error) {
	schema := newKeyStore(db).schema
	query := `
		DELETE FROM ` + schema + `.idempotency_keys
		WHERE ctid = ANY (ARRAY(
			SELECT ctid FROM ` + schema + `.idempotency_keys
			WHERE expires_at <= now()
			LIMIT 500
			FOR UPDATE SKIP LOCKED))`
	var total int64
	for {
		var n int64
		err := db.InTx(ctx, func(tx *pg.Tx) (err error) {
			n, err = tx.Exec(ctx, query)
			return err
		})
		total += n
		if err != nil || n < purgeChunk || ctx.Err() != nil {
			return total, err
		}
	}
}
