package orders

import (
	//shop:allow boundary until=2999-01-31 owner=@orders the old price list moves next month
	_ "shop/modules/payments"

	//shop:allow boundary until=2020-01-31 owner=@orders an expired one excuses nothing
	_ "shop/modules/cart" // want `orders must not import module cart`
)
