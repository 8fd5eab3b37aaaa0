package globals_test

import (
	"testing"

	"github.com/banyan-shop/banyan/lint/globals"
	"github.com/banyan-shop/banyan/lint/linttest"
)

func TestGlobals(t *testing.T) {
	linttest.Run(t, globals.Analyzer, "shop/modules/...", "shop/platform/config")
}
