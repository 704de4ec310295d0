package proxy

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"hash"
	"log/slog"
	"net"
	"net/netip"
	"reflect"
	"slices"
	"strings"
	"time"

	"golang.org/x/time/rate"

	"ftpalg/config"
	"ftpalg/control"
	"ftpalg/dataconn"
	"ftpalg/proxy/accounts"
	"ftpalg/proxy/policy"
	"ftpalg/proxy/quota"
)

// regime is what sessions are policed by: the rules in force, also for those that began under others.
type regime struct {
	set       *policy.Set
	byDefault config.PolicyAction // what the default does
	quotas    []config.Quota
	shared    map[string]*rate.Limiter // of rules with a SharedRate, by name
}

// newRegime makes a configuration's rules ready, or says what is wrong with them.
func newRegime(cfg *config.Config, known *accounts.Accounts) (*regime, config.Faults) {
	set, faults := policy.Compile(&cfg.Policy)
	if len(faults) > 0 {
		return nil, faults
	}
	if known != nil {
		for i, r := range cfg.Policy.Rules {
			faults = append(faults, missing(fmt.Sprintf("policy.rules[%d]", i), r.Accounts, r.Groups, cfg, known)...)
		}
		for i, q := range cfg.Policy.Quotas {
			faults = append(faults, missing(fmt.Sprintf("policy.quotas[%d]", i), q.Accounts, q.Groups, cfg, known)...)
		}
	}
	g := &regime{set: set, byDefault: cfg.Policy.Default, quotas: cfg.Policy.Quotas, shared: map[string]*rate.Limiter{}}
	for _, r := range set.Rules() {
		if r.SharedRate > 0 {
			g.shared[r.Name] = newLimiter(int64(r.SharedRate))
		}
	}
	return g, faults
}

// Rehearsal is a session that is only imagined, to ask what the rules of a configuration would say.
type Rehearsal struct {
	Listener string // name; empty: the configuration's first
	Client   netip.Addr
	Server   netip.AddrPort // the zero value: not known
	Host     string         // the server's name; empty: it was given by address
	Account  string         // of the proxy; empty: nobody has logged in to it
	Groups   []string
}

// Rehearse makes the rules of a configuration ready for a session that is imagined. The error is a name that is in no listener, or
// Faults of the rules.
func Rehearse(cfg *config.Config, r Rehearsal) (*policy.Bound, error) {
	if r.Listener == "" {
		r.Listener = cfg.Listeners[0].Name
	}
	if !slices.ContainsFunc(cfg.Listeners, func(l config.Listener) bool { return l.Name == r.Listener }) {
		return nil, fmt.Errorf("%q is no listener of the configuration", r.Listener)
	}
	g, faults := newRegime(cfg, nil)
	if len(faults) > 0 {
		return nil, faults
	}
	return g.set.Bind(policy.Facts{Listener: r.Listener, Client: r.Client, Server: r.Server, Host: strings.ToLower(strings.TrimSuffix(r.Host, ".")),
		Account: r.Account, Groups: r.Groups, Is: new(Proxy).isTarget}), nil
}

// succeed has the limiters of rules that are as they were before go on.
func (g *regime) succeed(before *regime) {
	if before == nil {
		return
	}
	for name, l := range g.shared {
		if old := before.shared[name]; old != nil && old.Limit() == l.Limit() {
			g.shared[name] = old
		}
	}
}

// tally logs how many commands each rule has decided, for whoever wonders which of them are of any use.
func (g *regime) tally(log *slog.Logger) {
	for _, c := range g.set.Counts() {
		if c.Rule != nil && c.N > 0 {
			log.Info("rule", "rule", c.Rule.Name, "action", c.Rule.Action, "decided", c.N)
		}
	}
}

// newLimiter limits to so many bytes a second. What may come at once is what the rate allows in a tenth of it.
func newLimiter(bytes int64) *rate.Limiter {
	return rate.NewLimiter(rate.Limit(bytes), int(max(bytes/10, 1000)))
}

// policing is one session's policy: what the rules in force say to its commands, what its quotas leave it, and who sees its transfers. It
// is control.Policy.
type policing struct {
	p      *Proxy
	n      *network
	log    *logger
	record *recorder

	regime  *regime
	server  *net.TCPConn      // for which facts and bound are
	account *accounts.Account // for whom they are
	facts   policy.Facts
	bound   *policy.Bound
	user    string
	entered bool          // logged in
	holder  *quota.Holder // nil: not logged in, or nothing is counted
	barred  *quota.Over   // by a reload, whose quotas leave no room for the session: it moves nothing more; nil: there is room
	counted []config.Quota
	flow    *quota.Flow // of the transfer that runs
	watch   *watch      // the same
}

// renew follows a reload, and what has become known of the session.
func (v *policing) renew() {
	g := v.p.regime.Load()
	if g == v.regime && v.n.server == v.server && v.n.account == v.account {
		return
	}
	requoted := v.entered && g != v.regime && !reflect.DeepEqual(g.quotas, v.regime.quotas)
	v.regime, v.server, v.account = g, v.n.server, v.n.account
	v.facts = policy.Facts{Listener: v.n.listener.Name, Client: v.n.client.Addr(), Host: v.n.name, Is: v.p.isTarget}
	if v.server != nil {
		v.facts.Server = dataconn.AddrPort(v.server.RemoteAddr())
	}
	if v.account != nil {
		v.facts.Account, v.facts.Groups = v.account.Name, v.account.Groups
	}
	v.bound = g.set.Bind(v.facts)
	if requoted {
		v.reenter()
	}
}

// isTarget reports whether a target of a rule is a server.
func (p *Proxy) isTarget(t config.Target, host string, at netip.AddrPort) bool {
	return p.matches(t, place{name: host, at: at})
}

// Enter implements control.Policy: the session counts from here on.
func (v *policing) Enter(user string) *control.Refusal {
	v.renew()
	if v.holder != nil {
		v.holder.Leave() // another user's
		v.holder = nil
	}
	v.user, v.entered, v.barred = user, true, nil
	holder, over := v.enter()
	if over != nil {
		return &control.Refusal{Code: 421, Text: "Too many sessions, try again later (" + over.Quota + ")", Rule: over.Quota, Err: over}
	}
	v.holder = holder
	return nil
}

// Begins implements control.Policy.
func (v *policing) Begins(e control.Transferring) (known func(), r *control.Refusal) {
	if known, r = v.record.begins(e); r == nil {
		v.record.entry.Begins(e)
	}
	return known, r
}

// reenter counts the session by the quotas of a reload. One that would not be let in any more is not thrown out, but moves nothing more.
func (v *policing) reenter() {
	if v.holder != nil {
		v.holder.Leave()
	}
	if v.holder, v.barred = v.enter(); v.barred != nil {
		v.log.log.Load().Warn("the quotas of the reload leave no room for a session that runs; it moves nothing more", "quota", v.barred.Quota)
	}
}

func (v *policing) enter() (*quota.Holder, *quota.Over) {
	v.counted = nil
	for _, q := range v.regime.quotas {
		if v.facts.Concerns(&q, v.user) {
			v.counted = append(v.counted, q)
		}
	}
	if len(v.counted) == 0 {
		return nil, nil
	}
	return v.p.quotas.Load().Enter(v.counted, quota.Who{Client: v.facts.Client, User: v.user, Server: v.facts.Server.Addr(), Account: v.facts.Account})
}

// leave gives back what the session has counted.
func (v *policing) leave() {
	v.finish()
	if v.holder != nil {
		v.holder.Leave()
		v.holder = nil
	}
}

// finish ends what belongs to a command.
func (v *policing) finish() {
	if v.flow != nil {
		v.flow.End()
		v.flow = nil
	}
	if v.watch != nil {
		v.watch.stop()
		v.watch = nil
	}
}

// Paths implements control.Policy.
func (v *policing) Paths() bool {
	v.renew()
	return v.bound.Paths()
}

// Hides implements control.Policy.
func (v *policing) Hides(verb string) bool {
	v.renew()
	return v.regime.set.NeverAllowed(verb)
}

// Watches implements control.Policy.
func (v *policing) Watches() bool {
	v.renew()
	return v.bound.Watches() || slices.ContainsFunc(v.counted, func(q config.Quota) bool { return q.Bytes > 0 })
}

// Admit implements control.Policy.
func (v *policing) Admit(r *control.Request) control.Ruling {
	v.renew()
	v.finish()
	if v.record.denied != nil {
		v.record.denied.Store(false)
	}
	if refusal := v.record.admit(r); refusal != nil {
		return control.Ruling{Refusal: refusal}
	}
	now := time.Now()
	var acts []control.Act
	ask := r.Acts
	r.Acts = func() []control.Act {
		acts = ask()
		return acts
	}
	d := v.bound.Decide(r, now)
	ruling := control.Ruling{Refusal: d.Refusal}
	if d.Rule != nil {
		ruling.Rule = d.Rule.Name
		if d.Rule.Log && d.Allow {
			v.log.log.Load().Info("allowed", "verb", r.Verb, "class", r.Class.String(), "rule", d.Rule.Name)
		}
	}
	if !d.Allow || !r.Moves {
		return ruling
	}
	if v.barred != nil {
		ruling.Refusal = overQuota(v.barred)
		return ruling
	}
	if v.holder != nil {
		flow, over := v.holder.Begin(config.DirectionOf(r.Direction == dataconn.Upload), r.Class != control.List)
		if over != nil {
			ruling.Refusal = overQuota(over)
			return ruling
		}
		v.flow = flow
	}
	v.look(&ruling, r, acts, d, now)
	return ruling
}

// overQuota is what a client is told that has had enough.
func overQuota(over *quota.Over) *control.Refusal {
	r := &control.Refusal{Code: 450, Text: "Quota " + over.Quota + ": no more " + over.Bound + " for now", Rule: over.Quota, Err: over}
	if over.Bound == quota.Bytes {
		r.Code = 452
	}
	return r
}

// look has a transfer seen or slowed, where it must be.
func (v *policing) look(ruling *control.Ruling, r *control.Request, acts []control.Act, d policy.Decision, now time.Time) {
	w := &watch{v: v, until: d.Until, now: now}
	w.again = *r
	w.again.Acts = func() []control.Act { return acts } // known by now, if they are asked for
	if rule := d.Rule; rule != nil {
		if rule.Digest {
			w.digest = sha256.New()
		}
		if l := v.regime.shared[rule.Name]; l != nil {
			w.limiters = append(w.limiters, l)
		}
		switch _, tcp := below(v.n.conn).(*net.TCPConn); {
		case rule.Rate == 0:
		case tcp || r.Direction == dataconn.Upload:
			ruling.Pace = func(c net.Conn) { v.pace(c, int64(rule.Rate)) }
		default: // the client is ourselves, for HTTP
			w.limiters = append(w.limiters, newLimiter(int64(rule.Rate)))
		}
	}
	counts := v.flow != nil && slices.ContainsFunc(v.counted, func(q config.Quota) bool { return q.Bytes > 0 })
	if counts {
		w.flow = v.flow
	}
	if w.until == 0 && w.digest == nil && len(w.limiters) == 0 && !counts {
		return
	}
	w.ctx, w.stop = context.WithCancel(v.p.alive)
	v.watch, ruling.Inspector = w, w
}

func (v *policing) pace(c net.Conn, rate int64) {
	t, ok := below(c).(*net.TCPConn)
	err := errors.New("it is no TCP connection")
	if ok {
		err = pace(t, rate)
	}
	if err != nil {
		v.log.log.Load().Error("a transfer is not slowed", "error", err)
	}
}

// passed counts what the kernel has carried, which nobody has seen: rules and quotas that want to came with a reload, when the transfer
// was armed already.
func (v *policing) passed(bytes int64) {
	if v.flow != nil {
		v.flow.Add(bytes)
	}
	if v.watch != nil {
		v.watch.digest = nil
	}
}

// digest is the SHA-256 of what the last transfer moved, in hexadecimal; empty if nobody wants it.
func (v *policing) digest() string {
	if v.watch == nil || v.watch.digest == nil {
		return ""
	}
	return hex.EncodeToString(v.watch.digest.Sum(nil))
}

// watch sees the bytes of a transfer. It is dataconn.Inspector.
type watch struct {
	v        *policing
	ctx      context.Context // done when the transfer is reset
	stop     context.CancelFunc
	moved    int64
	until    int64 // as policy.Decision
	again    control.Request
	now      time.Time
	digest   hash.Hash   // nil: none is wanted
	flow     *quota.Flow // nil: nothing is counted
	limiters []*rate.Limiter
}

// Write implements dataconn.Inspector: b is about to move.
func (w *watch) Write(b []byte) (int, error) {
	if w.flow != nil {
		if over := w.flow.Add(int64(len(b))); over != nil {
			return 0, overQuota(over)
		}
	}
	w.moved += int64(len(b))
	for w.until > 0 && w.moved >= w.until {
		if r := w.decide(); r != nil {
			return 0, r
		}
	}
	if w.digest != nil {
		w.digest.Write(b)
	}
	for _, l := range w.limiters {
		for rest := len(b); rest > 0; {
			n := min(rest, l.Burst())
			if err := l.WaitN(w.ctx, n); err != nil {
				return 0, err
			}
			rest -= n
		}
	}
	return len(b), nil
}

// decide asks the rules again, now that more is known of the size.
func (w *watch) decide() *control.Refusal {
	w.again.Size = w.again.Offset + w.moved
	d := w.v.bound.Decide(&w.again, w.now)
	w.until = d.Until
	return d.Refusal
}

// Verdict implements dataconn.Inspector.
func (w *watch) Verdict() error { return nil }

// Stop has a Write that waits return.
func (w *watch) Stop() { w.stop() }
