// Package code answers the questions about types and calls that several analyzers ask.
package code

import (
	"go/ast"
	"go/constant"
	"go/types"
	"strings"
	"unicode"

	"golang.org/x/tools/go/types/typeutil"

	"github.com/banyan-shop/banyan/lint/tree"
)

// String is the constant string value of e.
func String(info *types.Info, e ast.Expr) (string, bool) {
	v := info.Types[e].Value
	if v == nil || v.Kind() != constant.String {
		return "", false
	}
	return constant.StringVal(v), true
}

// Named is the named type behind t, through aliases and one pointer.
func Named(t types.Type) *types.Named {
	if p, ok := types.Unalias(t).(*types.Pointer); ok {
		t = p.Elem()
	}
	n, _ := types.Unalias(t).(*types.Named)
	return n
}

// IsPlatformType says whether t is, or points to, the platform's type of that name.
func IsPlatformType(t types.Type, pkg, name string) bool {
	n := Named(t)
	return n != nil && n.Obj().Name() == name && n.Obj().Pkg() != nil && tree.IsPlatform(n.Obj().Pkg().Path(), pkg)
}

// IsTx says whether t is *pg.Tx.
func IsTx(t types.Type) bool {
	_, ok := types.Unalias(t).(*types.Pointer)
	return ok && IsPlatformType(t, "pg", "Tx")
}

// Callee is the function or method a call names, generic ones as they are declared; nil for a function value.
func Callee(info *types.Info, call *ast.CallExpr) *types.Func {
	f, _ := typeutil.Callee(info, call).(*types.Func)
	if f == nil {
		return nil
	}
	return f.Origin()
}

// IsPlatformFunc says whether f is the function or method of that name in a platform package.
func IsPlatformFunc(f *types.Func, pkg, name string) bool {
	return f != nil && f.Name() == name && f.Pkg() != nil && tree.IsPlatform(f.Pkg().Path(), pkg)
}

// EventName is the constant that the event type's EventName returns, when decl is that method: func (E) EventName() string { return "…" }.
func EventName(info *types.Info, decl *ast.FuncDecl) (name string, constant bool) {
	if decl.Body == nil || len(decl.Body.List) != 1 {
		return "", false
	}
	ret, ok := decl.Body.List[0].(*ast.ReturnStmt)
	if !ok || len(ret.Results) != 1 {
		return "", false
	}
	return String(info, ret.Results[0])
}

// Receiver is the named type a method is declared on.
func Receiver(info *types.Info, decl *ast.FuncDecl) *types.Named {
	if decl.Recv == nil || len(decl.Recv.List) != 1 {
		return nil
	}
	return Named(info.TypeOf(decl.Recv.List[0].Type))
}

// IsEvent says whether t is a concrete event type: a named type that is no interface and has EventName() string.
func IsEvent(t types.Type) bool {
	n := Named(t)
	if n == nil || types.IsInterface(n) {
		return false
	}
	obj, _, _ := types.LookupFieldOrMethod(n, true, n.Obj().Pkg(), "EventName")
	f, ok := obj.(*types.Func)
	if !ok {
		return false
	}
	s := f.Signature()
	return s.Params().Len() == 0 && s.Results().Len() == 1 && types.Identical(s.Results().At(0).Type(), types.Typ[types.String])
}

// IsContract says whether t is a contract: an exported interface of an api/<m>api package. m is its owner.
func IsContract(t types.Type) (m string, ok bool) {
	n := Named(t)
	if n == nil || n.Obj().Pkg() == nil || !n.Obj().Exported() || !types.IsInterface(n) {
		return "", false
	}
	m = tree.APIOwner(n.Obj().Pkg().Path())
	return m, m != "" && strings.HasSuffix(n.Obj().Pkg().Path(), m+"api")
}

// Words cuts an identifier into lower-case words: unitPriceNet and unit_price_net are unit, price, net.
func Words(name string) []string {
	var out []string
	var b strings.Builder
	flush := func() {
		if b.Len() > 0 {
			out = append(out, strings.ToLower(b.String()))
			b.Reset()
		}
	}
	rs := []rune(name)
	for i, r := range rs {
		switch {
		case r == '_':
			flush()
			continue
		case unicode.IsUpper(r) && i > 0 && (!unicode.IsUpper(rs[i-1]) || i+1 < len(rs) && unicode.IsLower(rs[i+1])):
			flush()
		}
		b.WriteRune(r)
	}
	flush()
	return out
}

var moneyWords = map[string]bool{
	"price": true, "prices": true, "amount": true, "amounts": true, "total": true, "totals": true, "subtotal": true, "tax": true,
	"taxes": true, "money": true, "cost": true, "costs": true, "fee": true, "fees": true,
	"discount": true, "discounts": true, "refund": true, "refunds": true, "balance": true, "vat": true,
}

// IsMoneyName says whether an identifier speaks of money.
func IsMoneyName(name string) bool {
	for _, w := range Words(name) {
		if moneyWords[w] {
			return true
		}
	}
	return false
}

// IsFloat says whether t is a floating-point type, named or not, or a pointer, slice, array or map of one.
func IsFloat(t types.Type) bool {
	switch u := t.Underlying().(type) {
	case *types.Basic:
		return u.Info()&(types.IsFloat|types.IsComplex) != 0
	case *types.Pointer:
		return IsFloat(u.Elem())
	case *types.Slice:
		return IsFloat(u.Elem())
	case *types.Array:
		return IsFloat(u.Elem())
	case *types.Map:
		return IsFloat(u.Elem()) || IsFloat(u.Key())
	}
	return false
}
