package paymentstest

import (
	_ "shop/api/ordersapi" // want `paymentstest must not import contract ordersapi`
	_ "shop/api/paymentsapi"
	_ "shop/modules/users" // want `paymentstest must not import module users`
	_ "shop/platform/shoptest"
)
