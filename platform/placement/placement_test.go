package placement_test

import (
	"errors"
	"slices"
	"strings"
	"testing"

	"github.com/banyan-shop/banyan/platform/placement"
)

var modules = []string{"users", "catalog", "cart", "payments", "orders", "storefront"}

type processes = map[string]placement.Process

func TestDecide(t *testing.T) {
	t.Parallel()
	payments := placement.Process{HTTP: "http://pay:8080", RPC: "http://pay:8081", Modules: []string{"payments"}, DatabaseURL: "postgres://pay"}
	main := placement.Process{HTTP: "http://shop:8080", RPC: "http://shop:8081"}
	rest := []string{"users", "catalog", "cart", "orders", "storefront"}
	for name, c := range map[string]struct {
		options placement.Options
		process string
		here    []string
		gateway bool
		rpc     map[string]string // where some modules are called
	}{
		"one process":                        {placement.Options{}, "", modules, true, nil},
		"the rest":                           {placement.Options{Processes: processes{"main": main, "payments": payments}, Bus: true}, "main", rest, true, map[string]string{"payments": "http://pay:8081"}},
		"one that is named":                  {placement.Options{Processes: processes{"main": main, "payments": payments}, Process: "payments", Bus: true}, "payments", []string{"payments"}, false, map[string]string{"orders": "http://shop:8081"}},
		"a gateway without modules":          {placement.Options{Processes: processes{"main": main, "edge": {HTTP: "http://edge:8080", Gateway: true, Modules: []string{}}}, Process: "edge", Bus: true}, "edge", nil, true, map[string]string{"orders": "http://shop:8081"}},
		"behind a gateway, the rest is none": {placement.Options{Processes: processes{"main": main, "edge": {HTTP: "http://edge:8080", Gateway: true, Modules: []string{}}}, Bus: true}, "main", modules, false, nil},
		"one entry that runs all":            {placement.Options{Processes: processes{"main": main}}, "main", modules, true, nil},
		"a remote of the flags":              {placement.Options{Remote: map[string]string{"payments": "http://pay:8081"}, Bus: true}, "main", rest, true, map[string]string{"payments": "http://pay:8081"}},
		"modules of the flags":               {placement.Options{Only: []string{"payments"}, Bus: true}, "payments", []string{"payments"}, false, map[string]string{"orders": ""}},
		"modules and remotes of the flags":   {placement.Options{Only: []string{"orders"}, Remote: map[string]string{"cart": "http://cart:1"}, Bus: true}, "orders", []string{"orders"}, false, map[string]string{"cart": "http://cart:1"}},
		"somebody who only looks":            {placement.Options{Processes: processes{"a": {HTTP: "http://a:1", RPC: "http://a:2", Gateway: true, Modules: modules[:3]}, "b": {RPC: "http://b:2", Modules: modules[3:]}}, Observer: true, Bus: true}, "", nil, false, map[string]string{"orders": "http://b:2"}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			c.options.Modules = modules
			p, err := placement.Decide(c.options)
			if err != nil {
				t.Fatal(err)
			}
			if p.Process != c.process || !slices.Equal(p.Here, c.here) || p.Gateway != c.gateway {
				t.Errorf("process %q runs %v, gateway %v; want %q, %v, %v", p.Process, p.Here, p.Gateway, c.process, c.here, c.gateway)
			}
			for module, want := range c.rpc {
				if got := p.RPC(module); got != want {
					t.Errorf("%s is called at %q, want %q", module, got, want)
				}
			}
		})
	}
}

// TestDecideRefuses names for each mistake the setting it is about and what to do.
func TestDecideRefuses(t *testing.T) {
	t.Parallel()
	main := placement.Process{HTTP: "http://shop:8080", RPC: "http://shop:8081"}
	pay := func(change func(*placement.Process)) placement.Options {
		p := placement.Process{HTTP: "http://pay:8080", RPC: "http://pay:8081", Modules: []string{"payments"}}
		if change != nil {
			change(&p)
		}
		return placement.Options{Processes: processes{"main": main, "payments": p}, Bus: true}
	}
	with := func(o placement.Options, change func(*placement.Options)) placement.Options { change(&o); return o }
	for name, c := range map[string]struct {
		options placement.Options
		want    string
	}{
		"no bus":                {with(pay(nil), func(o *placement.Options) { o.Bus = false }), "bus must be set, to nats://, amqp:// or kafka://…: payments runs in another process"},
		"a module nobody knows": {pay(func(p *placement.Process) { p.Modules = []string{"paiments"} }), `processes.payments.modules[0] names no module: there is no paiments; did you mean "payments"?`},
		"a module run twice": {with(pay(nil), func(o *placement.Options) {
			o.Processes["more"] = placement.Process{RPC: "http://more:1", Modules: []string{"cart", "payments"}}
		}), "processes.payments.modules[0] names payments, which more runs already"},
		"a module nobody runs":    {placement.Options{Processes: processes{"a": {HTTP: "http://a:1", RPC: "http://a:2", Gateway: true, Modules: modules[1:]}}, Process: "a", Bus: true}, "processes leave users to nobody"},
		"two that run the rest":   {placement.Options{Processes: processes{"a": main, "b": {RPC: "http://b:1"}}, Process: "a", Bus: true}, "processes.b would run what no other process claims, as a does already"},
		"an unknown process":      {with(pay(nil), func(o *placement.Options) { o.Process = "payment" }), `process is none of main, payments; did you mean "payments"?`},
		"no process, and no rest": {placement.Options{Processes: processes{"a": {RPC: "http://a:2", Gateway: true, Modules: modules[:3]}, "b": {RPC: "http://b:2", Modules: modules[3:]}}, Bus: true}, "process must say which of a, b this one is"},
		"nobody to go in by":      {placement.Options{Processes: processes{"a": {RPC: "http://a:2", Modules: modules[:3]}, "b": {RPC: "http://b:2", Modules: modules[3:]}}, Process: "a", Bus: true}, "processes have no gateway"},
		"no address to be called": {pay(func(p *placement.Process) { p.RPC = "" }), "processes.payments needs rpc, the address by which other processes call its modules"},
		"two at one address":      {pay(func(p *placement.Process) { p.RPC = "http://shop:8081/" }), "is the address of processes.main.rpc already: calls would go in a cycle"},
		"an address that is none": {with(pay(nil), func(o *placement.Options) { o.Check = func(string) error { return errors.New("is no address") } }), "processes.payments.rpc is no address"},
		"a bad name": {with(pay(nil), func(o *placement.Options) {
			o.Processes["Pay!"] = placement.Process{Gateway: true, Modules: []string{}}
		}), "processes.Pay! is no name for a process"},
		"a process without a task": {with(pay(nil), func(o *placement.Options) {
			o.Processes["idle"] = placement.Process{Modules: []string{}}
			o.Process = "idle"
		}), "processes.idle runs no module and is no gateway"},
		"a name without a block":    {placement.Options{Process: "main"}, "process names a process, but there is no block processes"},
		"both ways at once":         {with(pay(nil), func(o *placement.Options) { o.Only = []string{"cart"} }), "processes can't be mixed with modules or remote"},
		"here and there":            {placement.Options{Only: []string{"cart"}, Remote: map[string]string{"cart": "http://x:1"}, Bus: true}, "remote.cart is said to be elsewhere, but this process runs it"},
		"a remote nobody knows":     {placement.Options{Remote: map[string]string{"carts": "http://x:1"}, Bus: true}, `remote.carts names no module: there is no carts; did you mean "cart"?`},
		"a remote without a bus":    {placement.Options{Remote: map[string]string{"cart": "http://x:1"}}, "bus must be set"},
		"a flag for no such module": {placement.Options{Only: []string{"kart"}, Bus: true}, "modules[0] names no module"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			c.options.Modules = modules
			_, err := placement.Decide(c.options)
			if err == nil || !strings.Contains(err.Error(), c.want) {
				t.Errorf("got %v\nwant %s", err, c.want)
			}
		})
	}
}

func TestListenOn(t *testing.T) {
	t.Parallel()
	for target, want := range map[string]string{
		"http://payments:8081": ":8081", "dns+http://payments:8081": ":8081", "http://127.0.0.1:9001": "127.0.0.1:9001",
		"http://localhost:9001": "localhost:9001", "http://[::1]:9001": "[::1]:9001", "http://10.0.0.7:80": ":80",
		"srv+http://_rpc._tcp.payments": "", "consul://payments": "", "http://a:1,http://b:2": "", "": "",
	} {
		if got := placement.ListenOn(target); got != want {
			t.Errorf("ListenOn(%q) = %q, want %q", target, got, want)
		}
	}
}
