// Package rpctest checks that a contract package binds every method of its interface. It is imported by tests only.
package rpctest

import (
	"context"
	"reflect"
	"strings"
	"testing"

	"github.com/banyan-shop/banyan/platform/rpc"
)

// Complete fails t unless dial and mount bind every method of the interface I to a method descriptor of the same name, so
// that one added to the interface alone is found: rpctest.Complete(t, "orders", ordersapi.Dial, ordersapi.Mount).
func Complete[I any](t testing.TB, module string, dial func(rpc.Dialer) I, mount func(*rpc.Server, I)) {
	t.Helper()
	iface := reflect.TypeFor[I]()
	if iface.Kind() != reflect.Interface {
		t.Fatalf("%s is no interface", iface)
	}

	// The client of a server that answers nothing serves as the implementation: it exists, and mounting calls no method.
	server := rpc.NewServer(module)
	mount(server, dial(rpc.Local("rpctest")))
	if err := server.Check(); err != nil {
		t.Error(err)
	}
	mounted := map[string]rpc.MethodInfo{}
	for _, m := range server.Methods() {
		mounted[m.Name] = m
	}

	client := reflect.ValueOf(dial(rpc.Local("rpctest")))
	for i := range iface.NumMethod() {
		method := iface.Method(i)
		name := module + "." + method.Name
		info, ok := mounted[name]
		if !ok {
			t.Errorf("%s.%s has no descriptor: add rpc.NewMethod(%q, …) and mount it in rpc.go", iface, method.Name, name)
			continue
		}
		delete(mounted, name)
		want := reflect.FuncOf([]reflect.Type{reflect.TypeFor[context.Context](), info.Request}, []reflect.Type{info.Response, reflect.TypeFor[error]()}, false)
		if method.Type != want {
			t.Errorf("%s.%s is %s, but its descriptor says %s", iface, method.Name, method.Type, want)
			continue
		}
		// Nobody runs the callee, so the error names the method the client asks for.
		out := client.MethodByName(method.Name).Call([]reflect.Value{reflect.ValueOf(t.Context()), reflect.Zero(info.Request)})
		if err, _ := out[1].Interface().(error); err == nil || !strings.HasPrefix(err.Error(), name+" can't be called") {
			t.Errorf("the client's %s does not ask for %s: %v", method.Name, name, err)
		}
	}
	for name := range mounted {
		t.Errorf("%s is mounted, but %s has no such method", name, iface)
	}
}
