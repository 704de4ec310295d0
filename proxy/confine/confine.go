// Package confine gives up what a process does not need, where nobody has taken it away before it was started: its user, capabilities,
// new privileges of programs that it might start, and the right to write anywhere (landlock(7)). Whoever finds a way to run code in us,
// by way of what clients and servers say, has no more than that.
package confine

// Confinement is what a process keeps.
type Confinement struct {
	// User is whom it runs as, by name or number; empty: whoever started it.
	User string
	// Writable are the directories below which, and the files that, it may write; those that are not there do not matter. Everything may be
	// read, as far as the user may: a configuration that comes with a reload may name any file.
	Writable []string
}
