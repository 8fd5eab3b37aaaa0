package paymentsapi

type Payments interface{}
