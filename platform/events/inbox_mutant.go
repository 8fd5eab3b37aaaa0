//go:build mutant_inbox

package events

// A mutant: every delivery is the first. The tests must notice.
func freshSQL(string) string {
	return `
			SELECT 1 WHERE NOT EXISTS (SELECT 1 FROM waiting) AND $2::text <> ''`
}
