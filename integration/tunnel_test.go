//go:build linux

package integration

import (
	"bytes"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"
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
		args := append([]string{"-sS", "-v", "-m", "20"}, options...)
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

// everyServer has curl go to every server in both families by all ways, which are options of curl's by name, and awaits in the log that
// each direction of a transfer came whole, and what more is said of it.
func everyServer(t *testing.T, ways func(f family) map[string][]string, more ...string) {
	need(t, "curl")
	l := newLab(t)
	servers := startServers(t, l)
	g := l.startGateway(tunnelProxy)
	for _, s := range servers {
		for _, f := range families {
			for way, options := range ways(f) {
				name := fmt.Sprintf("%s-%v-%s", s.Name, f, way)
				t.Run(name, func(t *testing.T) {
					if s.missing != "" {
						lack(t, s.missing)
					}
					url := fmt.Sprintf("ftp://%s:%s@%s/", ftpUser, ftpPassword, s.AddrPort(f))
					if said, err := l.curl(t, url, name, options...); err != nil {
						t.Fatalf("%v\n%s", err, said)
					}
					for _, verb := range []string{"RETR", "STOR"} {
						g.await(append([]string{"msg=transfer", "path=" + name, "verb=" + verb, "outcome=whole"}, more...)...)
					}
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

// TestSOCKS: curl reaches every server by SOCKS, with nothing but the proxy's port to connect to.
func TestSOCKS(t *testing.T) {
	everyServer(t, func(f family) map[string][]string {
		ways := map[string][]string{}
		for _, way := range []string{"socks5", "socks5-hostname"} {
			ways[way+"-EPSV"] = []string{"--" + way, proxyAt(f).String()}
			if f == v4 {
				ways[way+"-PASV"] = append(slices.Clone(ways[way+"-EPSV"]), "--disable-epsv", "--no-ftp-skip-pasv-ip")
			}
		}
		return ways
	}, "carried=splice")
}

// TestHTTP: curl reaches every server by HTTP, by requests for ftp URLs and through tunnels, with nothing but the proxy's port to
// connect to.
func TestHTTP(t *testing.T) {
	everyServer(t, func(f family) map[string][]string {
		proxy := "http://" + proxyAt(f).String()
		return map[string][]string{"requests": {"-f", "-x", proxy}, "tunnel": {"--proxytunnel", "-x", proxy}}
	})
}

// TestTunnelTLS: FTPS within a tunnel is inspected, and the client sees a certificate like the server's that it asked for.
func TestTunnelTLS(t *testing.T) {
	need(t, "curl")
	l := newLab(t)
	root, own := l.newAuthority("server-root"), l.newAuthority("ftpalg-root")
	servers := startTLSServers(t, l, root)
	g := l.startGateway(fmt.Sprintf("tls: {authority_cert: %s, authority_key: %s, server_roots: %s}\n", own.CertFile, own.KeyFile, root.CertFile) + tunnelProxy)
	for _, s := range servers {
		for _, f := range families {
			for scheme, at := range map[string]netip.AddrPort{"ftp": s.AddrPort(f), "ftps": netip.AddrPortFrom(s.Addr[f], 990)} {
				if scheme == "ftps" && !serverKinds[s.kind()].implicit {
					continue
				}
				name := fmt.Sprintf("%s-%v-%s", s.Name, f, scheme)
				t.Run(name, func(t *testing.T) {
					if s.missing != "" {
						lack(t, s.missing)
					}
					said, err := l.curl(t, fmt.Sprintf("%s://%s:%s@%s/", scheme, ftpUser, ftpPassword, at), name,
						"--socks5-hostname", proxyAt(f).String(), "--ssl-reqd", "--cacert", own.CertFile, "--tls-max", "1.2")
					if err != nil {
						t.Fatalf("%v\n%s", err, said)
					}
					g.await("msg=transfer", "path="+name, "verb=RETR", "outcome=whole", "client_tls.version=", "server_tls.version=")
				})
			}
		}
	}
}

// socks asks a SOCKS proxy for a connection, and returns it with the code of the answer.
func (n *namespace) socks(t *testing.T, from netip.Addr, proxy, to netip.AddrPort) (k *talk, code byte) {
	t.Helper()
	k = newTalk(t, n.callFrom(t, netip.AddrPortFrom(from, 0), proxy))
	address := to.Addr().AsSlice()
	kind := byte(1)
	if to.Addr().Is6() {
		kind = 4
	}
	k.send("\x05\x01\x00")
	var answer [12]byte
	k.send(string(append(append([]byte{5, 1, 0, kind}, address...), byte(to.Port()>>8), byte(to.Port()))))
	if _, err := io.ReadFull(k.r, answer[:]); err != nil {
		t.Fatalf("SOCKS: %v", err)
	}
	if answer[0] != 5 || answer[1] != 0 || answer[2] != 5 {
		t.Fatalf("SOCKS answered % x", answer)
	}
	return k, answer[3]
}

// TestAttackTunnel: CONNECT is no way to anything but FTP servers, and to what the client's own sessions were told of.
func TestAttackTunnel(t *testing.T) {
	l := newLab(t)
	g := l.startGateway(`
listeners: [{mode: explicit, address: '[::]:2121'}]
destinations: [{deny: 198.51.100.9}, {allow: 198.51.100.2, ports: 2100}]
timeouts: {login: 1s}
log: {level: debug}
`)
	const denied, allowed = 0x02, 0x00
	client, thief := clientAddress[v4].Addr(), netip.MustParseAddr("192.0.2.3")
	l.Client.AddAddress("eth0", netip.PrefixFrom(thief, 24))
	l.Server.AddAddress("eth0", netip.MustParsePrefix("198.51.100.9/24"))
	var traps []*trap
	for _, at := range []string{"198.51.100.2:22", "198.51.100.2:80", "198.51.100.2:443", "198.51.100.2:5432", "198.51.100.9:21", "198.51.100.9:2100"} {
		tr := l.Server.trap(t, netip.MustParseAddrPort(at))
		traps = append(traps, tr)
		if _, code := l.Client.socks(t, client, proxyAt(v4), netip.MustParseAddrPort(at)); code != denied {
			t.Errorf("%s: %#x", at, code)
		}
	}
	for _, at := range []string{"127.0.0.1:2121", "192.0.2.1:2121", "127.0.0.1:21"} { // the proxy, and what is behind it
		if _, code := l.Client.socks(t, client, proxyAt(v4), netip.MustParseAddrPort(at)); code != denied {
			t.Errorf("%s: %#x", at, code)
		}
	}

	p := newPuppet(t, l, port(serverAddress, v4, 2100)) // a rule names the port
	k, code := l.Client.socks(t, client, proxyAt(v4), p.at)
	if code != allowed {
		t.Fatalf("%v: %#x", p.at, code)
	}
	s := p.accept("220 puppet")
	k.hear("220")
	k.say("USER alice")
	s.expect("USER alice", "230 in")
	k.hear("230")
	data := l.Server.listen(t, port(serverAddress, v4, 0))
	k.say("EPSV")
	s.expect("EPSV", fmt.Sprintf("229 Entering (|||%d|)", data.Addr().(*net.TCPAddr).Port))
	told, err := strconv.ParseUint(strings.Split(k.hear("229"), "|")[3], 10, 16)
	if err != nil {
		t.Fatal(err)
	}
	at := netip.AddrPortFrom(p.at.Addr(), uint16(told))
	if _, code := l.Client.socks(t, thief, proxyAt(v4), at); code != denied {
		t.Errorf("another client was let to %v: %#x", at, code)
	}
	if _, code := l.Client.socks(t, client, proxyAt(v4), netip.AddrPortFrom(netip.MustParseAddr("198.51.100.9"), at.Port())); code != denied {
		t.Errorf("another server's port was let through: %#x", code)
	}
	leg, code := l.Client.socks(t, client, proxyAt(v4), at)
	if code != allowed {
		t.Fatalf("%v: %#x", at, code)
	}
	k.say("RETR file")
	s.expect("RETR file", "150 here")
	k.hear("150")
	far, err := data.Accept()
	if err != nil {
		t.Fatal(err)
	}
	io.WriteString(far, "content")
	far.Close()
	s.say("226 done")
	if b, err := io.ReadAll(leg.r); err != nil || string(b) != "content" {
		t.Errorf("the client got %q, %v", b, err)
	}
	leg.Close()
	k.hear("226")
	if _, code := l.Client.socks(t, client, proxyAt(v4), at); code != denied {
		t.Errorf("the port lives on: %#x", code)
	}

	// Half a request is not waited for.
	slow := l.Client.call(t, proxyAt(v4))
	slow.send("\x05")
	begun := time.Now()
	if b, err := io.ReadAll(slow); len(b) > 0 && b[0] != 5 {
		t.Errorf("half a request was answered with % x, %v", b, err)
	}
	if took := time.Since(begun); took > 10*time.Second {
		t.Errorf("half a request was awaited for %v", took)
	}
	for _, tr := range traps {
		tr.check(t)
	}
	g.Stop()
	g.checkClean()
}

// TestWebAccounts: where the proxy has accounts, requests and tunnels need one, and a tunnel's data connections the same; HTTP says
// 407 to who says none or a wrong one.
func TestWebAccounts(t *testing.T) {
	need(t, "curl")
	l := newLab(t)
	s := startServer(t, l, nil)
	g := l.startGateway(l.accounts(true) + tunnelProxy)
	url := fmt.Sprintf("ftp://%s:%s@%s/", ftpUser, ftpPassword, s.AddrPort(v4))
	at := proxyAt(v4).String()
	for name, options := range map[string][]string{
		"socks": {"--socks5", at}, "requests": {"-f", "-x", "http://" + at}, "tunnel": {"-f", "-x", "http://" + at, "--proxytunnel"},
	} {
		t.Run(name, func(t *testing.T) {
			if said, err := l.curl(t, url, name, append(options, "--proxy-user", proxyUser+":"+proxyPassword)...); err != nil {
				t.Fatalf("%v\n%s", err, said)
			}
			g.await("msg=transfer", "account="+proxyUser, "path="+name, "verb=RETR", "outcome=whole")
			sessions := strings.Count(g.log(), "session started")
			for _, wrong := range [][]string{nil, {"--proxy-user", proxyUser + ":wrong"}, {"--proxy-user", "nobody:" + proxyPassword}} {
				said, err := l.curl(t, url, "nobody", append(wrong, options...)...)
				if err == nil || name != "socks" && !strings.Contains(said, "407") {
					t.Errorf("%v: %v\n%s", wrong, err, said)
				}
			}
			if n := strings.Count(g.log(), "session started"); n != sessions {
				t.Errorf("%d sessions began without an account", n-sessions)
			}
		})
	}
	g.Stop()
	g.checkClean()
	if strings.Contains(g.log(), proxyPassword) {
		t.Error("the password is in the log")
	}
}
