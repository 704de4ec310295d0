// Package control holds one FTP session's conversation (RFC 959 §5.4): it reads the client's commands and the server's
// replies, decides which pass, and rewrites what they say of data connections so that those come to us.
//
// The state of a session is where its function is, plus a few facts that Run's goroutine alone owns. There is no mutex.
package control

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"runtime/debug"
	"sync"
	"time"

	"ftpalg/control/wire"
	"ftpalg/dataconn"
	"ftpalg/tlsmitm"
)

// Timeouts are the clocks of a session. All must be positive.
type Timeouts struct {
	Connect   time.Duration // dialing the server and reading its greeting
	Handshake time.Duration // TLS handshakes of control connections
	Login     time.Duration // from Run to 230
	Idle      time.Duration // waiting for a command, no transfer
	Reply     time.Duration // the server owes a reply
	DataSetup time.Duration // data legs connect, from the data verb
	DataIdle  time.Duration // no byte moves
	Abort     time.Duration // after ABOR, for each of the one or two replies that servers owe
	Drain     time.Duration // after Run's context is done, for the transfer to finish
}

// ServerData says how data connections are made on the server side.
type ServerData int

// The ways of making server-side data connections.
const (
	Same    ServerData = iota // as the client does
	Passive                   // we always connect to the server
	Active                    // the server always connects to us
)

// Session is one client's conversation with one server. Set its exported fields, then call Run, once.
type Session struct {
	// Client is the accepted control connection. Run owns it and closes it.
	Client net.Conn
	// Connect opens the control connection to the server. name is empty unless Explicit, and else what the client called it.
	// A *Refusal it returns is what the client is told. Run owns the connection.
	Connect func(ctx context.Context, name string) (net.Conn, error)
	// Network opens the session's data sockets.
	Network dataconn.Network
	// Observer hears what happens. Nil: nobody does.
	Observer Observer
	// Stranger hears of data connections refused because of where they came from, from any goroutine. Nil: nobody does.
	Stranger func(dataconn.Side, netip.AddrPort)
	// Advertise is the IPv4 address that 227 names to the client. Nil, or its error, means the listener's own.
	Advertise func(context.Context) (netip.Addr, error)
	// Gone reports whether the peer of a control connection has closed or reset it, as far as the kernel knows; reading
	// may not have come that far. Nil: reading alone tells.
	Gone func(net.Conn) bool
	// SendUrgent writes b with its last byte urgent (RFC 793 §3.7), as a Telnet Synch must be. Nil: it is written plainly.
	SendUrgent func(c net.Conn, b []byte) error

	// TLS makes the session's TLS connections. It must be there unless Protection is RefuseTLS.
	TLS        *tlsmitm.Session
	Protection Protection
	// Implicit: TLS begins with the first byte, on the sides that have it by Protection. Where the session is not Faithful the
	// server's port says whether it is so there (990).
	Implicit bool
	// Pass returns what lets the data connections of the session's server through if its TLS is to be passed unopened, nil if
	// it is to be opened or if the client's hello will tell; heard: it has told to pass. A *Refusal means that neither is
	// allowed. The session closes the passage. Nil: TLS is opened.
	Pass func(heard bool) (Passage, error)
	// Reuse says what is asked of clients' TLS data connections.
	Reuse Reuse
	// Policy rules on commands, and on who sees the bytes of transfers. Nil: everything is admitted.
	Policy Policy
	// AskDirectory: the server is asked for the working directory (PWD) where the Policy wants to know it.
	AskDirectory bool

	Timeouts Timeouts
	Limits   wire.Limits
	// Explicit: no server is known until the client names one.
	Explicit bool
	// Logins are the ways in which it may; Explicit only. Zero: DefaultLogins.
	Logins Logins
	// Accounts are asked about logins to the proxy. Nil: none is asked for, and such a login means nothing. A session that is not
	// Explicit has one before that to its server then.
	Accounts Accounts
	// Own reports whether a name that a client has said by HOST or in the hello of its TLS is the proxy's, and so no server's.
	// It may look the name up. Nil: none is.
	Own func(ctx context.Context, name string) bool
	// Faithful: the server hears what the client says and nothing else, except where ServerData asks for it. Otherwise a
	// server without EPSV or EPRT is asked by PASV or PORT instead.
	Faithful   bool
	ServerData ServerData
	// RefuseUnknown answers commands that the table does not have with 502 instead of relaying them.
	RefuseUnknown bool

	// What follows is owned by Run's goroutine.

	ctx      context.Context // outlives draining; done when Run returns
	cancel   context.CancelFunc
	given    context.Context // to Run
	draining <-chan struct{} // given is done; nil once seen
	drainBy  time.Time       // zero until draining
	clock    *time.Timer
	readers  sync.WaitGroup
	client   *clientSide
	server   *serverSide // nil until connected
	out      []byte      // scratch for what is being written

	begun    time.Time
	loginBy  time.Time // zero once logged in
	user     string
	claimed  string // the last USER's
	named    string // what the client called the server; Explicit only
	standing standing
	said     said // to the client, last
	loggedIn bool
	secured  [2]bool            // whether a side's control connection has TLS
	private  [2]bool            // whether a side's data connections have it: PROT P
	sized    bool               // PBSZ was said
	epsvAll  bool               // RFC 2428 §4: no other data set-up is allowed any more
	noEPSV   bool               // the server lacks EPSV; only where not Faithful
	noEPRT   bool               // the server lacks EPRT; only where not Faithful
	armed    *dataconn.Transfer // made by passive or active, spent by a data verb
	// late is how many final replies the server may still send, or not, to what is over: to ABOR, or to a broken transfer.
	late     int
	owed     int            // final replies the server owes to commands whose client has been answered
	strikes  int            // lines that were no FTP
	unknown  int            // unknown verbs before login
	denied   int            // servers refused or not reached; Explicit only
	deferred []wire.Command // said before there was a server and owed to it; Explicit only
	intro    *introduction  // nil: of sessions that are not Explicit and have no Accounts
	held     bool           // what the client has said last was during a transfer, and is to be dealt with after it
}

// Bounds on what a client can try before it is shown the door. They stop a peer that is not speaking FTP, or that
// searches for something; people and programs that mean well stay below them.
const (
	maxStrikes  = 3 // malformed lines
	maxUnknown  = 3 // unknown verbs before login (ALPACA, NAT slipstreaming)
	maxDenied   = 3 // refused or unreachable servers
	maxDeferred = 8 // commands kept for the server to come
)

// settle is how long a server whose data connection broke may take to say so before we do (mod_proxy waits as long).
const settle = 3 * time.Second

// glance is how long it may take to see a reply that has been received already.
const glance = 10 * time.Millisecond

// courtesy is how long 150 waits for a server in active mode to call, and for us to call the client.
const courtesy = time.Second

// parting is how long an upload that has ended is kept from the server, lest it take the remains of a killed client's for
// whole: the kernel closes such a client's connections one after the other, in no order that could be relied upon. A
// client that lives waits for its 226 that much longer.
const parting = 5 * time.Millisecond

// linger is how long a client may take to close its data connection after it has all bytes, before 226 passes.
const linger = 2 * time.Second

// Run holds the conversation until either side leaves or a clock runs out, and returns why it ended: nil if somebody
// said goodbye. When ctx is done the session ends as soon as no transfer is running, or after Timeouts.Drain; at once if its cause
// is ErrCut.
// All of its goroutines have ended and all of its connections are closed when it returns.
func (s *Session) Run(ctx context.Context) (err error) {
	defer func() {
		if p := recover(); p != nil {
			err = fmt.Errorf("panic: %v\n%s", p, debug.Stack())
			s.close()
			s.observe(Ended{User: cmp.Or(s.user, s.claimed), Duration: time.Since(s.begun), Reason: "internal error", Err: err})
		}
	}()
	s.begin(ctx)
	defer s.cancel()
	return s.conclude(s.converse())
}

// begin begins the session's clocks, and to listen to the client.
func (s *Session) begin(ctx context.Context) {
	s.ctx, s.cancel = context.WithCancel(context.WithoutCancel(ctx))
	s.given, s.draining = ctx, ctx.Done()
	s.begun = time.Now()
	s.loginBy = s.begun.Add(s.Timeouts.Login)
	s.standing.size = -1
	s.clock = time.NewTimer(time.Hour)
	s.clock.Stop()
	s.client = openClient(s)
	if s.Explicit || s.Accounts != nil {
		s.intro = &introduction{}
	}
}

// conclude says the last word of a conversation that has come to an end, and closes all. It returns why it ended, as Run does.
func (s *Session) conclude(err error) error {
	reason := "client left"
	var r *Refusal
	var h *handshakeError
	switch {
	case errors.As(err, &h):
		reason = "TLS handshake failed"
	case errors.As(err, &r) && r.End:
		reason = r.Text
		s.say(r.reply())
	case errors.Is(err, errPassed):
		reason = "passed TLS broke off"
	case errors.Is(err, errServerLeft):
		reason = "server left"
	case errors.Is(err, errGoodbye):
		reason, err = "goodbye", nil
	case errors.Is(err, errClientLeft):
	case err != nil:
		reason = "broken connection"
	}
	s.cancel()
	s.close()
	s.observe(Ended{User: cmp.Or(s.user, s.claimed), Duration: time.Since(s.begun), Reason: reason, Err: err})
	return err
}

// How conversations end without a reply of ours.
var (
	errGoodbye    = errors.New("goodbye")                   // QUIT was answered
	errClientLeft = errors.New("client: connection closed") // without QUIT
	errServerLeft = errors.New("server: connection closed") // without 421
	errCut        = ending("Session ended by the administrator", ErrCut)
	errServer421  = fmt.Errorf("server: said 421: %w", errGoodbye) // and the client was told
)

// ErrCut is the cause of a context that ends a session at once, whatever moves.
var ErrCut = errors.New("cut off by the administrator")

// ErrDraining is why a session ended whose context is done.
var ErrDraining error = ending("Service is shutting down", nil)

// farewell is how a session ends whose context is done.
func (s *Session) farewell() error {
	if s.cutOff() {
		return errCut
	}
	return ErrDraining
}

// close ends everything the session began. It is idempotent.
func (s *Session) close() {
	s.disarm()
	if s.client != nil {
		s.client.close()
		s.client = nil
	}
	s.disconnect()
	s.readers.Wait()
}

// disconnect closes the connection to the server, if there is one.
func (s *Session) disconnect() {
	if s.server != nil {
		s.server.close()
		s.server = nil
	}
	s.secured[dataconn.Server], s.private[dataconn.Server] = false, false
}

// converse is the conversation from greeting to goodbye. Sessions spend their time in idle, so nothing large is kept here and
// above it: it would be on the stack of each of them.
func (s *Session) converse() error {
	if err := s.greet(); err != nil {
		return err
	}
	for {
		err := s.idle()
		if err == nil {
			err = s.perform(&s.client.cmd)
		}
		if err != nil {
			return err
		}
	}
}

// greet greets the client, as the server does where there is one.
func (s *Session) greet() error {
	if s.Implicit && s.Protection == RefuseTLS && s.Pass == nil {
		return ending("TLS is not allowed here", errors.New("client: came to where TLS begins with the first byte"))
	}
	if s.Explicit {
		if s.Implicit {
			if err := s.earlyHandshake(); err != nil {
				return err
			}
		}
		if err := s.say(wire.NewReply(220, "FTP proxy ready; log in as user@host")); err != nil {
			return err
		}
	} else {
		greeting, err := s.connect("")
		if err != nil {
			return s.unreachable(err)
		}
		if err := s.say(greeting); err != nil {
			return err
		}
		if !greeting.Positive() {
			return errServer421
		}
	}
	return nil
}

// unreachable is the last word of a session whose server was not reached.
func (s *Session) unreachable(err error) error {
	if errors.As(err, new(*handshakeError)) || errors.Is(err, errPassed) || errors.Is(err, errGoodbye) {
		return err
	}
	var r *Refusal
	if errors.As(err, &r) {
		r.Code, r.End = 421, true // RFC 959 §5.4: a connection is greeted with 120, 220 or 421
		return r
	}
	return ending("Service not available: the server cannot be reached", err)
}

// idle awaits the client's next command, which is client.cmd then. Meanwhile the server may only take its leave.
func (s *Session) idle() error {
	if s.held {
		s.held = false
		if ok, err := s.heard(); ok || err != nil {
			return err
		}
	}
	if !s.drainBy.IsZero() {
		return s.farewell()
	}
	idleBy := time.Now().Add(s.Timeouts.Idle)
	if !s.loginBy.IsZero() && s.loginBy.Before(idleBy) {
		idleBy = s.loginBy
	}
	for {
		if done, err := s.stir(s.await(wait{client: true, server: s.server != nil, drain: true, by: idleBy})); done || err != nil {
			return err
		}
	}
}

// stir deals with what has happened in an idle session. It is done if there is a command.
func (s *Session) stir(h happening) (done bool, err error) {
	switch h {
	case clientSpoke:
		return s.heard()
	case serverSpoke:
		return false, s.unsolicited()
	case clockExpired:
		return false, s.overslept()
	default: // drainBegan
		return false, s.farewell()
	}
}

// overslept is the end of a session whose client has said nothing for too long.
func (s *Session) overslept() error {
	text := "Idle for too long"
	if !s.loginBy.IsZero() && !time.Now().Before(s.loginBy) {
		text = "Login took too long"
	}
	return ending(text, errors.New("client: no command in time"))
}

// heard takes what the client has said, client.cmd. It is not ok if that was no command and has been answered.
func (s *Session) heard() (ok bool, err error) {
	c := s.client
	if len(c.cmd.Refusals) > 0 {
		if err := s.write(s.Client, c.cmd.Refusals); err != nil {
			return false, clientErr(err)
		}
	}
	if c.err != nil {
		return false, s.malformed(c.err)
	}
	s.observeCommand(">", c.cmd)
	return true, nil
}

// malformed answers a line that is no command, or passes on why there is none.
func (s *Session) malformed(err error) error {
	var syntax *wire.SyntaxError
	if !errors.As(err, &syntax) {
		return clientErr(err)
	}
	s.strikes++
	r := refusal(500, "Syntax error: "+syntax.Text)
	switch {
	case syntax.Binary, !s.loggedIn && !syntax.TooLong:
		// Another protocol is not argued with: what it sends next may be commands that its author never meant for us.
		return &Refusal{Code: 500, Text: "This is not FTP: " + syntax.Text, End: true, Err: syntax}
	case s.strikes >= maxStrikes, syntax.TooLong && s.strikes > 1:
		return ending("This is not FTP: "+syntax.Text, syntax)
	}
	s.observe(Refused{Refusal: r})
	return s.say(r.reply())
}

// perform does what a command asks for. What we refuse is answered.
func (s *Session) perform(at *wire.Command) error {
	cmd := *at // another is read into it while a transfer runs
	begun := time.Now()
	s.said = said{}
	err := s.act(cmd)
	heard := true // by the server, or whoever it was for
	if err != nil {
		heard, err = s.refused(cmd, err)
	}
	s.observe(Commanded{Verb: cmd.Verb, Class: classOf(cmd.Verb), Text: redacted(cmd), Path: pathOf(cmd), Resolved: s.resolved(cmd),
		From: s.standing.from.Text, Code: s.said.code, Reply: s.said.text, Duration: time.Since(begun)})
	if heard {
		s.stand(cmd)
	}
	return err
}

// refused answers a command with the refusal that has come of it, and of which nobody else has heard. Other errors remain.
func (s *Session) refused(cmd wire.Command, err error) (heard bool, _ error) {
	var r *Refusal
	if !errors.As(err, &r) || r.End {
		return true, err
	}
	s.observe(Refused{Verb: cmd.Verb, Path: pathOf(cmd), Resolved: s.resolved(cmd), Refusal: r})
	return false, s.say(r.reply())
}

// said is a reply's code and the last line of its text.
type said struct {
	code int // 0: nothing
	text string
}

// act does what a command asks for.
func (s *Session) act(cmd wire.Command) error {
	if s.Explicit {
		if done, err := s.address(cmd); done {
			return err
		}
	}
	if s.gated() {
		if done, err := s.gate(cmd); done {
			return err
		}
	}
	v, known := verbs[cmd.Verb]
	switch {
	case known && v.flags&foreign != 0:
		return &Refusal{Code: 500, Text: "This is not FTP", End: true, Err: errors.New("client: speaks " + v.defined)}
	case !known:
		if !s.loggedIn {
			if s.unknown++; s.unknown >= maxUnknown {
				return ending("Too many unknown commands", errors.New("client: does not speak FTP"))
			}
		}
		if s.RefuseUnknown {
			return refusal(502, "Command not supported")
		}
	}
	if s.server == nil && !(known && v.action == login) {
		return s.answer(cmd)
	}
	var ruling Ruling
	if v.action != login && v.action != quit { // login asks when it is known who it is
		var err error
		if ruling, err = s.admit(cmd); err != nil {
			return err
		}
	}
	switch v.action {
	case login:
		return s.login(cmd)
	case restart:
		return s.restart(cmd)
	case secure:
		return s.authenticate(cmd)
	case protect:
		return s.protect(cmd)
	case passive:
		return s.passive(cmd)
	case active:
		return s.active(cmd)
	case download:
		return s.transfer(cmd, dataconn.Download, ruling)
	case upload:
		return s.transfer(cmd, dataconn.Upload, ruling)
	case features:
		return s.features(cmd)
	case quit:
		return s.quit(cmd)
	case refuse:
		return refuseVerb(cmd.Verb)
	default: // relay; abort while no transfer runs
		return s.relay(cmd)
	}
}

// refuseVerb is the answer to verbs that never reach a server.
func refuseVerb(verb string) *Refusal {
	switch verb {
	case "LPRT", "LPSV":
		// At once, not after a time-out: wget tries them when EPSV fails.
		return refusal(500, "Not understood; use EPRT or EPSV")
	case "ADAT":
		return refusal(503, "AUTH comes first") // RFC 2228 §3
	}
	return refusal(502, "Command not supported")
}

// quit passes QUIT and its answer, and ends.
func (s *Session) quit(cmd wire.Command) error {
	reply, err := s.exchange(cmd)
	if err != nil {
		return err
	}
	if err := s.say(reply); err != nil {
		return err
	}
	return errGoodbye
}

// restart relays REIN (RFC 959 §4.1.1): all of the login is undone, the connections stay.
func (s *Session) restart(cmd wire.Command) error {
	if s.secured[dataconn.Client] || s.secured[dataconn.Server] {
		// It would end TLS behind its answer (RFC 4217 §13), and what is said next could be anybody's.
		return refusal(502, "REIN is not supported with TLS")
	}
	reply, err := s.exchange(cmd)
	if err != nil {
		return err
	}
	if reply.Positive() {
		s.disarm()
		s.loggedIn, s.user, s.epsvAll = false, "", false
		s.loginBy = time.Now().Add(s.Timeouts.Login)
	}
	return s.say(reply)
}

// disarm forgets an armed transfer.
func (s *Session) disarm() {
	if s.armed != nil {
		s.armed.Reset()
		<-s.armed.Closed()
		s.armed = nil
	}
}

func (s *Session) observe(e Event) {
	if s.Observer != nil {
		s.Observer.Observe(e)
	}
}

// clientErr and serverErr name the side of an error of a control connection.
func clientErr(err error) error {
	if err == io.EOF {
		return errClientLeft
	}
	return fmt.Errorf("%w: %w", errClientLeft, err)
}

func serverErr(err error) error {
	if err == io.EOF {
		return errServerLeft
	}
	var r *wire.ReplyError
	if errors.As(err, &r) {
		return ending("The server does not speak FTP", fmt.Errorf("server: %w", err))
	}
	return fmt.Errorf("%w: %w", errServerLeft, err)
}
