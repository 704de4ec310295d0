package proxy

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"sync"
	"syscall"

	"ftpalg/config"
	"ftpalg/dataconn"
	"ftpalg/proxy/accounts"
	"ftpalg/proxy/firewall"
	"ftpalg/tlsmitm"
)

// network opens the sockets of one session. It is dataconn.Network for its data connections.
//
//	transparent   client side                        server side
//	Listen        on the server's address            on the client's address
//	Dial          from the server's address, port 20 from the client's address
//
// A side that is not transparent has an address of this machine, and listens in data_ports.
type network struct {
	sockets
	cfg      *config.Config
	listener *config.Listener
	counts   *counts
	ports    *portRanges
	own      *ownAddresses
	remains  *firewall.TimeWaits
	pinholes *pinholes

	identities *identities
	tls        *tlsmitm.Session  // nil: TLS is refused
	account    *accounts.Account // who has logged in to the proxy; nil: nobody
	rule       int               // of Config.Destinations, that the server is reached by; -1: none

	places       []place                                                                // where the server is, if the client has named it otherwise than by FTP
	listenClient func(ctx context.Context, server netip.AddrPort) (net.Listener, error) // nil: the client's data connections come to ports of ours

	client netip.AddrPort // the client
	conn   net.Conn       // its control connection
	name   string         // of the server, in lower case; empty: it was given by address
	place  place          // of the server, once it is connected
	dialed netip.AddrPort // what the client dialed, as it sees it; the zero value where that was ourselves
	local  netip.AddrPort // our end of the client's control connection
	// announced is where the client has connected to, if a load balancer has brought its connection. It is an address of ours or not.
	announced netip.AddrPort
	server    *net.TCPConn // the server's control connection, once there is one
}

// transparent reports whether that side sees the other's address instead of ours.
func (n *network) transparent(side dataconn.Side) bool {
	if side == dataconn.Client {
		return n.listener.Mode == config.TPROXY
	}
	return n.listener.Source == config.SourceClient
}

// dialServer connects the control connection to a server.
func (n *network) dialServer(ctx context.Context, to netip.AddrPort) (*net.TCPConn, error) {
	transparent := n.transparent(dataconn.Server)
	var from netip.AddrPort
	if transparent {
		if n.client.Addr().Is4() != to.Addr().Is4() {
			return nil, fmt.Errorf("source: client cannot reach %v from %v: another address family", to, n.client.Addr())
		}
		from = netip.AddrPortFrom(n.client.Addr(), 0)
	}
	// Not from the client's own port: both connections would be one to a connection tracker.
	c, err := n.dial(ctx, from, to, n.client.Port(), transparent, false)
	if err != nil {
		return nil, err
	}
	if send := n.listener.ProxyProtocol.Send; send != config.ProxyNone {
		if err := announce(c, send, n.client, to); err != nil {
			c.Close()
			return nil, err
		}
	}
	n.server = c
	return c, nil
}

// Listen implements dataconn.Network.
func (n *network) Listen(ctx context.Context, side dataconn.Side, avoid uint16) (net.Listener, error) {
	if err := n.counts.listen(n.cfg.Limits); err != nil {
		return nil, err
	}
	l, err := n.listen(ctx, side, avoid)
	if err != nil {
		n.counts.unlisten()
		return nil, err
	}
	if side == dataconn.Client && n.announced.IsValid() {
		l = &announcedListener{l, n.listener, n.announced.Addr()}
	}
	return &countedListener{Listener: l, counts: n.counts}, nil
}

func (n *network) listen(ctx context.Context, side dataconn.Side, avoid uint16) (net.Listener, error) {
	if side == dataconn.Client && n.listenClient != nil {
		return n.listenClient(ctx, dataconn.AddrPort(n.server.RemoteAddr()))
	}
	transparent := n.transparent(side)
	var at netip.Addr
	switch {
	case transparent && side == dataconn.Client:
		at = n.dialed.Addr()
	case transparent:
		at = n.client.Addr()
	case side == dataconn.Client && n.announced.IsValid():
		at = netip.IPv6Unspecified() // the client may come to any address of ours, or the load balancer
	case side == dataconn.Client:
		at = n.local.Addr()
	default:
		at = dataconn.AddrPort(n.server.LocalAddr()).Addr()
	}
	var l net.Listener
	err := n.eachPort(at, avoid, func(at netip.AddrPort) (err error) {
		l, err = n.listenData(ctx, at, transparent)
		return err
	})
	return l, err
}

// listenAt listens for the client on one port.
func (n *network) listenAt(ctx context.Context, at netip.AddrPort) (net.Listener, error) {
	if err := n.counts.listen(n.cfg.Limits); err != nil {
		return nil, err
	}
	l, err := n.listenData(ctx, at, n.transparent(dataconn.Client))
	if err != nil {
		n.counts.unlisten()
		return nil, err
	}
	return &countedListener{Listener: l, counts: n.counts}, nil
}

// Closed implements dataconn.Undertaker.
func (n *network) Closed(side dataconn.Side, local, peer netip.AddrPort) {
	if n.foreign(side) {
		n.remains.Forget(local, peer)
	}
}

// Quicken implements dataconn.Quickener.
func (n *network) Quicken(c net.Conn) net.Conn {
	if t, ok := c.(*net.TCPConn); ok {
		return swiftly(t, dataconn.AddrPort(t.RemoteAddr()))
	}
	return c
}

// foreign reports whether our data connections on a side may have the other side's address.
func (n *network) foreign(side dataconn.Side) bool {
	return n.transparent(side) || side == dataconn.Client && n.listener.Mode == config.Redirect
}

// Dial implements dataconn.Network.
func (n *network) Dial(ctx context.Context, side dataconn.Side, from uint16, to netip.AddrPort) (net.Conn, error) {
	transparent := n.transparent(side)
	if side == dataconn.Client && n.listener.Mode == config.Redirect {
		// Some clients (ncftp) look who is calling. NAT does not help here, since nobody redirected this connection.
		transparent = n.mayBeTransparent
	}
	if side == dataconn.Server {
		var at netip.AddrPort
		if transparent {
			at = netip.AddrPortFrom(n.client.Addr(), 0)
		}
		return n.dialData(ctx, at, to, transparent)
	}
	if n.announced.IsValid() {
		return n.dialData(ctx, netip.AddrPort{}, to, false)
	}
	at, control := n.local.Addr(), n.local.Port()
	if transparent {
		at, control = n.dialed.Addr(), n.dialed.Port()
	} else if n.dialed.IsValid() {
		control = n.dialed.Port()
	}
	if from == 0 {
		from = control - 1 // RFC 959 §3.2: the server's default data port
	}
	c, err := n.dialData(ctx, netip.AddrPortFrom(at, from), to, transparent)
	if errors.Is(err, syscall.EADDRINUSE) || errors.Is(err, syscall.EADDRNOTAVAIL) || errors.Is(err, syscall.EACCES) {
		// The port is somebody's, or not for us. Few clients look at it.
		c, err = n.dialData(ctx, netip.AddrPortFrom(at, 0), to, transparent)
	}
	return c, err
}

// dialData is dial for data connections, without the trap of a nil *net.TCPConn in a net.Conn.
func (n *network) dialData(ctx context.Context, from, to netip.AddrPort, transparent bool) (net.Conn, error) {
	c, err := n.dial(ctx, from, to, n.client.Port(), transparent, true)
	if err != nil {
		return nil, err
	}
	return c, nil
}

// countedListener is a data listener against limits.data_listeners. Its connections are bare, so they are spliced.
type countedListener struct {
	net.Listener
	counts *counts
	once   sync.Once
}

// Close closes the listener and counts it out, once.
func (l *countedListener) Close() error {
	err := l.Listener.Close()
	l.once.Do(l.counts.unlisten)
	return err
}
