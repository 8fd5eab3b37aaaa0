//go:build !mutant_void

package orders

// voidFirst: a payment is cancelled for certain before its goods are given to others.
const voidFirst = true
