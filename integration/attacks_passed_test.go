//go:build linux

package integration

import (
	"context"
	"crypto/tls"
	"fmt"
	"io"
	"net/netip"
	"strings"
	"testing"
	"time"
)

const attackPassedConfig = `
listeners: [{mode: tproxy, tls: pass}]
destinations:
  - {allow: 198.51.100.2, tls: {pass: 50000-50003}}
  - {allow: "*"}
`

// TLS that is passed: what an allowance lets through is a few ports of one server, for one client, for as long as that client's
// control connection lives. Nothing else has a way past the gateway.
func TestAttackTLSPassed(t *testing.T) {
	f := newAttackField(t, attackPassedConfig)
	here := serverAddress[v4].Addr()
	outside := f.Server.trap(t, netip.AddrPortFrom(here, 50004))
	below := f.Server.trap(t, netip.AddrPortFrom(here, 49999))
	// begun is a session of a client that accepts the server's own certificate and no other.
	begin := func(t *testing.T, from netip.AddrPort) *attackSession {
		t.Helper()
		s := f.begun(t, from, f.explicit)
		s.clientTLS.RootCAs = f.ca.pool
		s.mustShake()
		s.login()
		return s
	}
	// moved is a data connection on a port, by which the server's certificate is seen as well.
	moves := func(t *testing.T, s *attackSession, p uint16) *attackTransfer {
		t.Helper()
		l := f.Server.listen(t, netip.AddrPortFrom(here, p))
		s.relayed("EPSV", fmt.Sprintf("229 ok (|||%d|)", p)) // to the letter: nobody in between can read it
		x := &attackTransfer{client: f.Client.callFrom(t, s.from, netip.AddrPortFrom(here, p))}
		s.takes(x, l)
		l.Close()
		s.orders("RETR")
		if client, server := x.shake(); client != nil || server != nil {
			t.Fatal(client, server)
		}
		return x
	}
	// unreachable fails the test if a connection comes about. Nothing answers where packets are dropped.
	unreachable := func(t *testing.T, p uint16) {
		t.Helper()
		ctx, cancel := context.WithTimeout(t.Context(), 200*time.Millisecond)
		defer cancel()
		if c, err := f.Client.Dial(ctx, netip.AddrPortFrom(here, p)); err == nil {
			c.Close()
			t.Errorf("port %d of the server can be connected to", p)
		}
	}
	listening := func() int {
		return strings.Count(f.Firewall.must("ss", "-Hltn", "src", here.String()), "LISTEN")
	}
	t.Run("end to end", func(t *testing.T) {
		s := begin(t, honestAddress)
		for p := uint16(50000); p <= 50003; p++ {
			x := moves(t, s, p)
			if !x.clientTLS.ConnectionState().DidResume {
				t.Error("the client has not resumed its own session with the server")
			}
			s.receives(x, "unseen")
			s.logged("passed data connection", fmt.Sprintf("port=%d", p))
		}
		unreachable(t, 50004)
		unreachable(t, 49999)
		if n := listening(); n != 4 {
			t.Errorf("%d ports are open", n)
		}
		s.logged("TLS is passed unopened", "192.0.2.2 to 198.51.100.2 ports 50000-50003")
		if line := f.gateway.logged("msg=TLS ", "client="+s.who); line != "" {
			t.Errorf("it was not passed: %s", line)
		}
		s.client.say("QUIT")
		s.server.expect("QUIT", "221 bye")
		s.client.hear("221")
		s.client.Close()
		attackRest(t, s.server)
		s.server.Close()
		s.logged("session ended", "reason=goodbye")
		f.closed(t, listening)
		unreachable(t, 50001)
	})
	t.Run("others", func(t *testing.T) {
		s := begin(t, honestAddress)
		server := f.Server.trap(t, netip.AddrPortFrom(here, 50002))
		f.Client.steal(t, thiefAddress, netip.AddrPortFrom(here, 50002))
		server.check(t)
		f.gateway.await("stranger", "from=192.0.2.66", "to=198.51.100.2:50002")
		s.receives(moves(t, s, 50001), "all the same")
	})
	t.Run("afterwards", func(t *testing.T) {
		// What still goes by when the conversation is over is over as well: in a reset.
		s := begin(t, honestAddress)
		x := moves(t, s, 50003)
		io.WriteString(x.serverTLS, "half of it")
		if _, err := io.ReadFull(x.clientTLS, make([]byte, len("half of it"))); err != nil {
			t.Fatal(err)
		}
		s.client.Close()
		s.server.Close()
		mustReset(t, "the client", x.client)
		mustReset(t, "the server", x.server)
		s.logged("passed data connection", "port=50003", "received=", "error=")
		f.closed(t, listening)
	})
	t.Run("two sessions", func(t *testing.T) {
		first, second := begin(t, honestAddress), begin(t, thiefAddress)
		first.receives(moves(t, first, 50000), "the first's")
		first.client.Close()
		first.server.Close()
		first.logged("session ended")
		f.Client.steal(t, honestAddress, netip.AddrPortFrom(here, 50000))
		second.receives(moves(t, second, 50000), "the second's")
	})
	t.Run("implicit", func(t *testing.T) {
		s := f.called(t, honestAddress, f.implicit)
		s.clientTLS.RootCAs = f.ca.pool
		s.mustShake()
		s.server.say("220 puppet")
		s.client.hear("220")
		s.login()
		s.receives(moves(t, s, 50000), "unseen")
	})
	t.Run("no allowance", func(t *testing.T) {
		at := netip.MustParseAddr("198.51.100.3")
		f.Server.AddAddress("eth0", netip.PrefixFrom(at, 24))
		explicit, implicit := f.puppets(at)
		s := f.greeted(t, honestAddress, explicit)
		s.client.ask("AUTH TLS", "534")
		s.relayed("NOOP", "200 fine") // the first thing that the server hears
		s.logged("msg=refused", "verb=AUTH", "code=534", "no rule of destinations has tls.pass for this server")
		s = f.called(t, honestAddress, implicit)
		if err := s.client.shake(tls.Client(s.client.Conn, s.clientTLS)); err == nil {
			t.Error("there is TLS with a server for which there is no allowance")
		}
		if said := attackRest(t, s.server); said != "" {
			t.Errorf("the server heard %q", said)
		}
		s.logged("session ended", "no rule of destinations has tls.pass for this server")
	})
	t.Run("plain text behind AUTH", func(t *testing.T) {
		s := f.greeted(t, honestAddress, f.explicit)
		s.client.send("AUTH TLS\r\nUSER evil\r\n")
		attackRest(t, s.client)
		if said := attackRest(t, s.server); said != "" {
			t.Errorf("the server heard %q", said)
		}
		s.logged("session ended", "command injection")
		f.closed(t, listening)
	})
	outside.check(t)
	below.check(t)
	s := begin(t, honestAddress)
	s.client.Close()
	s.server.Close()
	s.logged("session ended")
	f.leftNothing()
}

// closed waits until the ports of an allowance are closed.
func (f *attackField) closed(t *testing.T, listening func() int) {
	t.Helper()
	f.gateway.until("the ports are closed", func() bool { return listening() == 0 })
}
