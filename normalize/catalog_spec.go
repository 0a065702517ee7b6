package normalize

import (
	"regexp"
	"strconv"
	"strings"
	"time"

	"gopkg.in/yaml.v3"

	"github.com/auditrelay/auditrelay/audit"
)

// productSpec is a catalogue as the file has it, checked key by key but not yet resolved.
type productSpec struct {
	node  *yaml.Node
	id    string
	names ProductNames
	docs  []string

	detectColumns []string
	detectKeys    []conditionSpec

	columns                     []string
	jsonField, jsonPrefix       string
	detailsField, detailsPrefix string
	pairs                       []string

	classFrom   [][]string
	fold        string
	wordsOnly   bool
	aliasesNode *yaml.Node
	aliases     map[string]map[string]string

	module string

	times       []timeSpec
	agreeWithin time.Duration
	lateAfter   time.Duration

	outcomeCode string

	severityFrom     []string
	severityWords    map[string]audit.Severity
	severityExpected bool
	failureRaises    audit.Severity

	fields []fieldSpec
	other  entrySpec
	events []entrySpec
}

type timeSpec struct {
	node       *yaml.Node
	field      string
	layouts    []layout
	configured bool
}

// fieldSpec is one rule that fills a field of the event.
type fieldSpec struct {
	node   *yaml.Node
	to     audit.FieldKey
	from   []string
	value  string
	join   string
	joined bool
	base   bool // only what follows the last / or \
	unless audit.FieldKey
	when   []conditionSpec
}

// conditionSpec is one thing that must hold: the subject has one of the values. "*" stands for any value, "" for none.
type conditionSpec struct {
	node    *yaml.Node
	subject string
	values  []string
}

type entrySpec struct {
	node *yaml.Node
	Entry
	shape string
	words []wordSpec
}

// wordSpec is a rule by the words in a field of an event that nobody listed.
type wordSpec struct {
	field    string
	contains []string
	outcome  audit.Outcome
	decides  bool // the outcome was given
	severity audit.Severity
}

// product reads one catalogue.
func (r *catalogReader) product(root *yaml.Node) *productSpec {
	p := &productSpec{node: root, fold: "exact", lateAfter: 24 * time.Hour}
	p.other.node = root
	var catalog string
	r.mapping(root, "a catalogue", readers{
		"catalog": r.text(&catalog),
		"product": r.text(&p.id),
		"vendor":  r.text(&p.names.Vendor),
		"name":    r.text(&p.names.Name),
		"version": r.text(&p.names.Version),
		"docs":    r.texts(&p.docs),
		"module":  r.text(&p.module),
		"detect": func(n *yaml.Node) {
			r.mapping(n, "detect", readers{
				"columns": r.texts(&p.detectColumns),
				"keys":    r.conditions(&p.detectKeys),
			})
		},
		"decode":   func(n *yaml.Node) { r.decode(n, p) },
		"class":    func(n *yaml.Node) { r.class(n, p) },
		"time":     func(n *yaml.Node) { r.times(n, p) },
		"outcome":  func(n *yaml.Node) { r.mapping(n, "outcome", readers{"code": r.text(&p.outcomeCode)}) },
		"severity": func(n *yaml.Node) { r.severities(n, p) },
		"fields": func(n *yaml.Node) {
			r.each(n, "fields", func(item *yaml.Node) { p.fields = append(p.fields, r.field(item)) })
		},
		"other": func(n *yaml.Node) { p.other = r.entry(n, "") },
		"events": func(n *yaml.Node) {
			r.pairs(n, "events", func(key, value *yaml.Node) {
				e := r.entry(value, key.Value)
				e.node = key
				p.events = append(p.events, e)
			})
		},
	})
	if !productPattern.MatchString(p.id) {
		r.fail(root, "product %q must be small letters, digits and underscores", p.id)
	}
	if p.names.Vendor == "" || p.names.Name == "" || len(p.classFrom) == 0 {
		r.fail(root, "a catalogue needs the keys vendor, name and class")
		return nil
	}
	return p
}

func (r *catalogReader) decode(n *yaml.Node, p *productSpec) {
	r.mapping(n, "decode", readers{
		"columns": r.texts(&p.columns),
		"json": func(n *yaml.Node) {
			r.mapping(n, "json", readers{"field": r.text(&p.jsonField), "prefix": r.text(&p.jsonPrefix)})
		},
		"details": func(n *yaml.Node) {
			r.mapping(n, "details", readers{"field": r.text(&p.detailsField), "prefix": r.text(&p.detailsPrefix)})
		},
		"pairs": r.texts(&p.pairs),
	})
}

func (r *catalogReader) class(n *yaml.Node, p *productSpec) {
	r.mapping(n, "class", readers{
		"from": func(n *yaml.Node) {
			p.classFrom = nil
			r.each(n, "from", func(item *yaml.Node) {
				var names []string
				r.texts(&names)(item)
				p.classFrom = append(p.classFrom, names)
			})
			if len(p.classFrom) < 1 || len(p.classFrom) > 2 {
				r.fail(n, "a class is made of one or two parts, each a list of source fields")
			}
		},
		"fold":       r.word(&p.fold, "exact", "upper", "case"),
		"words_only": r.flag(&p.wordsOnly),
		"aliases": func(n *yaml.Node) {
			p.aliasesNode, p.aliases = n, map[string]map[string]string{}
			r.pairs(n, "aliases", func(part, names *yaml.Node) {
				p.aliases[part.Value] = map[string]string{}
				r.pairs(names, "aliases", func(alias, name *yaml.Node) { p.aliases[part.Value][alias.Value] = name.Value })
			})
		},
	})
}

func (r *catalogReader) times(n *yaml.Node, p *productSpec) {
	r.mapping(n, "time", readers{
		"from": func(n *yaml.Node) {
			p.times = nil
			r.each(n, "from", func(item *yaml.Node) { p.times = append(p.times, r.time(item)) })
		},
		"agree_within": r.duration(&p.agreeWithin),
		"late_after":   r.duration(&p.lateAfter),
	})
}

func (r *catalogReader) time(n *yaml.Node) timeSpec {
	t := timeSpec{node: n}
	zone := "utc"
	r.mapping(n, "a time", readers{
		"field": r.text(&t.field),
		"zone":  r.word(&zone, "utc", "configured"),
		"layouts": func(n *yaml.Node) {
			r.each(n, "layouts", func(item *yaml.Node) {
				l, err := parseLayout(item.Value)
				if err != nil {
					r.fail(item, "%v", err)
				}
				t.layouts = append(t.layouts, l)
			})
		},
	})
	t.configured = zone == "configured"
	if t.field == "" || len(t.layouts) == 0 {
		r.fail(n, "a time needs the keys field and layouts")
	}
	return t
}

func (r *catalogReader) duration(to *time.Duration) func(*yaml.Node) {
	return func(n *yaml.Node) {
		d, err := time.ParseDuration(n.Value)
		if err != nil || d <= 0 {
			r.fail(n, "%q is no duration: use 1s, 24h", n.Value)
		}
		*to = d
	}
}

func (r *catalogReader) severities(n *yaml.Node, p *productSpec) {
	r.mapping(n, "severity", readers{
		"from": r.texts(&p.severityFrom),
		"words": func(n *yaml.Node) {
			p.severityWords = map[string]audit.Severity{}
			r.pairs(n, "words", func(key, value *yaml.Node) {
				var s audit.Severity
				r.severity(&s)(value)
				p.severityWords[strings.ToLower(key.Value)] = s
			})
		},
		"expected":       r.flag(&p.severityExpected),
		"failure_raises": r.severity(&p.failureRaises),
	})
}

func (r *catalogReader) severity(to *audit.Severity) func(*yaml.Node) {
	return func(n *yaml.Node) {
		s, err := audit.ParseSeverity(n.Value)
		if err != nil {
			r.fail(n, "%v", err)
		}
		*to = s
	}
}

func (r *catalogReader) outcome(to *audit.Outcome) func(*yaml.Node) {
	return func(n *yaml.Node) {
		o, err := audit.ParseOutcome(n.Value)
		if err != nil {
			r.fail(n, "%v", err)
		}
		*to = o
	}
}

func (r *catalogReader) fieldKey(to *audit.FieldKey) func(*yaml.Node) {
	return func(n *yaml.Node) {
		key, ok := audit.FieldByName(n.Value)
		if !ok {
			r.fail(n, "there is no field %q", n.Value)
		}
		*to = key
	}
}

func (r *catalogReader) conditions(to *[]conditionSpec) func(*yaml.Node) {
	return func(n *yaml.Node) {
		r.pairs(n, "a condition", func(key, value *yaml.Node) {
			c := conditionSpec{node: key, subject: key.Value}
			r.texts(&c.values)(value)
			*to = append(*to, c)
		})
	}
}

func (r *catalogReader) field(n *yaml.Node) fieldSpec {
	f := fieldSpec{node: n}
	as := ""
	r.mapping(n, "a field rule", readers{
		"to":     r.fieldKey(&f.to),
		"from":   r.texts(&f.from),
		"value":  r.text(&f.value),
		"join":   func(n *yaml.Node) { r.text(&f.join)(n); f.joined = true },
		"as":     r.word(&as, "base_name"),
		"unless": r.fieldKey(&f.unless),
		"when":   r.conditions(&f.when),
	})
	f.base = as == "base_name"
	if f.to == 0 || (len(f.from) == 0) == (f.value == "") {
		r.fail(n, "a field rule needs the key to, and either from or value")
	}
	return f
}

var (
	productPattern   = regexp.MustCompile(`^[a-z][a-z0-9_]{0,31}$`)
	techniquePattern = regexp.MustCompile(`^(T\d{4}(?:\.\d{3})?)(?: (.+))?$`)
	versionPattern   = regexp.MustCompile(`^\d{1,9}(\.\d{1,9})*$`)
)

// entry reads one event, or the rule for all others.
func (r *catalogReader) entry(n *yaml.Node, class string) entrySpec {
	e := entrySpec{node: n, Entry: Entry{Class: class, Outcome: "unknown"}}
	claimed := ""
	r.mapping(n, "an event", readers{
		"name":        r.text(&e.Name),
		"severity":    r.severity(&e.Severity),
		"outcome":     r.word(&e.Outcome, "code", "success", "failure", "unknown"),
		"reason":      r.text(&e.Reason),
		"module":      r.text(&e.Module),
		"shape":       r.text(&e.shape),
		"claimed":     r.word(&claimed, "on_failure"),
		"since":       r.version(&e.Since),
		"until":       r.version(&e.Until),
		"never":       r.flag(&e.Never),
		"ecs":         func(n *yaml.Node) { r.ecs(n, &e.Entry) },
		"ocsf":        func(n *yaml.Node) { r.ocsf(n, &e.Entry) },
		"attack":      func(n *yaml.Node) { r.attack(n, &e.Entry) },
		"actor":       r.text(&e.Actor),
		"target":      r.text(&e.Target),
		"target_type": r.text(&e.TargetType),
		"parameters": func(n *yaml.Node) {
			r.pairs(n, "parameters", func(key, value *yaml.Node) {
				p := Parameters{Side: key.Value}
				r.texts(&p.Names)(value)
				e.Parameters = append(e.Parameters, p)
			})
		},
		"results": func(n *yaml.Node) {
			r.each(n, "results", func(item *yaml.Node) { e.Results = append(e.Results, r.result(item)) })
		},
		"meaning": func(n *yaml.Node) {
			r.mapping(n, "meaning", readers{"en": r.text(&e.MeaningEnglish), "cs": r.text(&e.MeaningCzech)})
		},
		"words": func(n *yaml.Node) {
			r.each(n, "words", func(item *yaml.Node) { e.words = append(e.words, r.words(item)) })
		},
	})
	e.ActorClaimed = claimed != ""
	if e.Severity == 0 || class != "" && (e.Name == "" || len(e.ECSCategory) == 0) {
		r.fail(n, "an event needs the keys name, severity and ecs, the rule for all others a severity")
	}
	if e.Since != "" && e.Until != "" && CompareVersions(e.Since, e.Until) > 0 {
		r.fail(n, "since %s is later than until %s", e.Since, e.Until)
	}
	if class != "" && len(e.words) > 0 {
		r.fail(n, "only the rule for all other events goes by words")
	}
	return e
}

func (r *catalogReader) version(to *string) func(*yaml.Node) {
	return func(n *yaml.Node) {
		if !versionPattern.MatchString(n.Value) || n.Tag != "!!str" {
			r.fail(n, "%q is no version: numbers with dots between, in quotes", n.Value)
		}
		*to = n.Value
	}
}

func (r *catalogReader) result(n *yaml.Node) Result {
	var v Result
	r.mapping(n, "a result", readers{
		"code":     r.text(&v.Code),
		"outcome":  r.outcome(&v.Outcome),
		"text":     r.text(&v.Text),
		"severity": r.severity(&v.Severity),
	})
	return v
}

func (r *catalogReader) words(n *yaml.Node) wordSpec {
	var w wordSpec
	r.mapping(n, "a word rule", readers{
		"field":    r.text(&w.field),
		"contains": r.texts(&w.contains),
		"outcome":  func(n *yaml.Node) { r.outcome(&w.outcome)(n); w.decides = true },
		"severity": r.severity(&w.severity),
	})
	if w.field == "" || len(w.contains) == 0 {
		r.fail(n, "a word rule needs the keys field and contains")
	}
	for i, word := range w.contains {
		w.contains[i] = strings.ToLower(word)
	}
	return w
}

func (r *catalogReader) attack(n *yaml.Node, e *Entry) {
	e.Attack = nil
	r.each(n, "attack", func(item *yaml.Node) {
		m := techniquePattern.FindStringSubmatch(item.Value)
		if m == nil {
			r.fail(item, "%q is no ATT&CK technique: use T1078 or T1110.001, a note may follow", item.Value)
			return
		}
		e.Attack = append(e.Attack, Technique{ID: m[1], Note: m[2]})
	})
}

func (r *catalogReader) ocsf(n *yaml.Node, e *Entry) {
	class, activity, ok := strings.Cut(n.Value, ":")
	c, err1 := strconv.ParseUint(class, 10, 16)
	a, err2 := strconv.ParseUint(activity, 10, 8)
	if !ok || err1 != nil || err2 != nil {
		r.fail(n, "%q is no OCSF class and activity: use \"3002:1\"", n.Value)
	}
	e.OCSFClass, e.OCSFActivity = int(c), int(a)
}
