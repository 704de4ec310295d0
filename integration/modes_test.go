//go:build linux

package integration

import (
	"fmt"
	"net/netip"
	"strings"
	"testing"
)

// TestModes runs the whole matrix through ftpalg in each of its modes. Half of it is carried by the kernel, so the firewall
// forwards what is related to connections that were let in, and nothing else.
func TestModes(t *testing.T) {
	for _, mode := range []struct {
		name   string
		config func(servers []*server) string
		target target
	}{
		{
			name:   "tproxy",
			config: func(servers []*server) string { return intercepting("tproxy", servers) },
		},
		{
			name:   "redirect",
			config: func(servers []*server) string { return intercepting("redirect", servers) },
		},
		{
			name: "explicit",
			config: func([]*server) string {
				return "listeners:\n" +
					"  - {name: kernel, mode: explicit, address: '[::]:2121', data_path: kernel}\n" +
					"  - {name: splice, mode: explicit, address: '[::]:2122', data_path: splice}\n"
			},
			target: target{
				Dial: func(s *server, f family) netip.AddrPort {
					if byKernel(s, f) {
						return netip.AddrPortFrom(clientGateway[f].Addr(), 2121)
					}
					return netip.AddrPortFrom(clientGateway[f].Addr(), 2122)
				},
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
			config: func(servers []*server) string { return gateways(servers, byKernel) },
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
				checkCarried(t, g.log())
			})
			runMatrix(t, l, servers, mode.target)
		})
	}
}

// byKernel reports whether the kernel carries data of sessions with a server: it does for half of the servers in each family,
// so for each server in one of them.
func byKernel(s *server, f family) bool { return (s.kind()+int(f))%2 == 0 }

// spliced is for tests of what comes to ftpalg.
func spliced(*server, family) bool { return false }

// kind is which of serverKinds a server is.
func (s *server) kind() int {
	for i, kind := range serverKinds {
		if kind.name == s.Name {
			return i
		}
	}
	panic("no such server: " + s.Name)
}

// checkCarried checks that plain data went as the names of their listeners say.
func checkCarried(t *testing.T, log string) {
	carried := map[string]int{}
	for line := range strings.Lines(log) {
		if !strings.Contains(line, "msg=transfer ") || strings.Contains(line, `carried=""`) {
			continue
		}
		switch kernel := strings.Contains(line, "listener=kernel"); {
		case kernel && strings.Contains(line, "carried=kernel "):
			carried["kernel"]++
		case !kernel && strings.Contains(line, "carried=splice "):
			carried["splice"]++
		default:
			t.Errorf("not carried as its listener's name says: %s", line)
		}
	}
	if carried["kernel"] == 0 || carried["splice"] == 0 {
		t.Errorf("carried: %v", carried)
	}
}

// intercepting is two listeners of a mode, one for each half of the servers' addresses.
func intercepting(mode string, servers []*server) string {
	halves := map[bool][]string{}
	for _, s := range servers {
		for _, f := range families {
			halves[byKernel(s, f)] = append(halves[byKernel(s, f)], "'"+s.Addr[f].String()+"'")
		}
	}
	one := func(name, port string, servers []string) string {
		return fmt.Sprintf("  - {name: %s, data_path: %s, mode: %s, address: '[::]:%s', intercept: {servers: [%s]}}\n",
			name, name, mode, port, strings.Join(servers, ", "))
	}
	return "listeners:\n" + one("kernel", "2121", halves[true]) + one("splice", "2122", halves[false])
}

// gatewayPort is the port of the gateway to a server's address of a family.
func gatewayPort(s *server, f family) uint16 { return uint16(2200 + 100*int(f) + s.kind()) }

// gateways is a gateway for each server and family, of which the kernel carries data where asked.
func gateways(servers []*server, kernel func(*server, family) bool) string {
	var b strings.Builder
	b.WriteString("listeners:\n")
	for _, s := range servers {
		for _, f := range families {
			name, path := fmt.Sprintf("%s-%v", s.Name, f), "splice"
			if kernel(s, f) {
				name, path = "kernel-"+name, "kernel"
			}
			fmt.Fprintf(&b, "  - {name: %s, data_path: %s, mode: gateway, address: '[::]:%d', server: '%v'}\n",
				name, path, gatewayPort(s, f), s.AddrPort(f))
		}
	}
	return b.String()
}
