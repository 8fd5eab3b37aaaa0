package orders

import "shop/api/paymentsapi"

var captured = paymentsapi.PaymentCaptured{Payment: "1"}
