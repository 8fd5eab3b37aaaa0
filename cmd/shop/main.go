// Command shop is the whole shop in one binary. It reads flags and settings, and hands the modules to the host; it holds no
// business word of its own.
package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"os"
	"os/signal"
	"runtime/debug"
	"slices"
	"strings"
	"syscall"
	_ "time/tzdata" // an image has no time zones of its own

	"github.com/alecthomas/kong"

	"github.com/banyan-shop/banyan/platform/config"
	"github.com/banyan-shop/banyan/platform/host"
)

func main() {
	// The first signal ends the context, and the shop drains. The second ends patience.
	ctx, stop := context.WithCancel(context.Background())
	hurry, rush := context.WithCancel(context.Background())
	signals := make(chan os.Signal, 3)
	signal.Notify(signals, os.Interrupt, syscall.SIGTERM)
	go func() {
		<-signals
		stop()
		<-signals
		rush()
		<-signals
		os.Exit(1)
	}()
	os.Exit(run(ctx, process{
		args: os.Args[1:], env: os.Environ(), stdin: os.Stdin, stdout: os.Stdout, stderr: os.Stderr, hurry: hurry,
	}))
}

// process is what a run has of the world, so that tests can give it another.
type process struct {
	args, env      []string
	stdin          io.Reader
	stdout, stderr io.Writer       // data, and talk about it
	hurry          context.Context // ends when draining must end too
}

// Exit codes.
const (
	okay   = 0
	failed = 1
	misuse = 2
)

// cli is every command with its flags. Each flag is also a setting of the same name, in the file and in the environment.
type cli struct {
	Config      string            `help:"Settings file; SHOP_CONFIG, else ./shop.yaml if it is there." placeholder:"FILE"`
	DataDir     string            `help:"Where the built-in database and the secret live (data_dir, SHOP_DATA_DIR)." placeholder:"DIR"`
	DatabaseURL string            `name:"database-url" help:"PostgreSQL to use in place of the built-in one (database_url, SHOP_DATABASE_URL)." placeholder:"URL"`
	Set         map[string]string `help:"Any other setting, such as --set log.level=debug." placeholder:"KEY=VALUE"`

	Serve    serveCommand    `cmd:"" default:"withargs" help:"Run the shop (the default command)."`
	Up       upCommand       `cmd:"" help:"Run the shop as several processes on this machine, with a bus between them."`
	Topology topologyCommand `cmd:"" help:"Show who runs where, why, and who calls and hears whom."`
	Ready    readyCommand    `cmd:"" help:"Ask a running shop whether it is ready, for health checks."`
	Migrate  migrateCommand  `cmd:"" help:"Bring the database up to date and stop."`
	Seed     seedCommand     `cmd:"" help:"Make the demo data; may be repeated."`
	Conf     configCommands  `cmd:"" name:"config" help:"Check, explain and show the settings."`
	Modules  modulesCommand  `cmd:"" help:"List the modules: what they answer, call and hear."`
	User     userCommands    `cmd:"" help:"Make users."`
	Import   importCommands  `cmd:"" help:"Bring in a catalogue."`
	Events   eventsCommands  `cmd:"" help:"Look after events that a module could not handle."`
	OpenAPI  openapiCommand  `cmd:"" name:"openapi" help:"Print the OpenAPI document of the public routes."`
	Version  versionCommand  `cmd:"" help:"Print the version."`
}

func run(ctx context.Context, p process) int {
	if p.hurry == nil {
		p.hurry = context.Background()
	}
	var c cli
	exit := -1
	parser, err := newParser(&c,
		kong.Writers(p.stdout, p.stderr),
		kong.Exit(func(code int) { exit = code; panic(exited{}) }),
		kong.Bind(&c, &p),
		kong.BindTo(ctx, (*context.Context)(nil)),
	)
	if err != nil {
		fmt.Fprintln(p.stderr, "shop:", err)
		return misuse
	}
	parsed, err := parse(parser, p.args)
	if exit >= 0 { // --help
		return exit
	}
	if err != nil {
		fmt.Fprintf(p.stderr, "shop: %v\nTry: shop --help\n", err)
		return misuse
	}
	if err := parsed.Run(); err != nil {
		var usage misused
		if errors.As(err, &usage) {
			fmt.Fprintln(p.stderr, "shop:", err)
			return misuse
		}
		var bad *config.Errors
		if errors.As(err, &bad) {
			fmt.Fprintln(p.stderr, err)
		} else {
			fmt.Fprintln(p.stderr, "shop:", err)
		}
		return failed
	}
	return okay
}

type exited struct{}

func newParser(c *cli, options ...kong.Option) (*kong.Kong, error) {
	return kong.New(c, append(options,
		kong.Name("shop"),
		kong.Description("A shop in one binary. Without a command it serves, with a database and demo data of its own."),
		kong.ConfigureHelp(kong.HelpOptions{Compact: true, NoExpandSubcommands: true}),
	)...)
}

// parse comes back from kong's exit after --help.
func parse(k *kong.Kong, args []string) (c *kong.Context, err error) {
	defer func() {
		if r := recover(); r != nil {
			if _, ok := r.(exited); !ok {
				panic(r)
			}
		}
	}()
	return k.Parse(args)
}

// misused is an error that another spelling of the command would mend.
type misused struct{ error }

// file is the settings file, "" for none.
func (c *cli) file(p *process) string {
	if c.Config != "" {
		return c.Config
	}
	for _, kv := range p.env {
		if file, ok := strings.CutPrefix(kv, "SHOP_CONFIG="); ok && file != "" {
			return file
		}
	}
	if _, err := os.Stat("shop.yaml"); err == nil {
		return "shop.yaml"
	}
	return ""
}

// settings are all layers of the settings of a command.
func (c *cli) settings(p *process, flags map[string]string) (*config.Source, error) {
	all := map[string]string{}
	maps.Copy(all, c.Set)
	for key, value := range map[string]string{"data_dir": c.DataDir, "database_url": c.DatabaseURL} {
		if value != "" {
			all[key] = value
		}
	}
	for key, value := range flags {
		if value != "" {
			all[key] = value
		}
	}
	return config.Load(config.Options{
		File: c.file(p), Env: p.env, Flags: all, Reserved: []string{"SHOP_CONFIG", "SHOP_PG_BIN", "SHOP_FAILPOINT"},
	})
}

// open builds the modules for a command other than serve: on the PostgreSQL of a running serve, or on one of its own for as
// long as it takes. It logs only what goes wrong.
func (c *cli) open(ctx context.Context, p *process) (*host.Host, error) {
	s, err := c.settings(p, map[string]string{"log.level": c.logLevel(p)})
	if err != nil {
		return nil, err
	}
	o := shop(s)
	o.Progress = func(what string) { fmt.Fprintln(p.stderr, what) }
	return host.Open(ctx, o)
}

// logLevel is warn for commands, unless somebody said otherwise.
func (c *cli) logLevel(p *process) string {
	if _, said := c.Set["log.level"]; said || slices.ContainsFunc(p.env, func(kv string) bool { return strings.HasPrefix(kv, "SHOP_LOG__LEVEL=") }) {
		return ""
	}
	return "warn"
}

// release can be set by the linker: -ldflags "-X main.release=v1.2.3".
var release string

func version() string {
	if release != "" {
		return release
	}
	info, ok := debug.ReadBuildInfo()
	if ok && info.Main.Version != "" && info.Main.Version != "(devel)" {
		return info.Main.Version
	}
	return "v0.0.0-dev"
}
