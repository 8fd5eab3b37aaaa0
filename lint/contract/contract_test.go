package contract_test

import (
	"testing"

	"github.com/banyan-shop/banyan/lint/contract"
	"github.com/banyan-shop/banyan/lint/linttest"
)

func TestContract(t *testing.T) { linttest.Run(t, contract.Analyzer, "shop/api/...") }
