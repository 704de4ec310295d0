package config

import (
	"fmt"
	"net/netip"
	slash "path"
	"slices"
	"strconv"
	"strings"
	"time"
	"unicode"

	"github.com/bmatcuk/doublestar/v4"
)

// Policy is who may do what. Its rules are ordered, and the first that matches decides; where none does, Default.
type Policy struct {
	Default PolicyAction `yaml:"default"`
	// AskDirectory lets a session ask its server for the working directory (PWD) where a rule speaks of paths and the server
	// has not told it. Otherwise what is said relative to it has an unknown path.
	AskDirectory bool         `yaml:"ask_directory"`
	TimeZone     string       `yaml:"time_zone"` // of the rules' Hours: an IANA name, UTC or Local
	Rules        []PolicyRule `yaml:"rules"`
	Quotas       []Quota      `yaml:"quotas"`
	// State is a file in which the quotas' counts survive a restart. Empty: they do not.
	State File `yaml:"state"`
}

// PolicyAction is what becomes of a command.
type PolicyAction string

// The actions.
const (
	PolicyAllow PolicyAction = "allow"
	PolicyDeny  PolicyAction = "deny"
)

// PolicyRule is one rule. Of each list that is given one element must match, and all that is given must; a rule without any
// matches everything.
type PolicyRule struct {
	Name   string       `yaml:"name"` // unique; empty: policy.rules[i]
	Action PolicyAction `yaml:"action"`

	Listeners []string       `yaml:"listeners"` // names
	Clients   []netip.Prefix `yaml:"clients"`
	Servers   []Target       `yaml:"servers"`
	Ports     []PortRange    `yaml:"ports"`    // of the server
	Users     []string       `yaml:"users"`    // FTP users; globs of path.Match without its special case for /
	Accounts  []Account      `yaml:"accounts"` // of the proxy; either these or Groups
	Groups    []Account      `yaml:"groups"`
	Commands  []string       `yaml:"commands"` // verbs in upper case, and "SITE CHMOD"
	Classes   []CommandClass `yaml:"classes"`
	Paths     []string       `yaml:"paths"`     // globs of doublestar, beginning with / or **
	Direction MoveDirection  `yaml:"direction"` // empty: either
	// LargerThan matches transfers of more bytes, as soon as that shows. Zero: not asked.
	LargerThan Size          `yaml:"larger_than"`
	ClientTLS  TLSState      `yaml:"client_tls"` // empty: either
	ServerTLS  TLSState      `yaml:"server_tls"`
	Hours      []WeeklyHours `yaml:"hours"`
	When       string        `yaml:"when"` // an expression; empty: true

	// Code and Text are for rules that deny; zero: what suits the command.
	Code int    `yaml:"code"`
	Text string `yaml:"text"`
	// The rest is for rules that allow. Rate is for each transfer, SharedRate for all of the rule's together.
	Rate       Rate `yaml:"rate"`
	SharedRate Rate `yaml:"shared_rate"`
	Digest     bool `yaml:"digest"` // SHA-256 of what moves, for the audit
	Log        bool `yaml:"log"`    // a log line for each command that the rule decides
}

// CommandClass is a class of commands, as `ftpalg verbs` prints them.
type CommandClass string

// The classes.
const (
	ClassAccess CommandClass = "access"
	ClassList   CommandClass = "list"
	ClassRead   CommandClass = "read"
	ClassWrite  CommandClass = "write"
	ClassModify CommandClass = "modify"
)

// MoveDirection is which way a transfer's bytes go.
type MoveDirection string

// The directions.
const (
	DirectionDownload MoveDirection = "download" // from the server to the client, listings too
	DirectionUpload   MoveDirection = "upload"
)

// DirectionOf is that of an upload, or of what is none.
func DirectionOf(upload bool) MoveDirection {
	if upload {
		return DirectionUpload
	}
	return DirectionDownload
}

// TLSState is whether a side is protected.
type TLSState string

// The states. For commands that move data they are about the data connection too.
const (
	TLSPlain     TLSState = "plain"     // something is not protected
	TLSProtected TLSState = "protected" // everything is
)

// WeeklyHours are hours on some days of the week: "Mon-Fri 08:00-18:00", "Sat,Sun 00:00-24:00", "22:00-06:00". Days are those on
// which the hours begin. The zero value is no time at all.
type WeeklyHours struct {
	Days       [7]bool       // by time.Weekday
	Begin, End time.Duration // since midnight, by the clock on the wall; End <= Begin: on the next day
}

// Rate is bytes in a second. Its text is a Size and "/s": 2MB/s. Zero: not limited.
type Rate int64

// Quota bounds what each of those it is Per may do, in sum over Window or at once. Zero bounds are none.
type Quota struct {
	Name string   `yaml:"name"` // unique
	Per  QuotaPer `yaml:"per"`
	// Listeners to Groups say whose sessions count, as in a PolicyRule.
	Listeners []string       `yaml:"listeners"`
	Clients   []netip.Prefix `yaml:"clients"`
	Servers   []Target       `yaml:"servers"`
	Users     []string       `yaml:"users"`
	Accounts  []Account      `yaml:"accounts"`
	Groups    []Account      `yaml:"groups"`

	Sessions  int           `yaml:"sessions"`  // at once, from login on
	Transfers int           `yaml:"transfers"` // at once
	Bytes     Size          `yaml:"bytes"`     // in Window, both directions
	Files     int           `yaml:"files"`     // transfers begun in Window, listings not counted
	Direction MoveDirection `yaml:"direction"` // of Bytes and Files; empty: both
	Window    time.Duration `yaml:"window"`    // sliding; positive
}

// QuotaPer says whom a quota counts apart.
type QuotaPer string

// Whom quotas are for.
const (
	PerClient  QuotaPer = "client"  // address (IPv6: /64)
	PerUser    QuotaPer = "user"    // FTP user at a server
	PerAccount QuotaPer = "account" // of the proxy
	PerAll     QuotaPer = "all"     // everybody together
)

const minRate = 1000 // bytes a second; below it, a transfer and a stalled one cannot be told apart

// UnmarshalText reads a size and "/s"; it fails without them.
func (r *Rate) UnmarshalText(text []byte) error {
	var s Size
	size, ok := strings.CutSuffix(string(text), "/s")
	if !ok || s.UnmarshalText([]byte(size)) != nil {
		return fmt.Errorf("%s is no rate: write a size and /s, such as 2MB/s or 512KiB/s", quoted(string(text)))
	}
	*r = Rate(s)
	return nil
}

// String writes the rate as UnmarshalText reads it.
func (r Rate) String() string { return Size(r).String() + "/s" }

var weekdays = [7]string{"Sun", "Mon", "Tue", "Wed", "Thu", "Fri", "Sat"}

// UnmarshalText reads hours with days before them, or without: those are on every day.
func (h *WeeklyHours) UnmarshalText(text []byte) error {
	wrong := fmt.Errorf("%s are no hours: write 08:00-18:00, Mon-Fri 08:00-18:00 or Sat,Sun 22:00-06:00; days are %s", quoted(string(text)), strings.Join(weekdays[:], " "))
	days, hours, ok := strings.Cut(string(text), " ")
	if !ok {
		days, hours = "Sun-Sat", days
	}
	var out WeeklyHours
	for part := range strings.SplitSeq(days, ",") {
		first, last, isRange := strings.Cut(part, "-")
		if !isRange {
			last = first
		}
		from, to := slices.Index(weekdays[:], first), slices.Index(weekdays[:], last)
		if from < 0 || to < 0 {
			return wrong
		}
		for d := from; ; d = (d + 1) % 7 {
			out.Days[d] = true
			if d == to {
				break
			}
		}
	}
	from, to, ok := strings.Cut(strings.TrimSpace(hours), "-")
	var ok1, ok2 bool
	out.Begin, ok1 = clock(from)
	out.End, ok2 = clock(to)
	if !ok || !ok1 || !ok2 || out.Begin == 24*time.Hour {
		return wrong
	}
	*h = out
	return nil
}

// clock reads HH:MM, 00:00 to 24:00.
func clock(s string) (time.Duration, bool) {
	hours, minutes, _ := strings.Cut(s, ":")
	h, err1 := strconv.Atoi(hours)
	m, err2 := strconv.Atoi(minutes)
	if err1 != nil || err2 != nil || len(hours) != 2 || len(minutes) != 2 || !consistsOf(hours+minutes, digits) || m > 59 || h > 24 || h == 24 && m > 0 {
		return 0, false
	}
	return time.Duration(h)*time.Hour + time.Duration(m)*time.Minute, true
}

// String writes the hours as UnmarshalText reads them.
func (h WeeklyHours) String() string {
	var days []string
	for i := range weekdays {
		if d := (i + 1) % 7; h.Days[d] { // the week begins on Monday
			days = append(days, weekdays[d])
		}
	}
	hours := fmt.Sprintf("%02d:%02d-%02d:%02d", h.Begin/time.Hour, h.Begin%time.Hour/time.Minute, h.End/time.Hour, h.End%time.Hour/time.Minute)
	if len(days) == 7 {
		return hours
	}
	return strings.Join(days, ",") + " " + hours
}

// Contains reports whether it is one of the hours, by the wall clock of t's zone. An hour that a change to summer time leaves out
// never comes, one that it repeats counts twice.
func (h WeeklyHours) Contains(t time.Time) bool {
	now := time.Duration(t.Hour())*time.Hour + time.Duration(t.Minute())*time.Minute + time.Duration(t.Second())*time.Second
	today, yesterday := h.Days[t.Weekday()], h.Days[(t.Weekday()+6)%7]
	if h.Begin < h.End {
		return today && h.Begin <= now && now < h.End
	}
	return today && h.Begin <= now || yesterday && now < h.End
}

func defaultPolicy() Policy {
	return Policy{Default: PolicyAllow, AskDirectory: true, TimeZone: "Local"}
}

// complete gives rules and quotas their defaults, and verbs their one spelling.
func (p *Policy) complete() {
	if len(p.Rules) == 0 {
		p.Rules = nil // as Destinations
	}
	if len(p.Quotas) == 0 {
		p.Quotas = nil
	}
	for i := range p.Rules {
		r := &p.Rules[i]
		if r.Name == "" {
			r.Name = element("policy.rules", i)
		}
		for j, c := range r.Commands {
			r.Commands[j] = strings.ToUpper(c)
		}
	}
	for i := range p.Quotas {
		q := &p.Quotas[i]
		if q.Name == "" {
			q.Name = element("policy.quotas", i)
		}
		if q.Per == "" {
			q.Per = PerClient
		}
		if q.Window == 0 {
			q.Window = 24 * time.Hour
		}
	}
}

// Most of rules and quotas: more are generated, and by a fault.
const (
	maxRules  = 10000
	maxQuotas = 1000
)

func (k *checker) policy(c *Config) {
	p := &c.Policy
	const key = "policy"
	oneOf(k, key+".default", p.Default, []PolicyAction{PolicyAllow, PolicyDeny})
	if _, err := time.LoadLocation(p.TimeZone); err != nil || p.TimeZone == "" {
		k.fault(key+".time_zone", "%s is not known here: write Local, UTC or a name such as Europe/Zurich, for which Debian has the package tzdata", quoted(p.TimeZone))
	}
	if len(p.Rules) > maxRules {
		k.fault(key+".rules", "has %d rules, more than %d", len(p.Rules), maxRules)
	}
	if len(p.Quotas) > maxQuotas {
		k.fault(key+".quotas", "has %d quotas, more than %d", len(p.Quotas), maxQuotas)
	}
	named := map[string]bool{}
	for i := range p.Rules {
		k.rule(element(key+".rules", i), &p.Rules[i], c, named)
	}
	named = map[string]bool{}
	for i := range p.Quotas {
		k.quota(element(key+".quotas", i), &p.Quotas[i], c, named)
	}
}

// title checks the name of a rule or quota.
func (k *checker) title(key, name string, named map[string]bool) {
	switch {
	case name == key && !named[name]: // ours
	case len(name) > 64 || !consistsOf(name, letters+digits+"._-"):
		k.fault(key+".name", "%s is no name: use 1 to 64 letters, digits, '.', '_' and '-'", quoted(name))
	case named[name]:
		k.fault(key+".name", "%s is another's name too", quoted(name))
	}
	named[name] = true
}

// subjects checks what says whose sessions a rule or a quota is about.
func (k *checker) subjects(key string, listeners []string, clients []netip.Prefix, servers []Target, users []string, accounts, groups []Account, c *Config) {
	for i, l := range listeners {
		if !slices.ContainsFunc(c.Listeners, func(x Listener) bool { return x.Name == l }) {
			k.fault(element(key+".listeners", i), "%s is no listener of this file", quoted(l))
		}
	}
	k.prefixes(key+".clients", clients)
	k.targets(key+".servers", servers)
	for i, u := range users {
		if _, err := slash.Match(u, ""); err != nil || u == "" {
			k.fault(element(key+".users", i), "%s is no name or pattern: * is any text, ? any character, [ab] one of some; write \\ before one that is meant", quoted(u))
		}
	}
	k.members(key+".accounts", accounts, &c.Accounts)
	k.members(key+".groups", groups, &c.Accounts)
}

func (k *checker) rule(key string, r *PolicyRule, c *Config, named map[string]bool) {
	k.title(key, r.Name, named)
	oneOf(k, key+".action", r.Action, []PolicyAction{PolicyAllow, PolicyDeny})
	k.subjects(key, r.Listeners, r.Clients, r.Servers, r.Users, r.Accounts, r.Groups, c)
	k.ports(key+".ports", r.Ports)
	for i, v := range r.Commands {
		verb, sub, more := strings.Cut(v, " ")
		if !consistsOf(verb, upper+digits) || len(verb) < 3 || len(verb) > 16 || more && (verb != "SITE" || !consistsOf(sub, upper+digits+"_-") || sub == "") {
			k.fault(element(key+".commands", i), "%s is no command: write a verb such as STOR, or SITE and a word", quoted(v))
		}
	}
	for i, class := range r.Classes {
		oneOf(k, element(key+".classes", i), class, []CommandClass{ClassAccess, ClassList, ClassRead, ClassWrite, ClassModify})
	}
	for i, p := range r.Paths {
		if !strings.HasPrefix(p, "/") && !strings.HasPrefix(p, "**") || !doublestar.ValidatePattern(p) {
			k.fault(element(key+".paths", i), "%s is no path or pattern: write /dir/** for all below, /dir/*.txt for files in it, **/*.exe for files anywhere", quoted(p))
		} else if slices.ContainsFunc(strings.FieldsFunc(p, func(c rune) bool { return strings.ContainsRune("/{},", c) }), func(part string) bool { return part != "**" && strings.Contains(part, "**") }) {
			k.fault(element(key+".paths", i), "%s has ** beside other characters, where it is no more than *: write **/*.exe for names anywhere, /dir/**/*.exe for those below one", quoted(p))
		}
	}
	for _, w := range []struct {
		name, value string
		allowed     []string
	}{
		{"direction", string(r.Direction), []string{string(DirectionDownload), string(DirectionUpload)}},
		{"client_tls", string(r.ClientTLS), []string{string(TLSPlain), string(TLSProtected)}},
		{"server_tls", string(r.ServerTLS), []string{string(TLSPlain), string(TLSProtected)}},
	} {
		if w.value != "" {
			oneOf(k, join(key, w.name), w.value, w.allowed)
		}
	}
	if r.Code != 0 && (r.Code < 400 || r.Code > 599) {
		k.fault(key+".code", "is %d; a refusal's is 400 to 599", r.Code)
	}
	if len(r.Text) > 200 || strings.ContainsFunc(r.Text, func(c rune) bool { return !unicode.IsPrint(c) }) {
		k.fault(key+".text", "must be one line of printable text, of at most 200 bytes, since it is a reply's")
	}
	for _, e := range []struct {
		name  string
		given bool
		of    PolicyAction
	}{
		{"code", r.Code != 0, PolicyDeny}, {"text", r.Text != "", PolicyDeny},
		{"rate", r.Rate != 0, PolicyAllow}, {"shared_rate", r.SharedRate != 0, PolicyAllow}, {"digest", r.Digest, PolicyAllow},
	} {
		if e.given && r.Action != e.of {
			k.fault(join(key, e.name), "means nothing here: it is for rules whose action is %s", e.of)
		}
	}
	for _, e := range []struct {
		name string
		rate Rate
	}{{"rate", r.Rate}, {"shared_rate", r.SharedRate}} {
		if e.rate != 0 && e.rate < minRate {
			k.fault(join(key, e.name), "is %v; must be 1KB/s at least, or transfers are taken for stalled", e.rate)
		}
	}
}

func (k *checker) quota(key string, q *Quota, c *Config, named map[string]bool) {
	k.title(key, q.Name, named)
	oneOf(k, key+".per", q.Per, []QuotaPer{PerClient, PerUser, PerAccount, PerAll})
	k.subjects(key, q.Listeners, q.Clients, q.Servers, q.Users, q.Accounts, q.Groups, c)
	if q.Direction != "" {
		oneOf(k, key+".direction", q.Direction, []MoveDirection{DirectionDownload, DirectionUpload})
	}
	if q.Sessions == 0 && q.Transfers == 0 && q.Bytes == 0 && q.Files == 0 {
		k.fault(key, "bounds nothing; write sessions, transfers, bytes or files")
	}
	if q.Window < time.Minute {
		k.fault(key+".window", "is %v; must be 1m at least", formatDuration(q.Window))
	}
	switch {
	case q.Per != PerAccount:
	case !c.Accounts.Given():
		k.fault(key+".per", "counts accounts, and there are none; write accounts.file, or accounts.ldap")
	case !slices.ContainsFunc(c.Listeners, takesAccounts):
		k.fault(key+".per", "counts accounts, and nobody logs in with one: no listener is of mode explicit, or has proxy_login")
	}
}

// strangePolicy warns of rules that do not do what they seem to.
func (k *checker) strangePolicy(c *Config) {
	p := &c.Policy
	allowsAccess := func(r PolicyRule) bool {
		return r.Action == PolicyAllow && len(r.Paths) == 0 && (len(r.Classes) == 0 || slices.Contains(r.Classes, ClassAccess)) && (len(r.Commands) == 0 || slices.Contains(r.Commands, "USER"))
	}
	if p.Default == PolicyDeny && !slices.ContainsFunc(p.Rules, allowsAccess) {
		k.warn("policy.default", "denies all that no rule allows, and none allows to log in: write a rule with action: allow and classes: [access]")
	}
	if i := slices.IndexFunc(p.Rules, func(r PolicyRule) bool { return len(r.Paths) > 0 }); i >= 0 && !p.AskDirectory {
		k.warn("policy.ask_directory", "is false, and rules speak of paths: what a client says relative to a directory that the server has not told is denied where a rule that denies has paths, and not allowed by rules that have")
	}
	for i, q := range p.Quotas {
		if p.State == "" && (q.Bytes > 0 || q.Files > 0) {
			k.warn(element("policy.quotas", i), "is forgotten at a restart; write policy.state, a file to keep it in")
			break
		}
	}
	seen := slices.ContainsFunc(p.Rules, func(r PolicyRule) bool { return r.LargerThan > 0 || r.Rate > 0 || r.SharedRate > 0 || r.Digest }) ||
		slices.ContainsFunc(p.Quotas, func(q Quota) bool { return q.Bytes > 0 })
	if i := slices.IndexFunc(c.Listeners, func(l Listener) bool { return l.DataPath == PathKernel }); i >= 0 && seen {
		k.warn(element("listeners", i)+".data_path", "is kernel, but rules or quotas want to see or slow what moves; the kernel does not carry the transfers that they are about")
	}
}
