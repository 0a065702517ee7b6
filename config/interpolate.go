package config

import (
	"cmp"
	"fmt"
	"io/fs"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"

	"gopkg.in/yaml.v3"
)

// maxExpandedBytes bounds what all ${…} of one file bring in together.
const maxExpandedBytes = 1 << 20

// expander puts in what ${…} stands for. It reads every reference once.
type expander struct {
	problems *problems
	env      environment
	known    map[string]reference // by its text, "${env:X}"
	used     []reference          // one for each use, in the order of the file
	total    int
}

// reference is one ${…} that was looked up.
type reference struct {
	text  string // as written in the file
	value string
	open  string // why others may read it, empty if they may not
	err   string // why there is no value, and what to do; empty if there is one
}

// expansion is a value of the file with its references put in.
type expansion struct {
	text string
	refs []reference // those in the value; with any, the text must not stand in a message
}

// from names the references, for a message in place of the text.
func (e expansion) from() string {
	names := make([]string, len(e.refs))
	for i, r := range e.refs {
		names[i] = r.text
	}
	return strings.Join(names, " and ")
}

// expand puts in the references of a scalar. It reports each one without a value, and false if there was any.
func (x *expander) expand(n *yaml.Node, path string) (expansion, bool) {
	var e expansion
	if !strings.Contains(n.Value, "${") {
		e.text = n.Value
		return e, true
	}
	if x.full() {
		return e, false // reported where the limit was passed; nothing more is read into memory
	}
	ok := true
	fail := func(message string) {
		x.problems.add(n.Line, n.Column, path, message)
		ok = false
	}
	var out strings.Builder
	for rest := n.Value; rest != ""; {
		start := strings.Index(rest, "${")
		if start < 0 {
			out.WriteString(rest)
			break
		}
		if start > 0 && rest[start-1] == '$' {
			out.WriteString(rest[:start-1] + "${")
			rest = rest[start+2:]
			continue
		}
		out.WriteString(rest[:start])
		end := strings.IndexByte(rest[start:], '}')
		if end < 0 {
			fail(`"${" without "}": close it, or write "$${" for a plain "${"`)
			break
		}
		ref := x.lookUp(rest[start : start+end+1])
		rest = rest[start+end+1:]
		if ref.err != "" {
			fail(ref.err)
			continue
		}
		e.refs = append(e.refs, ref)
		x.used = append(x.used, ref)
		x.total += len(ref.value)
		if out.WriteString(ref.value); out.Len() > maxValueBytes || x.full() {
			fail(fmt.Sprintf("too long with %s put in: a value takes at most %v, all ${…} together %v",
				ref.text, Bytes(maxValueBytes), Bytes(maxExpandedBytes)))
			break
		}
	}
	e.text = out.String()
	return e, ok
}

// full reports whether the references brought in too much; then nothing can be said of the values left out.
func (x *expander) full() bool { return x.total > maxExpandedBytes }

// lookUp returns a reference, from memory if it was looked up before.
func (x *expander) lookUp(text string) reference {
	if r, ok := x.known[text]; ok {
		return r
	}
	source, name, _ := strings.Cut(text[len("${"):len(text)-1], ":")
	r := reference{text: shortened(text)}
	switch source {
	case "env":
		x.variable(&r, name)
	case "file":
		x.file(&r, name)
	case "cred":
		x.credential(&r, name)
	default:
		r.err = quote(text) + ` is not known: use ${env:NAME}, ${file:/path} or ${cred:name}, or "$${" for a plain "${"`
	}
	if x.known == nil {
		x.known = make(map[string]reference)
	}
	x.known[text] = r
	return r
}

func (x *expander) variable(r *reference, name string) {
	if !regexp.MustCompile(`^[A-Za-z_][A-Za-z0-9_]*$`).MatchString(name) {
		r.err = quote(name) + " is not the name of a variable: write it as ${env:NAME}"
		return
	}
	value, ok := x.env.variable(name)
	if !ok {
		r.err = "the environment has no variable " + shortened(name) + ": set it for the service, or correct the name"
		return
	}
	r.value = value
}

func (x *expander) file(r *reference, path string) {
	if !filepath.IsAbs(path) {
		r.err = quote(path) + " is not an absolute path: write it as ${file:/path}"
		return
	}
	data, mode, err := x.env.file(path)
	if err != nil {
		r.err = fmt.Sprintf("read %s: %v: correct the path, or let auditrelay's user read the file", r.text, err)
		return
	}
	r.value = withoutLineBreak(data)
	if mode&0o066 != 0 {
		r.open = fmt.Sprintf("%s is open to others than its owner (mode %04o): chmod 600 %s",
			r.text, mode.Perm(), shortened(path))
	}
}

func (x *expander) credential(r *reference, name string) {
	if !regexp.MustCompile(`^[A-Za-z0-9_][A-Za-z0-9_.-]*$`).MatchString(name) {
		r.err = quote(name) + " is not the name of a credential: write it as ${cred:name}"
		return
	}
	dir, ok := x.env.variable("CREDENTIALS_DIRECTORY")
	if !ok || dir == "" {
		r.err = "there is no $CREDENTIALS_DIRECTORY: add LoadCredential=" + shortened(name) + ":/path to the systemd service"
		return
	}
	data, mode, err := x.env.file(filepath.Join(dir, name))
	if err != nil {
		r.err = fmt.Sprintf("read %s: %v: add LoadCredential=%s:/path to the systemd service", r.text, err, shortened(name))
		return
	}
	r.value = withoutLineBreak(data)
	// For a service with User= systemd lets the user in by an ACL, whose mask shows as the group's read bit (mode 0440,
	// systemd issue 29435), so that bit says nothing here. Everyone's bits do.
	if mode&0o026 != 0 {
		r.open = fmt.Sprintf("%s is open to others (mode %04o): chmod 600 %s",
			r.text, mode&fs.ModePerm, filepath.Join(dir, name))
	}
}

// withoutLineBreak takes off the one line break with which editors end a file.
func withoutLineBreak(data []byte) string {
	text, cut := strings.CutSuffix(string(data), "\n")
	if cut {
		text = strings.TrimSuffix(text, "\r")
	}
	return text
}

// scrubber takes what came in by references out of messages that a settings struct wrote.
type scrubber []scrubbed

// scrubbed is one form in which a value could stand in a message, and the reference to put in its place.
type scrubbed struct {
	form, ref string
}

// newScrubber looks for each value as it is and as it looks in quotes.
func newScrubber(refs []reference) scrubber {
	var s scrubber
	seen := make(map[string]bool)
	for _, r := range refs {
		if r.value == "" || seen[r.text] {
			continue
		}
		seen[r.text] = true
		s = append(s, scrubbed{r.value, r.text})
		if quoted := strconv.Quote(r.value); quoted != `"`+r.value+`"` {
			s = append(s, scrubbed{quoted[1 : len(quoted)-1], r.text})
		}
	}
	// The longest first: a value that is part of another one would leave the other's rest behind.
	slices.SortStableFunc(s, func(a, b scrubbed) int { return cmp.Compare(len(b.form), len(a.form)) })
	return s
}

// scrub replaces every occurrence of a value; one of fewer than four bytes, which is no secret, only where it stands as
// a word, so that a message stays readable when a value is "1".
func (s scrubber) scrub(message string) string {
	for _, x := range s {
		switch {
		case !strings.Contains(message, x.form):
		case len(x.form) >= 4:
			message = strings.ReplaceAll(message, x.form, x.ref)
		default:
			word := regexp.MustCompile(`(^|[^A-Za-z0-9])` + regexp.QuoteMeta(x.form) + `($|[^A-Za-z0-9])`)
			message = word.ReplaceAllString(message, "${1}"+strings.ReplaceAll(x.ref, "$", "$$")+"${2}")
		}
	}
	return message
}

// shortened is a text of the file without quotes, for a place in a message where it reads as a name.
func shortened(s string) string {
	q := quote(s)
	return strings.Replace(strings.TrimPrefix(strings.TrimSuffix(q, `"`), `"`), `"…`, "…", 1)
}
