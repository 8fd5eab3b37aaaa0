// Package globals defines an analyzer that keeps state out of package variables.
//
// # Analyzer globals
//
// globals: refuse package-level mutable state and init in modules and contracts
//
// A module's needs and its state are fields of Module: two of them can then stand in one process, a test can have its own, and
// nothing happens because a package was imported. What never changes may stand at package level:
//
//   - var _, and what //go:embed fills;
//   - error sentinels, *regexp.Regexp, rpc methods, templates, *time.Location, *strings.Replacer, prepared once;
//   - numbers, strings, bools, structs, arrays, slices and maps of such, if the variable is unexported and nothing in the package
//     assigns to it or to a part of it, appends to it, sorts, deletes from or clears it, takes its address, or calls a method
//     on its pointer. The analyzer can't follow a slice or map that is returned or stored elsewhere: do neither.
//
// Everything else is refused: pointers, funcs, channels, interfaces, locks, atomics, clients, and func init.
//
// Bad:
//
//	var cache = map[ids.ID]Product{}
//	func remember(p Product) { cache[p.ID] = p }
//
// Good:
//
//	type Module struct { cache *otter.Cache[ids.ID, Product] }
//	var next = map[Status][]Status{Placed: {Paid, Cancelled}} // read only
package globals
