//go:build mutant_commit

package pg

import "github.com/banyan-shop/banyan/platform/errs"

// A mutant: no answer is taken for a no. The tests must notice.
func (tx *Tx) unanswered(cause error) error {
	return errs.Unavailablef("the database went away before it committed").Because(cause)
}
