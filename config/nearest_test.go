package config

import (
	"testing"

	"github.com/stretchr/testify/require"
)

func TestEditDistance(t *testing.T) {
	for _, c := range []struct {
		a, b string
		want int
	}{
		{"", "", 0},
		{"a", "", 1},
		{"", "ab", 2},
		{"same", "same", 0},
		{"kitten", "sitting", 3},
		{"memroy", "memory", 1},
		{"ca", "abc", 3},
		{"fiel", "file", 1},
		{"flie", "file", 1},
	} {
		require.Equal(t, c.want, editDistance(c.a, c.b), "%s %s", c.a, c.b)
		require.Equal(t, c.want, editDistance(c.b, c.a), "%s %s", c.b, c.a)
	}
}

func TestNearest(t *testing.T) {
	valid := []string{"type", "paths", "max_record", "poll"}
	for word, want := range map[string]string{
		"path": "paths", "Type": "type", "max-record": "max_record", "maxrecord": "max_record", "polls": "poll",
		"include": "",
		"":        "", "x": "",
	} {
		require.Equal(t, want, nearest(word, valid), word)
	}
	require.Equal(t, `unknown key "x": use type, paths, max_record or poll`, unknown("key", "x", valid))
	require.Equal(t, `unknown key "x": use type`, unknown("key", "x", valid[:1]))
	require.Equal(t, `unknown key "x": there are none to choose from here`, unknown("key", "x", nil))
}
