//go:build linux

package main

import (
	"errors"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
)

// relayPeers are proxies that know TLS, and nothing of FTP.
var relayPeers = []subject{
	{Name: "haproxy", About: "HAProxy, TLS to TLS, without FTP", Start: startHAProxy},
	{Name: "stunnel", About: "stunnel, TLS to plain to TLS, without FTP", Start: startStunnel},
}

// noFTP is what a relay cannot do.
var noFTP = func() map[string]string {
	cannot := map[string]string{}
	for _, measures := range []string{"plain-*", "tls-active-*", "tls-sessions-*", "tls-small", "tls-noop", "tls-presence"} {
		cannot[measures] = "it knows no FTP, only streams of bytes"
	}
	return cannot
}()

// startHAProxy starts HAProxy as a relay that ends TLS on both sides, with a thread for each processor as it comes. Of the sizes of
// its buffers, 16 (the default), 32, 64, 128 and 256 KiB, 128 took the least processor time, about a twentieth less than 16.
func startHAProxy(f *firewall) (*way, error) {
	p, err := newPeer(f, "haproxy")
	if err != nil {
		return nil, err
	}
	both, err := p.certificateAndKey()
	if err != nil {
		return nil, err
	}
	relay := netip.AddrPortFrom(p.ClientSide, relayPort)
	config, err := p.File("haproxy.cfg", fmt.Sprintf(`
global
	maxconn 4096
	tune.bufsize 131072
	ssl-default-bind-options ssl-min-ver TLSv1.3
	ssl-default-server-options ssl-min-ver TLSv1.3
defaults
	mode tcp
	timeout connect 1m
	timeout client 1m
	timeout server 1m
listen bench
	bind %s ssl crt %s
	server origin %s ssl verify required ca-file %s verifyhost %s sni str(%[5]s)
`, relay, both, p.Relay, p.Authority, serverName))
	if err != nil {
		return nil, err
	}
	started, err := p.Start("haproxy", p.Command(p.file("usr/sbin/haproxy"), "-db", "-f", config))
	if err != nil {
		return nil, err
	}
	return &way{Version: p.version(), Relay: relay, Processes: []*process{started}, Cannot: noFTP}, p.AwaitPort(started, relay)
}

// startStunnel starts one stunnel that is a server to the client and a client to the server, with a plain connection to
// itself in between: it knows no TLS to TLS. The size of its buffers is compiled in.
func startStunnel(f *firewall) (*way, error) {
	p, err := newPeer(f, "stunnel4")
	if err != nil {
		return nil, err
	}
	relay := netip.AddrPortFrom(p.ClientSide, relayPort)
	between := netip.AddrPortFrom(netip.AddrFrom4([4]byte{127, 0, 0, 1}), relayPort)
	config, err := p.File("stunnel.conf", fmt.Sprintf(`
foreground = yes
pid =
syslog = no
debug = err
sslVersion = TLSv1.3
socket = l:TCP_NODELAY=1
socket = r:TCP_NODELAY=1
[in]
accept = %s
connect = %s
cert = %s
key = %s
[out]
client = yes
accept = %[2]s
connect = %[5]s
CAfile = %[6]s
verifyChain = yes
checkHost = %[7]s
sni = %[7]s
`, relay, between, p.Cert, p.Key, p.Relay, p.Authority, serverName))
	if err != nil {
		return nil, err
	}
	started, err := p.Start("stunnel", p.Command(p.file("usr/bin/stunnel4"), config))
	if err != nil {
		return nil, err
	}
	return &way{Version: p.version(), Relay: relay, Processes: []*process{started}, Cannot: noFTP},
		errors.Join(p.AwaitPort(started, between), p.AwaitPort(started, relay))
}

// certificateAndKey is a file with both of the server's, as some want it.
func (p *peer) certificateAndKey() (string, error) {
	certificate, err := os.ReadFile(p.Cert)
	if err != nil {
		return "", err
	}
	key, err := os.ReadFile(p.Key)
	if err != nil {
		return "", err
	}
	path := filepath.Join(p.Dir, "both.pem")
	return path, os.WriteFile(path, append(certificate, key...), 0o600)
}
