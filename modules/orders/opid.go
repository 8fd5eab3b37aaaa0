//go:build !mutant_opid

package orders

import "github.com/banyan-shop/banyan/platform/ids"

func operationKey(saga, step string) string { return ids.Derived[string]("op", saga, step) }
