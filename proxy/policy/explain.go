package policy

import (
	"fmt"
	"strings"
	"time"

	"ftpalg/control"
)

// Explanation is how one act of a command was decided.
type Explanation struct {
	Act   control.Act
	Steps []Step // each rule in order, up to the one that decided
	Rule  *Rule  // that decided; nil: the default
	Allow bool
	// Text says why, where no rule was asked or none matched; empty otherwise.
	Text string
}

// Step is one rule's part in a decision.
type Step struct {
	Rule *Rule
	Why  string // it does not match, in words, as the name of the key and what is so; empty: it matches
}

// Explain tells for each act how Decide comes to what it says: by the same comparisons, but with the rules that do not concern the
// session, too. It counts nothing. What the client has said is quoted in it.
func (b *Bound) Explain(r *control.Request, now time.Time) []Explanation {
	if harmless[r.Verb] {
		return []Explanation{{Act: control.Act{Class: r.Class}, Allow: true, Text: r.Verb + " is always allowed"}}
	}
	var es []Explanation
	for _, act := range b.actsOf(r) {
		e := Explanation{Act: act, Allow: b.set.allows || r.Early, Text: "no rule matches, and the default decides"}
		if r.Early {
			e.Text = "no rule that matches names the command, which is one of those before login"
		}
		q := query{b: b, r: r, act: act, target: targetOf(act), now: now}
		for _, rule := range b.set.rules {
			c := b.facts.rulesOut(&rule.PolicyRule)
			if c == matches {
				c = q.fails(rule)
			}
			e.Steps = append(e.Steps, Step{rule, q.words(rule, c)})
			if c == matches {
				e.Rule, e.Allow, e.Text = rule, rule.allows, ""
				break
			}
		}
		es = append(es, e)
	}
	return es
}

// words say why a rule does not match.
func (q *query) words(rule *Rule, c criterion) string {
	f, r := &q.b.facts, q.r
	plain := func(side int) string {
		switch {
		case !r.Secured[side]:
			return "the control connection is plain"
		case r.Moves && !r.Private[side]:
			return "data connections are plain"
		}
		return "everything is protected"
	}
	switch c {
	case onListener:
		return fmt.Sprintf("listeners: it is %s", f.Listener)
	case onClient:
		return fmt.Sprintf("clients: it is %v", f.Client)
	case onServer, onPort:
		key := map[criterion]string{onServer: "servers", onPort: "ports"}[c]
		if !f.Server.IsValid() {
			return key + ": the server is not known"
		}
		return strings.TrimSpace(fmt.Sprintf("%s: it is %v %s", key, f.Server, f.Host))
	case onAccount:
		if f.Account == "" {
			return "accounts, groups: nobody has logged in to the proxy"
		}
		return fmt.Sprintf("accounts, groups: it is %q, of the groups %q", f.Account, f.Groups)
	case onEarly:
		return "commands: before login only rules that name the command count"
	case onCommand:
		return fmt.Sprintf("commands: it is %q", strings.TrimSpace(r.Verb+" "+r.Sub))
	case onClass:
		return fmt.Sprintf("classes: it is %v", q.act.Class)
	case onUser:
		if r.User == "" {
			return "users: nobody has said who it is"
		}
		return fmt.Sprintf("users: it is %q", r.User)
	case onDirection:
		key := "direction"
		if rule.Direction == "" {
			key = "larger_than"
		}
		if !r.Moves {
			return key + ": nothing moves"
		}
		return fmt.Sprintf("%s: it is %s", key, directionOf(r))
	case onClientTLS:
		return "client_tls: " + plain(0)
	case onServerTLS:
		return "server_tls: " + plain(1)
	case onPath:
		switch q.act.Path.Extent {
		case control.NoPath:
			return "paths: the command is about none"
		case control.Unknown:
			return "paths: it is unknown, and the rule allows"
		case control.OnePath:
			return fmt.Sprintf("paths: it is %q", q.act.Path.Text)
		}
		if rule.allows {
			return fmt.Sprintf("paths: the %v of %q is not surely in them", q.act.Path.Extent, q.act.Path.Text)
		}
		return fmt.Sprintf("paths: the %v of %q is not in them", q.act.Path.Extent, q.act.Path.Text)
	case onHours:
		return "hours: it is " + q.now.In(q.b.set.zone).Format("Mon 15:04")
	case onWhen:
		return "when: it is not true, or not certain"
	case onSize:
		if r.Size < 0 {
			return fmt.Sprintf("larger_than: the size is not known yet; %d bytes so far", sizeOf(r))
		}
		return fmt.Sprintf("larger_than: it is %d bytes", sizeOf(r))
	}
	return ""
}
