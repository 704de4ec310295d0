//go:build linux

package integration

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"
)

// fileZillaProxy is the proxy's name: of certificates for addresses FileZilla always asks whether they are trusted.
var fileZillaProxy = hostName("proxy")

// fileZillaVia are FileZilla's settings for proxies.
var fileZillaVia = []struct {
	name     string
	settings string // what is in its settings file besides
	login    string // the listener's, if not the default
	says     string // what shows that it is this way
}{
	{"USER@HOST", fileZillaFTP(1), "", "USER paul"},
	{"SITE", fileZillaFTP(2), "", "SITE HOST"},
	{"OPEN", fileZillaFTP(3), "", "OPEN ***"},
	{"custom", fileZillaFTP(4) + `<Setting name="FTP Proxy login sequence">USER %u@%h %s&#xA;PASS %p&#xA;ACCT %w</Setting>`, "", "USER ftpuser@HOST paul"},
	{"SOCKS5", fileZillaGeneric(2), "", "PASS ***"},
	{"HTTP", fileZillaGeneric(1), "", "PASS ***"},
}

func fileZillaFTP(kind int) string {
	return fmt.Sprintf(`<Setting name="FTP Proxy type">%d</Setting><Setting name="FTP Proxy host">%s:%d</Setting>`+
		`<Setting name="FTP Proxy user">%s</Setting><Setting name="FTP Proxy password">%s</Setting>`, kind, fileZillaProxy, proxyAt(v4).Port(), proxyUser, proxyPassword)
}

func fileZillaGeneric(kind int) string {
	return fmt.Sprintf(`<Setting name="Proxy type">%d</Setting><Setting name="Proxy host">%s</Setting><Setting name="Proxy port">%d</Setting>`+
		`<Setting name="Proxy user">%s</Setting><Setting name="Proxy password">%s</Setting>`, kind, fileZillaProxy, proxyAt(v4).Port(), proxyUser, proxyPassword)
}

// startScreen starts a screen that nobody sees, in the client's namespace, and returns its name.
func (l *lab) startScreen() (display string) {
	l.t.Helper()
	// It chooses a number that is free, and writes it to its log.
	screen := l.Client.Start("screen", l.Client.Command(context.Background(), "Xvfb", "-displayfd", "1", "-nolisten", "tcp"))
	number := regexp.MustCompile(`(?m)^\d+$`)
	screen.until("there is a screen", func() bool {
		display = ":" + number.FindString(string(readAll(screen.Log)))
		return display != ":"
	})
	return display
}

// TestFileZilla: FileZilla, on a screen that nobody sees, lists a directory through the proxy, by each of its settings, plain and
// over TLS on both sides, where it trusts the authority because the system does, and so asks nobody.
func TestFileZilla(t *testing.T) {
	need(t, "filezilla", "Xvfb")
	for _, scheme := range []string{"ftp", "ftpes", "ftps"} {
		t.Run(scheme, func(t *testing.T) {
			secured := scheme != "ftp"
			l := newLab(t)
			var root *authority
			if secured {
				root = l.newAuthority("server-root")
			}
			s := startServer(t, l, root)
			name := hostName(s.Name)
			for _, n := range []*namespace{l.Client, l.Firewall} {
				n.overlay("hosts", fmt.Sprintf("127.0.0.1 localhost\n%s %s\n%s %s\n", s.Addr[v4], name, proxyAt(v4).Addr(), fileZillaProxy))
			}
			configuration, insecure := tunnelProxy, fmt.Sprintf(`<InsecureHosts><Host Port="21">%s</Host></InsecureHosts>`, name)
			if secured {
				own := l.newAuthority("gateway")
				// Where `ftpalg ca show` says to put it.
				l.Client.overlay("ssl/certs/ca-certificates.crt", string(readAll(own.CertFile)))
				configuration += fmt.Sprintf("tls: {authority_cert: %s, authority_key: %s, server_roots: %s}\n", own.CertFile, own.KeyFile, root.CertFile)
				insecure = ""
			}
			g := l.startGateway(configuration + l.accounts(true))
			display := l.startScreen()
			for _, via := range fileZillaVia {
				t.Run(via.name, func(t *testing.T) {
					// Of the lab, which ends all of its processes first: one that outlives FileZilla may still write here.
					home := filepath.Join(l.Dir, "home-"+via.name)
					dir := filepath.Join(home, ".config", "filezilla")
					if err := os.MkdirAll(dir, 0o700); err != nil {
						t.Fatal(err)
					}
					for name, text := range map[string]string{
						"filezilla.xml": `<Settings><Setting name="Greeting version">9.0.0</Setting><Setting name="Greeting resources"></Setting>` +
							`<Setting name="Disable update check">1</Setting><Setting name="Update Check">0</Setting><Setting name="Trust system trust store">1</Setting>` + via.settings + `</Settings>`,
						"trustedcerts.xml": insecure,
					} {
						text = `<?xml version="1.0" encoding="UTF-8"?><FileZilla3 version="3.63.0" platform="*nix">` + text + `</FileZilla3>`
						if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o600); err != nil {
							t.Fatal(err)
						}
					}
					from := len(g.log())
					ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
					defer cancel()
					command := l.Client.Command(ctx, "filezilla", fmt.Sprintf("%s://%s:%s@%s", scheme, ftpUser, ftpPassword, name))
					command.Env = append(command.Env, "HOME="+home, "XDG_CONFIG_HOME="+filepath.Join(home, ".config"), "DISPLAY="+display)
					zilla := l.Client.Start("filezilla-"+strings.ReplaceAll(via.name, "@", ""), command)
					defer zilla.Stop()
					var line string
					g.until("FileZilla lists a directory", func() bool {
						line = g.transferAfter(from)
						return line != ""
					})
					if !strings.Contains(line, "outcome=whole") || !strings.Contains(line, "account="+proxyUser) ||
						secured != strings.Contains(line, "client_tls") || secured != strings.Contains(line, "server_tls") {
						t.Errorf("it went by %s", line)
					}
					if said := g.log()[from:]; !strings.Contains(said, fmt.Sprintf(`arrow=> text="%s"`, strings.ReplaceAll(via.says, "HOST", name))) {
						t.Errorf("it did not say %s", via.says)
					}
				})
			}
			g.Stop()
			g.checkClean()
		})
	}
}
