package config_test

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/banyan-shop/banyan/platform/config"
)

type top struct {
	Listen  string        `yaml:"listen"`
	Seed    bool          `yaml:"seed"`
	Place   string        `yaml:"placement" oneof:"one wire"`
	Timeout time.Duration `yaml:"timeout" min:"1ms" max:"1h"`
}

type orders struct {
	Hold    time.Duration     `yaml:"hold"`
	Workers int               `yaml:"workers" min:"1" max:"64"`
	Small   int8              `yaml:"small"`
	Body    config.Size       `yaml:"body"`
	Token   secret            `yaml:"token"`
	Markets []string          `yaml:"markets"`
	Rates   map[string]market `yaml:"rates"`
	Labels  map[string]string `yaml:"labels"`
	Deep    deep              `yaml:"deep"`
}

type market struct {
	Rate int `yaml:"rate"`
}

// secret is a text that prints as ***.
type secret string

func (secret) String() string { return "***" }

type deep struct {
	Retries int `yaml:"retries"`
}

func (o orders) Validate() error {
	if o.Deep.Retries > 9 {
		return config.Bad("deep.retries", "must be at most 9: the tenth would come after the order expired")
	}
	return nil
}

func parse(t *testing.T, text string) *config.Source {
	t.Helper()
	s, err := config.Parse("shop.yaml", []byte(text))
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func TestLayers(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "shop.yaml")
	text := "listen: file:1\nplacement: wire\norders:\n  workers: 2\n  hold: 7d\n  rates: {DE: {rate: 1900}, FR: {rate: 2000}}\n"
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	s, err := config.Load(config.Options{
		File:     path,
		Env:      []string{"SHOP_LISTEN=env:1", "SHOP_ORDERS__WORKERS=3", "SHOP_ORDERS__MARKETS=de, at", "SHOP_ORDERS__RATES__DE__RATE=700", "SHOP_CONFIG=x", "SHOP_LISTN=y", "HOME=/"},
		Flags:    map[string]string{"listen": "flag:1"},
		Reserved: []string{"SHOP_CONFIG"},
	})
	if err != nil {
		t.Fatal(err)
	}
	gotTop, err := config.Decode(s, "", top{Place: "one", Timeout: time.Second})
	if err != nil {
		t.Fatal(err)
	}
	if want := (top{Listen: "flag:1", Place: "wire", Timeout: time.Second}); gotTop != want {
		t.Errorf("top level is %+v, want %+v", gotTop, want)
	}
	got, err := config.Decode(s, "orders", orders{Workers: 1, Body: 512, Token: "hush", Labels: map[string]string{"a": "b"}})
	if err != nil {
		t.Fatal(err)
	}
	want := orders{Hold: 7 * 24 * time.Hour, Workers: 3, Body: 512, Token: "hush", Markets: []string{"de", "at"},
		Rates: map[string]market{"DE": {700}, "FR": {2000}}, Labels: map[string]string{"a": "b"}}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("orders (-want +got):\n%s", diff)
	}
	if err := s.Unknown(); err != nil {
		t.Errorf("everything is decoded, yet: %v", err)
	}
	if got := s.Strangers(); len(got) != 1 || got[0] != "SHOP_LISTN is no setting; did you mean SHOP_LISTEN?" {
		t.Errorf("strangers are %q", got)
	}
	from := map[string]config.Setting{}
	for _, set := range s.Settings() {
		from[set.Key] = set
	}
	for key, want := range map[string]config.Setting{
		"listen":         {Key: "listen", Value: "flag:1", From: "--listen"},
		"placement":      {Key: "placement", Value: "wire", Default: "one", From: path + ":2"},
		"orders.workers": {Key: "orders.workers", Value: "3", Default: "1", From: "SHOP_ORDERS__WORKERS"},
		"orders.token":   {Key: "orders.token", Value: "***", Default: "***", From: "default"},
	} {
		if from[key] != want {
			t.Errorf("%s is explained as %+v, want %+v", key, from[key], want)
		}
	}
}

func TestMistakesCarryTheirPlace(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct{ text, want string }{
		"unknown key with a hint": {"orders:\n  worker: 3\n", "shop.yaml:2:3: unknown key \"worker\" in orders; did you mean \"workers\"?\n  2 |   worker: 3\n    |   ^^^^^^"},
		"unknown key far off":     {"orders: {zebra: 3}\n", "shop.yaml:1:10: unknown key \"zebra\" in orders\n  1 | orders: {zebra: 3}\n    |          ^^^^^"},
		"duplicate key":           {"orders:\n  workers: 1\n  workers: 2\n", "shop.yaml:3:3: duplicate key \"workers\": it stands in line 2 already\n  3 |   workers: 2\n    |   ^^^^^^^"},
		"wrong type":              {"orders:\n  workers: \"3\"\n", "shop.yaml:2:12: orders.workers must be a whole number, not text\n  2 |   workers: \"3\"\n    |            ^"},
		"too large":               {"orders:\n  small: 300\n", "shop.yaml:2:10: orders.small is out of range\n  2 |   small: 300\n    |          ^^^"},
		"beyond its maximum":      {"orders:\n  workers: 65\n", "shop.yaml:2:12: orders.workers must be at most 64\n  2 |   workers: 65\n    |            ^^"},
		"no unit":                 {"orders:\n  hold: 5\n", "shop.yaml:2:9: orders.hold needs a unit: 5s, 5m or 5h\n  2 |   hold: 5\n    |         ^"},
		"a list for a block":      {"orders: [1]\n", "shop.yaml:1:9: orders is a block of settings, not a list\n  1 | orders: [1]\n    |         ^"},
		"validated":               {"orders: {deep: {retries: 10}}\n", "shop.yaml:1:26: orders.deep.retries must be at most 9: the tenth would come after the order expired\n  1 | orders: {deep: {retries: 10}}\n    |                          ^^"},
		"a member of a map":       {"orders:\n  rates:\n    DE: {rat: 1}\n", "shop.yaml:3:10: unknown key \"rat\" in orders.rates.DE; did you mean \"rate\"?\n  3 |     DE: {rat: 1}\n    |          ^^^"},
		"an alias":                {"orders: &a {workers: 1}\nother: *a\n", "shop.yaml:2:8: aliases are not allowed here: write the value out\n  2 | other: *a\n    |        ^"},
		"bad size":                {"orders: {body: 3 kB}\n", "shop.yaml:1:16: orders.body must be a number of bytes such as 512, 64KiB or 10MiB\n  1 | orders: {body: 3 kB}\n    |                ^^^^"},
		"no YAML":                 {"orders:\n\tworkers: 1\n", "shop.yaml:2:1: found character that cannot start any token\n  2 | \tworkers: 1\n    | ^"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s, err := config.Parse("shop.yaml", []byte(c.text))
			if err == nil {
				_, err = config.Decode(s, "orders", orders{Workers: 1})
			}
			if err == nil || err.Error() != c.want {
				t.Errorf("got\n%v\nwant\n%s", err, c.want)
			}
		})
	}
}

func TestAllMistakesComeAtOnce(t *testing.T) {
	t.Parallel()
	s := parse(t, "lissten: x\norders:\n  worker: 1\n  hold: soon\n  deep: {retries: many}\n")
	_, first := config.Decode(s, "", top{Place: "none"})
	_, second := config.Decode(s, "orders", orders{})
	err := config.Join(first, second, s.Unknown(), errors.New("and another"))
	var es *config.Errors
	if !errors.As(err, &es) || len(es.Problems) != 8 {
		t.Fatalf("want 8 problems, got:\n%v", err)
	}
	for _, want := range []string{
		"placement must be one of one, wire", "timeout must be at least 1ms", `unknown key "worker"`, "orders.workers must be at least 1",
		"orders.hold must be a duration", "orders.deep.retries must be a whole number, not text", `unknown key "lissten"; did you mean "listen"?`, "and another",
	} {
		if !strings.Contains(err.Error(), want) {
			t.Errorf("%q is missing in:\n%v", want, err)
		}
	}
}

func TestEnvironmentAndFlagsNameTheirMistakes(t *testing.T) {
	t.Parallel()
	s, err := config.Load(config.Options{
		Env:   []string{"SHOP_ORDERS__WORKERS=many", "SHOP_ORDERS__HOLDD=5s"},
		Flags: map[string]string{"seed": "perhaps", "database_ur": "x"},
	})
	if err != nil {
		t.Fatal(err)
	}
	_, first := config.Decode(s, "", top{Place: "one", Timeout: time.Second})
	_, second := config.Decode(s, "orders", orders{Workers: 1})
	want := "--seed: seed must be true or false\n" +
		"SHOP_ORDERS__HOLDD: unknown key \"holdd\" in orders; did you mean \"hold\"?\n" +
		"SHOP_ORDERS__WORKERS: orders.workers must be a whole number\n" +
		"--database-ur: no such setting"
	if err := config.Join(first, second, s.Unknown()); err == nil || err.Error() != want {
		t.Errorf("got\n%v\nwant\n%s", err, want)
	}
}

func TestNoSourceMeansDefaults(t *testing.T) {
	t.Parallel()
	for _, s := range []*config.Source{nil, {}} {
		got, err := config.Decode(s, "orders", orders{Workers: 4})
		if err != nil || got.Workers != 4 {
			t.Errorf("got %+v, %v", got, err)
		}
	}
}

func TestDefaultsAreNotShared(t *testing.T) {
	t.Parallel()
	defaults := orders{Workers: 1, Labels: map[string]string{"a": "b"}}
	s, err := config.Load(config.Options{Env: []string{"SHOP_ORDERS__LABELS__A=c"}})
	if err != nil {
		t.Fatal(err)
	}
	if got, err := config.Decode(s, "orders", defaults); err != nil || got.Labels["a"] != "c" || defaults.Labels["a"] != "b" {
		t.Errorf("got %v, %v; the defaults are now %v", got.Labels, err, defaults.Labels)
	}
}

func FuzzConfig(f *testing.F) {
	f.Add("listen: 127.0.0.1:1\norders:\n  workers: 2\n  rates: {DE: {rate: 1}}\n")
	f.Add("orders:\n  workers: 1\n  workers: 2\n\thold: 5\n")
	f.Add("a: &a [*a, *a]\n<<: {b: c}\n? [x]\n: y\n")
	f.Add("---\n{}\n---\n{}\n")
	f.Add("orders: |\n  text\n\u2028#\r\n")
	f.Fuzz(func(t *testing.T, text string) {
		s, err := config.Parse("f", []byte(text))
		if err != nil {
			return
		}
		got, err := config.Decode(s, "orders", orders{Workers: 1})
		if err == nil && (got.Workers < 1 || got.Workers > 64) {
			t.Errorf("accepted %d workers", got.Workers)
		}
		if _, err := config.Decode(s, "", top{Place: "one", Timeout: time.Second}); err == nil {
			_ = s.Unknown()
		}
	})
}
