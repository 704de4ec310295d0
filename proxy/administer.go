package proxy

import (
	"errors"
	"net"
	"net/netip"
	"time"

	"ftpalg/control"
	"ftpalg/proxy/admin"
)

// administered is a Proxy as package admin sees it.
type administered struct{ *Proxy }

// Administered is the Proxy as an administrator sees it.
func (p *Proxy) Administered() admin.Gateway { return administered{p} }

// Live implements admin.Gateway.
func (a administered) Live() *admin.Live { return a.live }

// Able implements admin.Gateway.
func (a administered) Able() error {
	a.mu.Lock()
	retired, draining := a.retired, a.ctx.Err() != nil
	a.mu.Unlock()
	switch {
	case retired:
		return errors.New("the next process serves")
	case draining:
		return errors.New("draining")
	}
	return a.Proxy.Able()
}

// Addresses implements admin.Gateway.
func (a administered) Addresses() []netip.AddrPort { return a.addresses() }

// Pending implements admin.Gateway.
func (a administered) Pending() int {
	a.counts.mu.Lock()
	defer a.counts.mu.Unlock()
	return a.counts.listeners
}

// Audited implements admin.Gateway.
func (a administered) Audited() (written, lost uint64) {
	if log := a.audit.Load(); log != nil {
		return log.Stats()
	}
	return 0, 0
}

// Rules implements admin.Gateway.
func (a administered) Rules() []admin.Rule {
	g := a.regime.Load()
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
func (a administered) Configuration() []byte {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.cfg.YAML()
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
