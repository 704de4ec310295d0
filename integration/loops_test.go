//go:build linux

package integration

import (
	"fmt"
	"net/netip"
	"strings"
	"testing"
)

// A session whose server is the gateway itself would call itself until something runs out. It is refused in every mode,
// whatever the destination rules say.
func TestLoops(t *testing.T) {
	l := newLab(t)
	l.Firewall.overlay("hosts", fmt.Sprintf("127.0.0.1 localhost\n%s self.test\n", clientGateway[v4].Addr()))
	g := l.startGateway(`
listeners:
  - {mode: tproxy, address: "[::]:2121"}
  - {mode: redirect, address: "[::]:2122", intercept: {ports: [2100]}}
  - {mode: explicit, address: "[::]:2123"}
  - {mode: gateway, address: "[::]:2124", server: "self.test:2124"}
  - {name: round, mode: gateway, address: "[::]:2125", server: "self.test:2123"}
destinations: [{allow: "*"}]
`)
	refused := func(name string, to netip.AddrPort, said string) {
		t.Helper()
		if !strings.HasPrefix(said, "421 ") && !strings.HasPrefix(said, "530 ") {
			t.Errorf("%s by way of %v was told %q", name, to, said)
		}
	}
	for _, f := range families {
		for _, p := range []uint16{2121, 2122, 2124, 2125} {
			for _, a := range []netip.Addr{clientGateway[f].Addr(), serverGateway[f].Addr()} {
				to := netip.AddrPortFrom(a, p)
				refused("a call", to, l.Client.call(t, to).ended())
			}
		}
		for _, p := range []uint16{2121, 2122, 2123, 2124, 2125} {
			for _, name := range []string{"self.test", "localhost", "127.3.2.1", "0.0.0.0", "[::]", "[::1]", "[::ffff:127.0.0.1]", serverGateway[v4].Addr().String()} {
				k := l.Client.call(t, netip.AddrPortFrom(clientGateway[f].Addr(), 2123))
				k.hear("220")
				k.say("USER u@%s:%d", name, p)
				refused(name, netip.AddrPortFrom(netip.IPv4Unspecified(), p), k.line())
				k.Close()
			}
		}
	}
	// All of these ended with the call itself: none has come back.
	if n := strings.Count(g.log(), "session started"); n != 0 {
		t.Errorf("%d sessions were begun", n)
	}
	g.Stop()
	g.checkClean()
}
