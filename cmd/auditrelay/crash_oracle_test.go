package main

import (
	"bufio"
	"encoding/json"
	"fmt"
	"hash/fnv"
	"math/rand/v2"
	"os"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/auditrelay/auditrelay/relay"
)

// The crash tests judge by an oracle: each record names the stream it came in and its number there, and the rest of it
// can be computed from these two. So from what a destination holds alone it is known what is missing, changed, doubled,
// out of order or invented.

// auditLine returns record n of a stream, without line end. Its time jumps between the years 1990 and 2089.
func auditLine(stream string, n int) string {
	h := fnv.New64a()
	_, _ = h.Write([]byte(stream)) // never fails
	random := rand.New(rand.NewPCG(h.Sum64(), uint64(n)))
	pieces := [...]string{
		"a", "bc", "def", "0123456789", " ", "=", "|", `"`, `\`, "<", ">", "&", "'", ",", ";", "{", "}", "[", "]", "\t", "\x1b",
		"é", "€", "😀", "\u2028", "\u0085", "%s", "ghijklmnopqrstuvwxyz",
	}
	var b strings.Builder
	fmt.Fprintf(&b, "<134>1 %d-03-04T05:06:07Z host crash - - - %s %d x", 1990+random.IntN(100), stream, n)
	for range random.IntN(60) {
		b.WriteString(pieces[random.IntN(len(pieces))])
	}
	b.WriteByte('x')
	return b.String()
}

// placeOf reads the stream and the number out of a record and reports whether the whole of it is as it was sent.
func placeOf(raw string) (stream string, n int, ok bool) {
	words := strings.SplitN(raw, " ", 10)
	if len(words) != 10 {
		return "", 0, false
	}
	n, err := strconv.Atoi(words[8])
	return words[7], n, err == nil && n >= 0 && raw == auditLine(words[7], n)
}

// ledger is how many records of each stream were sent, or begun to be.
type ledger struct {
	mu   sync.Mutex
	sent map[string]int
}

// next books the next record of a stream and returns it.
func (l *ledger) next(stream string) string {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.sent == nil {
		l.sent = map[string]int{}
	}
	n := l.sent[stream]
	l.sent[stream]++
	return auditLine(stream, n)
}

func (l *ledger) of(stream string) int {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.sent[stream]
}

// account is what a destination holds, in the order of the log.
type account struct {
	streams      map[string]int // records of each stream
	events       int
	resent, torn int // events that stand there once more, lines that a kill cut
}

// readAccount reads a file of native JSON and compares it with what was sent. The error names the first record that is
// changed, invented, twice in the log, missing between two others of the log or of its stream, or out of order.
func readAccount(path string, sent *ledger) (*account, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer func() { _ = f.Close() }() // only read from
	type place struct {
		stream string
		n      int
		id     string
	}
	a := &account{streams: map[string]int{}}
	log, ids := map[uint64]place{}, map[string]uint64{}
	lines := bufio.NewScanner(f)
	lines.Buffer(nil, 16<<20)
	for lines.Scan() {
		var ev struct {
			ID     string `json:"id"`
			Number uint64 `json:"number"`
			Raw    string `json:"raw"`
		}
		if json.Unmarshal(lines.Bytes(), &ev) != nil {
			a.torn++
			continue
		}
		stream, n, ok := placeOf(ev.Raw)
		if !ok || n >= sent.of(stream) {
			return nil, fmt.Errorf("number %d is no record that was sent: %q", ev.Number, ev.Raw)
		}
		is := place{stream, n, ev.ID}
		was, again := log[ev.Number]
		if again && was != is {
			return nil, fmt.Errorf("number %d is %v, and %v", ev.Number, was, is)
		}
		if number, again := ids[ev.ID]; again && number != ev.Number {
			return nil, fmt.Errorf("%v has the numbers %d and %d", is, number, ev.Number)
		}
		if again {
			a.resent++
		}
		log[ev.Number], ids[ev.ID] = is, ev.Number
	}
	if err := lines.Err(); err != nil {
		return nil, err
	}
	a.events = len(log)
	for number := uint64(1); number <= uint64(len(log)); number++ {
		is, ok := log[number]
		if !ok {
			return nil, fmt.Errorf("number %d is missing, there are %d", number, len(log))
		}
		if want := a.streams[is.stream]; is.n != want {
			return nil, fmt.Errorf("number %d is %v, but the next of that stream is %d", number, is, want)
		}
		a.streams[is.stream]++
	}
	return a, nil
}

// requireFiles fails unless all that was sent in the streams with that prefix is there.
func (a *account) requireFiles(t *testing.T, prefix string, sent *ledger) {
	t.Helper()
	sent.mu.Lock()
	defer sent.mu.Unlock()
	for stream, n := range sent.sent {
		if strings.HasPrefix(stream, prefix) {
			require.Equal(t, n, a.streams[stream], "records of %s", stream)
		}
	}
}

// growFile appends records to a file until stop is closed, in bursts that mostly end inside a line. About perSecond.
func growFile(path, stream string, perSecond int, sent *ledger, random *rand.Rand, stop <-chan struct{}) error {
	f, err := os.OpenFile(path, os.O_APPEND|os.O_CREATE|os.O_WRONLY, 0o600)
	if err != nil {
		return err
	}
	const tick = 2 * time.Millisecond
	ticker := time.NewTicker(tick)
	defer ticker.Stop()
	burst := perSecond * int(tick) / int(time.Second)
	var waiting []byte
	for more := true; more; {
		select {
		case <-stop:
			more = false
		case <-ticker.C:
			for range random.IntN(2*burst + 2) {
				waiting = append(append(waiting, sent.next(stream)...), '\n')
			}
		}
		now := len(waiting)
		if more && now > 0 {
			now -= random.IntN(min(now, 100))
		}
		if _, err := f.Write(waiting[:now]); err != nil {
			return err
		}
		waiting = append(waiting[:0], waiting[now:]...)
	}
	return f.Close()
}

// appendRecords writes the next n records of a stream to the end of a file.
func appendRecords(t *testing.T, path, stream string, n int, sent *ledger) {
	t.Helper()
	f, err := os.OpenFile(path, os.O_APPEND|os.O_CREATE|os.O_WRONLY, 0o600)
	require.NoError(t, err)
	w := bufio.NewWriterSize(f, 64<<10)
	for range n {
		_, err := w.WriteString(sent.next(stream) + "\n")
		require.NoError(t, err)
	}
	require.NoError(t, w.Flush())
	require.NoError(t, f.Close())
}

// runOnce lets the program finish what is there and returns the balance sheet, which must close with nothing left over.
func runOnce(t *testing.T, cfg string) *relay.Sheet {
	t.Helper()
	text, err := stderrOf(program(t, "run", "--once", "--json", "--timeout", "60s", "--log-level", "error", "-c", cfg))
	require.NoError(t, err, text)
	sheet := new(relay.Sheet)
	require.NoError(t, json.Unmarshal([]byte(text), sheet), text)
	require.True(t, sheet.Closes(), text)
	require.Zero(t, sheet.Undelivered(), text)
	for _, s := range sheet.Sources {
		require.Equal(t, s.Accepted, s.Stored, text)
	}
	return sheet
}

// requireStored fails unless a source's line of the sheet has that many records.
func requireStored(t *testing.T, sheet *relay.Sheet, source string, n int) {
	t.Helper()
	for _, s := range sheet.Sources {
		if s.ID == source {
			require.Equal(t, uint64(n), s.Stored, "stored by %s", source)
			return
		}
	}
	t.Fatalf("no source %s in the balance sheet", source)
}

// crashSeed returns the seed of a test, random unless AUDITRELAY_SEED repeats a run, and prints it.
func crashSeed(t *testing.T) uint64 {
	t.Helper()
	seed := rand.Uint64()
	if text := os.Getenv("AUDITRELAY_SEED"); text != "" {
		var err error
		seed, err = strconv.ParseUint(text, 10, 64)
		require.NoError(t, err, "AUDITRELAY_SEED")
	}
	t.Logf("AUDITRELAY_SEED=%d", seed)
	return seed
}

// crashes returns how often to crash: what AUDITRELAY_CRASH says, else the first number, or the second with -short.
func crashes(t *testing.T, usual, short int) int {
	t.Helper()
	if text := os.Getenv("AUDITRELAY_CRASH"); text != "" {
		n, err := strconv.Atoi(text)
		require.NoError(t, err, "AUDITRELAY_CRASH")
		return n
	}
	if testing.Short() {
		return short
	}
	return usual
}

// skipUnlessCI skips a test for want of something, except where CI=true says that it must be there.
func skipUnlessCI(t *testing.T, format string, args ...any) {
	t.Helper()
	if os.Getenv("CI") == "true" {
		t.Fatalf(format, args...)
	}
	t.Skipf(format, args...)
}
