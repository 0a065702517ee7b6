package audit

import (
	"bytes"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

func sampleEvent(batch *Events) *Event {
	ev := batch.Add()
	ev.ID = KeyID("netop", []byte("file:1"))
	ev.Salt = [16]byte{1, 2, 3}
	ev.Time = time.UnixMilli(1735722000123).UTC()
	ev.Received = time.UnixMilli(1735722999000).UTC()
	ev.Source, ev.Product, ev.Class = "portal", "netop", "USER/LOGIN"
	ev.Severity, ev.SeveritySource, ev.Outcome, ev.Known = SeverityWarning, SeverityFromRule, OutcomeFailure, true
	ev.Marks = MarkYearGuessed | MarkPossibleLoss
	batch.StartFields(ev)
	batch.AddField(ev, Field{Key: KeyActorName, Value: []byte("tom")})
	batch.AddField(ev, Field{Key: KeyAttribute, Name: []byte("host.nrc_id"), Value: []byte("H-1")})
	batch.AddField(ev, Field{Key: KeyAttribute, Name: []byte("a"), Value: nil})
	batch.EndFields(ev)
	ev.SortFields()
	ev.Raw = []byte("raw,bytes\n")
	return ev
}

func TestCodecRoundTrip(t *testing.T) {
	in, out := GetEvents(), GetEvents()
	defer in.Release()
	defer out.Release()
	want := sampleEvent(in)
	b := want.AppendBinary(nil)
	require.LessOrEqual(t, len(b), want.EncodedSize())
	require.NoError(t, NewDecoder().Decode(out, b, 12345678, 9))
	got := &out.List[0]
	require.Equal(t, Number(9), got.Number)
	got.Number = 0
	require.Equal(t, b, got.AppendBinary(nil))
	require.Equal(t, want.Time, got.Time)
	require.Equal(t, "tom", string(got.Field(KeyActorName)))
	require.Equal(t, "H-1", string(got.Attribute("host.nrc_id")))
	require.Equal(t, "raw,bytes\n", string(got.Raw))
}

func TestAnEventWithoutIDTakesItFromItsPlace(t *testing.T) {
	in, out := GetEvents(), GetEvents()
	defer in.Release()
	defer out.Release()
	ev := sampleEvent(in)
	ev.ID = ID{}
	require.NoError(t, NewDecoder().Decode(out, ev.AppendBinary(nil), 12345678, 7))
	require.Equal(t, PlaceID(12345678, 7), out.List[0].ID)
	require.NotEqual(t, PlaceID(12345679, 7), out.List[0].ID)
}

func TestEveryCutOfAnEncodingIsRefused(t *testing.T) {
	in, out := GetEvents(), GetEvents()
	defer in.Release()
	defer out.Release()
	b := sampleEvent(in).AppendBinary(nil)
	d := NewDecoder()
	for n := range b {
		require.ErrorIs(t, d.Decode(out, b[:n], 1, 1), ErrEncoding, "cut at %d", n)
	}
	require.ErrorIs(t, d.Decode(out, append(bytes.Clone(b), 0), 1, 1), ErrEncoding)
	require.Empty(t, out.List)
}

func TestDecodingAllocatesNothingPerEvent(t *testing.T) {
	in, out := GetEvents(), GetEvents()
	defer in.Release()
	defer out.Release()
	b := sampleEvent(in).AppendBinary(nil)
	d := NewDecoder()
	batch := func() {
		for range 200 {
			if err := d.Decode(out, b, 1, 1); err != nil {
				t.Fatal(err)
			}
		}
		out.Reset()
	}
	batch()
	require.LessOrEqual(t, testing.AllocsPerRun(20, batch), 2.0)
}

func FuzzDecode(f *testing.F) {
	in := GetEvents()
	f.Add(sampleEvent(in).AppendBinary(nil))
	f.Add([]byte{1, 0})
	f.Fuzz(func(t *testing.T, b []byte) {
		out := GetEvents()
		defer out.Release()
		if NewDecoder().Decode(out, b, 1, 1) != nil {
			return
		}
		ev := out.List[0]
		if b[1]&flagID == 0 {
			ev.ID = ID{}
		}
		if again := ev.AppendBinary(nil); !bytes.Equal(again, b) {
			t.Fatalf("two encodings of one event:\n%x\n%x", b, again)
		}
	})
}
