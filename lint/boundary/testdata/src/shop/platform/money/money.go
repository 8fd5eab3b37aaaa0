package money

import (
	_ "github.com/labstack/echo/v4" // want `platform/money must not import github.com/labstack/echo/v4: only platform/web`
	_ "shop/platform/errs"
	_ "shop/platform/pg" // want `platform/money must not import platform/pg: it is a leaf`
)
