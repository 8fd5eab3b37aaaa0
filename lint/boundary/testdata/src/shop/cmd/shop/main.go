package shop

import (
	_ "shop/db"
	_ "shop/lint/suite" // want `cmd/shop must not import shop/lint/suite`
	_ "shop/modules/users"
	_ "shop/platform/ids"
)
