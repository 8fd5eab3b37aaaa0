// Package escape defines an analyzer that shuts the doors behind the compiler's back.
//
// # Analyzer escape
//
// escape: refuse unsafe, linkname, cgo, assembly and plugins in modules and contracts
//
// Unexported names and package borders hold only for code the compiler checks. In modules, contracts and programs refused are
// package unsafe, import "C", package plugin, //go:linkname, functions without a body, files of assembly, C or object code, and
// the parts of reflect that reach unexported fields (NewAt, UnsafeAddr, UnsafePointer, Pointer). Files that build tags leave
// out are read too.
//
// Bad:
//
//	//go:linkname insertPayment shop/modules/payments.insert
//	func insertPayment(ctx context.Context, p payment) error
//
// Good:
//
//	m.Payments.Authorize(ctx, …)
package escape
