package host

import (
	"log/slog"
	"strings"

	"github.com/banyan-shop/banyan/platform/auth"
	"github.com/banyan-shop/banyan/platform/config"
	"github.com/banyan-shop/banyan/platform/discovery"
	"github.com/banyan-shop/banyan/platform/events"
	"github.com/banyan-shop/banyan/platform/pg"
	"github.com/banyan-shop/banyan/platform/placement"
	"github.com/banyan-shop/banyan/platform/rpc"
	"github.com/banyan-shop/banyan/platform/web"
)

// Description is what can be told of a module without running it.
type Description struct {
	Name    string
	Schema  bool                  // it has tables
	Calls   []string              // the modules it calls
	Hears   []events.Subscription // the events it is subscribed to
	Methods []rpc.MethodInfo      // its contract
	Routes  []web.RouteInfo       // its public routes
}

// Describe tells of every module in the list from the binary alone, and what is wrong with the list: a call that does not
// lead upwards, an event whose publisher is not there.
func Describe(o Options) ([]Description, error) {
	h := &Host{o: o, here: o.Modules, log: slog.New(slog.DiscardHandler)}
	wiring, err := h.probe()
	if err != nil {
		return nil, err
	}
	if err := wiring.Check(); err != nil {
		return nil, err
	}
	schemas := map[string]bool{}
	for _, name := range h.schemas() {
		schemas[name] = true
	}
	routes := map[string][]web.RouteInfo{}
	for _, r := range Routes(o).Routes() {
		routes[r.Module] = append(routes[r.Module], r)
	}
	var all []Description
	var wrong config.Errors
	for _, m := range o.Modules {
		server := rpc.NewServer(m.Name)
		m.Nil.Serve(server)
		d := Description{Name: m.Name, Schema: schemas[m.Name], Methods: server.Methods(), Routes: routes[m.Name], Hears: events.Collect(m.Name, m.Nil.Subscribe)}
		if err := server.Check(); err != nil {
			wrong.Problems = append(wrong.Problems, config.Problem{Message: err.Error()})
		}
		for _, e := range wiring.Calls() {
			if e.Caller == m.Name {
				d.Calls = append(d.Calls, e.Callee)
			}
		}
		for _, e := range d.Hears {
			publisher, _, _ := strings.Cut(e.Event, ".")
			if !schemas[publisher] {
				wrong.Problems = append(wrong.Problems, config.Problem{Message: m.Name + " hears " + e.Event + ", but no module " + publisher + " with a schema is in the list"})
			}
		}
		all = append(all, d)
	}
	if len(wrong.Problems) > 0 {
		return all, &wrong
	}
	return all, nil
}

// Routes is a router with every module's routes declared, for the OpenAPI document.
func Routes(o Options) *web.Router {
	router := web.NewRouter()
	for _, m := range o.Modules {
		m.Nil.Routes(router.Module(m.Name, nil))
	}
	return router
}

// Check finds every mistake in the settings and in the module list without starting anything.
func Check(o Options) error {
	_, err := planned(o)
	return err
}

// planned is a host that only knows its settings and who runs what.
func planned(o Options) (*Host, error) {
	h := &Host{o: o, here: o.Modules, now: o.Now, log: slog.New(slog.DiscardHandler)}
	var err error
	if h.Settings, err = config.Decode(o.Settings, "", Defaults()); err != nil {
		return nil, config.Join(err, h.check())
	}
	if err := h.check(); err != nil {
		return nil, err
	}
	h.Plan, err = h.decide(h.Settings.Process != "")
	return h, err
}

// decide reads the placement from the settings. A command that serves nobody is none of the processes in particular.
func (h *Host) decide(serve bool) (placement.Plan, error) {
	s := h.Settings
	methods := map[string]bool{}
	for _, m := range h.o.Modules {
		server := rpc.NewServer(m.Name)
		m.Nil.Serve(server)
		methods[m.Name] = len(server.Methods()) > 0
	}
	only := s.Modules
	if len(only) == 0 {
		only = nil // nobody has said
	}
	p, err := placement.Decide(placement.Options{
		Modules: h.moduleNames(), Processes: s.Processes, Process: s.Process, Only: only, Remote: s.Remote, Bus: s.Bus != "", Check: discovery.Check, Observer: !serve,
		Serves: func(module string) bool { return methods[module] },
	})
	return p, h.o.Settings.Place(err)
}

// check finds all mistakes in the modules' settings, and in the calls they want to make, before anything is started.
func (h *Host) check() error {
	wiring, err := h.probe()
	if err = config.Join(err, h.o.Settings.Unknown()); err != nil {
		return err
	}
	return wiring.Check()
}

// probe builds every module on nothing, which does no I/O.
func (h *Host) probe() (*rpc.Wiring, error) {
	settings, err := config.Decode(h.o.Settings, "", Defaults())
	if err != nil {
		settings = Defaults() // told by somebody else; the modules' own mistakes are looked for here
	}
	p := &Host{o: h.o, here: h.o.Modules, Settings: settings, now: h.now, log: slog.New(slog.DiscardHandler), dbs: map[string]*pg.DB{}, publicURL: "http://127.0.0.1"}
	p.development = p.isDevelopment(settings)
	p.wiring = rpc.NewWiring(rpc.Options{Modules: h.moduleNames()})
	if h.o.Keys != nil {
		p.verifier = auth.NewVerifier(h.o.Keys(p.wiring.Dialer("host")), h.now)
	}
	var all []error
	for _, m := range h.o.Modules {
		if _, err := p.build(m, p.wiring); err != nil {
			all = append(all, err)
		}
	}
	return p.wiring, config.Join(all...)
}
