package policy

import (
	"slices"
	"strings"
	"time"
	"unicode"
	"unicode/utf8"

	"golang.org/x/text/unicode/norm"

	"ftpalg/config"
	"ftpalg/control"
	"ftpalg/dataconn"
)

// The model is what the engine means, without anything that makes it quick: loops over all rules and all criteria, and a matcher
// that tries everything.

// modelMatch reports whether a glob of **, *, ? and plain classes matches a text.
func modelMatch(p, s string) bool {
	switch {
	case p == "":
		return s == ""
	case p == "/**":
		return s == "" || s[0] == '/'
	case strings.HasPrefix(p, "/**/"):
		if modelMatch(p[3:], s) {
			return true
		}
		for i := 1; i < len(s); i++ {
			if s[0] == '/' && s[i] == '/' && modelMatch(p[3:], s[i:]) {
				return true
			}
		}
		return false
	case p[0] == '*':
		return modelMatch(p[1:], s) || s != "" && s[0] != '/' && modelMatch(p, s[1:])
	case s == "":
		return false
	case p[0] == '?':
		_, n := utf8.DecodeRuneInString(s)
		return s[0] != '/' && modelMatch(p[1:], s[n:])
	case p[0] == '[':
		end := strings.IndexByte(p, ']')
		return strings.IndexByte(p[1:end], s[0]) >= 0 && modelMatch(p[end+1:], s[1:])
	}
	return p[0] == s[0] && modelMatch(p[1:], s[1:])
}

// modelUser is the same for names, in which a slash is a character like others.
func modelUser(p, s string) bool {
	return modelMatch(strings.ReplaceAll(p, "/", "|"), strings.ReplaceAll(s, "/", "|"))
}

func modelFold(s string) string {
	return norm.NFC.String(strings.Map(unicode.ToLower, norm.NFC.String(s)))
}

// modelPath gives what the model knows for sure of paths: nothing of trees and patterns, which have tests of their own.
func modelPath(c config.PolicyRule, p control.Path) bool {
	for _, g := range c.Paths {
		switch {
		case p.Extent == control.Unknown:
			if c.Action == config.PolicyDeny || g == "**" || g == "/**" {
				return true
			}
		case p.Extent == control.OnePath && p.Loose:
			if g == "**" || modelMatch(modelFold(g), modelFold(p.Text)) {
				return true
			}
		case p.Extent == control.OnePath:
			if g == "**" || modelMatch(g, p.Text) {
				return true
			}
		}
	}
	return false
}

func modelRule(c config.PolicyRule, f Facts, r *control.Request, act control.Act, now time.Time) (all, butSize bool) {
	deny := c.Action == config.PolicyDeny
	named := false
	for _, text := range c.Commands {
		verb, sub, _ := strings.Cut(text, " ")
		odd := strings.Trim(r.Sub, "ABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_-") != "" || r.Sub == ""
		if (verb == r.Verb || "X"+verb == r.Verb && slices.Contains([]string{"CWD", "CUP", "MKD", "RMD", "PWD"}, verb)) &&
			(sub == "" || sub == r.Sub || odd && deny) {
			named = true
		}
	}
	if len(c.Commands) > 0 && !named || r.Early && !named {
		return false, false
	}
	if len(c.Listeners) > 0 && !slices.Contains(c.Listeners, f.Listener) {
		return false, false
	}
	inside := len(c.Clients) == 0
	for _, p := range c.Clients {
		inside = inside || p.Contains(f.Client)
	}
	if len(c.Classes) > 0 && !slices.Contains(c.Classes, config.CommandClass(act.Class.String())) {
		inside = false
	}
	who := len(c.Users) == 0 || r.User == "" && deny && !r.Early
	for _, u := range c.Users {
		who = who || r.User != "" && modelUser(u, r.User)
	}
	way := map[dataconn.Direction]config.MoveDirection{dataconn.Download: config.DirectionDownload, dataconn.Upload: config.DirectionUpload}[r.Direction]
	if c.Direction != "" && (!r.Moves || c.Direction != way) || c.LargerThan > 0 && !r.Moves {
		inside = false
	}
	for side, want := range []config.TLSState{c.ClientTLS, c.ServerTLS} {
		plain := !r.Secured[side] || r.Moves && !r.Private[side]
		if want == config.TLSPlain && !plain || want == config.TLSProtected && plain {
			inside = false
		}
	}
	hours := len(c.Hours) == 0
	for minute := time.Duration(0); minute < 24*time.Hour; minute += time.Minute { // of a length of hours, from their beginning
		for _, h := range c.Hours {
			begin := now.Truncate(time.Minute).Add(-minute)
			at := time.Duration(begin.Hour())*time.Hour + time.Duration(begin.Minute())*time.Minute
			length := h.End - h.Begin
			if length <= 0 {
				length += 24 * time.Hour
			}
			hours = hours || at == h.Begin && h.Days[begin.Weekday()] && minute < length
		}
	}
	butSize = inside && who && hours && (len(c.Paths) == 0 || modelPath(c, act.Path))
	return butSize && (c.LargerThan == 0 || r.Size > int64(c.LargerThan) || r.Offset > int64(c.LargerThan)), butSize
}

// modelDecide is the name of the deciding rule, empty for the default, and whether it allows.
func modelDecide(p *config.Policy, f Facts, r *control.Request, now time.Time) (allow bool, name string, until int64) {
	if r.Verb == "QUIT" || r.Verb == "NOOP" || r.Verb == "ABOR" {
		return true, "", 0
	}
	for i, act := range r.Acts() {
		ok, by := p.Default != config.PolicyDeny || r.Early, ""
		for _, c := range p.Rules {
			all, butSize := modelRule(c, f, r, act, now)
			if all {
				ok, by = c.Action == config.PolicyAllow, c.Name
				break
			}
			if n := int64(c.LargerThan) + 1 - r.Offset; butSize && (until == 0 || n < until) {
				until = n
			}
		}
		if !ok {
			return false, by, 0
		}
		if i == 0 {
			allow, name = ok, by
		}
	}
	return allow, name, until
}
