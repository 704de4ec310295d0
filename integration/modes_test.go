//go:build linux

package integration

import (
	"fmt"
	"net/netip"
	"strings"
	"testing"
)

// TestModes runs the whole matrix through ftpalg in each of its modes, on a firewall that forwards nothing.
func TestModes(t *testing.T) {
	for _, mode := range []struct {
		name   string
		config func(servers []*server) string
		target target
	}{
		{
			name:   "tproxy",
			config: func([]*server) string { return "listeners: [{mode: tproxy}]" },
		},
		{
			name:   "redirect",
			config: func([]*server) string { return "listeners: [{mode: redirect}]" },
		},
		{
			name:   "explicit",
			config: func([]*server) string { return "listeners: [{mode: explicit, address: '[::]:2121'}]" },
			target: target{
				Dial: func(_ *server, f family) netip.AddrPort { return netip.AddrPortFrom(clientGateway[f].Addr(), 2121) },
				Login: func(s *server, f family) string {
					if f == v6 {
						return ftpUser + "@[" + s.Addr[v6].String() + "]"
					}
					return ftpUser + "@" + s.Addr[v4].String()
				},
			},
		},
		{
			name:   "gateway",
			config: gateways,
			target: target{
				Dial: func(s *server, f family) netip.AddrPort {
					return netip.AddrPortFrom(clientGateway[f].Addr(), gatewayPort(s, f))
				},
			},
		},
	} {
		t.Run(mode.name, func(t *testing.T) {
			l := newLab(t)
			servers := startServers(t, l)
			g := l.startGateway(mode.config(servers) + "\nlimits: {sessions_per_client: 1000}\nlog: {level: debug}\n")
			mode.target.Name = mode.name
			t.Cleanup(func() {
				g.Stop()
				g.checkClean()
				if strings.Contains(g.log(), ftpPassword) {
					t.Error("the password is in the log")
				}
			})
			runMatrix(t, l, servers, mode.target)
		})
	}
}

// gatewayPort is the port of the gateway to a server's address of a family.
func gatewayPort(s *server, f family) uint16 {
	for i, kind := range serverKinds {
		if kind.name == s.Name {
			return uint16(2100 + 100*int(f) + i)
		}
	}
	panic("no such server: " + s.Name)
}

// gateways is a gateway for each server and family.
func gateways(servers []*server) string {
	var b strings.Builder
	b.WriteString("listeners:\n")
	for _, s := range servers {
		for _, f := range families {
			fmt.Fprintf(&b, "  - {name: %s-%v, mode: gateway, address: '[::]:%d', server: '%v'}\n", s.Name, f, gatewayPort(s, f), s.AddrPort(f))
		}
	}
	return b.String()
}
