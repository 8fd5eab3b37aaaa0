//go:build !mutant_inbox

package events

// freshSQL remembers a delivery, and returns a row if it is the first.
func freshSQL(inbox string) string {
	return `
			INSERT INTO ` + inbox + ` (consumer, event_id, handled_at)
			SELECT $1, $2, now() WHERE NOT EXISTS (SELECT 1 FROM waiting)
			ON CONFLICT (consumer, event_id) DO NOTHING RETURNING 1`
}
