//go:build !mutant_commit

package pg

// unanswered is for a COMMIT that got no answer: it may have happened.
func (tx *Tx) unanswered(cause error) error { return tx.db.resolve(tx.ctx, tx.xid, tx.pid, cause) }
