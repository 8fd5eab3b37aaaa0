package main

import (
	"bytes"
	"cmp"
	"context"
	"database/sql"
	"errors"
	"fmt"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"runtime"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"gopkg.in/yaml.v3"

	"github.com/banyan-shop/banyan/platform/events/natsembed"
	"github.com/banyan-shop/banyan/platform/pg"
	"github.com/banyan-shop/banyan/platform/shoptest"
)

// enough failures are reported; the places after them are not tried, which is said.
const enough = 5

// enumerate has so many shops at a time die at every place that a journey comes by, in every process that it was found in, and asks
// that none of the wanted is missing.
func enumerate(t *testing.T, shops int, wanted []string, open func(*testing.T) *district) {
	t.Helper()
	began := time.Now()
	e := &enumeration{shops: shops, reach: map[place][]string{}, cost: map[string]time.Duration{}, used: map[string]int{}}
	e.learning.Add(shops)
	var workers sync.WaitGroup
	for n := range shops {
		workers.Go(func() {
			learned := sync.OnceFunc(e.learning.Done)
			for again := true; again; n += shops {
				again = false
				t.Run(fmt.Sprintf("shop %d", n), func(t *testing.T) {
					defer learned()
					again = e.work(t, open(t), n, learned)
				})
			}
		})
	}
	workers.Wait()

	names := map[string]bool{}
	for p := range e.reach {
		names[p.name] = true
	}
	for _, name := range wanted {
		if !names[name] {
			t.Errorf("no journey came by %s", name)
		}
	}
	if len(e.todo) > 0 {
		t.Errorf("%d places were not tried after so many failures: %v", len(e.todo), e.todo)
	}
	t.Logf("survived a kill at %d of %d places, in %.0f s", e.survived, len(e.reach), time.Since(began).Seconds())
}

// place is a failpoint in a process.
type place struct{ process, name string }

func (p place) String() string { return p.process + " at " + p.name }

// enumeration is what the shops have found out together, and what they still have to do.
type enumeration struct {
	shops    int // at a time
	learning sync.WaitGroup

	mu               sync.Mutex
	reach            map[place][]string       // the journeys that come by
	cost             map[string]time.Duration // of a journey by itself
	used             map[string]int
	made             bool
	todo             []place
	survived, failed int
}

// work learns what falls to this shop, then has it die at one place after another. It says whether another shop should go on: this
// one has failed, and what it holds can't be trusted.
func (e *enumeration) work(t *testing.T, d *district, number int, learned func()) (again bool) {
	if number < e.shops {
		d.learn(t, e, number)
		learned()
	}
	e.learning.Wait()
	for {
		p, ok := e.next()
		if !ok {
			return false
		}
		began := time.Now()
		if !t.Run(p.String(), func(t *testing.T) { d.crash(t, e, p) }) {
			e.mu.Lock()
			e.failed++
			again = e.failed < enough
			e.mu.Unlock()
			return again
		}
		t.Logf("%s: %d ms", p, time.Since(began).Milliseconds())
	}
}

// next is a place that nobody has tried.
func (e *enumeration) next() (place, bool) {
	e.mu.Lock()
	defer e.mu.Unlock()
	if !e.made {
		e.made, e.todo = true, e.plan()
	}
	if len(e.todo) == 0 || e.failed >= enough {
		return place{}, false
	}
	p := e.todo[0]
	e.todo = e.todo[1:]
	return p, true
}

// plan is every place that was reached. Those of events lie in nearly every process.
func (e *enumeration) plan() []place {
	return slices.SortedFunc(maps.Keys(e.reach), func(a, b place) int { return cmp.Or(cmp.Compare(a.name, b.name), cmp.Compare(a.process, b.process)) })
}

// choose is the journey that is to die at a place, one that comes by it, and another that happens to be there; or all there are, for
// the last thing that a journey leads to, such as the mark on its last event, may have been noted for the one after it. Cheap ones are
// chosen more often.
func (e *enumeration) choose(p place, all bool) []journey {
	e.mu.Lock()
	defer e.mu.Unlock()
	if all {
		return journeys
	}
	coming := func(j journey) bool { return slices.Contains(e.reach[p], j.name) }
	bySpent := slices.SortedFunc(slices.Values(journeys), func(a, b journey) int {
		return cmp.Compare(e.cost[a.name]*time.Duration(1+e.used[a.name]), e.cost[b.name]*time.Duration(1+e.used[b.name]))
	})
	first := bySpent[slices.IndexFunc(bySpent, coming)]
	other := bySpent[slices.IndexFunc(bySpent, func(j journey) bool { return j.name != first.name })]
	e.used[first.name]++
	e.used[other.name]++
	return []journey{first, other}
}

// district is a shop whose processes are started again when they are killed: one, or one for each module and a gateway.
type district struct {
	binary, dir, settings, url string
	top                        topology
	dbs                        map[string]*sql.DB // by module, as superuser
	view                       *sql.DB            // has the schemas of all modules
	columns                    map[string]string  // of the tables in it that are copied there, by name: see look
	bus                        *natsembed.Server  // nil where there is but one process
	post                       *postOffice
	buyers                     []*buyer // all that ever came

	open context.Context // until it closes; its cause is a process that ended by itself
	mu   sync.Mutex
	said bytes.Buffer
	hits map[place]bool
	dead map[string]string // where each process that was armed has died
	arms map[string]string // what is armed, by process
}

func newDistrict(t *testing.T, binary string) *district {
	t.Helper()
	return &district{
		binary: binary, dir: t.TempDir(), dbs: map[string]*sql.DB{}, hits: map[place]bool{}, dead: map[string]string{}, arms: map[string]string{},
		post: newPostOffice(t),
	}
}

// openWhole starts a shop of one process. It ends with the test.
func openWhole(t *testing.T, binary, seed string) *district {
	t.Helper()
	d := newDistrict(t, binary)
	address, url := freeAddress(t), shoptest.Clone(t, seed)
	d.top = topology{order: []string{"main"}, processes: map[string]upProcess{"main": {HTTP: "http://" + address}}}
	d.view = database(t, url)
	for _, module := range schemas {
		d.dbs[module] = d.view
	}
	d.start(t, "main", map[string]any{"listen": address, "database_url": url})
	return d
}

// openDistrict starts a split shop. It ends with the test.
func openDistrict(t *testing.T, binary string, seeds map[string]string) *district {
	t.Helper()
	d := newDistrict(t, binary)
	d.top = addresses(t, upCommand{Split: "all"})
	for module, seed := range seeds {
		p := d.top.processes[module]
		p.DatabaseURL = shoptest.Clone(t, seed)
		d.top.processes[module] = p
		d.dbs[module] = database(t, p.DatabaseURL)
	}
	d.view = database(t, shoptest.DatabaseOf(t, schemas...))
	d.describe(t)
	bus, err := natsembed.Start(natsembed.Options{Dir: inMemory(t)})
	if err != nil {
		t.Fatal(err)
	}
	d.bus = bus
	t.Cleanup(bus.Stop)
	d.start(t, "gateway", map[string]any{"bus": bus.URL(), "processes": d.top.processes})
	return d
}

// start brings the troubles about and starts all processes; shoppers come in at door.
func (d *district) start(t *testing.T, door string, settings map[string]any) {
	t.Helper()
	ctx, fail := context.WithCancelCause(context.Background()) // t's own ends before the processes do
	d.open = ctx
	for module, statements := range troubles {
		if _, err := d.dbs[module].ExecContext(ctx, statements); err != nil {
			t.Fatal(err)
		}
	}
	d.write(t, settings)

	stops, running := map[string]chan struct{}{}, map[string]*sync.WaitGroup{}
	t.Cleanup(func() {
		for _, name := range slices.Backward(d.top.order) { // the gateway first, callers before whom they call
			close(stops[name])
			running[name].Wait()
		}
		if err := context.Cause(ctx); err != nil {
			t.Error(err)
		}
		fail(nil)
	})
	for _, name := range d.top.order {
		stop := make(chan struct{})
		stops[name], running[name] = stop, &sync.WaitGroup{}
		running[name].Go(func() {
			if err := d.keepOpen(ctx, name, stop); err != nil {
				fail(fmt.Errorf("%s: %w", name, err))
			}
		})
	}
	d.url = d.top.processes[door].HTTP
	if err := until(ctx, "the shop to open", func() (bool, error) { return d.ready(ctx), nil }); err != nil {
		t.Fatalf("%v\n%s", err, d.said.String())
	}
}

// write makes the settings that all processes read.
func (d *district) write(t *testing.T, settings map[string]any) {
	t.Helper()
	maps.Copy(settings, map[string]any{"mode": "production", "secret": crashSecret, "data_dir": d.dir})
	text, err := yaml.Marshal(settings)
	if err != nil {
		t.Fatal(err)
	}
	d.settings = filepath.Join(d.dir, "shop.yaml")
	if err := os.WriteFile(d.settings, text, 0o600); err != nil {
		t.Fatal(err)
	}
}

// keepOpen runs a process, again whenever it has died where it was armed to, until it is told to stop.
func (d *district) keepOpen(ctx context.Context, name string, stop <-chan struct{}) error {
	runtime.LockOSThread() // the kernel ends a child with the thread that made it
	defer runtime.UnlockOSThread()
	for {
		cmd := d.command(ctx, name)
		if err := cmd.Start(); err != nil {
			return err
		}
		ended := make(chan error, 1)
		go func() { ended <- cmd.Wait() }()
		select {
		case err := <-ended:
			status, _ := cmd.ProcessState.Sys().(syscall.WaitStatus)
			if !status.Signaled() || status.Signal() != syscall.SIGKILL || !d.bury(name) {
				return fmt.Errorf("it ended by itself: %w", err)
			}
			if err := d.mourn(ctx, name); err != nil {
				return err
			}
		case <-stop:
			_ = cmd.Process.Signal(syscall.SIGTERM) // it may be dying this moment
			return <-ended
		}
	}
}

func (d *district) command(ctx context.Context, name string) *exec.Cmd {
	cmd := exec.CommandContext(ctx, d.binary, "serve", "--config", d.settings)
	if d.bus != nil {
		cmd.Args = append(cmd.Args, "--process", name)
	}
	for _, s := range []string{
		"ops_listen=", "log.level=warn", "pool.max=2", "web.per_second=-1", "events.poll=250ms", "users.login_delays=false",
		"catalog.sweep_every=200ms", "orders.lease=3s", "orders.poll=100ms", "payments.simulator=on", "payments.poll=100ms",
		"payments.late_webhook=200ms", "notifications.smtp.address=" + d.post.address, "notifications.smtp.tls=off", "notifications.poll=250ms",
	} {
		cmd.Args = append(cmd.Args, "--set", s)
	}
	cmd.Dir = d.dir
	cmd.Env = append(onOneProcessor(), "SHOP_FAILPOINT=@"+d.arm(name))
	cmd.SysProcAttr = child()
	out := &lines{d: d, process: name}
	cmd.Stdout, cmd.Stderr = out, out
	return cmd
}

// arm is the file that says where a process is to die.
func (d *district) arm(process string) string { return filepath.Join(d.dir, process+".failpoint") }

// set arms processes: at the name of a failpoint they die, at "?" they tell of each they come by, at "" nothing.
func (d *district) set(name string, processes ...string) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	for _, p := range processes {
		next := d.arm(p) + ".new" // renamed, so that nobody reads half a name
		if err := errors.Join(os.WriteFile(next, []byte(name), 0o600), os.Rename(next, d.arm(p))); err != nil {
			return err
		}
		d.arms[p] = name
		delete(d.dead, p)
	}
	return nil
}

// bury notes where a process has died and disarms it; false if it was not to die.
func (d *district) bury(process string) bool {
	d.mu.Lock()
	where := d.arms[process]
	d.mu.Unlock()
	if where == "" || where == "?" || d.set("", process) != nil {
		return false
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	d.dead[process] = where
	return true
}

func (d *district) hasDied(p place) bool {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.dead[p.process] == p.name
}

// mourn waits until the connections of a dead process are gone, and lets the time pass that its leases last: in its database, and
// at the broker, which waits half a minute for an acknowledgement. Where there is but one process, who comes next waits for the leases
// of checkouts.
func (d *district) mourn(ctx context.Context, process string) error {
	if d.bus == nil {
		return errors.Join(deserted(ctx, d.view), passTime(ctx, d.view))
	}
	db := d.dbs[process]
	if db == nil {
		return nil
	}
	if err := errors.Join(deserted(ctx, db), passTime(ctx, db)); err != nil {
		return err
	}
	if process == "orders" {
		for _, q := range []string{
			`UPDATE orders.checkouts SET lease_until = now(), next_at = now() WHERE lease_until > now()`,
			`UPDATE orders.cancellations SET lease_until = now(), next_at = now() WHERE lease_until > now()`,
		} {
			if _, err := db.ExecContext(ctx, q); err != nil {
				return err
			}
		}
	}
	// A broker that has not noticed the death yet may give the dead one more.
	if err := until(ctx, "the broker to notice", func() (bool, error) { return d.bus.Clients() < len(d.top.order), nil }); err != nil {
		return err
	}
	return d.bus.HandBack(process + "-")
}

// lines takes what a process says, and notes the failpoints that it came by.
type lines struct {
	d       *district
	process string
	rest    []byte
}

func (l *lines) Write(b []byte) (int, error) {
	l.d.mu.Lock()
	defer l.d.mu.Unlock()
	l.rest = append(l.rest, b...)
	for {
		line, rest, whole := bytes.Cut(l.rest, []byte("\n"))
		if !whole {
			return len(b), nil
		}
		if name, ok := bytes.CutPrefix(line, []byte("failpoint ")); ok {
			l.d.hits[place{l.process, string(name)}] = true
		} else {
			fmt.Fprintf(&l.d.said, "%-13s | %s\n", l.process, line)
		}
		l.rest = rest
	}
}

// ready says whether all processes answer, and each is connected to the broker.
func (d *district) ready(ctx context.Context) bool {
	return (d.bus == nil || d.bus.Clients() == len(d.top.order)) &&
		!slices.ContainsFunc(d.top.order, func(p string) bool { return !answers(ctx, d.top.processes[p].HTTP+"/readyz") })
}

// idle says whether nothing is left to be done, anywhere and on the bus: what moves from one database to another goes by the bus,
// so all of them are looked at between two looks at that.
func (d *district) idle(ctx context.Context) (bool, error) {
	if !d.ready(ctx) {
		return false, nil
	}
	if d.bus == nil {
		return drained(ctx, d.view, schemas...)
	}
	if done, err := d.drained(ctx); err != nil || !done {
		return false, err
	}
	before, waiting, err := d.bus.Progress()
	if err != nil || waiting {
		return false, err
	}
	if done, err := d.drained(ctx); err != nil || !done {
		return false, err
	}
	after, waiting, err := d.bus.Progress()
	return after == before && !waiting, err
}

// drained looks at orders first: what is under way there makes work for the others.
func (d *district) drained(ctx context.Context) (bool, error) {
	for _, m := range slices.Backward(schemas) {
		if done, err := drained(ctx, d.dbs[m], m); err != nil || !done {
			return false, err
		}
	}
	return true, nil
}

// visit lets shoppers go their ways, waits until all is done that follows from it, and sends every request again.
func (d *district) visit(ctx context.Context, ways []journey) error {
	buyers, err := sendBuyers(ctx, func(m string) *sql.DB { return d.dbs[m] }, d.url, ways)
	d.buyers = append(d.buyers, buyers...)
	if err != nil {
		return err
	}
	if err := until(ctx, "everything to be done", func() (bool, error) { return d.idle(ctx) }); err != nil {
		return err
	}
	for _, b := range buyers {
		if err := b.again(ctx); err != nil {
			return err
		}
	}
	return nil
}

// trouble makes those of the journeys' troubles come, or none.
func (d *district) trouble(ctx context.Context, messages, captures bool) error {
	from := map[bool]string{true: "1", false: "1000"}
	_, err := d.dbs["notifications"].ExecContext(ctx, `ALTER SEQUENCE trouble.messages RESTART WITH `+from[messages])
	if err == nil {
		_, err = d.dbs["payments"].ExecContext(ctx, `ALTER SEQUENCE trouble.captures RESTART WITH `+from[captures])
	}
	return err
}

// learn lets its share of the journeys go by itself, each alone.
func (d *district) learn(t *testing.T, e *enumeration, number int) {
	ctx, cancel := context.WithTimeoutCause(d.open, 3*time.Minute, errors.New("three minutes have passed"))
	defer cancel()
	defer d.tell(t, 0)
	if err := errors.Join(d.trouble(ctx, false, false), d.visit(ctx, journeys[:1])); err != nil { // what is asked once in a process's life
		t.Fatal(err)
	}
	for i, j := range journeys {
		if i%e.shops != number {
			continue
		}
		d.mu.Lock()
		clear(d.hits)
		d.mu.Unlock()
		began := time.Now()
		if err := errors.Join(d.trouble(ctx, true, true), d.set("?", d.top.order...), d.visit(ctx, []journey{j}), d.set("", d.top.order...)); err != nil {
			t.Fatal(err)
		}
		e.mu.Lock()
		e.cost[j.name] = time.Since(began)
		d.mu.Lock()
		for p := range d.hits {
			if strings.HasPrefix(p.name, "rpc.users.Keys.") { // processes ask for the keys now and then: no journey comes by
				continue
			}
			e.reach[p] = append(e.reach[p], j.name)
		}
		d.mu.Unlock()
		e.mu.Unlock()
	}
	if d.inspect(ctx, t); t.Failed() {
		t.FailNow()
	}
}

// crash is one death, and what comes of it.
func (d *district) crash(t *testing.T, e *enumeration, p place) {
	ctx, cancel := context.WithTimeoutCause(d.open, time.Minute, errors.New("a minute has passed"))
	defer cancel()
	d.mu.Lock()
	from := d.said.Len()
	d.mu.Unlock()
	defer d.tell(t, from)
	err := d.set(p.name, p.process)
	// Whoever comes by it may depend on who is first, such as a webhook or a question: then all are sent, a few times.
	for _, all := range []bool{false, true, true, true} {
		if err == nil && !d.hasDied(p) {
			err = errors.Join(d.trouble(ctx, strings.HasPrefix(p.name, "events.retry."), true), d.visit(ctx, e.choose(p, all)))
		}
	}
	if err != nil {
		t.Fatal(err)
	}
	if !d.hasDied(p) {
		t.Fatalf("no journey came by %s", p)
	}
	d.inspect(ctx, t)
	if !t.Failed() {
		e.mu.Lock()
		defer e.mu.Unlock()
		e.survived++
	}
}

func (d *district) tell(t *testing.T, from int) {
	if t.Failed() {
		d.mu.Lock()
		defer d.mu.Unlock()
		t.Logf("the shop said:\n%s", d.said.String()[from:])
	}
}

func (d *district) inspect(ctx context.Context, t *testing.T) {
	t.Helper()
	if err := d.look(ctx); err != nil {
		t.Fatal(err)
	}
	inspect(t, d.view, d.buyers)
	d.post.compare(t, d.dbs["notifications"])
}

// describe finds the tables that the invariants name.
func (d *district) describe(t *testing.T) {
	t.Helper()
	d.columns = map[string]string{}
	text := eventsInvariant().query
	for _, i := range invariants {
		text += i.query
	}
	for _, table := range regexp.MustCompile(`\b(`+strings.Join(schemas, "|")+`)\.\w+`).FindAllString(text, -1) {
		var columns sql.NullString
		if err := d.view.QueryRowContext(t.Context(), `
			SELECT string_agg(quote_ident(column_name), ', ' ORDER BY ordinal_position) FROM information_schema.columns
			WHERE table_schema || '.' || table_name = $1 AND is_generated = 'NEVER'`, table).Scan(&columns); err != nil {
			t.Fatal(err)
		}
		if columns.Valid { // or it is the name of an event
			d.columns[table] = columns.String
		}
	}
	if len(d.columns) < 30 {
		t.Fatalf("only %d tables are looked at: %v", len(d.columns), slices.Sorted(maps.Keys(d.columns)))
	}
}

// look copies the tables of all databases into one, where the invariants can be asked that are of several modules. Rows are carried
// as JSON, which every PostgreSQL can do. In one process they are there already.
func (d *district) look(ctx context.Context) error {
	if d.bus == nil {
		return nil
	}
	tx, err := d.view.BeginTx(ctx, nil)
	if err != nil {
		return err
	}
	defer tx.Rollback() //nolint:errcheck // after a commit it does nothing
	// Without foreign keys and triggers.
	if _, err := tx.ExecContext(ctx, `SET LOCAL session_replication_role = replica`); err != nil {
		return err
	}
	for table, columns := range d.columns {
		module, _, _ := strings.Cut(table, ".")
		var rows string
		if err := d.dbs[module].QueryRowContext(ctx, `SELECT coalesce(jsonb_agg(t), '[]') FROM `+table+` AS t`).Scan(&rows); err != nil {
			return err
		}
		if _, err := tx.ExecContext(ctx, `DELETE FROM `+table); err != nil {
			return err
		}
		if _, err := tx.ExecContext(ctx, `INSERT INTO `+table+` (`+columns+`) OVERRIDING SYSTEM VALUE
			SELECT `+columns+` FROM jsonb_populate_recordset(NULL::`+table+`, $1)`, rows); err != nil {
			return fmt.Errorf("copy %s: %w", table, err)
		}
	}
	return tx.Commit()
}

// seededDatabases are the URLs of a database for each module, with a little demo data, to be cloned.
func seededDatabases(t *testing.T) map[string]string {
	t.Helper()
	all, each := seededDatabase(t, 60), map[string]string{}
	for _, own := range schemas {
		each[own] = shoptest.Clone(t, all)
		db, err := pg.OpenAdmin(t.Context(), each[own])
		if err != nil {
			t.Fatal(err)
		}
		for _, other := range schemas {
			if other != own {
				_, dropped := db.ExecContext(t.Context(), `DROP SCHEMA `+other+` CASCADE`)
				err = errors.Join(err, dropped)
			}
		}
		if err := errors.Join(err, db.Close()); err != nil { // an open connection would keep it from being cloned
			t.Fatal(err)
		}
	}
	return each
}
