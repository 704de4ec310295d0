//go:build linux

package integration

import (
	"bytes"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/go-ldap/ldap/v3"

	"ftpalg/proxy/accounts"
)

// slapd is a directory (OpenLDAP) on the loopback interface.
type slapd struct {
	plain, tls string // URLs
	ca         *authority
	cmd        *exec.Cmd

	mu   sync.Mutex
	said bytes.Buffer
}

// Write takes what slapd logs.
func (s *slapd) Write(b []byte) (int, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.said.Write(b)
}

func (s *slapd) log() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.said.String()
}

const searcher, searcherPassword = "cn=ftpalg,dc=example,dc=com", "searching"

// people are the passwords of those in the directory.
var people = map[string]string{"alice": "of alice", "bob": "of bob", "carol": "of carol", "paren(": "of paren"}

// startSlapd starts a directory with people, of whom alice and bob are in groups. It shows people to the searcher alone.
func startSlapd(t *testing.T) *slapd {
	t.Helper()
	program := needUnpacked(t, "usr/sbin/slapd")
	dir := t.TempDir()
	l := &lab{Dir: dir, t: t}
	s := &slapd{ca: l.newAuthority("directory")}
	cert := s.ca.issue("directory", false, netip.MustParseAddr("127.0.0.1"))
	schema := unpacked("etc/ldap/schema")
	conf := filepath.Join(dir, "slapd.conf")
	text := fmt.Sprintf(`include %[1]s/core.schema
include %[1]s/cosine.schema
include %[1]s/inetorgperson.schema
modulepath %[2]s
moduleload back_mdb
TLSCertificateFile %[3]s
TLSCertificateKeyFile %[3]s
security simple_bind=128
database mdb
suffix dc=example,dc=com
rootdn cn=admin,dc=example,dc=com
rootpw secret
directory %[4]s
maxsize 10485760
access to attrs=userPassword by anonymous auth by * none
access to * by dn.exact=%[5]s read by * none
`, schema, unpacked("usr/lib/ldap"), cert, dir, searcher)
	if err := os.WriteFile(conf, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	s.plain, s.tls = "ldap://"+freeAddress(t), "ldaps://"+freeAddress(t)
	s.cmd = exec.Command(program, "-f", conf, "-h", s.plain+" "+s.tls, "-d", "stats")
	s.cmd.Env = append(os.Environ(), "LD_LIBRARY_PATH="+unpacked("usr/lib/x86_64-linux-gnu"))
	s.cmd.Stdout, s.cmd.Stderr = s, s
	s.cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	if err := s.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		s.stop()
		if t.Failed() {
			t.Logf("slapd said:\n%s", s.log())
		}
	})
	s.fill(t)
	return s
}

// stop ends the directory.
func (s *slapd) stop() {
	s.cmd.Process.Kill()
	s.cmd.Wait()
}

// freeAddress is an address that nobody listens on.
func freeAddress(t *testing.T) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	return l.Addr().String()
}

// fill puts people into the directory, once it is there.
func (s *slapd) fill(t *testing.T) {
	t.Helper()
	var c *ldap.Conn
	for by := time.Now().Add(10 * time.Second); ; time.Sleep(20 * time.Millisecond) {
		var err error
		if c, err = ldap.DialURL(s.tls, ldap.DialWithTLSConfig(&tls.Config{RootCAs: s.ca.roots(), ServerName: "127.0.0.1"})); err == nil {
			break
		}
		if time.Now().After(by) {
			t.Fatal(err, s.log())
		}
	}
	defer c.Close()
	add := func(dn string, attributes map[string][]string) {
		t.Helper()
		r := ldap.NewAddRequest(dn, nil)
		for name, values := range attributes {
			r.Attribute(name, values)
		}
		if err := c.Add(r); err != nil {
			t.Fatal(dn, err)
		}
	}
	if err := c.Bind("cn=admin,dc=example,dc=com", "secret"); err != nil {
		t.Fatal(err)
	}
	add("dc=example,dc=com", map[string][]string{"objectClass": {"dcObject", "organization"}, "o": {"example"}, "dc": {"example"}})
	add("ou=people,dc=example,dc=com", map[string][]string{"objectClass": {"organizationalUnit"}, "ou": {"people"}})
	add(searcher, map[string][]string{"objectClass": {"applicationProcess", "simpleSecurityObject"}, "cn": {"ftpalg"}, "userPassword": {searcherPassword}})
	for name, password := range people {
		add(personDN(name), map[string][]string{"objectClass": {"inetOrgPerson"}, "uid": {name}, "cn": {name}, "sn": {name}, "userPassword": {password}})
	}
	add("cn=staff,dc=example,dc=com", map[string][]string{"objectClass": {"groupOfNames"}, "cn": {"staff"}, "member": {personDN("alice"), personDN("bob"), personDN("paren(")}})
	add("cn=admins,dc=example,dc=com", map[string][]string{"objectClass": {"groupOfNames"}, "cn": {"admins"}, "member": {personDN("alice")}})
}

func personDN(name string) string {
	return "uid=" + ldap.EscapeDN(name) + ",ou=people,dc=example,dc=com"
}

// Proxy accounts of a real directory, found in both ways, over both kinds of TLS.
func TestDirectory(t *testing.T) {
	s := startSlapd(t)
	password := filepath.Join(t.TempDir(), "password")
	if err := os.WriteFile(password, []byte(searcherPassword+"\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	search := accounts.LDAP{URL: s.tls, Roots: s.ca.roots(), Base: "ou=people,dc=example,dc=com", Filter: "(uid={name})",
		BindDN: searcher, BindPasswordFile: password, GroupBase: "dc=example,dc=com", GroupFilter: "(&(objectClass=groupOfNames)(member={dn}))", Timeout: 5 * time.Second}
	template := accounts.LDAP{URL: s.plain, Roots: s.ca.roots(), UserDN: "uid={name},ou=people,dc=example,dc=com", Timeout: 5 * time.Second}
	everybody := search
	everybody.URL, everybody.GroupFilter = s.plain, ""

	var log bytes.Buffer
	open := func(l accounts.LDAP) *accounts.Accounts {
		t.Helper()
		a, faults := accounts.New(accounts.Options{LDAP: &l, Limits: accounts.Limits{Failures: 1000, Window: time.Nanosecond, Ban: time.Nanosecond},
			Log: slog.New(slog.NewTextHandler(&log, nil))}, accounts.NewGuard())
		if len(faults) > 0 {
			t.Fatal(faults)
		}
		return a
	}
	client := netip.MustParseAddr("192.0.2.7")
	for name, test := range map[string]struct {
		how    accounts.LDAP
		groups map[string][]string // of those who are let in
	}{
		"search, LDAPS":    {search, map[string][]string{"alice": {"admins", "staff"}, "bob": {"staff"}, "paren(": {"staff"}}},
		"search, StartTLS": {everybody, map[string][]string{"alice": nil, "bob": nil, "carol": nil, "paren(": nil}},
		"DN, StartTLS":     {template, map[string][]string{"alice": nil, "bob": nil, "carol": nil, "paren(": nil}},
	} {
		t.Run(name, func(t *testing.T) {
			a := open(test.how)
			for person, password := range people {
				groups, in := test.groups[person]
				account, err := a.Login(t.Context(), client, person, password)
				if in && (err != nil || account.Name != person || !slices.Equal(account.Groups, groups)) || !in && !errors.Is(err, accounts.ErrFailed) {
					t.Errorf("%s: %v %v", person, account, err)
				}
			}
			// A directory knows no capitals, and rules are about the name in lower case.
			if account, err := a.Login(t.Context(), client, "ALICE", people["alice"]); err != nil || account.Name != "alice" {
				t.Error(account, err)
			}
			for _, wrong := range []struct{ name, password string }{
				{"alice", people["bob"]}, {"alice", ""}, {"nobody", "x"}, {"nobody", ""}, {"", ""}, {"*", people["alice"]}, {"ali*", people["alice"]},
				{"alice)(uid=*", people["alice"]}, {"*)(|(uid=*", people["alice"]}, {"alice,ou=people", people["alice"]}, {"alice\\2a", people["alice"]},
				{"alice\x00", people["alice"]}, {"{name}", "x"}, {"{dn}", "x"}, {"alice+cn=alice", people["alice"]}, {"ａｌｉｃｅ", people["alice"]}, {" alice", people["alice"]},
			} {
				if account, err := a.Login(t.Context(), client, wrong.name, wrong.password); !errors.Is(err, accounts.ErrFailed) {
					t.Errorf("%q with %q: %v %v", wrong.name, wrong.password, account, err)
				}
			}
			if test.how.UserDN == "" && (!a.Known(t.Context(), "alice") || !a.Known(t.Context(), "Alice") || a.Known(t.Context(), "nobody") || a.Known(t.Context(), "*")) {
				t.Error("who is known is wrong")
			}
		})
	}
	for _, password := range people {
		if strings.Contains(log.String(), password) {
			t.Error("a password is in the log")
		}
	}

	// Whether there is an account shows neither in what the directory is asked nor, so, in the time.
	a := open(search)
	binds := func(name string) int {
		time.Sleep(100 * time.Millisecond)
		before := strings.Count(s.log(), " RESULT tag=97 ")
		a.Login(t.Context(), client, name, "wrong")
		time.Sleep(100 * time.Millisecond) // slapd's log is no faster
		return strings.Count(s.log(), " RESULT tag=97 ") - before
	}
	if known, unknown := binds("alice"), binds("nobody"); known != 2 || unknown != known {
		t.Errorf("%d binds for a known name, %d for an unknown one", known, unknown)
	}

	// Nobody else's certificate will do, and no password is sent before.
	stranger := search
	stranger.Roots = (&lab{Dir: t.TempDir(), t: t}).newAuthority("stranger").roots()
	begun := strings.Count(s.log(), " BIND ")
	for _, url := range []string{s.tls, s.plain} {
		stranger.URL = url
		if _, err := open(stranger).Login(t.Context(), client, "alice", people["alice"]); !errors.Is(err, accounts.ErrUnavailable) {
			t.Error(url, err)
		}
	}
	time.Sleep(100 * time.Millisecond)
	if strings.Count(s.log(), " BIND ") != begun {
		t.Error("a bind with a stranger")
	}

	// One that is down lets nobody in, and nobody is taken for no account.
	s.stop()
	if _, err := a.Login(t.Context(), client, "alice", people["alice"]); !errors.Is(err, accounts.ErrUnavailable) {
		t.Error(err)
	}
	if !open(search).Known(t.Context(), "nobody") {
		t.Error("nobody is known not to be there by a directory that is down")
	}
}

// A directory that never answers costs a login its time, not longer.
func TestDirectorySilent(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close() // connections wait in its queue
	for _, scheme := range []string{"ldap", "ldaps"} {
		a, faults := accounts.New(accounts.Options{
			LDAP:   &accounts.LDAP{URL: scheme + "://" + l.Addr().String(), UserDN: "uid={name}", Timeout: 300 * time.Millisecond},
			Limits: accounts.Limits{Failures: 1, Window: time.Minute, Ban: time.Minute}, Log: slog.New(slog.DiscardHandler),
		}, accounts.NewGuard())
		if len(faults) > 0 {
			t.Fatal(faults)
		}
		for range 2 { // and bans nobody
			begun := time.Now()
			_, err := a.Login(t.Context(), netip.MustParseAddr("192.0.2.7"), "alice", "x")
			if took := time.Since(begun); !errors.Is(err, accounts.ErrUnavailable) || took > 3*time.Second {
				t.Errorf("%s: %v after %v", scheme, err, took)
			}
		}
		ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
		if _, err := a.Login(ctx, netip.MustParseAddr("192.0.2.7"), "alice", "x"); !errors.Is(err, context.DeadlineExceeded) || errors.Is(err, accounts.ErrUnavailable) {
			t.Error(scheme, err)
		}
		cancel()
	}
}
