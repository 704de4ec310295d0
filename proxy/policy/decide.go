package policy

import (
	"net/netip"
	"path"
	"slices"
	"time"

	"github.com/expr-lang/expr/vm"

	"ftpalg/config"
	"ftpalg/control"
	"ftpalg/dataconn"
)

// Facts are what does not change any more in a session, from some time on: when its server is known, and when an account has logged
// in to the proxy, there are new ones to Bind.
type Facts struct {
	Listener string         // name
	Client   netip.Addr     // as IPv4, where it is mapped into IPv6
	Server   netip.AddrPort // the zero value is nobody's, and no rule about servers and their ports matches it
	Host     string         // the server's name, in lower case without a final dot; empty: it was given by address
	Account  string         // of the proxy; empty: nobody has logged in to it
	Groups   []string       // the account's
	// Is reports whether a target of a rule is the server. What its keywords mean is the proxy's to know. It must be there.
	Is func(t config.Target, host string, at netip.AddrPort) bool
}

// Bound are the rules that can concern a session. It is used from one goroutine at a time, that of the session.
type Bound struct {
	set   *Set
	facts Facts
	all   *selection // that the facts do not rule out

	user  string     // for whom own is
	own   *selection // of all, those that are about the user; nil: nobody has asked yet
	found []int      // by the index, for the act in hand
	few   []*Rule    // the candidates for it
	vm    *vm.VM     // nil: no rule has needed it
}

// selection is some of a Set's rules, in order. Sessions that have the same share one.
type selection struct {
	rules   []*Rule
	byClass [5][]*Rule // by the class of an act
	plain   [5][]*Rule // of byClass, those without paths
	has     []byte     // a bit for each of the Set's rules
	paths   bool
	watches bool
}

// maxSelections is how many a Set keeps. Who has many users and networks in its rules has many, and makes some of them again.
const maxSelections = 1000

// selectRules makes a selection, or finds one that is there.
func (s *Set) selectRules(from []*Rule, is func(*Rule) bool) *selection {
	has := make([]byte, (len(s.rules)+7)/8)
	for _, r := range from {
		if is(r) {
			has[r.Index/8] |= 1 << (r.Index % 8)
		}
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if l := s.selections[string(has)]; l != nil {
		return l
	}
	l := &selection{has: has}
	for _, r := range from {
		if l.holds(r.Index) {
			l.add(r)
		}
	}
	if s.selections == nil || len(s.selections) >= maxSelections {
		s.selections = map[string]*selection{} // sessions keep theirs
	}
	s.selections[string(has)] = l
	return l
}

func (l *selection) holds(rule int) bool { return l.has[rule/8]&(1<<(rule%8)) != 0 }

func (l *selection) add(r *Rule) {
	l.rules = append(l.rules, r)
	l.paths = l.paths || len(r.paths) > 0 || r.when != nil && r.when.path
	moves := r.classes&(1<<control.List|1<<control.Read|1<<control.Write) != 0
	l.watches = l.watches || moves && (r.LargerThan > 0 || r.Digest || r.Rate > 0 || r.SharedRate > 0)
	for c := range l.byClass {
		if r.classes&(1<<c) == 0 {
			continue
		}
		l.byClass[c] = append(l.byClass[c], r)
		if len(r.paths) == 0 {
			l.plain[c] = append(l.plain[c], r)
		}
	}
}

// Bind picks the rules that can concern a session, once, so that they cost its commands little.
func (s *Set) Bind(f Facts) *Bound {
	b := &Bound{set: s, facts: f}
	b.all = s.selectRules(s.rules, func(r *Rule) bool { return b.facts.rulesOut(&r.PolicyRule) == matches })
	return b
}

// Paths reports whether a rule that can concern the session speaks of paths.
func (b *Bound) Paths() bool { return b.all.paths }

// Watches reports whether a rule that can concern the session may want the bytes of a transfer seen or slowed.
func (b *Bound) Watches() bool { return b.all.watches }

// Decision is what the rules say to a command.
type Decision struct {
	Allow bool
	Rule  *Rule // that decided; nil: the default, or none was asked
	// Until is how many bytes of an allowed transfer may move before it is to be decided again, because of larger_than: when as
	// many have, Decide is to be asked with Size set to Offset and the bytes that have moved, and the same time, and a denial
	// stops the transfer. It does not trust a size that was told before. Zero: never.
	Until   int64
	Refusal *control.Refusal // nil: allowed
}

// Decide says what becomes of a command. Its Acts are not asked for where no rule speaks of paths and its class says all.
func (b *Bound) Decide(r *control.Request, now time.Time) Decision {
	if harmless[r.Verb] {
		return Decision{Allow: true}
	}
	var first Decision
	for i, act := range b.actsOf(r) {
		d := b.decideAct(r, act, now)
		switch {
		case !d.Allow:
			b.count(d.Rule)
			d.Until, d.Refusal = 0, refuse(r, d.Rule)
			return d
		case i == 0:
			first = d
		case d.Until > 0 && (first.Until == 0 || d.Until < first.Until):
			first.Until = d.Until
		}
	}
	b.count(first.Rule)
	return first
}

func (b *Bound) count(r *Rule) {
	if r == nil {
		b.set.byDefault.Add(1)
		return
	}
	r.count.Add(1)
}

// actsOf are a command's acts. They may cost a question to the server, which is not asked without need.
func (b *Bound) actsOf(r *control.Request) []control.Act {
	if r.Early || !b.all.paths && len(several[r.Verb]) == 0 {
		return []control.Act{{Class: r.Class}}
	}
	return r.Acts()
}

// decideAct finds the first rule that matches an act.
func (b *Bound) decideAct(r *control.Request, act control.Act, now time.Time) Decision {
	q := query{b: b, r: r, act: act, target: targetOf(act), now: now}
	until := int64(0)
	for _, rule := range b.candidates(r, act.Class, &q.target) {
		switch q.fails(rule) {
		case matches:
			return Decision{Allow: rule.allows, Rule: rule, Until: until}
		case onSize:
			if n := int64(rule.LargerThan) + 1 - r.Offset; r.Moves && (until == 0 || n < until) {
				until = n
			}
		}
	}
	return Decision{Allow: b.set.allows || r.Early, Until: until}
}

// candidates are the rules that the session, its user, the class and the path leave over, in order. They are good until the next
// call.
func (b *Bound) candidates(r *control.Request, class control.Class, t *target) []*Rule {
	if r.Early {
		return b.all.rules
	}
	if b.own == nil || b.user != r.User {
		// A session has one user mostly, so that is kept.
		b.user, b.own = r.User, b.set.selectRules(b.all.rules, func(rule *Rule) bool { return rule.isFor(r) })
	}
	switch {
	case t.Extent == control.NoPath:
		return b.own.plain[class]
	case t.Extent != control.OnePath || !b.own.paths:
		return b.own.byClass[class]
	}
	x := &b.set.exact
	if t.Loose {
		x = &b.set.loose
	}
	b.found, b.few = x.find(b.found[:0], t.text), b.few[:0]
	plain := b.own.plain[class]
	for _, i := range b.found {
		if !b.own.holds(i) {
			continue
		}
		for len(plain) > 0 && plain[0].Index < i {
			b.few, plain = append(b.few, plain[0]), plain[1:]
		}
		b.few = append(b.few, b.set.rules[i])
	}
	b.few = append(b.few, plain...)
	return b.few
}

// criterion is what keeps a rule from matching.
type criterion int

const (
	matches criterion = iota // nothing does
	onListener
	onClient
	onServer
	onPort
	onAccount
	onEarly
	onCommand
	onClass
	onUser
	onDirection
	onClientTLS
	onServerTLS
	onPath
	onHours
	onWhen
	onSize // last: if it is only this, it may change as the bytes flow
)

// Concerns reports whether a quota is about a session and its user, by the criteria that quotas have in common with rules.
func (f *Facts) Concerns(q *config.Quota, user string) bool {
	shared := config.PolicyRule{Listeners: q.Listeners, Clients: q.Clients, Servers: q.Servers, Accounts: q.Accounts, Groups: q.Groups}
	return f.rulesOut(&shared) == matches &&
		(len(q.Users) == 0 || slices.ContainsFunc(q.Users, func(u string) bool { return matchUser(userText(u), userText(user)) })) &&
		(q.Per != config.PerAccount || f.Account != "")
}

// rulesOut is the criterion by which the facts of the session alone keep a rule from matching.
func (f *Facts) rulesOut(r *config.PolicyRule) criterion {
	known := f.Server.IsValid()
	switch {
	case len(r.Listeners) > 0 && !slices.Contains(r.Listeners, f.Listener):
		return onListener
	case len(r.Clients) > 0 && !slices.ContainsFunc(r.Clients, func(p netip.Prefix) bool { return p.Contains(f.Client.Unmap().WithZone("")) }):
		return onClient
	case len(r.Servers) > 0 && !(known && slices.ContainsFunc(r.Servers, func(t config.Target) bool { return f.Is(t, f.Host, f.Server) })):
		return onServer
	case len(r.Ports) > 0 && !(known && slices.ContainsFunc(r.Ports, func(p config.PortRange) bool { return p.Contains(f.Server.Port()) })):
		return onPort
	case len(r.Accounts)+len(r.Groups) > 0 && !(f.Account != "" && slices.Contains(r.Accounts, config.Account(f.Account)) ||
		slices.ContainsFunc(f.Groups, func(g string) bool { return slices.Contains(r.Groups, config.Account(g)) })):
		return onAccount
	}
	return matches
}

// query is one act that rules are asked about.
type query struct {
	b      *Bound
	r      *control.Request
	act    control.Act
	target target
	now    time.Time
}

// fails is the first criterion by which a rule does not match the act, of those that the facts of the session leave open.
func (q *query) fails(rule *Rule) criterion {
	r := q.r
	switch {
	case r.Early && len(rule.commands) == 0:
		return onEarly
	case len(rule.commands) > 0 && !rule.names(r):
		return onCommand
	case rule.classes&(1<<q.act.Class) == 0:
		return onClass
	case rule.Direction != "" && !(r.Moves && rule.Direction == directionOf(r)):
		return onDirection
	case rule.LargerThan > 0 && !r.Moves:
		return onDirection
	case rule.ClientTLS != "" && (rule.ClientTLS == config.TLSProtected) != protected(r, dataconn.Client):
		return onClientTLS
	case rule.ServerTLS != "" && (rule.ServerTLS == config.TLSProtected) != protected(r, dataconn.Server):
		return onServerTLS
	case len(rule.paths) > 0 && !rule.matchesPath(&q.target):
		return onPath
	case len(rule.users) > 0 && !rule.isFor(r):
		return onUser
	case len(rule.Hours) > 0 && !q.inHours(rule):
		return onHours
	case rule.when != nil && !q.evaluate(rule):
		return onWhen
	case rule.LargerThan > 0 && sizeOf(r) <= int64(rule.LargerThan):
		return onSize
	}
	return matches
}

// names reports whether a rule's commands name that of the request.
func (r *Rule) names(q *control.Request) bool {
	for _, c := range r.commands {
		if c.names(q.Verb) && (c.sub == "" || c.sub == q.Sub || !plainWord(q.Sub) && !r.allows) {
			return true
		}
	}
	return false
}

// isFor reports whether a rule's users are those of a request. As long as nobody has said who it is, a rule that denies does not
// wait for that: there are servers that do things without a login.
func (r *Rule) isFor(q *control.Request) bool {
	switch {
	case len(r.users) == 0:
		return true
	case q.User == "":
		return !r.allows && !q.Early
	}
	name := userText(q.User)
	matchesIn := func(users []string, name string) bool {
		return slices.ContainsFunc(users, func(u string) bool { return matchUser(u, name) })
	}
	return matchesIn(r.users, name) || !r.allows && matchesIn(r.folded, fold(name)) // servers of Windows know BOB for bob
}

// matchUser reports whether a pattern of users matches one. Both are written by userText.
func matchUser(pattern, user string) bool {
	ok, _ := path.Match(pattern, user)
	return ok
}

// matchesPath reports whether a path is one of a rule's, as far as it can be told.
func (r *Rule) matchesPath(t *target) bool {
	for i := range r.paths {
		p := &r.paths[i]
		if r.allows && p.covers(t) || !r.allows && p.meets(t) {
			return true
		}
	}
	return false
}

func directionOf(r *control.Request) config.MoveDirection {
	if r.Direction == dataconn.Upload {
		return config.DirectionUpload
	}
	return config.DirectionDownload
}

// protected reports whether a side's connections have TLS, as many as the command concerns.
func protected(r *control.Request, side dataconn.Side) bool {
	return r.Secured[side] && (!r.Moves || r.Private[side])
}

// sizeOf is as large as a file is known to be. It has at least the bytes that are skipped.
func sizeOf(r *control.Request) int64 { return max(r.Size, r.Offset, 0) }

func (q *query) inHours(rule *Rule) bool {
	t := q.now.In(q.b.set.zone)
	return slices.ContainsFunc(rule.Hours, func(h config.WeeklyHours) bool { return h.Contains(t) })
}

// machine runs expressions.
func (b *Bound) machine() *vm.VM {
	if b.vm == nil {
		b.vm = &vm.VM{MemoryBudget: whenMemory}
	}
	return b.vm
}

// evaluate runs a rule's expression. What fails, and what speaks of a path that is not one, is uncertain. A loose path is given as
// it is and folded: either may be what the rule's author has written.
func (q *query) evaluate(rule *Rule) bool {
	if rule.when.path && q.target.Extent != control.OnePath && q.target.Extent != control.NoPath {
		return !rule.allows
	}
	f, r, t := &q.b.facts, q.r, q.now.In(q.b.set.zone)
	env := facts{
		Listener: f.Listener, Client: f.Client.String(), Server: f.Server.Addr().String(), Host: f.Host, Port: int(f.Server.Port()),
		User: r.User, Account: f.Account, Groups: f.Groups, Verb: r.Verb, Sub: r.Sub, Class: q.act.Class.String(),
		Path: q.act.Path.Text, Size: r.Size, Offset: r.Offset,
		ClientTLS: protected(r, dataconn.Client), ServerTLS: protected(r, dataconn.Server),
		Weekday: int(t.Weekday()), Hour: t.Hour(), Minute: t.Minute(),
	}
	if r.Moves {
		env.Direction = string(directionOf(r))
	}
	for {
		v, err := q.b.machine().Run(rule.when.program, env)
		if err != nil {
			return !rule.allows
		}
		if yes, _ := v.(bool); yes || env.Path == q.target.text {
			return yes
		}
		env.Path = q.target.text
	}
}
