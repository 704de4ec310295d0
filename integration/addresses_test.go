//go:build linux

package integration

import (
	"fmt"
	"net/netip"
	"strings"
	"testing"
)

// The firewall gets an address, loses one and gets it back (DHCP, VRRP): listeners follow without a restart. One whose address is not
// there at the start waits for it and says so; data connections go to the address that the client has called.
func TestAddresses(t *testing.T) {
	l := newLab(t)
	s := startServer(t, l, nil)
	content := crowdContent(3, 200<<10)
	s.give(t, "file", content)
	at := s.AddrPort(v4)
	floating := netip.MustParseAddr("192.0.2.77")
	g := l.startGateway(fmt.Sprintf("listeners:\n  - {name: all, mode: gateway, address: '[::]:2122', server: '%v'}\n  - {name: one, mode: gateway, address: '%v:2123', server: '%v'}\n", at, floating, at))
	g.await("level=WARN", "does not have a listener's address", "listener=one", "192.0.2.77:2123")
	device := strings.TrimSpace(l.Firewall.must("sh", "-c", fmt.Sprintf("ip -o -4 address show to %v | awk '{print $2}'", clientGateway[0].Addr())))
	address := func(verb string, a netip.Addr) {
		t.Helper()
		l.Firewall.must("ip", "address", verb, a.String()+"/24", "dev", device)
	}
	curl := func(a netip.Addr, port int, more ...string) error {
		c := l.Client.Command(t.Context(), "curl", append([]string{"-sS", "--connect-timeout", "2", "--max-time", "60",
			fmt.Sprintf("ftp://%s:%s@%v:%d/file", ftpUser, ftpPassword, a, port)}, more...)...)
		got, err := c.Output()
		if err == nil && string(got) != string(content) {
			err = fmt.Errorf("another content, of %d bytes", len(got))
		}
		return err
	}
	works := func(a netip.Addr, port int) {
		t.Helper()
		for _, how := range [][]string{nil, {"--disable-epsv"}, {"-P", "-"}} {
			if err := curl(a, port, how...); err != nil {
				t.Errorf("%v:%d %v: %v", a, port, how, err)
			}
		}
	}
	works(clientGateway[0].Addr(), 2122)
	for range 2 {
		address("add", floating)
		works(floating, 2122)
		works(floating, 2123)
		address("del", floating)
		if err := curl(floating, 2123); err == nil {
			t.Error("an address that is not there answers")
		}
	}
	works(clientGateway[0].Addr(), 2122)
	g.Stop()
	g.checkClean()
}
