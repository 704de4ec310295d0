package proxy

import (
	"errors"
	"net"
	"net/netip"
	"slices"
	"sync/atomic"
	"syscall"
	"time"

	"ftpalg/config"
	"ftpalg/dataconn"
	"ftpalg/proxy/accounts"
)

// listener is a control port that is open.
type listener struct {
	*net.TCPListener
	more      []*net.TCPListener // others, as a supervisor may open one for each IP version
	foreign   bool               // somebody else has opened them
	given     bool               // they are among inherited.sockets
	accepting atomic.Int32       // how many of them are
	// setting is what the configuration in force says of it. A reload may change it; a session keeps what it began with.
	setting atomic.Pointer[setting]
}

// setting is a listener's configuration with the whole that it is a part of.
type setting struct {
	cfg        *config.Config
	listener   *config.Listener
	sockets    sockets
	identities *identities
	accounts   *accounts.Accounts // nil: there are none
}

// address is what tells a listener from another across a reload.
type address struct {
	at          netip.AddrPort
	transparent bool
	name        string // where the port is 0, any: several listeners may have that
}

func addressOf(l *config.Listener) address {
	a := address{at: l.Address, transparent: l.Mode == config.TPROXY}
	if a.at.Port() == 0 {
		a.name = l.Name
	}
	return a
}

// all are its sockets.
func (l *listener) all() []*net.TCPListener {
	return append([]*net.TCPListener{l.TCPListener}, l.more...)
}

// Close implements net.Listener.
func (l *listener) Close() error {
	var err error
	for _, tl := range l.all() {
		err = errors.Join(err, tl.Close())
	}
	return err
}

// open opens a listener of a configuration, unless it has been handed over.
func (p *Proxy) open(s *setting) (*listener, error) {
	given, kept, err := p.inherited.take(s.sockets, s.listener, s.cfg.Limits.PendingConnections, p.log)
	if err != nil {
		return nil, err
	}
	if len(given) > 0 {
		l := &listener{TCPListener: given[0], more: given[1:], foreign: true, given: kept}
		l.setting.Store(s)
		return l, nil
	}
	tl, err := s.sockets.listenControl(s.listener.Address, s.listener.Mode == config.TPROXY, false, s.cfg.Limits.PendingConnections)
	if errors.Is(err, syscall.EADDRNOTAVAIL) {
		// It may come: by DHCP after we were started, or when another machine fails whose part this one takes (VRRP).
		tl, err = s.sockets.listenControl(s.listener.Address, false, true, s.cfg.Limits.PendingConnections)
		if err == nil {
			p.log.Warn("this machine does not have a listener's address; it gets connections as soon as it has: `ip address` shows those there are",
				"listener", s.listener.Name, "address", s.listener.Address)
		}
	}
	if err != nil {
		return nil, listenError(s.listener, err)
	}
	l := &listener{TCPListener: tl}
	l.setting.Store(s)
	return l, nil
}

// listen has connections accepted at a listener, and says so.
func (p *Proxy) listen(l *listener) {
	s := l.setting.Load().listener
	p.log.Info("listening", "listener", s.Name, "mode", s.Mode, "address", dataconn.AddrPort(l.Addr()))
	for _, tl := range l.all() {
		l.accepting.Add(1)
		p.loops.Go(func() { p.accept(l, tl) })
	}
}

// makeWay closes listeners that are in the way of an address, since it is theirs in another mode or one of the two is every address, and
// that a configuration does not have any more. It returns them.
func (p *Proxy) makeWay(wanted address, cfg *config.Config) (closed []*listener) {
	stays := func(a address) bool {
		return slices.ContainsFunc(cfg.Listeners, func(l config.Listener) bool { return addressOf(&l) == a })
	}
	for a, l := range p.listeners {
		every := a.at.Addr().IsUnspecified() || wanted.at.Addr().IsUnspecified()
		if a.at.Port() != wanted.at.Port() || !every && a.at != wanted.at || stays(a) {
			continue
		}
		l.Close()
		delete(p.listeners, a)
		closed = append(closed, l)
	}
	return closed
}

// reopen opens a listener again that has been closed, as it was.
func (p *Proxy) reopen(l *listener) error {
	again, err := p.open(l.setting.Load())
	if err != nil {
		return err
	}
	p.listeners[addressOf(again.setting.Load().listener)] = again
	p.listen(again)
	return nil
}

// adopt makes an open listener follow another configuration.
func (l *listener) adopt(s *setting) error {
	for _, tl := range l.all() {
		if err := s.sockets.readjust(tl, s.cfg.Limits.PendingConnections); err != nil {
			return listenError(s.listener, err)
		}
	}
	l.setting.Store(s)
	return nil
}

// accept takes connections at one of a listener's sockets until that is closed. A shortage of descriptors passes: it waits, and says so.
func (p *Proxy) accept(l *listener, tl *net.TCPListener) {
	defer l.accepting.Add(-1)
	const shortest, longest = 5 * time.Millisecond, time.Second
	delay := shortest
	for {
		c, err := tl.AcceptTCP()
		if err == nil {
			delay = shortest
			if l.foreign {
				c.SetKeepAliveConfig(keepAlive) // Go sets what it was told of listeners of its own making alone
			}
			p.sessions.Add(1)
			go p.serve(l.setting.Load(), c)
			continue
		}
		if errors.Is(err, net.ErrClosed) {
			return
		}
		s := l.setting.Load()
		p.live.Metrics().AcceptFailed(s.listener.Name)
		p.log.Error("cannot accept connections; raise the limit on open files (LimitNOFILE=, ulimit -n) or lower limits.sessions",
			"listener", s.listener.Name, "error", err, "retry", delay.String())
		time.Sleep(delay)
		delay = min(2*delay, longest)
	}
}
