package policy

import (
	"fmt"
	"net/netip"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"ftpalg/config"
	"ftpalg/control"
	"ftpalg/dataconn"
)

// compile is Compile for rules without faults.
func compile(t testing.TB, byDefault config.PolicyAction, rules ...config.PolicyRule) *Set {
	t.Helper()
	s, faults := Compile(&config.Policy{Default: byDefault, TimeZone: "UTC", Rules: rules})
	if len(faults) > 0 {
		t.Fatal(faults)
	}
	return s
}

// ask is a request with one path, in both readings.
func ask(verb, path string) *control.Request {
	v := verbOf(verb)
	r := &control.Request{Verb: verb, Class: v.class, Early: v.early, User: "bob", Size: -1}
	switch verb {
	case "USER", "PASS", "ACCT":
		r.Login = true
	case "STOR", "APPE", "STOU":
		r.Moves, r.Direction = true, dataconn.Upload
	case "RETR", "LIST":
		r.Moves = true
	}
	acts := []control.Act{{Class: v.class}}
	if path != "" {
		acts = []control.Act{
			{Class: v.class, Path: control.Path{Text: path, Extent: control.OnePath}},
			{Class: v.class, Path: control.Path{Text: path, Extent: control.OnePath, Loose: true}},
		}
	}
	r.Acts = func() []control.Act { return acts }
	return r
}

// with changes a request.
func with(r *control.Request, change func(*control.Request)) *control.Request {
	change(r)
	return r
}

var noon = time.Date(2026, 11, 20, 12, 0, 0, 0, time.UTC) // a Friday

func TestRefusals(t *testing.T) {
	deny := config.PolicyRule{Name: "r", Action: config.PolicyDeny}
	rule := func(change func(*config.PolicyRule)) config.PolicyRule { r := deny; change(&r); return r }
	for _, c := range []struct {
		rule config.PolicyRule
		r    *control.Request
		want string
	}{
		{deny, ask("USER", ""), "530 Login denied by policy (r)"},
		{deny, ask("PASS", ""), "530 Login denied by policy (r)"},
		{deny, ask("RETR", "/a"), "550 Denied by policy (r)"},
		{deny, ask("CWD", "/a"), "550 Denied by policy (r)"},
		{deny, ask("STOR", "/a"), "553 Denied by policy (r)"},
		{deny, ask("XMKD", "/a"), "553 Denied by policy (r)"},
		{rule(func(r *config.PolicyRule) { r.Commands = []string{"DELE"} }), ask("DELE", "/a"), "502 Command not allowed by policy (r)"},
		{rule(func(r *config.PolicyRule) { r.Commands = []string{"USER"} }), ask("USER", ""), "530 Login denied by policy (r)"},
		{rule(func(r *config.PolicyRule) { r.Commands, r.Paths = []string{"DELE"}, []string{"/a"} }), ask("DELE", "/a"), "550 Denied by policy (r)"},
		{rule(func(r *config.PolicyRule) { r.ClientTLS = config.TLSPlain }), ask("USER", ""), "534 Denied by policy (r)"},
		{rule(func(r *config.PolicyRule) { r.ClientTLS = config.TLSPlain }), ask("RETR", "/a"), "521 Denied by policy (r)"},
		{rule(func(r *config.PolicyRule) { r.LargerThan = 10 }), with(ask("RETR", "/a"), func(r *control.Request) { r.Size = 11 }), "552 Denied by policy (r)"},
		{rule(func(r *config.PolicyRule) { r.Code, r.Text = 450, "Come back later" }), ask("STOR", "/a"), "450 Come back later"},
		{rule(func(r *config.PolicyRule) { r.Classes = []config.CommandClass{config.ClassRead} }), ask("MKD", "/a"), "553 Denied by policy (policy.default)"},
	} {
		d := compile(t, config.PolicyDeny, c.rule).Bind(Facts{}).Decide(c.r, noon)
		if d.Allow || d.Refusal == nil || fmt.Sprintf("%d %s", d.Refusal.Code, d.Refusal.Text) != c.want || !strings.HasSuffix(d.Refusal.Error(), "("+d.Refusal.Rule+")") {
			t.Errorf("%s by %+v: %v; want %s", c.r.Verb, c.rule, d.Refusal, c.want)
		}
	}
}

// TestBypasses are what somebody tries whom one rule denies something, with everything else allowed.
func TestBypasses(t *testing.T) {
	site := func(sub string) *control.Request {
		return with(ask("SITE", ""), func(r *control.Request) { r.Sub = sub })
	}
	extent := func(r *control.Request, acts ...control.Act) *control.Request {
		r.Acts = func() []control.Act { return acts }
		return r
	}
	secured := func(commands, data bool) func(*control.Request) {
		return func(r *control.Request) { r.Secured[0], r.Private[0] = commands, data }
	}
	for _, c := range []struct {
		name string
		rule config.PolicyRule
		r    *control.Request
		deny bool
	}{
		{"another name of the verb", config.PolicyRule{Commands: []string{"MKD"}}, ask("XMKD", "/a"), true},
		{"a verb that is named", config.PolicyRule{Commands: []string{"XMKD"}}, ask("MKD", "/a"), false},
		{"SITE CHMOD", config.PolicyRule{Commands: []string{"SITE CHMOD"}}, site("CHMOD"), true},
		{"SITE with two blanks", config.PolicyRule{Commands: []string{"SITE CHMOD"}}, site(""), true},
		{"SITE with a tab", config.PolicyRule{Commands: []string{"SITE CHMOD"}}, site("CHMOD\t777"), true},
		{"SITE in quotes", config.PolicyRule{Commands: []string{"SITE CHMOD"}}, site(`"CHMOD"`), true},
		{"another SITE", config.PolicyRule{Commands: []string{"SITE CHMOD"}}, site("HELP"), false},
		{"all of SITE", config.PolicyRule{Commands: []string{"SITE"}}, site("UTIME"), true},
		{"before USER", config.PolicyRule{Users: []string{"bob"}}, with(ask("RETR", "/a"), func(r *control.Request) { r.User = "" }), true},
		{"before USER, to negotiate", config.PolicyRule{Users: []string{"bob"}}, with(ask("AUTH", ""), func(r *control.Request) { r.User = "" }), false},
		{"all is denied, and one negotiates", config.PolicyRule{}, ask("AUTH", ""), false},
		{"it is denied to negotiate", config.PolicyRule{Commands: []string{"AUTH"}}, ask("AUTH", ""), true},
		{"another user", config.PolicyRule{Users: []string{"bob"}}, with(ask("RETR", "/a"), func(r *control.Request) { r.User = "alice" }), false},
		{"a user with a slash", config.PolicyRule{Users: []string{"b*"}}, with(ask("RETR", "/a"), func(r *control.Request) { r.User = "bo/b" }), true},
		{"goodbye", config.PolicyRule{}, ask("QUIT", ""), false},
		{"goodbye by name", config.PolicyRule{Commands: []string{"QUIT", "ABOR", "NOOP"}}, ask("ABOR", ""), false},
		{"another case", config.PolicyRule{Paths: []string{"/a/**"}}, ask("RETR", "/A/b"), true},
		{"another composition", config.PolicyRule{Paths: []string{"/\u00e9"}}, ask("RETR", "/e\u0301"), true},
		{"the second act", config.PolicyRule{Classes: []config.CommandClass{config.ClassRead}},
			extent(ask("RNFR", ""), control.Act{Class: control.Modify}, control.Act{Class: control.Read}), true},
		{"an unknown directory", config.PolicyRule{Paths: []string{"/a/**"}}, extent(ask("RETR", ""), control.Act{Class: control.Read, Path: control.Path{Extent: control.Unknown}}), true},
		{"moving what is above", config.PolicyRule{Paths: []string{"/a/b/**"}}, extent(ask("RNFR", ""), control.Act{Class: control.Modify, Path: control.Path{Text: "/a", Extent: control.Tree}}), true},
		{"listing by a pattern", config.PolicyRule{Paths: []string{"/secret/**"}}, extent(ask("LIST", ""), control.Act{Class: control.List, Path: control.Path{Text: "/s[e]*", Extent: control.Glob}}), true},
		{"no path", config.PolicyRule{Paths: []string{"/**"}}, ask("PWD", ""), false},
		{"plain, as data", config.PolicyRule{ClientTLS: config.TLSPlain}, with(ask("RETR", "/a"), secured(true, false)), true},
		{"plain, as a command", config.PolicyRule{ClientTLS: config.TLSPlain}, with(ask("DELE", "/a"), secured(true, false)), false},
		{"plain", config.PolicyRule{ClientTLS: config.TLSPlain}, with(ask("DELE", "/a"), secured(false, true)), true},
		{"protected", config.PolicyRule{ClientTLS: config.TLSPlain}, with(ask("RETR", "/a"), secured(true, true)), false},
		{"too large", config.PolicyRule{LargerThan: 100}, with(ask("RETR", "/a"), func(r *control.Request) { r.Size = 101 }), true},
		{"just not too large", config.PolicyRule{LargerThan: 100}, with(ask("RETR", "/a"), func(r *control.Request) { r.Size = 100 }), false},
		{"too large, from its end", config.PolicyRule{LargerThan: 100}, with(ask("RETR", "/a"), func(r *control.Request) { r.Offset = 101 }), true},
		{"too large, and claimed to be small", config.PolicyRule{LargerThan: 100}, with(ask("STOR", "/a"), func(r *control.Request) { r.Size, r.Offset = 1, 101 }), true},
		{"not a transfer", config.PolicyRule{LargerThan: 100}, with(ask("DELE", "/a"), func(r *control.Request) { r.Size = 101 }), false},
		{"up", config.PolicyRule{Direction: config.DirectionUpload}, ask("APPE", "/a"), true},
		{"down", config.PolicyRule{Direction: config.DirectionUpload}, ask("RETR", "/a"), false},
	} {
		c.rule.Action = config.PolicyDeny
		d := compile(t, config.PolicyAllow, c.rule).Bind(Facts{}).Decide(c.r, noon)
		if d.Allow == c.deny {
			t.Errorf("%s: allowed: %v", c.name, d.Allow)
		}
	}
}

// TestUncertainIsNotAllowed is the other half: where all is denied but what one rule allows.
func TestUncertainIsNotAllowed(t *testing.T) {
	allow := config.PolicyRule{Action: config.PolicyAllow, Users: []string{"*"}, Paths: []string{"/pub/**"}}
	b := compile(t, config.PolicyDeny, allow).Bind(Facts{})
	act := func(p control.Path) *control.Request {
		r := ask("RNFR", "")
		r.Acts = func() []control.Act { return []control.Act{{Class: control.Modify, Path: p}} }
		return r
	}
	for _, c := range []struct {
		name  string
		r     *control.Request
		allow bool
	}{
		{"inside", ask("RETR", "/pub/a"), true},
		{"itself", ask("CWD", "/pub"), true},
		{"beside", ask("RETR", "/public"), false},
		{"of another case, which to most servers is another", ask("RETR", "/PUB/a"), false},
		{"nobody", with(ask("RETR", "/pub/a"), func(r *control.Request) { r.User = "" }), false},
		{"unknown", act(control.Path{Extent: control.Unknown}), false},
		{"a tree inside", act(control.Path{Text: "/pub/a", Extent: control.Tree}), true},
		{"a tree above", act(control.Path{Text: "/", Extent: control.Tree}), false},
		{"a pattern inside", act(control.Path{Text: "/pub/*", Extent: control.Glob}), true},
		{"a pattern above", act(control.Path{Text: "/p*/x", Extent: control.Glob}), false},
	} {
		if d := b.Decide(c.r, noon); d.Allow != c.allow {
			t.Errorf("%s: allowed: %v", c.name, d.Allow)
		}
	}
}

// TestUntil has files flow whose sizes nobody has told, or told wrongly.
func TestUntil(t *testing.T) {
	b := compile(t, config.PolicyAllow,
		config.PolicyRule{Name: "others", Action: config.PolicyDeny, LargerThan: 5, Users: []string{"alice"}},
		config.PolicyRule{Name: "huge", Action: config.PolicyDeny, LargerThan: 1000},
		config.PolicyRule{Name: "exempt", Action: config.PolicyAllow, Paths: []string{"/big/**"}},
		config.PolicyRule{Name: "large", Action: config.PolicyDeny, LargerThan: 100},
	).Bind(Facts{})
	for _, c := range []struct {
		path         string
		size, offset int64
		until        int64
		denied       string
	}{
		{"/a", -1, 0, 101, ""},
		{"/a", 50, 0, 101, ""}, // it may be a lie
		{"/a", -1, 60, 41, ""},
		{"/a", 100, 60, 41, ""},
		{"/a", 101, 0, 0, "large"},
		{"/a", 1001, 0, 0, "huge"},
		{"/big/a", -1, 0, 1001, ""},
		{"/big/a", 500, 400, 601, ""},
		{"/big/a", -1, 1001, 0, "huge"},
	} {
		d := b.Decide(with(ask("STOR", c.path), func(r *control.Request) { r.Size, r.Offset = c.size, c.offset }), noon)
		denied := ""
		if !d.Allow {
			denied = d.Rule.Name
		}
		if d.Until != c.until || denied != c.denied {
			t.Errorf("%s of %d from %d: until %d, denied by %q; want %d, %q", c.path, c.size, c.offset, d.Until, denied, c.until, c.denied)
		}
	}
}

func TestHours(t *testing.T) {
	office := config.WeeklyHours{Days: [7]bool{1: true, 2: true, 3: true, 4: true, 5: true}, Begin: 8 * time.Hour, End: 18 * time.Hour}
	night := config.WeeklyHours{Days: [7]bool{5: true}, Begin: 22 * time.Hour, End: 6 * time.Hour}
	s, faults := Compile(&config.Policy{Default: config.PolicyDeny, TimeZone: "America/New_York",
		Rules: []config.PolicyRule{{Action: config.PolicyAllow, Hours: []config.WeeklyHours{office, night}}}})
	if len(faults) > 0 {
		t.Fatal(faults)
	}
	b := s.Bind(Facts{})
	for at, want := range map[string]bool{ // in UTC; New York is five hours behind, or four in summer
		"2026-11-20T13:00:00Z": true,
		"2026-11-20T12:59:59Z": false,
		"2026-11-20T22:59:59Z": true,
		"2026-11-20T23:00:00Z": false,
		"2026-11-21T03:00:00Z": true,  // Friday's night
		"2026-11-21T10:59:59Z": true,  // and Saturday's morning of it
		"2026-11-21T11:00:00Z": false, // not later
		"2026-11-22T04:00:00Z": false, // Saturday has none
		"2026-07-20T12:00:00Z": true,
		"2026-07-20T11:59:59Z": false,
	} {
		now, err := time.Parse(time.RFC3339, at)
		if err != nil {
			t.Fatal(err)
		}
		if d := b.Decide(ask("PWD", ""), now); d.Allow != want {
			t.Errorf("%s: allowed: %v", at, d.Allow)
		}
	}
}

func TestBind(t *testing.T) {
	set := compile(t, config.PolicyAllow,
		config.PolicyRule{Name: "listener", Action: config.PolicyDeny, Listeners: []string{"out"}, LargerThan: 1},
		config.PolicyRule{Name: "client", Action: config.PolicyDeny, Clients: []netip.Prefix{netip.MustParsePrefix("10.0.0.0/8")}},
		config.PolicyRule{Name: "server", Action: config.PolicyDeny, Servers: []config.Target{{Keyword: config.TargetPrivate}}, Ports: []config.PortRange{{First: 21, Last: 22}}, Paths: []string{"/a"}},
		config.PolicyRule{Name: "account", Action: config.PolicyDeny, Accounts: []config.Account{"ann"}},
		config.PolicyRule{Name: "group", Action: config.PolicyDeny, Groups: []config.Account{"staff"}, Classes: []config.CommandClass{config.ClassAccess}, Digest: true},
		config.PolicyRule{Name: "when", Action: config.PolicyDeny, When: `host == "ftp.example.com" and port in [21, 990] and "g" in groups`},
	)
	is := func(target config.Target, host string, at netip.AddrPort) bool {
		return target.Keyword == config.TargetPrivate && at.Addr().IsPrivate()
	}
	for _, c := range []struct {
		facts          Facts
		by             string
		paths, watches bool
	}{
		{Facts{}, "", false, false},
		{Facts{Listener: "out"}, "listener", false, true},
		{Facts{Client: netip.MustParseAddr("10.1.2.3")}, "client", false, false},
		{Facts{Client: netip.MustParseAddr("::ffff:10.1.2.3")}, "client", false, false},
		{Facts{Client: netip.MustParseAddr("11.1.2.3")}, "", false, false},
		{Facts{Server: netip.MustParseAddrPort("192.168.1.1:21")}, "server", true, false},
		{Facts{Server: netip.MustParseAddrPort("192.168.1.1:23")}, "", false, false},
		{Facts{Server: netip.MustParseAddrPort("192.0.2.1:21")}, "", false, false},
		{Facts{Account: "ann"}, "account", false, false},
		{Facts{Account: "eve"}, "", false, false},
		{Facts{Account: "eve", Groups: []string{"x", "staff"}}, "group", false, false}, // nothing of access moves files
		{Facts{Host: "ftp.example.com", Server: netip.MustParseAddrPort("192.0.2.1:990"), Groups: []string{"g"}}, "when", false, false},
	} {
		c.facts.Is = is
		b := set.Bind(c.facts)
		r := ask("CWD", "/a")
		if c.by == "listener" {
			r = with(ask("RETR", "/a"), func(r *control.Request) { r.Size = 2 })
		}
		d, by := b.Decide(r, noon), ""
		if d.Rule != nil {
			by = d.Rule.Name
		}
		if by != c.by || b.Paths() != c.paths || b.Watches() != c.watches {
			t.Errorf("%+v: by %q, paths %v, watches %v", c.facts, by, b.Paths(), b.Watches())
		}
	}
	counts := map[string]uint64{}
	for _, c := range set.Counts() {
		name := "default"
		if c.Rule != nil {
			name = c.Rule.Name
		}
		counts[name] = c.N
	}
	if diff := cmp.Diff(map[string]uint64{"listener": 1, "client": 2, "server": 1, "account": 1, "group": 1, "when": 1, "default": 5}, counts); diff != "" {
		t.Error(diff)
	}
}

// TestServerIsAskedOnlyIfNeedBe: a request's acts may cost a question to the server.
func TestServerIsAskedOnlyIfNeedBe(t *testing.T) {
	r := ask("RETR", "")
	r.Acts = func() []control.Act { t.Error("the acts were asked for"); return []control.Act{{}} }
	compile(t, config.PolicyAllow, config.PolicyRule{Action: config.PolicyDeny, Listeners: []string{"x"}, Paths: []string{"/a"}},
		config.PolicyRule{Action: config.PolicyDeny, Users: []string{"x"}}).Bind(Facts{}).Decide(r, noon)
}

func TestWhen(t *testing.T) {
	for when, want := range map[string]bool{
		`user == "bob" and verb == "RETR"`:                          true,
		`path startsWith "/home/" + user + "/"`:                     true,
		`path startsWith "/Home"`:                                   false,
		`path matches "^/home/[a-z]+/x$"`:                           true,
		`class == "read" and direction == "download" and size < 0`:  true,
		`not client_tls and not server_tls`:                         true,
		`weekday == 5 and hour == 12 and minute == 0`:               true,
		`len(groups) > 0`:                                           false,
		`upper(user) in ["BOB", "EVE"] ? hasPrefix(path, "/") : no`: false, // no such name: a fault
		`10 % (port - port) == 0`:                                   true,  // it fails, and the rule denies
		`groups[7] == "x"`:                                          true,  // so does it
		`account == "" and sub == "" and offset == 0`:               true,
		`client == "invalid IP" and server == "invalid IP"`:         true,
	} {
		s, faults := Compile(&config.Policy{Rules: []config.PolicyRule{{Action: config.PolicyDeny, When: when}}, TimeZone: "UTC"})
		if strings.Contains(when, ": no") {
			if len(faults) != 1 || faults[0].Key != "policy.rules[0].when" {
				t.Errorf("%s: %v", when, faults)
			}
			continue
		}
		if len(faults) > 0 {
			t.Errorf("%s: %v", when, faults)
			continue
		}
		if d := s.Bind(Facts{}).Decide(ask("RETR", "/home/bob/x"), noon); d.Allow == want {
			t.Errorf("%s: allowed: %v", when, d.Allow)
		}
	}
	// What fails allows nothing; a path that is not one path is uncertain, and one of another case is meant.
	fails := compile(t, config.PolicyDeny, config.PolicyRule{Action: config.PolicyAllow, When: `groups[7] != "x"`})
	if fails.Bind(Facts{}).Decide(ask("RETR", "/a"), noon).Allow {
		t.Error("an expression that fails allows")
	}
	for _, action := range []config.PolicyAction{config.PolicyAllow, config.PolicyDeny} {
		r := ask("RETR", "")
		r.Acts = func() []control.Act {
			return []control.Act{{Class: control.Read, Path: control.Path{Extent: control.Unknown}}}
		}
		set := compile(t, config.PolicyAllow, config.PolicyRule{Action: action, When: `path startsWith "/a"`},
			config.PolicyRule{Action: config.PolicyDeny})
		if set.Bind(Facts{}).Decide(r, noon).Allow {
			t.Errorf("%s, with an unknown path: allowed", action)
		}
	}
	if compile(t, config.PolicyAllow, config.PolicyRule{Action: config.PolicyDeny, When: `path startsWith "/secret"`}).
		Bind(Facts{}).Decide(ask("RETR", "/SECRET/a"), noon).Allow {
		t.Error("a server that ignores case is given /SECRET")
	}
}

// TestFaults are what Compile refuses. Of expressions, it is all that a client could make to take long, or much memory.
func TestFaults(t *testing.T) {
	for _, c := range []struct {
		rule config.PolicyRule
		key  string
		text string
	}{
		{config.PolicyRule{When: `user`}, "when", "not an expression that is true or false"},
		{config.PolicyRule{When: `user ==`}, "when", "not an expression"},
		{config.PolicyRule{When: `nobody == "x"`}, "when", "unknown name nobody"},
		{config.PolicyRule{When: `path matches user`}, "when", "matches is not allowed"},
		{config.PolicyRule{When: `path matches ("a" + user)`}, "when", "matches is not allowed"},
		{config.PolicyRule{When: `path matches "("`}, "when", "not an expression"},
		{config.PolicyRule{When: `size in 1..100000000`}, "when", ".. is not allowed"},
		{config.PolicyRule{When: `size ** 1000 > 1`}, "when", "** is not allowed"},
		{config.PolicyRule{When: `repeat(user, 1000000) == "x"`}, "when", "repeat"},
		{config.PolicyRule{When: `any(groups, # == "x")`}, "when", "Predicate is not allowed"},
		{config.PolicyRule{When: `let a = user; a == a`}, "when", "is not allowed"},
		{config.PolicyRule{When: `now().Year() > 1`}, "when", "now"},
		{config.PolicyRule{When: `$env["user"] == "x"`}, "when", "is not allowed"},
		{config.PolicyRule{When: `groups[:1] == groups`}, "when", "Slice is not allowed"},
		{config.PolicyRule{When: `{"a": 1} == {"a": 1}`}, "when", "is not allowed"},
		{config.PolicyRule{When: strings.Repeat("user == user or ", 400) + "true"}, "when", "exceeds"},
		{config.PolicyRule{Paths: []string{"/ok", "/a/"}}, "paths[1]", "no slash at their end"},
		{config.PolicyRule{Paths: []string{"a"}}, "paths[0]", "begin with /"},
		{config.PolicyRule{Paths: []string{"/a/../b"}}, "paths[0]", "without empty parts"},
		{config.PolicyRule{Paths: []string{"/a//b"}}, "paths[0]", "without empty parts"},
		{config.PolicyRule{Paths: []string{"/[a"}}, "paths[0]", "does not end"},
		{config.PolicyRule{Users: []string{"[a"}}, "users[0]", "without a ]"},
	} {
		set, faults := Compile(&config.Policy{Rules: []config.PolicyRule{{}, c.rule}})
		if set != nil || len(faults) != 1 || faults[0].Key != "policy.rules[1]."+c.key || !strings.Contains(faults[0].Text, c.text) ||
			strings.Contains(faults[0].Text, "\n") {
			t.Errorf("%+v: %v; want %s: …%s…", c.rule, faults, c.key, c.text)
		}
	}
	if _, faults := Compile(&config.Policy{TimeZone: "Mars/Olympus"}); len(faults) != 1 || faults[0].Key != "policy.time_zone" {
		t.Errorf("%v", faults)
	}
}

func TestUnreachable(t *testing.T) {
	prefix := netip.MustParsePrefix
	const never = "never matches"
	for _, c := range []struct {
		name         string
		first, later config.PolicyRule
		want         string
	}{
		{"everything before", config.PolicyRule{}, config.PolicyRule{Paths: []string{"/a"}}, never},
		{"everything, but not what is early", config.PolicyRule{}, config.PolicyRule{Commands: []string{"AUTH", "STOR"}}, ""},
		{"wider path", config.PolicyRule{Paths: []string{"/a/**"}}, config.PolicyRule{Paths: []string{"/a/b*/*.exe", "/a"}}, never},
		{"path beside", config.PolicyRule{Paths: []string{"/a/**"}}, config.PolicyRule{Paths: []string{"/ab"}}, ""},
		{"one path of two", config.PolicyRule{Paths: []string{"/a/**"}}, config.PolicyRule{Paths: []string{"/a/b", "/b"}}, ""},
		{"paths against none", config.PolicyRule{Paths: []string{"/**"}}, config.PolicyRule{}, ""},
		{"an allowed path, and a denied one in it", config.PolicyRule{Action: config.PolicyAllow, Paths: []string{"/a/**"}},
			config.PolicyRule{Paths: []string{"/a/b"}}, "nobody can tell"},
		{"wider prefix", config.PolicyRule{Clients: []netip.Prefix{prefix("10.0.0.0/8")}}, config.PolicyRule{Clients: []netip.Prefix{prefix("10.1.0.0/16")}}, never},
		{"narrower prefix", config.PolicyRule{Clients: []netip.Prefix{prefix("10.1.0.0/16")}}, config.PolicyRule{Clients: []netip.Prefix{prefix("10.0.0.0/8")}}, ""},
		{"host", config.PolicyRule{Servers: []config.Target{{Host: "*"}}}, config.PolicyRule{Servers: []config.Target{{Prefix: prefix("10.0.0.0/8")}}}, never},
		{"user", config.PolicyRule{Users: []string{"b*"}}, config.PolicyRule{Users: []string{"bob"}}, never},
		{"user's pattern", config.PolicyRule{Users: []string{"b*"}}, config.PolicyRule{Users: []string{"*b"}}, ""},
		{"SITE", config.PolicyRule{Commands: []string{"SITE"}}, config.PolicyRule{Commands: []string{"SITE CHMOD"}}, never},
		{"SITE CHMOD", config.PolicyRule{Commands: []string{"SITE CHMOD"}}, config.PolicyRule{Commands: []string{"SITE"}}, ""},
		{"class", config.PolicyRule{Classes: []config.CommandClass{config.ClassRead, config.ClassList}}, config.PolicyRule{Classes: []config.CommandClass{config.ClassList}}, never},
		{"smaller size", config.PolicyRule{LargerThan: 10}, config.PolicyRule{LargerThan: 20}, never},
		{"larger size", config.PolicyRule{LargerThan: 20}, config.PolicyRule{LargerThan: 10}, ""},
		{"accounts", config.PolicyRule{Accounts: []config.Account{"a"}}, config.PolicyRule{Groups: []config.Account{"a"}}, ""},
		{"when", config.PolicyRule{When: "hour > 1"}, config.PolicyRule{When: "hour > 1", Users: []string{"x"}}, never},
		{"another when", config.PolicyRule{When: "hour > 2"}, config.PolicyRule{When: "hour > 1"}, ""},

		{"direction", config.PolicyRule{Users: []string{"x"}}, config.PolicyRule{Direction: config.DirectionUpload, Classes: []config.CommandClass{config.ClassRead}}, "moves that way"},
		{"size", config.PolicyRule{Users: []string{"x"}}, config.PolicyRule{LargerThan: 1, Classes: []config.CommandClass{config.ClassModify}}, "moves files"},
		{"commands and classes", config.PolicyRule{Users: []string{"x"}}, config.PolicyRule{Commands: []string{"STOR"}, Classes: []config.CommandClass{config.ClassRead}}, "of its classes"},
		{"commands of many classes", config.PolicyRule{Users: []string{"x"}}, config.PolicyRule{Commands: []string{"RNFR"}, Classes: []config.CommandClass{config.ClassRead}}, ""},
		{"commands without paths", config.PolicyRule{Users: []string{"x"}}, config.PolicyRule{Commands: []string{"PASV"}, Paths: []string{"/a"}}, "has a path"},
		{"harmless", config.PolicyRule{Users: []string{"x"}}, config.PolicyRule{Commands: []string{"QUIT"}}, "always allowed"},
		{"no hour", config.PolicyRule{Users: []string{"x"}}, config.PolicyRule{Hours: []config.WeeklyHours{{}}}, "no day"},
	} {
		for _, r := range []*config.PolicyRule{&c.first, &c.later} {
			if r.Action == "" {
				r.Action = config.PolicyDeny
			}
		}
		got := compile(t, config.PolicyAllow, c.first, c.later).Unreachable()
		switch {
		case c.want == "" && len(got) > 0, c.want != "" && (len(got) != 1 || !strings.Contains(got[0].Text, c.want) || !strings.HasPrefix(got[0].Key, "policy.rules[1]")):
			t.Errorf("%s: %v; want %q", c.name, got, c.want)
		}
	}
}

func TestNeverAllowed(t *testing.T) {
	deny, allow := config.PolicyDeny, config.PolicyAllow
	read := []config.CommandClass{config.ClassRead}
	for _, c := range []struct {
		byDefault config.PolicyAction
		rules     []config.PolicyRule
		never     string
		maybe     string
	}{
		{allow, nil, "", "RETR AUTH SITE"},
		{deny, nil, "RETR SITE XNEW PWD USER", "AUTH FEAT NOOP QUIT"},
		{deny, []config.PolicyRule{{Action: allow, Classes: read, Users: []string{"x"}}}, "STOR DELE", "RETR PRET SITE"},
		{allow, []config.PolicyRule{{Action: deny, Commands: []string{"MKD", "AUTH"}}}, "MKD XMKD AUTH", "RMD"},
		{allow, []config.PolicyRule{{Action: deny, Commands: []string{"SITE CHMOD"}}}, "", "SITE"},
		{allow, []config.PolicyRule{{Action: deny, Commands: []string{"SITE"}}}, "SITE", ""},
		{allow, []config.PolicyRule{{Action: deny, Classes: []config.CommandClass{config.ClassModify}}}, "DELE RNFR XNEW", "SITE MDTM STAT"},
		{allow, []config.PolicyRule{{Action: deny, Commands: []string{"DELE"}, Paths: []string{"/**"}}}, "", "DELE"},
		{allow, []config.PolicyRule{{Action: allow, Users: []string{"x"}}, {Action: deny}}, "", "DELE"},
	} {
		s := compile(t, c.byDefault, c.rules...)
		for _, v := range strings.Fields(c.never) {
			if !s.NeverAllowed(v) {
				t.Errorf("%+v: %s may be allowed", c.rules, v)
			}
		}
		for _, v := range strings.Fields(c.maybe) {
			if s.NeverAllowed(v) {
				t.Errorf("%+v: %s is never allowed", c.rules, v)
			}
		}
	}
}

func TestExplain(t *testing.T) {
	b := compile(t, config.PolicyAllow,
		config.PolicyRule{Name: "out", Action: config.PolicyDeny, Listeners: []string{"out"}},
		config.PolicyRule{Name: "net", Action: config.PolicyDeny, Clients: []netip.Prefix{netip.MustParsePrefix("10.0.0.0/8")}},
		config.PolicyRule{Name: "host", Action: config.PolicyDeny, Servers: []config.Target{{Host: "x"}}},
		config.PolicyRule{Name: "port", Action: config.PolicyDeny, Ports: []config.PortRange{{First: 22, Last: 22}}},
		config.PolicyRule{Name: "staff", Action: config.PolicyDeny, Groups: []config.Account{"staff"}},
		config.PolicyRule{Name: "verb", Action: config.PolicyDeny, Commands: []string{"RETR"}},
		config.PolicyRule{Name: "class", Action: config.PolicyDeny, Classes: []config.CommandClass{config.ClassRead}},
		config.PolicyRule{Name: "down", Action: config.PolicyDeny, Direction: config.DirectionDownload},
		config.PolicyRule{Name: "tls", Action: config.PolicyAllow, ClientTLS: config.TLSProtected},
		config.PolicyRule{Name: "server tls", Action: config.PolicyAllow, ServerTLS: config.TLSProtected},
		config.PolicyRule{Name: "path", Action: config.PolicyDeny, Paths: []string{"/a"}},
		config.PolicyRule{Name: "user", Action: config.PolicyDeny, Users: []string{"eve"}},
		config.PolicyRule{Name: "night", Action: config.PolicyDeny, Hours: []config.WeeklyHours{{Days: [7]bool{0: true}}}},
		config.PolicyRule{Name: "when", Action: config.PolicyDeny, When: "hour == 3"},
		config.PolicyRule{Name: "large", Action: config.PolicyDeny, LargerThan: 10},
		config.PolicyRule{Name: "last", Action: config.PolicyDeny},
		config.PolicyRule{Name: "after", Action: config.PolicyDeny},
	).Bind(Facts{Listener: "in", Client: netip.MustParseAddr("192.0.2.1"), Server: netip.MustParseAddrPort("192.0.2.2:21"), Host: "ftp.example.com",
		Is: func(config.Target, string, netip.AddrPort) bool { return false }})
	var got strings.Builder
	r := with(ask("STOR", "/b\r\n"), func(r *control.Request) { r.Secured = [2]bool{true, false} })
	for _, e := range b.Explain(r, noon)[:1] {
		for _, s := range e.Steps {
			fmt.Fprintf(&got, "%s: %s\n", s.Rule.Name, s.Why)
		}
		fmt.Fprintf(&got, "%v by %s\n", e.Allow, e.Rule.Name)
	}
	const want = `out: listeners: it is in
net: clients: it is 192.0.2.1
host: servers: it is 192.0.2.2:21 ftp.example.com
port: ports: it is 192.0.2.2:21 ftp.example.com
staff: accounts, groups: nobody has logged in to the proxy
verb: commands: it is "STOR"
class: classes: it is write
down: direction: it is upload
tls: client_tls: data connections are plain
server tls: server_tls: the control connection is plain
path: paths: it is "/b\r\n"
user: users: it is "bob"
night: hours: it is Fri 12:00
when: when: it is not true, or not certain
large: larger_than: the size is not known yet; 0 bytes so far
last: 
false by last
`
	if diff := cmp.Diff(want, got.String()); diff != "" {
		t.Error(diff)
	}
	for _, c := range b.set.Counts() {
		if c.N != 0 {
			t.Error("explaining counts")
		}
	}
	if e := b.Explain(ask("AUTH", ""), noon); !e[0].Allow || e[0].Rule != nil || !strings.Contains(e[0].Text, "before login") {
		t.Errorf("AUTH: %+v", e)
	}
}

// BenchmarkDecide1000 asks a thousand rules of the command's own class, none of which matches.
func BenchmarkDecide1000(b *testing.B) {
	for _, c := range []struct {
		name string
		rule func(i int) config.PolicyRule
		path string
	}{
		{"users", func(i int) config.PolicyRule {
			return config.PolicyRule{Users: []string{fmt.Sprintf("partner%d", i)}, Paths: []string{fmt.Sprintf("/partner%d/**", i)}}
		}, "/data/partners/reports/2026/november.csv"},
		{"folders", func(i int) config.PolicyRule {
			return config.PolicyRule{Paths: []string{fmt.Sprintf("/data/partners/partner%04d/**", i)}}
		}, "/data/partners/reports/2026/november.csv"},
		{"extensions", func(i int) config.PolicyRule {
			return config.PolicyRule{Paths: []string{fmt.Sprintf("/**/*.e%04d", i)}}
		}, "/data/partners/reports/2026/november.csv"},
		{"patterns", func(i int) config.PolicyRule {
			return config.PolicyRule{Paths: []string{fmt.Sprintf("/data/*%04d*/*.csv", i)}}
		}, "/data/partners/reports/2026/november.csv"},
	} {
		b.Run(c.name, func(b *testing.B) {
			var rules []config.PolicyRule
			for i := range 1000 {
				r := c.rule(i)
				r.Action, r.Classes = config.PolicyDeny, []config.CommandClass{config.ClassRead}
				rules = append(rules, r)
			}
			bound := compile(b, config.PolicyAllow, rules...).Bind(Facts{})
			r := ask("RETR", c.path)
			b.ReportAllocs()
			for b.Loop() {
				if d := bound.Decide(r, noon); !d.Allow || d.Rule != nil {
					b.Fatal(d)
				}
			}
		})
	}
}

// TestIndexRepeats has a client whose path is nothing but what a hundred rules look for, thousands of times: that is not to make a
// command cost more than its rules do.
func TestIndexRepeats(t *testing.T) {
	const rules, groups = 1000, 10
	var some []config.PolicyRule
	for i := range rules {
		some = append(some, config.PolicyRule{Action: config.PolicyDeny, Paths: []string{fmt.Sprintf("/data/*g%03d-*/*.csv", i%groups)}})
	}
	set := compile(t, config.PolicyAllow, some...)
	if n := len(set.exact.within); n != groups {
		t.Fatalf("%d keys, of %d groups of rules", n, groups)
	}
	path := "/data/" + strings.Repeat("g001-g002-", 400) + "/x.csv"
	found := set.exact.find(nil, path)
	if len(found) != 2*rules/groups || cap(found) > 2*len(found) {
		t.Errorf("%d rules found, in %d places", len(found), cap(found))
	}
	if d := set.Bind(Facts{}).Decide(ask("RETR", path), noon); d.Allow || d.Rule.Index != 1 {
		t.Errorf("%+v", d)
	}
}

// TestTogether has sessions share a Set, as they do.
func TestTogether(t *testing.T) {
	set := compile(t, config.PolicyAllow, config.PolicyRule{Name: "a", Action: config.PolicyDeny, Paths: []string{"/a/**"}, When: `verb != "CWD"`})
	const sessions, commands = 8, 200
	var all sync.WaitGroup
	for range sessions {
		all.Go(func() {
			b := set.Bind(Facts{})
			for range commands {
				b.Decide(ask("RETR", "/a/b"), noon)
				b.Decide(ask("CWD", "/a"), noon)
			}
		})
	}
	all.Wait()
	if c := set.Counts(); c[0].N != sessions*commands || c[1].N != sessions*commands {
		t.Errorf("%d by the rule, %d by default", c[0].N, c[1].N)
	}
}

// TestExamples compiles the configurations that are ready to be used, and asks each the questions that it is for.
func TestExamples(t *testing.T) {
	const acme, bolt = "198.51.100.7", "203.0.113.7" // addresses of theirs
	saturday, evening := noon.AddDate(0, 0, 1), noon.Add(6*time.Hour)
	type question struct {
		user, client string
		at           time.Time // zero: noon
		command      string
		allowed      bool
	}
	for name, questions := range map[string][]question{
		"read-only-mirror": {
			{user: "anonymous", command: "USER ", allowed: true}, {user: "anonymous", command: "LIST /pub", allowed: true}, {user: "anonymous", command: "RETR /pub/a", allowed: true},
			{user: "anonymous", command: "STOR /pub/a"}, {user: "anonymous", command: "DELE /pub/a"}, {user: "anonymous", command: "MKD /pub/a"},
		},
		"upload-drop-box": {
			{user: "dropbox", command: "USER ", allowed: true}, {user: "dropbox", command: "STOR /incoming/a", allowed: true},
			{user: "dropbox", command: "STOR /a"}, {user: "dropbox", command: "APPE /incoming/a"}, {user: "dropbox", command: "RETR /incoming/a"},
			{user: "dropbox", command: "LIST /incoming"}, {user: "dropbox", command: "DELE /incoming/a"},
		},
		"block-executables": {
			{command: "USER ", allowed: true}, {command: "STOR /a/x.txt", allowed: true}, {command: "STOR /a/x.exe"}, {command: "STOR /a/x.ExE"},
		},
		"ftps-only": {{command: "USER "}, {command: "RETR /a"}, {command: "AUTH ", allowed: true}},
		// The office is in Zurich, where it is an hour later in November.
		"office-hours": {
			{command: "STOR /a", allowed: true}, {command: "DELE /a", allowed: true},
			{at: evening.Add(-time.Minute), command: "STOR /a", allowed: true}, {at: evening, command: "STOR /a"}, {at: evening, command: "MKD /a"},
			{at: evening, command: "RETR /a", allowed: true}, {at: evening, command: "USER ", allowed: true},
			{at: noon.Add(-6 * time.Hour), command: "STOR /a", allowed: true}, {at: noon.Add(-6*time.Hour - time.Minute), command: "STOR /a"},
			{at: saturday, command: "STOR /a"}, {at: saturday, command: "DELE /a"}, {at: saturday, command: "LIST /a", allowed: true},
		},
		"per-partner": {
			{user: "acme", client: acme, command: "USER ", allowed: true}, {user: "acme", client: bolt, command: "USER "},
			{user: "bolt", client: bolt, command: "USER ", allowed: true}, {user: "bolt", client: acme, command: "USER "},
			{user: "eve", client: acme, command: "USER "},
			{user: "acme", client: acme, command: "STOR /partners/acme/a", allowed: true}, {user: "acme", client: acme, command: "DELE /partners/acme/a", allowed: true},
			{user: "acme", client: acme, command: "RETR /partners/bolt/a"}, {user: "acme", client: acme, command: "RETR /partners/ACME/a"},
			{user: "acme", client: acme, command: "LIST /partners"}, {user: "acme", client: acme, command: "MKD /partners/acme2"},
			{user: "bolt", client: bolt, command: "RETR /partners/bolt/a", allowed: true}, {user: "bolt", client: bolt, command: "LIST /partners/bolt", allowed: true},
			{user: "bolt", client: bolt, command: "STOR /partners/bolt/a"}, {user: "bolt", client: bolt, command: "RETR /partners/acme/a"},
			{user: "eve", client: acme, command: "RETR /partners/acme/a"},
		},
	} {
		c, _, err := config.Load("../../config/examples/"+name+".yaml", config.Options{})
		if err != nil {
			t.Errorf("%s: %v", name, err)
			continue
		}
		set, faults := Compile(&c.Policy)
		if len(faults) > 0 {
			t.Errorf("%s: %v", name, faults)
			continue
		}
		if warnings := set.Unreachable(); len(warnings) > 0 {
			t.Errorf("%s: %v", name, warnings)
		}
		for _, q := range questions {
			f := Facts{Listener: c.Listeners[0].Name, Is: func(config.Target, string, netip.AddrPort) bool { return true }}
			if q.client != "" {
				f.Client = netip.MustParseAddr(q.client)
			}
			if q.at.IsZero() {
				q.at = noon
			}
			verb, path, _ := strings.Cut(q.command, " ")
			r := ask(verb, path)
			if q.user != "" {
				r.User = q.user
			}
			if d := set.Bind(f).Decide(r, q.at); d.Allow != q.allowed {
				t.Errorf("%s: %+v: allowed: %v", name, q, d.Allow)
			}
		}
	}
}
