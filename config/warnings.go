package config

import (
	"net/netip"
	"slices"
	"strings"
	"time"
)

// rfc1123Idle is how long a server must wait for a command at least (RFC 1123 §4.1.3.2).
const rfc1123Idle = 5 * time.Minute

// strange warns of what is allowed and is probably a mistake.
func (k *checker) strange(c *Config) {
	if c.Timeouts.Idle < rfc1123Idle {
		k.warn("timeouts.idle", "is %s; RFC 1123 §4.1.3.2 wants 5m at least, and people who think get 421",
			formatDuration(c.Timeouts.Idle))
	}
	decided := slices.ContainsFunc(c.Destinations, func(d Destination) bool {
		return slices.Contains(d.Allow, Target{Host: "*"}) || slices.Contains(d.Deny, Target{Host: "*"})
	})
	for i := range c.Listeners {
		l, key := &c.Listeners[i], element("listeners", i)
		if l.Mode == Explicit && !l.Address.Addr().IsLoopback() && !decided {
			k.warn(key, "whoever reaches %s can reach every public server through it; end destinations with - deny: \"*\", "+
				"or with - allow: \"*\" if that is meant", l.Address)
		}
		for j := range i {
			if earlier := &c.Listeners[j]; shadows(earlier, l) {
				k.warn(key+".intercept", "listener %s comes first and takes every connection that this one would", earlier.Name)
				break
			}
		}
	}
	k.strangeDestinations(c)
	k.strangeAccounts(c)
	k.strangePolicy(c)
	k.strangeTLS(c)
}

func (k *checker) strangeDestinations(c *Config) {
	named := slices.ContainsFunc(c.Listeners, func(l Listener) bool { return !l.intercepts() })
	last := -1 // the rule that matches everything
	for i, d := range c.Destinations {
		key := element("destinations", i)
		if last >= 0 {
			k.warn(key, "is never reached, because %s matches every server", element("destinations", last))
			continue
		}
		for _, t := range slices.Concat(d.Allow, d.Deny) {
			if t.Host == "*" && len(d.Ports) == 0 && len(d.Accounts) == 0 && len(d.Groups) == 0 {
				last = i
			}
			if t.Host != "" && strings.Trim(t.Host, "*") != "" && !named {
				k.warn(key, "%s never matches: no listener is of mode explicit or gateway, and the others learn addresses only",
					t.Host)
			}
		}
	}
}

// shadows reports whether a takes every connection that b is meant to intercept.
func shadows(a, b *Listener) bool {
	if !a.intercepts() || !b.intercepts() {
		return false
	}
	x, y := &a.Intercept, &b.Intercept
	return families(a.Address, b.Address) &&
		all(x.Ports, y.Ports, func(p, q PortRange) bool { return p.First <= q.First && q.Last <= p.Last }) &&
		all(x.Clients, y.Clients, contains) &&
		all(x.Servers, y.Servers, contains) &&
		all(x.Interfaces, y.Interfaces, func(p, q string) bool { return p == q }) &&
		subset(y.LocalUIDs, x.LocalUIDs) && subset(y.LocalMarks, x.LocalMarks)
}

// families reports whether a listener on a can have the connections of all families that one on b can.
func families(a, b netip.AddrPort) bool {
	return a.Addr() == netip.IPv6Unspecified() ||
		b.Addr() != netip.IPv6Unspecified() && a.Addr().Is4() == b.Addr().Is4()
}

// all reports whether the criterion x lets everything pass that y does, where none stands for any.
func all[T any](x, y []T, covers func(p, q T) bool) bool {
	if len(x) == 0 {
		return true
	}
	for _, q := range y {
		if !slices.ContainsFunc(x, func(p T) bool { return covers(p, q) }) {
			return false
		}
	}
	return len(y) > 0
}

func contains(p, q netip.Prefix) bool { return p.Bits() <= q.Bits() && p.Contains(q.Addr()) }

func subset[T comparable](s, of []T) bool {
	return !slices.ContainsFunc(s, func(e T) bool { return !slices.Contains(of, e) })
}
