// Package wire is the grammar of the FTP control connection: bytes to commands and replies, and back. It knows no
// session, no socket and no meaning: which reply answers which command is control's business.
//
// The grammar is that of RFC 959 §4.1.3 and §4.2 with Telnet (RFC 854) undone. It is stricter than what servers
// accept: a line that two parsers could read in two ways is an error here, because ftpalg stands between two parsers.
package wire

import "fmt"

// Telnet codes (RFC 854) that occur on control connections.
const (
	telnetSE   = 0xF0
	telnetDM   = 0xF2 // the Data Mark of a Synch
	telnetIP   = 0xF4 // Interrupt Process
	telnetSB   = 0xFA // begins a subnegotiation
	telnetWILL = 0xFB
	telnetWONT = 0xFC
	telnetDO   = 0xFD
	telnetDONT = 0xFE
	telnetIAC  = 0xFF
)

// Limits bound what one peer can make a Reader hold. A zero field means its default.
type Limits struct {
	Line       int // bytes of a command line without its end; default 4096. Stops a line without end.
	ReplyLines int // lines of one reply; default 512. Stops a reply without end.
	ReplyBytes int // bytes of one reply; default 65536. Stops a reply of long lines.
}

func (l Limits) withDefaults() Limits {
	if l.Line <= 0 {
		l.Line = 4096
	}
	if l.ReplyLines <= 0 {
		l.ReplyLines = 512
	}
	if l.ReplyBytes <= 0 {
		l.ReplyBytes = 64 << 10
	}
	return l
}

// SyntaxError is a command line that is no FTP command. The line has been consumed, so the next one can be read.
type SyntaxError struct {
	Text    string // what is wrong with it; never holds bytes of the peer, so that replies reflect nothing (ALPACA)
	TooLong bool   // it exceeded Limits.Line
	Binary  bool   // it began with a byte that no command can begin with: another protocol, or noise
}

func (e *SyntaxError) Error() string { return e.Text }

// ReplyError is a reply that is none, or that exceeds a limit. Nothing read after it can be trusted to be in step.
type ReplyError struct{ Text string }

func (e *ReplyError) Error() string { return e.Text }

func replyErrorf(format string, args ...any) error {
	return &ReplyError{Text: fmt.Sprintf(format, args...)}
}
