package proxy

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
	"net/netip"
	"slices"
	"strconv"
	"strings"
	"sync"

	"ftpalg/control"
)

// A client that is told of a SOCKS or HTTP proxy asks it for one connection after the other by CONNECT: first to an FTP server's
// control port, then to each port that the server names. The first is a session like any other, so what the server names is
// rewritten, to ports that exist nowhere: listeners in a table, which the client's next CONNECT finds. Nobody has to reach
// us at another port than the proxy's own, and whoever asks for anything else gets nothing.

// tunnels are the data connections that clients of CONNECT are expected to ask for.
type tunnels struct {
	mu       sync.Mutex
	expected map[tunnelPort]*tunnelListener
}

// tunnelPort is a port that a client was told of. Another client, or another account's, cannot ask for it (port theft, RFC 2577 §8).
type tunnelPort struct {
	client  netip.Addr
	account string
	port    uint16
}

// tunnelListener is a net.Listener for one connection, which comes by CONNECT.
type tunnelListener struct {
	*handed
	table *tunnels
	key   tunnelPort
	name  string // what the client called the server, if not by its address
}

// errTunnelPorts means that a client has all ports open that there are, nearly.
var errTunnelPorts = errors.New("the client has too many data connections by CONNECT open")

// listen makes a listener for a client of the server.
func (t *tunnels) listen(client netip.Addr, account string, server netip.Addr, name string) (*tunnelListener, error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	for range 64 {
		port := uint16(anyPorts.First) + uint16(rand.IntN(int(anyPorts.Last-anyPorts.First)+1))
		key := tunnelPort{client, account, port}
		if t.expected[key] != nil {
			continue
		}
		l := &tunnelListener{newHanded(netip.AddrPortFrom(server, port)), t, key, name}
		if t.expected == nil {
			t.expected = map[tunnelPort]*tunnelListener{}
		}
		t.expected[key] = l
		return l, nil
	}
	return nil, errTunnelPorts
}

// find is the listener that a CONNECT asks for, nil if there is none.
func (t *tunnels) find(client netip.Addr, account, host string, port uint16) *tunnelListener {
	t.mu.Lock()
	defer t.mu.Unlock()
	l := t.expected[tunnelPort{client, account, port}]
	if l == nil {
		return nil
	}
	if a, err := netip.ParseAddr(host); err == nil && a.Unmap() == l.at.Addr() || err != nil && sameName(host, l.name) {
		return l
	}
	return nil
}

// sameName reports whether two spellings are one host name.
func sameName(a, b string) bool {
	return strings.EqualFold(strings.TrimSuffix(a, "."), strings.TrimSuffix(b, "."))
}

// Close implements net.Listener.
func (l *tunnelListener) Close() error {
	l.table.mu.Lock()
	defer l.table.mu.Unlock()
	if l.table.expected[l.key] == l { // it may be another's by now
		delete(l.table.expected, l.key)
	}
	return l.handed.Close()
}

// wanted is what a client asks for by CONNECT: a host's name or address, and a port.
type wanted struct {
	host string
	port uint16
}

func (w wanted) String() string { return net.JoinHostPort(w.host, strconv.Itoa(int(w.port))) }

// tunnel does what a client asks for by CONNECT. agreed tells the client so before anything else is said, and the error is why it
// must be told no: a *control.Refusal if rules say so. c is the caller's to close where there is an error.
func (p *Proxy) tunnel(s *setting, c *net.TCPConn, a arrival, w wanted, agreed func() error) error {
	if l := p.tunnels.find(a.client.Addr(), a.accountName(), w.host, w.port); l != nil {
		return p.tunnelData(c, a, l, agreed)
	}
	places, err := p.tunnelPlaces(s, a, w)
	if err != nil {
		return err
	}
	if err := agreed(); err != nil {
		return err
	}
	a.places = places
	a.implicit = w.port == control.ImplicitPort && takesTLS(s.listener)
	a.listen = func(_ context.Context, server netip.AddrPort) (net.Listener, error) {
		return p.tunnels.listen(a.client.Addr(), a.accountName(), server.Addr(), w.host)
	}
	a.conn = swiftly(c, a.client)
	p.hold(s, a)
	return nil
}

// tunnelData gives a session the data connection that it has told its client of.
func (p *Proxy) tunnelData(c *net.TCPConn, a arrival, l *tunnelListener, agreed func() error) error {
	if err := agreed(); err != nil {
		return err
	}
	if err := prepareData(c); err != nil {
		return err
	}
	if !l.hand(&announcedConn{c, net.TCPAddrFromAddrPort(a.client)}) {
		return errors.New("the session does not expect a data connection any more")
	}
	p.untrack(c) // it is the transfer's
	return nil
}

// tunnelPlaces says where the FTP server is that a client asks for: one on port 21 or 990, or on one that a rule which allows it
// names. On others there may be anything, and a client that comes too late for a data connection would be given a session.
func (p *Proxy) tunnelPlaces(s *setting, a arrival, w wanted) ([]place, error) {
	return p.allowed(s, a, w.String(), func(rule int) *control.Refusal {
		if w.port == 21 || w.port == control.ImplicitPort || rule >= 0 && len(s.cfg.Destinations[rule].Ports) > 0 {
			return nil
		}
		return noEntry("CONNECT: ports 21, 990, those of destinations[].ports, and what sessions name")
	})
}

// allowed says where a server is that a client names, host:port: those of its addresses that rules let the client reach. narrower
// refuses some that Config.Destinations[rule] allows, or that no rule is about (-1). Without a place there is an error, a
// *control.Refusal if rules are why.
func (p *Proxy) allowed(s *setting, a arrival, named string, narrower func(rule int) *control.Refusal) ([]place, error) {
	ctx, cancel := context.WithTimeout(p.alive, s.cfg.Timeouts.Connect)
	defer cancel()
	places, err := p.resolve(ctx, named)
	if err != nil {
		return nil, err
	}
	var refused *control.Refusal
	places = slices.DeleteFunc(places, func(to place) bool {
		rule, r := p.destined(s.cfg, s.listener, a.client.Addr(), a.account, to)
		if r == nil {
			r = narrower(rule)
		}
		if r != nil {
			refused = r
		}
		return r != nil
	})
	switch {
	case len(places) > 0:
		return places, nil
	case refused != nil:
		return nil, refused
	}
	return nil, fmt.Errorf("%s has no address", named)
}

// refusedTunnel logs a CONNECT that was turned down.
func (p *Proxy) refusedTunnel(s *setting, a arrival, w wanted, err error) {
	args := []any{"listener", s.listener.Name, "client", a.client, "wanted", w.String()}
	var r *control.Refusal
	if errors.As(err, &r) {
		args = append(args, "text", r.Text, "rule", r.Rule)
	}
	p.log.Warn("refused a tunnel", append(args, "error", err)...)
}
