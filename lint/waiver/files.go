package waiver

import (
	"os"
	"path/filepath"
	"strings"
)

// glob finds .sql files in dir and, with depth 2, in its folders. Files in dir itself count with depth 2 as well: there they
// belong to no module, which is for crossschema to say.
func glob(dir string, depth int) (out []string) {
	entries, err := os.ReadDir(dir)
	if err != nil {
		return nil
	}
	for _, e := range entries {
		name := filepath.Join(dir, e.Name())
		switch {
		case e.IsDir() && depth > 1:
			out = append(out, glob(name, depth-1)...)
		case !e.IsDir() && strings.HasSuffix(e.Name(), ".sql"):
			out = append(out, name)
		}
	}
	return out
}
