package normalize

import (
	"encoding/base64"
	"strconv"
	"strings"
	"sync/atomic"
	"unicode/utf8"

	"github.com/auditrelay/auditrelay/audit"
)

// jsonObjects are the objects between "marks" and "module", in the order of writing. Their members are the rows of the
// field table whose names begin with the object's name and a dot, in the table's order.
const jsonObjects = "actor target client host session account group file package tenant auth process app"

// jsonMember is one member of an object.
type jsonMember struct {
	slot        encSlot
	object      string
	first, next string // what stands before the value, as the object's first member and as a later one
	integer     bool
}

// jsonEncoder writes native JSON, one object on one line, with its keys always in the same order:
//
//	id number time time_original received product vendor class name category action severity severity_source
//	severity_original outcome reason result{code} message known marks[] actor{id name full_name domain type}
//	target{type id name} client{ip host user_agent} host{name ip id} session{id} account{id} group{id name}
//	file{name path} package{id} tenant{name} auth{method} process{command_line} app{name} module environment
//	source{collector path offset record part peer} syslog{facility procid msgid} relay{id log} attributes{…} raw
//
// EventSchema describes it. Always there are time, received, product, class, severity, severity_source, outcome and
// known; what else is absent or empty is left out. Numbers are number, source.offset, source.record, source.part and
// syslog.facility; every other value is a string, also ids and result codes. attributes is one flat object with the
// vendor's names as they are; a name that is there already, which can only be after bytes that are not UTF-8 were
// replaced, is left out and counted.
//
// Nothing is cut. The output is always valid UTF-8: other bytes become U+FFFD each, but if raw has such bytes it is
// written in base64 under raw_base64 instead. Controls (also U+007F to U+009F), U+2028, U+2029 and the characters that
// change the direction of writing are escaped, so that a line looks like what it says.
type jsonEncoder struct {
	names   func(product string) ProductNames
	relay   string // the member relay with its comma, ready made
	result  []jsonMember
	objects []jsonMember
	source  []jsonMember // source, syslog
	cut     atomic.Uint64
}

func newJSONEncoder(opt EncoderOptions) *jsonEncoder {
	j := &jsonEncoder{
		names:  opt.Names,
		relay:  jsonRelay(opt),
		result: jsonMembers("result"),
		source: append(jsonMembers("source"), jsonMembers("syslog")...),
	}
	for name := range strings.FieldsSeq(jsonObjects) {
		j.objects = append(j.objects, jsonMembers(name)...)
	}
	return j
}

// jsonMembers returns the members of an object that the field table has.
func jsonMembers(object string) (members []jsonMember) {
	for _, info := range audit.Fields() {
		name, ok := strings.CutPrefix(info.Name, object+".")
		if !ok {
			continue
		}
		next := `,"` + name + `":`
		members = append(members, jsonMember{
			slot:    encSlot(info.Key),
			object:  object,
			first:   `,"` + object + `":{` + next[1:],
			next:    next,
			integer: jsonIsInteger(info),
		})
	}
	return members
}

// jsonIsInteger reports whether a field is written as a number. A result code is the vendor's, so it stays text.
func jsonIsInteger(info audit.FieldInfo) bool {
	return info.Type == audit.TypeInteger && info.Key != audit.KeyResultCode
}

func jsonRelay(opt EncoderOptions) string {
	var members []string
	if opt.RelayID != "" {
		id := jsonAppendString([]byte(`"id":`), opt.RelayID)
		members = append(members, string(id))
	}
	if opt.Log != 0 {
		members = append(members, `"log":"`+opt.Log.String()+`"`)
	}
	if members == nil {
		return ""
	}
	return `,"relay":{` + strings.Join(members, ",") + `}`
}

// Cut returns how many values were left out so far.
func (j *jsonEncoder) Cut() uint64 { return j.cut.Load() }

// Append appends one event; see Encoder and jsonEncoder.
func (j *jsonEncoder) Append(dst []byte, ev *audit.Event) []byte {
	var x encIndex
	x.fill(ev.Fields)
	dst = append(dst, '{')
	if !ev.ID.IsZero() {
		dst = append(ev.ID.Append(append(dst, `"id":"`...)), `",`...)
	}
	if ev.Number > 0 {
		dst = append(strconv.AppendUint(append(dst, `"number":`...), uint64(ev.Number), 10), ',')
	}
	dst = j.appendMeaning(dst, ev, &x)

	dst, lost := jsonAppendObjects(dst, ev.Fields, &x, j.objects, "")
	dst = jsonAppendText(dst, `,"module":`, x.value(ev.Fields, encSlot(audit.KeyModule)))
	dst = jsonAppendText(dst, `,"environment":`, x.value(ev.Fields, encSlot(audit.KeyEnvironment)))
	open := ""
	if ev.Source != "" {
		dst = jsonAppendString(append(dst, `,"source":{"collector":`...), ev.Source)
		open = "source"
	}
	dst, n := jsonAppendObjects(dst, ev.Fields, &x, j.source, open)
	lost += n
	dst = append(dst, j.relay...)
	dst, n = jsonAppendAttributes(dst, ev.Fields)
	lost += n
	dst = jsonAppendRaw(dst, ev.Raw)
	if lost > 0 {
		j.cut.Add(lost)
	}
	return append(dst, '}')
}

// appendMeaning appends the members from time to marks.
func (j *jsonEncoder) appendMeaning(dst []byte, ev *audit.Event, x *encIndex) []byte {
	fields := ev.Fields
	dst = append(encAppendTime(append(dst, `"time":"`...), ev.Time), '"')
	dst = jsonAppendText(dst, `,"time_original":`, x.value(fields, encSlot(audit.KeyTimeOriginal)))
	dst = append(encAppendTime(append(dst, `,"received":"`...), ev.Received), '"')
	dst = jsonAppendString(append(dst, `,"product":`...), ev.Product)
	dst = jsonAppendText(dst, `,"vendor":`, j.names(ev.Product).Vendor)
	dst = jsonAppendString(append(dst, `,"class":`...), ev.Class)
	dst = jsonAppendText(dst, `,"name":`, x.value(fields, encSlot(audit.KeyName)))
	dst = jsonAppendText(dst, `,"category":`, x.value(fields, encSlot(audit.KeyCategory)))
	dst = jsonAppendText(dst, `,"action":`, x.value(fields, encSlot(audit.KeyAction)))
	dst = append(append(dst, `,"severity":"`...), ev.Severity.String()...)
	dst = append(append(dst, `","severity_source":"`...), ev.SeveritySource.String()...)
	dst = append(dst, '"')
	dst = jsonAppendText(dst, `,"severity_original":`, x.value(fields, encSlot(audit.KeySeverityOriginal)))
	dst = append(append(append(dst, `,"outcome":"`...), ev.Outcome.String()...), '"')
	dst = jsonAppendText(dst, `,"reason":`, x.value(fields, encSlot(audit.KeyReason)))
	dst, _ = jsonAppendObjects(dst, fields, x, j.result, "") // text has always a place
	dst = jsonAppendText(dst, `,"message":`, x.value(fields, encSlot(audit.KeyMessage)))
	dst = strconv.AppendBool(append(dst, `,"known":`...), ev.Known)
	if ev.Marks != 0 {
		dst = jsonAppendMarks(dst, ev.Marks)
	}
	return dst
}

// jsonAppendMarks appends the list of the marks that have a word.
func jsonAppendMarks(dst []byte, marks audit.Marks) []byte {
	const open = `,"marks":[`
	start := len(dst)
	dst = append(dst, open...)
	for word := range marks.Each {
		dst = append(append(append(dst, '"'), word...), `",`...)
	}
	if len(dst) == start+len(open) {
		return dst[:start]
	}
	dst[len(dst)-1] = ']'
	return dst
}

// jsonAppendObjects appends the members that the event has, with their objects around them, and returns how many values
// were left out. open is the object that has been begun already, if one has.
func jsonAppendObjects(
	dst []byte, fields []audit.Field, x *encIndex, members []jsonMember, open string,
) (_ []byte, lost uint64) {
	for i := range members {
		m := &members[i]
		field := x[m.slot]
		if field == 0 {
			continue
		}
		value := fields[field-1].Value
		if m.integer && !encIsInteger(value) {
			lost++
			continue
		}
		if open == m.object {
			dst = append(dst, m.next...)
		} else {
			if open != "" {
				dst = append(dst, '}')
			}
			dst = append(dst, m.first...)
			open = m.object
		}
		if m.integer {
			dst = append(dst, value...)
		} else {
			dst = jsonAppendString(dst, value)
		}
	}
	if open != "" {
		dst = append(dst, '}')
	}
	return dst, lost
}

// jsonAppendAttributes appends the vendor's own fields in the order in which the event has them, that of their names,
// and returns how many were left out.
func jsonAppendAttributes(dst []byte, fields []audit.Field) ([]byte, uint64) {
	lead := `,"attributes":{`
	var lost uint64
	for i := range fields {
		f := &fields[i]
		if f.Key != audit.KeyAttribute {
			continue
		}
		before := len(dst)
		dst = append(dst, lead...)
		var replaced bool
		dst, replaced = jsonAppendEscaped(append(dst, '"'), f.Name)
		if replaced && jsonNameTaken(fields[:i], f.Name) {
			dst = dst[:before]
			lost++
			continue
		}
		dst = jsonAppendString(append(dst, `":`...), f.Value)
		lead = ","
	}
	if lead == "," {
		dst = append(dst, '}')
	}
	return dst, lost
}

// jsonNameTaken reports whether an attribute of fields is written under the same name. Only names that have U+FFFD once
// they are written can meet, so it is asked for those alone.
func jsonNameTaken(fields []audit.Field, name []byte) bool {
	for i := range fields {
		if fields[i].Key == audit.KeyAttribute && jsonSameText(fields[i].Name, name) {
			return true
		}
	}
	return false
}

// jsonSameText reports whether a and b are the same once the bytes that are not UTF-8 are replaced.
func jsonSameText(a, b []byte) bool {
	for len(a) > 0 && len(b) > 0 {
		ra, na := utf8.DecodeRune(a)
		rb, nb := utf8.DecodeRune(b)
		if ra != rb {
			return false
		}
		a, b = a[na:], b[nb:]
	}
	return len(a) == len(b)
}

// jsonAppendRaw appends the record as it was received: as text if it is UTF-8, else in base64.
func jsonAppendRaw(dst, raw []byte) []byte {
	switch {
	case len(raw) == 0:
		return dst
	case utf8.Valid(raw):
		return jsonAppendString(append(dst, `,"raw":`...), raw)
	default:
		dst = append(dst, `,"raw_base64":"`...)
		return append(base64.StdEncoding.AppendEncode(dst, raw), '"')
	}
}

// jsonAppendText appends lead and a string, nothing if it is empty.
func jsonAppendText[T string | []byte](dst []byte, lead string, s T) []byte {
	if len(s) == 0 {
		return dst
	}
	return jsonAppendString(append(dst, lead...), s)
}

// jsonAppendString appends a JSON string with its quotes.
func jsonAppendString[T string | []byte](dst []byte, s T) []byte {
	dst, _ = jsonAppendEscaped(append(dst, '"'), s)
	return append(dst, '"')
}

// jsonDecode is the action that looks at the whole character. Every other is the letter that follows the backslash.
const jsonDecode encAction = 1

// jsonTable stops at what RFC 8259 section 7 wants escaped (quote, backslash, controls), at U+007F and at what is not
// ASCII.
var jsonTable = encNewTable('"', map[byte]encAction{
	'"': '"', '\\': '\\', '\b': 'b', '\f': 'f', '\n': 'n', '\r': 'r', '\t': 't',
}, jsonDecode, jsonDecode)

// jsonAppendEscaped appends the inside of a JSON string. It reports whether U+FFFD is in it, be it from s or in place
// of bytes that are not UTF-8.
func jsonAppendEscaped[T string | []byte](dst []byte, s T) (_ []byte, replaced bool) {
	for i := 0; ; {
		if dst, i = encCopy(dst, s, i, jsonTable); i == len(s) {
			return dst, replaced
		}
		for i < len(s) && jsonTable.actions[s[i]] > jsonDecode { // in CSV quotes come in pairs
			dst = append(dst, '\\', byte(jsonTable.actions[s[i]]))
			i++
		}
		if i == len(s) || jsonTable.actions[s[i]] == 0 {
			continue
		}
		r, size := encRune(s, i)
		switch {
		case r == utf8.RuneError:
			replaced = true
			dst = utf8.AppendRune(dst, r)
		case jsonHidden(r):
			dst = jsonAppendUnicode(dst, r)
		default:
			dst = append(dst, s[i:i+size]...)
		}
		i += size
	}
}

// jsonHidden reports whether a character is escaped that has no letter for it: controls, the separators of lines and
// paragraphs, and the marks, embeddings, overrides and isolates that change the direction of writing.
func jsonHidden(r rune) bool {
	switch {
	case r < ' ', r >= 0x7f && r <= 0x9f, r == 0x061c:
		return true
	case r < 0x200e:
		return false
	default:
		return r <= 0x200f || r >= 0x2028 && r <= 0x202e || r >= 0x2066 && r <= 0x2069
	}
}

// jsonAppendUnicode appends the escape of a character below U+10000.
func jsonAppendUnicode(dst []byte, r rune) []byte {
	const digits = "0123456789abcdef"
	return append(dst, '\\', 'u', digits[r>>12&15], digits[r>>8&15], digits[r>>4&15], digits[r&15])
}
