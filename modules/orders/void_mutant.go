//go:build mutant_void

package orders

// A mutant: the goods go first, and the shopper may still pay. The tests must notice.
const voidFirst = false
