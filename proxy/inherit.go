package proxy

import (
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/netip"
	"os"
	"syscall"
	"time"

	"ftpalg/config"
	"ftpalg/dataconn"
	"ftpalg/proxy/quota"
)

// Inherited is what a process has from whoever started it: a supervisor that listens in its stead, or the process that it
// is to follow.
type Inherited struct {
	Sockets []Socket
	// Predecessor says that the process before this one still lets its sessions end. What two cannot have at once is its
	// until Succeed.
	Predecessor bool
}

// Socket is a listening socket that somebody else has opened.
type Socket struct {
	File *os.File // the Proxy's from then on
	// Name is what the supervisor calls it, or the listener that the predecessor has opened it for.
	Name string
	// Opened says that the predecessor has opened it: nobody else has it, so it goes when no listener wants it any more.
	Opened bool
}

// inherited are the sockets that were handed over and belong to nobody here: the supervisor has them, too, so an address that
// is no listener's any more is still taken, and may be a listener's again.
type inherited struct {
	sockets []*inheritedSocket
}

// inheritedSocket is one, and what it is.
type inheritedSocket struct {
	Socket
	at          netip.AddrPort
	transparent bool
	only6       bool // bound to an IPv6 address, and deaf to IPv4
}

// errNoListener is a socket of another kind than ours.
var errNoListener = errors.New("it is no listening TCP socket: the .socket unit needs ListenStream= with an address and port, Accept=no, and no SocketProtocol=")

// inherit looks at the sockets that were handed over. Those that cannot be listeners are closed, and logged.
func inherit(in *Inherited, log *slog.Logger) inherited {
	var all inherited
	if in == nil {
		return all
	}
	for _, given := range in.Sockets {
		s := &inheritedSocket{Socket: given}
		if err := s.look(); err != nil {
			log.Warn("a socket that was handed over is of no use", "socket", given.Name, "error", err)
			given.File.Close()
			continue
		}
		all.sockets = append(all.sockets, s)
	}
	return all
}

// fits reports whether a socket is a listener's.
func (s *inheritedSocket) fits(l *config.Listener) bool {
	a := l.Address
	if a.Port() == 0 {
		if s.Name != l.Name { // any port: only the name can tell
			return false
		}
	} else if a.Port() != s.at.Port() {
		return false
	}
	// Every address is ::, of both families, and a socket for one family has its part of it.
	return a.Addr().IsUnspecified() && s.at.Addr().IsUnspecified() || a.Addr().Unmap() == s.at.Addr()
}

// take makes listeners of the sockets that are a listener's: several, if each is for one family; kept if they stay inherited. None, and
// no error: it has none. The error says what is wrong with a socket, and where to mend that.
func (all *inherited) take(k sockets, l *config.Listener, pending int, log *slog.Logger) (taken []*net.TCPListener, kept bool, err error) {
	var ipv4, ipv6 bool
	var left []*inheritedSocket
	for _, s := range all.sockets {
		if !s.fits(l) {
			left = append(left, s)
			continue
		}
		tl, err := s.listen(k, l, pending)
		if err != nil {
			for _, tl := range taken {
				tl.Close()
			}
			return nil, false, fmt.Errorf("listener %s: the socket %s that was handed over for %v %w", l.Name, s.Name, s.at, err)
		}
		taken = append(taken, tl)
		ipv4 = ipv4 || !s.only6
		ipv6 = ipv6 || s.at.Addr().Is6()
		if s.Opened {
			s.File.Close() // the listener has its own, and nobody else any
			continue
		}
		kept = true
		left = append(left, s)
	}
	all.sockets = left
	if a := l.Address.Addr(); len(taken) > 0 && a.IsUnspecified() && (!ipv4 || !ipv6 && a.Is6()) {
		log.Warn("a listener for all addresses was handed sockets for one IP version alone: write ListenStream=PORT without an address, and "+
			"no BindIPv6Only=, in the .socket unit", "listener", l.Name, "ipv4", ipv4, "ipv6", ipv6)
	}
	return taken, kept, nil
}

// Errors of sockets that have the right address. With a transparent socket a listener of another mode would get what is meant for
// that port of any host behind us, by the rule for transparent sockets: a hijack of other people's connections.
var (
	errNotTransparent = errors.New("is not transparent, as mode tproxy needs: write Transparent=yes into its .socket unit, and restart that")
	errTransparent    = errors.New("is transparent, and mode tproxy alone may be: others would get connections to that port of any host; " +
		"take Transparent=yes from its .socket unit, and restart that")
	errOtherMode = errors.New("was opened for a listener of another mode, of which one is tproxy: that takes a restart, not an upgrade")
)

// listen makes a listener of a socket, with what our own have.
func (s *inheritedSocket) listen(k sockets, l *config.Listener, pending int) (*net.TCPListener, error) {
	switch {
	case s.Opened && (l.Mode == config.TPROXY) != s.transparent:
		return nil, errOtherMode
	case l.Mode == config.TPROXY && !s.transparent:
		return nil, errNotTransparent
	case l.Mode != config.TPROXY && s.transparent:
		return nil, errTransparent
	}
	nl, err := net.FileListener(s.File)
	if err != nil {
		return nil, err
	}
	tl := nl.(*net.TCPListener) // look has seen to that
	if err := k.adoptControl(tl, pending); err != nil {
		tl.Close()
		return nil, err
	}
	return tl, nil
}

// settle says which sockets are no listener's. Their clients would wait for ever, whoever holds them.
func (all *inherited) settle(cfg *config.Config, log *slog.Logger) {
	var left []*inheritedSocket
	for _, s := range all.sockets {
		wanted := false
		for i := range cfg.Listeners {
			wanted = wanted || s.fits(&cfg.Listeners[i])
		}
		switch {
		case !wanted && s.Opened:
			s.File.Close()
			log.Info("listening no more", "listener", s.Name, "address", s.at)
			continue
		case !wanted:
			log.Warn("a socket that was handed over is no listener's, so its clients wait in vain: give a listener this address, or take "+
				"ListenStream= from the .socket unit", "socket", s.Name, "address", s.at, "transparent", s.transparent)
		}
		left = append(left, s)
	}
	all.sockets = left
}

// close lets go of all sockets.
func (all *inherited) close() {
	for _, s := range all.sockets {
		s.File.Close()
	}
	all.sockets = nil
}

// HandOver returns our listening sockets, for a next process to inherit: those that we have inherited and those that we have opened.
// They go on being ours; the files are the caller's to close.
func (p *Proxy) HandOver() ([]Socket, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	var all []Socket
	add := func(c syscall.Conn, name string, opened bool) error {
		file, err := duplicate(c)
		if err != nil {
			return fmt.Errorf("socket %s: %w", name, err)
		}
		all = append(all, Socket{file, name, opened})
		return nil
	}
	var err error
	for _, s := range p.inherited.sockets {
		err = errors.Join(err, add(s.File, s.Name, false))
	}
	for _, l := range p.listeners {
		if l.given { // it is among those
			continue
		}
		for _, tl := range l.all() {
			err = errors.Join(err, add(tl, l.setting.Load().listener.Name, true))
		}
	}
	if err != nil {
		for _, s := range all {
			s.File.Close()
		}
		return nil, err
	}
	return all, nil
}

// LendBooks lets go of the file of quotas' counts, which only one process can have, for the next one to open, and of the kernel's
// rules. Until Retire or RegainBooks there is no Reload.
func (p *Proxy) LendBooks() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.upkeep.pause(true)
	p.lent = p.quotas.Load()
	if err := p.lent.Lend(); err != nil {
		p.log.Error("the counts of quotas are not written for the next process", "error", err)
	}
}

// RegainBooks takes it back, as the next process has not come to be.
func (p *Proxy) RegainBooks() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.upkeep.pause(false)
	p.lent.Regain()
	p.lent = nil
}

// Late is what has been counted since LendBooks. The next process is to be told when all sessions have ended.
func (p *Proxy) Late() []quota.Late {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.lent.Late()
}

// Retire stops accepting, since the next process does, and returns when all sessions are over. They go on as if nothing had happened
// for timeouts.drain, or until hurry is closed; then it is Drain.
func (p *Proxy) Retire(hurry <-chan struct{}) {
	p.mu.Lock()
	p.retired = true
	for _, l := range p.listeners {
		l.Close()
	}
	p.inherited.close()
	patience := time.NewTimer(p.cfg.Timeouts.Drain)
	p.mu.Unlock()
	defer patience.Stop()
	p.loops.Wait()
	over := make(chan struct{})
	go p.awaitSessions(over)
	select {
	case <-over:
	case <-hurry:
	case <-patience.C:
	}
	p.Drain()
}

// awaitSessions closes over when there are no sessions any more.
func (p *Proxy) awaitSessions(over chan<- struct{}) {
	p.sessions.Wait()
	close(over)
}

// Succeed takes up what the predecessor has had to itself until now: it has ended. late is what it has counted since it lent us the
// quotas' counts.
func (p *Proxy) Succeed(late []quota.Late) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if store := p.quotas.Load(); store != nil {
		store.Add(late)
	} else if p.cfg.Policy.State != "" { // we have ended before it, and closed the file
		store, err := quota.Open(string(p.cfg.Policy.State), p.log)
		if err == nil {
			store.Add(late)
			err = store.Close()
		}
		if err != nil {
			p.log.Error("what the process before this one has counted is not kept", "error", err)
		}
	}
	p.pinholes.succeed()
	if p.ctx.Err() == nil {
		p.pinholes.adopt(p.cfg)
	}
}

// Able reports why nobody can be served, nil if all is well: our lock can be had, or it does not return, and every listener accepts.
func (p *Proxy) Able() error {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.retired || p.ctx.Err() != nil {
		return nil // it is not our business any more
	}
	for _, l := range p.listeners {
		if int(l.accepting.Load()) < len(l.all()) {
			return fmt.Errorf("listener %s at %v does not accept connections any more", l.setting.Load().listener.Name, dataconn.AddrPort(l.Addr()))
		}
	}
	return nil
}

// Sessions is how many there are.
func (p *Proxy) Sessions() int {
	p.counts.mu.Lock()
	defer p.counts.mu.Unlock()
	return p.counts.sessions
}
