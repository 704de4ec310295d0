// Package audit writes the record: one line of JSON for each event, and an xferlog beside it. It knows nothing of sessions; it is
// told what has happened, and sees to it that what it has written stays readable, whatever names, disks and readers do.
package audit

import (
	_ "embed"
	"encoding/base64"
	"strconv"
	"sync"
	"time"
	"unicode/utf8"
)

// Schema is the version of the form of events. It changes when a field's meaning does, or one is removed; not when one is added.
const Schema = 1

// Kind is what an event tells of.
type Kind string

// The kinds of events. README.md has the fields of each, and schema.json their form.
const (
	Opened        Kind = "opened"  // the file is open; the first of each process and file
	Dropped       Kind = "dropped" // events were lost before this one
	SessionStart  Kind = "session_start"
	ProxyLogin    Kind = "proxy_login" // to the proxy itself
	Login         Kind = "login"       // to the server
	TLS           Kind = "tls"
	TransferStart Kind = "transfer_start" // written before a byte moves
	Transfer      Kind = "transfer"
	Denial        Kind = "denial" // we said no, and the server heard nothing
	Change        Kind = "change" // of what the server has, by another command than a transfer
	Command       Kind = "command"
	SessionEnd    Kind = "session_end"
)

// How events ended.
const (
	Success = "success"
	Failure = "failure"
	Whole   = "whole"  // of transfers: every byte arrived
	Broken  = "broken" // of transfers: begun, and not whole
	Refused = "refused"
)

// Event is one line of the record. What is empty is left out. Schema, Seq and Time are the Log's to set.
type Event struct {
	Schema  int       `json:"schema"`
	Seq     uint64    `json:"seq"` // one more than that of the event before, in a process; a gap shows that a line is missing
	Time    time.Time `json:"time"`
	Event   Kind      `json:"event"`
	Outcome string    `json:"outcome,omitempty"`

	Session     string `json:"session,omitempty"`
	Listener    string `json:"listener,omitempty"`
	Mode        string `json:"mode,omitempty"`
	Client      string `json:"client,omitempty"`       // address and port, as the client side sees it
	ClientLocal string `json:"client_local,omitempty"` // what the client has connected to
	ServerLocal string `json:"server_local,omitempty"` // what the server sees as the client
	Server      string `json:"server,omitempty"`
	ServerName  string `json:"server_name,omitempty"`
	Account     string `json:"account,omitempty"`
	User        string `json:"user,omitempty"`

	Verb      string   `json:"verb,omitempty"`
	Text      string   `json:"text,omitempty"` // the command without secrets
	Path      string   `json:"path,omitempty"` // as the client gave it
	Resolved  string   `json:"resolved_path,omitempty"`
	From      string   `json:"from_path,omitempty"` // resolved; what RNTO renames
	Direction string   `json:"direction,omitempty"` // download, upload
	ASCII     bool     `json:"ascii,omitempty"`
	Bytes     *int64   `json:"bytes,omitempty"`
	Offset    int64    `json:"offset,omitempty"`
	Seconds   *float64 `json:"duration,omitempty"`
	Carriage  string   `json:"carriage,omitempty"` // kernel, splice, copy, tls
	SHA256    string   `json:"sha256,omitempty"`

	ClientTLS *TLSFacts `json:"client_tls,omitempty"`
	ServerTLS *TLSFacts `json:"server_tls,omitempty"`

	Rule   string `json:"rule,omitempty"`
	Code   int    `json:"code,omitempty"`
	Reply  string `json:"reply,omitempty"` // the last line of it
	Reason string `json:"reason,omitempty"`

	Version string     `json:"version,omitempty"` // of opened
	PID     int        `json:"pid,omitempty"`     // of opened
	Lost    uint64     `json:"lost,omitempty"`    // of dropped
	Since   *time.Time `json:"since,omitempty"`   // of dropped

	// Bytes of what is no UTF-8, in base64. They are the Log's to set.
	UserRaw     string `json:"user_base64,omitempty"`
	TextRaw     string `json:"text_base64,omitempty"`
	PathRaw     string `json:"path_base64,omitempty"`
	ResolvedRaw string `json:"resolved_path_base64,omitempty"`
	FromRaw     string `json:"from_path_base64,omitempty"`
}

// TLSFacts are those of one connection.
type TLSFacts struct {
	Version     string `json:"version"`
	Cipher      string `json:"cipher,omitempty"`
	Resumed     bool   `json:"resumed,omitempty"`
	ALPN        string `json:"alpn,omitempty"`
	Certificate string `json:"certificate,omitempty"` // the SHA-256 digest of the server's, in hexadecimal
	Verified    string `json:"verified,omitempty"`
}

// events are those that are not in use. There are several to a session, and each is big.
var events = sync.Pool{New: func() any { return new(Event) }}

// NewEvent returns an empty event, for Record.
func NewEvent(kind Kind) *Event {
	e := events.Get().(*Event)
	e.Event = kind
	return e
}

// free is for an event that has been written, or is lost.
func (e *Event) free() {
	*e = Event{}
	events.Put(e)
}

// appendLine appends an event's line: JSON as encoding/json would have it, which takes four times as long. A name may be anything that a
// client has made up, so nothing of it may end the line, or pass for another field, or move the cursor of whoever reads it on a terminal.
func (e *Event) appendLine(b []byte) []byte {
	e.UserRaw, e.TextRaw, e.PathRaw, e.ResolvedRaw, e.FromRaw = raw(e.User), raw(e.Text), raw(e.Path), raw(e.Resolved), raw(e.From)
	l := line(append(b, `{"schema":`...))
	l = strconv.AppendInt(l, int64(e.Schema), 10)
	l = strconv.AppendUint(l.name("seq"), e.Seq, 10)
	l = l.time("time", e.Time)
	l = l.name("event").quoted(string(e.Event))
	l = l.text("outcome", e.Outcome)

	l = l.text("session", e.Session)
	l = l.text("listener", e.Listener)
	l = l.text("mode", e.Mode)
	l = l.text("client", e.Client)
	l = l.text("client_local", e.ClientLocal)
	l = l.text("server_local", e.ServerLocal)
	l = l.text("server", e.Server)
	l = l.text("server_name", e.ServerName)
	l = l.text("account", e.Account)
	l = l.text("user", e.User)

	l = l.text("verb", e.Verb)
	l = l.text("text", e.Text)
	l = l.text("path", e.Path)
	l = l.text("resolved_path", e.Resolved)
	l = l.text("from_path", e.From)
	l = l.text("direction", e.Direction)
	l = l.truth("ascii", e.ASCII)
	if e.Bytes != nil {
		l = strconv.AppendInt(l.name("bytes"), *e.Bytes, 10)
	}
	l = l.number("offset", e.Offset)
	if e.Seconds != nil {
		l = strconv.AppendFloat(l.name("duration"), *e.Seconds, 'f', -1, 64)
	}
	l = l.text("carriage", e.Carriage)
	l = l.text("sha256", e.SHA256)

	l = l.facts("client_tls", e.ClientTLS)
	l = l.facts("server_tls", e.ServerTLS)

	l = l.text("rule", e.Rule)
	l = l.number("code", int64(e.Code))
	l = l.text("reply", e.Reply)
	l = l.text("reason", e.Reason)

	l = l.text("version", e.Version)
	l = l.number("pid", int64(e.PID))
	l = l.number("lost", int64(e.Lost))
	if e.Since != nil {
		l = l.time("since", *e.Since)
	}

	l = l.text("user_base64", e.UserRaw)
	l = l.text("text_base64", e.TextRaw)
	l = l.text("path_base64", e.PathRaw)
	l = l.text("resolved_path_base64", e.ResolvedRaw)
	l = l.text("from_path_base64", e.FromRaw)
	return append(l, '}', '\n')
}

// line is one that is being made. Its methods append a field, but for those that are empty.
type line []byte

func (l line) name(name string) line {
	return append(append(append(l, ',', '"'), name...), '"', ':')
}

func (l line) number(name string, n int64) line {
	if n == 0 {
		return l
	}
	return strconv.AppendInt(l.name(name), n, 10)
}

func (l line) truth(name string, is bool) line {
	if !is {
		return l
	}
	return append(l.name(name), "true"...)
}

func (l line) time(name string, t time.Time) line {
	return append(t.AppendFormat(append(l.name(name), '"'), time.RFC3339Nano), '"')
}

func (l line) text(name, s string) line {
	if s == "" {
		return l
	}
	return l.name(name).quoted(s)
}

func (l line) facts(name string, f *TLSFacts) line {
	if f == nil {
		return l
	}
	l = append(l.name(name), `{"version":`...).quoted(f.Version)
	l = l.text("cipher", f.Cipher)
	l = l.truth("resumed", f.Resumed)
	l = l.text("alpn", f.ALPN)
	l = l.text("certificate", f.Certificate)
	l = l.text("verified", f.Verified)
	return append(l, '}')
}

const hexadecimal = "0123456789abcdef"

// quoted appends a text as JSON has it (RFC 8259 §7). What is escaped besides is what terminals obey: DEL, the C1 controls, and what
// reverses text.
func (l line) quoted(s string) line {
	l = append(l, '"')
	for {
		plain := 0
		for plain < len(s) && s[plain] >= ' ' && s[plain] < 0x7F && s[plain] != '"' && s[plain] != '\\' {
			plain++
		}
		if l, s = append(l, s[:plain]...), s[plain:]; s == "" {
			return append(l, '"')
		}
		r, n := utf8.DecodeRuneInString(s)
		switch {
		case r == '"' || r == '\\':
			l = append(l, '\\', byte(r))
		case r == utf8.RuneError && n == 1, r < ' ', r >= 0x7F && r <= 0x9F, r >= 0x2028 && r <= 0x202E, r >= 0x2066 && r <= 0x2069, r == 0x200E, r == 0x200F, r == 0x061C:
			l = append(l, '\\', 'u', hexadecimal[r>>12&15], hexadecimal[r>>8&15], hexadecimal[r>>4&15], hexadecimal[r&15])
		default:
			l = append(l, s[:n]...)
		}
		s = s[n:]
	}
}

// raw is a text's bytes in base64 if JSON cannot have them, and U+FFFD stands there instead: whoever chooses names could otherwise
// have what was done to one file recorded in the very words of another. It is empty for UTF-8.
func raw(s string) string {
	if utf8.ValidString(s) {
		return ""
	}
	return base64.StdEncoding.EncodeToString([]byte(s))
}

// JSONSchema is the JSON Schema (draft 2020-12) of a line.
//
//go:embed schema.json
var JSONSchema []byte
