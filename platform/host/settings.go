package host

import (
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"net"
	"net/url"
	"slices"
	"time"

	"github.com/banyan-shop/banyan/platform/config"
	"github.com/banyan-shop/banyan/platform/placement"
	"github.com/banyan-shop/banyan/platform/telemetry"
)

// Settings is what the host itself reads from the top level of the settings; each module reads the block of its name.
type Settings struct {
	Listen      string           `yaml:"listen"`       // public address; port 0 takes any free one
	OpsListen   string           `yaml:"ops_listen"`   // metrics and pprof; "" for none
	PublicURL   string           `yaml:"public_url"`   // how customers reach us, for links; "" is http:// and listen
	DataDir     string           `yaml:"data_dir"`     // the embedded database and the secret; "" is the user's cache directory
	DatabaseURL telemetry.URL    `yaml:"database_url"` // as a role that may make roles; "" runs a PostgreSQL of our own: development
	Secret      telemetry.Secret `yaml:"secret"`       // seals keys and tokens; "" makes one in development
	Mode        string           `yaml:"mode" oneof:"auto development production"`
	Placement   string           `yaml:"placement" oneof:"one wire"`
	Seed        bool             `yaml:"seed"` // demo data into a fresh database, in development only

	Bus       telemetry.URL                `yaml:"bus"`        // carries events between processes; "" within this one
	RPCListen string                       `yaml:"rpc_listen"` // where other processes call; "" follows from the placement
	Process   string                       `yaml:"process"`    // which of the processes this is
	Modules   []string                     `yaml:"modules"`    // run just these, in place of processes
	Remote    map[string]string            `yaml:"remote"`     // module → where it is called, in place of processes
	Processes map[string]placement.Process `yaml:"processes"`

	Pool   PoolSettings   `yaml:"pool"`
	Log    LogSettings    `yaml:"log"`
	Trace  TraceSettings  `yaml:"trace"`
	Web    WebSettings    `yaml:"web"`
	Events EventsSettings `yaml:"events"`
	Calls  CallSettings   `yaml:"calls"`
	Drain  DrainSettings  `yaml:"drain"`
	Consul ConsulSettings `yaml:"consul"`

	Gateway GatewaySettings `yaml:"gateway"`
}

// PoolSettings are the connections to PostgreSQL.
type PoolSettings struct {
	Max     int            `yaml:"max" min:"2" max:"500"` // connections of one module
	Modules map[string]int `yaml:"modules"`               // where a module differs
}

// LogSettings say what is logged.
type LogSettings struct {
	Level  slog.Level `yaml:"level"`
	Format string     `yaml:"format" oneof:"auto text json"`
}

// TraceSettings say where traces go.
type TraceSettings struct {
	To    string  `yaml:"to"`
	Ratio float64 `yaml:"ratio" min:"0" max:"1"`
}

// WebSettings are the limits of the public face.
type WebSettings struct {
	TrustedProxies []string `yaml:"trusted_proxies"`
	PerSecond      int      `yaml:"per_second" min:"-1"` // requests of one customer or address; 0 is 50 outside development and none in it, -1 none
	Burst          int      `yaml:"burst" min:"1"`
	// Overload is how long requests may wait in queues before others are turned away, 0 for never; Concurrent how many may be inside
	// at once.
	Overload   time.Duration `yaml:"overload" max:"1m"`
	Concurrent int           `yaml:"concurrent" min:"16" max:"1000000"`
}

// EventsSettings tune the event bus.
type EventsSettings struct {
	Handlers int           `yaml:"handlers" min:"1" max:"64"`
	Attempts int           `yaml:"attempts" min:"1" max:"100"`
	Poll     time.Duration `yaml:"poll" min:"10ms" max:"1m"`
}

// CallSettings tune calls between modules.
type CallSettings struct {
	Deadline   time.Duration `yaml:"deadline" min:"10ms" max:"1m"`
	Concurrent int           `yaml:"concurrent" min:"1" max:"100000"` // under way at one callee elsewhere
	Failing    float64       `yaml:"failing" min:"0.01" max:"1"`      // share of failing tries that opens its breaker
	Pause      time.Duration `yaml:"pause" min:"10ms" max:"5m"`       // of an open breaker
	Retries    float64       `yaml:"retries" min:"0.001" max:"1"`     // for each call
}

// GatewaySettings are about the process where customers come in.
type GatewaySettings struct {
	CacheFor time.Duration `yaml:"cache_for" max:"5m"` // how old an answer of the catalog may be; 0 keeps none
	Kill     []string      `yaml:"kill"`               // routes that are switched off
	Limits   telemetry.URL `yaml:"limits"`             // where gateways share their rate limits, redis://host:6379; "" in memory
}

// ConsulSettings say how this process finds others by consul:// addresses, and is found.
type ConsulSettings struct {
	Agent     string           `yaml:"agent"`     // host:port; "" is CONSUL_HTTP_ADDR, else 127.0.0.1:8500
	Token     telemetry.Secret `yaml:"token"`     // "" is CONSUL_HTTP_TOKEN
	Advertise string           `yaml:"advertise"` // the host by which others reach this process; "" is the machine's name
}

// DrainSettings say how a stop goes.
type DrainSettings struct {
	Delay   time.Duration `yaml:"delay" max:"5m"`             // keep serving after readiness went, so that balancers notice
	Timeout time.Duration `yaml:"timeout" min:"1s" max:"10m"` // then what runs has this long to end
}

// Defaults are the settings nobody has touched.
func Defaults() Settings {
	return Settings{
		Listen:    "127.0.0.1:8080",
		OpsListen: telemetry.OpsListen,
		Mode:      "auto",
		Placement: "one",
		Seed:      true,
		Pool:      PoolSettings{Max: 8},
		Log:       LogSettings{Level: slog.LevelInfo, Format: "auto"},
		Trace:     TraceSettings{Ratio: 1},
		Web:       WebSettings{Burst: 200, Overload: 70 * time.Millisecond, Concurrent: 4096},
		Events:    EventsSettings{Handlers: 4, Attempts: 8, Poll: 250 * time.Millisecond},
		Calls:     CallSettings{Deadline: 2 * time.Second, Concurrent: 256, Failing: 0.5, Pause: time.Second, Retries: 0.1},
		Drain:     DrainSettings{Timeout: 20 * time.Second},
	}
}

// Validate says what to change.
func (s Settings) Validate() error {
	var bad []error
	address := func(key, value string, optional bool) {
		if value == "" && optional {
			return
		}
		if _, _, err := net.SplitHostPort(value); err != nil {
			bad = append(bad, config.Bad(key, "must be host:port such as 127.0.0.1:8080, or :8080 for every interface"))
		}
	}
	address("listen", s.Listen, false)
	address("ops_listen", s.OpsListen, true)
	address("rpc_listen", s.RPCListen, true)
	for _, name := range slices.Sorted(maps.Keys(s.Processes)) {
		p := s.Processes[name]
		address("processes."+name+".listen", p.Listen, true)
		address("processes."+name+".rpc_listen", p.RPCListen, true)
		address("processes."+name+".ops_listen", p.OpsListen, true)
	}
	if u, err := url.Parse(s.PublicURL); s.PublicURL != "" && (err != nil || u.Host == "" || u.Scheme != "http" && u.Scheme != "https" || u.Path != "" || u.RawQuery != "") {
		bad = append(bad, config.Bad("public_url", "must be http://host or https://host, without a path"))
	}
	for i, proxy := range s.Web.TrustedProxies {
		if _, _, err := net.ParseCIDR(proxy); err != nil {
			bad = append(bad, config.Bad(fmt.Sprintf("web.trusted_proxies[%d]", i), "must be a network such as 10.0.0.0/8"))
		}
	}
	for module, n := range s.Pool.Modules {
		if n < 2 || n > 500 {
			bad = append(bad, config.Bad("pool.modules."+module, "must be from 2 to 500"))
		}
	}
	return errors.Join(bad...)
}
