package policy

import (
	"fmt"
	"net/netip"
	"path"
	"slices"
	"strings"

	"ftpalg/config"
	"ftpalg/control"
)

// Unreachable are warnings of rules that can never match: their own criteria contradict each other, or an earlier rule matches all
// that they do. It gives no false alarms, and does not find all: what two earlier rules cover together, or a pattern that is
// wider than another in a way that is not plain to see. It compares every two rules, which is for `ftpalg check`.
func (s *Set) Unreachable() []config.Fault {
	var faults []config.Fault
	warn := func(r *Rule, key, format string, a ...any) {
		faults = append(faults, config.Fault{Key: fmt.Sprintf("policy.rules[%d]%s", r.Index, key), Text: fmt.Sprintf(format, a...)})
	}
	var sound []*Rule // those before that can match
	for _, r := range s.rules {
		if key, why := r.contradiction(); why != "" {
			warn(r, key, "the rule never matches: %s", why)
			continue
		}
		for _, before := range sound {
			if !before.includes(r) {
				continue
			}
			if before.allows && !r.allows && len(r.users)+len(r.paths)+len(r.commands) > 0 {
				// A rule that denies matches what is uncertain, and one that allows does not.
				warn(r, "", "%s, before it, allows all that it denies, but for paths, users and words of SITE that nobody can tell; put it before that rule", before.Name)
			} else {
				warn(r, "", "the rule never matches: %s, before it, matches all that it does; put it before that rule, or leave it out", before.Name)
			}
			break
		}
		sound = append(sound, r)
	}
	return faults
}

// contradiction says which of a rule's own criteria keeps it from ever matching, and why; empty: none does.
func (r *Rule) contradiction() (key, why string) {
	reach, names := r.classes, r.commands
	asked := slices.ContainsFunc(names, func(c command) bool { return !harmless[c.verb] })
	if len(names) > 0 {
		if !asked {
			return ".commands", "QUIT, ABOR and NOOP are always allowed"
		}
		var may uint8
		paths := false
		for _, c := range names {
			may |= classesOf(c.verb)
			paths = paths || verbOf(c.verb).paths
		}
		if reach &= may; reach == 0 {
			return ".commands", "none of its commands does anything of its classes"
		}
		if len(r.paths) > 0 && !paths {
			return ".paths", "none of its commands has a path"
		}
	}
	moving := map[config.MoveDirection]uint8{config.DirectionUpload: 1 << control.Write, config.DirectionDownload: 1<<control.List | 1<<control.Read}
	moving[""] = moving[config.DirectionUpload] | moving[config.DirectionDownload]
	switch {
	case r.Direction != "" && reach&moving[r.Direction] == 0:
		return ".direction", "nothing of its classes and commands moves that way"
	case r.LargerThan > 0 && reach&moving[""] == 0:
		return ".larger_than", "nothing of its classes and commands moves files"
	case len(r.Hours) > 0 && !slices.ContainsFunc(r.Hours, func(h config.WeeklyHours) bool { return h.Days != [7]bool{} }):
		return ".hours", "they have no day"
	case len(r.users) > 0 && r.allows && !slices.ContainsFunc(r.users, func(u string) bool { return u != "" }):
		return ".users", "nobody has an empty name; leave the key out for everybody"
	}
	return "", ""
}

// includes reports whether a rule surely matches all that a later one does, criterion by criterion.
func (r *Rule) includes(later *Rule) bool {
	same := func(a, b string) bool { return a == "" || a == b }
	switch {
	case r.classes&later.classes != later.classes,
		!same(string(r.Direction), string(later.Direction)),
		!same(string(r.ClientTLS), string(later.ClientTLS)),
		!same(string(r.ServerTLS), string(later.ServerTLS)),
		!same(r.When, later.When),
		r.LargerThan > 0 && (later.LargerThan == 0 || later.LargerThan < r.LargerThan):
		return false
	case !every(r.Listeners, later.Listeners, func(a, b string) bool { return a == b }),
		!every(r.Clients, later.Clients, prefixIncludes),
		!every(r.Servers, later.Servers, targetIncludes),
		!every(r.Ports, later.Ports, func(a, b config.PortRange) bool {
			return a == config.PortRange{} || b != config.PortRange{} && a.First <= b.First && b.Last <= a.Last
		}),
		!every(r.commands, later.commands, func(a, b command) bool { return a.names(b.verb) && (a.sub == "" || a.sub == b.sub) }),
		!every(r.users, later.users, userIncludes),
		!every(r.Paths, later.Paths, pathIncludes),
		!every(r.Hours, later.Hours, func(a, b config.WeeklyHours) bool { return a == b }):
		return false
	// A rule without commands does not match what is early.
	case len(r.commands) == 0 && len(later.commands) > 0 && slices.ContainsFunc(later.commands, func(c command) bool { return verbOf(c.verb).early }):
		return false
	// Accounts and groups are one criterion. Who is in a group is not known here.
	case len(r.Accounts)+len(r.Groups) == 0:
		return true
	case len(later.Accounts)+len(later.Groups) == 0:
		return false
	}
	equal := func(a, b config.Account) bool { return a == b }
	return all(r.Accounts, later.Accounts, equal) && all(r.Groups, later.Groups, equal)
}

// every reports whether a list, which is no criterion if it is empty, includes all that another does.
func every[T any](list, later []T, includes func(a, b T) bool) bool {
	return len(list) == 0 || len(later) > 0 && all(list, later, includes)
}

// all reports whether each element of a list is included by one of another.
func all[T any](list, later []T, includes func(a, b T) bool) bool {
	return !slices.ContainsFunc(later, func(b T) bool { return !slices.ContainsFunc(list, func(a T) bool { return includes(a, b) }) })
}

func prefixIncludes(a, b netip.Prefix) bool { return a.Bits() <= b.Bits() && a.Contains(b.Addr()) }

func targetIncludes(a, b config.Target) bool {
	return a == b || a.Host == "*" || a.Prefix.IsValid() && b.Prefix.IsValid() && prefixIncludes(a.Prefix, b.Prefix)
}

// userIncludes compares patterns of names.
func userIncludes(a, b string) bool {
	if a == b || a == "*" {
		return true
	}
	ok, _ := path.Match(a, b)
	return ok && !strings.ContainsAny(b, `*?[\`)
}

// pathIncludes compares patterns of paths.
func pathIncludes(a, b string) bool {
	if a == b || a == "**" || a == "/**" {
		return true
	}
	above, tree := strings.CutSuffix(a, "/**")
	return tree && !strings.ContainsAny(above, meta) && (b == above || strings.HasPrefix(b, above+"/"))
}
