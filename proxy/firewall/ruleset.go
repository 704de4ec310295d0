package firewall

import (
	"cmp"
	"slices"
)

// tableName is our nftables table, of family inet. All that is in it is ours.
const tableName = "ftpalg"

// Names of our chains. Those of NAT are apart, since a chain has one type.
const (
	chainIntercept = "intercept"
	chainPre       = "prerouting"
	chainOut       = "output"
	chainPreNAT    = "prerouting_nat"
	chainOutNAT    = "output_nat"
	chainMasters   = "pinhole_masters"
	chainPassing   = "pinhole_passing"
	chainAs        = "pinhole_as"
)

// What else of ours has a name there.
const (
	helperName = "pinholes"
	helperType = "sane" // the kernel's module nf_conntrack_sane; see masterRules
)

// accounting is the kernel's setting without which it does not count a connection's bytes.
const accounting = "net/netfilter/nf_conntrack_acct"

// logLength is how much of a packet the log gets: its headers, an IPv6 packet's with all of TCP's options.
const logLength = 128

// ruleset is the plan's rules, without chains that would be empty.
func (p Plan) ruleset() ruleset {
	r := ruleset{helper: p.Pinholes, mappings: p.mappings()}
	chains := []chain{
		{name: chainIntercept, rules: p.interceptRules()},
		{chainPre, &hook{"filter", prerouting, -150, "mangle"}, p.preroutingRules()},
		{chainOut, &hook{"route", output, -150, "mangle"}, p.outputRules()},
		{chainPreNAT, &hook{"nat", prerouting, -100, "dstnat"}, p.preroutingNATRules()},
		{chainOutNAT, &hook{"nat", output, -100, "-100"}, p.outputNATRules()},
		{chainMasters, &hook{"filter", output, -150, "mangle"}, p.masterRules()},
		{chainPassing, &hook{"filter", forward, 300, "300"}, p.passingRules()},
		{chainAs, &hook{"nat", postrouting, 99, "99"}, p.sourceRules()},
	}
	r.chains = slices.DeleteFunc(chains, func(c chain) bool { return len(c.rules) == 0 })
	return r
}

// each calls do for every intercept of a kind, in each of its families.
func (p Plan) each(kind Kind, families func(Intercept) []family, do func(Intercept, family)) {
	for _, i := range p.Intercepts {
		if i.Kind != kind {
			continue
		}
		for _, f := range families(i) {
			do(i, f)
		}
	}
}

// preroutingRules divert the packets of our transparent sockets.
func (p Plan) preroutingRules() []rule {
	if !p.diverts() {
		return nil
	}
	var rules []rule
	if p.Pinholes {
		// Every packet of theirs would look for a socket, and there is none.
		rules = append(rules, rule{
			why:    "What came through a pinhole is not for us.",
			pieces: []piece{carried(p.Mark), accepted()},
		})
	}
	if ports := p.wildcardPorts(); len(ports) > 0 {
		rules = append(rules, rule{
			why:    "Only the port is that of a listener bound to no address: whosever packet this is, it is not for us as such.",
			pieces: []piece{tcp(ports...), wildcard(), goTo(chainIntercept)},
		})
	}
	rules = append(rules, rule{
		why:    "Packets of our transparent sockets, whosever address these have.",
		pieces: []piece{transparent(), mark(p.DivertMark), accepted()},
	})
	if len(p.interceptRules()) > 0 {
		rules = append(rules, rule{pieces: []piece{jumpTo(chainIntercept)}})
	}
	return rules
}

// wildcardPorts are the ports of TPROXY listeners that are bound to no address. The socket match finds these for
// packets to that port of any host, also such as are only passing through.
func (p Plan) wildcardPorts() []PortRange {
	var ports []PortRange
	for _, i := range p.Intercepts {
		if i.Kind == TPROXY && i.Address.Addr().IsUnspecified() {
			ports = append(ports, PortRange{i.Address.Port(), i.Address.Port()})
		}
	}
	return ports
}

// interceptRules give control connections to TPROXY listeners.
func (p Plan) interceptRules() []rule {
	var rules []rule
	// Local connections come first, or the rule of another listener would take them, which cannot know their user.
	p.each(TPROXY, Intercept.localFamilies, func(i Intercept, f family) {
		rules = append(rules, i.rule(addresses(f, nil, i.Servers), []piece{
			tcp(i.Ports...), incoming("lo"), marked(p.DivertMark), // as chain output sends them here
			divert(f, i.Address), mark(p.DivertMark), accepted(),
		}))
	})
	p.each(TPROXY, Intercept.families, func(i Intercept, f family) {
		for _, which := range i.passing(f, i.Ports) {
			rules = append(rules, i.rule(which, []piece{
				notMarked(p.Mark), divert(f, i.Address), mark(p.DivertMark), accepted(),
			}))
		}
	})
	return rules
}

// outputRules send the packets of local connections, and of their data connections, through prerouting.
func (p Plan) outputRules() []rule {
	var rules []rule
	p.each(TPROXY, Intercept.localFamilies, func(i Intercept, f family) {
		for _, which := range i.starting(f, p.Mark, append(slices.Clone(i.Ports), i.DataPorts)) {
			rules = append(rules, i.rule(which, []piece{
				markConnection(p.DivertMark), mark(p.DivertMark), accepted(),
			}))
		}
	})
	if !p.diverts() || !slices.ContainsFunc(p.Intercepts, func(i Intercept) bool { return len(i.localFamilies()) > 0 }) {
		return rules
	}
	return append([]rule{{
		why:    "In active mode we call this machine's clients from the server's address: what they answer is not the server's.",
		pieces: []piece{original(), marked(p.Mark), homeward(), markConnection(p.DivertMark), accepted()},
	}, {
		// A program that uploads a file and closes the socket leaves the kernel much to send in nobody's name.
		why:    "These answers; and packets of a socket that its program has closed, which have no user any more.",
		pieces: []piece{ofMarkedConnection(p.DivertMark), notMarked(p.Mark), mark(p.DivertMark), accepted()},
	}}, rules...)
}

// preroutingNATRules redirect control and data connections. What is diverted already is not: in active mode a server calls
// our transparent socket at its client's address, and its port may be one of the data ports.
func (p Plan) preroutingNATRules() []rule {
	return append(p.destinationRules(), p.natRules(Intercept.families, func(i Intercept, f family, ports []PortRange) [][]piece {
		which := i.passing(f, ports)
		if p.diverts() {
			for n := range which {
				which[n] = append(which[n], notMarked(p.DivertMark))
			}
		}
		return which
	})...)
}

// outputNATRules do the same for connections that start on this machine.
func (p Plan) outputNATRules() []rule {
	return p.natRules(Intercept.localFamilies, func(i Intercept, f family, ports []PortRange) [][]piece {
		return i.starting(f, p.Mark, ports)
	})
}

// natRules deliver the connections that which picks. All rules for data come after all rules for control, in case one
// listener's data ports hold another's control port.
func (p Plan) natRules(families func(Intercept) []family, which func(Intercept, family, []PortRange) [][]piece) []rule {
	var control, data []rule
	p.each(Redirect, families, func(i Intercept, f family) {
		to := i.Address
		for _, which := range which(i, f, i.Ports) {
			control = append(control, i.rule(which, []piece{deliver(f, to.Addr(), to.Port())}))
		}
		for _, which := range which(i, f, []PortRange{i.DataPorts}) {
			data = append(data, i.rule(which, []piece{deliver(f, to.Addr(), 0)}))
		}
	})
	if len(data) > 0 {
		data[0].why = "Data connections: an EPSV client dials the server's address."
	}
	return append(control, data...)
}

// passing matches what comes from the clients to some ports of the servers, in a list of tests for every interface.
func (i Intercept) passing(f family, ports []PortRange) [][]piece {
	which := append(addresses(f, i.Clients, i.Servers), tcp(ports...))
	which = append(which, i.elsewhere()...)
	if len(i.Interfaces) == 0 {
		return [][]piece{which}
	}
	var each [][]piece
	for _, name := range distinct(i.Interfaces) {
		each = append(each, append(slices.Clone(which), incoming(name)))
	}
	return each
}

// starting matches what starts on this machine to some ports of the servers, in a list of tests for every user and
// every mark. What has our own mark is never among them.
func (i Intercept) starting(f family, own uint32, ports []PortRange) [][]piece {
	which := append(addresses(f, nil, i.Servers), tcp(ports...))
	which = append(which, i.elsewhere()...)
	var each [][]piece
	for _, uid := range distinct(i.LocalUIDs) {
		each = append(each, append(slices.Clone(which), owned(uid), notMarked(own)))
	}
	for _, m := range distinct(i.LocalMarks) {
		each = append(each, append(slices.Clone(which), marked(m)))
	}
	return each
}

// elsewhere leaves out this machine's addresses, unless servers are named.
func (i Intercept) elsewhere() []piece {
	if len(i.Servers) > 0 {
		return nil
	}
	return []piece{foreign()}
}

// rule is a rule of the intercept's.
func (i Intercept) rule(which, then []piece) rule {
	return rule{pieces: slices.Concat(which, then), comment: comment(i.Name)}
}

// distinct is a list in order and without repetition.
func distinct[T cmp.Ordered](list []T) []T {
	return slices.Compact(slices.Sorted(slices.Values(list)))
}
