package catalogapi

// ProductsChanged says that what the shop shows of products is no longer what it was: their words, prices, pictures, category
// or rating, whether they are there at all, or a sale began or ended. It tells nothing of stock, which changes with every order:
// whoever shows that asks. Its key is the product, or "catalog" where it tells of several.
type ProductsChanged struct {
	// Products are those that changed, at most MaxChanged; none when more did at once, which may then be any.
	Products []ProductID `json:"products"`
	// Categories says that there are new categories.
	Categories bool `json:"categories"`
}

// CacheTag is the tag of every cached answer that ProductsChanged makes old.
const CacheTag = "catalog"

// MaxChanged is how many products one ProductsChanged names.
const MaxChanged = 100

func (ProductsChanged) EventName() string { return "catalog.products_changed.v1" }
func (e ProductsChanged) EventKey() string {
	if len(e.Products) == 1 {
		return string(e.Products[0])
	}
	return "catalog"
}
