package pricing

import _ "shop/modules/payments" // want `orders must not import module payments`
