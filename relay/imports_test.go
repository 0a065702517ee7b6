package relay

import (
	"go/parser"
	"go/token"
	"io/fs"
	"path/filepath"
	"strconv"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

const module = "github.com/auditrelay/auditrelay/"

// allowedImports is DESIGN.md section 2: imports run one way.
var allowedImports = map[string][]string{
	"audit":               {},
	"queue":               {},
	"queue/crashfs":       {"queue"},
	"config":              {"audit"},
	"normalize":           {"audit"},
	"collect":             {"audit", "config", "collect/tail"},
	"collect/tail":        {"audit"},
	"forward":             {"audit", "config"},
	"forward/forwardtest": {"audit", "forward"},
	"relay":               {"audit", "collect", "config", "forward", "normalize", "queue"},
	"cmd/auditrelay":      {"audit", "collect", "config", "forward", "normalize", "queue", "relay"},
}

// testOnly are packages that ordinary code must not import, and that a package's tests may.
var testOnly = map[string]bool{"queue/crashfs": true, "forward/forwardtest": true}

func TestImportsRunOneWay(t *testing.T) {
	root, err := filepath.Abs("..")
	require.NoError(t, err)
	seen := map[string]bool{}
	err = filepath.WalkDir(root, func(path string, entry fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		if entry.IsDir() && (strings.HasPrefix(entry.Name(), ".") && path != root || entry.Name() == "testdata") {
			return filepath.SkipDir
		}
		if !strings.HasSuffix(path, ".go") {
			return nil
		}
		rel, err := filepath.Rel(root, filepath.Dir(path))
		require.NoError(t, err)
		pkg := filepath.ToSlash(rel)
		allowed, ok := allowedImports[pkg]
		require.True(t, ok, "package %s is not in the house: see DECISIONS.md before adding one", pkg)
		seen[pkg] = true
		file, err := parser.ParseFile(token.NewFileSet(), path, nil, parser.ImportsOnly)
		require.NoError(t, err)
		for _, spec := range file.Imports {
			name, err := strconv.Unquote(spec.Path.Value)
			require.NoError(t, err)
			own, ours := strings.CutPrefix(name, module)
			if !ours || own == pkg || (strings.HasSuffix(path, "_test.go") && testOnly[own]) {
				continue
			}
			require.Contains(t, allowed, own, "%s imports %s", path, own)
		}
		return nil
	})
	require.NoError(t, err)
	for pkg := range allowedImports {
		require.True(t, seen[pkg], "package %s is missing", pkg)
	}
}
