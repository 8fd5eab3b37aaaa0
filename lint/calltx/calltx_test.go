package calltx_test

import (
	"testing"

	"github.com/banyan-shop/banyan/lint/calltx"
	"github.com/banyan-shop/banyan/lint/linttest"
)

func TestCallTx(t *testing.T) { linttest.Run(t, calltx.Analyzer, "shop/...") }
