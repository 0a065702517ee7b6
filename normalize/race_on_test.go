//go:build race

package normalize

// raceEnabled says that the race detector runs: it makes sync.Pool forget at random, so allocations cannot be counted.
const raceEnabled = true
