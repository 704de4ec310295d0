package policy

import (
	"fmt"
	"math/rand/v2"
	"net/netip"
	"strings"
	"testing"
	"time"

	"ftpalg/config"
	"ftpalg/control"
	"ftpalg/dataconn"
)

// dice picks rules and commands out of so few words that they meet often.
type dice struct{ *rand.Rand }

func one[T any](d dice, of ...T) T { return of[d.IntN(len(of))] }

// some is a list of up to two, and mostly none, because a rule of many criteria matches nothing.
func some[T any](d dice, of ...T) []T {
	if d.IntN(4) > 0 {
		return nil
	}
	return []T{one(d, of...), one(d, of...)}[:1+d.IntN(2)]
}

func (d dice) path() string {
	var b strings.Builder
	for range 1 + d.IntN(3) {
		b.WriteString("/" + one(d, "a", "b", "A", "ab", "é", "e\u0301", "É", "x.exe", "abcd", "xAbcdx.exe"))
	}
	return b.String()
}

func (d dice) pattern() string {
	if d.IntN(8) == 0 {
		return one(d, "**", "/**")
	}
	var b strings.Builder
	for range 1 + d.IntN(3) {
		b.WriteString("/" + one(d, "a", "b", "A", "*", "**", "?", "a*", "*.exe", "[ab]", "[AB]?", "é", "*b*", "*abcd*", "?abcd*.exe", "*bcd?"))
	}
	return b.String()
}

var allClasses = []config.CommandClass{config.ClassAccess, config.ClassList, config.ClassRead, config.ClassWrite, config.ClassModify}

func (d dice) policy() *config.Policy {
	p := &config.Policy{Default: one(d, config.PolicyAllow, config.PolicyDeny), TimeZone: "UTC"}
	for i := range d.IntN(8) {
		r := config.PolicyRule{
			Name: fmt.Sprint("r", i), Action: one(d, config.PolicyAllow, config.PolicyDeny),
			Listeners: some(d, "in", "out"),
			Clients:   some(d, netip.MustParsePrefix("10.0.0.0/8"), netip.MustParsePrefix("192.0.2.0/24")),
			Users:     some(d, "bob", "al*", "*", "b?b", "x/*", "[ab]ob"),
			Commands:  some(d, "STOR", "RETR", "MKD", "SITE", "SITE CHMOD", "SITE HELP", "AUTH", "RNFR", "NOOP"),
			Classes:   some(d, allClasses...),
			Hours: some(d, config.WeeklyHours{Days: [7]bool{1: true, 5: true}, Begin: 8 * time.Hour, End: 18 * time.Hour},
				config.WeeklyHours{Days: [7]bool{6: true}, Begin: 22 * time.Hour, End: 6 * time.Hour}),
			LargerThan: one[config.Size](d, 0, 0, 0, 100, 1000),
		}
		for range d.IntN(3) {
			r.Paths = append(r.Paths, d.pattern())
		}
		r.Direction = one(d, "", "", "", config.DirectionUpload, config.DirectionDownload)
		r.ClientTLS = one(d, "", "", "", config.TLSPlain, config.TLSProtected)
		r.ServerTLS = one(d, "", "", "", config.TLSPlain, config.TLSProtected)
		p.Rules = append(p.Rules, r)
	}
	return p
}

func (d dice) request() *control.Request {
	verb := one(d, "STOR", "RETR", "LIST", "MKD", "XMKD", "SITE", "AUTH", "RNFR", "USER", "PWD", "NOOP", "DELE")
	v := verbOf(verb)
	flip := func() bool { return d.IntN(2) == 0 }
	r := &control.Request{Verb: verb, Class: v.class, Early: v.early, User: one(d, "bob", "alice", "", "x/y", "b*b"),
		Size: one[int64](d, -1, -1, 50, 100, 101, 5000), Offset: one[int64](d, 0, 0, 60, 101),
		Secured: [2]bool{flip(), flip()}, Private: [2]bool{flip(), flip()}}
	switch verb {
	case "STOR":
		r.Moves, r.Direction = true, dataconn.Upload
	case "RETR", "LIST":
		r.Moves = true
	case "SITE":
		r.Sub = one(d, "CHMOD", "HELP", "", "CH\tMOD", "CHMO")
	}
	acts := []control.Act{{Class: v.class}}
	if v.paths {
		p := control.Path{Text: d.path(), Extent: control.OnePath}
		loose := p
		loose.Loose = true
		acts = []control.Act{{Class: v.class, Path: p}, {Class: v.class, Path: loose}, {Class: v.class, Path: control.Path{Extent: control.Unknown}}}[:1+d.IntN(3)]
		if verb == "RNFR" {
			acts = append(acts, control.Act{Class: control.Read, Path: p})
		}
	}
	r.Acts = func() []control.Act { return acts }
	return r
}

func (d dice) facts() Facts {
	return Facts{Listener: one(d, "in", "out"), Client: netip.MustParseAddr(one(d, "10.1.1.1", "192.0.2.7", "2001:db8::1"))}
}

// check asks the engine and the model, and Explain, which is to say the same.
func check(t *testing.T, d dice) (allowed bool) {
	p := d.policy()
	set, faults := Compile(p)
	if len(faults) > 0 {
		t.Fatal(faults)
	}
	f := d.facts()
	b := set.Bind(f)
	unreachable := map[string]bool{}
	for _, w := range set.Unreachable() {
		if strings.Contains(w.Text, "never matches") {
			unreachable[w.Key[:len("policy.rules[0]")]] = true
		}
	}
	for range 8 {
		r := d.request()
		now := time.Date(2026, 11, 20, 0, 0, 0, 0, time.UTC).Add(time.Duration(d.IntN(7*24*60)) * time.Minute)
		allow, name, until := modelDecide(p, f, r, now)
		got := b.Decide(r, now)
		by := ""
		if got.Rule != nil {
			by = got.Rule.Name
			if unreachable[fmt.Sprintf("policy.rules[%d]", got.Rule.Index)] {
				t.Fatalf("%s decides %+v and is said to be unreachable:\n%+v", by, r, p)
			}
		}
		if got.Allow != allow || by != name || got.Until != until || got.Allow == (got.Refusal != nil) {
			t.Fatalf("%+v of %+v by\n%+v\nis %+v by %q; the model says %v, %q, %d", r, r.Acts(), p, got, by, allow, name, until)
		}
		if got.Allow && set.NeverAllowed(r.Verb) {
			t.Fatalf("%s is said to be never allowed by\n%+v", r.Verb, p)
		}
		if got.Until > 0 && r.Size < 0 {
			early := *r // one byte less changes nothing
			early.Size = r.Offset + got.Until - 1
			if d := b.Decide(&early, now); d.Rule != got.Rule || !d.Allow {
				t.Fatalf("%+v by\n%+v\nchanges before %d bytes", r, p, got.Until)
			}
		}
		said := Explanation{Allow: true}
		for i, e := range b.Explain(r, now) {
			if i == 0 || !e.Allow {
				said = e
			}
			if !e.Allow {
				break
			}
		}
		if said.Allow != got.Allow || said.Rule != got.Rule {
			t.Fatalf("%+v by\n%+v\nis %+v and is explained by %+v", r, p, got, said)
		}
		allowed = allowed || allow
	}
	return allowed
}

// TestModel holds the engine against the model with the same rules and commands each time.
func TestModel(t *testing.T) {
	allowed := 0
	for seed := range uint64(4000) {
		if check(t, dice{rand.New(rand.NewPCG(seed, 6))}) {
			allowed++
		}
	}
	if allowed < 400 {
		t.Errorf("of 4000 policies %d allow anything: the dice are bad", allowed)
	}
}

// FuzzDecide does so with others.
func FuzzDecide(f *testing.F) {
	f.Add(uint64(1), uint64(2))
	f.Fuzz(func(t *testing.T, a, b uint64) { check(t, dice{rand.New(rand.NewPCG(a, b))}) })
}
