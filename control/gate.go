package control

import (
	"ftpalg/control/wire"
	"ftpalg/dataconn"
)

// A session that is not Explicit and has Accounts has a gate: its client logs in to the proxy, and then to the server, whose greeting
// it has heard (RFC 959 knows nothing of this; it is what clients call a transparent firewall, USER PASS USER PASS).

// gated reports whether the client has to log in to the proxy yet.
func (s *Session) gated() bool { return s.Accounts != nil && !s.Explicit && !s.intro.admitted }

// gate takes a command of a client that has not logged in to the proxy. It is not done with those that negotiate, which the server
// may hear before anybody's login; of all others, and of whatever would have a password in it, it hears nothing.
func (s *Session) gate(cmd wire.Command) (done bool, err error) {
	i := s.intro
	v, known := verbs[cmd.Verb]
	switch {
	case known && v.action == refuse:
		return false, nil
	case known && v.action != login && v.action != restart && v.flags&early != 0:
		return false, nil
	case !known || v.action != login:
		return true, refusal(530, "Log in to the proxy first")
	case s.Protection == RequireTLS && !s.secured[dataconn.Client]:
		return false, nil // login refuses it
	case cmd.Verb == "USER" && cmd.Arg == "":
		return true, s.failed(refusal(530, "Log in to the proxy first"))
	case cmd.Verb == "USER":
		return true, s.challenge(cmd.Arg)
	case cmd.Verb != i.next:
		return true, refusal(503, "USER comes first")
	}
	account := i.claim.account
	i.claim, i.next = naming{}, ""
	if err := s.authorise(account, cmd.Arg); err != nil {
		return true, err
	}
	return true, s.say(wire.NewReply(230, "Logged in to the proxy; now log in to the server"))
}
