package tail

import (
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
)

// pattern is one of Options.Paths.
type pattern struct {
	text       string
	literal    bool // no wildcard: the path of one file
	everything bool // ends in /*, which is not meant for directories
	seen       bool // it was expanded once, in this run or, as its note says, in an earlier one
}

// CheckPattern returns an error that wraps ErrPattern and says what is wrong, or nil.
func CheckPattern(text string) error {
	_, err := parsePattern(text)
	return err
}

func parsePattern(text string) (pattern, error) {
	if text == "" {
		return pattern{}, fmt.Errorf("%w: it is empty", ErrPattern)
	}
	if strings.Contains(text, "**") {
		return pattern{}, fmt.Errorf("%w %q: ** is not known, write one pattern for each depth", ErrPattern, text)
	}
	if _, err := filepath.Match(text, ""); err != nil {
		return pattern{}, fmt.Errorf("%w %q: a [ has no ], or the pattern ends in a backslash", ErrPattern, text)
	}
	text = filepath.Clean(text)
	return pattern{text: text, literal: !hasMeta(text), everything: filepath.Base(text) == "*"}, nil
}

func hasMeta(s string) bool { return strings.ContainsAny(s, `*?[\`) }

// expand calls found with each path that matches. An error says that a directory could not be read; the paths found
// until then are good. A missing directory is an error only if the pattern names it without a wildcard. listed is how
// many names were read for that.
func (p pattern) expand(found func(path string)) (listed int, err error) {
	return expand(p.text, found)
}

func expand(text string, found func(path string)) (listed int, err error) {
	if !hasMeta(text) {
		found(text)
		return 0, nil
	}
	dir, name := filepath.Split(text)
	dir = filepath.Clean(dir)
	if !hasMeta(dir) {
		return match(dir, name, found)
	}
	var problem error
	total, err := expand(dir, func(dir string) {
		n, err := match(dir, name, found)
		listed += n
		if err != nil && !errors.Is(err, os.ErrNotExist) && !isNotDirectory(dir) {
			problem = err
		}
	})
	return listed + total, errors.Join(err, problem)
}

func isNotDirectory(path string) bool {
	st, err := os.Stat(path)
	return err == nil && !st.IsDir()
}

// match lists a directory in pieces, so that a million names need no memory.
func match(dir, pattern string, found func(path string)) (listed int, err error) {
	d, err := os.Open(dir)
	if err != nil {
		return 0, err
	}
	defer func() { _ = d.Close() }()
	for {
		names, err := d.Readdirnames(1024)
		listed += len(names)
		for _, name := range names {
			if strings.HasPrefix(name, ".") && !strings.HasPrefix(pattern, ".") {
				continue
			}
			if ok, _ := filepath.Match(pattern, name); ok { // the pattern was checked when it was parsed
				found(filepath.Join(dir, name))
			}
		}
		if err == io.EOF {
			return listed, nil
		}
		if err != nil {
			return listed, err
		}
	}
}

// excluded reports whether the path matches one of the patterns for paths that are left out.
func excluded(patterns []string, path string) bool {
	for _, p := range patterns {
		subject := path
		if !strings.Contains(p, "/") {
			subject = filepath.Base(path)
		}
		if ok, _ := filepath.Match(p, subject); ok { // checked by New
			return true
		}
	}
	return false
}

// generationChars are the characters of what rotation adds to a name: a number, a date, a time.
const generationChars = "0123456789.-_:T"

// originals returns the names that a file may have had before it was rotated to this name:
// app.log for app.log.1, app.log.old, app.log-20250131, app-2025-01-31.log and app.1.log.
func originals(name string) []string {
	list := strip(nil, name, "")
	if ext := filepath.Ext(name); ext != "" && strings.Trim(ext, generationChars) != "" {
		list = strip(list, strings.TrimSuffix(name, ext), ext)
	}
	return list
}

func strip(list []string, name, ext string) []string {
	if base, ok := strings.CutSuffix(name, ".old"); ok && base != "" {
		list = append(list, base+ext)
	}
	stem := strings.TrimRight(name, generationChars)
	if !strings.ContainsAny(name[len(stem):], "0123456789") {
		return list
	}
	for i := max(1, len(stem)); i < len(name); i++ {
		if strings.IndexByte(".-_", name[i]) >= 0 && strings.ContainsAny(name[i:], "0123456789") {
			list = append(list, name[:i]+ext)
		}
	}
	return list
}

// Literal returns the pattern that matches path and nothing else.
func Literal(path string) string {
	return strings.NewReplacer(`*`, `\*`, `?`, `\?`, `[`, `\[`, `\`, `\\`).Replace(path)
}
