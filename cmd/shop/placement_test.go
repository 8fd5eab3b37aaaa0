package main

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// TestAPlacementThatCannotWorkIsRefused names file, line and what to do for each, before anything is started.
func TestAPlacementThatCannotWorkIsRefused(t *testing.T) {
	t.Parallel()
	const main = "  main: {http: http://shop:8080, rpc: http://shop:8081}\n"
	for name, c := range map[string]struct{ file, want string }{
		"without a bus": {
			"processes:\n" + main + "  payments: {rpc: http://payments:8081, modules: [payments]}\n",
			"bus must be set, to nats://, amqp:// or kafka://…: payments runs in another process",
		},
		"a module nobody knows": {
			"bus: nats://nats:4222\nprocesses:\n" + main + "  payments:\n    rpc: http://payments:8081\n    modules: [paymnts]\n",
			"mine.yaml:6:15: processes.payments.modules[0] names no module: there is no paymnts; did you mean \"payments\"?\n  6 |     modules: [paymnts]\n    |               ^^^^^^^",
		},
		"a module that two run": {
			"bus: nats://nats:4222\nprocesses:\n" + main + "  a: {rpc: http://a:1, modules: [payments]}\n  b: {rpc: http://b:1, modules: [payments]}\n",
			"mine.yaml:5:34: processes.b.modules[0] names payments, which a runs already",
		},
		"a module nobody runs": {
			"bus: nats://nats:4222\nprocess: a\nprocesses:\n  a: {http: http://a:2, rpc: http://a:1, gateway: true, modules: [payments]}\n",
			"processes leave users to nobody: add it to the modules of one",
		},
		"an address that is none": {
			"bus: nats://nats:4222\nprocesses:\n" + main + "  payments: {rpc: payments:8081, modules: [payments]}\n",
			"mine.yaml:4:19: processes.payments.rpc",
		},
		"one address twice": {
			"bus: nats://nats:4222\nprocesses:\n" + main + "  payments: {rpc: http://shop:8081, modules: [payments]}\n",
			"mine.yaml:4:19: processes.payments.rpc is the address of processes.main.rpc already: calls would go in a cycle",
		},
		"a key nobody knows": {
			"processes:\n  main: {url: http://shop:8080}\n",
			"mine.yaml:2:10: unknown key \"url\" in processes.main",
		},
		"a process nobody knows": {
			"bus: nats://nats:4222\nprocess: payment\nprocesses:\n" + main + "  payments: {rpc: http://payments:8081, modules: [payments]}\n",
			"mine.yaml:2:10: process is none of main, payments; did you mean \"payments\"?",
		},
		"a listener that is none": {
			"processes:\n  main: {http: http://shop:8080, listen: everywhere}\n",
			"mine.yaml:2:42: processes.main.listen must be host:port",
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			file := filepath.Join(t.TempDir(), "mine.yaml")
			if err := os.WriteFile(file, []byte(c.file), 0o600); err != nil {
				t.Fatal(err)
			}
			for _, command := range [][]string{{"config", "check"}, {"serve"}, {"topology"}} {
				code, _, talk := try(t, nil, append(command, "--config", file)...)
				if code != failed || !strings.Contains(talk, c.want) {
					t.Errorf("shop %s: exit %d\n%swant\n%s", strings.Join(command, " "), code, talk, c.want)
				}
			}
		})
	}
}

// TestTopology tells who runs where, without starting or asking anybody.
func TestTopology(t *testing.T) {
	t.Parallel()
	file := filepath.Join(t.TempDir(), "mine.yaml")
	err := os.WriteFile(file, []byte("bus: nats://user:bus-password@nats:4222\nprocesses:\n  main: {http: http://shop:8080, rpc: http://shop:8081}\n"+
		"  payments: {rpc: http://payments:8081, modules: [payments], database_url: 'postgres://pay:db-password@db/payments'}\n"), 0o600)
	if err != nil {
		t.Fatal(err)
	}
	code, out, talk := try(t, nil, "topology", "--config", file)
	if code != okay {
		t.Fatal(talk)
	}
	for _, want := range []string{"main (gateway)", "postgres://pay:xxxxx@db/payments", "processes.payments.modules names it", "no other process claims it", "→ payments: payment_changed"} {
		if !strings.Contains(out, want) {
			t.Errorf("%q is missing in\n%s", want, out)
		}
	}
	if code, out, _ := try(t, nil, "topology", "--config", file, "-o", "json"); code != okay || strings.Contains(out, "password") || !strings.Contains(out, `"process": "payments"`) {
		t.Errorf("as JSON: %d\n%s", code, out)
	}
	if code, out, _ := try(t, nil, "topology"); code != okay || !strings.Contains(out, "there is one process") {
		t.Errorf("of one process: %d\n%s", code, out)
	}
	// A database that is away is found at start, and the place it was named at is told.
	away := filepath.Join(t.TempDir(), "away.yaml")
	err = os.WriteFile(away, []byte("bus: nats://127.0.0.1:1\nsecret: "+worldSecret+"\nlisten: 127.0.0.1:0\nprocesses:\n  main: {rpc: http://127.0.0.1:1}\n"+
		"  payments:\n    rpc: http://127.0.0.1:18\n    rpc_listen: 127.0.0.1:0\n    ops_listen: 127.0.0.1:0\n    modules: [payments]\n    database_url: 'postgres://pay:db-password@127.0.0.1:1/payments?sslmode=disable'\n"), 0o600)
	if err != nil {
		t.Fatal(err)
	}
	code, _, talk = try(t, nil, "serve", "--config", away, "--process", "payments", "--data-dir", t.TempDir())
	if code != failed || !strings.Contains(talk, "away.yaml:11:19: processes.payments.database_url is wrong, or its server is away") || strings.Contains(talk, "db-password") {
		t.Errorf("a database that is away: %d %s", code, talk)
	}
	// A flag alone makes a placement too.
	if code, _, talk := try(t, []string{"SHOP_REMOTE__PAYMENTS=http://payments:8081"}, "config", "check"); code != failed || !strings.Contains(talk, "bus must be set") {
		t.Errorf("a remote by the environment, without a bus: %d %s", code, talk)
	}
	if code, out, talk := try(t, []string{"SHOP_REMOTE__PAYMENTS=http://payments:8081", "SHOP_BUS=nats://nats:4222"}, "topology"); code != okay || !strings.Contains(out, "http://payments:8081") {
		t.Errorf("a remote by the environment: %d %s%s", code, out, talk)
	}
}
