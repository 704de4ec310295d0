package proxy

import (
	"crypto/tls"
	"crypto/x509"
	"errors"
	"log/slog"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"ftpalg/config"
	"ftpalg/control"
	"ftpalg/dataconn"
	"ftpalg/tlsmitm"
)

// A client's hello names its server. Rules by name decide then, but only about a server that has the name: a client that
// names another must not have what that one is allowed.
func TestNamed(t *testing.T) {
	for _, test := range []struct {
		name, rules, at, says string
		rule                  int // that the server is met by; -1: none
		denied                bool
	}{
		{"its own name", "destinations: [{deny: 192.0.2.1}, {allow: localhost., tls: {pass: 50000-50010}}]", "127.0.0.1", "localhost", 1, false},
		{"its own name, spelled another way", "destinations: [{allow: localhost.}]", "127.0.0.1", "LOCALHOST", 0, false},
		{"another's name", "destinations: [{allow: localhost.}]", "127.0.0.2", "localhost", -1, false},
		{"no name", "destinations: [{allow: localhost.}]", "127.0.0.1", "", -1, false},
		{"an address", "destinations: [{allow: localhost.}]", "127.0.0.1", "127.0.0.1", -1, false},
		{"a name that is denied", "destinations: [{deny: localhost.}]", "127.0.0.1", "localhost", -1, true},
		{"no rule by name", "destinations: [{deny: 192.0.2.1}]", "127.0.0.1", "localhost", -1, false},
	} {
		t.Run(test.name, func(t *testing.T) {
			l, err := net.Listen("tcp", net.JoinHostPort(test.at, "0"))
			if err != nil {
				t.Fatal(err)
			}
			defer l.Close()
			server, err := net.Dial("tcp", l.Addr().String())
			if err != nil {
				t.Fatal(err)
			}
			defer server.Close()
			p := &Proxy{log: slog.New(slog.DiscardHandler), resolver: net.DefaultResolver}
			n := &network{
				cfg: rules(t, test.rules+"\n"), listener: &config.Listener{Mode: config.TPROXY}, rule: -1,
				client: netip.MustParseAddrPort("192.0.2.9:2000"), dialed: dataconn.AddrPort(l.Addr()), server: server.(*net.TCPConn),
			}
			err = p.named(t.Context(), n, test.says)
			var r *control.Refusal
			if denied := errors.As(err, &r); denied != test.denied || err != nil && !denied {
				t.Errorf("%v", err)
			}
			if n.rule != test.rule {
				t.Errorf("it is met by rule %d, want %d", n.rule, test.rule)
			}
		})
	}
}

// What cannot be written to the key log is in the log, once, and not for what a reload has closed.
func TestKeyLog(t *testing.T) {
	name := filepath.Join(t.TempDir(), "keys")
	if err := os.WriteFile(name, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	var log strings.Builder
	readOnly, err := os.Open(name)
	if err != nil {
		t.Fatal(err)
	}
	k := &keyLog{file: readOnly, log: slog.New(slog.NewTextHandler(&log, nil))}
	for range 2 {
		if _, err := k.Write([]byte("CLIENT_RANDOM\n")); err == nil {
			t.Error("written to what is read only")
		}
	}
	if n := strings.Count(log.String(), "tls.key_log cannot be written to"); n != 1 {
		t.Errorf("said %d times: %s", n, &log)
	}
	log.Reset()
	closed := &keyLog{file: readOnly, log: k.log}
	readOnly.Close()
	closed.Write([]byte("CLIENT_RANDOM\n"))
	if log.Len() > 0 {
		t.Errorf("said of a closed one: %s", &log)
	}
}

// What a client says by HOST or SNI is a server's name unless it is ours: by certificate, by what is advertised, by address, or
// because it leads nowhere.
func TestIsOwn(t *testing.T) {
	pair := &tls.Certificate{Leaf: &x509.Certificate{DNSNames: []string{"proxy.example.com", "*.example.net"}}}
	s := &setting{
		listener:   &config.Listener{Name: "explicit", Advertise: "ftp.example.org"},
		identities: &identities{own: map[string]tlsmitm.KeyPair{"explicit": pair}},
	}
	p := &Proxy{log: slog.New(slog.DiscardHandler), resolver: net.DefaultResolver}
	n := &network{local: netip.MustParseAddrPort("192.0.2.9:2121")}
	for name, own := range map[string]bool{
		"proxy.example.com": true, "PROXY.example.com.": true, "ftp.example.org": true, "localhost": true, "127.0.0.1": true,
		"192.0.2.9": true, "nowhere.invalid": true, "a b": true, "": true,
		"192.0.2.10": false, "[2001:db8::9]": false,
	} {
		if got := p.isOwn(t.Context(), s, n, name); got != own {
			t.Errorf("%q is ours: %t", name, got)
		}
	}
	if tlsmitm.Names(pair, "ftp.example.net") || tlsmitm.Names(nil, "proxy.example.com") {
		t.Error("a wildcard names any host, or nothing does")
	}
}
