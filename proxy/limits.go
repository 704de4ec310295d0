package proxy

import (
	"fmt"
	"net/netip"
	"sync"

	"ftpalg/config"
	"ftpalg/control"
)

// counts are what is held at the moment, against which config.Limits are checked. They outlive reloads.
type counts struct {
	mu        sync.Mutex
	sessions  int
	inLogin   int
	perClient map[netip.Addr]int
	listeners int
}

// admit counts a session in, or says which limit it exceeds.
func (c *counts) admit(client netip.Addr, l config.Limits) *control.Refusal {
	c.mu.Lock()
	defer c.mu.Unlock()
	who := counted(client)
	switch {
	case c.sessions >= l.Sessions:
		return overLimit("Too many sessions", "limits.sessions", l.Sessions)
	case c.inLogin >= l.SessionsInLogin:
		return overLimit("Too many sessions are logging in", "limits.sessions_in_login", l.SessionsInLogin)
	case c.perClient[who] >= l.SessionsPerClient:
		return overLimit("Too many sessions from your address", "limits.sessions_per_client", l.SessionsPerClient)
	}
	if c.perClient == nil {
		c.perClient = make(map[netip.Addr]int)
	}
	c.sessions++
	c.inLogin++
	c.perClient[who]++
	return nil
}

func overLimit(text, key string, value int) *control.Refusal {
	return &control.Refusal{Code: 421, Text: text + ", try again later", Rule: fmt.Sprintf("%s %d", key, value), End: true}
}

// loggedIn says that an admitted session has logged in.
func (c *counts) loggedIn() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.inLogin--
}

// leave counts a session out.
func (c *counts) leave(client netip.Addr, wasLoggedIn bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.sessions--
	if !wasLoggedIn {
		c.inLogin--
	}
	who := counted(client)
	if c.perClient[who]--; c.perClient[who] == 0 {
		delete(c.perClient, who)
	}
}

// listen counts a data listener in.
func (c *counts) listen(l config.Limits) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.listeners >= l.DataListeners {
		return &control.Refusal{Code: 425, Text: "Too many data connections are being opened, try again later",
			Rule: fmt.Sprintf("limits.data_listeners %d", l.DataListeners)}
	}
	c.listeners++
	return nil
}

// unlisten counts a data listener out.
func (c *counts) unlisten() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.listeners--
}

// counted is what limits count a client as: its address, or for IPv6 its /64, since one host has all of that.
func counted(a netip.Addr) netip.Addr {
	if a.Is6() {
		p, err := a.WithZone("").Prefix(64)
		if err == nil {
			return p.Addr()
		}
	}
	return a
}
