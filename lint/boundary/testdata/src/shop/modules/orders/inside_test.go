package orders

import _ "shop/modules/cart" // want `orders must not import module cart`
