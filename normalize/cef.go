package normalize

import (
	"bytes"
	"cmp"
	"math"
	"slices"
	"strconv"
	"strings"
	"sync/atomic"
	"unicode/utf8"

	"github.com/auditrelay/auditrelay/audit"
)

// Lengths of CEF header fields, in characters before escaping (CEF v27, "Header Field Definitions").
const (
	cefVendorLimit  = 63
	cefProductLimit = 63
	cefVersionLimit = 31
	cefClassLimit   = 1023
	cefNameLimit    = 512
)

// cefUnknown stands in a header field that would be empty: some readers drop events with an empty one.
const cefUnknown = "Unknown"

// The slots that only CEF has. A value comes to one of them when its own key cannot take it.
const (
	cefSlotClientIPv6 = encKeys + iota // client.ip, as IPv6
	cefSlotHostIPv6                    // host.ip, as IPv6
	cefSlotDestHost                    // target.name, of a computer
	cefSlotTargetName                  // target.name, if no other key is right or free
	cefSlotTargetID                    // target.id, likewise
	cefSlotCodeText                    // result.code, if it is not an integer
	cefExtraSlots     = cefSlotCodeText - encKeys + 1
)

// cefExtra says how the additional slots are sent. The labels of the addresses are their names in the dictionary's sense:
// c6a1 is the device's, c6a2 the source's. cs4 is free because the node goes to dvchost.
var cefExtra = [...]cefRow{
	{slot: cefSlotDestHost, key: "dhost", limit: 1023},
	{slot: cefSlotCodeText, key: "cs4", label: "ResultCode", limit: 4000},
	{slot: cefSlotHostIPv6, key: "c6a1", label: "Device IPv6 Address", limit: 45},
	{slot: cefSlotClientIPv6, key: "c6a2", label: "Source IPv6 Address", limit: 45},
	{slot: cefSlotTargetName, key: "flexString1", label: "EntityName", limit: 1023},
	{slot: cefSlotTargetID, key: "flexString2", label: "EntityId", limit: 1023},
}

// cefTargets is the rule for targets: which kind of target is sent under which key. The kind is target.type in lower
// case with every '-' and space as '_'. The name or id goes to the slot, and so to the CEF key beside it, if the event
// has nothing else there; if it has the same value there, once is enough; if it has another, and for all kinds that
// are not listed, name and id go to flexString1 and flexString2, labelled EntityName and EntityId, so that a role or a
// licence never looks like a user. A target without a type is taken for a user, as the field table says.
var cefTargets = [...]struct {
	kinds    string
	name, id encSlot
}{
	{ // duser, duid
		kinds: "user users administrator admin superadmin account_owner guest contact recipient sender person",
		name:  encSlot(audit.KeyTargetName), id: encSlot(audit.KeyTargetID),
	},
	{ // dhost, deviceExternalId
		kinds: "device host host_device computer machine server node workstation",
		name:  cefSlotDestHost, id: encSlot(audit.KeyHostID),
	},
	{ // fname, fileId
		kinds: "file document attachment",
		name:  encSlot(audit.KeyFileName), id: encSlot(audit.KeyPackageID),
	},
	{ // flexString1, fileId
		kinds: "package recording archive",
		name:  cefSlotTargetName, id: encSlot(audit.KeyPackageID),
	},
	{ // dpriv, flexString2
		kinds: "group user_group device_group contact_group ldap_group role",
		name:  encSlot(audit.KeyGroupName), id: cefSlotTargetID,
	},
	{ // destinationServiceName, flexString2
		kinds: "application app service",
		name:  encSlot(audit.KeyAppName), id: cefSlotTargetID,
	},
}

// cefKindMax is longer than every kind of cefTargets.
const cefKindMax = 32

// cefTarget says where name and id of a kind of target go.
type cefTarget struct{ name, id encSlot }

// cefRow is one pair of the extension.
type cefRow struct {
	slot       encSlot
	key, label string
	limit      int    // characters, before escaping
	prefix     string // what stands before the value: a space, the label's pair if there is one, the key, '='
}

// cefEncoder writes CEF version 0 (ArcSight Common Event Format, document version 27):
//
//	CEF:0|vendor|product|version|class|name|severity|rt=… externalId=… cat=… act=… outcome=… …
//
// The extension has the keys of audit.Fields, always in the same order: the five above, the table's other keys in its
// order, then custom strings, numbers and addresses, each after its label. All keys are producer keys of CEF 0.1. Not
// sent are the vendor's attributes (CEF has no places for them; made-up keys are only "additional data" to ArcSight
// and one text column elsewhere), the marks, and the raw record (rawEvent is the receiver's own key): native JSON has
// all.
//
// Values: spaces and control characters at the ends are dropped, then what is over the limit, then the rest is escaped.
// Line breaks are written as \n and \r; other control characters, U+2028 and U+2029 become a space, bytes that are not
// UTF-8 become U+FFFD each. Empty values and an unknown outcome are left out. An address that is none is sent as the
// host name, if the event has no other. A result code that is not an integer is sent as cs4.
type cefEncoder struct {
	names   func(product string) ProductNames
	first   []cefRow // cat, act
	strings []cefRow // all keys without a label, cs1 to cs6
	last    []cefRow // cn2 and what comes after it
	targets map[string]cefTarget
	cut     atomic.Uint64
}

func newCEFEncoder(opt EncoderOptions) *cefEncoder {
	c := &cefEncoder{names: opt.Names, targets: make(map[string]cefTarget)}
	for _, t := range cefTargets {
		for kind := range strings.FieldsSeq(t.kinds) {
			c.targets[kind] = cefTarget{t.name, t.id}
		}
	}
	for _, row := range cefRows() {
		switch {
		case row.slot == encSlot(audit.KeyCategory), row.slot == encSlot(audit.KeyAction):
			c.first = append(c.first, row)
		case cefRank(row) < 2:
			c.strings = append(c.strings, row)
		default:
			c.last = append(c.last, row)
		}
	}
	return c
}

// cefRows returns the pairs that are fields, in the order of sending.
func cefRows() []cefRow {
	var rows []cefRow
	for _, info := range audit.Fields() {
		if info.CEFLimit > 0 {
			rows = append(rows, cefRow{slot: encSlot(info.Key), key: info.CEF, label: info.CEFLabel, limit: info.CEFLimit})
		}
	}
	rows = append(rows, cefExtra[:]...)
	for i := range rows {
		if rows[i].label != "" {
			rows[i].prefix = " " + rows[i].key + "Label=" + rows[i].label
		}
		rows[i].prefix += " " + rows[i].key + "="
	}
	slices.SortStableFunc(rows, func(a, b cefRow) int {
		rank := cmp.Compare(cefRank(a), cefRank(b))
		if rank == 0 && a.label != "" {
			return cmp.Compare(a.key, b.key)
		}
		return rank
	})
	return rows
}

// cefRank brings the keys without a label to the front, and the others in the order strings, numbers, addresses, flex.
func cefRank(row cefRow) int {
	switch {
	case row.label == "":
		return 0
	case strings.HasPrefix(row.key, "cs"):
		return 1
	case strings.HasPrefix(row.key, "cn"):
		return 2
	case strings.HasPrefix(row.key, "c6a"):
		return 3
	default:
		return 4
	}
}

// Cut returns how many values were cut short or left out so far.
func (c *cefEncoder) Cut() uint64 { return c.cut.Load() }

// Append appends one event; see Encoder and cefEncoder.
func (c *cefEncoder) Append(dst []byte, ev *audit.Event) []byte {
	var x encIndex
	x.fill(ev.Fields)
	lost := c.place(ev.Fields, &x)

	dst, n := c.appendHeader(dst, ev, &x)
	lost += n
	start := len(dst)
	if ms := ev.Time.UnixMilli(); ms >= 0 {
		dst = strconv.AppendInt(append(dst, " rt="...), ms, 10)
	} else {
		lost++
	}
	if !ev.ID.IsZero() {
		dst = ev.ID.Append(append(dst, " externalId="...))
	}
	dst, n = cefAppendRows(dst, ev.Fields, &x, c.first)
	lost += n
	if ev.Outcome != audit.OutcomeUnknown {
		dst = append(append(dst, " outcome="...), ev.Outcome.String()...)
	}
	dst, n = cefAppendRows(dst, ev.Fields, &x, c.strings)
	lost += n
	if ev.Number > 0 && ev.Number <= math.MaxInt64 {
		dst = strconv.AppendUint(append(dst, " cn1Label=Number cn1="...), uint64(ev.Number), 10)
	}
	dst, n = cefAppendRows(dst, ev.Fields, &x, c.last)
	lost += n
	if len(dst) > start { // no space before the first pair
		dst = append(dst[:start], dst[start+1:]...)
	}
	if lost > 0 {
		c.cut.Add(lost)
	}
	return dst
}

// appendHeader appends the seven header fields, each with its pipe.
func (c *cefEncoder) appendHeader(dst []byte, ev *audit.Event, x *encIndex) ([]byte, uint64) {
	names := c.names(ev.Product)
	product := names.Name
	if product == "" {
		product = ev.Product
	}
	var lost, n uint64
	dst = append(dst, "CEF:0|"...)
	dst, n = cefAppendHeaderField(dst, names.Vendor, cefVendorLimit)
	lost += n
	dst, n = cefAppendHeaderField(dst, product, cefProductLimit)
	lost += n
	dst, n = cefAppendHeaderField(dst, names.Version, cefVersionLimit)
	lost += n
	dst, n = cefAppendHeaderField(dst, ev.Class, cefClassLimit)
	lost += n
	if name := encTrim(x.value(ev.Fields, encSlot(audit.KeyName))); len(name) > 0 {
		dst, n = cefAppendHeaderField(dst, name, cefNameLimit)
	} else {
		dst, n = cefAppendHeaderField(dst, ev.Class, cefNameLimit)
	}
	dst = strconv.AppendInt(dst, int64(ev.Severity.CEF()), 10)
	return append(dst, '|'), lost + n
}

// cefAppendHeaderField appends a header field, cefUnknown if it would be empty, and a pipe.
func cefAppendHeaderField[T string | []byte](dst []byte, s T, limit int) ([]byte, uint64) {
	start := len(dst)
	dst, lost := cefAppendText(dst, s, limit, cefHeaderTable)
	if len(dst) == start {
		dst = append(dst, cefUnknown...)
	}
	return append(dst, '|'), lost
}

// cefAppendRows appends the pairs of those rows whose slot holds something.
func cefAppendRows(dst []byte, fields []audit.Field, x *encIndex, rows []cefRow) ([]byte, uint64) {
	var lost uint64
	for i := range rows {
		row := &rows[i]
		field := x[row.slot]
		if field == 0 {
			continue
		}
		before := len(dst)
		dst = append(dst, row.prefix...)
		start := len(dst)
		var n uint64
		dst, n = cefAppendText(dst, fields[field-1].Value, row.limit, cefValueTable)
		lost += n
		if len(dst) == start { // nothing but blanks
			dst = dst[:before]
		}
	}
	return dst, lost
}

// place moves the values that may not be sent under the key that the field table names, and returns how many have no
// place at all.
func (c *cefEncoder) place(fields []audit.Field, x *encIndex) (lost uint64) {
	lost = cefPlaceAddress(fields, x, encSlot(audit.KeyClientIP), cefSlotClientIPv6, encSlot(audit.KeyClientHost))
	lost += cefPlaceAddress(fields, x, encSlot(audit.KeyHostIP), cefSlotHostIPv6, encSlot(audit.KeyHostName))
	code := encSlot(audit.KeyResultCode)
	if x[code] != 0 && !encIsInteger(encTrim(x.value(fields, code))) {
		cefMove(fields, x, code, cefSlotCodeText)
	}
	name, id := encSlot(audit.KeyTargetName), encSlot(audit.KeyTargetID)
	kind := encTrim(x.value(fields, encSlot(audit.KeyTargetType)))
	if len(kind) == 0 || x[name] == 0 && x[id] == 0 {
		return lost
	}
	to := c.target(kind)
	if !cefMove(fields, x, name, to.name) {
		cefMove(fields, x, name, cefSlotTargetName)
	}
	if !cefMove(fields, x, id, to.id) {
		cefMove(fields, x, id, cefSlotTargetID)
	}
	return lost
}

// target returns where name and id of a kind of target go.
func (c *cefEncoder) target(kind []byte) cefTarget {
	other := cefTarget{cefSlotTargetName, cefSlotTargetID}
	var word [cefKindMax]byte
	if len(kind) > len(word) {
		return other
	}
	for i, b := range kind {
		switch {
		case b >= 'A' && b <= 'Z':
			b += 'a' - 'A'
		case b == ' ' || b == '-':
			b = '_'
		}
		word[i] = b
	}
	if t, ok := c.targets[string(word[:len(kind)])]; ok {
		return t
	}
	return other
}

// cefPlaceAddress leaves an IPv4 address where it is and moves an IPv6 address to the slot v6, anything else to the
// slot of the host's name. It returns 1 if that is taken: then the value is not sent.
func cefPlaceAddress(fields []audit.Field, x *encIndex, slot, v6, host encSlot) uint64 {
	if x[slot] == 0 {
		return 0
	}
	address := encTrim(x.value(fields, slot))
	switch {
	case encIsIPv4(address):
	case encIsIPv6(address):
		cefMove(fields, x, slot, v6)
	case !cefMove(fields, x, slot, host):
		x[slot] = 0
		return 1
	}
	return 0
}

// cefMove moves a value to another slot and reports whether that was possible: the slot was empty, or had the same
// value.
func cefMove(fields []audit.Field, x *encIndex, from, to encSlot) bool {
	if from == to {
		return true
	}
	value, there := encTrim(x.value(fields, from)), encTrim(x.value(fields, to))
	switch {
	case len(value) == 0 || bytes.Equal(value, there):
	case len(there) == 0:
		x[to] = x[from]
	default:
		return false
	}
	x[from] = 0
	return true
}

// The actions of CEF.
const (
	cefBackslash encAction = iota + 1 // a backslash in front
	cefBlank                          // a space instead
	cefLineFeed                       // \n
	cefReturn                         // \r
	cefDecode                         // part of a character of several bytes
)

// Header and extension escape differently (CEF v27, "Character Encoding"): a pipe only in the header, an equals sign
// only in the extension, and the header has no way to write a line break.
var (
	cefHeaderTable = encNewTable('|', map[byte]encAction{'\\': cefBackslash, '|': cefBackslash}, cefBlank, cefDecode)
	cefValueTable  = encNewTable('=', map[byte]encAction{
		'\\': cefBackslash, '=': cefBackslash, '\n': cefLineFeed, '\r': cefReturn,
	}, cefBlank, cefDecode)
)

// cefAppendText appends s, cut to limit characters and escaped, and returns 1 as well if it was cut. It begins and ends
// with no space: a reader would take spaces at the end for the gap before the next key.
func cefAppendText[T string | []byte](dst []byte, s T, limit int, table *encTable) ([]byte, uint64) {
	var lost uint64
	s = encTrim(s)
	if len(s) > limit {
		var cut bool
		if s, cut = encCut(s, limit); cut {
			lost = 1
		}
	}
	start := len(dst)
	for i := 0; ; {
		if dst, i = encCopy(dst, s, i, table); i == len(s) {
			return cefTrimSpaces(dst, start), lost
		}
		size := 1
		switch table.actions[s[i]] {
		case cefBackslash:
			dst = append(dst, '\\', s[i])
		case cefLineFeed:
			dst = append(dst, '\\', 'n')
		case cefReturn:
			dst = append(dst, '\\', 'r')
		case cefBlank:
			dst = append(dst, ' ')
		case cefDecode:
			var r rune
			if r, size = encRune(s, i); cefIsBlank(r) {
				r = ' '
			}
			dst = utf8.AppendRune(dst, r)
		}
		i += size
	}
}

// cefIsBlank reports whether a character of several bytes is sent as a space: the controls U+0080 to U+009F, and the
// separators that some readers take for the end of a line.
func cefIsBlank(r rune) bool { return r <= 0x9f || r == 0x2028 || r == 0x2029 }

// cefTrimSpaces removes the spaces at both ends of dst[start:]. An escaped backslash is never one of them.
func cefTrimSpaces(dst []byte, start int) []byte {
	for len(dst) > start && dst[len(dst)-1] == ' ' {
		dst = dst[:len(dst)-1]
	}
	n := start
	for n < len(dst) && dst[n] == ' ' {
		n++
	}
	if n == start {
		return dst
	}
	return append(dst[:start], dst[n:]...)
}
