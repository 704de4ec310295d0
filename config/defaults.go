package config

import (
	"net/netip"
	"slices"
	"strconv"
	"time"
)

// Default is the configuration without a file: one explicit listener on 127.0.0.1:2121, which only this machine can
// reach, and every other key's default.
func Default() *Config {
	c := &Config{
		Listeners: []Listener{{Mode: Explicit}},
		// Marks and tables are shared with every other program of the machine, which mostly take small numbers or
		// single bits. 0x0f7a is as near as hexadecimal comes to "ftpa"; 3990 is far from the kernel's 253 to 255 and
		// from the round numbers that people choose.
		Accounts:   defaultAccounts(),
		Policy:     defaultPolicy(),
		Audit:      defaultAudit(),
		Privileges: Privileges{Drop: true},
		Mark:       0x0f7a0001,
		DivertMark: 0x0f7a0002,
		RouteTable: 3990,
		LogGroup:   3990,
		Firewall:   FirewallReport,
		Timeouts: Timeouts{
			Connect:      15 * time.Second,
			TLSHandshake: 15 * time.Second,
			Login:        2 * time.Minute,
			Idle:         10 * time.Minute,
			Reply:        2 * time.Minute,
			DataSetup:    30 * time.Second,
			DataIdle:     2 * time.Minute,
			Abort:        time.Second,
			Drain:        30 * time.Second,
		},
		Limits: Limits{
			Sessions:           10000,
			SessionsPerClient:  256,
			SessionsInLogin:    1000,
			DataListeners:      4096,
			Line:               4096,
			ReplyLines:         512,
			ReplyBytes:         64 << 10,
			PendingConnections: 512,
		},
		Log: Log{Format: "text", Level: "info"},
	}
	c.complete()
	return c
}

// complete gives every listener the defaults of its mode, rules that allow those of TLS, and addresses their one
// spelling.
func (c *Config) complete() {
	if len(c.Destinations) == 0 {
		c.Destinations = nil // an empty list is no list, so that Configs compare
	}
	for i := range c.Destinations {
		if d := &c.Destinations[i]; len(d.Allow) > 0 {
			d.TLS.complete()
		}
	}
	c.Policy.complete()
	taken := map[string]bool{}
	for i := range c.Listeners {
		c.Listeners[i].complete(c.TLS.AuthorityCert != "")
		taken[c.Listeners[i].Name] = true
	}
	next := map[Mode]int{}
	for i := range c.Listeners {
		l := &c.Listeners[i]
		for l.Name == "" && l.Mode.valid() {
			next[l.Mode]++
			name := string(l.Mode)
			if n := next[l.Mode]; n > 1 {
				name += "-" + strconv.Itoa(n)
			}
			if !taken[name] {
				l.Name = name
				taken[name] = true
			}
		}
	}
}

// defaultDataPorts is a thousand ports in the dynamic range (RFC 6335 §6): enough for as many armed transfers at once,
// and few enough to name in a firewall's rules.
var defaultDataPorts = PortRange{50000, 50999}

// complete gives the listener the defaults of its mode, except its name. A listener of no known mode stays as it is.
func (l *Listener) complete(authority bool) {
	if !l.Mode.valid() {
		return
	}
	if !l.Address.IsValid() {
		host := netip.IPv6Unspecified()
		if l.Mode == Explicit {
			host = netip.AddrFrom4([4]byte{127, 0, 0, 1}) // it takes clients to any server, so only this machine's until told otherwise
		}
		l.Address = netip.AddrPortFrom(host, 2121)
	}
	if l.Source == "" {
		l.Source = SourceOwn
		if l.Mode == TPROXY {
			l.Source = SourceClient
		}
	}
	if l.DataPorts == (PortRange{}) && l.needsDataPorts() {
		l.DataPorts = defaultDataPorts
	}
	if l.ServerData == "" {
		l.ServerData = DataSame
	}
	if l.DataPath == "" {
		l.DataPath = PathAuto
	}
	if l.Unknown == "" {
		l.Unknown = UnknownRelay
	}
	if l.Mode == Explicit && len(l.Protocols) == 0 {
		l.Protocols = slices.Clone(protocols)
	}
	if l.Sniff == 0 && (l.Speaks(ProtocolHTTP) || l.Speaks(ProtocolSOCKS5)) {
		l.Sniff = defaultSniff
	}
	if l.ProxyProtocol.Send == "" {
		l.ProxyProtocol.Send = ProxyNone
	}
	if len(l.Login) == 0 {
		l.Login = nil // as above
	}
	l.completeTLS(authority)
	if a, err := netip.ParseAddrPort(l.Server); err == nil {
		l.Server = netip.AddrPortFrom(a.Addr().Unmap(), a.Port()).String()
	}
	if a, err := netip.ParseAddr(l.Advertise); err == nil {
		l.Advertise = a.Unmap().String()
	}
}

// protocols are all that an explicit listener may understand.
var protocols = []Protocol{ProtocolFTP, ProtocolHTTP, ProtocolSOCKS5}

// defaultSniff is longer than the way there and back of nearly all clients, and shorter than people notice.
const defaultSniff = 200 * time.Millisecond

// Speaks reports whether an explicit listener understands a protocol.
func (l *Listener) Speaks(p Protocol) bool { return slices.Contains(l.Protocols, p) }

// intercepts reports whether firewall rules bring the listener its connections.
func (l *Listener) intercepts() bool { return l.Mode == TPROXY || l.Mode == Redirect }

// needsDataPorts reports whether firewall rules must know the ports of data connections: where REDIRECT rewrites
// connections, and where they start on this machine and so do not come by the path that finds transparent sockets.
func (l *Listener) needsDataPorts() bool {
	return l.Mode == Redirect || l.Mode == TPROXY && l.Intercept.local()
}

// local reports whether connections that start on this machine are intercepted.
func (in *Intercept) local() bool { return len(in.LocalUIDs) > 0 || len(in.LocalMarks) > 0 }

var modes = []Mode{TPROXY, Redirect, Explicit, Gateway}

func (m Mode) valid() bool { return slices.Contains(modes, m) }
