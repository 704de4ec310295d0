//go:build linux

package integration

import (
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"testing"
)

// TestTLS runs the matrix over TLS through ftpalg in each of its modes. The servers' certificates are signed by an authority
// that clients do not know, and what clients see by one that only ftpalg has. Nothing is forwarded.
func TestTLS(t *testing.T) {
	for _, mode := range []struct {
		name      string
		listeners func(servers []*server) string
		ways      func(trusted *authority) []target
	}{
		{"tproxy", func([]*server) string { return "listeners: [{mode: tproxy}]\n" }, tlsWays},
		{"redirect", func([]*server) string { return "listeners: [{mode: redirect}]\n" }, fewTLSWays},
		{"explicit", func([]*server) string {
			return "listeners:\n" +
				"  - {mode: explicit, address: '[::]:2121'}\n" +
				"  - {name: implicit, mode: explicit, address: '[::]:2990', implicit: true}\n"
		}, func(trusted *authority) []target {
			ways := fewTLSWays(trusted)
			for i, via := range ways {
				port := uint16(2121)
				if implicit(via) {
					port = 2990
				}
				ways[i].Dial = func(_ *server, f family) netip.AddrPort { return netip.AddrPortFrom(clientGateway[f].Addr(), port) }
				ways[i].Login = func(s *server, f family) string {
					return fmt.Sprintf("%s@%v", ftpUser, door{s, f, implicit(via)}.addrPort())
				}
			}
			return ways
		}},
		{"gateway", tlsGateways, func(trusted *authority) []target {
			ways := fewTLSWays(trusted)
			for i, via := range ways {
				ways[i].Dial = func(s *server, f family) netip.AddrPort {
					return netip.AddrPortFrom(clientGateway[f].Addr(), tlsGatewayPort(door{s, f, implicit(via)}))
				}
			}
			return ways
		}},
		{"active", func([]*server) string { return "listeners: [{mode: tproxy, server_data: active}]\n" }, convertedTLSWays(passiveVerbs)},
		{"passive", func([]*server) string { return "listeners: [{mode: tproxy, server_data: passive}]\n" }, convertedTLSWays(activeVerbs)},
	} {
		t.Run(mode.name, func(t *testing.T) {
			l := newLab(t)
			root := l.newAuthority("server-root")
			servers := startTLSServers(t, l, root)
			own := l.newAuthority("gateway")
			g := l.startGateway(fmt.Sprintf("tls: {authority_cert: %s, authority_key: %s, server_roots: %s}\n",
				own.CertFile, own.KeyFile, root.CertFile) + mode.listeners(servers) + variantLimits)
			t.Cleanup(func() {
				g.Stop()
				g.checkClean()
				g.checkBothSides()
				if strings.Contains(g.log(), ftpPassword) {
					t.Error("the password is in the log")
				}
			})
			for _, via := range mode.ways(own) {
				via.Name = mode.name + "-" + via.Name
				runMatrix(t, l, servers, via)
			}
		})
	}
}

// convertedTLSWays are for a client that knows all verbs, where the server's side has others.
func convertedTLSWays(verbs []string) func(*authority) []target {
	return func(trusted *authority) []target {
		return []target{{Name: "explicit-P", Clients: names{"ftplib"}, Verbs: verbs, TLS: &protection{CA: trusted.CertFile}}}
	}
}

// TestOffload has TLS on one side alone, as a listener wants it in so many words.
func TestOffload(t *testing.T) {
	t.Run("client-only", func(t *testing.T) {
		l := newLab(t)
		servers := startServers(t, l)
		own := l.newAuthority("gateway")
		g := l.startGateway(fmt.Sprintf("tls: {authority_cert: %s, authority_key: %s}\nlisteners: [{mode: tproxy, tls: client-only}]\n",
			own.CertFile, own.KeyFile) + variantLimits)
		t.Cleanup(func() {
			g.Stop()
			g.checkClean()
			if line := g.logged("msg=TLS", "side=server"); line != "" {
				t.Errorf("a server has TLS: %s", line)
			}
			for _, line := range []string{g.logged("msg=transfer", "server_tls"), g.logged("msg=transfer", "carried=splice")} {
				if line != "" {
					t.Error(line)
				}
			}
		})
		runMatrix(t, l, servers, target{
			Name: "client-only", Clients: names{"lftp", "ftplib", "jlaffaye"}, Families: []family{v4}, Verbs: names{"PASV", "EPRT"},
			TLS: &protection{CA: own.CertFile},
		})
	})
	t.Run("server-only", func(t *testing.T) {
		l := newLab(t)
		root := l.newAuthority("server-root")
		servers := slices.DeleteFunc(startTLSServers(t, l, root), func(s *server) bool {
			return s.Name == "proftpd" // its sessions die, at times, of a reset on a data connection with TLS
		})
		g := l.startGateway(fmt.Sprintf("tls: {server_roots: %s}\nlisteners: [{mode: tproxy, tls: server-only}]\n", root.CertFile) + variantLimits)
		t.Cleanup(func() {
			g.Stop()
			g.checkClean()
			if line := g.logged("msg=TLS", "side=client"); line != "" {
				t.Errorf("a client has TLS: %s", line)
			}
			for line := range strings.Lines(g.log()) {
				if strings.Contains(line, "msg=transfer ") && strings.Contains(line, "outcome=whole") && !strings.Contains(line, "server_tls.version=") {
					t.Errorf("plain text to the server: %s", line)
				}
			}
		})
		runMatrix(t, l, servers, target{
			Name: "server-only", Clients: names{"lftp", "ftplib", "tnftp"}, Families: []family{v4}, Verbs: names{"EPSV", "PORT"},
		})
	})
}

// fewTLSWays are fewer than tlsWays.
func fewTLSWays(trusted *authority) []target {
	ways := []target{
		{
			Name: "explicit-P", Clients: names{"lftp", "ftplib", "netftp"}, Families: []family{v4}, Verbs: names{"PASV", "EPRT"},
			TLS: &protection{},
		},
		{
			Name: "explicit-C", Clients: names{"curl", "ftplib", "netftp"}, Families: []family{v6}, Verbs: names{"EPSV"},
			TLS: &protection{Clear: true, Max: "1.2"},
		},
		{
			Name: "implicit-P-1.2", Clients: names{"lftp", "ftplib", "jlaffaye"}, Families: []family{v6},
			TLS: &protection{Implicit: true, Max: "1.2"},
		},
	}
	for _, via := range ways {
		via.TLS.CA = trusted.CertFile
	}
	return ways
}

// tlsGatewayPort is the port of the gateway to a server's door.
func tlsGatewayPort(d door) uint16 {
	if d.implicit {
		return gatewayPort(d.server, d.family) + 1000
	}
	return gatewayPort(d.server, d.family)
}

// tlsGateways is a gateway for each door.
func tlsGateways(servers []*server) string {
	var b strings.Builder
	b.WriteString(gateways(servers, spliced))
	for _, s := range servers {
		for _, f := range families {
			d := door{s, f, true}
			fmt.Fprintf(&b, "  - {name: %s, data_path: splice, mode: gateway, address: '[::]:%d', server: '%v', implicit: true}\n",
				d, tlsGatewayPort(d), d.addrPort())
		}
	}
	return b.String()
}

// checkBothSides fails the test unless every session had TLS on both sides, the server verified, and every transfer on both or,
// as some clients want it, on neither.
func (g *gateway) checkBothSides() {
	g.lab.t.Helper()
	sides := map[string]int{} // by session
	for line := range strings.Lines(g.log()) {
		_, rest, _ := strings.Cut(line, " session=")
		session, _, _ := strings.Cut(rest, " ")
		switch {
		case strings.Contains(line, `msg="session started"`):
			sides[session] += 0
		case strings.Contains(line, "msg=TLS"):
			sides[session]++
			if strings.Contains(line, " side=server ") && !strings.Contains(line, " verified=chain") {
				g.lab.t.Errorf("not verified: %s", line)
			}
		case strings.Contains(line, "msg=transfer"):
			if strings.Contains(line, " client_tls.version=") != strings.Contains(line, " server_tls.version=") {
				g.lab.t.Errorf("protected on one side: %s", line)
			}
		}
	}
	if len(sides) == 0 {
		g.lab.t.Error("no session")
	}
	for session, n := range sides {
		if n != 2 {
			g.lab.t.Errorf("session %s has had TLS %d times", session, n)
		}
	}
}
