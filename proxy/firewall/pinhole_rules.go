package firewall

import (
	"fmt"
	"slices"
)

// The rules of pinholes: what lets the kernel carry a data connection past us, once Pinholes has told it of one.
//
// A pinhole is an expectation of the kernel's connection tracking. It belongs to our control connection to the server, and
// that connection must have a helper to have any. The kernel's own for FTP would read along and open what it likes, so ours
// is "sane" by name, which is for scanners: it looks at nothing but packets of eight bytes that begin with 00 00 00 07, and
// we never send a zero byte. A connection that was expected has the mark of the one that expected it.

// masterRules make our connections such as may have pinholes.
func (p Plan) masterRules() []rule {
	if !p.Pinholes {
		return nil
	}
	return []rule{{
		why:    "Our connections to servers may have pinholes. The helper reads nothing that we send; it is none but a place for them.",
		pieces: []piece{marked(p.Mark), tcpOnly(), fresh(), markConnection(p.Mark), helped()},
	}}
}

// passingRules see what a pinhole let in go by, after everybody else's rules have let it through: one chain for both, since each
// costs every packet, and within a rule what most packets are not comes first. They end what we want in no more, and tell us of
// beginnings and ends.
func (p Plan) passingRules() []rule {
	if !p.Pinholes {
		return nil
	}
	return []rule{{
		why:    "A transfer that was ended before its time.",
		pieces: []piece{carried(p.DivertMark), tcpOnly(), {"reject with tcp reset", []instr{rejected{}}}},
	}, {
		why:    "By these packets we know when a transfer begins and ends, and how many bytes it had.",
		pieces: []piece{ofMarkedConnection(p.Mark), endOfTCP(), expectedOnly(), logTo(p.LogGroup)},
	}}
}

// mappings are the addresses of pinholes whose two ends are told different ones.
func (p Plan) mappings() []mapping {
	if !p.PinholeNAT {
		return nil
	}
	return []mapping{mappingTo(ipv4), mappingTo(ipv6), mappingAs(ipv4), mappingAs(ipv6)}
}

// mappingTo says where connections through pinholes go, mappingAs whom they seem to be from.
func mappingTo(f family) mapping { return mapping{"pinhole_to_" + f.number(), f, true} }
func mappingAs(f family) mapping { return mapping{"pinhole_as_" + f.number(), f, false} }

// destinationRules come before those that redirect data ports.
func (p Plan) destinationRules() []rule {
	if !p.Pinholes {
		return nil
	}
	var rules []rule
	if p.PinholeNAT {
		for _, f := range allFamilies() {
			to := mappingTo(f)
			rules = append(rules, rule{pieces: []piece{carried(p.Mark), f.tcp(), {
				"dnat " + f.nft() + " to " + f.keyText() + " map @" + to.name,
				append(f.key(), find{to}, dnat{family: f, address: 1, port: f.after()}),
			}}})
		}
		rules[0].why = "Where connections through pinholes go."
	}
	if !slices.ContainsFunc(p.Intercepts, func(i Intercept) bool { return i.Kind == Redirect }) {
		return rules
	}
	return append(rules, rule{
		why:    "What comes through a pinhole is not redirected.",
		pieces: []piece{carried(p.Mark), accepted()},
	})
}

// sourceRules come before anybody else's masquerading.
func (p Plan) sourceRules() []rule {
	if !p.PinholeNAT {
		return nil
	}
	var rules []rule
	for _, f := range allFamilies() {
		as := mappingAs(f)
		rules = append(rules, rule{pieces: []piece{carried(p.Mark), f.tcp(), {
			"snat " + f.nft() + " to " + f.keyText() + " map @" + as.name,
			append(f.key(), find{as}, snat{family: f, address: 1}),
		}}})
	}
	rules[0].why = "Whom connections through pinholes seem to be from."
	return rules
}

// carried matches connections that came through a pinhole, by the mark they have.
func carried(mark uint32) piece {
	marked, status := ofMarkedConnection(mark), expectedOnly()
	return piece{marked.text + " " + status.text, append(marked.code, status.code...)}
}

// expectedOnly matches connections that were expected, whoever's.
func expectedOnly() piece {
	return piece{"ct status expected", []instr{loadCT{ctStatus}, and{native(expected)}, compare{notEqual, native(0)}}}
}

// tcpOnly matches TCP. nft infers it of some rules; then the text is empty.
func tcpOnly() piece {
	return piece{"meta l4proto tcp", []instr{loadMeta{metaL4proto}, compare{equal, []byte{protoTCP}}}}
}

// tcp matches TCP of a family, as nft infers it.
func (f family) tcp() piece {
	return piece{code: append([]instr{loadMeta{metaNfproto}, compare{equal, []byte{byte(f)}}}, tcpOnly().code...)}
}

// endOfTCP matches packets that begin or end a connection.
func endOfTCP() piece {
	return piece{"tcp flags fin,syn,rst", append(tcpOnly().code,
		loadHeader{transport, 13, 1}, and{[]byte{tcpEnds}}, compare{notEqual, []byte{0}})}
}

// fresh matches a connection's first packet, unless it was expected.
func fresh() piece {
	return piece{"ct state new", []instr{loadCT{ctState}, and{native(stateNew)}, compare{notEqual, native(0)}}}
}

// helped gives the connection our helper.
func helped() piece { return piece{`ct helper set "` + helperName + `"`, []instr{help{}}} }

func logTo(group uint16) piece {
	return piece{fmt.Sprintf("log group %d snaplen %d", group, logLength), []instr{logged{group}}}
}

// key loads the key of a mapping; keyText is it in nft's words.
func (f family) key() []instr {
	// Registers 9 and 10 are the second and the third word of register 1.
	parts := []loadPart{{1, loadHeader{network, 12, 4}}, {9, loadHeader{network, 16, 4}}, {10, loadHeader{transport, 2, 2}}}
	if f == ipv6 {
		parts = []loadPart{{1, loadHeader{network, 8, 16}}, {2, loadHeader{network, 24, 16}}, {3, loadHeader{transport, 2, 2}}}
	}
	return []instr{parts[0], parts[1], parts[2]}
}

func (f family) keyText() string { return fmt.Sprintf("%s saddr . %[1]s daddr . tcp dport", f.nft()) }

// after is the register that follows an address in register 1.
func (f family) after() uint32 {
	if f == ipv4 {
		return 9
	}
	return 2
}

// number is 4 or 6.
func (f family) number() string { return f.flag()[1:] }
