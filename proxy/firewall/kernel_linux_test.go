package firewall

import (
	"bytes"
	"io"
	"net"
	"net/netip"
	"testing"
	"time"
)

// TestKernelTPROXY: a client that dials the server reaches the listener, and data listeners on the server's address.
func TestKernelTPROXY(t *testing.T) {
	l := newLab(t)
	mustApply(t, l.plan(TPROXY, "[::]:2121"))
	l.greet("ftpalg", l.listen("[::]:2121", transparentSocket, socketMark(0x66)))
	l.greet("service", l.listen("10.1.0.1:21"))
	l.greet("service", l.listen("[fd01::1]:21"))

	l.run(func(l *lab, at places) {
		l.in(l.client, func() { l.hears("ftpalg", at.client, at.server, 21) })
		l.in(l.server, func() { l.hears("ftpalg", at.server, at.client, 21) })

		// Data listeners: on the server's address for passive clients, on the client's for the server.
		passive := l.listen(netip.AddrPortFrom(at.server, 0).String(), transparentSocket, socketMark(0x66))
		l.greet("data", passive)
		l.in(l.client, func() { l.hears("data", at.client, at.server, portOf(passive)) })
		active := l.listen(netip.AddrPortFrom(at.client, 0).String(), transparentSocket, socketMark(0x66))
		l.greet("data", active)
		l.in(l.server, func() { l.hears("data", at.server, at.client, portOf(active)) })

		// Our own connections to the server, from our address, and from the client's: the answers must come here.
		l.hears("server", at.outer, at.server, 21, socketMark(0x66))
		l.hears("server", at.client, at.server, 21, transparentSocket, socketMark(0x66))

		// What is none of our business: the listener's port at other hosts, and the firewall's own service.
		l.in(l.client, func() {
			l.hears("server", at.client, at.server, 2121)
			l.hears("service", at.client, at.inner, 21)
		})
	})
}

// TestKernelTPROXYToAddress: a listener may be bound to an address, also to one that no packet could be routed to.
func TestKernelTPROXYToAddress(t *testing.T) {
	l := newLab(t)
	p := l.plan(TPROXY, "127.0.0.1:2121")
	p.Intercepts = append(p.Intercepts, l.plan(TPROXY, "[::1]:2121").Intercepts...)
	mustApply(t, p)
	l.greet("ftpalg", l.listen("127.0.0.1:2121", transparentSocket))
	l.greet("ftpalg", l.listen("[::1]:2121", transparentSocket))
	l.run(func(l *lab, at places) {
		l.in(l.client, func() { l.hears("ftpalg", at.client, at.server, 21) })
	})
}

// TestKernelOwnPort: a listener may intercept the very port that it listens on.
func TestKernelOwnPort(t *testing.T) {
	l := newLab(t)
	p := l.plan(TPROXY, "[::]:2121")
	p.Intercepts[0].Ports = []PortRange{{2121, 2121}}
	mustApply(t, p)
	l.greet("ftpalg", l.listen("[::]:2121", transparentSocket))
	l.run(func(l *lab, at places) {
		l.in(l.client, func() { l.hears("ftpalg", at.client, at.server, 2121) })
	})
}

// TestKernelCriteria: clients, servers and interfaces limit what is taken; the rest goes its way.
func TestKernelCriteria(t *testing.T) {
	l := newLab(t)
	p := l.plan(TPROXY, "[::]:2121")
	i := &p.Intercepts[0]
	i.Ports = []PortRange{{21, 21}, {2000, 2121}}
	i.Interfaces = []string{"nosuch", "inner"}
	i.Clients = []netip.Prefix{netip.MustParsePrefix("10.1.0.2/32"), netip.MustParsePrefix("fd01::/63")}
	i.Servers = []netip.Prefix{netip.MustParsePrefix("10.2.0.0/30"), netip.MustParsePrefix("172.16.0.0/12"), netip.MustParsePrefix("fd02::/16")}
	mustApply(t, p)
	l.greet("ftpalg", l.listen("[::]:2121", transparentSocket))
	for _, address := range []string{"10.1.0.3/24", "fd01:0:0:2::2/64"} {
		l.in(l.client, func() { sh(t, "ip addr add "+address+" dev eth0") })
	}
	sh(t, "ip -6 route add fd01:0:0:2::/64 dev inner")
	l.run(func(l *lab, at places) {
		other := netip.MustParseAddr(map[bool]string{true: "10.1.0.3", false: "fd01:0:0:2::2"}[at.client.Is4()])
		l.in(l.client, func() {
			l.hears("ftpalg", at.client, at.server, 21)
			l.hears("ftpalg", at.client, at.server, 2021)
			l.hears("ftpalg", at.client, at.server, 2121)
			l.hears("server", other, at.server, 2121) // which the firewall forwards
		})
	})
}

// TestKernelLocal: connections that start on the firewall are taken by user or by mark, and their data too, to the
// last byte of a file whose sender has closed its socket.
func TestKernelLocal(t *testing.T) {
	l := newLab(t)
	p := l.plan(TPROXY, "[::]:2121")
	p.Intercepts[0].Clients = []netip.Prefix{netip.MustParsePrefix("192.0.2.0/24")} // not asked of local ones
	p.Intercepts[0].Interfaces = []string{"inner"}
	p.Intercepts[0].Clients = append(p.Intercepts[0].Clients, netip.MustParsePrefix("2001:db8::/32"))
	p.Intercepts[0].LocalUIDs = []uint32{1234}
	p.Intercepts[0].LocalMarks = []uint32{7, 8}
	mustApply(t, p)
	l.greet("ftpalg", l.listen("[::]:2121", transparentSocket, socketMark(0x66)))

	l.run(func(l *lab, at places) {
		asUser(1234, func() { l.hears("ftpalg", at.outer, at.server, 21) })
		l.hears("ftpalg", at.outer, at.server, 21, socketMark(7))
		l.hears("ftpalg", at.outer, at.server, 21, socketMark(8))
		l.hears("server", at.outer, at.server, 21)
		l.hears("server", at.outer, at.server, 21, socketMark(9))
		asUser(1234, func() { l.hears("server", at.outer, at.server, 21, socketMark(0x66)) })
		asUser(1234, func() { l.hears("server", at.outer, at.server, 2021) })

		data := l.listen(netip.AddrPortFrom(at.server, 50000).String(), transparentSocket, socketMark(0x66))
		file := bytes.Repeat([]byte("ftp"), 1<<20)
		asUser(1234, func() {
			c, err := l.dial(netip.Addr{}, netip.AddrPortFrom(at.server, 50000), sendBuffer(16<<20))
			if err != nil {
				l.t.Fatal(err)
			}
			if _, err := c.Write(file); err != nil { // it all fits into the send buffer
				l.t.Fatal(err)
			}
			if err := c.Close(); err != nil {
				l.t.Fatal(err)
			}
		})
		received, err := data.AcceptTCP()
		if err != nil {
			l.t.Fatal(err)
		}
		defer received.Close()
		received.SetDeadline(time.Now().Add(patience))
		if got, err := io.ReadAll(received); err != nil || !bytes.Equal(got, file) {
			l.t.Errorf("received %d of %d bytes, %v", len(got), len(file), err)
		}
	})
}

// TestKernelRedirect: control and data connections reach listeners on the firewall's own addresses, whether they pass
// through or start there. (The real server's line would show, as that is where SO_ORIGINAL_DST says they went.)
func TestKernelRedirect(t *testing.T) {
	for name, listener := range map[string]struct{ v4, v6 string }{
		"wildcard": {"0.0.0.0:2121", "[::]:2121"},
		"address":  {"10.1.0.1:2121", "[fd01::1]:2121"},
	} {
		t.Run(name, func(t *testing.T) {
			l := newLab(t)
			p := l.plan(Redirect, listener.v6)
			if name == "address" {
				p.Intercepts = append(p.Intercepts, l.plan(Redirect, listener.v4).Intercepts...)
				l.greet("ftpalg", l.listen(listener.v4, socketMark(0x66)))
			}
			for n := range p.Intercepts {
				p.Intercepts[n].LocalUIDs, p.Intercepts[n].LocalMarks = []uint32{1234}, []uint32{7}
			}
			mustApply(t, p)
			l.greet("ftpalg", l.listen(listener.v6, socketMark(0x66)))
			l.greet("data", l.listen("[::]:50000", socketMark(0x66)))
			l.greet("service", l.listen("10.1.0.1:21"))
			l.greet("service", l.listen("[fd01::1]:21"))

			l.run(func(l *lab, at places) {
				l.in(l.client, func() {
					l.hears("ftpalg", at.client, at.server, 21)
					l.hears("data", at.client, at.server, 50000)
					l.hears("service", at.client, at.inner, 21)
					l.hears("server", at.client, at.server, 2121)
				})
				asUser(1234, func() {
					l.hears("ftpalg", at.outer, at.server, 21)
					l.hears("data", at.outer, at.server, 50000)
					l.hears("service", at.inner, at.inner, 21)
					l.hears("server", at.outer, at.server, 21, socketMark(0x66))
				})
				l.hears("ftpalg", at.outer, at.server, 21, socketMark(7))
				l.hears("data", at.outer, at.server, 50000, socketMark(7))
				l.hears("server", at.outer, at.server, 21)
			})
		})
	}
}

// TestKernelDivert: without any interception the routes and the divert rule alone bring a server's answers to
// sockets that use the client's address.
func TestKernelDivert(t *testing.T) {
	l := newLab(t)
	p := l.plan(TPROXY, "[::]:2121")
	p.Intercepts, p.Divert = nil, true
	mustApply(t, p)
	l.run(func(l *lab, at places) {
		l.hears("server", at.client, at.server, 21, transparentSocket, socketMark(0x66))
	})
}

func portOf(l *net.TCPListener) uint16 { return l.Addr().(*net.TCPAddr).AddrPort().Port() }
