//go:build linux

package integration

import (
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"io"
	"net"
	"net/netip"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"
)

const attackGarbageConfig = `
listeners: [{mode: tproxy}]
destinations:
  - {allow: 198.51.100.3, tls: {missing_close_notify: whole}}
timeouts: {tls_handshake: 1s, data_setup: 1s}
`

// Peers that do not speak TLS as they should, or not at all, cost nothing but their own session.
func TestAttackTLSGarbage(t *testing.T) {
	f := newAttackField(t, attackGarbageConfig)
	hello := attackHello(t, f.clientTLS())
	record := func(b []byte) []byte { // of type handshake
		return append([]byte{0x16, 3, 1, byte(len(b) >> 8), byte(len(b))}, b...)
	}
	const failed = `reason="TLS handshake failed"`
	implicitly := func(t *testing.T) *attackSession { t.Helper(); return f.called(t, honestAddress, f.implicit) }
	explicitly := func(t *testing.T) *attackSession { t.Helper(); return f.begun(t, honestAddress, f.explicit) }

	// What a client says where its hello should be: the server hears nothing of it.
	for _, c := range []struct {
		what string
		said []byte
		why  string
	}{
		{"zeros", make([]byte, 100), "first record does not look like a TLS handshake"},
		{"SSH", []byte("SSH-2.0-OpenSSH\r\n"), "first record does not look like a TLS handshake"},
		{"SSL 2", []byte{0x80, 0x2e, 1, 0, 2, 0, 0x15, 0, 0, 0, 0x10}, "unsupported SSLv2 handshake received"},
		{"a record too long", append([]byte{0x16, 3, 1, 0xff, 0xff}, make([]byte, 1000)...), "oversized record"},
		{"a message too long", record([]byte{1, 0xff, 0xff, 0xff, 3, 3}), "exceeds maximum"},
		{"a message too long in many records", bytes.Repeat(record(append([]byte{1, 1, 0, 1}, make([]byte, 1<<14-4)...)), 5),
			"exceeds maximum"},
		{"a message that is none", record([]byte{1, 0, 0, 2, 3, 3}), "error decoding message"},
		{"another message", record([]byte{20, 0, 0, 0}), "unexpected"},
	} {
		for kind, begin := range map[string]func(*testing.T) *attackSession{"implicit": implicitly, "explicit": explicitly} {
			t.Run("client/"+kind+"/"+c.what, func(t *testing.T) {
				s := begin(t)
				s.client.Write(c.said)                                                               // which the gateway may not want to hear to its end
				if said := attackRest(t, s.client); len(said) > 7 || said != "" && said[0] != 0x15 { // an alert
					t.Errorf("the client was told %q", said)
				}
				if said := attackRest(t, s.server); said != "" {
					t.Errorf("the server heard %q", said)
				}
				s.logged("session ended", failed, "client TLS: ", c.why)
			})
		}
	}
	for kind, begin := range map[string]func(*testing.T) *attackSession{"implicit": implicitly, "explicit": explicitly} {
		t.Run("server/"+kind, func(t *testing.T) {
			s := begin(t)
			s.server.Write(make([]byte, 100))
			s.mustFailAtClient()
			s.logged("session ended", failed, "server TLS: ", "first record does not look like a TLS handshake")
		})
	}
	t.Run("server/certificates too large", func(t *testing.T) {
		good := f.serverTLS.Certificates[0]
		chain := tls.Certificate{PrivateKey: good.PrivateKey, Certificate: [][]byte{good.Certificate[0]}}
		for range 300 {
			chain.Certificate = append(chain.Certificate, bytes.Repeat(good.Certificate[0], 3)[:1000])
		}
		full := f.ca.leaf(t, newAttackKey(t), serverAddress[v4].Addr(), func(c *x509.Certificate) {
			for i := range 8000 {
				c.DNSNames = append(c.DNSNames, fmt.Sprintf("n%d.example.com", i))
			}
		})
		for why, cert := range map[string]tls.Certificate{"exceeds maximum": chain, "can be mirrored": full} {
			s := implicitly(t)
			s.serverTLS = &tls.Config{Certificates: []tls.Certificate{cert}}
			go s.server.shake(tls.Server(s.server.Conn, s.serverTLS))
			s.mustFailAtClient()
			s.logged("session ended", failed, why)
		}
	})
	t.Run("old versions", func(t *testing.T) {
		s := implicitly(t)
		s.clientTLS.MinVersion, s.clientTLS.MaxVersion = tls.VersionTLS10, tls.VersionTLS11
		go s.server.shake(tls.Server(s.server.Conn, s.serverTLS))
		if err := s.mustFailAtClient(); !strings.Contains(err, "protocol version") {
			t.Errorf("the client was told %s", err)
		}
		s.logged("session ended", failed, "client TLS: ", "unsupported versions")
		s = implicitly(t)
		s.serverTLS = s.serverTLS.Clone()
		s.serverTLS.MaxVersion = tls.VersionTLS11
		go s.server.shake(tls.Server(s.server.Conn, s.serverTLS))
		s.mustFailAtClient()
		s.logged("session ended", failed, "server TLS: ", "protocol version")
	})
	t.Run("stalled", func(t *testing.T) {
		// All at once, since each takes a second.
		const late = "the handshake took too long"
		var silent []*attackSession
		for said, begin := range map[string]func(*testing.T) *attackSession{
			"": explicitly, string(hello[:len(hello)/2]): explicitly, string(hello[:3]): implicitly,
		} {
			s := begin(t)
			s.client.send(said)
			silent = append(silent, s)
		}
		slow := implicitly(t)
		go func() {
			for _, b := range hello {
				if _, err := slow.client.Write([]byte{b}); err != nil {
					return
				}
				time.Sleep(100 * time.Millisecond) // each byte in its own time: it would take a minute and more
			}
		}()
		deaf := explicitly(t) // the server is
		go deaf.client.shake(tls.Client(deaf.client.Conn, deaf.clientTLS))
		for _, s := range append(silent, slow) {
			attackRest(t, s.client)
			if said := attackRest(t, s.server); said != "" {
				t.Errorf("the server heard %q", said)
			}
			s.logged("session ended", failed, "client TLS: "+late)
		}
		if said := attackRest(t, deaf.server); !strings.HasPrefix(said, "\x16\x03\x01") {
			t.Errorf("the server heard %.20q instead of a hello", said)
		}
		deaf.logged("session ended", failed, "server TLS: "+late)
	})
	t.Run("given up", func(t *testing.T) {
		s := explicitly(t)
		s.client.Close()
		if said := attackRest(t, s.server); said != "" {
			t.Errorf("the server heard %q", said)
		}
		s.logged("session ended", failed, "client TLS: the connection was closed during the handshake")
		s = explicitly(t)
		s.server.Close()
		s.mustFailAtClient()
		s.logged("session ended", failed, "server TLS: the connection was closed during the handshake")
	})
	t.Run("without close_notify", func(t *testing.T) {
		s := f.secured(t)
		s.login()
		s.client.Conn.(*tls.Conn).NetConn().Close()
		if said := attackRest(t, s.server); said != "" {
			t.Errorf("the server heard %q", said)
		}
		s.logged("session ended", `reason="client left"`)
		s = f.secured(t)
		s.login()
		s.server.Conn.(*tls.Conn).NetConn().Close()
		attackRest(t, s.client)
		s.logged("session ended", `reason="server left"`, "close_notify")
	})
	for _, verb := range []string{"RETR", "STOR"} {
		t.Run("data/half closed/client/"+verb, func(t *testing.T) {
			s := f.secured(t)
			s.login()
			x := s.armed()
			s.orders(verb)
			x.client.Write(hello[:100])
			x.client.(*net.TCPConn).CloseWrite()
			attackCut(t, "the server", x.serverTLS, x.serverTLS.Handshake())
			s.server.say("226 I take it as whole")
			s.client.hear("522")
			s.logged("msg=transfer", "outcome=broken", "client data: TLS: ", "unexpected EOF")
		})
		t.Run("data/half closed/server/"+verb, func(t *testing.T) {
			s := f.secured(t)
			s.login()
			x := s.armed()
			s.orders(verb)
			x.server.(*net.TCPConn).CloseWrite()
			attackCut(t, "the client", x.clientTLS, x.clientTLS.Handshake())
			s.server.say("226 I take it as whole")
			s.client.hear("426")
			s.logged("msg=transfer", "outcome=broken", "server data: TLS: ", "closed during the handshake")
		})
	}
	f.Server.AddAddress("eth0", netip.MustParsePrefix("198.51.100.3/24"))
	tolerated, _ := f.puppets(netip.MustParseAddr("198.51.100.3"))
	tolerant := func(t *testing.T) *attackSession {
		t.Helper()
		s := f.begun(t, honestAddress, tolerated)
		s.serverTLS = &tls.Config{Certificates: []tls.Certificate{f.ca.leaf(t, newAttackKey(t), s.at.Addr(), nil)}}
		s.clientTLS.ServerName = s.at.Addr().String()
		s.mustShake()
		return s
	}
	for what, begin := range map[string]func(*testing.T) *attackSession{"strictly": f.secured, "tolerantly": tolerant} {
		t.Run("data/cut/download/"+what, func(t *testing.T) {
			s := begin(t)
			s.login()
			x := s.transfer("RETR")
			io.WriteString(x.serverTLS, "half of it")
			x.server.Close()
			s.server.say("226 done")
			b, err := io.ReadAll(x.clientTLS)
			if what == "tolerantly" {
				if err != nil || string(b) != "half of it" {
					t.Errorf("the client got %q, %v", b, err)
				}
				x.clientTLS.Close()
				s.client.hear("226")
				s.logged("msg=transfer", "outcome=whole")
				return
			}
			if !isReset(err) {
				t.Errorf("the client got %q and saw %v instead of a reset", b, err)
			}
			s.client.hear("426")
			s.logged("msg=transfer", "outcome=broken", "server data: read: ", "close_notify")
		})
		t.Run("data/cut/download in a record/"+what, func(t *testing.T) {
			// Nobody ends a file so.
			s := begin(t)
			s.login()
			x := s.armed()
			c := &attackCutter{Conn: x.server}
			x.serverTLS = tls.Server(c, s.serverTLS)
			s.orders("RETR")
			if client, server := x.shake(); client != nil || server != nil {
				t.Fatal(client, server)
			}
			c.armed = true
			io.WriteString(x.serverTLS, "half of it")
			s.server.say("226 done")
			if b, err := io.ReadAll(x.clientTLS); !isReset(err) {
				t.Errorf("the client got %q and saw %v instead of a reset", b, err)
			}
			s.client.hear("426")
			s.logged("msg=transfer", "outcome=broken", "server data: read: ", "unexpected EOF")
		})
		t.Run("data/cut/upload/"+what, func(t *testing.T) {
			s := begin(t)
			s.login()
			x := s.transfer("STOR")
			io.WriteString(x.clientTLS, "half of it")
			x.client.Close()
			if b, err := io.ReadAll(x.serverTLS); !isReset(err) {
				t.Errorf("the server got %q and saw %v instead of a reset", b, err)
			}
			s.server.say("226 I take it as whole")
			s.client.hear("426")
			s.logged("msg=transfer", "outcome=broken", "client data: read: ", "close_notify")
		})
	}
	t.Run("renegotiation", f.renegotiation)
	f.survived()
	t.Run("killed", f.killed)
}

// attackCutter lets half of what is written go, and then ends the connection.
type attackCutter struct {
	net.Conn
	armed bool
}

func (c *attackCutter) Write(b []byte) (int, error) {
	if !c.armed {
		return c.Conn.Write(b)
	}
	c.Conn.Write(b[:len(b)/2])
	c.Conn.Close()
	return len(b), nil
}

// renegotiation is a peer that begins another handshake inside TLS 1.2 (CVE-2009-3555): whoever it is with then may be another.
func (f *attackField) renegotiation(t *testing.T) {
	need(t, "openssl")
	at := netip.MustParseAddr("198.51.100.4")
	f.Server.AddAddress("eth0", netip.PrefixFrom(at, 24))
	pem, key := filepath.Join(f.Dir, "renegotiator.crt"), filepath.Join(f.Dir, "renegotiator.key")
	attackWrite(t, f.ca.leaf(t, newAttackKey(t), at, nil), pem, key)
	t.Run("server", func(t *testing.T) {
		s := &attackSession{f: f, t: t, clientTLS: f.clientTLS()}
		s.clientTLS.ServerName = at.String()
		into, said := attackProgram(t, f.Server, "s_server", "-accept", at.String()+":990", "-naccept", "1",
			"-cert", pem, "-key", key, "-tls1_2", "-crlf")
		said("ACCEPT")
		s.client = f.Client.call(t, netip.AddrPortFrom(at, 990))
		s.who = s.client.LocalAddr().String()
		if err := s.client.shake(tls.Client(s.client.Conn, s.clientTLS)); err != nil {
			t.Fatal(err)
		}
		io.WriteString(into, "220 openssl\n")
		s.client.hear("220")
		io.WriteString(into, "r\n") // a HelloRequest
		if rest := attackRest(t, s.client); strings.Contains(rest, "220") {
			t.Errorf("the client heard %q", rest)
		}
		s.logged("session ended", `reason="server left"`, "no renegotiation")
	})
	t.Run("client", func(t *testing.T) {
		s := &attackSession{f: f, t: t}
		into, _ := attackProgram(t, f.Client, "s_client", "-connect", f.implicit.at.String(), "-tls1_2", "-crlf",
			"-CAfile", "authority.crt")
		s.server = f.implicit.accept("")
		if err := s.server.shake(tls.Server(s.server.Conn, f.serverTLS)); err != nil {
			t.Fatal(err)
		}
		s.server.say("220 puppet")
		io.WriteString(into, "NOOP\n")
		s.server.expect("NOOP", "200 fine")
		io.WriteString(into, "R\n")
		if said := attackRest(t, s.server); said != "" {
			t.Errorf("the server heard %q", said)
		}
		f.gateway.await("session ended", `reason="client left"`, "unexpected handshake message")
	})
}

// attackProgram starts openssl, which ends with the test. What it is told decides what it does; said waits until it has said
// something itself.
func attackProgram(t *testing.T, n *namespace, args ...string) (into io.Writer, said func(string)) {
	t.Helper()
	command := n.Command(context.Background(), "openssl", args...)
	pipe, err := command.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	d := n.Start("openssl-"+args[0], command)
	t.Cleanup(func() {
		pipe.Close()
		d.Stop()
	})
	return pipe, d.says
}

// killed kills the gateway in the middle of a transfer each way: neither receiver may take what it has for whole.
func (f *attackField) killed(t *testing.T) {
	f.gateway = f.startGatewayAs(f.head+attackGarbageConfig, f.Firewall.Command)
	down, up := f.secured(t), f.secured(t)
	down.login()
	up.login()
	x, y := down.transfer("RETR"), up.transfer("STOR")
	some := make([]byte, 100_000)
	for _, w := range [][2]*tls.Conn{{x.serverTLS, x.clientTLS}, {y.clientTLS, y.serverTLS}} {
		if _, err := w[0].Write(some); err != nil {
			t.Fatal(err)
		}
		if _, err := io.ReadFull(w[1], some); err != nil {
			t.Fatal(err)
		}
	}
	f.gateway.Signal(syscall.SIGKILL)
	<-f.gateway.ended
	mustReset(t, "the client", x.clientTLS)
	mustReset(t, "the server", y.serverTLS)
	for who, k := range map[string]*talk{"client": down.client, "server": up.server} {
		if said := attackRest(t, k); said != "" {
			t.Errorf("the %s heard %q", who, said)
		}
	}
}
