//go:build linux

package integration

import (
	"context"
	"fmt"
	"net/netip"
	"os"
	"os/exec"
	"os/user"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/crypto/bcrypt"
)

// What the clients of TestExplicitClients are told to say to the proxy. Where no account is asked for it means nothing; no server may
// hear of it.
const (
	proxyUser     = "paul"
	proxyPassword = "purple-9"
)

// A viaProxy is a client that has been told by its own settings to go through a proxy, and downloads or uploads one file.
type viaProxy struct {
	name  string
	needs string // a program
	login string // the listener's ways of logging in; empty: the default
	says  string // what shows that it is this way
	// tls is whether it comes with TLS: "yes", "no" or "both", one after the other. lftp has it through a proxy only
	// by open and proxy-user@host.
	tls string
	run func(v *visit) *exec.Cmd
	// nobody is whether it does not log in to the proxy.
	nobody bool
}

// A visit is what such a client is to do.
type visit struct {
	ctx            context.Context
	l              *lab
	proxy, server  netip.AddrPort
	home           string // has the client's settings
	remote, local  string // names
	name           string // the server's
	tls            *protection
	write          func(name, text string) // writes a file of settings
	user, password string
}

func (v *visit) command(program string, args ...string) *exec.Cmd {
	command := v.l.Client.Command(v.ctx, program, args...)
	command.Dir = v.home
	command.Env = append(command.Env, "HOME="+v.home)
	return command
}

// commandAtHome is command for programs that look for their settings in the home that the user database has, whatever HOME says.
func (v *visit) commandAtHome(program string, args ...string) *exec.Cmd {
	user, err := user.Current()
	if err != nil {
		panic(err)
	}
	const enter = `mount --bind "$HOME" "$0" && exec "$@"`
	return v.command("unshare", append([]string{"--mount", "sh", "-c", enter, user.HomeDir, program}, args...)...)
}

// lftpVia is lftp with ftp:proxy.
func lftpVia(kind string, account bool) func(*visit) *exec.Cmd {
	return func(v *visit) *exec.Cmd {
		proxy := "ftp://" + v.proxy.String()
		if account {
			proxy = fmt.Sprintf("ftp://%s:%s@%s", proxyUser, proxyPassword, v.proxy)
		}
		settings := []string{"net:max-retries 1", "net:timeout 20", "xfer:clobber yes", "xfer:log no", "cmd:fail-exit yes",
			"ftp:proxy " + proxy, "ftp:proxy-auth-type " + kind}
		if v.tls == nil {
			settings = append(settings, "ftp:ssl-allow no")
		} else {
			settings = append(settings, "ftp:ssl-force yes", "ftp:ssl-protect-data yes", "ssl:verify-certificate yes",
				"ssl:check-hostname no", "ssl:ca-file "+v.tls.CA)
		}
		var script strings.Builder
		for _, s := range settings {
			fmt.Fprintln(&script, "set", s)
		}
		fmt.Fprintf(&script, "debug 9\nopen -u %s,%s ftp://%s\nget %s -o %s\n", v.user, v.password, v.server, v.remote, v.local)
		command := v.command("lftp", "--norc", "-f", "/dev/stdin")
		command.Stdin = strings.NewReader(script.String())
		return command
	}
}

// ncftpVia is NcFTP with ~/.ncftp/firewall.
func ncftpVia(kind int) func(*visit) *exec.Cmd {
	return func(v *visit) *exec.Cmd {
		v.write(".ncftp/firewall", fmt.Sprintf("firewall-type=%d\nfirewall-host=%s\nfirewall-port=%d\nfirewall-user=%s\nfirewall-password=%s\n"+
			"firewall-exception-list=localhost\npassive=on\n", kind, v.proxy.Addr(), v.proxy.Port(), proxyUser, proxyPassword))
		command := v.commandAtHome("ncftp", "-u", v.user, "-p", v.password, "-P", fmt.Sprint(v.server.Port()), v.server.Addr().String())
		command.Stdin = strings.NewReader(fmt.Sprintf("debug 1\nget -z %s %s\n", v.remote, v.local))
		return command
	}
}

// netFTPVia is Perl's Net::FTP with a Firewall, whose account is in .netrc. If it is to use TLS, it begins in the way that tls says. It
// says the server's host when TLS begins (SNI), also if that is an address, and verifies that the certificate is for it.
func netFTPVia(kind int, tls string) func(*visit) *exec.Cmd {
	return func(v *visit) *exec.Cmd {
		v.write(".netrc", fmt.Sprintf("machine %s login %s password %s\n", v.proxy, proxyUser, proxyPassword))
		script, err := filepath.Abs("testdata/firewall.pl")
		if err != nil {
			panic(err)
		}
		args := []string{script, v.proxy.String(), fmt.Sprint(kind), v.server.Addr().String(), v.user, v.password, v.remote, v.local}
		if kind == 0 { // there is no firewall for it: the user says where to go
			args[3], args[4] = v.proxy.String(), fmt.Sprintf("%s@%s", v.user, v.server)
		}
		if v.tls != nil {
			args = append(args, tls, v.tls.CA)
		}
		return v.commandAtHome("perl", args...)
	}
}

// curlVia is curl, which takes the proxy for the server. A colon in the name would end it.
func curlVia(account string, args ...string) func(*visit) *exec.Cmd {
	return func(v *visit) *exec.Cmd {
		args := append([]string{"--disable", "--verbose", "--silent", "--show-error", "--max-time", "30", "--user",
			fmt.Sprintf("%s@%s%s:%s", v.user, v.server.Addr(), account, v.password), "--output", v.local}, args...)
		if v.tls != nil {
			args = append(args, "--ssl-reqd", "--cacert", v.tls.CA)
		}
		return v.command("curl", append(args, fmt.Sprintf("ftp://%s/%s", v.proxy, v.remote))...)
	}
}

// curlForName is curl that believes to be at the server, of which it says the name when it begins TLS.
func curlForName(v *visit) *exec.Cmd {
	return v.command("curl", "--disable", "--verbose", "--silent", "--show-error", "--max-time", "30", "--user", v.user+":"+v.password,
		"--output", v.local, "--ssl-reqd", "--cacert", v.tls.CA, "--connect-to", "::"+v.proxy.String(), "ftp://"+v.name+"/"+v.remote)
}

// viaProxies are the clients. In what they say, HOST is the server's address, with a port where one client says so.
var viaProxies = []viaProxy{
	{"lftp/user-alone", "lftp", "", "USER ftpuser@HOST:21", "no", lftpVia("user", false), true},
	{"lftp/user", "lftp", "", "USER paul", "no", lftpVia("user", true), false},
	{"lftp/open-alone", "lftp", "", "OPEN ***", "both", lftpVia("open", false), true},
	{"lftp/open", "lftp", "", "OPEN ***", "both", lftpVia("open", true), false},
	{"lftp/joined", "lftp", "joined", "USER ftpuser@paul@HOST:21", "no", lftpVia("joined", true), false},
	{"lftp/joined-acct", "lftp", "", "USER ftpuser@HOST:21 paul", "no", lftpVia("joined-acct", true), false},
	{"lftp/proxy-user@host", "lftp", "proxy-user@host", "USER paul@HOST:21", "both", lftpVia("proxy-user@host", true), false},
	{"ncftp/1", "ncftp", "", "USER ftpuser@HOST", "no", ncftpVia(1), true},
	{"ncftp/2", "ncftp", "", "USER paul", "no", ncftpVia(2), false},
	{"ncftp/3", "ncftp", "", "SITE HOST", "no", ncftpVia(3), false},
	{"ncftp/4", "ncftp", "", "OPEN ***", "no", ncftpVia(4), false},
	{"ncftp/5", "ncftp", "joined", "USER ftpuser@paul@HOST", "no", ncftpVia(5), false},
	{"ncftp/6", "ncftp", "proxy-user@host", "USER paul@HOST", "no", ncftpVia(6), false},
	{"ncftp/7", "ncftp", "", "USER ftpuser@HOST paul", "no", ncftpVia(7), false},
	{"ncftp/8", "ncftp", "", "USER ftpuser@HOST:21", "no", ncftpVia(8), true},
	{"ncftp/9", "ncftp", "", "USER ftpuser@HOST 21", "no", ncftpVia(9), true},
	{"netftp/0", "perl", "", "USER ftpuser@HOST:21", "both", netFTPVia(0, "starttls"), true},
	{"netftp/1", "perl", "", "USER ftpuser@HOST", "both", netFTPVia(1, "starttls"), true},
	{"netftp/2", "perl", "", "USER paul", "both", netFTPVia(2, "starttls"), false},
	{"netftp/3", "perl", "", "SITE HOST", "both", netFTPVia(3, "starttls"), false},
	{"netftp/4", "perl", "", "OPEN ***", "both", netFTPVia(4, "starttls"), false},
	{"netftp/5", "perl", "joined", "USER ftpuser@paul@HOST", "both", netFTPVia(5, "starttls"), false},
	{"netftp/6", "perl", "proxy-user@host", "USER paul@HOST", "both", netFTPVia(6, "starttls"), false},
	{"netftp/7", "perl", "user@host, resp", "RESP ***", "both", netFTPVia(7, "starttls"), false},
	{"netftp/0-implicit", "perl", "", "USER ftpuser@HOST:21", "yes", netFTPVia(0, "implicit"), true},
	{"netftp/1-implicit", "perl", "", "USER ftpuser@HOST", "yes", netFTPVia(1, "implicit"), true},
	{"netftp/2-implicit", "perl", "", "USER paul", "yes", netFTPVia(2, "implicit"), false},
	{"netftp/3-implicit", "perl", "", "SITE HOST", "yes", netFTPVia(3, "implicit"), false},
	{"netftp/4-implicit", "perl", "", "OPEN ***", "yes", netFTPVia(4, "implicit"), false},
	{"netftp/5-implicit", "perl", "joined", "USER ftpuser@paul@HOST", "yes", netFTPVia(5, "implicit"), false},
	{"netftp/6-implicit", "perl", "proxy-user@host", "USER paul@HOST", "yes", netFTPVia(6, "implicit"), false},
	{"netftp/7-implicit", "perl", "user@host, resp", "RESP ***", "yes", netFTPVia(7, "implicit"), false},
	{"curl/user@host", "curl", "", "USER ftpuser@HOST", "both", curlVia(""), true},
	{"curl/sni", "curl", "", "USER ftpuser", "yes", curlForName, true},
	{"curl/ftp-account", "curl", "", "USER ftpuser@HOST paul", "both", curlVia(" "+proxyUser, "--ftp-account", proxyPassword), false},
}

// explicitListeners are one listener for each list of ways that some client needs, and the port of each.
func explicitListeners() (yaml string, ports map[string]uint16) {
	ports = map[string]uint16{}
	yaml = "listeners:\n"
	for _, c := range viaProxies {
		if ports[c.login] != 0 {
			continue
		}
		port := uint16(2121 + len(ports))
		ports[c.login] = port
		yaml += fmt.Sprintf("  - {name: l%d, mode: explicit, address: '[::]:%d'", port, port)
		if c.login != "" {
			yaml += fmt.Sprintf(", login: [%s]", c.login)
		}
		yaml += "}\n"
	}
	return yaml, ports
}

// TestExplicitClients has clients go through an explicit proxy by their own settings for proxies and firewalls, all ways that they
// have, plain and over TLS, and plain where the proxy has accounts: then one listener does for all but RESP, and who has none reaches no
// server.
func TestExplicitClients(t *testing.T) {
	for _, name := range []string{"plain", "tls", "accounts"} {
		t.Run(name, func(t *testing.T) {
			secured, asked := name == "tls", name == "accounts"
			l := newLab(t)
			root, own := l.newAuthority("server-root"), l.newAuthority("gateway")
			s := startServer(t, l, root)
			l.Firewall.overlay("hosts", fmt.Sprintf("127.0.0.1 localhost\n%s %s\n", s.Addr[v4], hostName(s.Name)))
			listeners, ports := explicitListeners()
			g := l.startGateway(fmt.Sprintf("tls: {authority_cert: %s, authority_key: %s, server_roots: %s}\n",
				own.CertFile, own.KeyFile, root.CertFile) + listeners + l.accounts(asked) + variantLimits)
			content := "through " + name + "\n"
			if err := os.WriteFile(filepath.Join(s.Home, "there.txt"), []byte(content), 0o644); err != nil {
				t.Fatal(err)
			}
			for _, c := range viaProxies {
				if c.tls == map[bool]string{false: "yes", true: "no"}[secured] {
					continue
				}
				t.Run(c.name, func(t *testing.T) {
					need(t, c.needs, "unshare")
					ctx, cancel := context.WithTimeout(t.Context(), time.Minute/2)
					defer cancel()
					home := t.TempDir()
					login := c.login
					if asked && !strings.Contains(login, "resp") {
						login = ""
					}
					v := &visit{
						ctx: ctx, l: l, proxy: netip.AddrPortFrom(clientGateway[v4].Addr(), ports[login]), server: s.AddrPort(v4),
						home: home, name: hostName(s.Name), remote: "there.txt", local: filepath.Join(home, "here.txt"), user: ftpUser, password: ftpPassword,
						write: func(name, text string) {
							file := filepath.Join(home, name)
							if err := os.MkdirAll(filepath.Dir(file), 0o700); err != nil {
								t.Fatal(err)
							}
							if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
								t.Fatal(err)
							}
						},
					}
					if secured {
						v.tls = &protection{CA: own.CertFile}
					}
					from := len(g.log())
					said, err := c.run(v).CombinedOutput()
					got, _ := os.ReadFile(v.local)
					if asked && c.nobody {
						if len(got) > 0 || strings.Contains(g.log()[from:], "session started") {
							t.Errorf("nobody got %q", got)
							keep(t, "client.log", said)
						}
						return
					}
					if err != nil || string(got) != content {
						t.Errorf("got %q: %v", got, err)
						keep(t, "client.log", said)
					}
					line := g.transferAfter(from)
					if asked != strings.Contains(line, "account="+proxyUser) || !strings.Contains(line, "outcome=whole") || secured != strings.Contains(line, "client_tls") ||
						secured != strings.Contains(line, "server_tls") {
						t.Errorf("it went by %s", line)
					}
					says := strings.ReplaceAll(c.says, "HOST", v.server.Addr().String())
					if said := g.log()[from:]; !strings.Contains(said, fmt.Sprintf(`arrow=> text="%s"`, says)) {
						t.Errorf("it did not say %s", says)
					}
				})
			}
			g.Stop()
			g.checkClean()
			for _, secret := range []string{proxyPassword, ftpPassword} {
				if strings.Contains(g.log(), secret) {
					t.Errorf("%q is in the log", secret)
				}
			}
		})
	}
}

// TestNetFTPTrust: the settings that TestExplicitClients gives Net::FTP make it refuse a proxy that somebody else's authority vouches for,
// and one with a name that is neither the proxy's nor the server's. So someone who takes the proxy's place learns no password.
func TestNetFTPTrust(t *testing.T) {
	need(t, "perl")
	l := newLab(t)
	own, other := l.newAuthority("gateway"), l.newAuthority("other")
	g := l.startGateway(fmt.Sprintf("tls: {authority_cert: %s, authority_key: %s}\n", own.CertFile, own.KeyFile) + tunnelProxy)
	script, err := filepath.Abs("testdata/firewall.pl")
	if err != nil {
		t.Fatal(err)
	}
	proxy, server := proxyAt(v4), serverAddress[v4].Addr().String()
	for _, begins := range []string{"starttls", "implicit"} {
		for _, c := range []struct {
			what, ca, name string
			trusts         bool
		}{
			{"proxy", own.CertFile, proxy.Addr().String(), true},
			{"server", own.CertFile, server, true}, // which it says by SNI
			{"authority", other.CertFile, server, false},
			{"name", own.CertFile, "elsewhere.test", false},
		} {
			t.Run(begins+"/"+c.what, func(t *testing.T) {
				ctx, cancel := context.WithTimeout(t.Context(), time.Minute/2)
				defer cancel()
				from := len(g.log())
				// There is no server: whoever trusts the proxy gets as far as to a failing login.
				said, err := l.Client.Command(ctx, "perl", script, proxy.String(), "1", server, ftpUser, ftpPassword, "there.txt",
					filepath.Join(t.TempDir(), "here.txt"), begins, c.ca, c.name).CombinedOutput()
				if err == nil {
					t.Error("it got a file from no server")
				}
				trusted := strings.Contains(string(said), "login: ")
				if trusted != c.trusts || trusted != strings.Contains(g.log()[from:], `arrow=> text="USER `) ||
					!trusted && !strings.Contains(string(said), "verif") {
					t.Errorf("trusted: %v", trusted)
					keep(t, "client.log", said)
				}
			})
		}
	}
	g.Stop()
	g.checkClean()
}

// accounts is the configuration of one account of the proxy's, if it asks for any.
func (l *lab) accounts(asked bool) string {
	if !asked {
		return ""
	}
	hash, err := bcrypt.GenerateFromPassword([]byte(proxyPassword), bcrypt.MinCost)
	file := filepath.Join(l.Dir, "accounts")
	if err == nil {
		err = os.WriteFile(file, fmt.Appendf(nil, "%s:%s\n", proxyUser, hash), 0o600)
	}
	if err != nil {
		l.t.Fatal(err)
	}
	// Failures are forgotten at once: waiting is not what is tested here.
	return fmt.Sprintf("accounts: {file: %s, window: 1ms}\n", file)
}

// transferAfter is the first line of a transfer in what the log has from some byte on, or nothing, if there is none in time.
func (g *gateway) transferAfter(from int) string {
	for deadline := time.Now().Add(5 * time.Second); time.Now().Before(deadline); time.Sleep(5 * time.Millisecond) {
		for line := range strings.Lines(g.log()[from:]) {
			if strings.Contains(line, "msg=transfer ") {
				return line
			}
		}
	}
	return ""
}
