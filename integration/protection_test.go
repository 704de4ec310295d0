//go:build linux

package integration

import (
	"fmt"
	"os"
	"slices"
	"testing"
)

// A protection is TLS as a client wants it.
type protection struct {
	Implicit bool   // from the first byte on, on port 990; otherwise AUTH TLS (RFC 4217)
	Clear    bool   // PROT C: data connections are not protected
	CA       string // a file of the authority that clients trust; they trust no other
	Max      string // the highest version that clients offer: "1.2", or "" for all
	Named    bool   // clients call the server by its name, so that they send it; otherwise by its address
}

// level is the argument of PROT.
func (p *protection) level() string {
	if p.Clear {
		return "C"
	}
	return "P"
}

// needTLS skips the test if the client lacks what it needs for TLS.
func (c client) needTLS(t *testing.T) {
	t.Helper()
	if c.forTLS == "" {
		return
	}
	if _, err := os.Stat(c.forTLS); err != nil {
		lack(t, fmt.Sprintf("TLS for %s (see install.sh): %v", c.name, err))
	}
}

// Ways of protection, for limits.
func plain(via target) bool     { return via.TLS == nil }
func secured(via target) bool   { return via.TLS != nil }
func protected(via target) bool { return via.TLS != nil && !via.TLS.Clear }
func bare(via target) bool      { return via.TLS != nil && via.TLS.Clear }
func implicit(via target) bool  { return via.TLS != nil && via.TLS.Implicit }
func explicit(via target) bool  { return via.TLS != nil && !via.TLS.Implicit }
func newest(via target) bool    { return via.TLS != nil && via.TLS.Max == "" }
func older(via target) bool     { return via.TLS != nil && via.TLS.Max != "" }
func direct(via target) bool    { return via.Direct }

// all is several ways at once.
func all(ways ...func(target) bool) func(target) bool {
	return func(via target) bool {
		for _, way := range ways {
			if !way(via) {
				return false
			}
		}
		return true
	}
}

// either is one of several ways.
func either(ways ...func(target) bool) func(target) bool {
	return func(via target) bool {
		return slices.ContainsFunc(ways, func(way func(target) bool) bool { return way(via) })
	}
}
