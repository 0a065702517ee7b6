package config

import (
	"bytes"
	"regexp"
	"sort"
	"strconv"
	"strings"
	"unicode/utf8"
)

// explainSyntax turns an error of yaml.v3 into a place and words that say what to change. yaml.v3 names the line
// where the surrounding block began, or the line before it, or none; the cases below find the true one by parsing
// prefixes.
func explainSyntax(data []byte, err error) (line, column int, message string) {
	line, problem := splitSyntaxError(err)
	lines := bytes.SplitAfter(data, []byte("\n"))
	switch {
	case strings.Contains(problem, "tab character"):
		line = firstFailing(lines, problem)
		message = "broken YAML: " + problem
	case strings.Contains(problem, "did not find expected key"), strings.Contains(problem, "'-' indicator"):
		line = firstFailing(lines, problem)
		message = "the line does not fit the indentation above it: indent it like its neighbours, and put one key on a line"
	case strings.Contains(problem, "',' or ']'"):
		line = flowStart(lines, line)
		message = `the list in brackets that begins here is not closed with "]", or lacks a comma`
	case strings.Contains(problem, "',' or '}'"):
		line = flowStart(lines, line)
		message = `the section in braces that begins here is not closed with "}", or lacks a comma`
	case strings.Contains(problem, "found unexpected end of stream"):
		// Here yaml.v3's line is the quote's own; for a quote in the first line it is that of the end.
		if line = min(line, len(lines)); parses(lines, line-1) != nil {
			line = 1
		}
		message = "the quote that begins here is not closed"
	case strings.Contains(problem, "mapping values are not allowed"):
		message = `a second ": ", or a line indented deeper than the one above: put the value in quotes or indent it less`
	case strings.Contains(problem, "could not find expected ':'"):
		message = `a key without ": " after it: write "key: value"`
	case strings.Contains(problem, "unknown escape character"):
		message = `a "\" in double quotes begins an escape: use single quotes, or write "\\"`
	case strings.Contains(problem, "unknown anchor"):
		// The name is not repeated: an unquoted secret may begin with "*".
		line = firstFailing(lines, problem)
		message = `a value cannot begin with "*" unless it is an alias of an anchor above: put it in quotes`
	case strings.Contains(problem, "cannot start any token"):
		message = "a value cannot begin with @, %, ` or a tab: put it in quotes"
	case strings.Contains(problem, "exceeded max depth"):
		message = "nested deeper than " + strconv.Itoa(maxDepth) + " levels: make it flatter"
	default:
		message = "broken YAML: " + problem
	}
	line = max(1, min(line, len(lines)))
	return withColumn(lines[line-1], line, problem, message)
}

// splitSyntaxError splits "yaml: line N: problem"; without a line yaml.v3 means the first.
func splitSyntaxError(err error) (line int, problem string) {
	m := regexp.MustCompile(`(?s)^yaml: (?:line (\d+): )?(.*)$`).FindStringSubmatch(err.Error())
	if m == nil {
		return 1, err.Error()
	}
	if line, err = strconv.Atoi(m[1]); err != nil {
		line = 1
	}
	return line, m[2]
}

// withColumn finds the place in the line: the first character that is not blank, or the tab that stands before it.
func withColumn(text []byte, line int, problem, message string) (int, int, string) {
	blank := text[:len(text)-len(bytes.TrimLeft(text, " \t"))]
	about := strings.Contains(problem, "tab character") || strings.Contains(problem, "cannot start any token")
	if tab := bytes.IndexByte(blank, '\t'); tab >= 0 && about {
		return line, tab + 1, "a tab in the indentation: use spaces"
	}
	return line, utf8.RuneCount(blank) + 1, message
}

// firstFailing returns the number of the first line with which the file fails with the same problem. That only works
// for problems that the end of the file cannot cause: for these, what fails goes on failing whatever comes after it.
func firstFailing(lines [][]byte, problem string) int {
	return 1 + sort.Search(len(lines)-1, func(i int) bool {
		err := parses(lines, i+1)
		if err == nil {
			return false
		}
		_, p := splitSyntaxError(err)
		return p == problem
	})
}

// flowStart returns the line of the bracket that is not closed. yaml.v3's line is the one before it, or, for a
// bracket in the first line, the one before the problem, up to which the file is not complete.
func flowStart(lines [][]byte, line int) int {
	if line = min(line, len(lines)); parses(lines, line) == nil {
		return line + 1
	}
	return 1
}

// parses tries the first n lines.
func parses(lines [][]byte, n int) error {
	_, err := parseYAML(bytes.Join(lines[:max(0, n)], nil))
	return err
}
