//go:build linux

package integration

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

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
	return fmt.Sprintf(`<Setting name="FTP Proxy type">%d</Setting><Setting name="FTP Proxy host">%s</Setting>`+
		`<Setting name="FTP Proxy user">%s</Setting><Setting name="FTP Proxy password">%s</Setting>`, kind, proxyAt(v4), proxyUser, proxyPassword)
}

func fileZillaGeneric(kind int) string {
	return fmt.Sprintf(`<Setting name="Proxy type">%d</Setting><Setting name="Proxy host">%s</Setting><Setting name="Proxy port">%d</Setting>`+
		`<Setting name="Proxy user">%s</Setting><Setting name="Proxy password">%s</Setting>`, kind, proxyAt(v4).Addr(), proxyAt(v4).Port(), proxyUser, proxyPassword)
}

// TestFileZilla: FileZilla, on a screen that nobody sees, lists a directory through the proxy, by each of its settings.
func TestFileZilla(t *testing.T) {
	need(t, "filezilla", "xvfb-run")
	l := newLab(t)
	s := startServer(t, l, nil)
	g := l.startGateway(l.accounts(true) + tunnelProxy)
	for _, via := range fileZillaVia {
		t.Run(via.name, func(t *testing.T) {
			home := t.TempDir()
			dir := filepath.Join(home, ".config", "filezilla")
			if err := os.MkdirAll(dir, 0o700); err != nil {
				t.Fatal(err)
			}
			for name, text := range map[string]string{
				"filezilla.xml": `<Settings><Setting name="Greeting version">9.0.0</Setting><Setting name="Greeting resources"></Setting>` +
					`<Setting name="Disable update check">1</Setting><Setting name="Update Check">0</Setting>` + via.settings + `</Settings>`,
				// It asks before it speaks FTP without TLS.
				"trustedcerts.xml": fmt.Sprintf(`<InsecureHosts><Host Port="21">%s</Host></InsecureHosts>`, s.Addr[v4]),
			} {
				text = `<?xml version="1.0" encoding="UTF-8"?><FileZilla3 version="3.63.0" platform="*nix">` + text + `</FileZilla3>`
				if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o600); err != nil {
					t.Fatal(err)
				}
			}
			from := len(g.log())
			ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
			defer cancel()
			command := l.Client.Command(ctx, "xvfb-run", "-a", "filezilla", fmt.Sprintf("ftp://%s:%s@%s", ftpUser, ftpPassword, s.Addr[v4]))
			command.Env = append(command.Env, "HOME="+home, "XDG_CONFIG_HOME="+filepath.Join(home, ".config"))
			zilla := l.Client.Start("filezilla-"+strings.ReplaceAll(via.name, "@", ""), command)
			defer zilla.Stop()
			var line string
			g.until("FileZilla lists a directory", func() bool {
				line = g.transferAfter(from)
				return line != ""
			})
			if !strings.Contains(line, "outcome=whole") || !strings.Contains(line, "account="+proxyUser) {
				t.Errorf("it went by %s", line)
			}
			if said := g.log()[from:]; !strings.Contains(said, fmt.Sprintf(`arrow=> text="%s"`, strings.ReplaceAll(via.says, "HOST", s.Addr[v4].String()))) {
				t.Errorf("it did not say %s", via.says)
			}
		})
	}
	g.Stop()
	g.checkClean()
}
