package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"strings"
	"text/tabwriter"

	"github.com/banyan-shop/banyan/api/usersapi"
	"github.com/banyan-shop/banyan/platform/events"
	"github.com/banyan-shop/banyan/platform/host"
	"github.com/banyan-shop/banyan/platform/ids"
	"github.com/banyan-shop/banyan/platform/pg"
	"github.com/banyan-shop/banyan/platform/web"
)

// examples end the help of every command.
func examples(lines ...string) string {
	return "Examples:\n\n    " + strings.Join(lines, "\n    ")
}

// closing closes h and keeps its error beside the command's own.
func closing(h *host.Host, err *error) {
	*err = errors.Join(*err, h.Close(context.Background()))
}

type migrateCommand struct{}

func (migrateCommand) Help() string {
	return examples("shop migrate", "shop migrate --database-url postgres://shop@db.example.com/shop")
}

func (migrateCommand) Run(ctx context.Context, c *cli, p *process) (err error) {
	h, err := c.open(ctx, p)
	if err != nil {
		return err
	}
	defer closing(h, &err)
	fmt.Fprintln(p.stderr, "the database is up to date")
	return nil
}

type seedCommand struct{}

func (seedCommand) Help() string {
	return examples("shop seed", "shop seed --data-dir /tmp/shop")
}

func (seedCommand) Run(ctx context.Context, c *cli, p *process) (err error) {
	h, err := c.open(ctx, p)
	if err != nil {
		return err
	}
	defer closing(h, &err)
	if !h.Development() {
		return errors.New("demo data holds accounts whose passwords everybody knows: it is made in development only, where database_url is empty")
	}
	if err := h.Seed(ctx); err != nil {
		return err
	}
	fmt.Fprintln(p.stderr, "the demo data is there")
	return nil
}

type userCommands struct {
	Create userCreateCommand `cmd:"" help:"Make a user with a role, or give the role and password to the one with that e-mail."`
}

func (userCommands) Help() string {
	return examples("shop user create --email ada@example.com --password 'correct horse battery' --role admin",
		"shop user create --email mel@example.com --password 'correct horse battery' --role merchant")
}

type userCreateCommand struct {
	Email    string `required:"" help:"E-mail address."`
	Password string `required:"" help:"Password; - reads it from standard input."`
	Name     string `help:"Name; the part before the @ by default."`
	Role     string `required:"" enum:"customer,support,merchant,admin" help:"One of customer, support, merchant, admin."`
	Output   string `short:"o" enum:"table,json" default:"table" help:"table or json."`
}

func (userCreateCommand) Help() string {
	return examples("shop user create --email ada@example.com --password 'correct horse battery' --role admin",
		"echo 'correct horse battery' | shop user create --email sue@example.com --password - --role support -o json")
}

func (u *userCreateCommand) Run(ctx context.Context, c *cli, p *process) (err error) {
	if u.Password == "-" {
		text, err := io.ReadAll(io.LimitReader(p.stdin, 1024))
		if err != nil {
			return fmt.Errorf("read the password: %w", err)
		}
		u.Password = strings.TrimRight(string(text), "\r\n")
	}
	if u.Name == "" {
		u.Name, _, _ = strings.Cut(u.Email, "@")
	}
	h, err := c.open(ctx, p)
	if err != nil {
		return err
	}
	defer closing(h, &err)
	made, err := usersapi.Dial(h.Dialer("shop")).Create(ctx, usersapi.CreateRequest{
		Key: ids.New[string]("op"), Email: u.Email, Password: u.Password, Name: u.Name, Role: u.Role,
	})
	if err != nil {
		return err
	}
	if u.Output == "json" {
		return printJSON(p.stdout, made)
	}
	fmt.Fprintln(p.stdout, made.ID)
	return nil
}

type eventsCommands struct {
	Parked  eventsParkedCommand  `cmd:"" help:"List the events a module gave up on."`
	Replay  eventsReplayCommand  `cmd:"" help:"Let a module try parked events again."`
	Discard eventsDiscardCommand `cmd:"" help:"Decide that parked events shall never take effect."`
}

func (eventsCommands) Help() string {
	return examples("shop events parked", "shop events replay notifications users-mail")
}

type eventsParkedCommand struct {
	Output string `short:"o" enum:"table,json" default:"table" help:"table or json."`
}

func (eventsParkedCommand) Help() string {
	return examples("shop events parked", "shop events parked -o json")
}

// parkedEvent names the module too, which a module's own table need not.
type parkedEvent struct {
	Module string `json:"module"`
	events.ParkedEvent
}

func (e *eventsParkedCommand) Run(ctx context.Context, c *cli, p *process) (err error) {
	h, err := c.open(ctx, p)
	if err != nil {
		return err
	}
	defer closing(h, &err)
	found := []parkedEvent{}
	for _, m := range modules {
		if h.DB(m.Name) == nil {
			continue
		}
		list, err := events.Parked(ctx, h.DB(m.Name))
		if err != nil {
			return err
		}
		for _, one := range list {
			found = append(found, parkedEvent{m.Name, one})
		}
	}
	if e.Output == "json" {
		return printJSON(p.stdout, found)
	}
	if len(found) == 0 {
		fmt.Fprintln(p.stderr, "no event is parked")
		return nil
	}
	t := table(p.stdout, "MODULE", "CONSUMER", "EVENT", "NAME", "KEY", "ATTEMPTS", "BEHIND", "ERROR")
	for _, f := range found {
		fmt.Fprintf(t, "%s\t%s\t%s\t%s\t%s\t%d\t%d\t%s\n", f.Module, f.Consumer, f.EventID, f.Name, f.Key, f.Attempts, f.Behind, f.Error)
	}
	fmt.Fprintf(p.stderr, "replay them once the cause is mended: shop events replay %s %s\n", found[0].Module, found[0].Consumer)
	return t.Flush()
}

type eventsReplayCommand struct {
	Module   string   `arg:"" help:"The module that parked them."`
	Consumer string   `arg:"" help:"Its consumer, as parked lists it."`
	Events   []string `arg:"" optional:"" help:"Event ids; all of the consumer's without any."`
}

func (eventsReplayCommand) Help() string {
	return examples("shop events replay notifications users-mail", "shop events replay notifications users-mail evt_01jd9v3k9rf2wbt8m8y5sgv7zc")
}

func (e *eventsReplayCommand) Run(ctx context.Context, c *cli, p *process) (err error) {
	h, err := c.open(ctx, p)
	if err != nil {
		return err
	}
	defer closing(h, &err)
	db, err := hearer(h, e.Module, e.Consumer)
	if err != nil {
		return err
	}
	n, err := events.Replay(ctx, db, e.Consumer, e.Events...)
	if err != nil {
		return err
	}
	fmt.Fprintf(p.stdout, "%d\n", n)
	fmt.Fprintf(p.stderr, "%d parked events of %s get all their attempts again\n", n, e.Consumer)
	return nil
}

type eventsDiscardCommand struct {
	Module   string   `arg:"" help:"The module that parked them."`
	Consumer string   `arg:"" help:"Its consumer, as parked lists it."`
	Events   []string `arg:"" help:"Event ids. There is no way back."`
}

func (eventsDiscardCommand) Help() string {
	return examples("shop events discard notifications users-mail evt_01jd9v3k9rf2wbt8m8y5sgv7zc",
		"shop events discard reviews remember-purchase evt_01jd9v3k9rf2wbt8m8y5sgv7zc evt_01jd9v3k9rf2wbt8m8y5sgv7zd")
}

func (e *eventsDiscardCommand) Run(ctx context.Context, c *cli, p *process) (err error) {
	h, err := c.open(ctx, p)
	if err != nil {
		return err
	}
	defer closing(h, &err)
	db, err := hearer(h, e.Module, e.Consumer)
	if err != nil {
		return err
	}
	n, err := events.Discard(ctx, db, e.Consumer, e.Events...)
	if err != nil {
		return err
	}
	fmt.Fprintf(p.stdout, "%d\n", n)
	fmt.Fprintf(p.stderr, "%d parked events of %s will never take effect; those behind them go on\n", n, e.Consumer)
	return nil
}

// hearer is the database of a module that has the consumer; a name that nothing bears is a mistake, not nothing to do.
func hearer(h *host.Host, module, consumer string) (*pg.DB, error) {
	for _, m := range modules {
		if m.Name != module || h.DB(module) == nil {
			continue
		}
		var names []string
		for _, s := range events.Collect(module, m.Nil.Subscribe) {
			if s.Consumer == consumer {
				return h.DB(module), nil
			}
			if !s.Broadcast {
				names = append(names, s.Consumer)
			}
		}
		return nil, misused{fmt.Errorf("%s has no consumer %q, but %s", module, consumer, strings.Join(names, ", "))}
	}
	return nil, misused{fmt.Errorf("no module %q hears events: see shop modules", module)}
}

type openapiCommand struct {
	Output string `short:"o" enum:"yaml,json" default:"yaml" help:"yaml or json."`
}

func (openapiCommand) Help() string {
	return examples("shop openapi > api/openapi.yaml", "shop openapi -o json")
}

func (o *openapiCommand) Run(p *process) error {
	yaml, json, err := web.OpenAPI(host.Routes(shop(nil)))
	if err != nil {
		return err
	}
	if o.Output == "json" {
		yaml = json
	}
	_, err = p.stdout.Write(yaml)
	return err
}

type versionCommand struct{}

func (versionCommand) Help() string {
	return examples("shop version", "shop version --set log.level=debug")
}

func (versionCommand) Run(p *process) error {
	_, err := fmt.Fprintln(p.stdout, version())
	return err
}

type modulesCommand struct {
	Check  bool   `help:"Only say whether the list is sound: calls lead upwards, every event has its publisher."`
	Output string `short:"o" enum:"table,json,mermaid" default:"table" help:"table, json or mermaid (a diagram)."`
}

func (modulesCommand) Help() string {
	return examples("shop modules", "shop modules --check", "shop modules -o mermaid")
}

// moduleInfo is a module as modules -o json tells it.
type moduleInfo struct {
	Name    string   `json:"name"`
	Schema  bool     `json:"schema"`
	Calls   []string `json:"calls"`
	Hears   []string `json:"hears"`
	Methods []string `json:"methods"`
	Routes  []string `json:"routes"`
}

func (m *modulesCommand) Run(p *process) error {
	list, err := host.Describe(shop(nil))
	if err != nil {
		return err
	}
	if m.Check {
		fmt.Fprintf(p.stderr, "%d modules: every call leads upwards and every event heard has its publisher\n", len(list))
		return nil
	}
	infos := make([]moduleInfo, len(list))
	for i, d := range list {
		info := moduleInfo{Name: d.Name, Schema: d.Schema, Calls: append([]string{}, d.Calls...), Hears: []string{}, Methods: []string{}, Routes: []string{}}
		for _, h := range d.Hears {
			info.Hears = append(info.Hears, h.Event)
		}
		for _, method := range d.Methods {
			info.Methods = append(info.Methods, method.Name)
		}
		for _, r := range d.Routes {
			info.Routes = append(info.Routes, r.Method+" "+r.Path)
		}
		infos[i] = info
	}
	switch m.Output {
	case "json":
		return printJSON(p.stdout, infos)
	case "mermaid":
		_, err := io.WriteString(p.stdout, mermaid(infos))
		return err
	}
	t := table(p.stdout, "MODULE", "SCHEMA", "METHODS", "ROUTES", "CALLS", "HEARS")
	for _, i := range infos {
		schema := "yes"
		if !i.Schema {
			schema = "no"
		}
		fmt.Fprintf(t, "%s\t%s\t%d\t%d\t%s\t%s\n", i.Name, schema, len(i.Methods), len(i.Routes), strings.Join(i.Calls, ", "), strings.Join(i.Hears, ", "))
	}
	return t.Flush()
}

// mermaid is the module map: a full arrow is a call, a dotted one an event on its way to a hearer.
func mermaid(infos []moduleInfo) string {
	var b strings.Builder
	b.WriteString("flowchart BT\n")
	for _, i := range infos {
		fmt.Fprintf(&b, "  %s\n", i.Name)
		for _, c := range i.Calls {
			fmt.Fprintf(&b, "  %s --> %s\n", i.Name, c)
		}
		drawn := map[string]bool{}
		for _, e := range i.Hears {
			publisher, _, _ := strings.Cut(e, ".")
			if publisher != i.Name && !drawn[publisher] {
				drawn[publisher] = true
				fmt.Fprintf(&b, "  %s -.-> %s\n", publisher, i.Name)
			}
		}
	}
	return b.String()
}

func printJSON(w io.Writer, v any) error {
	e := json.NewEncoder(w)
	e.SetIndent("", "  ")
	return e.Encode(v)
}

func table(w io.Writer, head ...string) *tabwriter.Writer {
	t := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	fmt.Fprintln(t, strings.Join(head, "\t"))
	return t
}
