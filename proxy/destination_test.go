package proxy

import (
	"errors"
	"log/slog"
	"net"
	"net/netip"
	"os"
	"strings"
	"testing"

	"ftpalg/config"
	"ftpalg/proxy/accounts"
)

// rules is a configuration of destinations, as YAML would give it.
func rules(t *testing.T, text string) *config.Config {
	t.Helper()
	file := t.TempDir() + "/c.yaml"
	writeFile(t, file, text)
	cfg, _, err := config.Load(file, config.Options{})
	if err != nil {
		t.Fatal(err)
	}
	return cfg
}

func TestDestined(t *testing.T) {
	const public, private, loopback = "192.0.2.7", "10.1.2.3", "127.0.0.1"
	for _, test := range []struct {
		name, rules, mode, client, server, host string
		deniedBy                                string // part of the rule; empty: allowed
	}{
		{"defaults", "", "explicit", public, "198.51.100.2:21", "", ""},
		{"a high port", "", "explicit", public, "198.51.100.2:2121", "", ""},
		{"990", "", "explicit", public, "198.51.100.2:990", "", ""},
		{"a low port", "", "explicit", public, "198.51.100.2:25", "", "ports"},
		{"private", "", "explicit", public, "10.0.0.1:21", "", "private"},
		{"shared", "", "explicit", public, "100.64.0.1:21", "", "private"},
		{"ULA", "", "explicit", public, "[fd00::1]:21", "", "private"},
		{"private from private", "", "explicit", private, "10.0.0.1:21", "", ""},
		{"loopback", "", "explicit", public, "127.0.0.1:21", "", "loopback"},
		{"loopback from private", "", "explicit", private, "127.9.9.9:21", "", "loopback"},
		{"loopback from loopback", "", "explicit", loopback, "127.0.0.1:21", "", ""},
		{"::1", "", "explicit", public, "[::1]:21", "", "loopback"},
		{"NAT64 loopback", "", "explicit", public, "[64:ff9b::127.0.0.1]:21", "", "loopback"},
		{"6to4 private", "", "explicit", public, "[2002:a00:1::1]:21", "", "private"},
		{"compatible private", "", "explicit", public, "[::10.0.0.1]:21", "", "private"},
		{"metadata", "", "explicit", private, "169.254.169.254:21", "", "metadata"},
		{"metadata elsewhere", "", "explicit", private, "100.100.100.200:21", "", "metadata"},
		{"link-local", "", "explicit", private, "169.254.1.1:21", "", "link-local"},
		{"multicast", "", "explicit", private, "224.0.0.1:21", "", "multicast"},
		{"broadcast", "", "explicit", private, "255.255.255.255:21", "", "broadcast"},
		{"unspecified", "", "explicit", private, "0.0.0.0:21", "", "unspecified"},
		{"this network", "", "explicit", private, "0.1.2.3:21", "", "unspecified"},
		{"intercepted private", "", "tproxy", public, "10.0.0.1:21", "", ""},
		{"intercepted low port", "", "tproxy", public, "198.51.100.2:25", "", ""},

		{"first match", "destinations: [{deny: 198.51.100.2}, {allow: 198.51.100.0/24}]", "tproxy", public, "198.51.100.2:21", "", "destinations[0]"},
		{"not matched", "destinations: [{deny: 198.51.100.2}, {allow: 198.51.100.0/24}]", "tproxy", public, "198.51.100.3:21", "", ""},
		{"ports of a rule", "destinations: [{deny: '*', ports: '2000-3000'}]", "tproxy", public, "198.51.100.3:2500", "", "destinations[0]"},
		{"other ports", "destinations: [{deny: '*', ports: '2000-3000'}]", "tproxy", public, "198.51.100.3:21", "", ""},
		{"allowing a default", "destinations: [{allow: 10.0.0.0/8}]", "explicit", public, "10.0.0.1:25", "", ""},
		{"a host", "destinations: [{allow: '*.example.com'}, {deny: '*'}]", "explicit", public, "198.51.100.2:21", "ftp.example.com", ""},
		{"another host", "destinations: [{allow: '*.example.com'}, {deny: '*'}]", "explicit", public, "198.51.100.2:21", "ftp.example.net", "destinations[1]"},
		{"a host that was not named", "destinations: [{allow: '*.example.com'}, {deny: '*'}]", "explicit", public, "198.51.100.2:21", "", "destinations[1]"},
		{"a keyword", "destinations: [{deny: private}]", "tproxy", public, "10.0.0.1:21", "", "destinations[0]"},
		{"what is embedded", "destinations: [{deny: 10.0.0.0/8}]", "tproxy", public, "[64:ff9b::10.0.0.1]:21", "", "destinations[0]"},
		{"ourselves in spite of a rule", "destinations: [{allow: '*'}]", "explicit", loopback, "127.0.0.1:2121", "", "this proxy itself"},
		{"ourselves, intercepted", "", "tproxy", loopback, "127.0.0.1:2121", "", "this proxy itself"},
	} {
		t.Run(test.name, func(t *testing.T) {
			cfg := rules(t, test.rules+"\nlog: {level: info}\n")
			p := &Proxy{log: slog.New(slog.DiscardHandler), listeners: map[address]*listener{
				{at: netip.MustParseAddrPort("[::]:2121")}: nil,
			}}
			_, r := p.destined(cfg, &config.Listener{Mode: config.Mode(test.mode)}, netip.MustParseAddr(test.client), nil,
				place{name: test.host, at: netip.MustParseAddrPort(test.server)})
			switch {
			case r == nil && test.deniedBy != "":
				t.Errorf("allowed, but for %q", test.deniedBy)
			case r != nil && (test.deniedBy == "" || !strings.Contains(r.Rule, test.deniedBy)):
				t.Errorf("denied by %q, not by %q", r.Rule, test.deniedBy)
			}
		})
	}
}

// Rules with accounts and groups are about those who have logged in to the proxy by an explicit listener; where there are
// accounts, nobody else has the defaults, and who could log in to be let in is told so.
func TestDestinedAccounts(t *testing.T) {
	const given = "accounts: {file: users}\n"
	alice, bob := &accounts.Account{Name: "alice", Groups: []string{"staff"}}, &accounts.Account{Name: "bob"}
	for _, test := range []struct {
		name, rules, mode string
		who               *accounts.Account
		deniedBy          string // part of the rule; empty: allowed
		needed            bool
	}{
		{"nobody has the defaults", "", "explicit", nil, "proxy accounts only", true},
		{"somebody has", "", "explicit", bob, "", false},
		{"intercepted clients have", "", "tproxy", nil, "", false},
		{"gateways have", "", "gateway", nil, "", false},
		{"a rule for all", "destinations: [{allow: 198.51.100.0/24}]", "explicit", nil, "", false},
		{"a rule for others", "destinations: [{allow: '*', accounts: alice}, {deny: '*'}]", "explicit", bob, "destinations[1]", false},
		{"a rule for one", "destinations: [{allow: '*', accounts: alice}, {deny: '*'}]", "explicit", alice, "", false},
		{"a rule for one, and nobody", "destinations: [{allow: '*', accounts: alice}, {deny: '*'}]", "explicit", nil, "destinations[1]", true},
		{"a rule for one, elsewhere, and nobody", "destinations: [{allow: 192.0.2.1, accounts: alice}, {deny: '*'}]", "explicit", nil, "destinations[1]", false},
		{"a rule for one, other ports, and nobody", "destinations: [{allow: '*', ports: 990, accounts: alice}, {deny: '*'}]", "explicit", nil, "destinations[1]", false},
		{"a rule for a group", "destinations: [{allow: '*', groups: [x, staff]}, {deny: '*'}]", "explicit", alice, "", false},
		{"a rule for another group", "destinations: [{allow: '*', groups: [x]}, {deny: '*'}]", "explicit", alice, "destinations[1]", false},
		{"either", "destinations: [{allow: '*', accounts: bob, groups: staff}, {deny: '*'}]", "explicit", alice, "", false},
		{"an account is no group", "destinations: [{allow: '*', groups: bob}, {deny: '*'}]", "explicit", bob, "destinations[1]", false},
		{"a group is no account", "destinations: [{allow: '*', accounts: staff}, {deny: '*'}]", "explicit", alice, "destinations[1]", false},
		{"capitals", "destinations: [{allow: '*', accounts: Bob}, {deny: '*'}]", "explicit", bob, "destinations[1]", false},
		{"denied", "destinations: [{deny: '*', accounts: alice}, {allow: '*'}]", "explicit", alice, "destinations[0]", false},
		{"others denied", "destinations: [{deny: '*', accounts: alice}, {allow: '*'}]", "explicit", bob, "", false},
		{"the first", "destinations: [{deny: '*', groups: staff}, {allow: '*', accounts: alice}]", "explicit", alice, "destinations[0]", false},
		{"no account for intercepted clients", "destinations: [{allow: '*', accounts: alice}, {deny: '*'}]", "tproxy", nil, "destinations[1]", false},
		{"safe defaults all the same", "destinations: [{allow: 192.0.2.0/24, accounts: alice}]", "explicit", nil, "proxy accounts only", true},
	} {
		t.Run(test.name, func(t *testing.T) {
			p := &Proxy{log: slog.New(slog.DiscardHandler)}
			rule, r := p.destined(rules(t, given+test.rules+"\n"), &config.Listener{Mode: config.Mode(test.mode)}, netip.MustParseAddr("192.0.2.7"), test.who,
				place{at: netip.MustParseAddrPort("198.51.100.2:21")})
			switch {
			case r == nil && test.deniedBy != "":
				t.Errorf("allowed by %d, but for %q", rule, test.deniedBy)
			case r != nil && (test.deniedBy == "" || !strings.Contains(r.Rule, test.deniedBy) || errors.Is(r, accounts.ErrNeeded) != test.needed):
				t.Errorf("denied by %q (%v), not by %q", r.Rule, r.Err, test.deniedBy)
			}
		})
	}
	// Being logged in opens nothing that is closed to all.
	p := &Proxy{log: slog.New(slog.DiscardHandler)}
	for server, by := range map[string]string{"10.0.0.1:21": "private", "198.51.100.2:25": "ports", "169.254.169.254:21": "metadata"} {
		_, r := p.destined(rules(t, given), &config.Listener{Mode: config.Explicit}, netip.MustParseAddr("192.0.2.7"), alice, place{at: netip.MustParseAddrPort(server)})
		if r == nil || !strings.Contains(r.Rule, by) {
			t.Errorf("%s: %v", server, r)
		}
	}
}

func TestSplitServer(t *testing.T) {
	for in, want := range map[string]string{
		"ftp.example.com": "ftp.example.com 21", "ftp.example.com:2121": "ftp.example.com 2121", "192.0.2.1": "192.0.2.1 21",
		"[2001:db8::1]": "2001:db8::1 21", "[2001:db8::1]:990": "2001:db8::1 990", "2001:db8::1": "2001:db8::1 21",
		"": "", ":21": "", "a:": "", "a:0": "", "a:65536": "", "a:-1": "", "a:+1": "", "a b": "", "[a]": "", "[::1": "", "[::1]x": "", "[::1]:": "", "a\tb": "",
	} {
		host, port, err := splitServer(in)
		got := ""
		if err == nil {
			got = host + " " + netip.AddrPortFrom(netip.IPv4Unspecified(), port).String()[len("0.0.0.0:"):]
		}
		if got != want {
			t.Errorf("%q is %q, not %q", in, got, want)
		}
	}
}

func FuzzSplitServer(f *testing.F) {
	f.Add("ftp.example.com:21")
	f.Add("[2001:db8::1]:21")
	f.Fuzz(func(t *testing.T, s string) {
		host, port, err := splitServer(s)
		if err != nil {
			return
		}
		if host == "" || port == 0 || strings.ContainsAny(host, " \r\n\t\x00") {
			t.Errorf("%q is %q port %d", s, host, port)
		}
		again, p, err := splitServer(net.JoinHostPort(host, netip.AddrPortFrom(netip.IPv4Unspecified(), port).String()[len("0.0.0.0:"):]))
		if !strings.ContainsAny(host, "[]") && (err != nil || again != host || p != port) {
			t.Errorf("%q is %q port %d, and then %q port %d, %v", s, host, port, again, p, err)
		}
	})
}

func TestCounts(t *testing.T) {
	limits := config.Limits{Sessions: 4, SessionsInLogin: 3, SessionsPerClient: 2, DataListeners: 1}
	var c counts
	admit := func(client, want string) {
		t.Helper()
		r := c.admit(netip.MustParseAddr(client), limits)
		if (r == nil) != (want == "") || r != nil && !strings.Contains(r.Rule, want) {
			t.Errorf("%s: %v instead of %q", client, r, want)
		}
	}
	admit("192.0.2.1", "")
	admit("192.0.2.1", "")
	admit("192.0.2.1", "sessions_per_client")
	admit("2001:db8::1", "")
	admit("192.0.2.2", "sessions_in_login")
	c.loggedIn()
	admit("2001:db8::ffff", "") // of the same /64
	admit("192.0.2.3", "limits.sessions 4")
	c.leave(netip.MustParseAddr("192.0.2.1"), true)
	c.loggedIn()
	admit("2001:db8::2", "sessions_per_client")
	c.leave(netip.MustParseAddr("2001:db8::1"), true)
	c.leave(netip.MustParseAddr("2001:db8::ffff"), false)
	c.leave(netip.MustParseAddr("192.0.2.1"), false)
	if c.sessions != 0 || c.inLogin != 0 || len(c.perClient) != 0 {
		t.Errorf("something is left: %+v", &c)
	}
	if err := c.listen(limits); err != nil {
		t.Error(err)
	}
	if err := c.listen(limits); err == nil {
		t.Error("a listener too many")
	}
	c.unlisten()
	if err := c.listen(limits); err != nil {
		t.Error(err)
	}
}

func writeFile(t *testing.T, file, text string) {
	t.Helper()
	if err := os.WriteFile(file, []byte(text), 0o644); err != nil {
		t.Fatal(err)
	}
}
