// Package policy decides who may do what: it is the engine of the rules in config.Policy. It does no input and no output, and knows
// of commands what control tells of them.
//
// A command has acts: what it does to which path, in every way in which some server may read it, and each part of it. Each act is
// decided by itself, by the first rule that matches it, or the default. The command is denied if any act is; otherwise the first
// act's rule counts, for its rate, digest and log. The adversary is a client, or a program that it was made to run, who looks for
// a spelling, an order of commands or a moment in which a rule does not see what the server will do. So wherever it is uncertain
// whether a rule matches, one that denies does, and one that allows does not:
//
//   - a path that nobody can tell, a tree of which the rule names a part, a shell's pattern that may match what the rule does (a
//     rule whose paths are ** or /** speaks of all there are, and allows those too);
//   - who the user is, before anybody has said so;
//   - a word behind SITE that is none;
//   - an expression that fails.
//
// Paths are compared byte by byte, as control has made them clean; its loose readings, which are those of servers that ignore case
// or compose letters, are compared with both sides folded. A rule with paths matches no act without one.
//
// Commands that negotiate before login (control.Request.Early) are decided only by rules that name them; without this, a rule about
// those who have logged in would keep everybody from logging in. QUIT, ABOR and NOOP are always allowed: they end, stop or do
// nothing.
package policy

import (
	"fmt"
	"path"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/bmatcuk/doublestar/v4"

	"ftpalg/config"
	"ftpalg/control"
)

// Set is the rules of one configuration. It is not changed any more, but for its counts and what sessions share, and any number of sessions may use it at
// once; a reload makes another one.
type Set struct {
	rules     []*Rule
	allows    bool // what the default does
	zone      *time.Location
	byDefault atomic.Uint64

	mu         sync.Mutex // guards selections
	selections map[string]*selection

	exact, loose index // of the rules with paths
}

// Rule is a rule, ready to be compared. Its configuration is not to be changed.
type Rule struct {
	config.PolicyRule     // Name is never empty
	Index             int // in config.Policy.Rules

	allows   bool
	classes  uint8 // by 1 << control.Class; all if the rule names none
	commands []command
	users    []string // globs in which / is NUL, so that * matches it in a name
	folded   []string // the same without regard to case, of a rule that denies
	paths    []pattern
	when     *expression // nil: true
	count    atomic.Uint64
}

// command is a verb that a rule names, or a SITE with its first word.
type command struct{ verb, sub string }

// Compile makes a configuration's rules ready, or says all that is wrong with them that config does not see. The rules must have
// passed its validation otherwise. A nil Policy, and one without a default, allows everything.
func Compile(p *config.Policy) (*Set, config.Faults) {
	if p == nil {
		p = &config.Policy{}
	}
	s := &Set{allows: p.Default != config.PolicyDeny, zone: time.Local}
	var faults config.Faults
	fault := func(key, format string, a ...any) {
		faults = append(faults, config.Fault{Key: "policy." + key, Text: fmt.Sprintf(format, a...)})
	}
	if p.TimeZone != "" {
		zone, err := time.LoadLocation(p.TimeZone)
		if err != nil {
			fault("time_zone", "there is no such time zone here; write an IANA name, such as Europe/Berlin, or UTC, or Local")
		} else {
			s.zone = zone
		}
	}
	for i, c := range p.Rules {
		key := fmt.Sprintf("rules[%d]", i)
		r := &Rule{PolicyRule: c, Index: i, allows: c.Action == config.PolicyAllow}
		if r.Name == "" {
			r.Name = "policy." + key
		}
		for _, class := range c.Classes {
			n, ok := classNumbers[class]
			if !ok {
				fault(key+".classes", "there is no such class: access, list, read, write or modify")
			}
			r.classes |= 1 << n
		}
		if len(c.Classes) == 0 {
			r.classes = 1<<len(classNumbers) - 1
		}
		for _, text := range c.Commands {
			verb, sub, _ := strings.Cut(strings.ToUpper(text), " ")
			r.commands = append(r.commands, command{verb, strings.TrimSpace(sub)})
		}
		for j, u := range c.Users {
			u = userText(u)
			if _, err := path.Match(u, ""); err != nil {
				fault(fmt.Sprintf("%s.users[%d]", key, j), "the pattern has a [ without a ]; write \\[ for the character")
			}
			r.users = append(r.users, u)
			if !r.allows {
				r.folded = append(r.folded, fold(u))
			}
		}
		for j, text := range c.Paths {
			if why := unmatchable(text); why != "" {
				fault(fmt.Sprintf("%s.paths[%d]", key, j), "%s", why)
			}
			r.paths = append(r.paths, newPattern(text))
		}
		if c.When != "" {
			var err error
			if r.when, err = compileWhen(c.When); err != nil {
				fault(key+".when", "%v", err)
			}
		}
		s.rules = append(s.rules, r)
	}
	if len(faults) > 0 {
		return nil, faults
	}
	s.exact = newIndex(s.rules, func(p *pattern) *glob { return &p.exact })
	s.loose = newIndex(s.rules, func(p *pattern) *glob { return &p.loose })
	return s, nil
}

var classNumbers = map[config.CommandClass]control.Class{
	config.ClassAccess: control.Access, config.ClassList: control.List, config.ClassRead: control.Read,
	config.ClassWrite: control.Write, config.ClassModify: control.Modify,
}

// unmatchable says why a pattern of paths would match none: a rule that denies them would deny nothing, and nobody would notice.
func unmatchable(p string) string {
	switch {
	case !doublestar.ValidatePattern(p):
		return "the pattern has a [ or { that does not end; write \\[ or \\{ for the character"
	case !strings.HasPrefix(p, "/") && !strings.HasPrefix(p, "**"):
		return "paths are absolute; begin with / or **"
	case p == "/":
	case strings.HasSuffix(p, "/"):
		return "paths have no slash at their end; write it without, or with /** for all that is below, too"
	case slices.ContainsFunc(strings.Split(p, "/")[1:], func(s string) bool { return s == "" || s == "." || s == ".." }):
		return `paths are compared without empty parts, "." and ".."; write it without them`
	}
	return ""
}

// userText writes a user's name, or a pattern of names, so that path.Match takes / for a character like others. NUL is in none.
func userText(s string) string { return strings.ReplaceAll(s, "/", "\x00") }

// Rules are all rules, in order.
func (s *Set) Rules() []*Rule { return s.rules }

// Count is how many commands a rule has decided. A transfer that was decided again counts again.
type Count struct {
	Rule *Rule // nil: the default
	N    uint64
}

// Counts are those of all rules, in order, with the default's at the end.
func (s *Set) Counts() []Count {
	var cs []Count
	for _, r := range s.rules {
		cs = append(cs, Count{r, r.count.Load()})
	}
	return append(cs, Count{nil, s.byDefault.Load()})
}

// NeverAllowed reports whether everybody is denied a verb, whatever the session, the path and the time, so that FEAT and HELP need
// not tell of it. When in doubt it says no.
func (s *Set) NeverAllowed(verb string) bool {
	v := verbOf(verb)
	if harmless[verb] {
		return false
	}
	for _, r := range s.rules {
		names := len(r.commands) == 0 && !v.early || slices.ContainsFunc(r.commands, func(c command) bool { return c.names(verb) })
		switch {
		case !names || !v.mixed && r.classes&(1<<v.class) == 0:
		case r.allows:
			return false
		case !(v.mixed && len(r.Classes) > 0) && r.unconditional() && !slices.ContainsFunc(r.commands, func(c command) bool { return c.sub != "" }):
			return true
		}
	}
	return !s.allows && !v.early
}

// unconditional reports whether a rule has no criteria but commands and classes.
func (r *Rule) unconditional() bool {
	return len(r.Listeners)+len(r.Clients)+len(r.Servers)+len(r.Ports)+len(r.Users)+len(r.Accounts)+len(r.Groups)+len(r.Paths)+len(r.Hours) == 0 &&
		r.Direction == "" && r.LargerThan == 0 && r.ClientTLS == "" && r.ServerTLS == "" && r.When == ""
}
