package proxy

import "runtime/debug"

// stamped is the version that a package was built as: go build -ldflags "-X ftpalg/proxy.stamped=1.2.3". Empty: what the go
// command knows of the sources by itself.
var stamped string

// Version is that of the program: what it prints, and what the audit has.
func Version() string {
	if stamped != "" {
		return stamped
	}
	if b, ok := debug.ReadBuildInfo(); ok {
		return b.Main.Version
	}
	return "unknown"
}
