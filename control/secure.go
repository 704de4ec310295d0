package control

import (
	"context"
	"errors"
	"fmt"
	"net"
	"slices"
	"strconv"
	"strings"

	"ftpalg/control/wire"
	"ftpalg/dataconn"
	"ftpalg/tlsmitm"
)

// Securing the conversation: AUTH, PBSZ, PROT and CCC (RFC 4217, RFC 2228), and TLS from the first byte.
//
// Where the client's side is secured the server's is too, unless the listener says otherwise in as many words: else ftpalg
// would be the man in the middle who takes TLS away. In faithful modes that follows from passing AUTH and PROT on; in the
// others the sides may differ for a while, and it is seen to here.

// Protection says what a listener does with TLS.
type Protection int

// The ways of dealing with TLS.
const (
	RefuseTLS  Protection = iota // AUTH is answered with 534
	InspectTLS                   // it is ended, and made anew towards the server
	RequireTLS                   // the same, and who does without can neither log in nor move files
	ClientOnly                   // the client's side has it, the server's is plain text
	ServerOnly                   // the client's side is plain text, the server's has it
)

// offers reports whether clients may speak TLS.
func (p Protection) offers() bool { return p == InspectTLS || p == RequireTLS || p == ClientOnly }

// follows reports whether the server's side is secured when the client's is.
func (p Protection) follows() bool { return p == InspectTLS || p == RequireTLS }

// Reuse says what is made of clients' data connections that do not resume the TLS session of their control connection.
type Reuse int

// The ways of looking at it.
const (
	ReuseFree     Reuse = iota // it is in the events
	ReuseRequired              // such a transfer is answered with 522
)

// ImplicitPort is where servers speak TLS from the first byte. It is asked only where the client does not decide.
const ImplicitPort = 990

// mechanisms are the arguments of AUTH that mean TLS: RFC 4217 §2, and two from before it.
var mechanisms = []string{"TLS", "TLS-C", "SSL"}

func isMechanism(word string) bool { return slices.Contains(mechanisms, strings.ToUpper(word)) }

// handshakeError is a TLS handshake on the client's connection that failed. No reply can be given any more.
type handshakeError struct{ err error }

func (e *handshakeError) Error() string { return e.err.Error() }

func (e *handshakeError) Unwrap() error { return e.err }

// authenticate performs AUTH (RFC 4217 §4).
func (s *Session) authenticate(cmd wire.Command) error {
	if s.server != nil && isMechanism(cmd.Arg) {
		p, err := s.passes()
		if err != nil {
			return err
		}
		if p != nil {
			return s.passUnopened(cmd, p)
		}
	}
	switch {
	case !s.Protection.offers():
		return refusal(534, "TLS is not allowed here")
	case s.secured[dataconn.Client]:
		return refusal(503, "TLS is in use already")
	case !isMechanism(cmd.Arg):
		return refusal(504, "Only TLS is supported")
	}
	early, err := s.early()
	if err != nil {
		return err
	}
	both := s.server != nil && !s.secured[dataconn.Server] && s.Protection.follows()
	reply := wire.NewReply(234, "Begin the TLS handshake")
	if both {
		var agreed bool
		if reply, agreed, err = s.agree(cmd, early); !agreed {
			return err
		}
	}
	s.disarm()
	s.sized, s.private[dataconn.Client] = false, false
	if both {
		s.private[dataconn.Server] = false
	}
	if err := s.say(reply); err != nil {
		return err
	}
	return s.shakeHands(&replayed{s.Client, early}, both)
}

// agree passes AUTH to the server and returns its 234. Where it is not agreed, the client has been told why. early is what the
// client has said already.
func (s *Session) agree(cmd wire.Command, early []byte) (reply wire.Reply, agreed bool, err error) {
	reply, err = s.exchange(cmd)
	switch {
	case err != nil:
	case reply.Code == 234:
		err = s.notInjected()
	case !reply.Negative():
		err = ending("The server's answer to AUTH is none", fmt.Errorf("server: answered AUTH with %d", reply.Code))
	default:
		if err = s.pass(reply); err == nil && len(early) > 0 {
			err = ending("TLS began before it was agreed on", errors.New("client: TLS after a refused AUTH"))
		}
	}
	return reply, err == nil && reply.Code == 234, err
}

// early is what the client has said after AUTH without awaiting the answer. That is the beginning of a TLS handshake, if it is
// eager, or what somebody on the way has put there for us to take as said under TLS (command injection, CVE-2011-0411).
func (s *Session) early() ([]byte, error) {
	b := s.client.reader.Take()
	if len(b) > 0 && b[0] != 0x16 { // a TLS record of type handshake, RFC 8446 §5.1
		return nil, ending("Plain text after AUTH", errors.New("client: plain text behind AUTH in one segment: command injection"))
	}
	return b, nil
}

// notInjected sees to it that the server has said nothing behind its 234: somebody on the way would have us take that for
// said under TLS (response injection).
func (s *Session) notInjected() error {
	if s.server.reader.Buffered() > 0 {
		return ending("The server's answer to AUTH was tampered with",
			errors.New("server: plain text behind 234 in one segment: response injection"))
	}
	return nil
}

// replayed is a connection of which the first bytes have been read already.
type replayed struct {
	net.Conn
	first []byte
}

func (r *replayed) Read(p []byte) (int, error) {
	if len(r.first) == 0 {
		return r.Conn.Read(p)
	}
	n := copy(p, r.first)
	if r.first = r.first[n:]; len(r.first) == 0 {
		r.first = nil
	}
	return n, nil
}

// NetConn returns the connection below, as tls.Conn's does.
func (r *replayed) NetConn() net.Conn { return r.Conn }

// shakeHands begins TLS with the client, and with the server too where both are to have it.
func (s *Session) shakeHands(client net.Conn, both bool) error {
	ctx, cancel := context.WithTimeout(s.ctx, s.Timeouts.Handshake)
	defer cancel()
	if !both {
		c, err := s.TLS.ToClient(ctx, client)
		if err != nil {
			return &handshakeError{err}
		}
		s.clientSecured(c)
		return nil
	}
	c, v, err := s.intercept(ctx, client, s.server.conn)
	if err != nil {
		return err
	}
	s.serverSecured(v)
	s.clientSecured(c)
	return nil
}

// intercept begins TLS with both sides at once, or passes it if that turns out to be what is wanted. Then the error is how
// the conversation ended.
func (s *Session) intercept(ctx context.Context, client, server net.Conn) (c, v *tlsmitm.Conn, err error) {
	c, v, err = s.TLS.Intercept(ctx, client, server)
	var passed *tlsmitm.Passed
	switch {
	case errors.As(err, &passed):
		err = s.passHello(passed, server)
	case err != nil:
		err = &handshakeError{err}
	}
	return c, v, err
}

// clientSecured goes on with the client over TLS.
func (s *Session) clientSecured(c *tlsmitm.Conn) {
	s.Client = c
	s.client.conn, s.client.reader = c, wire.NewReader(c, s.Limits)
	s.secured[dataconn.Client] = true
	if s.Explicit {
		// What was said in plain text, anybody on the way could have said: it must not tell where the password goes that is said now.
		s.intro.claim, s.intro.next, s.intro.password, s.intro.host = naming{}, "", "", ""
		s.intro.sni = c.ConnectionState().ServerName
	}
	s.observe(Secured{Side: dataconn.Client, Facts: c.Facts()})
}

// serverSecured goes on with the server over TLS. Where that is so from the first byte, there is nothing to go on with yet.
func (s *Session) serverSecured(v *tlsmitm.Conn) {
	if s.server != nil {
		s.server.conn, s.server.reader = v, wire.NewReader(v, s.Limits)
	}
	s.secured[dataconn.Server] = true
	s.observe(Secured{Side: dataconn.Server, Facts: v.Facts(), Certificate: s.TLS.Fingerprint(), Verified: s.TLS.Verified()})
}

// secureServer secures the server's connection on our own account: where the client has TLS with us, or the listener wants
// it on this side alone. The data connections become as private as the client's, or private if it has no say.
func (s *Session) secureServer() error {
	if s.Pass != nil && s.TLS.Passes() {
		return &Refusal{Code: 534, Text: "This server's TLS is passed, not opened: name the server first, then say AUTH", Rule: "tls"}
	}
	if !s.secured[dataconn.Server] {
		reply, err := s.exchange(wire.NewCommand("AUTH", "TLS"))
		if err != nil {
			return err
		}
		if reply.Code != 234 {
			return &Refusal{Code: 534, Text: "The server does not take TLS", Rule: "tls",
				Err: fmt.Errorf("server: answered AUTH TLS with %d %s", reply.Code, reply.Text())}
		}
		if err := s.notInjected(); err != nil {
			return err
		}
		ctx, cancel := context.WithTimeout(s.ctx, s.Timeouts.Handshake)
		defer cancel()
		v, err := s.TLS.ToServer(ctx, s.server.conn)
		if err != nil {
			return untrusted(err)
		}
		s.serverSecured(v)
	}
	if s.secured[dataconn.Client] && !s.private[dataconn.Client] {
		return nil // as after AUTH
	}
	for _, cmd := range []wire.Command{wire.NewCommand("PBSZ", "0"), wire.NewCommand("PROT", "P")} {
		reply, err := s.exchange(cmd)
		if err != nil {
			return err
		}
		if !reply.Positive() {
			return &Refusal{Code: 534, Text: "The server does not protect data connections", Rule: "tls",
				Err: fmt.Errorf("server: answered %s with %d %s", cmd.Verb, reply.Code, reply.Text())}
		}
	}
	s.private[dataconn.Server] = true
	return nil
}

// untrusted is the refusal of a server with which there is no TLS connection to be had, for a client that can be told.
func untrusted(err error) *Refusal {
	r := &Refusal{Code: 534, Text: "No TLS connection to the server", Rule: "tls", Err: err}
	if errors.As(err, new(*tlsmitm.VerifyError)) {
		r.Text, r.Rule = "The server's certificate does not verify", "verify"
	}
	return r
}

// implicit begins TLS on the sides that have it from the first byte, when the server has been connected to and nothing has
// been read.
func (s *Session) implicit(conn net.Conn) (net.Conn, error) {
	if s.Implicit && !s.Explicit {
		p, err := s.passes()
		if err != nil {
			conn.Close()
			return nil, err
		}
		if p != nil {
			defer p.Close()
			defer conn.Close()
			return nil, s.tunnel(s.Client, conn, p)
		}
	}
	client := s.Implicit && s.Protection.offers() && !s.secured[dataconn.Client]
	server := s.Implicit
	if !s.Faithful {
		server = dataconn.AddrPort(conn.RemoteAddr()).Port() == ImplicitPort
	}
	server = server && (s.Protection.follows() || s.Protection == ServerOnly)
	if !client && !server {
		return conn, nil
	}
	ctx, cancel := context.WithTimeout(s.ctx, s.Timeouts.Handshake)
	defer cancel()
	var c, v *tlsmitm.Conn
	var err error
	switch {
	case client && server:
		c, v, err = s.intercept(ctx, s.Client, conn)
	case client:
		if c, err = s.TLS.ToClient(ctx, s.Client); err != nil {
			err = &handshakeError{err}
		}
	default:
		if v, err = s.TLS.ToServer(ctx, conn); err != nil {
			err = untrusted(err)
		}
	}
	if err != nil {
		conn.Close()
		return nil, err
	}
	if v != nil {
		conn = v
		s.serverSecured(v)
		s.private[dataconn.Server] = true
	}
	if c != nil {
		s.clientSecured(c)
		s.private[dataconn.Client] = true
	}
	return conn, nil
}

// protect performs PBSZ, PROT and CCC (RFC 4217 §§8, 9, 6).
func (s *Session) protect(cmd wire.Command) error {
	private := false
	switch cmd.Verb {
	case "CCC":
		if !s.secured[dataconn.Client] {
			return refusal(533, "There is no protection to clear")
		}
		// Passwords are over then, but PORT and PASV are not: whoever listens could steal data connections.
		return refusal(534, "The control connection stays protected")
	case "PBSZ":
		if !s.secured[dataconn.Client] {
			return refusal(503, "AUTH comes first")
		}
		if _, err := strconv.ParseUint(cmd.Arg, 10, 32); err != nil {
			return refusal(501, "PBSZ takes a number")
		}
	case "PROT":
		if !s.secured[dataconn.Client] {
			return refusal(503, "AUTH comes first")
		}
		if !s.sized {
			return refusal(503, "PBSZ comes first")
		}
		switch strings.ToUpper(cmd.Arg) {
		case "P":
			private = true
		case "C":
			if s.Protection == RequireTLS {
				return refusal(534, "Data connections must be protected")
			}
		case "S", "E":
			return refusal(536, "TLS protects all or nothing: C or P")
		default:
			return refusal(504, "No such level of protection: C or P")
		}
	}
	reply := wire.NewReply(200, "OK")
	if cmd.Verb == "PBSZ" {
		reply = wire.NewReply(200, "PBSZ=0")
	}
	if s.secured[dataconn.Server] {
		var err error
		if reply, err = s.exchange(cmd); err != nil {
			return err
		}
	}
	switch {
	case !reply.Positive():
	case cmd.Verb == "PBSZ":
		s.sized = true
	default:
		s.private[dataconn.Client] = private
		if s.secured[dataconn.Server] {
			s.private[dataconn.Server] = private
		}
	}
	return s.pass(reply)
}

// securing is how the legs of a transfer become as private as was agreed on.
func (s *Session) securing(t *running) (secure [2]dataconn.Secure) {
	if s.private[dataconn.Client] {
		secure[dataconn.Client] = func(ctx context.Context, c net.Conn) (dataconn.Stream, error) {
			conn, err := s.TLS.ClientData(ctx, c, s.Reuse == ReuseRequired)
			switch {
			case errors.Is(err, tlsmitm.ErrReuse):
				return nil, &Refusal{Code: 522, Text: "The data connection must resume the TLS session of the control connection", Rule: "session_reuse", Err: err}
			case err != nil:
				return nil, err
			}
			t.facts[dataconn.Client] = conn.Facts()
			return conn, nil
		}
	}
	if s.private[dataconn.Server] {
		secure[dataconn.Server] = func(ctx context.Context, c net.Conn) (dataconn.Stream, error) {
			conn, err := s.TLS.ServerData(ctx, c)
			if err != nil {
				return nil, err
			}
			t.facts[dataconn.Server] = conn.Facts()
			return conn, nil
		}
	}
	return secure
}

// earlyHandshake is TLS from the first byte with a client that has not named its server.
func (s *Session) earlyHandshake() error {
	if err := s.shakeHands(s.Client, false); err != nil {
		return err
	}
	s.private[dataconn.Client] = true
	return nil
}
