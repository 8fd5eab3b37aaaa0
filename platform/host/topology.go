package host

import (
	"cmp"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"slices"
	"strings"
	"time"

	"github.com/banyan-shop/banyan/platform/auth"
	"github.com/banyan-shop/banyan/platform/discovery"
	"github.com/banyan-shop/banyan/platform/events"
	"github.com/banyan-shop/banyan/platform/pg"
	"github.com/banyan-shop/banyan/platform/placement"
	"github.com/banyan-shop/banyan/platform/rpc"
)

// Topology is who runs where and why, and who calls and hears whom.
type Topology struct {
	Processes []ProcessInfo `json:"processes"`
	Modules   []ModuleInfo  `json:"modules"`
	Bus       string        `json:"bus,omitempty"`
}

// ProcessInfo is one process of a topology.
type ProcessInfo struct {
	Name     string   `json:"name"`
	Modules  []string `json:"modules"`
	Gateway  bool     `json:"gateway"`
	HTTP     string   `json:"http,omitempty"`
	RPC      string   `json:"rpc,omitempty"`
	Database string   `json:"database,omitempty"` // without its password
	Live     *Status  `json:"live,omitempty"`     // nil when it was not asked
	Away     string   `json:"away,omitempty"`     // why it did not answer
}

// ModuleInfo is where one module runs.
type ModuleInfo struct {
	Name    string     `json:"name"`
	Process string     `json:"process"`
	Why     string     `json:"why"`
	Calls   []EdgeInfo `json:"calls"`
	Hears   []EdgeInfo `json:"hears"`
}

// EdgeInfo is one module that another calls, or whose events it hears.
type EdgeInfo struct {
	Module string `json:"module"`
	Event  string `json:"event,omitempty"`
	Remote bool   `json:"remote"` // it runs in another process
}

// TopologyOf tells from the settings alone. It starts and asks nobody.
func TopologyOf(o Options) (Topology, error) {
	h, err := planned(o)
	if err != nil {
		return Topology{}, err
	}
	descriptions, err := Describe(o)
	if err != nil {
		return Topology{}, err
	}
	p := h.Plan
	top := Topology{Bus: h.Settings.Bus.String()}
	running := map[string][]string{}
	for _, d := range descriptions {
		owner := p.Owner[d.Name]
		running[owner] = append(running[owner], d.Name)
		m := ModuleInfo{Name: d.Name, Process: owner, Why: p.Why(d.Name), Calls: []EdgeInfo{}, Hears: []EdgeInfo{}}
		for _, callee := range d.Calls {
			m.Calls = append(m.Calls, EdgeInfo{Module: callee, Remote: p.Owner[callee] != owner})
		}
		for _, heard := range d.Hears {
			publisher, _, _ := strings.Cut(heard.Event, ".")
			m.Hears = append(m.Hears, EdgeInfo{Module: publisher, Event: heard.Event, Remote: p.Owner[publisher] != owner})
		}
		top.Modules = append(top.Modules, m)
	}
	if !p.Split() {
		top.Processes = []ProcessInfo{{Name: "shop", Modules: running[""], Gateway: true, HTTP: "http://" + dialable(h.Settings.Listen), Database: h.databaseOf(placement.Process{})}}
		for i := range top.Modules {
			top.Modules[i].Process = "shop"
		}
		return top, nil
	}
	for _, name := range p.Names() {
		process := p.Processes[name]
		info := ProcessInfo{Name: name, Modules: slices.Clone(running[name]), Gateway: process.Gateway, HTTP: process.HTTP, RPC: process.RPC}
		if info.Modules == nil {
			info.Modules = []string{}
		} else {
			info.Database = h.databaseOf(process)
		}
		top.Processes = append(top.Processes, info)
	}
	return top, nil
}

func (h *Host) databaseOf(p placement.Process) string {
	u := cmp.Or(p.DatabaseURL, h.Settings.DatabaseURL)
	if u == "" {
		return "built in"
	}
	if shown := u.String(); strings.Contains(shown, "://") {
		return shown
	}
	return pg.DatabaseName(u.Reveal()) // key=value, which can't be shown without what may be secret
}

// OwnURL is where the process that the settings tell of answers customers and health checks.
func OwnURL(o Options) (string, error) {
	h, err := planned(o)
	if err != nil {
		return "", err
	}
	public, _, _ := h.addresses()
	if public == "" {
		return "", fmt.Errorf("process %s has no public address: give it http in the block processes, or say --url", h.Plan.Process)
	}
	return "http://" + dialable(public), nil
}

// Status is what a process tells of itself to the other processes and to operators who hold the secret.
type Status struct {
	Process string                    `json:"process"`
	Version string                    `json:"version"`
	State   string                    `json:"state"`            // ready, or why not
	Events  map[string]events.Backlog `json:"events,omitempty"` // by module
	Calls   []rpc.RemoteStatus        `json:"calls,omitempty"`  // to modules elsewhere, with their breakers
	// Instances are those this process knows, by address of the placement.
	Instances map[string][]discovery.Instance `json:"instances,omitempty"`
}

const statusPath = "/status"

// status answers at statusPath on the rpc listener.
func (h *Host) status(w http.ResponseWriter, r *http.Request) {
	token, _ := strings.CutPrefix(r.Header.Get("Authorization"), "Bearer ")
	if _, err := h.tokens.VerifyInternal(r.Context(), token, "host"); err != nil {
		http.Error(w, "a token of this shop is needed", http.StatusUnauthorized)
		return
	}
	s := Status{
		Process: h.Plan.Process, Version: h.o.Version, State: "ready", Events: map[string]events.Backlog{}, Calls: h.wiring.Remotes(),
		Instances: map[string][]discovery.Instance{},
	}
	for address, target := range h.targets {
		s.Instances[address] = target.Instances()
	}
	if err := h.unready(r.Context()); err != nil {
		s.State = err.Error()
	}
	for module, db := range h.dbs {
		if b, err := events.BacklogOf(r.Context(), db); err == nil {
			s.Events[module] = b
		}
	}
	w.Header().Set("Content-Type", "application/json")
	if err := json.NewEncoder(w).Encode(s); err != nil {
		h.log.DebugContext(r.Context(), "status not read", "err", err)
	}
}

// AskLive asks every process that has an rpc address how it is.
func AskLive(ctx context.Context, o Options, top *Topology) error {
	h, err := planned(o)
	if err != nil {
		return err
	}
	if !h.Plan.Split() {
		top.Processes[0].Away = "it can be asked only where processes call each other"
		return nil
	}
	if err := h.secrets(false); err != nil {
		return err
	}
	if err := h.identify(); err != nil {
		return err
	}
	token, err := h.tokens.IssueInternal("shop", "host", auth.Identity{})
	if err != nil {
		return err
	}
	for i := range top.Processes {
		p := &top.Processes[i]
		if p.RPC == "" {
			p.Away = "it has no rpc address to be asked at"
			continue
		}
		if p.Live, err = h.ask(ctx, p.RPC, token); err != nil {
			p.Away = err.Error()
		}
	}
	return nil
}

// ask asks one instance of a process.
func (h *Host) ask(ctx context.Context, address, token string) (*Status, error) {
	target, err := discovery.Open(address, discovery.Options{Log: h.log, Consul: h.Settings.Consul.Agent, ConsulToken: h.Settings.Consul.Token.Reveal()})
	if err != nil {
		return nil, err
	}
	defer target.Close()
	ctx, cancel := context.WithTimeout(ctx, 2*time.Second)
	defer cancel()
	r, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://process"+statusPath, nil)
	if err != nil {
		return nil, err
	}
	r.Header.Set("Authorization", "Bearer "+token)
	answer, err := target.RoundTrip(r)
	if err != nil {
		return nil, fmt.Errorf("nobody answers")
	}
	defer answer.Body.Close()
	if answer.StatusCode != http.StatusOK {
		return nil, fmt.Errorf("it answered %d: does it have the same secret?", answer.StatusCode)
	}
	var s Status
	if err := json.NewDecoder(io.LimitReader(answer.Body, 1<<20)).Decode(&s); err != nil {
		return nil, fmt.Errorf("its answer can't be read")
	}
	return &s, nil
}
