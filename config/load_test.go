package config

import (
	"bytes"
	"errors"
	"fmt"
	"maps"
	"net/netip"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
)

// byValue lets cmp compare addresses, whose fields it cannot see.
var byValue = cmpopts.EquateComparable(netip.AddrPort{}, netip.Prefix{})

// load loads a text that must have no faults, nor warnings.
func load(t *testing.T, text string, o Options) *Config {
	t.Helper()
	c, warnings, err := Load(write(t, text), o)
	if err != nil {
		t.Fatal(err)
	}
	if len(warnings) > 0 {
		t.Error("warnings:", warnings)
	}
	return c
}

func write(t *testing.T, text string) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "ftpalg.yaml")
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

func TestNoFile(t *testing.T) {
	got, warnings, err := Load("", Options{})
	if err != nil || len(warnings) > 0 {
		t.Fatal(err, warnings)
	}
	want := &Config{
		Listeners: []Listener{{
			Name: "explicit", Mode: Explicit, Address: netip.MustParseAddrPort("127.0.0.1:2121"),
			Source: SourceOwn, ServerData: DataSame, DataPath: PathAuto, Unknown: UnknownRelay,
			Protocols: []Protocol{ProtocolFTP, ProtocolHTTP, ProtocolSOCKS5}, Sniff: 200 * time.Millisecond, TLS: TLSRefuse, SessionReuse: ReuseLog,
			ProxyProtocol: ProxyProtocol{Send: ProxyNone},
		}},
		Accounts:   Accounts{LDAP: LDAP{Timeout: 10 * time.Second}, Failures: 10, Window: 15 * time.Minute, Ban: 15 * time.Minute},
		Policy:     Policy{Default: PolicyAllow, AskDirectory: true, TimeZone: "Local"},
		Audit:      Audit{Queue: 8192, OnFull: OnFullDrop},
		Privileges: Privileges{Drop: true},
		Mark:       0x0f7a0001, DivertMark: 0x0f7a0002, RouteTable: 3990, LogGroup: 3990, Firewall: FirewallReport,
		Timeouts: Timeouts{Connect: 15 * time.Second, TLSHandshake: 15 * time.Second, Login: 2 * time.Minute,
			Idle: 10 * time.Minute, Reply: 2 * time.Minute, DataSetup: 30 * time.Second, DataIdle: 2 * time.Minute, Abort: time.Second, Drain: 30 * time.Second},
		Limits: Limits{Sessions: 10000, SessionsPerClient: 256, SessionsInLogin: 1000, DataListeners: 4096, Line: 4096,
			ReplyLines: 512, ReplyBytes: 65536, PendingConnections: 512},
		Log: Log{Format: "text", Level: "info"},
	}
	if d := cmp.Diff(want, got, byValue); d != "" {
		t.Error(d)
	}
	if d := cmp.Diff(want, Default(), byValue); d != "" {
		t.Error(d)
	}
}

func TestModeDefaults(t *testing.T) {
	c := load(t, `
listeners:
  - mode: tproxy
    intercept: {clients: 10.0.0.0/8}
  - mode: redirect
    address: "[::]:2122"
    intercept: {clients: 192.168.0.0/16}
  - mode: explicit
    address: 127.0.0.1:2123
    source: client
  - mode: gateway
    address: "[::]:2124"
    server: ftp.example.com:21
  - mode: tproxy
    address: "[::]:2125"
    intercept: {local_uids: 33}
destinations:
  - allow: "*"
`, Options{})
	type row struct {
		name, address string
		source        Source
		data          PortRange
		ports         []PortRange
	}
	var got []row
	for _, l := range c.Listeners {
		got = append(got, row{l.Name, l.Address.String(), l.Source, l.DataPorts, l.Intercept.Ports})
		if l.ServerData != DataSame || l.Unknown != UnknownRelay {
			t.Error(l.Name, l.ServerData, l.Unknown)
		}
	}
	ftp := []PortRange{{21, 21}}
	data := PortRange{50000, 50999}
	want := []row{
		{"tproxy", "[::]:2121", SourceClient, PortRange{}, ftp},
		{"redirect", "[::]:2122", SourceOwn, data, ftp},
		{"explicit", "127.0.0.1:2123", SourceClient, PortRange{}, nil},
		{"gateway", "[::]:2124", SourceOwn, PortRange{}, nil},
		{"tproxy-2", "[::]:2125", SourceClient, data, ftp},
	}
	if d := cmp.Diff(want, got, cmp.AllowUnexported(row{})); d != "" {
		t.Error(d)
	}
}

func TestEverything(t *testing.T) {
	c := load(t, `
listeners:
  - name: lan.1
    mode: tproxy
    address: "[::ffff:192.0.2.1]:2121"
    source: own
    advertise: "::ffff:203.0.113.7"
    data_ports: 2000-2100
    server_data: passive
    data_path: kernel
    unknown_commands: refuse
    tls: client-only
    implicit: true
    implicit_ports: 990, 2100
    certificate: /tls/proxy.pem
    certificate_key: /tls/proxy.key
    session_reuse: off
    intercept:
      ports: "21, 2000-2100"
      clients: [10.0.0.0/8, 2001:db8::/32, 192.0.2.7, "::ffff:10.0.0.0/104"]
      servers: 198.51.100.0/24
      interfaces: [eth0, br-lan]
      local_uids: 0, 33
      local_marks: [0x10, 17]
  - mode: gateway
    address: 127.0.0.1:0
    server: "[::ffff:192.0.2.9]:990"
    proxy_protocol: {trusted: 192.0.2.0/24, send: v2}
  - {mode: explicit, address: "127.0.0.1:2122", protocols: ftp, sniff: 1s}
destinations:
  - deny: [private, 10.0.0.0/8, "::1", "*.Example.COM", "Intranet."]
    ports: "21,990,1024-65535"
  - allow: "*"
    ports: [21, 990]
    tls:
      verify: off
      pins:
        - sha256:`+digits64+`
        - sha256:ABCDEFABCDEFABCDEFABCDEFABCDEFABCDEFABCDEFABCDEFABCDEFABCDEFABCD
      client_cert: /tls/client.pem
      client_key: /tls/client.pem
      min_version: 1.2
      max_version: "1.2"
      ciphers: TLS_RSA_WITH_AES_128_CBC_SHA, TLS_ECDHE_ECDSA_WITH_CHACHA20_POLY1305_SHA256
      curves: [P-256, X25519]
      missing_close_notify: whole
      pass: 1024-2047
  - allow: loopback
tls: {authority_cert: /tls/ca.pem, authority_key: /tls/ca.key, server_roots: "/tls/roots #1.pem"}
mark: 5
divert_mark: 0xFFFFFFFF
route_table: 2147483647
log_group: 65535
firewall: apply
timeouts: {idle: 1h}
limits: {line: 1MB, reply_bytes: 1MiB}
log: {format: json, level: debug}
`, Options{})
	want := Default()
	prefix, ports := netip.MustParsePrefix, PortRange{2000, 2100}
	want.Listeners = []Listener{
		{
			Name: "lan.1", Mode: TPROXY, Address: netip.MustParseAddrPort("192.0.2.1:2121"), Source: SourceOwn,
			Advertise: "203.0.113.7", DataPorts: ports, ServerData: DataPassive, DataPath: PathKernel, Unknown: UnknownRefuse,
			TLS: TLSClientOnly, Implicit: true, ImplicitPorts: []PortRange{{990, 990}, {2100, 2100}},
			Certificate: "/tls/proxy.pem", CertificateKey: "/tls/proxy.key", SessionReuse: ReuseOff,
			Intercept: Intercept{
				Ports:      []PortRange{{21, 21}, ports},
				Clients:    []netip.Prefix{prefix("10.0.0.0/8"), prefix("2001:db8::/32"), prefix("192.0.2.7/32"), prefix("10.0.0.0/8")},
				Servers:    []netip.Prefix{prefix("198.51.100.0/24")},
				Interfaces: []string{"eth0", "br-lan"},
				LocalUIDs:  []uint32{0, 33},
				LocalMarks: []Mark{16, 17},
			},
			ProxyProtocol: ProxyProtocol{Send: ProxyNone},
		},
		{Name: "gateway", Mode: Gateway, Address: netip.MustParseAddrPort("127.0.0.1:0"), Server: "192.0.2.9:990",
			Source: SourceOwn, ServerData: DataSame, DataPath: PathAuto, Unknown: UnknownRelay, TLS: TLSInspect, SessionReuse: ReuseLog,
			ProxyProtocol: ProxyProtocol{Trusted: []netip.Prefix{prefix("192.0.2.0/24")}, Send: ProxyV2}},
		{Name: "explicit", Mode: Explicit, Address: netip.MustParseAddrPort("127.0.0.1:2122"), Source: SourceOwn, ServerData: DataSame,
			DataPath: PathAuto, Unknown: UnknownRelay, Protocols: []Protocol{ProtocolFTP}, Sniff: time.Second, TLS: TLSInspect,
			SessionReuse: ReuseLog, ProxyProtocol: ProxyProtocol{Send: ProxyNone}},
	}
	want.Destinations = []Destination{
		{
			Deny: []Target{{Keyword: TargetPrivate}, {Prefix: prefix("10.0.0.0/8")}, {Prefix: prefix("::1/128")},
				{Host: "*.example.com"}, {Host: "intranet"}},
			Ports: []PortRange{{21, 21}, {990, 990}, {1024, 65535}},
		},
		{
			Allow: []Target{{Host: "*"}}, Ports: []PortRange{{21, 21}, {990, 990}},
			TLS: DestinationTLS{
				Verify:     VerifyOff,
				Pins:       []Pin{{0x01, 0x23, 0x45, 0x67, 0x89, 31: 0xff}, Pin(bytes.Repeat([]byte{0xab, 0xcd, 0xef}, 11)[:32])},
				ClientCert: "/tls/client.pem", ClientKey: "/tls/client.pem",
				MinVersion: TLS12, MaxVersion: TLS12,
				Ciphers: []Cipher{"TLS_RSA_WITH_AES_128_CBC_SHA", "TLS_ECDHE_ECDSA_WITH_CHACHA20_POLY1305_SHA256"},
				Curves:  []Curve{CurveP256, CurveX25519}, MissingClose: CloseWhole, Pass: PortRange{1024, 2047},
			},
		},
		{Allow: []Target{{Keyword: TargetLoopback}}, TLS: DefaultDestinationTLS()},
	}
	want.TLS = TLS{AuthorityCert: "/tls/ca.pem", AuthorityKey: "/tls/ca.key", ServerRoots: "/tls/roots #1.pem"}
	want.Mark, want.DivertMark, want.RouteTable, want.LogGroup = 5, 0xffffffff, 1<<31-1, 65535
	want.Firewall = FirewallApply
	want.Timeouts.Idle = time.Hour
	want.Limits.Line, want.Limits.ReplyBytes = 1e6, 1<<20
	want.Log = Log{Format: "json", Level: "debug"}
	if d := cmp.Diff(want, c, byValue); d != "" {
		t.Error(d)
	}
	if d := cmp.Diff(c, load(t, string(c.YAML()), Options{}), byValue); d != "" {
		t.Errorf("after YAML:\n%s%s", c.YAML(), d)
	}
}

// digits64 is a hash in hexadecimal.
const digits64 = "01234567890000000000000000000000000000000000000000000000000000ff"

// TestPrecedence sets every scalar key in the file, then in the environment too, then by a flag too.
func TestPrecedence(t *testing.T) {
	// A text for each key and layer, all different.
	text := func(s scalar, layer int) string {
		switch s.value.(type) {
		case time.Duration:
			return fmt.Sprintf("%dm", 50+layer)
		case Size:
			return fmt.Sprintf("%dKiB", 50+layer)
		case File:
			return fmt.Sprintf("/tls/%d", 50+layer)
		}
		switch s.key {
		case "log.level":
			return []string{"debug", "warn", "error"}[layer]
		case "log.format":
			return []string{"json", "text", "json"}[layer]
		case "policy.default":
			return []string{"deny", "allow", "deny"}[layer]
		case "policy.ask_directory", "audit.commands", "privileges.drop":
			return []string{"false", "true", "false"}[layer]
		case "policy.time_zone":
			return []string{"UTC", "Local", "UTC"}[layer]
		case "audit.on_full":
			return []string{"block", "refuse", "drop"}[layer]
		case "mark":
			return fmt.Sprint(10 + layer)
		case "firewall":
			return []string{"apply", "ignore", "apply"}[layer]
		case "metrics.address", "status.address":
			return fmt.Sprintf("127.0.0.1:%d", 9700+layer)
		case "accounts.ldap.url":
			return fmt.Sprintf("ldaps://h%d.example.com", layer)
		case "accounts.ldap.user_dn", "accounts.ldap.filter", "accounts.ldap.group_filter":
			return fmt.Sprintf("uid={name},ou=%d", layer)
		}
		return fmt.Sprint(50 + layer)
	}
	// Keys that are worth nothing alone, and then one that is worth a warning.
	other := map[string][]string{"audit.commands": {"audit.file"}, "tls.authority_cert": {"tls.authority_key"}, "tls.authority_key": {"tls.authority_cert"}, "accounts.groups": {"accounts.file"},
		"accounts.ldap.url": {"accounts.ldap.user_dn"}, "accounts.ldap.user_dn": {"accounts.ldap.url"}, "accounts.ldap.ca": {"accounts.ldap.url", "accounts.ldap.user_dn"}}
	const search = "accounts.ldap.url accounts.ldap.base accounts.ldap.filter accounts.ldap.bind_dn accounts.ldap.bind_password_file"
	for _, key := range strings.Fields(search + " accounts.ldap.group_base accounts.ldap.group_filter") {
		if key != "accounts.ldap.url" {
			other[key] = slices.DeleteFunc(strings.Fields(search), func(k string) bool { return k == key })
		}
	}
	values := map[string]string{"accounts.ldap.url": "ldap://other.example.com", "accounts.ldap.user_dn": "uid={name}", "accounts.ldap.filter": "(uid={name})"}
	warned := []string{"tls.key_log", "policy.default"}
	for _, s := range scalars() {
		t.Run(s.key, func(t *testing.T) {
			environ := []string{"HOME=/", "FTPALG_" + strings.ToUpper(strings.ReplaceAll(s.key, ".", "_")) + "=" + text(s, 1)}
			beside := map[string]string{}
			for _, key := range other[s.key] {
				if beside[key] = values[key]; beside[key] == "" {
					beside[key] = "/tls/other"
				}
			}
			file := asYAML(s.key, text(s, 0), beside)
			flags := map[string]string{s.key: text(s, 2)}
			for layer, o := range []Options{{}, {Environ: environ}, {Environ: environ, Flags: flags}} {
				value, err := parse(text(s, layer), reflect.TypeOf(s.value))
				if err != nil {
					t.Fatal(err)
				}
				want := texts(Default())
				want[s.key] = format(reflect.ValueOf(value))
				maps.Copy(want, beside)
				c, warnings, err := Load(write(t, file), o)
				if err != nil || (len(warnings) > 0) != (slices.Contains(warned, s.key) && text(s, layer) != "allow") {
					t.Fatal(err, warnings)
				}
				if d := cmp.Diff(want, texts(c)); d != "" {
					t.Errorf("layer %d: %s", layer, d)
				}
			}
		})
	}
}

// asYAML is a file with a key and those beside it, each with all that it is in.
func asYAML(key, value string, beside map[string]string) string {
	values := maps.Clone(beside)
	values[key] = value
	var b strings.Builder
	within := []string{}
	for _, k := range slices.Sorted(maps.Keys(values)) {
		parts := strings.Split(k, ".")
		for i, name := range parts {
			if i < len(parts)-1 && len(within) > i && within[i] == name {
				continue
			}
			within = append(within[:i], name)
			fmt.Fprintf(&b, "%s%s:", strings.Repeat("  ", i), name)
			if i == len(parts)-1 {
				fmt.Fprintf(&b, " %s", values[k])
			}
			b.WriteByte('\n')
		}
	}
	return b.String()
}

// texts are the values of a Config's scalar keys.
func texts(c *Config) map[string]string {
	m := map[string]string{}
	for _, s := range scalarsOf(reflect.ValueOf(c).Elem(), "") {
		m[s.key] = format(reflect.ValueOf(s.value))
	}
	return m
}

func TestVariableNamesDiffer(t *testing.T) {
	seen := map[string]string{}
	for _, s := range scalars() {
		if other, ok := seen[variable(s.key)]; ok {
			t.Errorf("%s and %s have the same variable", s.key, other)
		}
		seen[variable(s.key)] = s.key
	}
}

// TestProcessEnvironment sees to it that only the given environment counts.
func TestProcessEnvironment(t *testing.T) {
	t.Setenv("FTPALG_LOG_LEVEL", "debug")
	if c := load(t, "log: {format: json}", Options{}); c.Log.Level != "info" {
		t.Error(c.Log.Level)
	}
	if c := load(t, "log: {format: json}", Options{Environ: os.Environ()}); c.Log.Level != "debug" {
		t.Error(c.Log.Level)
	}
}

func TestFiles(t *testing.T) {
	dir := t.TempDir()
	for _, c := range []struct{ name, path, want string }{
		{"missing", filepath.Join(dir, "none.yaml"), "none.yaml: no such file; give the path of a file, or none for the defaults"},
		{"directory", dir, ": is a directory; give the path of a file"},
		{"below a file", filepath.Join(write(t, "x"), "y"), ": cannot open it: not a directory"},
		{"too large", write(t, strings.Repeat("#\n", 1<<19)+"#"), ": has more than 1 MiB, so it is no configuration"},
		{"NUL", write(t, "log:\n  level: \x00"), ":2: a NUL byte; the file must be text in UTF-8"},
		{"UTF-16", write(t, "\xff\xfel\x00o\x00g\x00"), ":1: a NUL byte"},
		{"Latin-1", write(t, "log:\n\n  level: d\xe9bug"), ":3: a byte that is not UTF-8"},
		{"control character", write(t, "log:\n  level: \x01"), "not YAML: control characters are not allowed"},
	} {
		t.Run(c.name, func(t *testing.T) {
			config, warnings, err := Load(c.path, Options{})
			if config != nil || warnings != nil {
				t.Error("got a Config and an error")
			}
			if faults, ok := errors.AsType[Faults](err); !ok || len(faults) != 1 || faults[0].File != c.path {
				t.Fatalf("got %v", err)
			}
			if !strings.HasPrefix(err.Error(), c.path) || !strings.Contains(err.Error(), c.want) {
				t.Errorf("got %v, want %s", err, c.want)
			}
		})
	}
	t.Run("largest", func(t *testing.T) {
		load(t, "log: {level: info}\n"+strings.Repeat("#", maxFile-19), Options{})
	})
	t.Run("permission", func(t *testing.T) {
		path := write(t, "log: {level: info}")
		if err := os.Chmod(path, 0); err != nil {
			t.Fatal(err)
		}
		if f, err := os.Open(path); err == nil {
			f.Close()
			t.Skip("this user may read everything")
		}
		if _, _, err := Load(path, Options{}); err == nil || !strings.Contains(err.Error(), "permission denied to user id") {
			t.Errorf("got %v", err)
		}
	})
}

// TestManyListeners has as many listeners as a file can, which must not take time in the square of them.
func TestManyListeners(t *testing.T) {
	text := "listeners:\n" + strings.Repeat("- {}\n", 50_000)
	_, _, err := Load(write(t, text), Options{})
	if err == nil || !strings.Contains(err.Error(), ":1: listeners: has 50000 listeners; at most 1000 are allowed") {
		t.Errorf("got %v", err)
	}
}

func TestValidateWithoutLoad(t *testing.T) {
	c := Default()
	if err := c.Validate(); err != nil {
		t.Error(err)
	}
	c.Listeners = append(c.Listeners, Listener{
		Name: "x", Mode: Redirect, Source: SourceOwn, ServerData: DataSame, DataPath: PathAuto, Unknown: UnknownRelay, ImplicitPorts: []PortRange{{}},
		Intercept: Intercept{Ports: []PortRange{{}}, Clients: []netip.Prefix{{}}},
	})
	c.Listeners[0].DataPorts = PortRange{3000, 2000}
	c.Destinations = []Destination{{Deny: []Target{{}, {Keyword: TargetSelf, Host: "*"}}, Ports: []PortRange{{3, 2}}},
		{Allow: []Target{{Host: "*"}}, TLS: DestinationTLS{Pass: PortRange{3000, 2000}}}}
	want := `listeners[0].data_ports: 3000-2000 begins after its end
listeners[1].address: is missing; write IP:PORT
listeners[1].data_ports: is missing; connections of this kind need a range, such as 50000-50999
listeners[1].proxy_protocol.send: is missing; write one of: none, v1, v2
listeners[1].tls: is missing; write one of: inspect, refuse, require, client-only, server-only, pass
listeners[1].session_reuse: is missing; write one of: off, log, require
listeners[1].implicit_ports[0]: is no port or range of ports: write 21 or 50000-50999
listeners[1].intercept.ports[0]: is no port or range of ports: write 21 or 50000-50999
listeners[1].intercept.clients[0]: is no address or prefix
destinations[0].deny[0]: is no target
destinations[0].deny[1]: is no target
destinations[0].ports[0]: is no port or range of ports: write 21 or 50000-50999
destinations[1].tls.verify: is missing; write one of: strict, untrusted-ca, off
destinations[1].tls.min_version: is missing; write one of: 1.0, 1.1, 1.2, 1.3
destinations[1].tls.max_version: is missing; write one of: 1.0, 1.1, 1.2, 1.3
destinations[1].tls.missing_close_notify: is missing; write one of: broken, whole
destinations[1].tls.pass: 3000-2000 begins after its end`
	if err := c.Validate(); err == nil || err.Error() != want {
		t.Errorf("got:\n%v\nwant:\n%s", err, want)
	}
}

// TestConcurrentLoads is for the race detector: loads share nothing.
func TestConcurrentLoads(t *testing.T) {
	path := write(t, string(Example()))
	done := make(chan error)
	for range 8 {
		go func() {
			_, _, err := Load(path, Options{Environ: []string{"FTPALG_LOG_LEVEL=warn"}})
			done <- err
		}()
	}
	for range 8 {
		if err := <-done; err != nil {
			t.Error(err)
		}
	}
}
