//go:build linux

package integration

import (
	"bytes"
	"fmt"
	"math/rand/v2"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// tunnelProxy is an explicit listener that all of its clients' connections come to.
const tunnelProxy = "listeners: [{mode: explicit, address: '[::]:2121'}]\nlog: {level: debug}\n"

// proxyAt is the explicit listener, as clients of a family reach it.
func proxyAt(f family) netip.AddrPort { return netip.AddrPortFrom(clientGateway[f].Addr(), 2121) }

// curl has curl upload a file to a server and download it again, with some options, and reports what it said.
func (l *lab) curl(t *testing.T, url, name string, options ...string) (said string, err error) {
	t.Helper()
	dir := t.TempDir()
	up, down := filepath.Join(dir, "up"), filepath.Join(dir, "down")
	sent := make([]byte, 1<<20+3)
	rand.NewChaCha8([32]byte{7}).Read(sent)
	if err := os.WriteFile(up, sent, 0o644); err != nil {
		t.Fatal(err)
	}
	for _, transfer := range [][]string{{"-T", up, url + name}, {"-o", down, url + name}, {"--list-only", "-o", down + ".list", url}} {
		args := append([]string{"-sS", "-v", "-m", "60"}, options...)
		out, err := l.Client.Command(t.Context(), "curl", append(args, transfer...)...).CombinedOutput()
		said += string(out)
		if err != nil {
			return said, fmt.Errorf("curl %s: %w", strings.Join(transfer, " "), err)
		}
	}
	got, err := os.ReadFile(down)
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(got, sent) {
		t.Errorf("%s came back as %d bytes of %d", name, len(got), len(sent))
	}
	if list, _ := os.ReadFile(down + ".list"); !strings.Contains(string(list), name) {
		t.Errorf("%s is not in the list: %q", name, list)
	}
	return said, nil
}

// TestSOCKS: curl reaches every server by SOCKS, with nothing but the proxy's port to connect to.
func TestSOCKS(t *testing.T) {
	need(t, "curl")
	l := newLab(t)
	servers := startServers(t, l)
	g := l.startGateway(tunnelProxy)
	for _, s := range servers {
		for _, f := range families {
			for _, way := range []string{"--socks5", "--socks5-hostname"} {
				for _, verb := range []string{"EPSV", "PASV"} {
					if f == v6 && verb == "PASV" {
						continue
					}
					name := strings.Trim(fmt.Sprintf("%s-%v%s-%s", s.Name, f, way, verb), "-")
					t.Run(name, func(t *testing.T) {
						if s.missing != "" {
							lack(t, s.missing)
						}
						options := []string{way, proxyAt(f).String()}
						if verb == "PASV" {
							options = append(options, "--disable-epsv", "--no-ftp-skip-pasv-ip")
						}
						url := fmt.Sprintf("ftp://%s:%s@%s/", ftpUser, ftpPassword, s.AddrPort(f))
						if said, err := l.curl(t, url, name, options...); err != nil {
							t.Fatalf("%v\n%s", err, said)
						}
						g.await("msg=transfer", "path="+name, "verb=RETR", "outcome=whole")
					})
				}
			}
		}
	}
	g.Stop()
	g.checkClean()
	if strings.Contains(g.log(), ftpPassword) {
		t.Error("the password is in the log")
	}
}

// TestHTTP: curl reaches every server by HTTP, by requests for ftp URLs and through tunnels, with nothing but the proxy's port to
// connect to.
func TestHTTP(t *testing.T) {
	need(t, "curl")
	l := newLab(t)
	servers := startServers(t, l)
	g := l.startGateway(tunnelProxy)
	for _, s := range servers {
		for _, f := range families {
			for way, options := range map[string][]string{"requests": {"-f"}, "tunnel": {"--proxytunnel"}} {
				name := fmt.Sprintf("%s-%v-%s", s.Name, f, way)
				t.Run(name, func(t *testing.T) {
					if s.missing != "" {
						lack(t, s.missing)
					}
					url := fmt.Sprintf("ftp://%s:%s@%s/", ftpUser, ftpPassword, s.AddrPort(f))
					if said, err := l.curl(t, url, name, append(options, "-x", "http://"+proxyAt(f).String())...); err != nil {
						t.Fatalf("%v\n%s", err, said)
					}
					g.await("msg=transfer", "path="+name, "verb=RETR", "outcome=whole")
					g.await("msg=transfer", "path="+name, "verb=STOR", "outcome=whole")
				})
			}
		}
	}
	g.Stop()
	g.checkClean()
	if strings.Contains(g.log(), ftpPassword) {
		t.Error("the password is in the log")
	}
}
