package policy

import (
	"ftpalg/config"
	"ftpalg/control"
)

// byDefaultName is the Rule of refusals that no rule has decided.
const byDefaultName = "policy.default"

// refuse is what a client is told that a rule denies, or the default, nil. It reflects nothing that the client has said: a reply
// is no place for what an attacker wants to be read.
func refuse(r *control.Request, rule *Rule) *control.Refusal {
	code, text := 550, "Denied by policy"
	switch r.Verb {
	case "STOR", "APPE", "STOU", "MKD", "XMKD", "RNTO":
		code = 553 // RFC 959 §4.2: file name not allowed
	}
	switch {
	case rule != nil && rule.ClientTLS == config.TLSPlain && r.Moves:
		code = 521 // RFC 4217 §10.1: not with this PROT
	case rule != nil && rule.ClientTLS == config.TLSPlain:
		code = 534 // RFC 4217 §10.1: policy requires security
	case r.Login:
		code, text = 530, "Login denied by policy"
	case rule == nil:
	case rule.LargerThan > 0:
		code = 552 // RFC 959 §4.2: too much
	case len(rule.commands) > 0 && len(rule.paths) == 0:
		code, text = 502, "Command not allowed by policy"
	}
	name := byDefaultName
	if rule != nil {
		name = rule.Name
	}
	text += " (" + name + ")"
	if rule != nil && rule.Code != 0 {
		code = rule.Code
	}
	if rule != nil && rule.Text != "" {
		text = rule.Text
	}
	return &control.Refusal{Code: code, Text: text, Rule: name}
}
