package config

import (
	"cmp"
	"fmt"
	"slices"
	"strconv"
	"strings"
)

// maxProblems bounds what one file can make us keep and print; who has more mends these first.
const maxProblems = 100

// Problem is one thing wrong in a configuration file.
type Problem struct {
	File         string
	Line, Column int    // from 1; columns count characters
	Path         string // dotted, as "collect.portal.paths[1]"; empty for the file as a whole
	Message      string // what is wrong and what to change
}

// String returns "file:line:column: path: message".
func (p Problem) String() string {
	s := fmt.Sprintf("%s:%d:%d: ", p.File, p.Line, p.Column)
	if p.Path != "" {
		s += p.Path + ": "
	}
	return s + p.Message
}

// Error is all that is wrong with a configuration file. Its Problems are sorted by line and column; there is at least
// one.
type Error struct {
	Problems []Problem
	Left     int // problems that were found beyond those kept
}

// Error returns one line for each problem.
func (e *Error) Error() string {
	var b strings.Builder
	for i, p := range e.Problems {
		if i > 0 {
			b.WriteByte('\n')
		}
		b.WriteString(p.String())
	}
	if e.Left > 0 {
		fmt.Fprintf(&b, "\nand %d more: mend these first", e.Left)
	}
	return b.String()
}

// problems collects what is found in one file.
type problems struct {
	file string
	list []Problem
	left int
}

func (p *problems) add(line, column int, path, message string) {
	if len(p.list) == maxProblems {
		p.left++
		return
	}
	p.list = append(p.list, Problem{File: p.file, Line: line, Column: column, Path: path, Message: message})
}

// clean reports whether nothing was found at path or below it.
func (p *problems) clean(path string) bool {
	return !slices.ContainsFunc(p.list, func(q Problem) bool { return within(q.Path, path) })
}

// within reports whether path is outer or below it.
func within(path, outer string) bool {
	rest, ok := strings.CutPrefix(path, outer)
	return ok && (rest == "" || rest[0] == '.' || rest[0] == '[')
}

// err returns nil or an *Error with the problems in the order of the file.
func (p *problems) err() error {
	if len(p.list) == 0 {
		return nil
	}
	slices.SortStableFunc(p.list, func(a, b Problem) int {
		return cmp.Or(cmp.Compare(a.Line, b.Line), cmp.Compare(a.Column, b.Column))
	})
	return &Error{Problems: p.list, Left: p.left}
}

// maxQuoted bounds how much of a key or value a message repeats.
const maxQuoted = 64

// quote shows a text of the file in a message: escaped, and cut if it is long.
func quote(s string) string {
	if len(s) > maxQuoted {
		return strconv.Quote(strings.ToValidUTF8(s[:maxQuoted], "")) + "…"
	}
	return strconv.Quote(s)
}
