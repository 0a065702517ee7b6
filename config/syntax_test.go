package config

import (
	"fmt"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

// TestSyntaxErrorsNameTheTrueLine puts each mistake at several places, because yaml.v3 counts differently in the first
// line, and after blocks that are good.
func TestSyntaxErrorsNameTheTrueLine(t *testing.T) {
	good := "list:\n  - [a,\n     b]\n  - {c: d,\n     e: \"f\n      g\"}\nk: v\n"
	for name, c := range map[string]struct {
		text string
		line int // of the mistake in text, from 1
		want string
	}{
		"tab":            {"a:\n\tb: 1\n", 2, "a tab in the indentation"},
		"tab at once":    {"\tb: 1\n", 1, "a tab in the indentation"},
		"block scalar":   {"a: |\n\tfoo\n", 2, "a tab in the indentation"},
		"less indented":  {"a:\n  - b\n c: d\n", 3, "does not fit the indentation"},
		"list then key":  {"a:\n  - b\n  c: d\n", 3, "does not fit the indentation"},
		"second colon":   {"a: b: c\n", 1, `a second ": "`},
		"deeper":         {"a: b\n  c: d\n", 2, `a second ": "`},
		"bracket":        {"a: [1, 2\nb: 3\n", 1, `not closed with "]"`},
		"bracket later":  {"a: 1\nb: [1, 2\nc: 3\nd: 4\n", 2, `not closed with "]"`},
		"brace":          {"a: {b: 1\nc: 2\n", 1, `not closed with "}"`},
		"quote":          {"a: \"x\nb: y\n", 1, "the quote that begins here"},
		"quote later":    {"a: 1\nb: 'x\nc: y\n", 2, "the quote that begins here"},
		"no colon":       {"a: 1\nkey\nb: 1\n", 2, `a key without ": "`},
		"escape":         {"a: \"\\q\"\n", 1, "begins an escape"},
		"anchor":         {"a: *x\n", 1, `cannot begin with "*"`},
		"at sign":        {"a: `x`\n", 1, "cannot begin with @"},
		"unknown escape": {"a: 1\nb: 2\nc: \"\\q\"\n", 3, "begins an escape"},
	} {
		for _, before := range []string{"", "z: 1\n", "# one\n# two\n# three\n", good, good + "\n\n"} {
			t.Run(fmt.Sprintf("%s after %d lines", name, strings.Count(before, "\n")), func(t *testing.T) {
				found := &problems{file: "x"}
				require.Nil(t, readDocument([]byte(before+c.text), found))
				require.Len(t, found.list, 1)
				require.Contains(t, found.list[0].Message, c.want)
				require.Equal(t, strings.Count(before, "\n")+c.line, found.list[0].Line)
			})
		}
	}
}

func TestBlockScalarsMayHoldTabs(t *testing.T) {
	require.NotNil(t, readDocument([]byte("a: |\n  b\n  \tc\td\n"), &problems{}))
}
