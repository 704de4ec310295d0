//go:build linux

package integration

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// TestGate has real clients log in to the proxy and then to the server that they dialed, as those do that know of a transparent
// firewall: on intercepted connections and through a gateway listener. Who has no account reaches nothing.
func TestGate(t *testing.T) {
	l := newLab(t)
	s := startServer(t, l, nil)
	if err := os.WriteFile(filepath.Join(s.Home, "file"), []byte("the server's"), 0o644); err != nil {
		t.Fatal(err)
	}
	record := filepath.Join(l.Dir, "audit.jsonl")
	g := l.startGateway(fmt.Sprintf(`
listeners:
  - {mode: tproxy, proxy_login: true}
  - {name: gateway, mode: gateway, address: '[::]:2222', server: '%v', proxy_login: true}
destinations:
  - {allow: '%v', accounts: [%s]}
  - {deny: '*'}
policy:
  rules:
    - {name: who, action: deny, accounts: [%[3]s], paths: '**/private/**'}
audit: {file: %s, commands: true}
`, s.AddrPort(v4), s.Addr[v4], proxyUser, record) + l.accounts(true))
	for _, at := range []struct {
		name string
		host string
		port uint16
	}{{"tproxy", s.Addr[v4].String(), 21}, {"gateway", clientGateway[v4].Addr().String(), 2222}} {
		for client, program := range map[string][]string{
			"ftplib": {"python3", "-c", `
import ftplib, sys
host, port, account, ours, user, theirs = sys.argv[1:]
f = ftplib.FTP()
f.connect(host, int(port))
f.login(account, ours)
f.login(user, theirs)
f.retrbinary("RETR file", sys.stdout.buffer.write)
sys.stdout.flush()
try:
    f.cwd("private")
except ftplib.error_perm as e:
    print(e)
f.quit()
`},
			"netftp": {"perl", "-MNet::FTP", "-e", `
my ($host, $port, $account, $ours, $user, $theirs) = @ARGV;
my $f = Net::FTP->new($host, Port => $port, Passive => 1) or die $@;
$f->login($account, $ours) or die $f->message;
$f->login($user, $theirs) or die $f->message;
$f->get("file", \*STDOUT) or die $f->message;
$f->cwd("private") or print $f->message;
$f->quit;
`},
		} {
			t.Run(at.name+"/"+client, func(t *testing.T) {
				need(t, program[0])
				out, err := l.Client.Command(t.Context(), program[0], append(program[1:], at.host, fmt.Sprint(at.port), proxyUser, proxyPassword, ftpUser, ftpPassword)...).CombinedOutput()
				if err != nil || !strings.Contains(string(out), "the server's") || !strings.Contains(string(out), "Denied by policy (who)") {
					t.Errorf("%v: %s", err, out)
				}
				out, err = l.Client.Command(t.Context(), program[0], append(program[1:], at.host, fmt.Sprint(at.port), proxyUser, "wrong", ftpUser, ftpPassword)...).CombinedOutput()
				if err == nil || strings.Contains(string(out), "the server's") {
					t.Errorf("with a wrong password: %v: %s", err, out)
				}
			})
		}
	}
	g.Stop()
	g.checkClean()
	logins := 0
	for _, e := range readAudit(t, record) {
		if e.Event == "login" && e.Account != proxyUser || e.Event == "command" && strings.Contains(e.Text, proxyPassword) {
			t.Errorf("%+v", e)
		}
		if e.Event == "login" && e.User == ftpUser {
			logins++
		}
	}
	if logins != 4 {
		t.Errorf("%d logins to the server are recorded", logins)
	}
}
