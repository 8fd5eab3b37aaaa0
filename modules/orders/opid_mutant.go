//go:build mutant_opid

package orders

import "github.com/banyan-shop/banyan/platform/ids"

// A mutant: each try is another operation. The tests must notice.
func operationKey(saga, step string) string { return ids.New[string]("op") }
