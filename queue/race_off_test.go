//go:build !race

package queue_test

// thinning is 1: the sweep fails every call.
const thinning = 1
