// Package audit writes the record: one line of JSON for each event, and an xferlog beside it. It knows nothing of sessions; it is
// told what has happened, and sees to it that what it has written stays readable, whatever names, disks and readers do.
package audit

import (
	"bytes"
	_ "embed"
	"encoding/base64"
	"encoding/json"
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

// lineWriter makes lines of events. The zero value is ready.
type lineWriter struct {
	line bytes.Buffer
	json *json.Encoder
}

// append appends an event's line. A name may be anything that a client has made up, so nothing of it may end the line, or pass
// for another field, or move the cursor of whoever reads it on a terminal.
func (w *lineWriter) append(b []byte, e *Event) []byte {
	e.UserRaw, e.TextRaw, e.PathRaw, e.ResolvedRaw, e.FromRaw = raw(e.User), raw(e.Text), raw(e.Path), raw(e.Resolved), raw(e.From)
	if w.json == nil {
		w.json = json.NewEncoder(&w.line)
		w.json.SetEscapeHTML(false)
	}
	w.line.Reset()
	if err := w.json.Encode(e); err != nil {
		panic("audit: " + err.Error()) // of strings, numbers and times: cannot be
	}
	return appendSafely(b, w.line.Bytes())
}

// raw is a text's bytes in base64 if JSON cannot have them, and U+FFFD stands there instead: whoever chooses names could otherwise
// have what was done to one file recorded in the very words of another. It is empty for UTF-8.
func raw(s string) string {
	if utf8.ValidString(s) {
		return ""
	}
	return base64.StdEncoding.EncodeToString([]byte(s))
}

const hexadecimal = "0123456789abcdef"

// appendSafely escapes what encoding/json leaves as it is and terminals obey: DEL, the C1 controls, and what reverses text.
func appendSafely(b, line []byte) []byte {
	plain := 0
	for plain < len(line) && line[plain] < 0x7F {
		plain++
	}
	b, line = append(b, line[:plain]...), line[plain:] // most lines are no more than this
	for len(line) > 0 {
		r, n := utf8.DecodeRune(line)
		switch {
		case r >= 0x7F && r <= 0x9F, r >= 0x202A && r <= 0x202E, r >= 0x2066 && r <= 0x2069, r == 0x200E, r == 0x200F, r == 0x061C:
			b = append(b, '\\', 'u', hexadecimal[r>>12&15], hexadecimal[r>>8&15], hexadecimal[r>>4&15], hexadecimal[r&15])
		default:
			b = append(b, line[:n]...)
		}
		line = line[n:]
	}
	return b
}

// JSONSchema is the JSON Schema (draft 2020-12) of a line.
//
//go:embed schema.json
var JSONSchema []byte
