package control

import (
	"net/netip"
	"strings"
	"time"

	"ftpalg/control/wire"
	"ftpalg/dataconn"
	"ftpalg/tlsmitm"
)

// Observer hears what happened, in order, from the goroutine of Session.Run. It must not block: the session waits for it.
type Observer interface {
	Observe(Event)
	// Verbatim reports whether Said is wanted, too. It is asked each time.
	Verbatim() bool
}

// Event is one of the types below. None holds the argument of a secret verb.
type Event interface{ event() }

// Started: the session has a server. With an explicit listener that is when the client has named one.
type Started struct {
	Client netip.AddrPort
	Server netip.AddrPort // as connected to
	Name   string         // what the client called the server, where it did
}

// Secured: a control connection has TLS from now on.
type Secured struct {
	Side        dataconn.Side
	Facts       tlsmitm.Facts
	Certificate string // the server's side only: the SHA-256 digest of its certificate, in hexadecimal
	Verified    string // the server's side only: how that was verified, "chain" or "pin", or "failed: " and why
}

// ProxyLogin: a client has tried to log in to the proxy itself. Account is as the client said it, and may be anything.
type ProxyLogin struct {
	Account string
	OK      bool
}

// LoggedIn: the server accepted a user.
type LoggedIn struct{ User string }

// LoginFailed: the server did not accept a user.
type LoginFailed struct {
	User string // empty: none was named
	Code int
	Text string
}

// Commanded: a command is over. It is the last event of each, whatever has become of it.
type Commanded struct {
	Verb     string
	Class    Class  // of the verb; Modify for those that are not in the table
	Text     string // the command without secrets
	Path     string // as the client gave it; empty: the command has none
	Resolved string // empty: unknown
	From     string // what RNTO renames
	Code     int    // of the last reply that the client was given; 0: none
	Reply    string // its last line, without the code
	Duration time.Duration
}

// Said is one command or reply on either connection, for the record of a conversation.
type Said struct {
	// Arrow says who spoke to whom: ">" the client to us, ">>" we to the server, "<<" the server to us, "<" we to the client.
	Arrow string
	Text  string // without secrets; lines separated by "\n"
}

// Refused: we said no, and the server heard nothing.
type Refused struct {
	Verb     string
	Path     string // as the client gave it; empty: the command has none
	Resolved string // empty: unknown
	Refusal  *Refusal
}

// Dropped: the server sent a reply that nobody had asked for.
type Dropped struct{ Code int }

// Transferring is a transfer that is about to begin. The server may refuse it. Transferred follows, unless the process ends.
type Transferring struct {
	Verb     string
	Path     string // as the client gave it
	Resolved string // empty: unknown
	Upload   bool
	Offset   int64  // by REST, bytes
	Rule     string // that admitted it; empty: none
	// Data is what carries it. Its Bytes and Carried may be asked from any goroutine, also after the end.
	Data *dataconn.Transfer
}

// Transferred: a transfer ended, well or not.
type Transferred struct {
	Verb     string
	Path     string // as the client gave it
	Resolved string // empty: unknown
	Upload   bool
	Offset   int64  // by REST, bytes; not counted in Bytes
	ASCII    bool   // TYPE A, or E; the bytes are those on the wire
	Rule     string // that admitted it; empty: none
	Bytes    int64
	Duration time.Duration
	Carried  string // "splice", "copy", "tls", or "" where no byte could move
	// TLS is that of the legs, by side; zero where one had none.
	TLS  [2]tlsmitm.Facts
	Code int    // of the final reply the client was given
	Text string // its last line
	Err  error  // nil: it is whole
}

// Ended: the session is over.
type Ended struct {
	User     string
	Duration time.Duration
	Reason   string
	Err      error // nil if client or server said goodbye
}

func (Started) event()     {}
func (Secured) event()     {}
func (ProxyLogin) event()  {}
func (LoggedIn) event()    {}
func (LoginFailed) event() {}
func (Commanded) event()   {}
func (Said) event()        {}
func (Refused) event()     {}
func (Dropped) event()     {}
func (Transferred) event() {}
func (Ended) event()       {}

// redacted is a command as logs may show it.
func redacted(c wire.Command) string {
	v, known := verbs[c.Verb]
	switch {
	case c.Arg == "":
		return c.Name
	case !known || v.argument == secret:
		// An unknown verb may be a password command that somebody mistyped or invented.
		return c.Name + " ***"
	case c.Verb == "SITE":
		// Some servers change passwords by SITE: show what kind it is, no more.
		kind, rest, more := strings.Cut(c.Arg, " ")
		if more && rest != "" {
			kind += " ***"
		}
		return c.Name + " " + kind
	}
	return c.Name + " " + c.Arg
}

// pathOf is the path in a command as the client gave it; empty if the command has none.
func pathOf(c wire.Command) string {
	if verbs[c.Verb].argument == path {
		return c.Arg
	}
	return ""
}
