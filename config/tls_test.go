package config

import (
	"fmt"
	"os"
	"path/filepath"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// TestTLSDefaults has the defaults that depend on others.
func TestTLSDefaults(t *testing.T) {
	const authority = "tls: {authority_cert: /ca.pem, authority_key: /ca.pem}\n"
	ports := func(p ...PortRange) []PortRange { return p }
	ftp, ftps, own := PortRange{21, 21}, PortRange{990, 990}, PortRange{2990, 2999}
	type row struct {
		TLS                 TLSMode
		Implicit, Intercept []PortRange
	}
	for _, c := range []struct {
		head, listener string
		want           row
	}{
		{"", "mode: explicit", row{TLSRefuse, nil, nil}},
		{"", "mode: tproxy", row{TLSRefuse, ports(ftps), ports(ftp)}},
		{"", "mode: tproxy, tls: server-only", row{TLSServerOnly, ports(ftps), ports(ftp)}},
		{"", "mode: redirect, tls: server-only", row{TLSServerOnly, ports(ftps), ports(ftp)}},
		{authority, "mode: explicit", row{TLSInspect, nil, nil}},
		{authority, "mode: gateway, server: 'ftp.example.com:21'", row{TLSInspect, nil, nil}},
		{authority, "mode: tproxy", row{TLSInspect, ports(ftps), ports(ftp, ftps)}},
		{authority, "mode: redirect, tls: require", row{TLSRequire, ports(ftps), ports(ftp, ftps)}},
		{authority, "mode: tproxy, tls: client-only", row{TLSClientOnly, ports(ftps), ports(ftp, ftps)}},
		{authority, "mode: tproxy, tls: refuse", row{TLSRefuse, ports(ftps), ports(ftp)}},
		{authority, "mode: tproxy, implicit_ports: '990, 2990-2999'", row{TLSInspect, ports(ftps, own), ports(ftp, ftps, own)}},
		{authority, "mode: tproxy, implicit_ports: 20-22", row{TLSInspect, ports(PortRange{20, 22}), ports(PortRange{20, 22})}},
		{authority, "mode: tproxy, intercept: {ports: 2121}", row{TLSInspect, ports(ftps), ports(PortRange{2121, 2121})}},
	} {
		t.Run(c.head+c.listener, func(t *testing.T) {
			l := load(t, fmt.Sprintf("%slisteners: [{%s}]", c.head, c.listener), Options{}).Listeners[0]
			if d := cmp.Diff(c.want, row{l.TLS, l.ImplicitPorts, l.Intercept.Ports}); d != "" {
				t.Error(d)
			}
			if l.SessionReuse != ReuseLog || l.Implicit {
				t.Error(l.SessionReuse, l.Implicit)
			}
		})
	}
}

// TestAuthorityInEnvironment: the defaults that depend on an authority do not care where it was given.
func TestAuthorityInEnvironment(t *testing.T) {
	c := load(t, "listeners: [{mode: tproxy}]", Options{
		Environ: []string{"FTPALG_TLS_AUTHORITY_CERT=/ca.pem"},
		Flags:   map[string]string{"tls.authority_key": "/ca.key"},
	})
	if c.TLS.AuthorityCert != "/ca.pem" || c.TLS.AuthorityKey != "/ca.key" || c.Listeners[0].TLS != TLSInspect {
		t.Errorf("%+v, %s", c.TLS, c.Listeners[0].TLS)
	}
}

// TestDefaultDestinationTLS: a rule that says nothing of TLS has the defaults if it allows, and nothing if it denies.
func TestDefaultDestinationTLS(t *testing.T) {
	want := DestinationTLS{Verify: VerifyStrict, MinVersion: TLS12, MaxVersion: TLS13, MissingClose: CloseBroken}
	if d := cmp.Diff(want, DefaultDestinationTLS()); d != "" {
		t.Error(d)
	}
	c := load(t, "destinations: [{deny: self}, {allow: private}, {allow: loopback, tls: {min_version: 1.3}}]", Options{})
	third := want
	third.MinVersion = TLS13
	if d := cmp.Diff([]DestinationTLS{{}, want, third}, []DestinationTLS{
		c.Destinations[0].TLS, c.Destinations[1].TLS, c.Destinations[2].TLS}); d != "" {
		t.Error(d)
	}
}

// TestPaths: a path is relative to the directory of the file that has it, whichever layer it comes from, and to the
// working directory only where there is no file.
func TestPaths(t *testing.T) {
	here, err := os.Getwd()
	if err != nil {
		t.Fatal(err)
	}
	home := filepath.Join(here, "testdata", "none")
	for _, c := range []struct{ file, text, want string }{
		{"/etc/ftpalg/ftpalg.yaml", "ca.pem", "/etc/ftpalg/ca.pem"},
		{"/etc/ftpalg/ftpalg.yaml", "tls/../ca.pem", "/etc/ftpalg/ca.pem"},
		{"/etc/ftpalg/ftpalg.yaml", "../ca.pem", "/etc/ca.pem"},
		{"/etc/ftpalg/ftpalg.yaml", "/run/../ca.pem", "/run/../ca.pem"},
		{"/etc/ftpalg/ftpalg.yaml", "./credential:x", "/etc/ftpalg/credential:x"},
		{"/etc/ftpalg/ftpalg.yaml", "credential:ca.pem", "/run/credentials/ftpalg.service/ca.pem"},
		{"/etc/ftpalg/ftpalg.yaml", "", ""},
		{"testdata/none/ftpalg.yaml", "ca.pem", filepath.Join(home, "ca.pem")},
		{"ftpalg.yaml", "ca.pem", filepath.Join(here, "ca.pem")},
		{"", "ca.pem", filepath.Join(here, "ca.pem")},
	} {
		environ := []string{"CREDENTIALS_DIRECTORY=/run/credentials/ftpalg.service"}
		inFile := newLoader(c.file, environ)
		inFile.document([]byte(fmt.Sprintf("tls: {server_roots: %q}", c.text)))
		byFlag := newLoader(c.file, environ)
		byFlag.flags(map[string]string{"tls.server_roots": c.text})
		for layer, l := range map[string]*loader{"file": inFile, "flag": byFlag} {
			config, _, err := l.config(nil)
			if err != nil {
				t.Fatalf("%s of %q in %s: %v", layer, c.file, c.text, err)
			}
			if got := string(config.TLS.ServerRoots); got != c.want {
				t.Errorf("%s, %q in %q: got %q, want %q", layer, c.text, c.file, got, c.want)
			}
		}
	}
}

// TestPathsInPrint: what is printed means the same files when it is loaded from elsewhere.
func TestPathsInPrint(t *testing.T) {
	c := load(t, "tls: {authority_cert: 'ca #1.pem', authority_key: credential:key}\nlisteners: [{mode: tproxy}]",
		Options{Environ: []string{"CREDENTIALS_DIRECTORY=/run/credentials"}})
	if c.TLS.AuthorityKey != "/run/credentials/key" || !filepath.IsAbs(string(c.TLS.AuthorityCert)) {
		t.Errorf("%+v", c.TLS)
	}
	if d := cmp.Diff(c, load(t, string(c.YAML()), Options{}), byValue); d != "" {
		t.Error(d)
	}
}
