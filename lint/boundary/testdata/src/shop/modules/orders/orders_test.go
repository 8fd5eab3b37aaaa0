package orders_test

import (
	_ "shop/api/paymentsapi/paymentstest"
	_ "shop/modules/orders"
	_ "shop/modules/payments" // want `orders must not import module payments`
	_ "shop/platform/shoptest"
)
