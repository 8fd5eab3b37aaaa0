package host

import (
	_ "github.com/jmoiron/sqlx"
	_ "github.com/labstack/echo/v4"
	_ "shop/api/paymentsapi" // want `platform/host must not import contract paymentsapi: it knows no module's name`
	_ "shop/modules/users"   // want `platform/host must not import module users: the modules stand on it`
	_ "shop/platform/events"
	_ "shop/platform/shoptest" // want `platform/host must not import platform/shoptest outside tests`
)
