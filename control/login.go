package control

import (
	"errors"
	"strings"
	"time"

	"ftpalg/control/wire"
	"ftpalg/dataconn"
)

// login performs USER, PASS and ACCT (RFC 959 §4.1.1).
func (s *Session) login(cmd wire.Command) error {
	if s.Protection == RequireTLS && !s.secured[dataconn.Client] {
		return &Refusal{Code: 534, Text: "Policy requires TLS: say AUTH TLS first", Rule: "tls"} // before a password is on the wire
	}
	if s.Explicit {
		var err error
		if cmd.Verb == "USER" {
			cmd, err = s.destined(cmd)
		} else if s.server == nil {
			err = refusal(503, "Log in with USER user@host first")
		}
		if err != nil {
			return err
		}
	}
	reply, err := s.exchange(cmd)
	if err != nil {
		return err
	}
	if cmd.Verb == "USER" {
		s.claimed = cmd.Arg
	}
	// 230 says that the user is in, after any of the three; 202 and 232 that no more is needed (RFC 959 §4.2, RFC 4217 §12.2).
	if reply.Code == 230 || reply.Code == 232 || reply.Code == 202 && cmd.Verb == "PASS" {
		s.user = s.claimed
		s.loggedIn, s.loginBy = true, time.Time{}
		s.observe(LoggedIn{User: s.user})
	}
	return s.pass(reply)
}

// destined takes the server's name out of USER user@host, connects to it if that has not been done, and returns the
// command that the server is to hear. The last @ decides: user names have them too.
func (s *Session) destined(cmd wire.Command) (wire.Command, error) {
	at := strings.LastIndexByte(cmd.Arg, '@')
	if at < 0 || at == len(cmd.Arg)-1 {
		if s.server != nil && at < 0 {
			return cmd, nil // the server is known: another user of it
		}
		return cmd, s.turnAway(refusal(530, "Say which server: USER user@host"))
	}
	user, name := cmd.Arg[:at], cmd.Arg[at+1:]
	if user == "" {
		return cmd, s.turnAway(refusal(530, "Say which user: USER user@host"))
	}
	if s.server != nil && !strings.EqualFold(name, s.named) {
		if s.loggedIn {
			return cmd, refusal(503, "Connected to another server already; say QUIT first")
		}
		s.disconnect()
	}
	if s.server == nil {
		if err := s.open(name); err != nil {
			return cmd, err
		}
	}
	return cmd.WithArg(user), nil
}

// open connects an explicit session to the server that its client named, and pays what was promised to the client on
// the server's behalf. The greeting goes no further: the client has had ours.
func (s *Session) open(name string) error {
	greeting, err := s.connect(name)
	if errors.As(err, new(*handshakeError)) {
		return err
	}
	if err == nil && !greeting.Positive() {
		err = refusal(530, "The server refuses: "+printable(greeting.Text()))
	}
	if err != nil {
		s.disconnect()
		var r *Refusal
		if !errors.As(err, &r) {
			r = &Refusal{Code: 530, Text: "The server cannot be reached", Err: err}
		}
		r.Code, r.End = 530, false // the client may name another
		return s.turnAway(r)
	}
	s.named = name
	for _, cmd := range s.deferred {
		if _, err := s.exchange(cmd); err != nil {
			return err
		}
	}
	return nil
}

// turnAway counts servers that were refused or not reached: a client that keeps naming them is searching for one.
func (s *Session) turnAway(r *Refusal) error {
	if s.denied++; s.denied >= maxDenied {
		r.Code, r.End = 421, true
	}
	return r
}

// answer answers for the server that an explicit session does not have yet.
func (s *Session) answer(cmd wire.Command) error {
	v, known := verbs[cmd.Verb]
	if known && v.action == secure {
		return s.authenticate(cmd)
	}
	if known && v.action == protect {
		return s.protect(cmd)
	}
	if known && v.action == refuse {
		return refuseVerb(cmd.Verb)
	}
	switch cmd.Verb {
	case "QUIT":
		if err := s.say(wire.NewReply(221, "Goodbye")); err != nil {
			return err
		}
		return errGoodbye
	case "NOOP":
		return s.say(wire.NewReply(200, "OK"))
	case "SYST":
		return s.say(wire.NewReply(215, "UNIX Type: L8"))
	case "FEAT":
		lines := []string{"211-Features:", " EPRT", " EPSV", " HOST", " UTF8"}
		if s.Protection.offers() {
			for _, f := range tlsFeatures {
				lines = append(lines, " "+f)
			}
		}
		return s.say(wire.Reply{Code: 211, Lines: append(lines, "211 End")})
	case "HELP":
		return s.say(wire.NewReply(214, "Log in with USER user@host[:port]; the rest is the server's to say"))
	case "HOST":
		// RFC 7151 §3.1: 220 to accept. The server is told when there is one.
		return s.promise(cmd, wire.NewReply(220, "OK"))
	case "CLNT", "OPTS", "CSID", "LANG":
		return s.promise(cmd, wire.NewReply(200, "OK"))
	case "REIN":
		if s.secured[dataconn.Client] {
			return refusal(502, "REIN is not supported with TLS")
		}
		s.deferred = nil
		return s.say(wire.NewReply(220, "Log in as user@host"))
	}
	if !known {
		return refusal(500, "Command not understood")
	}
	return refusal(530, "Log in with USER user@host first")
}

// promise answers for the server and has it told later what was promised.
func (s *Session) promise(cmd wire.Command, yes wire.Reply) error {
	if len(s.deferred) >= maxDeferred {
		return refusal(503, "Log in with USER user@host first")
	}
	s.deferred = append(s.deferred, cmd)
	return s.say(yes)
}

// printable is the text of another's reply fit to stand in one of ours.
func printable(text string) string {
	return strings.Map(func(c rune) rune {
		if c < 0x20 || c == 0x7F {
			return '?'
		}
		return c
	}, text)
}
