package firewall

import (
	"flag"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

var update = flag.Bool("update", false, "rewrite testdata")

// plans are the plans that the tests are about, by the name of their golden file. Together they use every feature in
// both families.
func plans() map[string]Plan {
	port := func(n uint16) PortRange { return PortRange{n, n} }
	address := netip.MustParseAddrPort
	prefixes := func(all ...string) []netip.Prefix {
		var list []netip.Prefix
		for _, p := range all {
			list = append(list, netip.MustParsePrefix(p))
		}
		return list
	}
	plan := func(divert bool, intercepts ...Intercept) Plan {
		return Plan{Mark: 0x66, DivertMark: 0x67, RouteTable: 102, Divert: divert, Intercepts: intercepts}
	}
	ftp := []PortRange{port(21)}
	data := PortRange{50000, 51000}

	return map[string]Plan{
		"nothing":   plan(false),
		"divert":    plan(true),
		"tproxy":    plan(false, Intercept{Name: "tproxy", Kind: TPROXY, Address: address("[::]:2121"), Ports: ftp}),
		"tproxy-v4": plan(false, Intercept{Name: "four", Kind: TPROXY, Address: address("0.0.0.0:2121"), Ports: ftp}),
		"tproxy-v6": plan(false, Intercept{Name: "six", Kind: TPROXY, Address: address("[2001:db8::1]:2121"), Ports: ftp}),
		"tproxy-specific": plan(false,
			Intercept{Name: "a", Kind: TPROXY, Address: address("192.0.2.1:2121"), Ports: ftp},
			Intercept{Name: "b", Kind: TPROXY, Address: address("[::1]:2121"), Ports: ftp}),
		"tproxy-criteria": plan(false, Intercept{
			Name: "office \"A\"\nEOF\nid", Kind: TPROXY, Address: address("[::]:2121"),
			Ports:      []PortRange{port(21), {2100, 2120}, {2110, 2130}, port(65535)},
			Clients:    prefixes("10.0.0.0/8", "10.1.0.0/16", "192.0.2.7/32", "255.0.0.0/8", "2001:db8::/32", "2001:db8:1::/48", "ffff::/16"),
			Servers:    prefixes("198.51.100.0/25", "2001:db8:5::5/128"),
			Interfaces: []string{"eth0", "lan-1.100", "eth0"},
		}),
		"tproxy-odd-prefixes": plan(false, Intercept{
			Name: "odd", Kind: TPROXY, Address: address("[::]:2121"), Ports: []PortRange{port(20), port(21)},
			Clients:    prefixes("10.1.0.0/16", "10.2.0.0/16", "2001:db8::/33"),
			Servers:    prefixes("172.16.0.0/12", "0.0.0.0/1", "fd00::/31", "fd00:1::/32"),
			Interfaces: []string{"eth0"},
		}),
		"tproxy-any-prefix": plan(false, Intercept{
			Name: "any", Kind: TPROXY, Address: address("[::]:2121"), Ports: ftp,
			Clients: prefixes("0.0.0.0/0", "::/0"), Servers: prefixes("0.0.0.0/1", "128.0.0.0/1", "2001:db8::/32"),
		}),
		"tproxy-one-family": plan(false, Intercept{
			Name: "v4 clients", Kind: TPROXY, Address: address("[::]:2121"), Ports: ftp, Clients: prefixes("10.0.0.0/8"),
		}),
		"tproxy-local": plan(false,
			Intercept{Name: "first", Kind: TPROXY, Address: address("[::]:2121"), Ports: ftp},
			Intercept{
				Name: "local", Kind: TPROXY, Address: address("[::]:2122"), Ports: []PortRange{port(21), port(2100)},
				Clients: prefixes("10.0.0.0/8"), DataPorts: data,
				LocalUIDs: []uint32{1000, 0, 1000}, LocalMarks: []uint32{7},
			}),
		"tproxy-local-servers": plan(false, Intercept{
			Name: "local", Kind: TPROXY, Address: address("[::]:2121"), Ports: ftp, DataPorts: data,
			Servers: prefixes("198.51.100.0/24", "203.0.113.9/32", "2001:db8::/32"), LocalMarks: []uint32{7, 0xffffffff},
		}),
		"redirect": plan(false, Intercept{
			Name: "redirect", Kind: Redirect, Address: address("[::]:2121"), Ports: ftp, DataPorts: data,
		}),
		"redirect-client-source": plan(true, Intercept{
			Name: "redirect", Kind: Redirect, Address: address("0.0.0.0:2121"), Ports: ftp, DataPorts: port(50000),
		}),
		"redirect-criteria": plan(false,
			Intercept{
				Name: "one", Kind: Redirect, Address: address("[::]:2121"), Ports: []PortRange{port(21), port(2100)}, DataPorts: data,
				Clients: prefixes("10.0.0.0/8", "2001:db8::/48"), Servers: prefixes("198.51.100.0/24", "2001:db8:5::/64"),
				Interfaces: []string{"eth0", "eth1"}, LocalUIDs: []uint32{1000}, LocalMarks: []uint32{7, 8},
			},
			Intercept{
				Name: "two", Kind: Redirect, Address: address("192.0.2.1:2122"), Ports: ftp, DataPorts: data, LocalUIDs: []uint32{0},
			},
			Intercept{
				Name: "three", Kind: Redirect, Address: address("[2001:db8::1]:2122"), Ports: ftp, DataPorts: data,
			}),
		"both": plan(true,
			Intercept{Name: "t", Kind: TPROXY, Address: address("[::]:2121"), Ports: ftp, Interfaces: []string{"lan0"}},
			Intercept{
				Name: "r", Kind: Redirect, Address: address("[::]:2122"), Ports: ftp, DataPorts: data, Interfaces: []string{"lan1"},
			}),
		"pinholes": {Mark: 0x66, DivertMark: 0x67, RouteTable: 102, Pinholes: true, LogGroup: 102, Intercepts: []Intercept{
			{Name: "t", Kind: TPROXY, Address: address("[::]:2121"), Ports: ftp},
		}},
		"pinholes-nat": {Mark: 0x66, DivertMark: 0x67, RouteTable: 102, Pinholes: true, PinholeNAT: true, LogGroup: 7, Intercepts: []Intercept{
			{Name: "r", Kind: Redirect, Address: address("[::]:2121"), Ports: ftp, DataPorts: data},
		}},
		"refused": {Mark: 1, DivertMark: 1, RouteTable: 254, Intercepts: []Intercept{
			{Name: "x\nrm -rf /", Kind: Redirect, Address: address("[::]:2121"), Interfaces: []string{"a\" b"}},
		}},
	}
}

func TestString(t *testing.T) {
	for name, p := range plans() {
		t.Run(name, func(t *testing.T) {
			golden := filepath.Join("testdata", name+".sh")
			if *update {
				if err := os.WriteFile(golden, []byte(p.String()), 0o644); err != nil {
					t.Fatal(err)
				}
			}
			want, err := os.ReadFile(golden)
			if err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(string(want), p.String()); diff != "" {
				t.Errorf("String is not %s (-want +got); -update if it should not be:\n%s", golden, diff)
			}
		})
	}
}

// TestRefusedIsComment: what cannot be applied must not run either when pasted, whatever its names hold.
func TestRefusedIsComment(t *testing.T) {
	for line := range strings.Lines(plans()["refused"].String()) {
		if !strings.HasPrefix(line, "#") {
			t.Errorf("not a comment: %q", line)
		}
	}
}
