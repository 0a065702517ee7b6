package normalize

import (
	"encoding/json"
	"fmt"
	"math"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"

	"github.com/auditrelay/auditrelay/audit"
)

// schemaRead returns the published schema as a reader sees it.
func schemaRead(t testing.TB) map[string]any {
	t.Helper()
	var schema map[string]any
	require.NoError(t, json.Unmarshal(EventSchema(), &schema))
	return schema
}

// schemaValidate checks a value against the keywords that the schema uses. A keyword that it does not know is an error,
// so that nothing is published unchecked.
func schemaValidate(schema map[string]any, value any, path string) error {
	if err := schemaCheckType(schema, value); err != nil {
		return fmt.Errorf("%s: %w", path, err)
	}
	object, _ := value.(map[string]any)
	list, _ := value.([]any)
	for keyword, want := range schema {
		ok := true
		switch keyword {
		case "$schema", "$id", "title", "description", "format", "contentEncoding":
		case "type", "properties", "additionalProperties": // checked before and after
		case "enum":
			ok = slices.Contains(want.([]any), value)
		case "pattern":
			ok = regexp.MustCompile(want.(string)).MatchString(value.(string))
		case "minimum":
			ok = value.(float64) >= want.(float64)
		case "required":
			for _, name := range want.([]any) {
				_, has := object[name.(string)]
				ok = ok && has
			}
		case "minProperties":
			ok = len(object) >= int(want.(float64))
		case "minItems":
			ok = len(list) >= int(want.(float64))
		case "uniqueItems":
			for i := range list {
				ok = ok && !slices.Contains(list[:i], list[i])
			}
		case "items":
			for _, item := range list {
				if err := schemaValidate(want.(map[string]any), item, path+"[]"); err != nil {
					return err
				}
			}
		case "not":
			ok = schemaValidate(want.(map[string]any), value, path) != nil
		default:
			return fmt.Errorf("%s: the keyword %s is not checked", path, keyword)
		}
		if !ok {
			return fmt.Errorf("%s: %v breaks %s", path, value, keyword)
		}
	}
	return schemaValidateMembers(schema, object, path)
}

func schemaCheckType(schema map[string]any, value any) error {
	want, ok := schema["type"]
	if !ok {
		return nil
	}
	got := "null"
	switch value := value.(type) {
	case string:
		got = "string"
	case bool:
		got = "boolean"
	case float64:
		if got = "number"; value == math.Trunc(value) {
			got = "integer"
		}
	case map[string]any:
		got = "object"
	case []any:
		got = "array"
	}
	if got != want {
		return fmt.Errorf("is %s, not %v", got, want)
	}
	return nil
}

func schemaValidateMembers(schema, object map[string]any, path string) error {
	properties, _ := schema["properties"].(map[string]any)
	for name, value := range object {
		member, known := properties[name].(map[string]any)
		if !known {
			switch additional := schema["additionalProperties"].(type) {
			case bool:
				return fmt.Errorf("%s: %s is not in the schema", path, name)
			case map[string]any:
				member = additional
			default:
				continue
			}
		}
		if err := schemaValidate(member, value, path+"."+name); err != nil {
			return err
		}
	}
	return nil
}

func TestSchemaTakesEveryEvent(t *testing.T) {
	schema, encoder := schemaRead(t), encNew(t, "json")
	rapid.Check(t, func(t *rapid.T) {
		ev := encEvent().Draw(t, "event")
		var document any
		require.NoError(t, json.Unmarshal(encoder.Append(nil, ev), &document))
		require.NoError(t, schemaValidate(schema, document, ""))
	})
	for _, ev := range []*audit.Event{encNetop(), {}} {
		var document any
		require.NoError(t, json.Unmarshal(encoder.Append(nil, ev), &document))
		require.NoError(t, schemaValidate(schema, document, ""))
	}
}

func TestSchemaRefusesWhatIsNoEvent(t *testing.T) {
	schema, line := schemaRead(t), string(encNew(t, "json").Append(nil, encNetop()))
	for _, change := range [][2]string{
		{`"known":true`, `"known":"true"`},
		{`"number":4711`, `"number":"4711"`},
		{`"number":4711`, `"number":0`},
		{`"number":4711`, `"number":1.5`},
		{`"severity":"notice"`, `"severity":"high"`},
		{`"marks":["late"]`, `"marks":["lost"]`},
		{`"marks":["late"]`, `"marks":["late","late"]`},
		{`"marks":["late"]`, `"marks":[]`},
		{`"actor":{`, `"actor":{"shoe_size":"9",`},
		{`"session":{"id":"rs-1"}`, `"session":{}`},
		{`"time":"2025-01-01T09:08:30.000Z"`, `"time":"2025-01-01T09:08:30Z"`},
		{`"outcome":"success",`, ``},
		{`"log":"01234567"`, `"log":1234567`},
		{`"guest.nrc_id":"G-11"`, `"guest.nrc_id":11`},
		{`"raw":`, `"raw_base64":"","raw":`},
		{`"module":`, `"modul":`},
		{`"class":"`, `"class":null,"x":"`},
	} {
		changed := strings.Replace(line, change[0], change[1], 1)
		require.NotEqual(t, line, changed, change)
		var document any
		require.NoError(t, json.Unmarshal([]byte(changed), &document), change)
		require.Error(t, schemaValidate(schema, document, ""), change)
	}
}

// TestSchemaHasTheKeysInTheOrderOfTheEncoder reads the properties in the order of the text.
func TestSchemaHasTheKeysInTheOrderOfTheEncoder(t *testing.T) {
	ev := encNetop()
	ev.Fields = []audit.Field{{Key: audit.KeyAttribute, Name: []byte("x"), Value: []byte("1")}}
	for _, info := range audit.Fields() {
		ev.Fields = append(ev.Fields, audit.Field{Key: info.Key, Value: []byte("1")})
	}
	encoder := encNew(t, "json")
	documents := [][]byte{encoder.Append(nil, ev)}
	ev.Raw = []byte{0xff}
	documents = append(documents, encoder.Append(nil, ev))

	var schema struct{ Properties json.RawMessage }
	require.NoError(t, json.Unmarshal(EventSchema(), &schema))
	want := schemaNames(t, schema.Properties)
	for i, raw := range []string{"raw_base64", "raw"} {
		without := slices.DeleteFunc(slices.Clone(want), func(name string) bool { return name == raw })
		require.Equal(t, without, schemaNames(t, documents[i]))
	}
}

// schemaNames returns the keys of an object in the order of the text.
func schemaNames(t *testing.T, object []byte) (names []string) {
	d := json.NewDecoder(strings.NewReader(string(object)))
	_, err := d.Token()
	require.NoError(t, err)
	for d.More() {
		name, err := d.Token()
		require.NoError(t, err)
		names = append(names, name.(string))
		var value json.RawMessage
		require.NoError(t, d.Decode(&value))
	}
	return names
}
