//go:build linux

package integration

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"regexp"
	"strings"
	"testing"
	"time"
)

// Where connections come in, go out and are said to be: ports, criteria, ranges and names.

// moveFile has a client and a puppet move a file by way of an armed transfer. Data connections are there before 150, as
// real servers have them.
func moveFile(t *testing.T, client, server *talk, clientData, serverData func() net.Conn) {
	t.Helper()
	client.say("RETR x")
	server.expect("RETR x", "")
	from, to := serverData(), clientData()
	server.say("150 here")
	client.hear("150")
	io.WriteString(from, "bytes")
	from.Close()
	server.say("226 done")
	to.SetDeadline(time.Now().Add(hang))
	if b, err := io.ReadAll(to); err != nil || string(b) != "bytes" {
		t.Errorf("the client got %q, %v", b, err)
	}
	to.Close()
	client.hear("226")
}

// accepted is the next connection to a listener.
func accepted(t *testing.T, l *net.TCPListener) func() net.Conn {
	return func() net.Conn {
		t.Helper()
		l.SetDeadline(time.Now().Add(hang))
		c, err := l.Accept()
		if err != nil {
			t.Fatal(err)
		}
		return c
	}
}

// extendedPort is the port of EPRT's argument.
func extendedPort(t *testing.T, line string) netip.AddrPort {
	t.Helper()
	m := regexp.MustCompile(`^EPRT \|[12]\|([^|]+)\|(\d+)\|$`).FindStringSubmatch(line)
	if m == nil {
		t.Fatalf("not an EPRT: %q", line)
	}
	var p uint16
	fmt.Sscan(m[2], &p)
	return netip.AddrPortFrom(netip.MustParseAddr(m[1]), p)
}

func TestInterceptPorts(t *testing.T) {
	for _, mode := range []string{"tproxy", "redirect"} {
		t.Run(mode, func(t *testing.T) {
			l := newLab(t)
			g := l.startGateway(fmt.Sprintf("listeners: [{mode: %s, intercept: {ports: [21, 2100-2110]}}]\nlog: {level: debug}\n", mode))
			for _, f := range families {
				for _, at := range []uint16{21, 2100, 2105, 2110} {
					p := newPuppet(t, l, port(serverAddress, f, at))
					k := l.Client.call(t, p.at)
					s := p.admit(k, "alice")
					g.await("session started", "server="+p.at.String())

					// Passive.
					data := l.Server.listen(t, netip.AddrPortFrom(p.at.Addr(), 0))
					k.say("EPSV")
					s.expect("EPSV", fmt.Sprintf("229 ok (|||%d|)", data.Addr().(*net.TCPAddr).Port))
					to := netip.AddrPortFrom(p.at.Addr(), passivePort(t, k.hear("229")))
					c := l.Client.callFrom(t, port(clientAddress, f, 0), to)
					moveFile(t, k, s, func() net.Conn { return c }, accepted(t, data))

					// Active: the default data port is one below the control port, whichever that is (RFC 959 §3.2).
					mine := l.Client.listen(t, port(clientAddress, f, 0))
					k.say("EPRT |%d|%s|%d|", f+1, clientAddress[f].Addr(), mine.Addr().(*net.TCPAddr).Port)
					told := extendedPort(t, s.line())
					s.say("200 ok")
					k.hear("200")
					called := accepted(t, mine)
					moveFile(t, k, s, func() net.Conn {
						c := called()
						if from := c.RemoteAddr().String(); from != netip.AddrPortFrom(p.at.Addr(), at-1).String() {
							t.Errorf("the client of port %d was called from %s", at, from)
						}
						return c
					}, func() net.Conn {
						return l.Server.callFrom(t, netip.AddrPortFrom(p.at.Addr(), at-1), told)
					})
				}
				for _, at := range []uint16{22, 2111} {
					if l.reaches(t, l.Client, port(clientAddress, f, 0).Addr(), port(serverAddress, f, at)) {
						t.Errorf("port %d was let through", at)
					}
				}
			}
			g.Stop()
			g.checkClean()
		})
	}
}

// reaches reports whether a connection is made to a puppet of its own. One that is not made takes its time.
func (l *lab) reaches(t *testing.T, n *namespace, from netip.Addr, to netip.AddrPort) bool {
	t.Helper()
	p := l.Server.listen(t, to)
	defer p.Close()
	ok := false
	n.Do(func() error {
		ctx, cancel := context.WithTimeout(t.Context(), 300*time.Millisecond)
		defer cancel()
		d := net.Dialer{LocalAddr: net.TCPAddrFromAddrPort(netip.AddrPortFrom(from, 0))}
		c, err := d.DialContext(ctx, "tcp", to.String())
		if err == nil {
			ok = true
			c.Close()
		}
		return err
	})
	return ok
}

// Two listeners of different modes share what comes in, and leave the rest alone.
func TestInterceptCriteria(t *testing.T) {
	l := newLab(t)
	extra := [2]netip.Prefix{netip.MustParsePrefix("192.0.2.77/24"), netip.MustParsePrefix("fd00:c::77/64")}
	diverted := [2]netip.Prefix{netip.MustParsePrefix("198.51.100.50/24"), netip.MustParsePrefix("fd00:5::50/64")}
	redirected := [2]netip.Prefix{netip.MustParsePrefix("198.51.100.60/24"), netip.MustParsePrefix("fd00:5::60/64")}
	for _, f := range families {
		l.Client.AddAddress("eth0", extra[f])
		l.Server.AddAddress("eth0", diverted[f])
		l.Server.AddAddress("eth0", redirected[f])
	}
	// Without the drop, so that what is not intercepted arrives on its own.
	g := l.startGatewayAs(`
listeners:
  - {name: diverts, mode: tproxy, address: "[::]:2121", intercept: {servers: [198.51.100.50, "fd00:5::50"], clients: [192.0.2.2, "fd00:c::2"], interfaces: [client]}}
  - {name: redirects, mode: redirect, address: "[::]:2122", intercept: {servers: [198.51.100.60, "fd00:5::60"], clients: [192.0.2.2, "fd00:c::2"], interfaces: [client]}}
`, l.Firewall.Command)
	sessions := 0
	for _, f := range families {
		for listener, server := range map[string][2]netip.Prefix{"diverts": diverted, "redirects": redirected, "": serverAddress} {
			for from, taken := range map[netip.Addr]bool{clientAddress[f].Addr(): true, extra[f].Addr(): false} {
				p := newPuppet(t, l, port(server, f, 21))
				k := newTalk(t, l.Client.callFrom(t, netip.AddrPortFrom(from, 0), p.at))
				s := p.admit(k, "alice")
				if taken && listener != "" {
					sessions++
					g.await("session started", "listener="+listener, "client="+k.LocalAddr().String(), "server="+p.at.String())
				} else if s.RemoteAddr().String() != k.LocalAddr().String() {
					t.Errorf("%s is seen as %s without a gateway", k.LocalAddr(), s.RemoteAddr())
				}
				p.l.Close()
			}
			// Not by the client's interface: from the server's own network towards the client's.
			back := l.Client.listen(t, port(clientAddress, f, 21))
			c := l.Server.callFrom(t, netip.AddrPortFrom(server[f].Addr(), 0), port(clientAddress, f, 21))
			accepted(t, back)()
			c.Close()
			back.Close()
		}
	}
	if n := strings.Count(g.log(), `msg="session started"`); n != sessions {
		t.Errorf("%d sessions instead of %d", n, sessions)
	}
}

// data_ports is honoured in all modes, in what clients and what servers hear; and its end is said clearly.
func TestDataPorts(t *testing.T) {
	l := newLab(t)
	at := port(serverAddress, v4, 21)
	g := l.startGateway(fmt.Sprintf(`
listeners:
  - {mode: tproxy, address: "[::]:2120", data_ports: 40000-40002}
  - {mode: explicit, address: "[::]:2121", data_ports: 41000-41002}
  - {mode: gateway, address: "[::]:2122", data_ports: 42000-42002, server: "%s"}
destinations: [{allow: "*"}]
`, at))
	p := newPuppet(t, l, at)
	for _, mode := range []struct {
		name  string
		to    netip.AddrPort
		user  string
		first uint16
	}{
		{"tproxy", at, "alice", 40000},
		{"explicit", port(clientGateway, v4, 2121), "alice@" + at.Addr().String(), 41000},
		{"gateway", port(clientGateway, v4, 2122), "alice", 42000},
	} {
		t.Run(mode.name, func(t *testing.T) {
			in := func(who string, got uint16) {
				t.Helper()
				if got < mode.first || got > mode.first+2 {
					t.Errorf("%s was told port %d, not one from %d on", who, got, mode.first)
				}
			}
			open := func() (k, s *talk) {
				k = l.Client.call(t, mode.to)
				return k, (&puppet{t: t, l: p.l, at: p.at, lab: l}).admitAs(k, mode.name == "explicit", mode.user)
			}
			seen := map[uint16]bool{}
			k, s := open()
			for i := range 60 {
				if i%2 == 0 {
					k.say("PASV")
					s.expect("PASV", "227 ok (198,51,100,2,200,1)")
				} else {
					k.say("EPSV")
					s.expect("EPSV", "229 ok (|||51201|)")
				}
				got := passivePort(t, k.hear("22"))
				in("the client", got)
				seen[got] = true
				k.say("EPRT |1|192.0.2.2|5555|")
				in("the server", extendedPort(t, s.line()).Port())
				s.say("200 ok")
				k.hear("200")
			}
			// One in three, sixty times: that the third is not met has a chance of one in ten thousand millions.
			if len(seen) != 3 {
				t.Errorf("of three ports only %v are used", seen)
			}
			var talks []*talk
			for range 3 {
				k, s := open()
				k.say("EPSV")
				s.expect("EPSV", "229 ok (|||51201|)")
				k.hear("229")
				talks = append(talks, k)
			}
			k.say("EPSV")
			s.expect("EPSV", "229 ok (|||51201|)")
			k.hear("425")
			g.await("all of data_ports", fmt.Sprintf("%d-%d", mode.first, mode.first+2))
			for _, k := range talks {
				k.Close()
			}
		})
	}
	g.Stop()
	g.checkClean()
}

// admitAs is admit, also for a client who names the server and is greeted by the gateway before there is one.
func (p *puppet) admitAs(k *talk, explicit bool, user string) *talk {
	p.t.Helper()
	if !explicit {
		return p.admit(k, user)
	}
	k.hear("220")
	k.say("USER %s", user)
	s := p.accept("220 puppet")
	s.line()
	s.say("331 go on")
	k.hear("331")
	k.say("PASS x")
	s.line()
	s.say("230 in")
	k.hear("230")
	return s
}

// advertise is an address or a name, which is looked up again when it is needed.
func TestAdvertise(t *testing.T) {
	l := newLab(t)
	at := port(serverAddress, v4, 21)
	l.Firewall.overlay("hosts", "203.0.113.7 public.example.test\n")
	g := l.startGateway(fmt.Sprintf(`
listeners:
  - {name: address, mode: gateway, address: "[::]:2121", server: "%[1]s", advertise: 203.0.113.9}
  - {name: named, mode: gateway, address: "[::]:2122", server: "%[1]s", advertise: public.example.test}
  - {name: unknown, mode: gateway, address: "[::]:2123", server: "%[1]s", advertise: nobody.example.test}
`, at))
	p := newPuppet(t, l, at)
	told := func(listener uint16) string {
		k := l.Client.call(t, port(clientGateway, v4, listener))
		s := p.admit(k, "alice")
		k.say("PASV")
		s.expect("PASV", "227 ok (198,51,100,2,200,1)")
		reply := k.hear("227")
		k.Close()
		s.ended()
		m := regexp.MustCompile(`\((\d+,\d+,\d+,\d+),`).FindStringSubmatch(reply)
		if m == nil {
			t.Fatal(errors.New(reply))
		}
		return strings.ReplaceAll(m[1], ",", ".")
	}
	if got := told(2121); got != "203.0.113.9" {
		t.Errorf("told %s", got)
	}
	if got := told(2122); got != "203.0.113.7" {
		t.Errorf("told %s", got)
	}
	// A name that cannot be resolved does not cost the transfer: clients without NAT between are served.
	if got := told(2123); got != clientGateway[v4].Addr().String() {
		t.Errorf("told %s", got)
	}
	g.await("cannot resolve advertise", "listener=unknown", "nobody.example.test")
	l.Firewall.overlay("hosts", "203.0.113.8 public.example.test\n")
	// Package net believes what it has read in /etc/hosts for five seconds.
	g.until("the name's new address is told", func() bool { return told(2122) == "203.0.113.8" })
	g.Stop()
	g.checkClean()
}
