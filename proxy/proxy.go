// Package proxy is where sessions come from: control ports, how intercepted connections reveal their server, which
// servers may be reached, how many sessions there may be, and the real sockets that package control's conversations and
// package dataconn's transfers run on. All of ftpalg's system calls are here and in package firewall.
package proxy

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/netip"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"ftpalg/config"
	"ftpalg/dataconn"
	"ftpalg/proxy/accounts"
	"ftpalg/proxy/admin"
	"ftpalg/proxy/audit"
	"ftpalg/proxy/firewall"
	"ftpalg/proxy/quota"
)

// Proxy is a running gateway. Make one with New.
type Proxy struct {
	log        *slog.Logger
	resolver   *net.Resolver
	live       *admin.Live
	counts     counts
	ports      portRanges
	own        ownAddresses
	allowances allowances
	pinholes   pinholes
	tunnels    tunnels
	remains    *firewall.TimeWaits
	guard      *accounts.Guard
	upkeep     upkeep
	regime     atomic.Pointer[regime]
	quotas     atomic.Pointer[quota.Store]
	audit      atomic.Pointer[audit.Log] // nil: nothing is recorded
	inherited  inherited                 // guarded by mu
	retired    bool                      // the same: the next process accepts
	lent       *quota.Store              // the same: whose file the next process has; nil: none
	sessions   sync.WaitGroup
	loops      sync.WaitGroup // accept loops
	watches    sync.WaitGroup // what looks at this machine until we drain

	mu         sync.Mutex
	cfg        *config.Config // in force; nil before the first
	identities *identities    // of it
	listeners  map[address]*listener
	conns      map[net.Conn]struct{} // the control connections of running sessions
	ctx        context.Context       // done when draining begins
	drain      context.CancelFunc
	alive      context.Context // done when sessions are cut off
	cut        context.CancelFunc
}

// New opens the listeners of a configuration and begins to serve them. The error names each listener that cannot be
// opened and what would help; then none is. End with Drain or Close.
func New(cfg *config.Config, log *slog.Logger) (*Proxy, error) { return NewFrom(cfg, log, nil) }

// NewFrom is New with what the process has inherited, nil if nothing: a listener that has been handed over is not opened.
func NewFrom(cfg *config.Config, log *slog.Logger, in *Inherited) (*Proxy, error) {
	p := &Proxy{log: log, resolver: net.DefaultResolver, live: admin.NewLive(), listeners: map[address]*listener{}, conns: map[net.Conn]struct{}{},
		pinholes: pinholes{log: log}, upkeep: upkeep{log: log}, remains: firewall.NewTimeWaits(), guard: accounts.NewGuard(), allowances: allowances{log: log, ports: map[netip.AddrPort]*allowedPort{}}}
	p.upkeep.again = p.pinholes.unblock
	p.ctx, p.drain = context.WithCancel(context.Background())
	p.alive, p.cut = context.WithCancel(context.Background())
	p.inherited = inherit(in, log)
	p.pinholes.waiting = in != nil && in.Predecessor
	if err := p.Reload(cfg); err != nil {
		p.drain()
		p.inherited.close()
		return nil, err
	}
	p.watches.Go(func() { p.watchClocks(p.ctx.Done()) })
	return p, nil
}

// Reload makes another configuration the one in force: for all connections accepted from now on. Sessions that run keep the
// one they began with. Listeners that both have stay open, so that no connection is lost. On error nothing changes.
func (p *Proxy) Reload(cfg *config.Config) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.ctx.Err() != nil || p.retired {
		return errors.New("shutting down")
	}
	if p.lent != nil {
		return errors.New("an upgrade is under way: reload when it is done")
	}
	id, wrong := identify(cfg, p.log)
	if len(wrong) > 0 {
		return wrong
	}
	known, wrong := openAccounts(cfg, p.guard, p.log)
	if len(wrong) > 0 {
		id.close()
		return wrong
	}
	g, wrong := newRegime(cfg, known)
	if len(wrong) > 0 {
		id.close()
		return wrong
	}
	store, record, err := p.openBooks(cfg)
	if err != nil {
		id.close()
		return err
	}
	k := sockets{mayBeTransparent: canBeTransparent() == nil}
	if canMark() {
		k.mark = uint32(cfg.Mark)
	}
	next := map[address]*listener{}
	var opened, cleared []*listener
	var faults []error
	for i := range cfg.Listeners {
		s := &setting{cfg: cfg, listener: &cfg.Listeners[i], sockets: k, identities: id, accounts: known}
		a := addressOf(s.listener)
		if _, ok := p.listeners[a]; ok {
			continue
		}
		l, err := p.open(s)
		if errors.Is(err, syscall.EADDRINUSE) {
			if away := p.makeWay(a, cfg); len(away) > 0 {
				cleared = append(cleared, away...)
				l, err = p.open(s)
			}
		}
		if err != nil {
			faults = append(faults, err)
			continue
		}
		next[a] = l
		opened = append(opened, l)
	}
	if len(faults) == 0 {
		if err := p.upkeep.adopt(cfg); err != nil {
			faults = append(faults, err)
		}
	}
	if len(faults) > 0 {
		for _, l := range opened {
			l.Close()
		}
		for _, l := range cleared {
			if err := p.reopen(l); err != nil {
				faults = append(faults, err)
			}
		}
		id.close()
		p.closeBooks(store, record)
		return errors.Join(faults...)
	}
	if p.identities != nil {
		p.identities.close()
	}
	p.identities = id
	// From here on nothing fails that leaves less than there was.
	g.succeed(p.regime.Load())
	p.keepBooks(store, record)
	if old := p.regime.Swap(g); old != nil {
		old.tally(p.log)
	}
	p.cfg = cfg
	p.pinholes.adopt(cfg)
	for i := range cfg.Listeners {
		s := &setting{cfg: cfg, listener: &cfg.Listeners[i], sockets: k, identities: id, accounts: known}
		if l, ok := p.listeners[addressOf(s.listener)]; ok {
			if err := l.adopt(s); err != nil {
				faults = append(faults, err)
			}
			next[addressOf(s.listener)] = l
		}
	}
	for a, l := range p.listeners {
		if next[a] == nil {
			l.Close()
		}
	}
	p.listeners = next
	var names []string
	for i := range cfg.Listeners {
		names = append(names, cfg.Listeners[i].Name)
	}
	p.live.Listening(names)
	for _, l := range opened {
		p.listen(l)
	}
	p.inherited.settle(cfg, p.log)
	p.upkeep.begin()
	return errors.Join(faults...)
}

// remainsPatience is how long we stay for the clients' and servers' ends of closed connections.
const remainsPatience = 500 * time.Millisecond

// Drain stops accepting, lets each session finish its transfer for at most timeouts.drain, and returns when all are over.
func (p *Proxy) Drain() {
	p.stopAccepting()
	// A session that waits for the audit would never hear that it is to end.
	p.mu.Lock()
	patience := p.cfg.Timeouts.Drain
	p.mu.Unlock()
	defer time.AfterFunc(patience, p.hurryAudit).Stop()
	p.finish()
}

// Close stops accepting and cuts all sessions off. It returns when they are over.
func (p *Proxy) Close() {
	p.stopAccepting()
	p.hurryAudit()
	p.cut()
	p.mu.Lock()
	for c := range p.conns {
		c.Close()
	}
	p.mu.Unlock()
	p.finish()
}

// finish waits for what still runs, and gives up what the proxy has.
func (p *Proxy) finish() {
	p.loops.Wait()
	p.sessions.Wait()
	p.pinholes.close()
	p.upkeep.end()
	p.watches.Wait()
	p.remains.Settle(remainsPatience)
	p.keepBooks(nil, nil)
	p.regime.Load().tally(p.log)
}

func (p *Proxy) stopAccepting() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.drain()
	for _, l := range p.listeners {
		l.Close()
	}
	p.inherited.close()
}

// addresses are those of our control listeners.
func (p *Proxy) addresses() []netip.AddrPort {
	p.mu.Lock()
	defer p.mu.Unlock()
	var as []netip.AddrPort
	for a, l := range p.listeners {
		at := a.at
		if at.Port() == 0 {
			at = dataconn.AddrPort(l.Addr())
		}
		as = append(as, at)
	}
	return as
}

// track remembers a control connection for Close, until untrack; after Close it closes it.
func (p *Proxy) track(c net.Conn) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.conns[c] = struct{}{}
	if p.alive.Err() != nil {
		c.Close()
	}
}

// drop closes a control connection that p.track knows.
func (p *Proxy) drop(c net.Conn) {
	c.Close()
	p.untrack(below(c))
}

func (p *Proxy) untrack(c net.Conn) {
	p.mu.Lock()
	defer p.mu.Unlock()
	delete(p.conns, c)
}

// listenError says what an admin can do about a listener that does not open.
func listenError(l *config.Listener, err error) error {
	hint := ""
	switch {
	case errors.Is(err, syscall.EADDRINUSE):
		hint = "; another program has this port: `ss -ltnp` shows which"
	case errors.Is(err, syscall.EPERM) && l.Mode == config.TPROXY:
		hint = "; run as root or grant CAP_NET_ADMIN (AmbientCapabilities=CAP_NET_ADMIN CAP_NET_BIND_SERVICE)"
	case errors.Is(err, syscall.EACCES):
		hint = "; ports below 1024 need root or CAP_NET_BIND_SERVICE"
	}
	return fmt.Errorf("listener %s: %w%s", l.Name, err, hint)
}
