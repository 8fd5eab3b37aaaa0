package main

import (
	"strings"
	"testing"

	"github.com/banyan-shop/banyan/platform/shoptest"
)

// TestParkedEventsAreListedReplayedAndDiscarded looks after three parked events as an operator would.
func TestParkedEventsAreListedReplayedAndDiscarded(t *testing.T) {
	t.Parallel()
	env := []string{
		"SHOP_DATABASE_URL=" + shoptest.URL(t), "SHOP_DATA_DIR=" + t.TempDir(), "SHOP_SECRET=" + strings.Repeat("parked", 8),
		"SHOP_NOTIFICATIONS__SMTP__ADDRESS=127.0.0.1:1",
	}
	shoptest.ModuleURL(t, "notifications") // the schema is there
	shoptest.Exec(t, `
		INSERT INTO notifications.retry (consumer, event_id, name, key, payload, occurred_at, attempts, parked_at, error)
		SELECT 'users-mail', 'evt_' || n, 'users.mail_requested.v1', 'mal_' || n, '{}', now(), 8, now(), 'it broke' FROM generate_series(1, 3) AS n`)
	for _, step := range []struct {
		name, args, stdout, stderr string
		code                       int
	}{
		{"the list", "events parked", "evt_3", "shop events replay notifications users-mail", 0},
		{"the list as data", "events parked -o json", `"module": "notifications"`, "", 0},
		{"a consumer that nobody is", "events replay notifications mail", "", "users-mail", 2},
		{"a module that nobody is", "events discard mails users-mail evt_1", "", "see shop modules", 2},
		{"no event named", "events discard notifications users-mail", "", "events", 2},
		{"one shall never take effect", "events discard notifications users-mail evt_1", "1\n", "never take effect", 0},
		{"which is known afterwards", "events discard notifications users-mail evt_1", "0\n", "", 0},
		{"one is tried again", "events replay notifications users-mail evt_2", "1\n", "all their attempts again", 0},
		{"so are all the others", "events replay notifications users-mail", "1\n", "", 0},
		{"and none is left", "events parked", "", "no event is parked", 0},
	} {
		code, stdout, stderr := try(t, env, strings.Fields(step.args)...)
		if code != step.code || !strings.Contains(stdout, step.stdout) || !strings.Contains(stderr, step.stderr) {
			t.Errorf("%s: shop %s: exit %d, want %d\n%s\n%s", step.name, step.args, code, step.code, stdout, stderr)
		}
	}
}
