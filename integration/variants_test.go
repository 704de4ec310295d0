//go:build linux

package integration

import (
	"fmt"
	"maps"
	"net/netip"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// few are the clients that know the most, and that are the least alike.
var few = names{"curl", "lftp", "ftplib", "netftp"}

// other is the other family.
func (f family) other() family { return 1 - f }

// explicitTarget reaches a server's address of the family that to returns by way of an explicit listener.
func explicitTarget(name string, port uint16, to func(family) family) target {
	return target{
		Name: name, Clients: few,
		Dial: func(_ *server, f family) netip.AddrPort { return netip.AddrPortFrom(clientGateway[f].Addr(), port) },
		Login: func(s *server, f family) string {
			a := s.Addr[to(f)].String()
			if to(f) == v6 {
				a = "[" + a + "]"
			}
			return ftpUser + "@" + a
		},
	}
}

func same(f family) family  { return f }
func cross(f family) family { return f.other() }

// variantLimits lets a whole matrix through,
// lets clients of public addresses reach the private ones of the lab, and tells who said what.
const variantLimits = "\nlimits: {sessions_per_client: 1000}\ndestinations: [{allow: \"*\"}]\nlog: {level: debug}\n"

// startVariant starts all servers and a gateway, which must come out of it clean.
func startVariant(t *testing.T, config func([]*server) string) (*lab, []*server, *gateway) {
	t.Helper()
	l := newLab(t)
	servers := startServers(t, l)
	g := l.startGateway(config(servers) + variantLimits)
	t.Cleanup(func() {
		g.Stop()
		g.checkClean()
	})
	return l, servers, g
}

// TestOwnSource is transparent interception whose server connections come from the firewall.
func TestOwnSource(t *testing.T) {
	l, servers, g := startVariant(t, func([]*server) string { return "listeners: [{mode: tproxy, source: own}]" })
	t.Cleanup(func() {
		// Cleaning up comes last to first, so the servers still run: they have named their client.
		for _, f := range families {
			commands := string(readAll(filepath.Join(l.logs(), "vsftpd-"+f.String()+".commands")))
			client := regexp.MustCompile(`CONNECT: Client "(?:::ffff:)?([0-9a-f.:]+)"`).FindAllStringSubmatch(commands, -1)
			from := map[string]bool{}
			for _, c := range client {
				from[c[1]] = true
			}
			delete(from, clientAddress[f].Addr().String()) // await's, before there was a gateway
			if got := slices.Collect(maps.Keys(from)); !slices.Equal(got, []string{serverGateway[f].Addr().String()}) {
				t.Errorf("vsftpd's clients over %v are %q", f, got)
			}
			started := regexp.MustCompile(`msg="session started".* client=\[?` + regexp.QuoteMeta(clientAddress[f].Addr().String()))
			if !started.MatchString(g.log()) {
				t.Errorf("no session over %v", f)
			}
		}
	})
	runMatrix(t, l, servers, target{Name: "own", Clients: few})
}

// TestCrossFamily has clients of one family and servers of the other.
func TestCrossFamily(t *testing.T) {
	l, servers, g := startVariant(t, func(servers []*server) string {
		return gateways(servers, spliced) + "  - {mode: explicit, data_path: splice, address: '[::]:2121'}\n"
	})
	t.Cleanup(func() {
		heard := g.heard()
		for _, mode := range []string{"explicit", "vsftpd-v4", "vsftpd-v6"} {
			if len(heard[mode]) == 0 {
				t.Errorf("nothing went through %s", mode)
			}
		}
		for line := range strings.Lines(g.log()) {
			if !strings.Contains(line, `msg="session started"`) {
				continue
			}
			if m := regexp.MustCompile(` client=(\[?).* server=(\[?)`).FindStringSubmatch(line); m == nil || m[1] == m[2] {
				t.Errorf("not of two families: %s", line)
			}
		}
	})
	runMatrix(t, l, servers, explicitTarget("explicit-cross", 2121, cross))
	runMatrix(t, l, servers, target{
		Name: "gateway-cross", Clients: few,
		Dial: func(s *server, f family) netip.AddrPort {
			return netip.AddrPortFrom(clientGateway[f].Addr(), gatewayPort(s, f.other()))
		},
	})
}

var (
	passiveVerbs = []string{"EPSV", "PASV"}
	activeVerbs  = []string{"EPRT", "PORT"}
)

// TestServerData decides who opens data connections on the server's side, whatever the client says.
func TestServerData(t *testing.T) {
	for _, way := range []struct {
		name   string
		verbs  []string // what servers hear
		others []string // what clients say; where that is what servers hear, nothing is decided
	}{{"passive", passiveVerbs, activeVerbs}, {"active", activeVerbs, passiveVerbs}} {
		t.Run(way.name, func(t *testing.T) {
			l, servers, g := startVariant(t, func([]*server) string {
				return fmt.Sprintf("listeners:\n"+
					"  - {mode: tproxy, address: '[::]:2120', server_data: %s}\n"+
					"  - {mode: explicit, address: '[::]:2121', server_data: %[1]s}\n"+
					"  - {mode: explicit, name: cross, address: '[::]:2122', server_data: %[1]s}\n", way.name)
			})
			before := serversHeard(l)
			t.Cleanup(func() {
				// From one family to the other nothing but the extended verbs will do.
				want := map[string][]string{"tproxy": way.verbs, "explicit": way.verbs, "cross": way.verbs[:1]}
				if diff := cmp.Diff(want, g.heard()); diff != "" {
					t.Errorf("what servers were told by way of each listener (- wanted, + found):\n%s", diff)
				}
				// And in the servers' own words.
				heard := serversHeard(l)
				for verb := range heard {
					if told := heard[verb] > before[verb]; told != slices.Contains(way.verbs, verb) {
						t.Errorf("servers say they heard %s: %t", verb, told)
					}
				}
			})
			via := []target{
				{Name: "tproxy-" + way.name, Clients: few},
				explicitTarget("explicit-"+way.name, 2121, same),
				explicitTarget("cross-"+way.name, 2122, cross),
			}
			for i := range via {
				via[i].Verbs = way.others
				if i > 0 {
					via[i].Clients = names{"curl", "ftplib"}
				}
				runMatrix(t, l, servers, via[i])
			}
		})
	}
}

// heard is the set of data verbs that servers were told by way of each listener, as the gateway has it. Its log may be large.
func (g *gateway) heard() map[string][]string {
	heard := map[string][]string{}
	for line := range strings.Lines(g.log()) {
		_, rest, said := strings.Cut(line, " listener=")
		listener, rest, _ := strings.Cut(rest, " ")
		_, text, toServer := strings.Cut(rest, " arrow=>> text=")
		verb := strings.Trim(strings.Fields(text + " -")[0], `"`)
		if said && toServer && slices.Contains([]string{"PASV", "EPSV", "PORT", "EPRT", "LPRT", "LPSV"}, verb) &&
			!slices.Contains(heard[listener], verb) {
			heard[listener] = append(heard[listener], verb)
			slices.Sort(heard[listener])
		}
	}
	return heard
}

// serversHeard counts the data verbs in the logs of the servers that log their commands.
func serversHeard(l *lab) map[string]int {
	heard := map[string]int{"PASV": 0, "EPSV": 0, "PORT": 0, "EPRT": 0}
	files, _ := filepath.Glob(filepath.Join(l.logs(), "*.commands"))
	for _, file := range files {
		text, err := os.ReadFile(file)
		if err != nil {
			l.t.Error(err)
		}
		for verb := range heard {
			heard[verb] += len(regexp.MustCompile(`"`+verb+`[ "]`).FindAll(text, -1))
		}
	}
	return heard
}
