package normalize

import (
	"cmp"
	"embed"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/auditrelay/auditrelay/audit"
)

//go:embed catalogs/*.yaml
var embedded embed.FS

// genericProduct is the catalogue for records that no other one fits.
const genericProduct = "generic"

// Catalogs is what auditrelay knows about products: one catalogue each. It is immutable and safe for concurrent use.
type Catalogs struct {
	products []*product // sorted by id
}

// Entry is one event of a product's catalogue: what it means, and how other systems call it.
type Entry struct {
	Product  string
	Class    string // "USER/LOGIN", "ADMIN_DELETED", "*/Play recording"; empty for the product's rule for all other events
	Name     string // what happened: one fixed English text
	Category string // the first of ECSCategory

	Severity audit.Severity // without a failure, or where the record has none of its own
	Outcome  string         // code (by the record's result code), success, failure or unknown
	Reason   string         // why it failed, where the event itself says so
	Module   string         // the part of the product that writes it, where the vendor says so

	Since, Until string // versions of the product, both inclusive; empty = not said
	Never        bool   // the vendor says that it does not occur

	ECSCategory, ECSType    []string // Elastic Common Schema 9.4
	OCSFClass, OCSFActivity int      // OCSF 1.8
	Attack                  []Technique
	Actor, Target           string // in words
	TargetType              string // the kind of thing, where the record does not say it
	Parameters              []Parameters
	Results                 []Result
	MeaningEnglish          string
	MeaningCzech            string
	ActorClaimed            bool // of a failure, the actor is only what somebody typed
}

// Technique is a technique of MITRE ATT&CK that the event could be a trace of: a hint, not an accusation.
type Technique struct {
	ID   string // T1078, T1110.001
	Note string // the condition under which it fits, empty if there is none
}

// Parameters are the names of the details that the vendor lists for an event.
type Parameters struct {
	Side  string // whose they are: host, guest, gateway, event, details
	Names []string
}

// Result is one value of an event's own result code.
type Result struct {
	Code     string
	Outcome  audit.Outcome
	Text     string
	Severity audit.Severity // 0 = the ordinary rules
}

// LoadCatalogs reads the catalogues that are built in, then those in dirs (*.yaml, in the order of their names). A file
// with a product that is there already overrides it: its events are merged entry by entry and key by key (an entry of
// null is removed), every other key replaces the one that was there. Any other file adds a product. All mistakes are
// reported at once, each with file and line.
func LoadCatalogs(dirs ...string) (*Catalogs, error) {
	r := newCatalogReader()
	names, err := embedded.ReadDir("catalogs")
	if err != nil {
		return nil, fmt.Errorf("list built-in catalogues: %w", err)
	}
	for _, entry := range names {
		data, err := embedded.ReadFile("catalogs/" + entry.Name())
		if err != nil {
			return nil, fmt.Errorf("read built-in catalogue: %w", err)
		}
		r.add("builtin/"+entry.Name(), data)
	}
	for _, dir := range dirs {
		if err := r.addDir(dir); err != nil {
			return nil, err
		}
	}
	return r.finish()
}

// addDir adds the files of a site's directory.
func (r *catalogReader) addDir(dir string) error {
	entries, err := os.ReadDir(dir)
	if err != nil {
		return fmt.Errorf("read catalogues: %w; make the directory or take it out of normalize.catalogs", err)
	}
	for _, entry := range entries {
		if ext := filepath.Ext(entry.Name()); ext != ".yaml" && ext != ".yml" || entry.IsDir() {
			continue
		}
		path := filepath.Join(dir, entry.Name())
		data, err := os.ReadFile(path)
		if err != nil {
			return fmt.Errorf("read catalogue: %w", err)
		}
		r.add(path, data)
	}
	return nil
}

// finish compiles what was read.
func (r *catalogReader) finish() (*Catalogs, error) {
	c := &Catalogs{}
	for _, doc := range r.docs {
		if spec := r.product(doc); spec != nil {
			c.products = append(c.products, r.compile(spec))
		}
	}
	if len(r.problems) > 0 {
		return nil, errors.Join(r.problems...)
	}
	slices.SortFunc(c.products, func(a, b *product) int { return cmp.Compare(a.id, b.id) })
	if c.product(genericProduct) == nil {
		return nil, fmt.Errorf("load catalogues: there is none for product %q", genericProduct)
	}
	return c, nil
}

func (c *Catalogs) product(id string) *product {
	i, ok := slices.BinarySearchFunc(c.products, id, func(p *product, id string) int { return cmp.Compare(p.id, id) })
	if !ok {
		return nil
	}
	return c.products[i]
}

// Products returns the ids of all products, sorted.
func (c *Catalogs) Products() []string {
	ids := make([]string, len(c.products))
	for i, p := range c.products {
		ids[i] = p.id
	}
	return ids
}

// Product returns how a product is called where people read it.
func (c *Catalogs) Product(id string) (ProductNames, bool) {
	p := c.product(id)
	if p == nil {
		return ProductNames{}, false
	}
	return p.names, true
}

// Docs returns the vendor's documents that a product's catalogue was made from.
func (c *Catalogs) Docs(id string) []string {
	if p := c.product(id); p != nil {
		return slices.Clone(p.docs)
	}
	return nil
}

// Entries returns all entries of a product, sorted by class. Their slices must not be changed.
func (c *Catalogs) Entries(id string) []Entry {
	p := c.product(id)
	if p == nil {
		return nil
	}
	entries := make([]Entry, len(p.entries))
	for i, e := range p.entries {
		entries[i] = e.Entry
	}
	return entries
}

// Entry returns the entry for an event's class, and whether the catalogue lists the class. For one that it does not
// list it returns the product's rule for all other events. Its slices must not be changed.
func (c *Catalogs) Entry(id, class string) (Entry, bool) {
	p := c.product(id)
	if p == nil {
		return Entry{}, false
	}
	if e, ok := p.byClass[class]; ok {
		return e.Entry, true
	}
	// The first part may hold slashes of its own, and it may be missing.
	for tail, found := class, true; found; _, tail, found = strings.Cut(tail, "/") {
		if e, ok := p.byClass["*/"+tail]; ok {
			return e.Entry, true
		}
	}
	return p.other.Entry, false
}

// CompareVersions compares two versions number by number: 1.6 = 1.6.0, 1.10 > 1.9. Parts that are no numbers count as
// 0.
func CompareVersions(a, b string) int {
	for a != "" || b != "" {
		var x, y string
		x, a, _ = strings.Cut(a, ".")
		y, b, _ = strings.Cut(b, ".")
		if c := cmp.Compare(versionPart(x), versionPart(y)); c != 0 {
			return c
		}
	}
	return 0
}

func versionPart(s string) int {
	n := 0
	for i := 0; i < len(s) && i < 9 && s[i] >= '0' && s[i] <= '9'; i++ {
		n = n*10 + int(s[i]-'0')
	}
	return n
}
