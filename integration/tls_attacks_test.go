//go:build linux

package integration

import (
	"bufio"
	"crypto/tls"
	"fmt"
	"io"
	"net"
	"net/netip"
	"strings"
	"testing"
)

// Attacks on sessions that have TLS, or are about to. Each is carried out by way of a real gateway; what each side has seen,
// and what the log says of it, decides.

const attackTLSConfig = "listeners: [{mode: tproxy}]\n"

// Somebody on the way puts plain text where TLS is about to begin, to be taken as said under it (CVE-2011-0411).
func TestAttackTLSInjection(t *testing.T) {
	f := newAttackField(t, attackTLSConfig)
	t.Run("commands/one segment", func(t *testing.T) {
		s := f.greeted(t, honestAddress, f.explicit)
		s.client.send("AUTH TLS\r\nUSER evil\r\n")
		if said := s.client.ended(); !strings.HasPrefix(said, "421 ") || strings.Count(said, "\n") != 1 {
			t.Errorf("the client was told %q", said)
		}
		if said := s.server.ended(); said != "" {
			t.Errorf("the server heard %q", said)
		}
		s.logged("session ended", "command injection")
	})
	t.Run("commands/two segments", func(t *testing.T) {
		s := f.greeted(t, honestAddress, f.explicit)
		s.client.say("AUTH TLS")
		s.server.expect("AUTH TLS", "") // by now the gateway has looked at what came with it
		s.client.say("USER evil")
		s.server.say("234 go ahead")
		s.client.hear("234")
		if said := attackRest(t, s.client); strings.Contains(said, "331") {
			t.Errorf("the client was told %q", said)
		}
		if said := attackRest(t, s.server); said != "" {
			t.Errorf("the server heard %q", said)
		}
		s.logged("session ended", `reason="TLS handshake failed"`, "client TLS", "first record does not look like a TLS handshake")
	})
	t.Run("commands/implicit", func(t *testing.T) {
		s := f.called(t, honestAddress, f.implicit)
		s.client.send("AUTH TLS\r\nUSER evil\r\n")
		if said := attackRest(t, s.client); strings.Contains(said, "234") || strings.Contains(said, "331") {
			t.Errorf("the client was told %q", said)
		}
		if said := attackRest(t, s.server); said != "" {
			t.Errorf("the server heard %q", said)
		}
		s.logged("session ended", `reason="TLS handshake failed"`, "client TLS", "first record does not look like a TLS handshake")
	})
	t.Run("commands/an eager hello is none", func(t *testing.T) {
		s := f.greeted(t, honestAddress, f.explicit)
		served := make(chan error, 1)
		go func() {
			if got := s.server.line(); got != "AUTH TLS" {
				served <- fmt.Errorf("the server heard %q", got)
				return
			}
			s.server.say("234 go ahead")
			served <- s.server.shake(tls.Server(s.server.Conn, s.serverTLS))
		}()
		err := s.client.shake(tls.Client(&attackEager{Conn: s.client.Conn, first: []byte("AUTH TLS\r\n")}, s.clientTLS))
		if err != nil {
			t.Fatal(err)
		}
		if err := <-served; err != nil {
			t.Fatal(err)
		}
		s.login()
	})
	t.Run("replies/one segment", func(t *testing.T) {
		s := f.greeted(t, honestAddress, f.explicit)
		s.client.say("AUTH TLS")
		s.server.expect("AUTH TLS", "")
		s.server.send("234 go ahead\r\n230 in\r\n")
		if said := s.client.ended(); !strings.HasPrefix(said, "421 ") || strings.Count(said, "\n") != 1 {
			t.Errorf("the client was told %q", said)
		}
		s.server.ended()
		s.logged("session ended", "response injection")
	})
	t.Run("replies/two segments", func(t *testing.T) {
		s := f.begun(t, honestAddress, f.explicit)
		s.server.say("230 in") // the gateway's hello has not come yet, since the client's has not
		s.mustFailAtClient()
		s.logged("session ended", `reason="TLS handshake failed"`, "server TLS", "first record does not look like a TLS handshake")
	})
	t.Run("replies/implicit", func(t *testing.T) {
		s := f.called(t, honestAddress, f.implicit)
		s.server.say("220 plain")
		s.mustFailAtClient()
		s.logged("session ended", `reason="TLS handshake failed"`, "server TLS", "first record does not look like a TLS handshake")
	})
	f.survived()
}

// attackEager is a client that does not await 234: its hello comes with AUTH in one segment.
type attackEager struct {
	net.Conn
	first  []byte // what goes before the hello
	answer *bufio.Reader
}

func (e *attackEager) Write(b []byte) (int, error) {
	n := len(e.first)
	w, err := e.Conn.Write(append(e.first, b...))
	e.first = nil
	return max(w-n, 0), err
}

func (e *attackEager) Read(b []byte) (int, error) {
	if e.answer == nil {
		e.answer = bufio.NewReader(e.Conn)
		if l, err := e.answer.ReadString('\n'); err != nil || !strings.HasPrefix(l, "234") {
			return 0, fmt.Errorf("%q instead of 234, %v", l, err)
		}
	}
	return e.answer.Read(b)
}

// mustFailAtClient has the client begin TLS in vain: it must get an alert, and neither a certificate nor a word.
func (s *attackSession) mustFailAtClient() string {
	s.t.Helper()
	config := s.clientTLS.Clone()
	config.InsecureSkipVerify = true
	config.VerifyConnection = func(tls.ConnectionState) error {
		s.t.Error("the client has seen a certificate")
		return nil
	}
	err := s.client.shake(tls.Client(s.client.Conn, config))
	if err == nil || !strings.Contains(err.Error(), "remote error: tls: ") {
		s.t.Fatalf("the client's handshake ended in %v, not in an alert", err)
	}
	if said := attackRest(s.t, s.client); said != "" {
		s.t.Errorf("after the alert the client heard %q", said)
	}
	return err.Error()
}

// Application layer protocols confused (ALPACA): a browser that was sent to an FTP server must get no answer from it.
func TestAttackTLSProtocols(t *testing.T) {
	f := newAttackField(t, attackTLSConfig)
	const alert = "no application protocol"
	t.Run("foreign/explicit", func(t *testing.T) {
		s := f.begun(t, honestAddress, f.explicit)
		s.clientTLS.NextProtos = []string{"http/1.1"}
		if err := s.mustFailAtClient(); !strings.Contains(err, alert) {
			t.Errorf("the client's handshake ended in %v", err)
		}
		if said := attackRest(t, s.server); said != "" {
			t.Errorf("the server heard %q", said)
		}
		s.logged("session ended", `reason="TLS handshake failed"`, "ALPN, and FTP is not among them")
	})
	t.Run("foreign/implicit", func(t *testing.T) {
		s := f.called(t, honestAddress, f.implicit)
		s.clientTLS.NextProtos = []string{"h2", "http/1.1"}
		if err := s.mustFailAtClient(); !strings.Contains(err, alert) {
			t.Errorf("the client's handshake ended in %v", err)
		}
		if said := attackRest(t, s.server); said != "" {
			t.Errorf("the server heard %q", said)
		}
		s.logged("session ended", `reason="TLS handshake failed"`, "ALPN, and FTP is not among them")
	})
	t.Run("foreign/data", func(t *testing.T) {
		s := f.secured(t)
		s.login()
		x := s.armed()
		s.orders("RETR")
		config := s.clientTLS.Clone()
		config.NextProtos = []string{"http/1.1"}
		x.clientTLS = tls.Client(x.client, config)
		client, server := x.shake()
		if client == nil || !strings.Contains(client.Error(), alert) {
			t.Errorf("the client's handshake ended in %v", client)
		}
		attackCut(t, "the server", x.serverTLS, server)
		s.server.say("226 I take it as whole")
		s.client.hear("522")
		s.logged("msg=transfer", "outcome=broken", "client data: TLS", "FTP is not among them")
	})
	t.Run("ours among others", func(t *testing.T) {
		s := f.begun(t, honestAddress, f.explicit)
		s.clientTLS.NextProtos = []string{"h2", "ftp"}
		s.serverTLS = s.serverTLS.Clone()
		s.serverTLS.NextProtos = []string{"ftp"}
		s.mustShake()
		for who, k := range map[string]*talk{"client": s.client, "server": s.server} {
			if got := k.Conn.(*tls.Conn).ConnectionState().NegotiatedProtocol; got != "ftp" {
				t.Errorf("the %s speaks %q", who, got)
			}
		}
		s.login()
		s.logged("msg=TLS", "side=client", "alpn=ftp")
	})
	t.Run("HTTP inside", func(t *testing.T) {
		s := f.called(t, honestAddress, f.implicit)
		s.mustShake()
		s.client.send("POST / HTTP/1.1\r\nHost: ftp.example.com\r\n\r\nUSER evil\r\n") // browsers do not wait to be greeted
		s.server.say("220 puppet")
		if said := attackRest(t, s.client); strings.Contains(said, "331") || strings.Count(said, "\n") > 2 {
			t.Errorf("the client was told %q", said)
		}
		if said := attackRest(t, s.server); said != "" {
			t.Errorf("the server heard %q", said)
		}
		s.logged("session ended", `reason="This is not FTP"`, "speaks HTTP")
	})
	f.survived()
}

const attackDowngradeConfig = `
listeners:
  - {mode: tproxy, tls: require}
  - {mode: explicit, address: "[::]:2122"}
destinations:
  - {allow: 198.51.100.3, tls: {verify: untrusted-ca}}
`

// Somebody between gateway and server takes TLS away, or a server has none: what the client protects is not told to it.
func TestAttackTLSDowngrade(t *testing.T) {
	f := newAttackField(t, attackDowngradeConfig)
	t.Run("AUTH refused", func(t *testing.T) {
		s := f.greeted(t, honestAddress, f.explicit)
		s.relayed("AUTH TLS", "500 what is that")
		s.client.ask("USER alice", "534")
		s.client.ask("PASS "+ftpPassword, "534")
		s.client.say("QUIT")
		s.server.expect("QUIT", "221 bye") // the first thing that the server hears after AUTH
		s.client.hear("221")
		s.logged("msg=refused", "verb=USER", "code=534", "rule=tls")
		s.logged("msg=refused", "verb=PASS", "code=534", "rule=tls")
	})
	t.Run("AUTH hidden", func(t *testing.T) {
		s := f.greeted(t, honestAddress, f.explicit)
		s.client.say("FEAT")
		s.server.expect("FEAT", "211-Features:\r\n EPSV\r\n211 End")
		s.client.hear("211")
		s.client.ask("USER alice", "534")
		s.client.say("NOOP")
		s.server.expect("NOOP", "200 fine")
		s.client.hear("200")
	})
	t.Run("data connections", func(t *testing.T) {
		s := f.begun(t, honestAddress, f.explicit)
		s.mustShake()
		s.relayed("USER alice", "331 go on")
		s.relayed("PASS "+ftpPassword, "230 in")
		s.client.ask("PROT C", "503")
		s.relayed("PBSZ 0", "200 PBSZ=0")
		s.client.ask("PROT C", "534")
		s.client.ask("CCC", "534")
		s.relayed("PROT P", "536 not here") // or so says whoever is in between; but then he speaks TLS
		to, _ := s.passive()
		s.client.ask("RETR file", "521")
		s.client.ask("STOR file", "521")
		s.client.ask("LIST", "521")
		l := f.Client.callFrom(t, honestAddress, to)
		s.relayed("PROT P", "200 private")
		s.client.ask("PROT C", "534")
		s.client.say("QUIT")
		s.server.expect("QUIT", "221 bye")
		s.client.hear("221")
		if n, err := drain(l); n > 0 || !isReset(err) {
			t.Errorf("%d bytes, %v on the data connection", n, err)
		}
		s.logged("msg=refused", "verb=PROT", "code=534")
		s.logged("msg=refused", "verb=RETR", "code=521", "rule=tls")
		s.logged("msg=refused", "verb=CCC", "code=534")
	})
	// The client has TLS with the proxy; the server is called by the proxy alone.
	explicitly := func(t *testing.T, p *puppet) *attackSession {
		t.Helper()
		s := &attackSession{f: f, t: t, clientTLS: f.clientTLS(), serverTLS: f.serverTLS}
		s.clientTLS.ServerName = clientGateway[v4].Addr().String()
		s.client = f.Client.call(t, port(clientGateway, v4, 2122))
		s.who = s.client.LocalAddr().String()
		s.client.hear("220")
		s.client.ask("AUTH TLS", "234")
		if err := s.client.shake(tls.Client(s.client.Conn, s.clientTLS)); err != nil {
			t.Fatal(err)
		}
		s.client.ask("PBSZ 0", "200")
		s.client.ask("PROT P", "200")
		s.client.say("USER alice@%v", p.at.Addr())
		s.server = p.accept("220 puppet")
		return s
	}
	explicit := func(t *testing.T) *attackSession {
		t.Helper()
		return explicitly(t, f.explicit)
	}
	t.Run("explicit/AUTH refused", func(t *testing.T) {
		s := explicit(t)
		s.server.expect("AUTH TLS", "502 no such thing")
		s.client.hear("530")
		s.client.ask("PASS "+ftpPassword, "503")
		if said := s.server.ended(); said != "" {
			t.Errorf("the server heard %q", said)
		}
		s.logged("msg=refused", "verb=USER", "code=530", "The server does not take TLS", "rule=tls", "502")
	})
	t.Run("explicit/AUTH tampered with", func(t *testing.T) {
		s := explicit(t)
		s.server.expect("AUTH TLS", "234 go ahead\r\n230 in")
		s.client.hear("530")
		s.client.ask("PASS "+ftpPassword, "503")
		if said := s.server.ended(); said != "" {
			t.Errorf("the server heard %q", said)
		}
		s.logged("msg=refused", "verb=USER", "code=530", "response injection")
	})
	t.Run("explicit/PROT refused", func(t *testing.T) {
		s := explicit(t)
		s.server.expect("AUTH TLS", "234 go ahead")
		if err := s.server.shake(tls.Server(s.server.Conn, s.serverTLS)); err != nil {
			t.Fatal(err)
		}
		s.server.expect("PBSZ 0", "200 PBSZ=0")
		s.server.expect("PROT P", "536 not here")
		s.client.hear("530")
		s.client.ask("PASS "+ftpPassword, "503")
		if said := s.server.ended(); said != "" {
			t.Errorf("the server heard %q", said)
		}
		s.logged("msg=refused", "verb=USER", "code=530", "The server does not protect data connections", "536")
	})
	f.Server.AddAddress("eth0", netip.MustParsePrefix("198.51.100.3/24"))
	untrusted, _ := f.puppets(netip.MustParseAddr("198.51.100.3"))
	for what, p := range map[string]*puppet{"strict": f.explicit, "untrusted-ca": untrusted} {
		// The client has seen the proxy's own certificate, and can be shown no other.
		t.Run("explicit/certificate bad/"+what, func(t *testing.T) {
			s := explicitly(t, p)
			s.server.expect("AUTH TLS", "234 go ahead")
			cert := (*attackCA)(nil).leaf(t, newAttackKey(t), p.at.Addr(), nil)
			s.server.shake(tls.Server(s.server.Conn, &tls.Config{Certificates: []tls.Certificate{cert}})) // in TLS 1.3 all looks well
			s.client.hear("530")
			s.client.ask("PASS "+ftpPassword, "503")
			if said := attackRest(t, s.server); said != "" {
				t.Errorf("the server heard %q", said)
			}
			s.logged("msg=refused", "verb=USER", "code=530", "rule=verify", "certificate: authority")
		})
	}
	f.survived()
}

// Theft of data connections (RFC 2577 §8) by whoever has a ticket, or knocks first. A TLS session is one client's proof of who
// it is, but only if the data connection must resume it.
func TestAttackTLSTheft(t *testing.T) {
	f := newAttackField(t, attackTLSConfig)
	// victim and thief are two clients with a session each, and so a ticket each.
	parties := func(t *testing.T) (victim, thief *attackSession) {
		t.Helper()
		victim, thief = f.secured(t), f.securedFrom(t, thiefAddress)
		victim.login()
		thief.login()
		return victim, thief
	}
	// with is a client's configuration that has the ticket which another has now.
	with := func(of *tls.Config) *tls.Config {
		ticket, ok := of.ClientSessionCache.Get(of.ServerName)
		if !ok {
			t.Error("there is no ticket")
		}
		c := f.clientTLS()
		c.ClientSessionCache.Put(c.ServerName, ticket)
		return c
	}
	// completes is a transfer by the client itself, after what was tried.
	completes := func(t *testing.T, s *attackSession) {
		t.Helper()
		x := s.transfer("RETR")
		if !x.clientTLS.ConnectionState().DidResume {
			t.Error("the client's own data connection has not resumed its session")
		}
		s.receives(x, "mine")
	}
	t.Run("another's ticket from another address", func(t *testing.T) {
		victim, _ := parties(t)
		to, listener := victim.passive()
		f.Client.steal(t, thiefAddress, to) // there is not even a handshake for which to have a ticket
		victim.logged("stranger", "side=client", "from=192.0.2.66")
		x := &attackTransfer{client: f.Client.callFrom(t, honestAddress, to)}
		victim.takes(x, listener)
		victim.orders("RETR")
		if client, server := x.shake(); client != nil || server != nil {
			t.Fatal(client, server)
		}
		victim.receives(x, "mine")
	})
	t.Run("another session's ticket", func(t *testing.T) {
		// The thief has the victim's address: it is behind the same NAT.
		victim, thief := parties(t)
		x := victim.armed()
		x.clientTLS = tls.Client(x.client, with(thief.clientTLS))
		victim.orders("RETR")
		if client, server := x.shake(); client != nil || server != nil {
			t.Fatal(client, server)
		}
		if x.clientTLS.ConnectionState().DidResume {
			t.Error("the thief's ticket opened the victim's data connection")
		}
		victim.receives(x, "whoever that is")
		victim.logged("msg=transfer", "client_tls.resumed=false", "server_tls.resumed=true")
	})
	t.Run("another session's ticket on a control connection", func(t *testing.T) {
		_, thief := parties(t)
		s := f.begun(t, honestAddress, f.explicit)
		s.clientTLS = with(thief.clientTLS)
		s.mustShake()
		if s.client.Conn.(*tls.Conn).ConnectionState().DidResume {
			t.Error("a ticket of one session was good in another")
		}
	})
	f.gateway.reload(f.head + "listeners: [{mode: tproxy, session_reuse: require}]\ntimeouts: {data_setup: 1s}\n")
	for verb, version := range map[string]uint16{"RETR": tls.VersionTLS13, "STOR": tls.VersionTLS12} {
		t.Run("required/another session's ticket/"+verb, func(t *testing.T) {
			victim, thief := parties(t)
			// The first time with the thief's own ticket, if it is of that version, and then with what was got by that.
			loot := with(thief.clientTLS)
			loot.MaxVersion = version
			for range 2 {
				x := victim.armed()
				x.clientTLS = tls.Client(x.client, loot)
				victim.orders(verb)
				client, server := x.shake() // to the thief all looks well
				if x.clientTLS.ConnectionState().DidResume {
					t.Fatal("the thief has resumed the victim's session")
				}
				attackCut(t, "the thief", x.clientTLS, client)
				attackCut(t, "the server", x.serverTLS, server)
				victim.server.say("426 broken")
				victim.client.hear("522")
			}
			victim.logged("msg=refused", "verb="+verb, "code=522", "rule=session_reuse")
			completes(t, victim)
			completes(t, thief)
		})
	}
	t.Run("required/no TLS", func(t *testing.T) {
		s := f.secured(t)
		s.login()
		x := s.armed()
		s.orders("RETR")
		io.WriteString(x.client, "give it to me\r\n")
		attackCut(t, "the server", x.serverTLS, x.serverTLS.Handshake())
		if b, _ := io.ReadAll(x.client); len(b) > 7 { // an alert
			t.Errorf("the thief got %q", b)
		}
		s.server.say("226 I take it as whole")
		s.client.hear("522")
		s.logged("msg=transfer", "outcome=broken", "client data: TLS", "first record does not look like a TLS handshake")
		completes(t, s)
	})
	t.Run("required/knocks first and is silent", func(t *testing.T) {
		s := f.secured(t)
		s.login()
		x := s.armed() // by the thief, whose address is the client's
		s.orders("STOR")
		if n, err := drain(x.client); n > 0 || !isReset(err) {
			t.Errorf("the thief got %d bytes, and saw %v", n, err)
		}
		mustReset(t, "the server", x.server)
		s.server.say("226 I take it as whole")
		s.client.hear("522")
		s.logged("msg=transfer", "outcome=broken", "client data: TLS: not connected in time")
		completes(t, s)
	})
	f.survived()
}

// attackCut fails the test unless a data connection has been reset before anything was said on it. shook is how its handshake
// ended.
func attackCut(t *testing.T, who string, c *tls.Conn, shook error) {
	t.Helper()
	if shook != nil {
		if !isReset(shook) {
			t.Errorf("the handshake of %s ended in %v instead of a reset", who, shook)
		}
		return
	}
	if n, err := drain(c); n > 0 || !isReset(err) {
		t.Errorf("%s saw %d bytes and %v instead of a reset", who, n, err)
	}
}

// receives ends a download that has begun: the server sends something, and the client has it.
func (s *attackSession) receives(x *attackTransfer, something string) {
	s.t.Helper()
	io.WriteString(x.serverTLS, something)
	x.serverTLS.Close()
	s.server.say("226 done")
	if b, err := io.ReadAll(x.clientTLS); err != nil || string(b) != something {
		s.t.Errorf("the client got %q, %v", b, err)
	}
	x.client.Close()
	s.client.hear("226")
}
