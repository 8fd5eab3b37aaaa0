//go:build mutant_fence

package orders

// A mutant: whoever comes late writes too. The tests must notice.
const fenced = ` AND $2::bigint IS NOT NULL`
