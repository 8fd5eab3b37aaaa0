package orders

import "reflect"

//go:noinline
func kind(v any) string { return reflect.TypeOf(v).String() }
