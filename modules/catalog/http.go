package catalog

import (
	"context"
	"fmt"
	"hash/fnv"
	"math"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/banyan-shop/banyan/api/catalogapi"
	"github.com/banyan-shop/banyan/platform/errs"
	"github.com/banyan-shop/banyan/platform/money"
	"github.com/banyan-shop/banyan/platform/web"
)

// Routes are the public routes of the catalog.
func (m *Module) Routes(r *web.Router) {
	r.Problem("insufficient_stock", "Insufficient stock", "There are fewer units than asked for; details say how many of what.")
	r.Problem("sku_taken", "SKU taken", "Another product has this SKU.")
	r.Problem("unknown_category", "Unknown category", "There is no category of that slug.")
	r.Problem("no_price", "No price", "The change would leave a variant without a price.")
	for _, p := range [...][3]string{
		{"out_of_range", "A value is out of its range", "errors names the value. An adjustment of stock is not zero, and a price is not negative."},
		{"image_too_large", "The picture is too large", "A picture has at most 5 MiB and 40 megapixels."},
		{"unsupported_image", "The picture can't be used", "Pictures are PNG, JPEG, GIF or WebP; what a file is named does not count."},
		{"too_many_rows", "Too many rows at once", "Send the catalogue in smaller batches."},
		{"too_many_lines", "Too many lines at once", "Stock can be promised for at most 200 different SKUs at a time."},
		{"no_lines", "Nothing was asked for", "A promise of stock needs at least one line."},
		{"invalid_quantity", "The quantity is not valid", "Each line names a SKU and a quantity above zero."},
		{"already_over", "The time is over already", "A promise of stock must end in the future."},
		{"already_allocated", "The stock is allocated already", "The order has its goods; asking again with the same key gives the first answer."},
	} {
		r.Problem(p[0], p[1], p[2])
	}

	r.Tag("catalog", "Products, prices, search and stock.")
	// What is shown may be this old, where a gateway caches at all; a checkout prices and takes stock by itself. All caches hear of
	// every change (ProductsChanged) but that of stock, which a product's page shows, and of counts and categories, which are kept
	// here for moments. A list holds nothing of these, and its time is only for a cache that a message did not reach.
	shortly := web.Cache{For: 5 * time.Second, Tags: []string{catalogapi.CacheTag}}
	long := web.Cache{For: time.Minute, Tags: shortly.Tags}
	web.Get(r, "/v1/products", web.Public, web.Route{
		ID: "listProducts", Tag: "catalog", Summary: "Products, newest first unless sorted otherwise", Criticality: web.Sheddable, Cache: long,
	}, m.getProducts)
	web.Get(r, "/v1/products/{ref}", web.Public, web.Route{
		ID: "readProduct", Tag: "catalog", Summary: "A product by id or slug, with its variants, prices and what is available", Cache: shortly,
	}, m.getProduct)
	web.Get(r, "/v1/categories", web.Public, web.Route{
		ID: "listCategories", Tag: "catalog", Summary: "The tree of categories", Criticality: web.Sheddable, Cache: shortly,
	}, m.getCategories)
	web.Get(r, "/v1/search", web.Public, web.Route{
		ID: "searchProducts", Tag: "catalog", Summary: "Products that match words and filters, with counts for further filters", Criticality: web.Sheddable, Cache: shortly,
	}, m.getSearch)
	web.Get(r, imagePath+"{name}", web.Public, web.Route{
		ID: "readImage", Tag: "catalog", Summary: "A picture",
	}, m.getImage)

	web.Post(r, "/v1/admin/products", web.Scope("catalog:write"), web.Route{
		ID: "createProduct", Tag: "catalog", Summary: "Create a product", Status: 201, Idempotency: web.Keyed,
	}, m.postProduct)
	web.Get(r, "/v1/admin/products/{ref}", web.Scope("catalog:read_all"), web.Route{
		ID: "readAnyProduct", Tag: "catalog", Summary: "A product, archived or not, with its version for If-Match",
	}, m.getAnyProduct)
	web.Patch(r, "/v1/admin/products/{ref}", web.Scope("catalog:write"), web.Route{
		ID: "updateProduct", Tag: "catalog", Summary: "Change a product, its prices, or archive it",
	}, m.patchProduct)
	web.Post(r, "/v1/admin/stock-adjustments", web.Scope("stock:write"), web.Route{
		ID: "adjustStock", Tag: "catalog", Summary: "Add to or take from what is on hand", Status: 201, Idempotency: web.Keyed,
	}, m.postAdjustment)
	web.Get(r, "/v1/admin/stock-levels", web.Scope("catalog:read_all"), web.Route{
		ID: "listStockLevels", Tag: "catalog", Summary: "What is on hand and how much of it is promised",
	}, m.getLevels)
}

type ratingBody struct {
	Average web.Hundredths `json:"average" example:"4.25"`
	Count   int64          `json:"count"`
}

func ratingOf(average, count int64) *ratingBody {
	if count == 0 {
		return nil
	}
	return &ratingBody{web.Hundredths(average), count}
}

// cardBody is a product as lists show it.
type cardBody struct {
	ID     catalogapi.ProductID `json:"id"`
	Slug   string               `json:"slug"`
	Name   string               `json:"name"`
	Brand  string               `json:"brand,omitempty"`
	Price  money.Amount         `json:"price" doc:"The lowest of its variants"`
	Rating *ratingBody          `json:"rating,omitempty"`
	Image  string               `json:"image,omitempty"`
}

func (c card) body() cardBody {
	return cardBody{c.ID, c.Slug, c.Name, c.Brand, money.Of(c.Price, c.Currency), ratingOf(c.Rating, c.RatingCount), imageURL(c.Image)}
}

// cards are the bodies of a page's rows, and the cursor to the next if there is one: rows then hold more than the page shows.
func (m *Module) cards(rows []card, limit int64, by sorting, list string) (page web.Page[cardBody]) {
	if int64(len(rows)) > limit {
		rows = rows[:limit]
		page.NextCursor = m.Cursors.Encode(list, by.of(rows[limit-1]))
	}
	page.Data = make([]cardBody, len(rows))
	for i, c := range rows {
		page.Data[i] = c.body()
	}
	return page
}

// after is where a page begins: behind the cursor, or at the sort's beginning.
func (m *Module) after(by sorting, list, cursor string) (position, error) {
	var p position
	if ok, err := m.Cursors.Decode(list, cursor, &p); !ok {
		return by.first, err
	}
	return p, nil
}

type listInput struct {
	Limit    int64    `query:"limit" default:"20" minimum:"1" maximum:"100"`
	Cursor   string   `query:"cursor" maxLength:"1024"`
	Sort     string   `query:"sort" default:"newest" enum:"newest,name,price,-price,rating"`
	Category []string `query:"filter[category],explode" maxItems:"20" doc:"Slugs of categories; those below them are included"`
}

func (m *Module) getProducts(ctx context.Context, in *listInput) (*web.Reply[web.Page[cardBody]], error) {
	by := sortings[in.Sort]
	name := "products/" + in.Sort
	var categories []string
	if in.Category != nil {
		tree, err := m.categories(ctx)
		if err != nil {
			return nil, err
		}
		categories = tree.subtree(in.Category)
		name += "/" + strings.Join(in.Category, ",")
	}
	after, err := m.after(by, name, in.Cursor)
	if err != nil {
		return nil, err
	}
	rows, err := list(ctx, m.DB, by, m.Now(), after, in.Limit, categories)
	if err != nil {
		return nil, fmt.Errorf("list products: %w", err)
	}
	return &web.Reply[web.Page[cardBody]]{Body: m.cards(rows, in.Limit, by, name)}, nil
}

type searchInput struct {
	Q        string   `query:"q" maxLength:"200"`
	Limit    int64    `query:"limit" default:"20" minimum:"1" maximum:"100"`
	Cursor   string   `query:"cursor" maxLength:"1024"`
	Sort     string   `query:"sort" enum:"relevance,newest,name,price,-price,rating" doc:"relevance with words, else newest"`
	Facets   []string `query:"facets" maxItems:"2" enum:"category,brand"`
	Include  []string `query:"include" maxItems:"1" enum:"total"`
	Category []string `query:"filter[category],explode" maxItems:"20"`
	Brand    []string `query:"filter[brand],explode" maxItems:"50"`
	MinPrice int64    `query:"filter[min_price]" minimum:"0" doc:"In minor units"`
	MaxPrice int64    `query:"filter[max_price]" minimum:"0" doc:"In minor units; 0 for none"`
}

type searchBody struct {
	web.Page[cardBody]
	Facets map[string][]facetValue `json:"facets,omitempty"`
	Total  *int64                  `json:"total,omitempty" doc:"Hits, counted up to 1000"`
}

func (m *Module) getSearch(ctx context.Context, in *searchInput) (*web.Reply[searchBody], error) {
	s := search{words: tsquery(in.Q), brands: in.Brand, min: in.MinPrice, max: math.MaxInt64}
	if in.MaxPrice > 0 {
		s.max = in.MaxPrice
	}
	sort := in.Sort
	if s.words == "" && (sort == "" || sort == "relevance") {
		sort = "newest"
	} else if sort == "" {
		sort = "relevance"
	}
	tree, err := m.categories(ctx)
	if err != nil {
		return nil, err
	}
	out := searchBody{}
	out.Data = []cardBody{}
	if in.Category != nil {
		if s.categories = tree.subtree(in.Category); len(s.categories) == 0 {
			return &web.Reply[searchBody]{Body: out}, nil // no such category has no products
		}
	}
	by := sortings[sort]
	name := "search/" + sort + "/" + s.cacheKey()
	after, err := m.after(by, name, in.Cursor)
	if err != nil {
		return nil, err
	}
	rows, err := find(ctx, m.DB, s, by, m.Now(), after, in.Limit)
	if err != nil {
		return nil, fmt.Errorf("search: %w", err)
	}
	out.Page = m.cards(rows, in.Limit, by, name)
	if out.Facets, err = m.facetsOf(ctx, s, tree, in.Facets); err != nil {
		return nil, fmt.Errorf("count facets: %w", err)
	}
	if slices.Contains(in.Include, "total") {
		n, err := total(ctx, m.DB, s)
		if err != nil {
			return nil, fmt.Errorf("count hits: %w", err)
		}
		out.Total = &n
	}
	return &web.Reply[searchBody]{Body: out}, nil
}

type refInput struct {
	Ref string `path:"ref" maxLength:"200" doc:"Id or slug"`
}

// productBody is a product as its page shows it.
type productBody struct {
	ID          catalogapi.ProductID `json:"id"`
	Slug        string               `json:"slug"`
	Name        string               `json:"name"`
	Brand       string               `json:"brand,omitempty"`
	Description string               `json:"description"`
	Category    string               `json:"category" doc:"Its category's slug"`
	Price       money.Amount         `json:"price" doc:"The lowest of its variants"`
	Image       string               `json:"image,omitempty"`
	Images      []catalogapi.Image   `json:"images"`
	Variants    []catalogapi.Variant `json:"variants"`
	Rating      *ratingBody          `json:"rating,omitempty"`
	Version     int64                `json:"version"`
	Archived    bool                 `json:"archived,omitempty"`
}

func bodyOf(p catalogapi.Product) productBody {
	b := productBody{
		ID: p.ID, Slug: p.Slug, Name: p.Name, Brand: p.Brand, Description: p.Description, Category: p.Category,
		Images: p.Images, Variants: p.Variants, Rating: ratingOf(p.Rating.AverageHundredths, p.Rating.Count), Version: p.Version,
	}
	for i, v := range p.Variants {
		if i == 0 || v.Price.Minor < b.Price.Minor {
			b.Price = v.Price
		}
	}
	if len(p.Images) > 0 {
		b.Image = p.Images[0].URL
	}
	return b
}

// etag is the version and a hash of what changes without one: prices with time, stock with each order, ratings. So a client
// that asks again is told of them, and one that changes the product names the version alone.
func (b productBody) etag() string {
	h := fnv.New64a()
	var buf [8]byte
	put := func(n int64) {
		for i := range buf {
			buf[i] = byte(n >> (8 * i))
		}
		h.Write(buf[:])
	}
	for _, v := range b.Variants {
		put(v.Price.Minor)
		put(v.Available)
	}
	if b.Rating != nil {
		put(int64(b.Rating.Average))
		put(b.Rating.Count)
	}
	return `"` + strconv.FormatInt(b.Version, 10) + "-" + strconv.FormatUint(h.Sum64(), 36) + `"`
}

// versionOf reads the version from an If-Match header that holds an entity tag of ours.
func versionOf(ifMatch string) (int64, error) {
	if version, rest, ok := strings.Cut(ifMatch, "-"); ok && strings.HasPrefix(version, `"`) && strings.HasSuffix(rest, `"`) {
		ifMatch = version + `"`
	}
	return web.IfMatch(ifMatch, false)
}

func (m *Module) getProduct(ctx context.Context, in *refInput) (*web.Reply[productBody], error) {
	p, err := m.Product(ctx, catalogapi.ProductRequest{Ref: in.Ref})
	if err != nil {
		return nil, err
	}
	b := bodyOf(p)
	return &web.Reply[productBody]{ETag: b.etag(), Body: b}, nil
}

type categoryBody struct {
	ID       string          `json:"id"`
	Slug     string          `json:"slug"`
	Name     string          `json:"name"`
	Path     string          `json:"path" doc:"The slugs from the top of the tree"`
	Children []*categoryBody `json:"children"`
}

type categoriesBody struct {
	Data []*categoryBody `json:"data"`
}

func (m *Module) getCategories(ctx context.Context, _ *struct{}) (*web.Reply[categoriesBody], error) {
	tree, err := m.categories(ctx)
	if err != nil {
		return nil, err
	}
	out := categoriesBody{Data: []*categoryBody{}}
	made := make(map[string]*categoryBody, len(tree.all))
	ordered := slices.Clone(tree.all)
	slices.SortStableFunc(ordered, func(a, b category) int { return int(a.Position - b.Position) })
	for _, c := range ordered {
		made[c.ID] = &categoryBody{ID: c.ID, Slug: c.Slug, Name: c.Name, Path: c.Path, Children: []*categoryBody{}}
	}
	for _, c := range ordered {
		if parent, ok := made[c.Parent]; ok {
			parent.Children = append(parent.Children, made[c.ID])
		} else {
			out.Data = append(out.Data, made[c.ID])
		}
	}
	return &web.Reply[categoriesBody]{Body: out}, nil
}

type levelBody struct {
	SKU      string `json:"sku"`
	Location string `json:"location"`
	OnHand   int64  `json:"on_hand" db:"on_hand"`
	Reserved int64  `json:"reserved"`
}

type adjustInput struct {
	Body struct {
		SKU    string `json:"sku" minLength:"1" maxLength:"100"`
		Delta  int64  `json:"delta" minimum:"-1000000000" maximum:"1000000000"`
		Reason string `json:"reason" minLength:"1" maxLength:"200"`
	}
}

func (m *Module) postAdjustment(ctx context.Context, in *adjustInput) (*web.Reply[levelBody], error) {
	if in.Body.Delta == 0 {
		return nil, errs.Invalidf("out_of_range", "An adjustment of nothing is none.").WithField("/delta", "out_of_range")
	}
	level, err := m.adjust(ctx, in.Body.SKU, in.Body.Delta, in.Body.Reason)
	if err != nil {
		return nil, err
	}
	return &web.Reply[levelBody]{Body: level}, nil
}

type levelsInput struct {
	SKU    string `query:"sku" maxLength:"100" doc:"One SKU; without it all, in order"`
	Limit  int64  `query:"limit" default:"20" minimum:"1" maximum:"100"`
	Cursor string `query:"cursor" maxLength:"1024"`
}

func (m *Module) getLevels(ctx context.Context, in *levelsInput) (*web.Reply[web.Page[levelBody]], error) {
	var after string
	if _, err := m.Cursors.Decode("stock-levels", in.Cursor, &after); err != nil {
		return nil, err
	}
	rows, err := levelsAfter(ctx, m.DB, in.SKU, after, in.Limit+1)
	if err != nil {
		return nil, fmt.Errorf("stock levels: %w", err)
	}
	page := web.Page[levelBody]{Data: rows}
	if int64(len(rows)) > in.Limit {
		page.Data = rows[:in.Limit]
		page.NextCursor = m.Cursors.Encode("stock-levels", rows[in.Limit-1].SKU)
	}
	return &web.Reply[web.Page[levelBody]]{Body: page}, nil
}

type createInput struct {
	Body struct {
		Name        string       `json:"name" minLength:"1" maxLength:"200"`
		Description string       `json:"description,omitempty" maxLength:"20000"`
		Brand       string       `json:"brand,omitempty" maxLength:"200"`
		Category    string       `json:"category" minLength:"1" maxLength:"100" doc:"A category's slug"`
		SKU         string       `json:"sku" minLength:"1" maxLength:"100"`
		Price       money.Amount `json:"price"`
		WeightGrams int64        `json:"weight_grams,omitempty" minimum:"0" maximum:"100000000"`
		TaxClass    string       `json:"tax_class,omitempty" maxLength:"50" doc:"Default standard"`
		Stock       int64        `json:"stock,omitempty" minimum:"0" maximum:"1000000000"`
	}
}

type updateInput struct {
	ID      string `path:"ref" maxLength:"200" doc:"The product's id"`
	IfMatch string `header:"If-Match" maxLength:"100" doc:"The ETag the client has seen"`
	Body    struct {
		Name        *string       `json:"name,omitempty" minLength:"1" maxLength:"200"`
		Description *string       `json:"description,omitempty" maxLength:"20000"`
		Brand       *string       `json:"brand,omitempty" maxLength:"200"`
		Category    *string       `json:"category,omitempty" minLength:"1" maxLength:"100" doc:"A category's slug"`
		Price       *money.Amount `json:"price,omitempty" doc:"The list price of all its variants; it ends a sale"`
		Prices      []priceBody   `json:"prices,omitempty" maxItems:"200" doc:"Prices of single variants, sales included"`
		Archived    *bool         `json:"archived,omitempty"`
	}
}

// priceBody is what a variant costs.
type priceBody struct {
	SKU      string        `json:"sku" minLength:"1" maxLength:"100"`
	Price    money.Amount  `json:"price" doc:"The list price"`
	Sale     *money.Amount `json:"sale,omitempty" doc:"The price while the sale lasts; without it there is none"`
	SaleFrom *time.Time    `json:"sale_from,omitempty"`
	SaleTo   *time.Time    `json:"sale_to,omitempty"`
}

func (m *Module) postProduct(ctx context.Context, in *createInput) (*web.Reply[productBody], error) {
	p, err := m.create(ctx, in)
	if err != nil {
		return nil, err
	}
	return &web.Reply[productBody]{Status: 201, ETag: p.etag(), Location: "/v1/products/" + string(p.ID), Body: p}, nil
}

func (m *Module) getAnyProduct(ctx context.Context, in *refInput) (*web.Reply[productBody], error) {
	p, err := m.anyProduct(ctx, m.DB, in.Ref)
	if err != nil {
		return nil, err
	}
	return &web.Reply[productBody]{ETag: p.etag(), Body: p}, nil
}

func (m *Module) patchProduct(ctx context.Context, in *updateInput) (*web.Reply[productBody], error) {
	version, err := versionOf(in.IfMatch)
	if err != nil {
		return nil, err
	}
	p, err := m.update(ctx, in, version)
	if err != nil {
		return nil, err
	}
	return &web.Reply[productBody]{ETag: p.etag(), Body: p}, nil
}
