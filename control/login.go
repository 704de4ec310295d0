package control

import (
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
		var ok bool
		var err error
		if cmd, ok, err = s.introduce(cmd); !ok {
			return err
		}
	}
	reply, err := s.credential(cmd)
	if err != nil {
		return err
	}
	return s.pass(reply)
}

// credential tells the server USER, PASS or ACCT, and returns its final reply.
func (s *Session) credential(cmd wire.Command) (wire.Reply, error) {
	if _, err := s.admit(cmd); err != nil {
		return wire.Reply{}, err
	}
	reply, err := s.exchange(cmd)
	if err != nil {
		return reply, err
	}
	if cmd.Verb == "USER" {
		s.claimed = cmd.Arg
	}
	// 230 says that the user is in, after any of the three; 202 and 232 that no more is needed (RFC 959 §4.2, RFC 4217 §12.2).
	if reply.Code == 230 || reply.Code == 232 || reply.Code == 202 && cmd.Verb == "PASS" {
		s.user = s.claimed
		if s.Policy != nil {
			if r := s.Policy.Enter(s.user); r != nil {
				r.Code, r.End = 421, true
				return reply, r
			}
		}
		s.loggedIn, s.loginBy = true, time.Time{}
		s.observe(LoggedIn{User: s.user})
	} else if reply.Negative() {
		s.observe(LoginFailed{User: s.claimed, Code: reply.Code, Text: reply.Text()})
	}
	return reply, nil
}
