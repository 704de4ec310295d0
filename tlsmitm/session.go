package tlsmitm

import (
	"bytes"
	"context"
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"runtime/debug"
	"slices"
	"strings"
	"sync"
	"time"
)

// Options describe an Interceptor.
type Options struct {
	// Mint makes what clients see. Nil: only Sessions that have a certificate of their own, or none, can be had.
	Mint *Mint
	// Roots are the authorities that servers' certificates are checked against. Nil: the system's.
	Roots *x509.CertPool
	// KeyLog is where the secrets of all connections go, in NSS format. Whoever reads it reads all of them. Its errors are
	// lost. Nil: nowhere.
	KeyLog io.Writer
}

// Interceptor makes the Sessions of one configuration. It is for many goroutines at once.
type Interceptor struct {
	options Options
	// tickets encrypts the tickets of all sessions: its keys are those of one long-lived Config, since a clone has the keys
	// of its moment and rotates alone.
	tickets *tls.Config
}

// New returns an Interceptor.
func New(o Options) *Interceptor {
	if o.KeyLog != nil {
		o.KeyLog = heedless{o.KeyLog}
	}
	return &Interceptor{options: o, tickets: &tls.Config{}}
}

// heedless is a writer whose errors do not matter. crypto/tls would end each handshake whose secrets cannot be logged: when the
// disk is full, or when the log of a configuration that is not in force any more has been closed.
type heedless struct{ to io.Writer }

func (h heedless) Write(p []byte) (int, error) {
	h.to.Write(p)
	return len(p), nil
}

// Verify says what becomes of a server whose certificate does not verify.
type Verify int

// The ways of looking at servers' certificates.
const (
	Strict Verify = iota // it is refused
	// UntrustedCA: the client sees a likeness under an authority that nobody trusts, and decides. Where it has seen a certificate
	// already, or sees none, this is Strict.
	UntrustedCA
	Off // nobody looks; a likeness of it is under the untrusted authority all the same
)

// ServerOptions are how one server is to be met.
type ServerOptions struct {
	// Name is what the client calls the server, a host name or an address, where it does so outside of TLS. Empty: what it
	// says by SNI, if anything.
	Name   string
	Verify Verify
	// Pins are SHA-256 digests of certificates or of their public keys. A server must have one of them, if there are any, and
	// needs no authority then; its dates are the client's to judge.
	Pins [][32]byte
	// Certificate is shown to a server that asks for one. Nil: none.
	Certificate *tls.Certificate
	// MinVersion and MaxVersion bound the TLS version; 0 is TLS 1.2, and the highest there is.
	MinVersion, MaxVersion uint16
	// Ciphers are the cipher suites below TLS 1.3, Curves the key exchanges; nil is what is safe.
	Ciphers []uint16
	Curves  []tls.CurveID
	// Pass means that the server's TLS is not to be opened. With Pins that is so if it has one of them. See Passed.
	Pass bool
	// Tolerant takes the end of a data connection for the end of a file though the server did not say close_notify.
	Tolerant bool
}

// SessionOptions describe a Session.
type SessionOptions struct {
	// ID is the session's alone. Clients' data connections resume the TLS session of their control connection and no other:
	// a ticket that somebody took from another session is worth nothing (theft of data connections, RFC 2577 §8).
	ID string
	// Certificate is what the client sees. Nil: a likeness of the server's or, where Names is set, one that the Mint makes.
	Certificate *tls.Certificate
	// Hello, if not nil, is called by Intercept with the name that the client asks for, before the server is met. It may call
	// Meet. An error ends the handshake.
	Hello func(ctx context.Context, name string) error
	// Names are our own, host names or addresses, for the certificate of a proxy that clients know as such. The name that
	// the client asks for goes before them.
	Names []string
}

// Session makes the TLS connections of one FTP session: for either side a control connection, and then data connections
// which resume it, since servers demand that. One goroutine makes control connections; ClientData and ServerData may be
// called by others at the same time.
type Session struct {
	of        *Interceptor
	options   SessionOptions
	server    ServerOptions
	called    string      // what the client calls the server by HOST
	forClient *tls.Config // of the control connection; nil: none has been made
	forServer *tls.Config // for data connections; nil: no control connection has been made
	ticket    *pinned
	leaf      *x509.Certificate // the server's
	verdict   error             // why it does not verify, nil if it does
	verified  string            // how it was verified: "chain", "pin", "off" or ""
}

// Session returns a new Session.
func (i *Interceptor) Session(o SessionOptions) *Session { return &Session{of: i, options: o} }

// Meet says which server comes next. Call it before Intercept or ToServer.
func (s *Session) Meet(o ServerOptions) {
	s.server, s.called = o, ""
	s.forServer, s.ticket, s.leaf, s.verdict, s.verified = nil, nil, nil, nil, ""
}

// Passes reports whether the server's TLS is not to be opened, or perhaps not: with pins its certificate would tell.
func (s *Session) Passes() bool { return s.server.Pass }

// Call says what the client calls the server in plain text (RFC 7151), where Meet did not say so: its certificate must have
// that name.
func (s *Session) Call(name string) { s.called = strings.Trim(name, "[]") }

// Fingerprint is the SHA-256 digest of the server's certificate, in hexadecimal; empty if there was none yet.
func (s *Session) Fingerprint() string {
	if s.leaf == nil {
		return ""
	}
	d := sha256.Sum256(s.leaf.Raw)
	return hex.EncodeToString(d[:])
}

// Verified says how the server's certificate was verified: "chain", "pin" or "off", or "failed: " and why, where that was
// allowed. Empty if there was none yet.
func (s *Session) Verified() string {
	if s.verdict != nil {
		return "failed: " + s.verdict.Error()
	}
	return s.verified
}

// ErrALPN is a peer that says in its hello that it speaks something else than FTP. A browser which an attacker has sent to
// an FTP port says so (ALPACA); it is told no_application_protocol.
var ErrALPN = errors.New("the client offers protocols by ALPN, and FTP is not among them")

// Passed is what Intercept returns where the server's TLS is not to be opened: the client has said its hello, and has heard
// nothing.
type Passed struct {
	Hello []byte // all that the client has said
	Met   bool   // the server's connection has been used to look at its certificate, and another is needed
}

func (p *Passed) Error() string { return "TLS is not to be opened" }

// SideError says which side's handshake failed.
type SideError struct {
	Side string // "client" or "server"
	Err  error
}

func (e *SideError) Error() string { return e.Side + " TLS: " + e.Err.Error() }

func (e *SideError) Unwrap() error { return e.Err }

// protocols of control and of data connections, as clients offer them by ALPN.
const (
	protocolControl = "ftp"
	protocolData    = "ftp-data"
)

// Intercept makes both control connections at once. The client's hello shapes ours to the server (its name for the server,
// and ALPN), and the server's certificate what the client sees. On error neither connection is of use any more, and the
// client has had an alert unless its time was up.
func (s *Session) Intercept(ctx context.Context, client, server net.Conn) (c, v *Conn, err error) {
	c, err = s.meetClient(ctx, client, func(h *tls.ClientHelloInfo, offered bool) error {
		if s.server.Pass && len(s.server.Pins) == 0 {
			return &Passed{}
		}
		v, err = s.toServer(h.Context(), server, h.ServerName, offered)
		if err == nil && s.server.Pass {
			return &Passed{Met: true}
		}
		return err
	})
	if err != nil && v != nil {
		v.Close()
	}
	return c, v, err
}

// ToClient makes the client's control connection where no server is known, or its connection is not to be protected.
func (s *Session) ToClient(ctx context.Context, client net.Conn) (*Conn, error) {
	return s.meetClient(ctx, client, nil)
}

// ToServer makes the server's control connection where the client's has been made, or is not to be protected.
func (s *Session) ToServer(ctx context.Context, server net.Conn) (*Conn, error) {
	if s.server.Verify == UntrustedCA {
		s.server.Verify = Strict // there is nothing to show to the client any more
	}
	var v *Conn
	err := aside(func() (err error) {
		v, err = s.toServer(ctx, server, "", false)
		return err
	})
	return v, err
}

// aside does something on a stack of its own. A handshake takes a stack many times as large as a session does afterwards, and
// the session would keep it.
func aside(do func() error) error {
	done := make(chan outcome)
	go try(do, done)
	o := <-done
	if o.panicked != nil {
		panic(fmt.Sprintf("%v\n%s", o.panicked, o.stack)) // here is who looks after sessions
	}
	return o.err
}

// outcome is how something ended.
type outcome struct {
	err      error
	panicked any
	stack    []byte
}

// try is aside's goroutine.
func try(do func() error, done chan<- outcome) {
	var o outcome
	defer func() {
		if o.panicked = recover(); o.panicked != nil {
			o.stack = debug.Stack()
		}
		done <- o
	}()
	o.err = do()
}

// meetClient makes the client's control connection. meet, if not nil, is called when the client has said its hello and meets
// the server.
func (s *Session) meetClient(ctx context.Context, client net.Conn, meet func(h *tls.ClientHelloInfo, offered bool) error) (*Conn, error) {
	var cause error // what crypto/tls makes of it says less
	below := &watched{Conn: client, keeping: true}
	hello := func(h *tls.ClientHelloInfo) (*tls.Config, error) {
		below.keeping = false
		if s.options.Hello != nil && meet != nil {
			if err := s.options.Hello(h.Context(), h.ServerName); err != nil {
				cause = &SideError{"server", err}
				return nil, cause
			}
		}
		offered := slices.Contains(h.SupportedProtos, protocolControl)
		if len(h.SupportedProtos) > 0 && !offered {
			cause = &SideError{"client", ErrALPN}
			// It has no protocol in common with the client, so the handshake ends in that alert.
			return &tls.Config{NextProtos: []string{protocolControl}, MinVersion: tls.VersionTLS12}, nil
		}
		if meet != nil {
			if cause = meet(h, offered); cause != nil {
				below.muted = errors.As(cause, new(*Passed))
				return nil, cause
			}
		}
		certificate, err := s.certificate(h, meet != nil)
		if err != nil {
			cause = &SideError{"client", err}
			return nil, cause
		}
		s.forClient = s.clientConfig(certificate)
		if !offered {
			return s.forClient, nil
		}
		config := s.forClient.Clone()
		config.NextProtos = []string{protocolControl}
		return config, nil
	}
	c := tls.Server(below, &tls.Config{GetConfigForClient: hello, MinVersion: tls.VersionTLS12, KeyLogWriter: s.of.options.KeyLog})
	if err := aside(func() error { return c.HandshakeContext(ctx) }); err != nil {
		if cause == nil {
			cause = &SideError{"client", timely(ctx, err)}
		}
		if p, ok := cause.(*Passed); ok {
			p.Hello = below.kept
		}
		return nil, cause
	}
	below.kept = nil
	return newConn(c, below, true), nil
}

// certificate is what the client sees. met says that there is a server's to look like.
func (s *Session) certificate(h *tls.ClientHelloInfo, met bool) (*tls.Certificate, error) {
	switch mint := s.of.options.Mint; {
	case s.options.Certificate != nil:
		return s.options.Certificate, nil
	case mint == nil:
		return nil, errors.New("there is no authority to make a certificate with")
	case len(s.options.Names) > 0 || !met:
		names := s.options.Names
		if h.ServerName != "" {
			names = append([]string{h.ServerName}, names...)
		}
		if met && s.verdict != nil {
			leaf, err := mint.Own(names, h)
			if err != nil {
				return nil, err
			}
			return mint.Likeness(leaf.Leaf, false, h)
		}
		return mint.Own(names, h)
	default:
		return mint.Likeness(s.leaf, s.verified == "chain" || s.verified == "pin", h)
	}
}

// ticketMark is what our tickets hold of the session they are of, before its id.
const ticketMark = "ftpalg1:"

// clientConfig is the configuration of the client's connections.
func (s *Session) clientConfig(certificate *tls.Certificate) *tls.Config {
	mark, tickets := []byte(ticketMark+s.options.ID), s.of.tickets
	return &tls.Config{
		Certificates: []tls.Certificate{*certificate},
		MinVersion:   tls.VersionTLS12,
		KeyLogWriter: s.of.options.KeyLog,
		// Files are carried in full records from the first.
		DynamicRecordSizingDisabled: true,
		WrapSession: func(cs tls.ConnectionState, ss *tls.SessionState) ([]byte, error) {
			ss.Extra = append(ss.Extra, mark)
			return tickets.EncryptTicket(cs, ss)
		},
		// An error here would end the connection; a ticket that is not of this session means a full handshake.
		UnwrapSession: func(identity []byte, cs tls.ConnectionState) (*tls.SessionState, error) {
			ss, err := tickets.DecryptTicket(identity, cs)
			if err != nil || ss == nil || !slices.ContainsFunc(ss.Extra, func(e []byte) bool { return bytes.Equal(e, mark) }) {
				return nil, nil
			}
			return ss, nil
		},
	}
}

// toServer makes the server's control connection. name is what the client's hello says, if it does.
func (s *Session) toServer(ctx context.Context, server net.Conn, name string, offered bool) (*Conn, error) {
	if s.server.Name != "" {
		name = s.server.Name
	} else if s.called != "" {
		name = s.called
	} else if _, err := netip.ParseAddr(name); err == nil {
		// No name (RFC 6066 §3), though some clients (lftp) send one: theirs to compare with the likeness.
		name = ""
	}
	s.ticket = &pinned{}
	config := s.serverConfig(name)
	config.ClientSessionCache = s.ticket
	if offered {
		config.NextProtos = []string{protocolControl}
	}
	below := &watched{Conn: server}
	c := tls.Client(below, config)
	if err := c.HandshakeContext(ctx); err != nil {
		return nil, &SideError{"server", timely(ctx, err)}
	}
	s.leaf = c.ConnectionState().PeerCertificates[0]
	s.forServer = s.serverConfig(name)
	s.forServer.ClientSessionCache = dataTickets{s.ticket}
	return newConn(c, below, s.server.Tolerant), nil
}

// timely is a handshake's error, or that its time was up.
func timely(ctx context.Context, err error) error {
	switch {
	case errors.Is(ctx.Err(), context.DeadlineExceeded):
		return errors.New("the handshake took too long")
	case err == io.EOF:
		return errors.New("the connection was closed during the handshake")
	}
	return err
}

// serverConfig is the configuration of the server's connections. Those for control and data must be alike: crypto/tls resumes
// no session that another kind of configuration has begun.
func (s *Session) serverConfig(name string) *tls.Config {
	o := &s.server
	config := &tls.Config{
		ServerName: name,
		// We verify in VerifyConnection, which is called for resumed connections as well.
		InsecureSkipVerify:          true,
		VerifyConnection:            func(cs tls.ConnectionState) error { return s.verify(cs, name) },
		MinVersion:                  o.MinVersion,
		MaxVersion:                  o.MaxVersion,
		CipherSuites:                o.Ciphers,
		CurvePreferences:            o.Curves,
		KeyLogWriter:                s.of.options.KeyLog,
		DynamicRecordSizingDisabled: true,
		Time:                        s.ticket.time,
	}
	if config.MinVersion == 0 {
		config.MinVersion = tls.VersionTLS12
	}
	if o.Certificate != nil {
		config.Certificates = []tls.Certificate{*o.Certificate}
	}
	return config
}

// ErrReuse is a client's data connection that did not resume the TLS session of its control connection.
var ErrReuse = errors.New("the data connection does not resume the control connection's TLS session")

// ClientData makes a client's data connection. The client is the TLS client whoever has connected (RFC 4217 §7). With resume
// it must resume the control connection's session: ErrReuse if it does not.
func (s *Session) ClientData(ctx context.Context, client net.Conn, resume bool) (Data, error) {
	var alpn error
	tickets, caught := 0, &secrets{log: s.of.options.KeyLog}
	hello := func(h *tls.ClientHelloInfo) (*tls.Config, error) {
		config := s.forClient.Clone()
		config.KeyLogWriter = caught
		config.WrapSession = func(cs tls.ConnectionState, ss *tls.SessionState) ([]byte, error) {
			tickets++ // each is a record of its own, the first with the key of what follows
			if cs.DidResume {
				return s.forClient.WrapSession(cs, ss)
			}
			// Without our mark: whoever came without a ticket of this session, and may be a thief, would else have one now.
			return s.of.tickets.EncryptTicket(cs, ss)
		}
		for _, p := range []string{protocolData, protocolControl} {
			if slices.Contains(h.SupportedProtos, p) {
				config.NextProtos = []string{p}
				break
			}
		}
		if len(h.SupportedProtos) > 0 && config.NextProtos == nil {
			alpn = ErrALPN
			return &tls.Config{NextProtos: []string{protocolData}, MinVersion: tls.VersionTLS12}, nil
		}
		// A client that resumes nothing is sent no ticket. In TLS 1.3 that would lie in its socket until it reads: one that
		// only sends (Net::FTP) closes without, and its kernel makes a reset of that, which costs its file the end.
		config.SessionTicketsDisabled = slices.Contains(h.SupportedVersions, tls.VersionTLS13) &&
			!slices.Contains(h.Extensions, extensionPreSharedKey)
		return config, nil
	}
	below := &watched{Conn: client, steps: &steps{}}
	c := tls.Server(below, &tls.Config{GetConfigForClient: hello, MinVersion: tls.VersionTLS12})
	err := c.HandshakeContext(ctx)
	switch {
	case alpn != nil:
		err = alpn
	case err != nil:
		err = timely(ctx, err)
	case resume && !c.ConnectionState().DidResume:
		err = ErrReuse
	}
	if err != nil {
		return nil, &SideError{"client", err}
	}
	return newData(c, below, caught, true, tickets, false)
}

// extensionPreSharedKey is in hellos that would resume a session (RFC 8446 §4.2.11).
const extensionPreSharedKey = 41

// ServerData makes a server's data connection. We are the TLS client whoever has connected (RFC 4217 §7).
func (s *Session) ServerData(ctx context.Context, server net.Conn) (Data, error) {
	caught := &secrets{log: s.of.options.KeyLog}
	config := s.forServer.Clone()
	config.KeyLogWriter = caught
	below := &watched{Conn: server, steps: &steps{}}
	c := tls.Client(below, config)
	hopes := s.ticket.hopes()
	if err := c.HandshakeContext(ctx); err != nil {
		return nil, &SideError{"server", timely(ctx, err)}
	}
	if hopes {
		caught = &secrets{} // only crypto/tls can take the ticket that this connection may have
	}
	return newData(c, below, caught, false, 0, s.server.Tolerant)
}

// pinned is the tls.ClientSessionCache of a server's control connection: it keeps the newest ticket. A handshake that fails
// would have it deleted, as those do that a server ends because it refuses the transfer; and the data connections that come
// after would be refused by servers that demand resumption (vsftpd 522, ProFTPD 425).
type pinned struct {
	mu     sync.Mutex
	ticket *tls.ClientSessionState
	until  time.Time // when the server's certificate expires; zero: it is not known yet
	hoped  bool      // see hopes
}

// hopes reports, once, that there is no ticket yet and that a data connection might bring one. Servers that issue none with the control
// connection issue none at all, as a rule (Pure-FTPd).
func (p *pinned) hopes() bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	hopes := p.ticket == nil && !p.hoped
	p.hoped = true
	return hopes
}

// expires says when the server's certificate does.
func (p *pinned) expires(at time.Time) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.until = at
}

// time is the time for crypto/tls, which would resume no session of a server whose certificate has expired, though we have
// judged that it may: for it, the certificate is always as good as at its end. Nothing else but a ticket's age is measured by
// it, and that matters for early data alone.
func (p *pinned) time() time.Time {
	p.mu.Lock()
	defer p.mu.Unlock()
	if now := time.Now(); p.until.IsZero() || now.Before(p.until) {
		return now
	}
	return p.until
}

// Get implements tls.ClientSessionCache.
func (p *pinned) Get(string) (*tls.ClientSessionState, bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.ticket, p.ticket != nil
}

// Put implements tls.ClientSessionCache.
func (p *pinned) Put(_ string, ticket *tls.ClientSessionState) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if ticket != nil {
		p.ticket = ticket
	}
}

// dataTickets is the same for data connections, whose own tickets are not kept if the control connection had one.
type dataTickets struct{ *pinned }

// Put implements tls.ClientSessionCache.
func (d dataTickets) Put(_ string, ticket *tls.ClientSessionState) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.ticket == nil {
		d.ticket = ticket
	}
}

// VerifyError is a server's certificate that did not verify.
type VerifyError struct {
	Check string // "authority", "dates", "name", "pin", "same" or "certificate"
	Err   error
}

func (e *VerifyError) Error() string { return "certificate: " + e.Check + ": " + e.Err.Error() }

func (e *VerifyError) Unwrap() error { return e.Err }

// verify looks at the certificate of a server's connection.
func (s *Session) verify(cs tls.ConnectionState, name string) error {
	if len(cs.PeerCertificates) == 0 {
		return &VerifyError{"certificate", errors.New("the server has none")}
	}
	leaf := cs.PeerCertificates[0]
	if s.leaf != nil {
		// A data connection: whoever got to the server's data port before us would be there with another.
		if !leaf.Equal(s.leaf) {
			return &VerifyError{"same", errors.New("the data connection has another than the control connection")}
		}
		return nil
	}
	s.ticket.expires(leaf.NotAfter)
	s.verified, s.verdict = s.judge(cs.PeerCertificates, name)
	if v, failed := s.verdict.(*VerifyError); failed && (s.server.Verify == Strict || v.Check == "pin") {
		return s.verdict // whoever names a certificate wants no other
	}
	return nil
}

// judge says how a server's chain verifies, or why it does not.
func (s *Session) judge(chain []*x509.Certificate, name string) (how string, err error) {
	leaf := chain[0]
	if len(s.server.Pins) > 0 {
		for _, digest := range [][32]byte{sha256.Sum256(leaf.Raw), sha256.Sum256(leaf.RawSubjectPublicKeyInfo)} {
			if slices.Contains(s.server.Pins, digest) {
				return "pin", nil
			}
		}
		return "", &VerifyError{"pin", fmt.Errorf("%x is not pinned, and neither is its public key", sha256.Sum256(leaf.Raw))}
	}
	if s.server.Verify == Off {
		return "off", nil
	}
	o := x509.VerifyOptions{Roots: s.of.options.Roots, Intermediates: x509.NewCertPool(), CurrentTime: time.Now()}
	for _, c := range chain[1:] {
		o.Intermediates.AddCert(c)
	}
	_, err = leaf.Verify(o)
	if err == nil && name != "" {
		err = leaf.VerifyHostname(name)
	}
	if err == nil {
		return "chain", nil
	}
	check := "certificate"
	var invalid x509.CertificateInvalidError
	switch {
	case errors.As(err, new(x509.UnknownAuthorityError)):
		check = "authority"
	case errors.As(err, new(x509.HostnameError)):
		check = "name"
	case errors.As(err, &invalid) && invalid.Reason == x509.Expired:
		check = "dates"
	}
	return "", &VerifyError{check, err}
}
