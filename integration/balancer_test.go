//go:build linux

package integration

import (
	"context"
	"fmt"
	"io"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// startBalancer starts HAProxy on the firewall: it relays what clients bring to an address, with options.
func (l *lab) startBalancer(t *testing.T, name string, from netip.AddrPort, to string) {
	t.Helper()
	program := needUnpacked(t, "usr/sbin/haproxy")
	config := filepath.Join(l.Dir, name+".cfg")
	text := fmt.Sprintf("defaults\n\tmode tcp\n\ttimeout connect 10s\n\ttimeout client 1m\n\ttimeout server 1m\nlisten %s\n\tbind %s\n\tserver one %s\n", name, from, to)
	if err := os.WriteFile(config, []byte(text), 0o644); err != nil {
		t.Fatal(err)
	}
	l.Firewall.Start(name, l.Firewall.Command(context.Background(), program, "-db", "-f", config))
	for deadline := time.Now().Add(hang); ; time.Sleep(10 * time.Millisecond) { // until it listens
		c, err := l.Client.Dial(t.Context(), from)
		if err == nil {
			c.Close()
			return
		}
		if time.Now().After(deadline) {
			t.Fatalf("HAProxy does not listen: %v", err)
		}
	}
}

// TestBalancer: HAProxy before the gateway says whose connection it brings. Data connections come to the gateway themselves.
func TestBalancer(t *testing.T) {
	need(t, "curl")
	l := newLab(t)
	s := startServer(t, l, nil)
	g := l.startGateway(fmt.Sprintf("listeners: [{mode: gateway, address: '127.0.0.1:2122', server: '%v', proxy_protocol: {trusted: 127.0.0.1}}]\n"+
		"log: {level: debug}\n", s.AddrPort(v4)))
	for i, version := range []string{"send-proxy", "send-proxy-v2"} {
		at := netip.AddrPortFrom(clientGateway[v4].Addr(), uint16(2131+i))
		l.startBalancer(t, version, at, "127.0.0.1:2122 "+version)
		for verb, options := range map[string][]string{
			"EPSV": nil, "PASV": {"--disable-epsv", "--no-ftp-skip-pasv-ip", "-m", "10"}, "EPRT": {"-P", "-"}, "PORT": {"-P", "-", "--disable-eprt"},
		} {
			t.Run(version+"-"+verb, func(t *testing.T) {
				name := version + "-" + verb
				said, err := l.curl(t, fmt.Sprintf("ftp://%s:%s@%s/", ftpUser, ftpPassword, at), name, options...)
				if err != nil {
					t.Fatalf("%v\n%s", err, said)
				}
				g.await("msg=transfer", "client=192.0.2.2:", "path="+name, "verb=RETR", "outcome=whole")
			})
		}
	}
}

// TestBalancerTunnel: tunnels work by way of a load balancer, data connections too.
func TestBalancerTunnel(t *testing.T) {
	need(t, "curl")
	l := newLab(t)
	s := startServer(t, l, nil)
	g := l.startGateway("listeners: [{mode: explicit, address: '127.0.0.1:2122', proxy_protocol: {trusted: 127.0.0.1}}]\nlog: {level: debug}\n")
	at := netip.AddrPortFrom(clientGateway[v4].Addr(), 2131)
	l.startBalancer(t, "front", at, "127.0.0.1:2122 send-proxy-v2")
	for name, options := range map[string][]string{
		"socks": {"--socks5", at.String()}, "tunnel": {"-x", "http://" + at.String(), "--proxytunnel"}, "requests": {"-f", "-x", "http://" + at.String()},
	} {
		t.Run(name, func(t *testing.T) {
			said, err := l.curl(t, fmt.Sprintf("ftp://%s:%s@%s/", ftpUser, ftpPassword, s.AddrPort(v4)), name, options...)
			if err != nil {
				t.Fatalf("%v\n%s", err, said)
			}
			g.await("msg=transfer", "client=192.0.2.2:", "path="+name, "verb=RETR", "outcome=whole")
		})
	}
}

// TestAnnounced: a server that expects it hears first who its client is.
func TestAnnounced(t *testing.T) {
	l := newLab(t)
	l.startGateway("listeners: [{mode: gateway, address: '[::]:2121', server: '198.51.100.2:21', proxy_protocol: {send: v1}}]\n")
	p := newPuppet(t, l, port(serverAddress, v4, 21))
	k := l.Client.call(t, proxyAt(v4))
	s := p.accept("")
	from := k.LocalAddr().(*net.TCPAddr)
	s.expect(fmt.Sprintf("PROXY TCP4 192.0.2.2 198.51.100.2 %d 21", from.Port), "220 puppet")
	k.hear("220")
}

// TestAttackBalancer: who is not trusted cannot say that it is another, and who is trusted must say it.
func TestAttackBalancer(t *testing.T) {
	l := newLab(t)
	g := l.startGateway(`
listeners:
  - {mode: gateway, address: '[::]:2121', server: '198.51.100.2:21', proxy_protocol: {trusted: 192.0.2.3}}
log: {level: debug}
`)
	trusted := netip.MustParseAddr("192.0.2.3")
	l.Client.AddAddress("eth0", netip.PrefixFrom(trusted, 24))
	p := newPuppet(t, l, port(serverAddress, v4, 21))
	const header = "PROXY TCP4 10.9.8.7 192.0.2.1 40000 21\r\n"

	liar := l.Client.call(t, proxyAt(v4))
	s := p.accept("220 puppet")
	liar.hear("220")
	liar.send(header) // to the gateway a command like any other that it does not know
	s.expect(strings.TrimSpace(header), "500 what")
	liar.hear("500")
	if line := g.logged("client=10.9.8.7"); line != "" {
		t.Errorf("a stranger was believed: %s", line)
	}
	s.Close()

	k := newTalk(t, l.Client.callFrom(t, netip.AddrPortFrom(trusted, 0), proxyAt(v4)))
	k.send(header)
	s = p.admit(k, "alice")
	g.await("msg=\"session started\"", "client=10.9.8.7:40000")
	k.ask("PORT 192,0,2,3,21,179", "501") // the load balancer is not the client
	s.Close()

	mute := l.Client.callFrom(t, netip.AddrPortFrom(trusted, 0), proxyAt(v4))
	io.WriteString(mute, "USER alice\r\n")
	if b, _ := io.ReadAll(mute); len(b) > 0 {
		t.Errorf("a trusted sender without a header heard %q", b)
	}
	g.await("refused a connection from a trusted load balancer")
	if n := strings.Count(g.log(), "session started"); n != 2 {
		t.Errorf("%d sessions", n)
	}
}
