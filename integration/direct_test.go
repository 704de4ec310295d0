//go:build linux

package integration

import "testing"

// TestDirect has nothing but a router between clients and servers. So it proves the lab, and limits.
func TestDirect(t *testing.T) {
	l := newLab(t)
	runMatrix(t, l, startServers(t, l), target{Name: "direct"})
}
