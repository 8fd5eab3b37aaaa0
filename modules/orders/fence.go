//go:build !mutant_fence

package orders

// fenced ends the WHERE of every write of a saga: without the lease it writes nothing.
const fenced = ` AND lease_token = $2`
