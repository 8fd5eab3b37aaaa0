package catalogapi

import (
	"strconv"

	"github.com/banyan-shop/banyan/platform/ids"
)

// DemoProducts is how many products the demo catalogue holds unless the setting catalog.demo_products says otherwise. They
// are numbered from 1.
const DemoProducts = 2000

// DemoProductID is the id of the nth product of the demo catalogue, always the same, so that other modules' demo data can
// tell of it without asking.
func DemoProductID(n int) ProductID { return ids.Derived[ProductID]("prd", "demo", strconv.Itoa(n)) }
