package ordersapi

type OrderPlaced struct{ Order string }

func (OrderPlaced) EventName() string  { return "orders.order_placed.v1" }
func (e OrderPlaced) EventKey() string { return e.Order }

type OrderCancelled struct{ Order string }

const cancelled = "orders." + "order_cancelled.v2"

func (OrderCancelled) EventName() string  { return cancelled }
func (e OrderCancelled) EventKey() string { return e.Order }

type Foreign struct{}

func (Foreign) EventName() string { return "payments.paid.v1" } // want `event name "payments.paid.v1" of Foreign begins with payments, but orders owns it`

type Computed struct{ kind string }

func (e Computed) EventName() string { return "orders." + e.kind } // want `EventName of Computed must do nothing but return one constant`

type Unversioned struct{}

func (Unversioned) EventName() string { return "orders.OrderPlaced" } // want `must read orders.what_happened.v1`

type Pointer struct{}

func (*Pointer) EventName() string { return "orders.pointer_seen.v1" } // want `EventName of Pointer needs a value receiver`

type Twin struct{}

func (Twin) EventName() string { return "orders.order_placed.v1" } // want `event name "orders.order_placed.v1" of Twin is already that of OrderPlaced`
