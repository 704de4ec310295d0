package firewall

import "slices"

// tableName is our nftables table, of family inet. All that is in it is ours.
const tableName = "ftpalg"

// Names of our chains. Those of NAT are apart, since a chain has one type.
const (
	chainIntercept = "intercept"
	chainPre       = "prerouting"
	chainOut       = "output"
	chainPreNAT    = "prerouting_nat"
	chainOutNAT    = "output_nat"
)

// ruleset is the plan's rules, without chains that would be empty.
func (p Plan) ruleset() ruleset {
	chains := ruleset{
		{name: chainIntercept, rules: p.interceptRules()},
		{chainPre, &hook{"filter", prerouting, -150, "mangle"}, p.preroutingRules()},
		{chainOut, &hook{"route", output, -150, "mangle"}, p.outputRules()},
		{chainPreNAT, &hook{"nat", prerouting, -100, "dstnat"}, p.preroutingNATRules()},
		{chainOutNAT, &hook{"nat", output, -100, "-100"}, p.outputNATRules()},
	}
	return slices.DeleteFunc(chains, func(c chain) bool { return len(c.rules) == 0 })
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
		rules = append(rules, rule{
			why: "Sent here by chain " + chainOut + ".",
			pieces: slices.Concat(addresses(f, nil, i.Servers), []piece{
				tcp(i.Ports...), incoming([]string{"lo"}), marked(p.DivertMark),
				divert(f, i.Address), mark(p.DivertMark), accepted(),
			}),
			comment: comment(i.Name),
		})
	})
	p.each(TPROXY, Intercept.families, func(i Intercept, f family) {
		rules = append(rules, rule{
			pieces: slices.Concat(i.passing(f, i.Ports), []piece{
				notMarked(p.Mark), divert(f, i.Address), mark(p.DivertMark), accepted(),
			}),
			comment: comment(i.Name),
		})
	})
	return rules
}

// outputRules send the packets of local connections, and of their data connections, through prerouting.
func (p Plan) outputRules() []rule {
	var rules []rule
	p.each(TPROXY, Intercept.localFamilies, func(i Intercept, f family) {
		for _, who := range i.starters(p.Mark) {
			rules = append(rules, rule{
				pieces: slices.Concat(i.starting(f, append(slices.Clone(i.Ports), i.DataPorts)), who, []piece{
					markConnection(p.DivertMark), mark(p.DivertMark), accepted(),
				}),
				comment: comment(i.Name),
			})
		}
	})
	if len(rules) == 0 {
		return nil
	}
	// A program that uploads a file and closes the socket leaves the kernel much to send in nobody's name.
	return append([]rule{{
		why:    "Packets of a socket that its program has closed have no user any more.",
		pieces: []piece{ofMarkedConnection(p.DivertMark), notMarked(p.Mark), mark(p.DivertMark), accepted()},
	}}, rules...)
}

// preroutingNATRules redirect control and data connections. All data rules come after all control rules, in case one
// listener's data ports hold another's control port.
func (p Plan) preroutingNATRules() []rule {
	var control, data []rule
	p.each(Redirect, Intercept.families, func(i Intercept, f family) {
		to := i.Address
		control = append(control, rule{
			pieces:  append(i.passing(f, i.Ports), deliver(f, to.Addr(), to.Port())),
			comment: comment(i.Name),
		})
		data = append(data, rule{
			pieces:  append(i.passing(f, []PortRange{i.DataPorts}), deliver(f, to.Addr(), 0)),
			comment: comment(i.Name),
		})
	})
	return annotated(control, data)
}

// outputNATRules do the same for connections that start on this machine.
func (p Plan) outputNATRules() []rule {
	var control, data []rule
	p.each(Redirect, Intercept.localFamilies, func(i Intercept, f family) {
		to := i.Address
		for _, who := range i.starters(p.Mark) {
			control = append(control, rule{
				pieces:  slices.Concat(i.starting(f, i.Ports), who, []piece{deliver(f, to.Addr(), to.Port())}),
				comment: comment(i.Name),
			})
			data = append(data, rule{
				pieces:  slices.Concat(i.starting(f, []PortRange{i.DataPorts}), who, []piece{deliver(f, to.Addr(), 0)}),
				comment: comment(i.Name),
			})
		}
	})
	return annotated(control, data)
}

// annotated are the rules for control and for data connections, and a word about the latter.
func annotated(control, data []rule) []rule {
	if len(data) > 0 {
		data[0].why = "Data connections: an EPSV client dials the server's address."
	}
	return append(control, data...)
}

// passing matches what comes from the clients to some ports of the servers.
func (i Intercept) passing(f family, ports []PortRange) []piece {
	pieces := append(addresses(f, i.Clients, i.Servers), tcp(ports...))
	if len(i.Interfaces) > 0 {
		pieces = append(pieces, incoming(i.Interfaces))
	}
	return append(pieces, i.elsewhere()...)
}

// starting matches what starts on this machine to some ports of the servers; starters say by whom.
func (i Intercept) starting(f family, ports []PortRange) []piece {
	pieces := append(addresses(f, nil, i.Servers), tcp(ports...))
	return append(pieces, i.elsewhere()...)
}

// elsewhere leaves out this machine's addresses, unless servers are named.
func (i Intercept) elsewhere() []piece {
	if len(i.Servers) > 0 {
		return nil
	}
	return []piece{foreign()}
}

// starters match the local users, and the local marks; either will do, so each takes a rule of its own. What has
// our own mark is never among them.
func (i Intercept) starters(own uint32) [][]piece {
	var who [][]piece
	if len(i.LocalUIDs) > 0 {
		who = append(who, []piece{owned(i.LocalUIDs...), notMarked(own)})
	}
	if len(i.LocalMarks) > 0 {
		who = append(who, []piece{marked(i.LocalMarks...)})
	}
	return who
}
