//go:build linux

package integration

import (
	"context"
	"fmt"
	"net"
	"net/netip"
	"net/textproto"
	"slices"
	"testing"
	"time"
)

// TestDirect has nothing but a router between clients and servers. So it proves the lab, and limits.
func TestDirect(t *testing.T) {
	l := newLab(t)
	runMatrix(t, l, startServers(t, l), target{Name: "direct", Direct: true})
}

// TestActiveSource has every server open a data connection. It must come from the address that the client has connected to,
// although all servers of the lab share an interface: gateways accept no other.
func TestActiveSource(t *testing.T) {
	l := newLab(t)
	for _, s := range startServers(t, l) {
		for _, f := range families {
			t.Run(s.Name+"/"+f.String(), func(t *testing.T) {
				if s.missing != "" {
					lack(t, s.missing)
				}
				if from := activeSource(t, l, s, f); from.Addr() != s.Addr[f] {
					t.Errorf("the data connection comes from %s, not from %s", from, s.Addr[f])
				}
			})
		}
	}
}

// activeSource is where a server's data connections come from in active mode.
func activeSource(t *testing.T, l *lab, s *server, f family) netip.AddrPort {
	ctx, cancel := context.WithTimeout(t.Context(), hang)
	defer cancel()
	deadline, _ := ctx.Deadline()
	listener, err := l.Client.Listen(ctx, netip.AddrPortFrom(clientAddress[f].Addr(), 0))
	if err != nil {
		t.Fatal(err)
	}
	defer listener.Close()
	listener.(*net.TCPListener).SetDeadline(deadline)

	conn, err := l.Client.Dial(ctx, s.AddrPort(f))
	if err != nil {
		t.Fatal(err)
	}
	conn.SetDeadline(deadline)
	control := textproto.NewConn(conn)
	defer control.Close()
	say := func(code int, format string, args ...any) {
		t.Helper()
		if format != "" {
			if err := control.PrintfLine(format, args...); err != nil {
				t.Fatal(err)
			}
		}
		if _, text, err := control.ReadResponse(code); err != nil {
			t.Fatalf("%s: %v: %s", fmt.Sprintf(format, args...), err, text)
		}
	}
	at := netip.MustParseAddrPort(listener.Addr().String())
	say(220, "")
	say(331, "USER %s", ftpUser)
	say(230, "PASS %s", ftpPassword)
	say(200, "EPRT |%d|%s|%d|", f+1, at.Addr(), at.Port())
	say(1, "NLST")
	data, err := listener.Accept()
	if err != nil {
		t.Fatal(err)
	}
	defer data.Close()
	return netip.MustParseAddrPort(data.RemoteAddr().String())
}

// TestDropForward has a firewall that forwards nothing.
func TestDropForward(t *testing.T) {
	l := newLab(t)
	for _, f := range families {
		listener, err := l.Server.Listen(t.Context(), netip.AddrPortFrom(serverAddress[f].Addr(), 21))
		if err != nil {
			t.Fatal(err)
		}
		defer listener.Close()
	}
	connects := func(f family) error {
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		conn, err := l.Client.Dial(ctx, netip.AddrPortFrom(serverAddress[f].Addr(), 21))
		if err == nil {
			conn.Close()
		}
		return err
	}
	for _, f := range families {
		if err := connects(f); err != nil {
			t.Errorf("%s before: %v", f, err)
		}
	}
	l.DropForward()
	for _, f := range families {
		if connects(f) == nil {
			t.Errorf("%s is still forwarded", f)
		}
	}
}

// TestLimits finds names in limits that nobody has.
func TestLimits(t *testing.T) {
	var clientNames, serverNames names
	for _, c := range clients {
		clientNames = append(clientNames, c.name)
	}
	for _, s := range serverKinds {
		serverNames = append(serverNames, s.name)
	}
	for _, l := range limits {
		for _, name := range l.clients {
			if !slices.Contains(clientNames, name) {
				t.Errorf("%q is not a client", name)
			}
		}
		for _, name := range l.servers {
			if !slices.Contains(serverNames, name) {
				t.Errorf("%q is not a server", name)
			}
		}
		for _, verb := range l.verbs {
			if !slices.Contains(verbs[v4], verb) {
				t.Errorf("%q is not a data verb", verb)
			}
		}
		if l.why == "" {
			t.Errorf("%+v has no reason", l)
		}
	}
}
