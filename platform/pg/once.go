package pg

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/json"
	"errors"
	"fmt"
	"time"

	"github.com/banyan-shop/banyan/platform/errs"
)

// Operation names a repeatable command: the same Key and Method with the same Request gives the first answer again.
type Operation struct {
	Key     string // made by the caller before its first try
	Method  string // such as catalog.Reserve
	Request any    // hashed; the same key with another request is errs.Conflict, code key_reused
}

var errDone = errors.New("the operation was done before")

// Once runs fn in a transaction and stores its result in <schema>.operations with it, or returns the stored result of an
// earlier run. Errors of fn are not stored.
//
// It hopes for the best: first runs are the rule, so they pay one INSERT and no look-up. A repeat is found when the INSERT
// conflicts, or when fn is refused because its work is done already; its transaction is rolled back, and the row answers.
func Once[Res any](ctx context.Context, db *DB, op Operation, fn func(tx *Tx) (Res, error)) (Res, error) {
	var res, none Res
	if op.Key == "" || op.Method == "" {
		return none, errs.Invalidf("key_required", "the operation %s needs a key", op.Method)
	}
	request, err := json.Marshal(op.Request)
	if err != nil {
		return none, fmt.Errorf("hash request of %s: %w", op.Method, err)
	}
	hash := sha256.Sum256(request)
	err = db.InTx(ctx, func(tx *Tx) error {
		r, err := fn(tx)
		if err != nil {
			return err
		}
		result, err := json.Marshal(r)
		if err != nil {
			return fmt.Errorf("store result of %s: %w", op.Method, err)
		}
		n, err := tx.Exec(ctx, db.sql.insertOperation, op.Key, op.Method, hash[:], string(result))
		if err != nil {
			return fmt.Errorf("store result of %s: %w", op.Method, err)
		}
		if n == 0 {
			return errDone
		}
		res = r
		return nil
	})
	if err == nil {
		return res, nil
	}

	if errs.Has(err, errs.CodeOverloaded) { // to look would be to stand in the same queue
		return none, err
	}
	// The caller may have gone, but whoever asked for the write wants to know.
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), db.config.TxTimeout)
	defer cancel()
	var first struct {
		Hash   []byte `db:"request_hash"`
		Result []byte `db:"result"`
	}
	switch e := db.Get(ctx, &first, db.sql.findOperation, op.Key, op.Method); {
	case e != nil && errors.Is(err, errDone):
		return none, fmt.Errorf("find result of %s: %w", op.Method, e)
	case e != nil: // not done before, or not to be known: then fn's error is the answer
		return none, err
	case !bytes.Equal(first.Hash, hash[:]):
		return none, errs.Conflictf("key_reused", "the key was used before with another request")
	}
	if err := json.Unmarshal(first.Result, &res); err != nil {
		return none, fmt.Errorf("read stored result of %s: %w", op.Method, err)
	}
	return res, nil
}

const forgetChunk = 1000

// ForgetOperations deletes the stored results that are older than a caller may repeat, a chunk a transaction, and returns how
// many.
func (db *DB) ForgetOperations(ctx context.Context, before time.Time) (total int64, err error) {
	for {
		var n int64
		err = db.InTx(ctx, func(tx *Tx) error {
			n, err = tx.Exec(ctx, db.sql.forgetOperations, before, forgetChunk)
			return err
		})
		if total += n; err != nil || n < forgetChunk || ctx.Err() != nil {
			return total, err
		}
	}
}
