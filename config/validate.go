package config

import (
	"fmt"
	"net"
	"net/netip"
	"reflect"
	"slices"
	"strconv"
	"time"
)

// Validate reports everything that is wrong with a complete Config, such as Load and Default give, as Faults without
// file and line; nil if nothing is. What Load returned is valid.
func (c *Config) Validate() error { return c.check().faults.asError() }

// checker collects what is wrong and what is strange.
type checker struct {
	faults   Faults
	warnings Faults
}

func (k *checker) fault(key, text string, args ...any) {
	k.faults = append(k.faults, Fault{Key: key, Text: fmt.Sprintf(text, args...)})
}

func (k *checker) warn(key, text string, args ...any) {
	k.warnings = append(k.warnings, Fault{Key: key, Text: fmt.Sprintf(text, args...)})
}

func (c *Config) check() *checker {
	k := &checker{}
	k.together("tls", "authority_cert", "authority_key", c.TLS.AuthorityCert, c.TLS.AuthorityKey)
	k.listeners(c)
	for i, d := range c.Destinations {
		k.destination(element("destinations", i), d)
	}
	k.accounts(c)
	k.policy(c)
	k.audit(c)
	k.admin(c)
	k.marks(c)
	k.positive("timeouts", c.Timeouts)
	k.positive("limits", c.Limits)
	k.atLeast("limits.line", c.Limits.Line, 512)
	k.atLeast("limits.reply_bytes", c.Limits.ReplyBytes, 512)
	oneOf(k, "firewall", c.Firewall, []Firewall{FirewallReport, FirewallApply, FirewallIgnore})
	oneOf(k, "log.format", c.Log.Format, []string{"text", "json"})
	oneOf(k, "log.level", c.Log.Level, []string{"debug", "info", "warn", "error"})
	if len(k.faults) == 0 {
		k.strange(c) // its questions assume a valid Config
	}
	return k
}

// oneOf checks that a word is one of the allowed.
func oneOf[T ~string](k *checker, key string, word T, allowed []T) {
	for _, a := range allowed {
		if word == a {
			return
		}
	}
	if word == "" {
		k.fault(key, "is missing; write one of: %s", list(allowed))
		return
	}
	k.fault(key, "%s is not one of: %s", quoted(string(word)), list(allowed))
}

// positive checks that every number of a struct is more than zero.
func (k *checker) positive(key string, section any) {
	v := reflect.ValueOf(section)
	for i, name := range names(v.Type()) {
		if v.Field(i).Int() <= 0 {
			k.fault(join(key, name), "must be more than zero; it cannot be switched off, but it can be large")
		}
	}
}

// atLeast checks sizes below which FTP does not work.
func (k *checker) atLeast(key string, size, least Size) {
	if 0 < size && size < least {
		k.fault(key, "is %v; must be %dB at least, or lines that FTP needs will not fit", size, int64(least))
	}
}

func (k *checker) marks(c *Config) {
	if c.Mark == 0 {
		k.fault("mark", "must not be zero, which is the mark of all other traffic")
	}
	if c.DivertMark == 0 {
		k.fault("divert_mark", "must not be zero, which is the mark of all other traffic")
	}
	if c.Mark == c.DivertMark && c.Mark != 0 {
		key, other := "divert_mark", "mark"
		if c.DivertMark == Default().DivertMark {
			key, other = other, key // the one that somebody chose
		}
		k.fault(key, "is %v and so is %s; they must differ, or ftpalg's own packets are sent back to it", c.Mark, other)
	}
	if c.RouteTable < 1 || c.RouteTable > 1<<31-1 {
		k.fault("route_table", "must be from 1 to %d", 1<<31-1)
	}
	if c.RouteTable >= 253 && c.RouteTable <= 255 {
		k.fault("route_table", "%d is one of the kernel's own tables (253 default, 254 main, 255 local); choose another", c.RouteTable)
	}
	if c.LogGroup < 1 || c.LogGroup > 65535 {
		k.fault("log_group", "must be from 1 to 65535")
	}
}

// maxListeners is far more than anyone needs; comparing each with each takes time in its square.
const maxListeners = 1000

func (k *checker) listeners(c *Config) {
	switch n := len(c.Listeners); {
	case n == 0:
		k.fault("listeners", "is empty; write one listener at least, such as: - mode: explicit")
	case n > maxListeners:
		k.fault("listeners", "has %d listeners; at most %d are allowed", n, maxListeners)
		return
	}
	for i := range c.Listeners {
		l, key := &c.Listeners[i], element("listeners", i)
		if oneOf(k, key+".mode", l.Mode, modes); !l.Mode.valid() {
			continue // nothing can be said about the rest
		}
		k.listener(key, l)
		k.listenerTLS(key, l, c.TLS.AuthorityCert != "" || c.TLS.AuthorityKey != "")
		if l.intercepts() {
			k.intercept(key+".intercept", &l.Intercept, c)
		}
		for j := range c.Listeners {
			if m := &c.Listeners[j]; m.Mode.valid() {
				k.pair(key, l, m, j < i)
			}
		}
	}
}

// listener checks what can be said of a listener alone.
func (k *checker) listener(key string, l *Listener) {
	if l.Name == "" || len(l.Name) > 64 || !consistsOf(l.Name, letters+digits+"._-") {
		k.fault(key+".name", "%s is no name: write 1 to 64 letters, digits, '.', '_', '-'", quoted(l.Name))
	}
	k.address(key+".address", l)
	k.server(key+".server", l)
	oneOf(k, key+".source", l.Source, []Source{SourceClient, SourceOwn})
	if l.Advertise != "" && !advertisable(l.Advertise) {
		k.fault(key+".advertise", "%s is no IPv4 address that clients can connect to, nor a host name; over IPv6 no address is told to clients", quoted(l.Advertise))
	}
	switch r := l.DataPorts; {
	case r == PortRange{} && l.needsDataPorts():
		k.fault(key+".data_ports", "is missing; connections of this kind need a range, such as %v", defaultDataPorts)
	case r.First > r.Last:
		k.fault(key+".data_ports", "%v begins after its end", r)
	case r != PortRange{} && r.First < 1024:
		k.fault(key+".data_ports", "%v must begin at 1024 or above; the ports below are those of other services", r)
	}
	oneOf(k, key+".server_data", l.ServerData, []ServerData{DataSame, DataPassive, DataActive})
	oneOf(k, key+".data_path", l.DataPath, []DataPath{PathAuto, PathKernel, PathSplice})
	oneOf(k, key+".unknown_commands", l.Unknown, []Unknown{UnknownRelay, UnknownRefuse})
	k.protocols(key, l)
	k.prefixes(key+".proxy_protocol.trusted", l.ProxyProtocol.Trusted)
	oneOf(k, key+".proxy_protocol.send", l.ProxyProtocol.Send, []ProxyVersion{ProxyNone, ProxyV1, ProxyV2})
	if l.intercepts() && (len(l.ProxyProtocol.Trusted) > 0 || l.ProxyProtocol.Send == ProxyV1 || l.ProxyProtocol.Send == ProxyV2) {
		k.fault(key+".proxy_protocol", "is for the modes explicit and gateway; nobody says anything before FTP on a connection that is intercepted")
	}
	for i, w := range l.Login {
		oneOf(k, element(key+".login", i), w, logins)
	}
	if l.Mode != Explicit && len(l.Login) > 0 {
		k.fault(key+".login", "is for the mode explicit; with mode %s no server is named", l.Mode)
	}
	if !l.intercepts() && !reflect.ValueOf(l.Intercept).IsZero() {
		k.fault(key+".intercept", "is for the modes tproxy and redirect; clients connect to a listener of mode %s by themselves",
			l.Mode)
	}
}

// maxSniff is more than any client needs to speak, and less than makes FTP clients give up.
const maxSniff = 10 * time.Second

func (k *checker) protocols(key string, l *Listener) {
	if l.Mode != Explicit {
		if len(l.Protocols) > 0 {
			k.fault(key+".protocols", "is for the mode explicit; a listener of mode %s speaks FTP", l.Mode)
		}
		if l.Sniff != 0 {
			k.fault(key+".sniff", "is for the mode explicit; a listener of mode %s speaks FTP", l.Mode)
		}
		return
	}
	for i, p := range l.Protocols {
		at := element(key+".protocols", i)
		oneOf(k, at, p, protocols)
		if slices.Contains(l.Protocols[:i], p) {
			k.fault(at, "%s is there twice", p)
		}
	}
	if l.Sniff < 0 || l.Sniff > maxSniff {
		k.fault(key+".sniff", "must be from 0s to %v; FTP clients wait for so long", maxSniff)
	}
}

var logins = []Login{LoginUserAtHost, LoginProxyUser, LoginSite, LoginOpen, LoginJoined, LoginProxyUserAtHost, LoginAcct, LoginColon,
	LoginSNI, LoginHost, LoginResp}

func (k *checker) address(key string, l *Listener) {
	a := l.Address
	switch {
	case !a.IsValid():
		k.fault(key, "is missing; write IP:PORT")
	case a.Addr().IsMulticast():
		k.fault(key, "%s is a multicast address; write one of this machine's", a)
	case a.Addr().Zone() != "" && !isInterface(a.Addr().Zone()):
		k.fault(key, "%s is no interface's name", quoted(a.Addr().Zone()))
	case a.Port() == 0 && l.intercepts():
		k.fault(key, "must have a port, because the firewall's rules name it")
	}
}

func (k *checker) server(key string, l *Listener) {
	switch {
	case l.Mode != Gateway && l.Server != "":
		k.fault(key, "is for the mode gateway only; with mode %s the server is %s", l.Mode, map[Mode]string{
			TPROXY:   "the one the client connects to",
			Redirect: "the one the client connects to",
			Explicit: "the one the client names",
		}[l.Mode])
	case l.Mode == Gateway && l.Server == "":
		k.fault(key, "is missing; a gateway needs its one server, as HOST:PORT")
	case l.Mode == Gateway && !isServer(l.Server):
		k.fault(key, "%s is no HOST:PORT: write ftp.example.com:21, 192.0.2.1:21 or [2001:db8::1]:21", quoted(l.Server))
	}
}

// isServer reports whether s is host:port or ip:port with something to connect to.
func isServer(s string) bool {
	if a, err := netip.ParseAddrPort(s); err == nil {
		return a.Port() != 0 && !a.Addr().IsUnspecified() && !a.Addr().IsMulticast() &&
			(a.Addr().Zone() == "" || isInterface(a.Addr().Zone()))
	}
	host, port, err := net.SplitHostPort(s)
	if err != nil {
		return false
	}
	n, err := strconv.ParseUint(port, 10, 16)
	return err == nil && n != 0 && isHostName(host, "")
}

func advertisable(s string) bool {
	if a, err := netip.ParseAddr(s); err == nil {
		return a.Unmap().Is4() && !a.IsUnspecified() && !a.IsMulticast()
	}
	return isHostName(s, "")
}

// pair checks a listener against another, or itself. Where the fault is the same both ways, it is the later's.
func (k *checker) pair(key string, l, other *Listener, later bool) {
	if later && l.Name == other.Name && l.Name != "" {
		k.fault(key+".name", "%s is the name of an earlier listener; names must be unique", quoted(l.Name))
	}
	if later && collide(l.Address, other.Address) {
		k.fault(key+".address", "%s is taken by listener %s at %s; choose another port", l.Address, other.Name, other.Address)
	}
	if port := other.Address.Port(); port != 0 && l.DataPorts != (PortRange{}) && l.DataPorts.Contains(port) {
		k.fault(key+".data_ports", "%v has %d, the control port of listener %s; choose other ports", l.DataPorts, port, other.Name)
	}
	if a, err := netip.ParseAddrPort(l.Server); err == nil && a == other.Address {
		k.fault(key+".server", "%s is listener %s of ftpalg itself", l.Server, other.Name)
	}
}

// collide reports whether two listeners would bind the same address and port. Port 0 is a free one.
func collide(a, b netip.AddrPort) bool {
	return a.IsValid() && b.IsValid() && a.Port() == b.Port() && a.Port() != 0 &&
		(serves(a.Addr(), b.Addr()) || serves(b.Addr(), a.Addr()))
}

// serves reports whether who listens on a hears who connects to b. [::] serves both families.
func serves(a, b netip.Addr) bool {
	return a == b || a == netip.IPv6Unspecified() || a == netip.IPv4Unspecified() && b.Is4()
}

func (k *checker) intercept(key string, in *Intercept, c *Config) {
	k.ports(key+".ports", in.Ports)
	k.prefixes(key+".clients", in.Clients)
	k.prefixes(key+".servers", in.Servers)
	for i, name := range in.Interfaces {
		if !isInterface(name) {
			k.fault(element(key+".interfaces", i), "%s is no interface's name", quoted(name))
		}
	}
	for i, m := range in.LocalMarks {
		if m == c.Mark || m == c.DivertMark {
			k.fault(element(key+".local_marks", i), "%v is ftpalg's own mark; its own connections would come back to it", m)
		}
	}
}

// isInterface reports whether Linux would take s for an interface's name (dev_valid_name), and it is plain text.
func isInterface(s string) bool {
	return s != "" && len(s) < 16 && s != "." && s != ".." && consistsOf(s, letters+digits+"-_.@+")
}

func (k *checker) ports(key string, ranges []PortRange) {
	for i, r := range ranges {
		if r.First == 0 || r.First > r.Last {
			k.fault(element(key, i), "is no port or range of ports: write 21 or 50000-50999")
		}
	}
}

func (k *checker) prefixes(key string, prefixes []netip.Prefix) {
	for i, p := range prefixes {
		if !p.IsValid() {
			k.fault(element(key, i), "is no address or prefix")
		}
	}
}

func (k *checker) destination(key string, d Destination) {
	switch {
	case len(d.Allow) == 0 && len(d.Deny) == 0:
		k.fault(key, "has neither allow nor deny; write one of them, with a target")
	case len(d.Allow) > 0 && len(d.Deny) > 0:
		k.fault(key, "has both allow and deny; make two rules of it, in the order that they should be tried")
	}
	k.targets(key+".allow", d.Allow)
	k.targets(key+".deny", d.Deny)
	k.ports(key+".ports", d.Ports)
	switch {
	case len(d.Allow) > 0:
		k.destinationTLS(key+".tls", d.TLS)
	case len(d.Deny) > 0 && !reflect.ValueOf(d.TLS).IsZero():
		k.fault(key+".tls", "is for rules that allow; nothing is said to servers that may not be reached")
	}
}

func (k *checker) targets(key string, targets []Target) {
	for i, t := range targets {
		if !t.valid() {
			k.fault(element(key, i), "is no target")
		}
	}
}
