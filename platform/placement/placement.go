// Package placement decides which process runs which module, from what the settings say. It only thinks: it looks nothing up
// on a network, starts nothing and knows no module by name, so every mistake is found before anything runs.
package placement

import (
	"errors"
	"fmt"
	"maps"
	"net"
	"net/url"
	"regexp"
	"slices"
	"strings"

	"github.com/banyan-shop/banyan/platform/config"
	"github.com/banyan-shop/banyan/platform/telemetry"
)

// Process is one entry of the block processes: where it is reached and what it runs.
type Process struct {
	// HTTP is where the gateway reaches its public routes, RPC where other processes call its modules: http://host:port, several
	// with commas between, or an address of another scheme that discovery knows. An empty HTTP means RPC.
	HTTP string `yaml:"http"`
	RPC  string `yaml:"rpc"`
	// Modules it runs. Absent, in one process: all that no other claims. [] is none, for a gateway on its own.
	Modules []string `yaml:"modules"`
	// Gateway says that customers come here. Without any, they come to the process that runs what nobody claims.
	Gateway bool `yaml:"gateway"`
	// DatabaseURL of its modules; "" is the database_url of all.
	DatabaseURL telemetry.URL `yaml:"database_url"`

	// Where it listens, if that does not follow from HTTP and RPC.
	Listen    string `yaml:"listen"`
	RPCListen string `yaml:"rpc_listen"`
	OpsListen string `yaml:"ops_listen"`
}

// Options are what the settings say.
type Options struct {
	Modules   []string           // all of the shop, in their order
	Processes map[string]Process // by name; none means one process, or Only and Remote
	Process   string             // which of them this is; "" is the one without modules
	Only      []string           // run just these, in place of Processes; nil for all that Remote does not name
	Remote    map[string]string  // where the others are, in place of Processes
	Bus       bool               // events can leave the process
	Observer  bool               // this is none of the processes: it only wants to know
	// Check says what is wrong with an address; nil accepts every one.
	Check func(target string) error
	// Serves says whether others may call a module or forward to it.
	Serves func(module string) bool
}

// Plan is where everything runs, as seen from one process.
type Plan struct {
	Process   string            // this one; "" when there is only one
	Here      []string          // the modules it runs, in order
	Owner     map[string]string // module → process; a module that only Remote names belongs to the process of its own name
	Processes map[string]Process
	Gateway   bool // customers come to this process
	names     []string
}

// Split says whether any module runs elsewhere.
func (p Plan) Split() bool { return len(p.Processes) > 0 }

// Runs says whether a module runs in this process.
func (p Plan) Runs(module string) bool { return slices.Contains(p.Here, module) }

// Names are the processes, sorted.
func (p Plan) Names() []string { return p.names }

// RPC is where a module that runs elsewhere is called.
func (p Plan) RPC(module string) string { return p.Processes[p.Owner[module]].RPC }

// HTTP is where the public routes of a module that runs elsewhere are served.
func (p Plan) HTTP(module string) string {
	owner := p.Processes[p.Owner[module]]
	if owner.HTTP != "" {
		return owner.HTTP
	}
	return owner.RPC
}

// Public is the address customers reach the shop by as far as the placement knows, "" if it does not.
func (p Plan) Public() string {
	for _, name := range p.names {
		if process := p.Processes[name]; process.Gateway && isPlain(process.HTTP) {
			return strings.TrimRight(process.HTTP, "/")
		}
	}
	return ""
}

// DatabaseURL is that of the process which owns the module, "" for the database of all.
func (p Plan) DatabaseURL(module string) telemetry.URL {
	return p.Processes[p.Owner[module]].DatabaseURL
}

// Why tells in words why a module runs where it does.
func (p Plan) Why(module string) string {
	owner := p.Processes[p.Owner[module]]
	switch {
	case !p.Split():
		return "there is one process"
	case slices.Contains(owner.Modules, module):
		return "processes." + p.Owner[module] + ".modules names it"
	}
	return "no other process claims it"
}

var plainName = regexp.MustCompile(`^[a-z][a-z0-9-]{0,39}$`)

// Decide makes the plan, or says everything that is wrong with it: complaints are config.Bad, with the setting each is about.
func Decide(o Options) (Plan, error) {
	d := &decision{o: o}
	switch {
	case len(o.Processes) > 0 && (o.Only != nil || len(o.Remote) > 0):
		d.bad("processes", "can't be mixed with modules or remote: say it one way")
		return Plan{}, d.err()
	case len(o.Processes) > 0:
		d.fromProcesses()
	case o.Process != "":
		d.bad("process", "names a process, but there is no block processes: add one, or leave process away")
	case o.Only != nil || len(o.Remote) > 0:
		d.fromFlags()
	default:
		d.plan = Plan{Here: slices.Clone(o.Modules), Owner: map[string]string{}, Gateway: true}
	}
	if d.plan.Split() {
		d.plan.names = slices.Sorted(maps.Keys(d.plan.Processes))
		if elsewhere := d.elsewhere(); elsewhere != "" && !o.Bus {
			d.bad("bus", "must be set, to nats://, amqp:// or kafka://…: %s runs in another process, and events of one process reach no other without it", elsewhere)
		}
	}
	return d.plan, d.err()
}

type decision struct {
	o    Options
	plan Plan
	all  []error
}

func (d *decision) bad(key, format string, args ...any) {
	d.all = append(d.all, config.Bad(key, format, args...))
}

func (d *decision) err() error { return errors.Join(d.all...) }

// elsewhere is a module that runs in another process, "" if none does.
func (d *decision) elsewhere() string {
	for _, m := range d.o.Modules {
		if !d.plan.Runs(m) {
			return m
		}
	}
	return ""
}

func (d *decision) known(key, module string) bool {
	if slices.Contains(d.o.Modules, module) {
		return true
	}
	d.bad(key, "names no module: there is no %s%s", module, config.DidYouMean(module, d.o.Modules))
	return false
}

func (d *decision) fromProcesses() {
	o := d.o
	d.plan = Plan{Process: o.Process, Owner: map[string]string{}, Processes: maps.Clone(o.Processes)}
	names := slices.Sorted(maps.Keys(o.Processes))
	rest := d.claims(names)
	d.everybodyRuns(rest)
	if d.plan.Process == "" {
		if d.plan.Process = rest; rest == "" && !d.o.Observer {
			d.bad("process", "must say which of %s this one is (--process, SHOP_PROCESS)", strings.Join(names, ", "))
			return
		}
	}
	this, ok := o.Processes[d.plan.Process]
	if !ok && d.plan.Process != "" {
		d.bad("process", "is none of %s%s", strings.Join(names, ", "), config.DidYouMean(o.Process, names))
		return
	}
	for _, m := range o.Modules {
		if d.plan.Owner[m] == d.plan.Process {
			d.plan.Here = append(d.plan.Here, m)
		}
	}
	d.addresses(names)
	d.gateways(names, rest)
	d.plan.Gateway = d.plan.Processes[d.plan.Process].Gateway
	if ok && len(d.plan.Here) == 0 && !d.plan.Gateway && this.Modules != nil {
		d.bad("processes."+d.plan.Process, "runs no module and is no gateway: give it modules, or gateway: true")
	}
}

// claims says who runs what, and returns the process that runs what nobody claims, "" if there is none.
func (d *decision) claims(names []string) (rest string) {
	for _, name := range names {
		key := "processes." + name
		if !plainName.MatchString(name) {
			d.bad(key, "is no name for a process: lower-case letters, digits and dashes, such as payments")
		}
		if d.o.Processes[name].Modules == nil {
			if rest != "" {
				d.bad(key, "would run what no other process claims, as %s does already: give one of them modules", rest)
				continue
			}
			rest = name
		}
		for i, m := range d.o.Processes[name].Modules {
			at := fmt.Sprintf("%s.modules[%d]", key, i)
			if !d.known(at, m) {
				continue
			}
			if other, taken := d.plan.Owner[m]; taken {
				d.bad(at, "names %s, which %s runs already: a module runs once", m, other)
				continue
			}
			d.plan.Owner[m] = name
		}
	}
	return rest
}

func (d *decision) everybodyRuns(rest string) {
	for _, m := range d.o.Modules {
		if _, taken := d.plan.Owner[m]; taken {
			continue
		}
		if rest == "" {
			d.bad("processes", "leave %s to nobody: add it to the modules of one, or let one process have no modules, which then runs all that is left", m)
			continue
		}
		d.plan.Owner[m] = rest
	}
}

// addresses checks where the processes are reached. Two at one address would be a process that forwards to itself.
func (d *decision) addresses(names []string) {
	taken := map[string]string{}
	for _, name := range names {
		p, key := d.o.Processes[name], "processes."+name
		for field, target := range map[string]string{"http": p.HTTP, "rpc": p.RPC} {
			if target == "" {
				continue
			}
			at := key + "." + field
			if d.o.Check != nil {
				if err := d.o.Check(target); err != nil {
					d.bad(at, "%v", err)
					continue
				}
			}
			for one := range strings.SplitSeq(target, ",") {
				one = strings.TrimRight(strings.TrimSpace(one), "/")
				if other, twice := taken[one]; twice {
					d.bad(at, "is the address of %s already: calls would go in a cycle", other)
				}
				taken[one] = at
			}
		}
		if p.RPC == "" && len(names) > 1 && d.called(name) {
			d.bad(key, "needs rpc, the address by which other processes call its modules, such as http://%s:8081", name)
		}
	}
}

// called says whether another process may want something of this one.
func (d *decision) called(process string) bool {
	for m, owner := range d.plan.Owner {
		if owner == process && (d.o.Serves == nil || d.o.Serves(m)) {
			return true
		}
	}
	return false
}

func (d *decision) gateways(names []string, rest string) {
	for _, name := range names {
		if d.o.Processes[name].Gateway {
			return
		}
	}
	if rest == "" {
		d.bad("processes", "have no gateway: say gateway: true where customers come in")
		return
	}
	p := d.plan.Processes[rest]
	p.Gateway = true
	d.plan.Processes[rest] = p
}

// fromFlags makes the plan of modules and remote: this process is known, of the others just where they are.
func (d *decision) fromFlags() {
	o := d.o
	here := o.Only
	if here == nil {
		for _, m := range o.Modules {
			if _, elsewhere := o.Remote[m]; !elsewhere {
				here = append(here, m)
			}
		}
	}
	d.plan = Plan{Process: "main", Owner: map[string]string{}, Processes: map[string]Process{}, Gateway: true}
	if o.Only != nil {
		d.plan.Process = strings.Join(o.Only, "-")
	}
	for i, m := range here {
		if d.known(fmt.Sprintf("modules[%d]", i), m) {
			d.plan.Owner[m] = d.plan.Process
		}
	}
	for _, m := range slices.Sorted(maps.Keys(o.Remote)) {
		key, target := "remote."+m, o.Remote[m]
		if !d.known(key, m) {
			continue
		}
		if _, twice := d.plan.Owner[m]; twice {
			d.bad(key, "is said to be elsewhere, but this process runs it: a module runs once")
			continue
		}
		if o.Check != nil {
			if err := o.Check(target); err != nil {
				d.bad(key, "%v", err)
				continue
			}
		}
		// A process of the flags is known by its address alone: modules at one address are one process.
		d.plan.Owner[m] = m
		d.plan.Processes[m] = Process{RPC: target, Modules: []string{m}}
	}
	for _, m := range o.Modules {
		if d.plan.Owner[m] == d.plan.Process {
			d.plan.Here = append(d.plan.Here, m)
		}
	}
	for _, m := range o.Modules {
		if _, placed := d.plan.Owner[m]; !placed {
			d.plan.Gateway = false // it could not forward to all of them
		}
	}
	d.plan.Processes[d.plan.Process] = Process{Modules: d.plan.Here, Gateway: d.plan.Gateway}
}

// isPlain says whether a target is one http(s) address, which people can be told.
func isPlain(target string) bool {
	u, err := url.Parse(target)
	return err == nil && (u.Scheme == "http" || u.Scheme == "https") && u.Host != "" && !strings.Contains(target, ",")
}

// ListenOn is where a process that is reached at a target listens if it says nothing else: at a loopback address itself, else
// at the port on every interface. "" when the target does not tell a port.
func ListenOn(target string) string {
	first, _, several := strings.Cut(target, ",")
	u, err := url.Parse(strings.TrimSpace(first))
	if err != nil || u.Port() == "" || several {
		return ""
	}
	if ip := net.ParseIP(u.Hostname()); ip != nil && ip.IsLoopback() || u.Hostname() == "localhost" {
		return u.Host
	}
	return ":" + u.Port()
}
