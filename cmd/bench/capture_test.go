package main

import (
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

func TestStatementsOf(t *testing.T) {
	t.Parallel()
	log := strings.Join([]string{
		"@@11@shop_cart@ LOG:  statement: BEGIN ISOLATION LEVEL READ COMMITTED READ WRITE; SELECT pg_catalog.pg_current_xact_id()::text",
		"@@12@postgres@ LOG:  statement: SELECT 'ours'",
		"@@11@shop_cart@ LOG:  execute 6: ",
		"\tUPDATE cart.carts",
		"\tSET version = $1 WHERE id = $2",
		"@@13@shop_catalog@ LOG:  execute <unnamed>: SELECT 1 WHERE $1",
		"@@11@shop_cart@ DETAIL:  parameters: $1 = NULL, $2 = 'it''s, $3 = ''x''",
		"\ttwo lines'",
		"@@13@shop_catalog@ DETAIL:  parameters: $1 = 't'",
		"@@11@shop_cart@ LOG:  statement: COMMIT",
		"@@14@shop_orders@ LOG:  statement: BEGIN",
		"@@14@shop_orders@ LOG:  execute 1: DELETE FROM orders.orders",
		"@@14@shop_orders@ LOG:  statement: ROLLBACK",
		"",
	}, "\n")
	var got []string
	for _, tx := range transactionsOf(statementsOf([]byte(log))) {
		line := "read"
		if tx.explicit {
			line = "transaction"
		}
		for _, s := range tx.inner {
			line += " | " + flat(s.text)
			for _, v := range s.values {
				if v.null {
					line += " <null>"
				} else {
					line += " <" + v.text + ">"
				}
			}
		}
		got = append(got, line)
	}
	want := []string{
		"transaction | UPDATE cart.carts SET version = $1 WHERE id = $2 <null> <it's, $3 = 'x'\ntwo lines>",
		"read | SELECT 1 WHERE $1 <t>",
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
}

func TestLiteral(t *testing.T) {
	t.Parallel()
	for in, want := range map[string]string{
		`plain`:      `E'plain'`,
		`it's`:       `E'it\'s'`,
		`{"a":true}`: `E'{"a"\x3atrue}'`, // pgbench would take :true for a variable
		`\x00ff`:     `E'\\x00ff'`,
		"a\nb":       `E'a\nb'`,
	} {
		if got := literal(in); got != want {
			t.Errorf("literal(%q) = %s, want %s", in, got, want)
		}
	}
}
