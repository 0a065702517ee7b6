package main

import (
	"bytes"
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// powerRig is the real program with its data_dir on a disk whose power goes. Files grow while it runs; as soon as one is
// delivered to the archive, and the program is dead, the file is deleted: from then on only the queue has its records, and
// the second destination, which is mostly away, must get them from there.
type powerRig struct {
	random  *rand.Rand
	dir     string
	mount   string
	cfg     string
	archive string
	late    string // a directory that is there only while that destination is
	sent    *ledger
	disk    *powerDisk
	runs    int
	deleted int // files
}

func newPowerRig(t *testing.T, random *rand.Rand) *powerRig {
	t.Helper()
	dir := t.TempDir()
	r := &powerRig{
		random: random, dir: dir, mount: filepath.Join(dir, "disk"), archive: filepath.Join(dir, "out.json"),
		late: filepath.Join(dir, "late"), sent: &ledger{}, disk: newPowerDisk(),
	}
	require.NoError(t, os.Mkdir(r.mount, 0o700))
	r.cfg = writeFile(t, dir, "auditrelay.yaml", fmt.Sprintf(`
version: 1
relay: {id: power}
data_dir: %[1]s/disk/data
collect:
  in: {type: file, paths: ["%[1]s/in*.log"], format: text, product: generic, max_record: 64KiB, poll_interval: 20ms, partial_after: 1h}
queue: {max_size: 2MiB}
forward:
  archive: {type: file, path: "%[2]s", format: json, start_at: oldest}
  late: {type: file, path: "%[3]s/out.json", format: json, start_at: oldest}
`, dir, r.archive, r.late))
	return r
}

// setLate makes the second destination reachable, or not.
func (r *powerRig) setLate(t *testing.T, there bool) {
	t.Helper()
	from, to := r.late, r.late+".away"
	if there {
		from, to = to, from
	}
	if _, err := os.Stat(to); err == nil {
		return
	}
	if _, err := os.Stat(from); err != nil { // for the first time
		require.NoError(t, os.Mkdir(to, 0o700))
		return
	}
	require.NoError(t, os.Rename(from, to))
}

// run runs the program until the power goes: with the disk's cutAt, or, if that is 0, when the archive has all.
func (r *powerRig) run(t *testing.T) {
	t.Helper()
	unmount := mountPowerDisk(t, r.mount, r.disk)
	cmd := program(t, "run", "--log-level", "warn", "-c", r.cfg)
	var log sharedLog
	cmd.Stderr = &log
	require.NoError(t, cmd.Start())
	ended := make(chan error, 1)
	go func() { ended <- cmd.Wait() }()

	stream := fmt.Sprint("in-", r.runs)
	r.runs++
	stop, written := make(chan struct{}), make(chan error, 1)
	writer := rand.New(rand.NewPCG(r.random.Uint64(), 5))
	go func() { written <- growFile(filepath.Join(r.dir, stream+".log"), stream, 3000, r.sent, writer, stop) }()
	enough := 100 * time.Millisecond
	if r.disk.cutAt > 0 {
		enough = time.Second // there is work until it happens
	}
	select {
	case <-r.disk.gone:
	case <-time.After(enough):
	}
	close(stop)
	require.NoError(t, <-written)
	if r.disk.cutAt == 0 {
		require.True(t, assertEventually(func() bool {
			return len(ended) > 0 || recordsIn(r.archive)[stream] == r.sent.of(stream)
		}, 20*time.Second), "not all is delivered: %s", &log)
	}
	wasOn := r.disk.isOn()
	require.False(t, wasOn && len(ended) > 0, "it ended by itself: %s", &log)
	r.disk.cut()
	_ = cmd.Process.Kill() // it may have ended, because its disk is away
	t.Logf("the program ended: %v", <-ended)
	unmount()
	for _, word := range []string{"panic", "DATA RACE", "events are missing", "does not close"} {
		require.NotContains(t, log.String(), word)
	}
}

func (d *powerDisk) isOn() bool {
	d.mu.Lock()
	defer d.mu.Unlock()
	return !d.off
}

// forget deletes the files that are delivered to the archive.
func (r *powerRig) forget(t *testing.T, delivered func(stream string) bool) {
	t.Helper()
	for run := range r.runs {
		stream := fmt.Sprint("in-", run)
		path := filepath.Join(r.dir, stream+".log")
		if _, err := os.Stat(path); err == nil && delivered(stream) {
			require.NoError(t, os.Remove(path))
			r.deleted++
		}
	}
}

// TestPowerCutUnderTheProgram cuts the power at random calls of the program to its disk, before or after they happened,
// while it collects and delivers, and starts it again on what the disk then holds. Each fourth time or so only the program
// dies, and the next one builds on what was not synced.
func TestPowerCutUnderTheProgram(t *testing.T) {
	random := rand.New(rand.NewPCG(crashSeed(t), 4))
	for cuts := crashes(t, 10, 3); cuts > 0; cuts -= 10 {
		powerRound(t, random, min(cuts, 10))
	}
}

func powerRound(t *testing.T, random *rand.Rand, cuts int) {
	r := newPowerRig(t, random)
	kills, unsynced := 0, 0
	for i := range cuts {
		r.setLate(t, i%4 == 3 || random.IntN(3) == 0)
		r.disk.after = random.IntN(2) == 0
		if i%4 != 3 {
			r.disk.cutAt = 1 + int(60*random.ExpFloat64())
		}
		r.run(t)
		if random.IntN(4) == 0 {
			kills++
			r.disk.restart()
		} else {
			writes, names := r.disk.unsynced()
			unsynced += writes + names
			r.disk = r.disk.remains(random.IntN(powerModes), random)
		}
		if a, err := readAccount(r.archive, r.sent); !os.IsNotExist(err) {
			require.NoError(t, err)
			r.forget(t, func(stream string) bool { return a.streams[stream] == r.sent.of(stream) })
		}
	}
	r.setLate(t, true)
	unmount := mountPowerDisk(t, r.mount, r.disk)
	sheet := runOnce(t, r.cfg)
	unmount()
	requireStored(t, sheet, "in", r.sent.total())
	resent := 0
	for _, path := range []string{r.archive, filepath.Join(r.late, "out.json")} {
		a, err := readAccount(path, r.sent)
		require.NoError(t, err, path)
		a.requireFiles(t, "in-", r.sent)
		resent += a.resent
	}
	t.Logf("%d power cuts at %d writes and names that were not synced, %d kills without one: %d records in %d files, %d of the "+
		"files deleted on the way; %d delivered again", cuts-kills, unsynced, kills, r.sent.total(), r.runs, r.deleted, resent)
}

// TestPowerCutOnADiskThatLies is the control: the same on a disk whose fsync does nothing must lose, or the test above
// would prove nothing.
func TestPowerCutOnADiskThatLies(t *testing.T) {
	r := newPowerRig(t, rand.New(rand.NewPCG(crashSeed(t), 6)))
	r.disk.lies = true
	for range 2 {
		r.setLate(t, false)
		r.run(t)
		r.disk = r.disk.remains(powerNothing, r.random)
		delivered := recordsIn(r.archive)
		r.forget(t, func(stream string) bool { return delivered[stream] == r.sent.of(stream) })
	}
	require.Equal(t, 2, r.deleted)
	r.setLate(t, true)
	unmount := mountPowerDisk(t, r.mount, r.disk)
	text, err := stderrOf(program(t, "run", "--once", "--timeout", "20s", "-c", r.cfg))
	unmount()
	t.Logf("the program: %v, %s", err, text)
	got := 0
	for _, n := range recordsIn(filepath.Join(r.late, "out.json")) {
		got += n
	}
	require.Less(t, got, r.sent.total())
	_, err = readAccount(r.archive, r.sent)
	require.Error(t, err, "the oracle")
	t.Logf("%d of %d records were lost, as they must be; the oracle said: %v", r.sent.total()-got, r.sent.total(), err)
}

// recordsIn counts the records of each stream in a file of native JSON, whatever else may be wrong with it.
func recordsIn(path string) map[string]int {
	content, _ := os.ReadFile(path) // not there yet: nothing in it
	seen, streams := map[string]bool{}, map[string]int{}
	for line := range bytes.Lines(content) {
		var ev struct {
			Raw string `json:"raw"`
		}
		if json.Unmarshal(line, &ev) != nil || seen[ev.Raw] {
			continue
		}
		if stream, _, ok := placeOf(ev.Raw); ok {
			seen[ev.Raw] = true
			streams[stream]++
		}
	}
	return streams
}
