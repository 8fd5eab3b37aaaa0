package orders

import (
	"embed"
	"errors"
	"fmt"
	"html/template"
	"regexp"
	"time"

	"shop/platform/errs"
	"shop/platform/money"
	"shop/platform/rpc"
)

var _ fmt.Stringer = (*Module)(nil)

//go:embed good.go
var files embed.FS

//go:embed good.go
var text string

var (
	ErrGone  = errors.New("gone")
	errTaken = errs.Invalidf("taken", "taken")
	number   = regexp.MustCompile(`\d+`)
	page     = template.Must(template.New("x").Parse("x"))
	order    = rpc.NewMethod[int, int]("orders.Order", rpc.Idempotent)
	zero     = money.Amount{Currency: "EUR"}
	max      = 3
	timeout  = 3 * time.Second
	utc      = time.UTC
	next     = map[string][]string{"placed": {"paid", "cancelled"}}
	kinds    = [...]string{"a", "b"}
	steps    = []struct {
		name string
		do   func()
	}{{"a", func() {}}}
)

type Module struct{}

func (*Module) String() string { return next["a"][0] + kinds[0] + text }

func local() int {
	max := 1
	max++
	return max
}
