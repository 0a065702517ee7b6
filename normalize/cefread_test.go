package normalize

import (
	"fmt"
	"strconv"
	"strings"
	"unicode/utf8"
)

// cefMessage is what a reader gets out of one line of CEF.
type cefMessage struct {
	vendor, product, version, class, name string
	severity                              int
	keys                                  []string // in the order of the line
	pairs                                 map[string]string
}

// cefRead reads one CEF line by the letter of the specification and shares no code with the encoder. It is strict:
// what a reader somewhere is known to stumble over is an error here.
func cefRead(line string) (*cefMessage, error) {
	if err := cefReadCharacters(line); err != nil {
		return nil, err
	}
	rest, ok := strings.CutPrefix(line, "CEF:0|")
	if !ok {
		return nil, fmt.Errorf("does not begin with CEF:0|")
	}
	var header [6]string
	for i := range header {
		var err error
		if header[i], rest, err = cefReadHeaderField(rest); err != nil {
			return nil, fmt.Errorf("header field %d: %w", i+1, err)
		}
	}
	m := &cefMessage{
		vendor: header[0], product: header[1], version: header[2], class: header[3], name: header[4],
		pairs: make(map[string]string),
	}
	severity, err := strconv.Atoi(header[5])
	if err != nil || severity < 0 || severity > 10 || strconv.Itoa(severity) != header[5] {
		return nil, fmt.Errorf("severity %q is not an integer from 0 to 10", header[5])
	}
	m.severity = severity
	return m, m.readExtension(rest)
}

// cefReadCharacters refuses everything that is a line break or a control to some reader.
func cefReadCharacters(line string) error {
	if !utf8.ValidString(line) {
		return fmt.Errorf("is not UTF-8")
	}
	for _, r := range line {
		if r < 0x20 || r >= 0x7f && r <= 0x9f || r == 0x2028 || r == 0x2029 {
			return fmt.Errorf("has the control character %U", r)
		}
	}
	return nil
}

// cefReadHeaderField reads up to the next pipe that has no backslash in front.
func cefReadHeaderField(s string) (field, rest string, err error) {
	var b strings.Builder
	for i := 0; i < len(s); i++ {
		switch s[i] {
		case '|':
			if b.Len() == 0 {
				return "", "", fmt.Errorf("is empty")
			}
			return b.String(), s[i+1:], nil
		case '\\':
			i++
			if i == len(s) || s[i] != '\\' && s[i] != '|' {
				return "", "", fmt.Errorf("has an unknown escape at %d", i)
			}
			b.WriteByte(s[i])
		default:
			b.WriteByte(s[i])
		}
	}
	return "", "", fmt.Errorf("has no end")
}

// readExtension finds the equals signs without a backslash in front; the word before each is a key, and a value goes up
// to the one space before the next key.
func (m *cefMessage) readExtension(s string) error {
	var equals []int
	for i := 0; i < len(s); i++ {
		switch s[i] {
		case '\\':
			i++
		case '=':
			equals = append(equals, i)
		}
	}
	if len(equals) == 0 && s != "" {
		return fmt.Errorf("extension %q has no pair", s)
	}
	start := 0 // of the key
	for n, equal := range equals {
		key, end, next := s[start:equal], len(s), 0
		if n+1 < len(equals) {
			space := strings.LastIndexByte(s[:equals[n+1]], ' ')
			if space <= equal {
				return fmt.Errorf("no space before the key after %s", key)
			}
			end, next = space, space+1
		}
		if err := m.addPair(key, s[equal+1:end]); err != nil {
			return err
		}
		start = next
	}
	return nil
}

func (m *cefMessage) addPair(key, escaped string) error {
	if key == "" || strings.Trim(key, "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789") != "" {
		return fmt.Errorf("key %q is not one word", key)
	}
	if _, twice := m.pairs[key]; twice {
		return fmt.Errorf("key %s is there twice", key)
	}
	if escaped == "" || strings.HasPrefix(escaped, " ") || strings.HasSuffix(escaped, " ") {
		return fmt.Errorf("value of %s is empty or has spaces at an end: %q", key, escaped)
	}
	var b strings.Builder
	for i := 0; i < len(escaped); i++ {
		if escaped[i] != '\\' {
			b.WriteByte(escaped[i])
			continue
		}
		i++
		if i == len(escaped) {
			return fmt.Errorf("value of %s ends in half an escape", key)
		}
		switch escaped[i] {
		case '\\', '=':
			b.WriteByte(escaped[i])
		case 'n':
			b.WriteByte('\n')
		case 'r':
			b.WriteByte('\r')
		default:
			return fmt.Errorf("value of %s has the unknown escape \\%c", key, escaped[i])
		}
	}
	m.keys = append(m.keys, key)
	m.pairs[key] = b.String()
	return nil
}
