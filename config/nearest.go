package config

import (
	"strings"
)

// unknown says that word is not one of valid and names the nearest, or all if none is near. what is "key" or "type".
func unknown(what, word string, valid []string) string {
	message := "unknown " + what + " " + quote(word) + ": "
	switch near := nearest(word, valid); {
	case near != "":
		return message + "did you mean " + quote(near) + "?"
	case len(valid) == 0:
		return message + "there are none to choose from here"
	case len(valid) == 1:
		return message + "use " + valid[0]
	default:
		return message + "use " + orList(valid)
	}
}

// orList joins words as "a, b or c".
func orList(words []string) string {
	if len(words) < 2 {
		return strings.Join(words, "")
	}
	last := len(words) - 1
	return strings.Join(words[:last], ", ") + " or " + words[last]
}

// nearest returns the word of valid that a slip of the hand could have turned into word, or "". Case, "-" and "_" do
// not count; otherwise one slip in three characters is forgiven.
func nearest(word string, valid []string) string {
	if len(word) > maxQuoted {
		return ""
	}
	best, bestSlips := "", len(word)+1
	for _, v := range valid {
		slips := editDistance(plain(word), plain(v))
		if limit := max(1, max(len(word), len(v))/3); slips <= limit && slips < bestSlips {
			best, bestSlips = v, slips
		}
	}
	return best
}

func plain(word string) string {
	return strings.ReplaceAll(strings.ToLower(word), "-", "_")
}

// editDistance counts the insertions, deletions, changes and swaps of neighbours that turn a into b, in bytes (optimal
// string alignment).
func editDistance(a, b string) int {
	before, last, row := make([]int, len(b)+1), make([]int, len(b)+1), make([]int, len(b)+1)
	for j := range last {
		last[j] = j
	}
	for i := 1; i <= len(a); i++ {
		row[0] = i
		for j := 1; j <= len(b); j++ {
			change := 1
			if a[i-1] == b[j-1] {
				change = 0
			}
			row[j] = min(last[j]+1, row[j-1]+1, last[j-1]+change)
			if i > 1 && j > 1 && a[i-1] == b[j-2] && a[i-2] == b[j-1] {
				row[j] = min(row[j], before[j-2]+1)
			}
		}
		before, last, row = last, row, before
	}
	return last[len(b)]
}
