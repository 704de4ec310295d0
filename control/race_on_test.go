//go:build race

package control

const raced = true // the race detector has stacks of its own size
