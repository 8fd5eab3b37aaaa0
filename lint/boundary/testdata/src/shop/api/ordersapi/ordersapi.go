package ordersapi

import (
	_ "shop/api/paymentsapi" // want `ordersapi must not import contract paymentsapi: contracts know no other contract`
	_ "shop/modules/users"   // want `ordersapi must not import module users: a contract knows no module`
	_ "shop/platform/ids"
)
