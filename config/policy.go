package config

import (
	"net/netip"
	"time"
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
