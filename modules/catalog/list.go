package catalog

import (
	"context"
	"math"
	"time"

	"github.com/banyan-shop/banyan/api/catalogapi"
	"github.com/banyan-shop/banyan/platform/pg"
)

// position is the sort key of the last product shown. Only the field of the list's own sort is used, beside ID.
type position struct {
	ID    catalogapi.ProductID `json:"i"`
	Time  string               `json:"t,omitzero"`
	Name  string               `json:"n,omitzero"`
	Value int64                `json:"v,omitzero"` // price, rating or score
}

// sorting is one of the ways to sort products: where it begins and where a row stands in it.
type sorting struct {
	first    position
	key      func(position) any
	of       func(card) position
	list     string // $1 now, $2 $3 after, $4 limit
	category string // the same, $5 categories
	search   string // $1 now, $2 $3 after, $4 limit, $5 words, then the filters
	filter   string // the same without words
}

const (
	high      = "~" // after all ids
	forever   = "infinity"
	nameChars = 80 // of a name are sorted by, so that a cursor has room for them
)

func byValue(p position) any { return p.Value }

func byTime(p position) any { return p.Time }

func byName(p position) any { return p.Name }

// sortings are the sorts a client may ask for. Their statements are spelled out by constants, one an index.
var sortings = map[string]sorting{
	"newest": {
		first: position{Time: forever, ID: high}, key: byTime,
		of:   func(c card) position { return position{Time: c.CreatedAt.UTC().Format(time.RFC3339Nano), ID: c.ID} },
		list: listNewest, category: categoryNewest, search: searchSQL + newestFirst, filter: filterSQL + newestFirst,
	},
	"name": {
		first: position{}, key: byName,
		of: func(c card) position {
			runes := []rune(c.Name)
			return position{Name: string(runes[:min(len(runes), nameChars)]), ID: c.ID}
		},
		list: listName, category: categoryName, search: searchSQL + nameOrder, filter: filterSQL + nameOrder,
	},
	"price": {
		first: position{Value: -1}, key: byValue,
		of:   func(c card) position { return position{Value: c.PriceKey, ID: c.ID} },
		list: listCheapest, category: categoryCheapest, search: searchSQL + cheapestFirst, filter: filterSQL + cheapestFirst,
	},
	"-price": {
		first: position{Value: math.MaxInt64, ID: high}, key: byValue,
		of:   func(c card) position { return position{Value: c.PriceKey, ID: c.ID} },
		list: listDearest, category: categoryDearest, search: searchSQL + dearestFirst, filter: filterSQL + dearestFirst,
	},
	"rating": {
		first: position{Value: math.MaxInt64, ID: high}, key: byValue,
		of:   func(c card) position { return position{Value: c.Rating, ID: c.ID} },
		list: listBest, category: categoryBest, search: searchSQL + bestFirst, filter: filterSQL + bestFirst,
	},
	"relevance": {
		first: position{Value: math.MaxInt64, ID: high}, key: byValue,
		of:     func(c card) position { return position{Value: c.Score, ID: c.ID} },
		search: searchSQL + bestMatch,
	},
}

// The end of a statement for each sort: what comes after the last product shown.
const (
	newestFirst   = ` AND (p.created_at, p.id) < ($2::timestamptz, $3) ORDER BY p.created_at DESC, p.id DESC LIMIT $4`
	nameOrder     = ` AND (left(p.name, 80), p.id) > ($2, $3) ORDER BY left(p.name, 80), p.id LIMIT $4`
	cheapestFirst = ` AND (p.price, p.id) > ($2, $3) ORDER BY p.price, p.id LIMIT $4`
	dearestFirst  = ` AND (p.price, p.id) < ($2, $3) ORDER BY p.price DESC, p.id DESC LIMIT $4`
	bestFirst     = ` AND (p.rating, p.id) < ($2, $3) ORDER BY p.rating DESC, p.id DESC LIMIT $4`
	bestMatch     = ` AND (` + score + `, p.id) < ($2, $3) ORDER BY score DESC, p.id DESC LIMIT $4`
)

const (
	listSQL      = `SELECT ` + cardColumns + ` FROM catalog.products p WHERE p.archived_at IS NULL`
	listNewest   = listSQL + newestFirst
	listName     = listSQL + nameOrder
	listCheapest = listSQL + cheapestFirst
	listDearest  = listSQL + dearestFirst
	listBest     = listSQL + bestFirst
)

// A list of some categories merges the beginnings of each one's list, so that it reads no more rows than categories × limit
// however many products there are.
const (
	categoryHead = `SELECT ` + cardColumns + ` FROM unnest($5::text[]) AS c (id) CROSS JOIN LATERAL (
		SELECT p.id, p.slug, p.name, p.brand, p.image, p.currency, p.rating, p.rating_count, p.created_at, p.price, p.price_until
		FROM catalog.products p WHERE p.category = c.id AND p.archived_at IS NULL`
	categoryNewest   = categoryHead + newestFirst + `) p ORDER BY p.created_at DESC, p.id DESC LIMIT $4`
	categoryName     = categoryHead + nameOrder + `) p ORDER BY left(p.name, 80), p.id LIMIT $4`
	categoryCheapest = categoryHead + cheapestFirst + `) p ORDER BY p.price, p.id LIMIT $4`
	categoryDearest  = categoryHead + dearestFirst + `) p ORDER BY p.price DESC, p.id DESC LIMIT $4`
	categoryBest     = categoryHead + bestFirst + `) p ORDER BY p.rating DESC, p.id DESC LIMIT $4`
)

// list is a page of products, one query: of all, or of the given categories.
func list(ctx context.Context, q pg.Queryer, s sorting, now time.Time, after position, limit int64, categories []string) (rows []card, err error) {
	if categories == nil {
		return rows, q.Select(ctx, &rows, s.list, now, s.key(after), after.ID, limit)
	}
	return rows, q.Select(ctx, &rows, s.category, now, s.key(after), after.ID, limit, pg.Array(categories))
}
