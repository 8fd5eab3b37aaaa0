package shipping

import (
	"cmp"
	"slices"

	"github.com/banyan-shop/banyan/api/shippingapi"
	"github.com/banyan-shop/banyan/platform/errs"
)

// Status of a shipment. It only rises: what a carrier tells late or twice is recorded and moves nothing back.
const (
	pending        = "pending"
	shipped        = "shipped"
	inTransit      = "in_transit"
	outForDelivery = "out_for_delivery"
	delivered      = "delivered"
	returned       = "returned"
	cancelled      = "cancelled" // nothing is left in it; it never left the house
)

// told are the statuses that tracking events tell, by rank.
var told = [...]string{shipped, inTransit, outForDelivery, delivered, returned}

// rank orders the statuses; pending, cancelled and whatever is unknown come before the first that is told.
func rank(status string) int { return slices.Index(told[:], status) + 1 }

// shipment is a parcel under its order's lock.
type shipment struct {
	ID         shippingapi.ShipmentID `db:"id"`
	Collecting bool                   `db:"collecting"`
	Status     string                 `db:"status"`
	LeftHouse  bool                   `db:"left_house"`
	Arrived    bool                   `db:"arrived"`
}

// hear takes in a tracking event and says whether by it the parcel left the house, or arrived: each once, in whatever order
// the events come, for nothing arrives that has not left.
func (s *shipment) hear(status string) (left, arrived bool, err error) {
	if rank(status) == 0 {
		return false, false, errs.Invalidf("unknown_status", "a parcel can't become this").WithField("/status", "out_of_range")
	}
	if s.Status == cancelled {
		return false, false, errs.Conflictf("shipment_cancelled", "nothing is left in the shipment: it is cancelled")
	}
	left, arrived = !s.LeftHouse, !s.Arrived && status == delivered
	s.LeftHouse, s.Arrived, s.Collecting = true, s.Arrived || arrived, false
	if rank(status) > rank(s.Status) {
		s.Status = status
	}
	return left, arrived, nil
}

// content is how much of each SKU something holds.
type content map[string]int64

// contentOf sums lines. Quantities are positive.
func contentOf(lines []shippingapi.Line) (content, error) {
	c := content{}
	for _, l := range lines {
		if l.SKU == "" || l.Quantity <= 0 {
			return nil, errs.Invalidf("", "a line is a SKU and a positive quantity").WithField("/lines", "out_of_range")
		}
		c[l.SKU] += l.Quantity
	}
	return c, nil
}

// lines is the content in order of SKU.
func (c content) lines() []shippingapi.Line {
	all := make([]shippingapi.Line, 0, len(c))
	for sku, n := range c {
		if n > 0 {
			all = append(all, shippingapi.Line{SKU: sku, Quantity: n})
		}
	}
	slices.SortFunc(all, func(a, b shippingapi.Line) int { return cmp.Compare(a.SKU, b.SKU) })
	return all
}

func (c content) empty() bool { return len(c.lines()) == 0 }

// take moves up to want out of c and returns what it moved; want is reduced by it.
func (c content) take(want content) content {
	moved := content{}
	for sku, n := range want {
		if k := min(n, c[sku]); k > 0 {
			moved[sku] = k
			c[sku] -= k
			want[sku] -= k
		}
	}
	return moved
}
