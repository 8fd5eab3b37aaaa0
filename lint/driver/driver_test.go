package driver_test

import (
	"testing"

	"github.com/banyan-shop/banyan/lint/driver"
	"github.com/banyan-shop/banyan/lint/linttest"
)

func TestDriver(t *testing.T) {
	linttest.Run(t, driver.Analyzer, "shop/modules/...",
		"shop/platform/money", "shop/platform/pg", "shop/platform/web")
}
