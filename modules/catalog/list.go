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
	list     sized // $1 now, $2 $3 after
	category sized // the same, $4 categories
	search   sized // the same, $4 words, then the filters
	filter   sized // the same without words
}

// sized is a statement for a page of the usual size and one for the largest. With the limit as a parameter the server would
// think of a tenth of all products, find planning for the true number cheaper, and so plan at every execution, which takes
// longer than to execute. What is too much is left off here.
type sized struct{ few, many string }

const (
	fewRows = 21
	few     = ` LIMIT 21`
	many    = ` LIMIT 101`
)

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
		of:       func(c card) position { return position{Time: c.CreatedAt.UTC().Format(time.RFC3339Nano), ID: c.ID} },
		list:     sized{listNewest + few, listNewest + many},
		category: sized{categoryHead + newestFirst + few + newestMerged + few, categoryHead + newestFirst + many + newestMerged + many},
		search:   sized{searchSQL + newestFirst + few, searchSQL + newestFirst + many},
		filter:   sized{filterSQL + newestFirst + few, filterSQL + newestFirst + many},
	},
	"name": {
		first: position{}, key: byName,
		of: func(c card) position {
			runes := []rune(c.Name)
			return position{Name: string(runes[:min(len(runes), nameChars)]), ID: c.ID}
		},
		list:     sized{listName + few, listName + many},
		category: sized{categoryHead + nameOrder + few + nameMerged + few, categoryHead + nameOrder + many + nameMerged + many},
		search:   sized{searchSQL + nameOrder + few, searchSQL + nameOrder + many},
		filter:   sized{filterSQL + nameOrder + few, filterSQL + nameOrder + many},
	},
	"price": {
		first: position{Value: -1}, key: byValue,
		of:       func(c card) position { return position{Value: c.PriceKey, ID: c.ID} },
		list:     sized{listCheapest + few, listCheapest + many},
		category: sized{categoryHead + cheapestFirst + few + cheapestMerged + few, categoryHead + cheapestFirst + many + cheapestMerged + many},
		search:   sized{searchSQL + cheapestFirst + few, searchSQL + cheapestFirst + many},
		filter:   sized{filterSQL + cheapestFirst + few, filterSQL + cheapestFirst + many},
	},
	"-price": {
		first: position{Value: math.MaxInt64, ID: high}, key: byValue,
		of:       func(c card) position { return position{Value: c.PriceKey, ID: c.ID} },
		list:     sized{listDearest + few, listDearest + many},
		category: sized{categoryHead + dearestFirst + few + dearestMerged + few, categoryHead + dearestFirst + many + dearestMerged + many},
		search:   sized{searchSQL + dearestFirst + few, searchSQL + dearestFirst + many},
		filter:   sized{filterSQL + dearestFirst + few, filterSQL + dearestFirst + many},
	},
	"rating": {
		first: position{Value: math.MaxInt64, ID: high}, key: byValue,
		of:       func(c card) position { return position{Value: c.Rating, ID: c.ID} },
		list:     sized{listBest + few, listBest + many},
		category: sized{categoryHead + bestFirst + few + bestMerged + few, categoryHead + bestFirst + many + bestMerged + many},
		search:   sized{searchSQL + bestFirst + few, searchSQL + bestFirst + many},
		filter:   sized{filterSQL + bestFirst + few, filterSQL + bestFirst + many},
	},
	"relevance": {
		first: position{Value: math.MaxInt64, ID: high}, key: byValue,
		of:     func(c card) position { return position{Value: c.Score, ID: c.ID} },
		search: sized{searchSQL + bestMatch + few, searchSQL + bestMatch + many},
	},
}

// The end of a statement for each sort: what comes after the last product shown. That stands in a scalar subquery so that the
// server does not plan for its value, see sized.
const (
	newestFirst   = ` AND (p.created_at, p.id) < ((SELECT $2::timestamptz), $3) ORDER BY p.created_at DESC, p.id DESC`
	nameOrder     = ` AND (left(p.name, 80), p.id) > ((SELECT $2::text), $3) ORDER BY left(p.name, 80), p.id`
	cheapestFirst = ` AND (p.price, p.id) > ((SELECT $2::bigint), $3) ORDER BY p.price, p.id`
	dearestFirst  = ` AND (p.price, p.id) < ((SELECT $2::bigint), $3) ORDER BY p.price DESC, p.id DESC`
	bestFirst     = ` AND (p.rating, p.id) < ((SELECT $2::bigint), $3) ORDER BY p.rating DESC, p.id DESC`
	bestMatch     = ` AND (` + score + `, p.id) < ($2, $3) ORDER BY score DESC, p.id DESC`
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
	categoryHead = `SELECT ` + cardColumns + ` FROM unnest((SELECT $4::text[])) AS c (id) CROSS JOIN LATERAL (
		SELECT p.id, p.slug, p.name, p.brand, p.image, p.currency, p.rating, p.rating_count, p.created_at, p.price, p.price_until
		FROM catalog.products p WHERE p.category = c.id AND p.archived_at IS NULL`
	newestMerged   = `) p ORDER BY p.created_at DESC, p.id DESC`
	nameMerged     = `) p ORDER BY left(p.name, 80), p.id`
	cheapestMerged = `) p ORDER BY p.price, p.id`
	dearestMerged  = `) p ORDER BY p.price DESC, p.id DESC`
	bestMerged     = `) p ORDER BY p.rating DESC, p.id DESC`
)

// list is a page of products, one query: of all, or of the given categories.
//
// It returns at least one row more than limit if there is one.
func list(ctx context.Context, q pg.Queryer, s sorting, now time.Time, after position, limit int64, categories []string) (rows []card, err error) {
	if categories == nil {
		statement := s.list.few
		if limit >= fewRows {
			statement = s.list.many
		}
		err = q.Select(ctx, &rows, statement, now, s.key(after), after.ID)
		return rows, err
	}
	statement := s.category.few
	if limit >= fewRows {
		statement = s.category.many
	}
	err = q.Select(ctx, &rows, statement, now, s.key(after), after.ID, pg.Array(categories))
	return rows, err
}
