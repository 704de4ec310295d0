//go:build race

package integration

// raced says that these tests run under the race detector; then ftpalg does too.
const raced = true
