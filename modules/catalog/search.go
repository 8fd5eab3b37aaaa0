package catalog

import (
	"cmp"
	"context"
	"math"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/banyan-shop/banyan/platform/pg"
)

// search is what a client looks for. Nil categories mean all, as do nil brands.
type search struct {
	words      string // a tsquery; "" for everything
	categories []string
	brands     []string
	min, max   int64 // of the price
}

// The query stands in a scalar subquery, so that it is parsed once and not for each row.
const (
	query     = `(SELECT to_tsquery('pg_catalog.english', $4))`
	score     = `(ts_rank(p.search, ` + query + `) * 1000000)::bigint`
	searchSQL = `SELECT ` + cardColumns + `, ` + score + ` AS score FROM catalog.products p
		WHERE p.archived_at IS NULL AND p.search @@ ` + query + `
		AND (cardinality($5::text[]) = 0 OR p.category = ANY ($5)) AND (cardinality($6::text[]) = 0 OR p.brand = ANY ($6))
		AND ` + priceOf + ` BETWEEN $7 AND $8`
	filterSQL = `SELECT ` + cardColumns + ` FROM catalog.products p
		WHERE p.archived_at IS NULL
		AND (cardinality($4::text[]) = 0 OR p.category = ANY ($4)) AND (cardinality($5::text[]) = 0 OR p.brand = ANY ($5))
		AND ` + priceOf + ` BETWEEN $6 AND $7`

	// No index has this sum: a range of unknown ends looks so rare to the server that it would rather read all products
	// in order of price than those with the words.
	priceOf = `p.price + 0`
)

// find is a page of what s finds, one query. As list it returns more than limit if there is more.
func find(ctx context.Context, q pg.Queryer, s search, by sorting, now time.Time, after position, limit int64) (rows []card, err error) {
	if s.words == "" && s.brands == nil && s.min == 0 && s.max == math.MaxInt64 {
		return list(ctx, q, by, now, after, limit, s.categories)
	}
	if s.words == "" {
		statement := by.filter.few
		if limit >= fewRows {
			statement = by.filter.many
		}
		err = q.Select(ctx, &rows, statement, now, by.key(after), after.ID, pg.Array(s.categories), pg.Array(s.brands), s.min, s.max)
		return rows, err
	}
	statement := by.search.few
	if limit >= fewRows {
		statement = by.search.many
	}
	err = q.Select(ctx, &rows, statement, now, by.key(after), after.ID, s.words, pg.Array(s.categories), pg.Array(s.brands), s.min, s.max)
	return rows, err
}

// Hits are counted up to 1,000: counting more costs more than anybody gains by it.
const (
	totalOfWords = `SELECT count(*) FROM (SELECT 1 FROM catalog.products p
		WHERE p.archived_at IS NULL AND p.search @@ (SELECT to_tsquery('pg_catalog.english', $1))
		AND (cardinality($2::text[]) = 0 OR p.category = ANY ($2)) AND (cardinality($3::text[]) = 0 OR p.brand = ANY ($3))
		AND ` + priceOf + ` BETWEEN $4 AND $5 LIMIT 1000) AS hits`
	totalOfAll = `SELECT count(*) FROM (SELECT 1 FROM catalog.products p
		WHERE p.archived_at IS NULL
		AND (cardinality($1::text[]) = 0 OR p.category = ANY ($1)) AND (cardinality($2::text[]) = 0 OR p.brand = ANY ($2))
		AND ` + priceOf + ` BETWEEN $3 AND $4 LIMIT 1000) AS hits`
)

func total(ctx context.Context, q pg.Queryer, s search) (n int64, err error) {
	if s.words != "" {
		err = q.Get(ctx, &n, totalOfWords, s.words, pg.Array(s.categories), pg.Array(s.brands), s.min, s.max)
		return n, err
	}
	err = q.Get(ctx, &n, totalOfAll, pg.Array(s.categories), pg.Array(s.brands), s.min, s.max)
	return n, err
}

// facetCount is how many hits have a brand, or are in a category.
type facetCount struct {
	Facet string
	Value string // the brand, or the category's id
	Count int64
}

// Each facet is counted with all filters but its own, so that a shopper sees what choosing another value would bring. The hits
// are grouped once by both, which leaves little to add up.
const (
	facetsEnd = ` GROUP BY p.category, p.brand)
		SELECT 'category' AS facet, h.category AS value, sum(h.n)::bigint AS count FROM hits h
		WHERE cardinality($2::text[]) = 0 OR h.brand = ANY ($2) GROUP BY h.category
		UNION ALL
		SELECT 'brand', h.brand, sum(h.n)::bigint FROM hits h
		WHERE cardinality($1::text[]) = 0 OR h.category = ANY ($1) GROUP BY h.brand`
	facetsHead = `WITH hits AS MATERIALIZED (SELECT p.category, p.brand, count(*) AS n FROM catalog.products p WHERE p.archived_at IS NULL`

	facetsOfWords  = facetsHead + ` AND ` + priceOf + ` BETWEEN $3 AND $4 AND p.search @@ (SELECT to_tsquery('pg_catalog.english', $5))` + facetsEnd
	facetsOfPrices = facetsHead + ` AND ` + priceOf + ` BETWEEN $3 AND $4` + facetsEnd
	facetsOfAll    = facetsHead + facetsEnd // reads an index alone
)

func facets(ctx context.Context, q pg.Queryer, s search) (rows []facetCount, err error) {
	categories, brands := pg.Array(s.categories), pg.Array(s.brands)
	switch {
	case s.words != "":
		err = q.Select(ctx, &rows, facetsOfWords, categories, brands, s.min, s.max, s.words)
		return rows, err
	case s.min > 0 || s.max < math.MaxInt64:
		err = q.Select(ctx, &rows, facetsOfPrices, categories, brands, s.min, s.max)
		return rows, err
	}
	err = q.Select(ctx, &rows, facetsOfAll, categories, brands)
	return rows, err
}

// facetValue is a choice a client may offer.
type facetValue struct {
	Value string `json:"value" doc:"What to send as filter[…]"`
	Label string `json:"label" doc:"What to show"`
	Count int64  `json:"count"`
}

// maxBrands is how many brands are offered, those with most hits first.
const maxBrands = 50

// facetsOf counts s for those facets that are wanted. Counts may be as old as the cache.
func (m *Module) facetsOf(ctx context.Context, s search, tree *tree, wanted []string) (map[string][]facetValue, error) {
	if len(wanted) == 0 {
		return nil, nil
	}
	all, err := m.cache.facets(s.cacheKey(), m.Config.CacheFor, m.Now(), func() (map[string][]facetValue, error) {
		counts, err := facets(ctx, m.DB, s)
		if err != nil {
			return nil, err
		}
		return arrange(counts, tree), nil
	})
	if err != nil {
		return nil, err
	}
	out := make(map[string][]facetValue, len(wanted))
	for _, f := range wanted {
		out[f] = all[f]
	}
	return out, nil
}

// arrange makes counts into choices: a category counts what is in it and below it, in the order of the tree.
func arrange(counts []facetCount, tree *tree) map[string][]facetValue {
	categories, brands := []facetValue{}, []facetValue{}
	inside := map[string]int64{}
	for _, c := range counts {
		if c.Facet == "brand" {
			if c.Value != "" {
				brands = append(brands, facetValue{c.Value, c.Value, c.Count})
			}
			continue
		}
		for id := c.Value; id != ""; id = tree.byID[id].Parent {
			inside[id] += c.Count
		}
	}
	for _, c := range tree.all {
		if n := inside[c.ID]; n > 0 {
			categories = append(categories, facetValue{c.Slug, c.Name, n})
		}
	}
	slices.SortFunc(brands, func(a, b facetValue) int {
		return cmp.Or(cmp.Compare(b.Count, a.Count), strings.Compare(a.Value, b.Value))
	})
	return map[string][]facetValue{"category": categories, "brand": brands[:min(len(brands), maxBrands)]}
}

func (s search) cacheKey() string {
	var b strings.Builder
	b.WriteString(s.words)
	for _, list := range [][]string{s.categories, s.brands} {
		b.WriteByte(0)
		for _, v := range list {
			b.WriteString(v)
			b.WriteByte(1)
		}
	}
	b.WriteByte(0)
	b.WriteString(strconv.FormatInt(s.min, 10))
	b.WriteByte(0)
	b.WriteString(strconv.FormatInt(s.max, 10))
	return b.String()
}
