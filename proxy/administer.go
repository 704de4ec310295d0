package proxy

import (
	"errors"
	"net"
	"net/netip"
	"time"

	"ftpalg/control"
	"ftpalg/proxy/admin"
)

// A Proxy is what is administered.
var _ admin.Gateway = (*Proxy)(nil)

// Live implements admin.Gateway.
func (p *Proxy) Live() *admin.Live { return p.live }

// Ready implements admin.Gateway.
func (p *Proxy) Ready() error {
	p.mu.Lock()
	retired, draining := p.retired, p.ctx.Err() != nil
	p.mu.Unlock()
	switch {
	case retired:
		return errors.New("the next process serves")
	case draining:
		return errors.New("draining")
	}
	return p.Able()
}

// Addresses implements admin.Gateway.
func (p *Proxy) Addresses() []netip.AddrPort { return p.addresses() }

// Pending implements admin.Gateway.
func (p *Proxy) Pending() int {
	p.counts.mu.Lock()
	defer p.counts.mu.Unlock()
	return p.counts.listeners
}

// Audited implements admin.Gateway.
func (p *Proxy) Audited() (written, lost uint64) {
	if log := p.audit.Load(); log != nil {
		return log.Stats()
	}
	return 0, 0
}

// Firewall implements admin.Gateway.
func (p *Proxy) Firewall() (missing int, mended uint64) { return p.upkeep.state() }

// Rules implements admin.Gateway.
func (p *Proxy) Rules() []admin.Rule {
	g := p.regime.Load()
	rules := []admin.Rule{}
	for _, c := range g.set.Counts() {
		r := admin.Rule{Action: string(g.byDefault), Decided: c.N}
		if c.Rule != nil {
			r.Name, r.Action = c.Rule.Name, string(c.Rule.Action)
		}
		rules = append(rules, r)
	}
	return rules
}

// Configuration implements admin.Gateway.
func (p *Proxy) Configuration() []byte {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.cfg.YAML()
}

// killPatience is how long a session that is to end may take to say goodbye, before its connections are closed.
const killPatience = 2 * time.Second

// cutOff ends the session: politely, or if that takes too long by closing its connections. It may be called from any goroutine, at any
// time of the session's, and more than once.
func (v *served) cutOff() {
	v.cancel(control.ErrCut)
	time.AfterFunc(killPatience, v.hangUp)
}

// hangUp closes what connections of the session there still are.
func (v *served) hangUp() {
	v.p.mu.Lock()
	defer v.p.mu.Unlock()
	v.hungUp = true
	below(v.client).Close()
	for _, c := range v.servers {
		c.Close()
	}
}

// meets remembers a connection to a server, for hangUp and leave.
func (v *served) meets(c net.Conn) {
	v.p.mu.Lock()
	defer v.p.mu.Unlock()
	v.servers = append(v.servers, c)
	if v.hungUp {
		c.Close()
	}
}
