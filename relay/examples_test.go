package relay

import (
	"os"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/auditrelay/auditrelay/config"
)

func TestEveryExampleLoads(t *testing.T) {
	files, err := filepath.Glob("../examples/*.yaml")
	require.NoError(t, err)
	require.GreaterOrEqual(t, len(files), 2)
	t.Setenv("PWD", "/somewhere")
	for _, file := range files {
		cfg, err := config.Load(file, Kinds())
		require.NoError(t, err)
		cfg.Normalize.Catalogs = nil // the site's own directory, which is not here
		r, _ := build(t, cfg)
		require.NoError(t, r.Check(), file)
	}
}

func TestReferenceHasEveryKey(t *testing.T) {
	data, err := os.ReadFile("../examples/reference.yaml")
	require.NoError(t, err)
	require.NoError(t, config.CompareKeys(data, Kinds()))
}
