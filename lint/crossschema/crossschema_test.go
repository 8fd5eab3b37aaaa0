package crossschema_test

import (
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/tools/go/analysis/analysistest"

	"github.com/banyan-shop/banyan/lint/crossschema"
	"github.com/banyan-shop/banyan/lint/linttest"
)

func TestCrossSchema(t *testing.T) {
	linttest.Run(t, crossschema.Analyzer, "shop/modules/...", "shop/api/...", "shop/cmd/...", "shop/db")
}

// Migrations are read when package db is analysed; // want can't stand in them, so this test says what it expects.
func TestMigrations(t *testing.T) {
	dir := linttest.Dir(t)
	linttest.Write(t, filepath.Join(dir, "src"), []byte(`
-- shop/db/reviews/0001_reviews.sql --
-- +goose Up
CREATE TABLE reviews.reviews (
	id text PRIMARY KEY,
	product text NOT NULL REFERENCES catalog.products (id)
);
-- shop:allow crossschema until=2999-01-31 owner=@reviews until the names are carried by events
CREATE VIEW reviews.names AS SELECT u.name FROM users.users u;
-- shop:allow crossschema until=2999-01-31 owner=@reviews nothing to excuse
CREATE INDEX product ON reviews.reviews (product);
-- shop/db/0001_stray.sql --
SELECT 1;
`))
	var found []string
	for _, r := range analysistest.Run(quiet{}, dir, crossschema.Analyzer, "shop/db") {
		for _, d := range r.Action.Diagnostics {
			at := r.Action.Package.Fset.Position(d.Pos)
			found = append(found, strings.TrimPrefix(at.String(), dir)+" "+d.Message)
		}
	}
	for _, want := range []string{
		"reviews/0001_reviews.sql:4:35 a foreign key of reviews points at catalog.products",
		"0001_reviews.sql:8:1 unused waiver",
		"0001_stray.sql:1:1 0001_stray.sql belongs to no module",
	} {
		if !strings.Contains(strings.Join(found, "\n"), want) {
			t.Errorf("not found: %s\nin\n%s", want, strings.Join(found, "\n"))
		}
	}
	if len(found) != 3 {
		t.Errorf("%d findings, want 3:\n%s", len(found), strings.Join(found, "\n"))
	}
}

type quiet struct{}

func (quiet) Errorf(string, ...any) {}
