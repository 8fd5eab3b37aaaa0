package tree_test

import (
	"testing"

	"github.com/banyan-shop/banyan/lint/tree"
)

func TestClassify(t *testing.T) {
	t.Parallel()
	for path, want := range map[string]tree.Place{
		"x/shop/modules/orders":               {Layer: tree.Module, Name: "orders"},
		"x/shop/modules/orders/internal/a":    {Layer: tree.Module, Name: "orders"},
		"x/shop/api/ordersapi":                {Layer: tree.API, Name: "orders"},
		"x/shop/api/ordersapi/orderstest":     {Layer: tree.APITest, Name: "orders"},
		"x/shop/api/ordersapi/internal/a":     {Layer: tree.API, Name: "orders"},
		"x/shop/api":                          {Layer: tree.Unclassified},
		"x/shop/api/api":                      {Layer: tree.Unclassified},
		"x/shop/api/orders":                   {Layer: tree.Unclassified},
		"x/shop/platform/pg":                  {Layer: tree.Platform, Name: "pg"},
		"x/shop/cmd/shop":                     {Layer: tree.Cmd, Name: "shop"},
		"x/shop/db":                           {Layer: tree.DB, Name: "db"},
		"x/shop/db/orders":                    {Layer: tree.Unclassified},
		"x/shop/utils":                        {Layer: tree.Unclassified},
		"x/shop":                              {Layer: tree.Unclassified},
		"x/shopping/modules/orders":           {Layer: tree.Foreign},
		"github.com/testcontainers/modules/x": {Layer: tree.Foreign},
	} {
		got := tree.Classify("x/shop", path)
		if got.Layer != want.Layer || got.Name != want.Name {
			t.Errorf("%s: got %v %q, want %v %q", path, got.Layer, got.Name, want.Layer, want.Name)
		}
	}
}

func TestTrim(t *testing.T) {
	t.Parallel()
	for in, want := range map[string]string{
		"s/modules/orders": "s/modules/orders",
		"s/modules/orders_test [s/modules/orders.test]": "s/modules/orders",
		"s/modules/orders [s/modules/orders.test]":      "s/modules/orders",
		"s/modules/orders.test":                         "s/modules/orders",
	} {
		if got := tree.Trim(in); got != want {
			t.Errorf("%s: got %s, want %s", in, got, want)
		}
	}
}
