//go:build race

package queue_test

// thinning leaves out most calls of the sweep and most random flips under the race detector, which makes them ten times
// slower. It is prime, so that all kinds of calls are still met.
const thinning = 13
