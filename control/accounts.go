package control

import (
	"cmp"
	"context"
)

// Accounts are the proxy's own accounts, for clients that log in to it before or with the login to a server. A session asks
// from one goroutine.
type Accounts interface {
	// Known reports whether there is such an account. What a client is told does not depend on it.
	Known(name string) bool
	// Login returns nil if the password is the account's, which is in then, in place of any other. It may take long (bcrypt,
	// LDAP), and should return when ctx is done: at the end of the time for logins, or when the proxy drains. A refusal with End
	// ends the session in its own words; of all others the client hears the same text.
	Login(ctx context.Context, name, password string) *Refusal
}

// maxFailed is how many logins to the proxy may fail in one session: who guesses passwords has to begin anew (RFC 2577 §5).
const maxFailed = 3

// authorise logs an account in. Without Accounts nobody is asked.
func (s *Session) authorise(account, password string) error {
	if s.Accounts == nil {
		return nil
	}
	s.intro.admitted = false
	ctx, cancel := context.WithDeadline(s.ctx, s.loginBy)
	defer cancel()
	defer context.AfterFunc(s.given, cancel)() // draining waits for transfers, not for somebody's directory
	r := s.Accounts.Login(ctx, account, password)
	s.observe(ProxyLogin{Account: account, OK: r == nil})
	switch {
	case r == nil:
		s.intro.admitted = true
		return nil
	case r.End:
		return r
	case s.given.Err() != nil:
		return s.farewell()
	}
	// It must not tell whether it was the name or the password that was wrong.
	return s.failed(&Refusal{Code: 530, Text: "Login to the proxy failed", Rule: cmp.Or(r.Rule, "accounts"), Err: r.Err})
}

// failed counts logins to the proxy that came to nothing: a client that goes on is guessing.
func (s *Session) failed(r *Refusal) error {
	if s.intro.failures++; s.intro.failures >= maxFailed {
		return ending("Too many failed logins", r)
	}
	return r
}

// permitted refuses whoever has not logged in to the proxy, where that is asked for. Until then no server is connected to, and no
// name looked up that the client has said.
func (s *Session) permitted() error {
	if s.Accounts != nil && !s.intro.admitted {
		return s.turnAway(refusal(530, "Log in to the proxy first"))
	}
	return nil
}
