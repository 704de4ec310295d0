package control

import (
	"cmp"
	"context"
	"errors"
	"net/netip"
	"strings"

	"ftpalg/control/wire"
	"ftpalg/dataconn"
)

// An explicit proxy is told which server is meant, in one of the ways of Logins. None is announced: which it is shows by what
// the client says, and what it says is answered as its program needs it to go on. Clients compare codes: NcFTP has to hear 220
// to OPEN and SITE, WinSCP 3yz to USER, Net::FTP anything but 220 to USER user@host.

// introduction is what the client of an explicit session has said of where it wants to go, and of who it is to the proxy.
type introduction struct {
	claim    naming // by USER, until it is proved; its zero is LoginResp's without accounts, where nothing is
	next     string // what has to follow: PASS, ACCT, AUTH or RESP; empty: nothing
	password string // the server's, until the proxy's has been said
	by       Logins // how the server was named last, in vain or not
	host     string // by HOST
	sni      string // by the hello of the client's TLS
	after    bool   // logged in to the proxy by LoginProxyUser
	tried    Logins // how that was tried last, or in other ways
	admitted bool   // an account is in
	failures int    // of logins to the proxy
}

// allows reports whether a way of logging in is recognised.
func (s *Session) allows(l Logins) bool { return cmp.Or(s.Logins, DefaultLogins)&l != 0 }

// introduce takes USER, PASS or ACCT. It returns what the server is to hear; if there is none of that, the client has been
// answered.
func (s *Session) introduce(cmd wire.Command) (forServer wire.Command, ok bool, err error) {
	i := s.intro
	switch {
	case cmd.Verb == "USER":
		return s.claim(cmd)
	case cmd.Verb == i.next:
		return cmd, false, s.prove(cmd.Arg)
	case i.next == "" && s.server != nil:
		return cmd, true, nil
	case i.next == "" && i.after && cmd.Verb == "ACCT":
		// Net::FTP says it if it has one. RFC 959 §5.4: superfluous.
		return cmd, false, s.say(wire.NewReply(202, "No account is needed"))
	case i.next == "":
		return cmd, false, refusal(503, "Log in with USER user@host first")
	}
	return cmd, false, refusal(503, i.next+" comes next")
}

// claim takes USER, which says who the client wants to be, and perhaps where.
func (s *Session) claim(cmd wire.Command) (forServer wire.Command, ok bool, err error) {
	i := s.intro
	i.claim, i.next, i.password = naming{}, "", ""
	if s.server != nil && i.by&(LoginSite|LoginOpen|LoginProxyUserAtHost|LoginSNI|LoginHost) != 0 {
		return cmd, true, nil // the server was named by itself, and users of it may have an @ in their names
	}
	n, allowed := occasion{cmp.Or(s.Logins, DefaultLogins), s.Accounts != nil, i.after}.read(cmd.Arg)
	if !allowed && s.server == nil {
		n, allowed = naming{user: cmd.Arg}, s.reachable()
	}
	switch {
	case !allowed, s.astray(n):
		if err = s.permitted(); err == nil {
			err = s.turnAway(refusal(530, "Not a way to log in here"))
		}
		return cmd, false, err
	case n.by == 0 && s.server != nil:
		return cmd, true, nil // another user of it
	case n.by == 0:
		return s.unaddressed(cmd)
	}
	if lack := n.lacking(); lack != "" {
		return cmd, false, s.turnAway(refusal(530, lack))
	}
	another := s.server != nil && (n.by != LoginUserAtHost || !strings.EqualFold(n.server, s.named))
	if another && s.loggedIn {
		return cmd, false, refusal(503, "Connected to another server already; say QUIT first")
	}
	if another {
		s.disconnect()
	}
	if n.by != LoginUserAtHost {
		i.claim, i.next = n, "PASS"
		return cmd, false, s.say(wire.NewReply(331, "Password, please"))
	}
	if s.server == nil {
		if _, err := s.open(n.server, n.by); err != nil {
			return cmd, false, err
		}
	}
	return cmd.WithArg(n.user), true, nil
}

// astray reports whether a client that has failed to log in to the proxy in one way goes on as if it were in. Clients that pipeline do.
// What is the server's of names and passwords must not be tried as an account's then.
func (s *Session) astray(n naming) bool {
	i := s.intro
	return s.Accounts != nil && !i.admitted && i.tried != 0 && i.tried&cmp.Or(n.by, LoginProxyUser) == 0
}

// unaddressed takes a USER that names no server: of the one named by HOST or TLS, or else an account of the proxy's.
func (s *Session) unaddressed(cmd wire.Command) (forServer wire.Command, ok bool, err error) {
	i := s.intro
	if s.Accounts == nil || i.admitted {
		if server, by := s.selected(); by != 0 {
			if _, err := s.open(server, by); err != nil {
				return cmd, false, err
			}
			return cmd, true, nil
		}
	}
	if cmd.Arg == "" || !s.allows(LoginProxyUser) || i.by != 0 || i.after || i.admitted {
		// In the latter cases the time for it is over, and it is a server's user whose server could not be had.
		return cmd, false, s.turnAway(refusal(530, "Say which server: USER user@host"))
	}
	return cmd, false, s.challenge(cmd.Arg)
}

// challenge asks for the password of an account.
func (s *Session) challenge(account string) error {
	s.intro.claim, s.intro.next = naming{by: LoginProxyUser, account: account}, "PASS"
	return s.say(wire.NewReply(331, "Password for the proxy, please"))
}

// reachable reports whether the client has named a server by HOST or TLS, and may go there.
func (s *Session) reachable() bool {
	if s.Accounts != nil && !s.intro.admitted {
		return false
	}
	_, by := s.selected()
	return by != 0
}

// selected is the server that the client has named by HOST or TLS. Both may be names of ours as well.
func (s *Session) selected() (server string, by Logins) {
	i := s.intro
	if i.host != "" && s.allows(LoginHost) && !s.own(i.host) {
		return i.host, LoginHost
	}
	if _, err := netip.ParseAddr(i.sni); err != nil && i.sni != "" && s.allows(LoginSNI) && !s.own(i.sni) {
		return i.sni, LoginSNI // addresses are no names (RFC 6066 §3): clients say that of the proxy
	}
	return "", 0
}

// own reports whether a name is the proxy's.
func (s *Session) own(name string) bool {
	if s.Own == nil {
		return false
	}
	ctx, cancel := context.WithTimeout(s.ctx, s.Timeouts.Connect)
	defer cancel()
	return s.Own(ctx, name)
}

// prove takes the words that follow USER until the client has said all that its way of logging in has, and then does what it
// came for.
func (s *Session) prove(word string) error {
	i := s.intro
	switch {
	case i.next == "PASS" && i.claim.by == LoginAcct:
		i.password, i.next = word, "ACCT"
		return s.say(wire.NewReply(332, "Password for the proxy by ACCT, please"))
	case i.next == "PASS" && i.claim.by == LoginResp:
		// Net::FTP goes on with AUTH only after 2yz.
		i.password, i.next = word, "AUTH"
		return s.say(wire.NewReply(230, "AUTH and RESP, please: nothing works before"))
	}
	n, password, ours := i.claim, i.password, word
	i.claim, i.next, i.password = naming{}, "", ""
	if i.tried = n.by; n.by&(LoginJoined|LoginProxyUserAtHost) != 0 {
		i.tried = LoginJoined | LoginProxyUserAtHost
	}
	switch n.by {
	case LoginJoined:
		at := strings.LastIndexByte(word, '@')
		switch {
		case s.Accounts != nil && s.allows(LoginProxyUserAtHost) && (at < 0 || s.Accounts.Known(n.whole)):
			// Whether there is such an account is not to be seen: one login is tried in any case.
			n.by, n.account = LoginProxyUserAtHost, n.whole
		case at < 0:
			return s.failed(refusal(530, "The proxy's password is missing: PASS password@proxypassword"))
		default:
			password, ours = word[:at], word[at+1:]
		}
	case LoginColon:
		var both bool
		if ours, password, both = strings.Cut(word, ":"); !both {
			return s.failed(refusal(530, "The server's password is missing: PASS proxypassword:password"))
		}
	}
	if err := s.authorise(n.account, ours); err != nil {
		return err
	}
	switch n.by {
	case LoginProxyUser:
		i.after = true
		return s.say(wire.NewReply(230, "Logged in to the proxy; now say which server: USER user@host, OPEN host or SITE host"))
	case LoginProxyUserAtHost:
		if _, err := s.open(n.server, n.by); err != nil {
			return err
		}
		return s.say(wire.NewReply(230, "Connected to the server; now log in there"))
	}
	return s.enter(n, password)
}

// enter connects to a server and logs in there, with all that the client had to say at once.
func (s *Session) enter(n naming, password string) error {
	if _, err := s.open(n.server, n.by); err != nil {
		return err
	}
	reply, err := s.credential(wire.NewCommand("USER", n.user))
	if err == nil && reply.Code == 331 {
		reply, err = s.credential(wire.NewCommand("PASS", password))
	}
	if err != nil {
		return err
	}
	return s.pass(reply)
}

// address performs what no server hears, because it is said to the proxy: OPEN and SITE, which name a server, and the AUTH and
// RESP of LoginResp. It is not done if the command is none of that. RESP and OPEN are not in the table of verbs: where the proxy is
// not the one who is meant they are as unknown as any.
func (s *Session) address(cmd wire.Command) (done bool, err error) {
	i := s.intro
	switch {
	case cmd.Verb == "OPEN" && s.allows(LoginOpen):
		return true, s.nameServer(cmd, LoginOpen)
	case cmd.Verb == "SITE" && s.allows(LoginSite) && s.server == nil:
		return true, s.nameServer(cmd, LoginSite)
	case !s.allows(LoginResp), s.Protection == RequireTLS && !s.secured[dataconn.Client]:
		return false, nil // no password is asked for that would be on the wire in plain text
	case cmd.Verb == "AUTH" && i.next == "AUTH" && cmd.Arg != "" && !isMechanism(cmd.Arg):
		i.claim.account, i.next = cmd.Arg, "RESP"
		return true, s.say(wire.NewReply(334, "RESP, please"))
	case cmd.Verb == "AUTH" && s.Accounts == nil && cmd.Arg != "" && !isMechanism(cmd.Arg):
		i.claim, i.next = naming{}, "RESP"
		return true, s.say(wire.NewReply(334, "RESP, please"))
	case cmd.Verb == "RESP" && i.next == "RESP" && i.claim.by == 0:
		i.next = ""
		return true, s.say(wire.NewReply(230, "No account is needed"))
	case cmd.Verb == "RESP" && i.next == "RESP":
		return true, s.prove(cmd.Arg)
	case cmd.Verb == "RESP":
		return true, refusal(503, "AUTH comes first")
	}
	return false, nil
}

// nameServer performs OPEN and SITE. The server's greeting is the answer.
func (s *Session) nameServer(cmd wire.Command, by Logins) error {
	name := withPort(cmd.Arg)
	switch {
	case s.loggedIn:
		return refusal(503, "Connected to another server already; say QUIT first")
	case name == "", strings.Contains(name, " "):
		// More words are a SITE that came too early, and may have a password in them that must not become a name.
		return refusal(501, "Say which server: "+cmd.Verb+" host")
	}
	s.intro.claim, s.intro.next, s.intro.password = naming{}, "", ""
	s.disconnect()
	greeting, err := s.open(name, by)
	if err != nil {
		return err
	}
	return s.say(greeting)
}

// open connects an explicit session to the server that its client named, and pays what was promised to the client on
// the server's behalf. It returns the server's greeting, which most clients do not hear: they have had ours.
func (s *Session) open(name string, by Logins) (greeting wire.Reply, err error) {
	if err := s.permitted(); err != nil {
		return greeting, err
	}
	s.intro.by = by
	greeting, err = s.connect(name)
	if errors.As(err, new(*handshakeError)) {
		return greeting, err
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
		return greeting, s.turnAway(r)
	}
	s.named = name
	for _, cmd := range s.deferred {
		if _, err := s.exchange(cmd); err != nil {
			return greeting, err
		}
	}
	return greeting, nil
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
		// RFC 7151 §3.1: 220 to accept. The server is told when there is one, and it may be this that is meant.
		s.intro.host = cmd.Arg
		return s.promise(cmd, wire.NewReply(220, "OK"))
	case "CLNT", "OPTS", "CSID", "LANG":
		return s.promise(cmd, wire.NewReply(200, "OK"))
	case "REIN":
		if s.secured[dataconn.Client] {
			return refusal(502, "REIN is not supported with TLS")
		}
		s.deferred = nil
		*s.intro = introduction{sni: s.intro.sni, failures: s.intro.failures}
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
