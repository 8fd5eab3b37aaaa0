package pgembed

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"runtime"
	"slices"
	"strconv"
	"strings"
)

// oldest is the first version with everything the migrations use.
const oldest = 15

// binaries is a directory with initdb and postgres.
type binaries struct {
	dir     string
	version string // 15.18
	major   int
}

func (b binaries) path(name string) string {
	if windows {
		name += ".exe"
	}
	return filepath.Join(b.dir, name)
}

var versionText = regexp.MustCompile(`\b(\d+)(\.\d+|beta\d+|rc\d+|devel)`)

// inspect reads the version of the binaries in dir, by running them: a broken installation is none.
func inspect(ctx context.Context, dir string) (binaries, bool) {
	b := binaries{dir: dir}
	if _, err := os.Stat(b.path("initdb")); err != nil {
		return b, false
	}
	out, err := exec.CommandContext(ctx, b.path("postgres"), "--version").Output()
	if err != nil {
		return b, false
	}
	m := versionText.FindStringSubmatch(string(out))
	if m == nil {
		return b, false
	}
	b.version = m[0]
	b.major, _ = strconv.Atoi(m[1])
	return b, true
}

// find looks for binaries: the operator's word, the system's, an earlier download, a new one. Existing data wants its own
// major version; 0 takes the newest.
func find(ctx context.Context, major int, o Options) (binaries, error) {
	fits := func(b binaries) bool { return b.major >= oldest && (major == 0 || b.major == major) }
	if dir := os.Getenv("SHOP_PG_BIN"); dir != "" {
		b, ok := inspect(ctx, dir)
		if !ok {
			return b, fmt.Errorf("SHOP_PG_BIN=%s holds no working initdb and postgres", dir)
		}
		if b.major < oldest {
			return b, fmt.Errorf("SHOP_PG_BIN=%s is PostgreSQL %s: %d or newer is needed", dir, b.version, oldest)
		}
		return b, nil
	}
	if b, ok := newest(ctx, candidates(ctx), fits); ok {
		return b, nil
	}
	cache, err := downloadDir()
	if err != nil {
		return binaries{}, err
	}
	if b, ok := inspect(ctx, filepath.Join(cache, "bin")); ok && fits(b) {
		return b, nil
	}
	var why error
	if !o.NoFetch && (major == 0 || major == fetchedMajor) {
		o.Progress("fetching PostgreSQL " + fetchedVersion + " once (24 MB)")
		if why = pinned.fetch(ctx, cache, runtime.GOOS+"/"+runtime.GOARCH); why == nil {
			if b, ok := inspect(ctx, filepath.Join(cache, "bin")); ok {
				return b, nil
			}
			why = fmt.Errorf("the fetched binaries in %s do not run", cache)
		}
	}
	return binaries{}, notFound(major, why)
}

func newest(ctx context.Context, dirs []string, fits func(binaries) bool) (best binaries, ok bool) {
	for _, dir := range dirs {
		if b, works := inspect(ctx, dir); works && fits(b) && b.major > best.major {
			best, ok = b, true
		}
	}
	return best, ok
}

// notFound is all a newcomer sees when nothing worked, so it names every way out.
func notFound(major int, why error) error {
	what := fmt.Sprintf("no PostgreSQL %d or newer was found", oldest)
	if major != 0 {
		what = fmt.Sprintf("no PostgreSQL %d, which made the existing data, was found", major)
	}
	if why != nil {
		what += fmt.Sprintf(", and fetching one failed (%v)", why)
	}
	return fmt.Errorf("%s: install it with `%s`, or set SHOP_DATABASE_URL to a running server, or SHOP_PG_BIN to a directory with initdb and postgres",
		what, installCommand())
}

func installCommand() string {
	switch runtime.GOOS {
	case "darwin":
		return "brew install postgresql@18"
	case "windows":
		return "winget install PostgreSQL.PostgreSQL.18"
	case "freebsd":
		return "pkg install postgresql18-server postgresql18-contrib"
	}
	for _, i := range []struct{ tool, command string }{
		{"apt-get", "sudo apt-get install postgresql"},
		{"dnf", "sudo dnf install postgresql-server postgresql-contrib"},
		{"zypper", "sudo zypper install postgresql-server postgresql-contrib"},
		{"pacman", "sudo pacman -S postgresql"},
		{"apk", "sudo apk add postgresql postgresql-contrib"},
	} {
		if _, err := exec.LookPath(i.tool); err == nil {
			return i.command
		}
	}
	return "sudo apt-get install postgresql"
}

// candidates are the directories where systems keep PostgreSQL.
func candidates(ctx context.Context) []string {
	var dirs []string
	if out, err := exec.CommandContext(ctx, "pg_config", "--bindir").Output(); err == nil {
		dirs = append(dirs, strings.TrimSpace(string(out)))
	}
	if p, err := exec.LookPath("postgres"); err == nil {
		if p, err = filepath.EvalSymlinks(p); err == nil {
			dirs = append(dirs, filepath.Dir(p))
		}
	}
	for _, pattern := range []string{
		"/usr/lib/postgresql/*/bin", // Debian, Ubuntu
		"/usr/pgsql-*/bin",          // PostgreSQL's own RPMs
		"/usr/lib/postgresql*/bin",  // SUSE, Alpine
		"/usr/libexec/postgresql*",  // Alpine
		"/opt/homebrew/opt/postgresql*/bin",
		"/usr/local/opt/postgresql*/bin",
		"/home/linuxbrew/.linuxbrew/opt/postgresql*/bin",
		"/Applications/Postgres.app/Contents/Versions/*/bin",
		"/opt/local/lib/postgresql*/bin", // MacPorts
		"/usr/local/pgsql/bin",
		`C:\Program Files\PostgreSQL\*\bin`,
	} {
		m, _ := filepath.Glob(pattern)
		dirs = append(dirs, m...)
	}
	slices.Sort(dirs)
	return slices.Compact(dirs)
}
