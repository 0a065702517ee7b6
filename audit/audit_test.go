package audit

import (
	"bytes"
	"testing"

	"github.com/stretchr/testify/require"
)

func TestFieldTable(t *testing.T) {
	names, cef := map[string]bool{}, map[string]bool{}
	last := KeyAttribute
	for _, row := range Fields() {
		require.Greater(t, row.Key, last, "rows stand in the order of their keys: %s", row.Name)
		last = row.Key
		require.False(t, names[row.Name], row.Name)
		names[row.Name] = true
		require.NotEmpty(t, row.Doc, row.Name)
		if row.CEF != "" {
			require.False(t, cef[row.CEF], "CEF key %s is given twice", row.CEF)
			cef[row.CEF] = true
			require.Positive(t, row.CEFLimit, row.Name)
		}
		key, ok := FieldByName(row.Name)
		require.True(t, ok)
		require.Equal(t, row.Key, key)
		require.Equal(t, row.Name, row.Key.Info().Name)
	}
	require.Nil(t, KeyAttribute.Info())
	require.Nil(t, FieldKey(60000).Info())
}

func TestSeverityNumbers(t *testing.T) {
	for _, c := range []struct {
		word              string
		cef, syslog, ocsf int
	}{
		{"debug", 0, 7, 1},
		{"info", 2, 6, 1},
		{"notice", 4, 5, 2},
		{"warning", 6, 4, 3},
		{"error", 8, 3, 4},
		{"critical", 10, 2, 5},
	} {
		s, err := ParseSeverity(c.word)
		require.NoError(t, err)
		require.Equal(t, []int{c.cef, c.syslog, c.ocsf}, []int{s.CEF(), s.Syslog(), s.OCSF()}, c.word)
		require.Equal(t, s, SyslogSeverity(c.syslog), c.word)
	}
	_, err := ParseSeverity("INFO")
	require.ErrorContains(t, err, "use debug")
}

func TestMarkWords(t *testing.T) {
	var words []string
	(MarkTimeMissing | MarkPossibleLoss | 1<<63).Each(func(w string) bool { words = append(words, w); return true })
	require.Equal(t, []string{"time_missing", "possible_loss"}, words)
	require.Equal(t, 1<<(len(MarkWords())-1), int(MarkPossibleLoss))
}

func TestRecordsKeepTheirMemoryApart(t *testing.T) {
	b := GetRecords("s")
	defer b.Release()
	big := bytes.Repeat([]byte("x"), 3*chunkBytes)
	for i := range 2000 {
		b.Add(bytes.Repeat([]byte{byte('a' + i%26)}, i))
		if i%500 == 0 {
			b.Add(big)
		}
	}
	n := 0
	for i := range b.List {
		raw := b.List[i].Raw
		if len(raw) == len(big) {
			require.Equal(t, big, raw)
			continue
		}
		require.Equal(t, bytes.Repeat([]byte{byte('a' + n%26)}, n), raw)
		require.Equal(t, len(raw), cap(raw), "a record must not be able to grow into its neighbour")
		n++
	}
	require.Equal(t, 2000, n)
}

func TestEventsKeepTheirFieldsApart(t *testing.T) {
	b := GetEvents()
	defer b.Release()
	for round := range 2 {
		for i := range 500 {
			ev := b.Add()
			b.StartFields(ev)
			for j := range i % 97 {
				b.AddField(ev, Field{Key: KeyAttribute, Name: b.Copy([]byte{byte(j)}), Value: []byte{byte(i), byte(round)}})
			}
			b.EndFields(ev)
		}
		for i := range b.List {
			require.Len(t, b.List[i].Fields, i%97)
			for j, f := range b.List[i].Fields {
				require.Equal(t, []byte{byte(j)}, f.Name)
				require.Equal(t, []byte{byte(i), byte(round)}, f.Value)
			}
		}
		b.Reset()
	}
}

func TestSortFieldsKeepsTheFirstOfTwo(t *testing.T) {
	ev := Event{Fields: []Field{
		{Key: KeyActorName, Value: []byte("first")},
		{Key: KeyAttribute, Name: []byte("b")},
		{Key: KeyActorName, Value: []byte("second")},
		{Key: KeyAttribute, Name: []byte("a")},
	}}
	ev.SortFields()
	require.Len(t, ev.Fields, 3)
	require.Equal(t, "a", string(ev.Fields[0].Name))
	require.Equal(t, "first", string(ev.Field(KeyActorName)))
}
