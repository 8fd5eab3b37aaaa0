package shop

import (
	_ "shop/db"
	_ "shop/modules/users"
	_ "shop/platform/ids"
	_ "shop/lint/suite" // want `cmd/shop must not import shop/lint/suite`
)


