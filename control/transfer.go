package control

import (
	"errors"
	"fmt"
	"slices"
	"time"

	"ftpalg/control/wire"
	"ftpalg/dataconn"
	"ftpalg/tlsmitm"
)

// running is a transfer while its data verb is being performed.
type running struct {
	*dataconn.Transfer
	cmd       wire.Command
	direction dataconn.Direction
	begun     time.Time
	path      string // resolved; empty: unknown
	offset    int64
	rule      string // that admitted it
	known     func() // see Policy.Begins; nil: it is

	withheld  wire.Reply // the server's 150, until the client has been called; Code 0: none
	released  bool       // bytes may move: the client has seen 150, or the server said no such thing
	copied    bool       // Copied is closed
	parting   bool       // an upload has ended; its client is given a moment to turn out to be dead
	committed bool       // Commit was called: it is whole
	final     wire.Reply // the server's verdict on the transfer; Code 0 until it comes
	by        time.Time  // the clock for what is awaited now; zero while bytes move

	facts [2]tlsmitm.Facts // of the legs' TLS, by side

	urgent  []string // verbs that were sent on meanwhile and have not been answered, oldest first
	aborted bool     // ABOR was among them
}

// maxUrgent is how many urgent commands may wait for their answers; more are held like others. Clients that abort say
// ABOR twice.
const maxUrgent = 4

// transfer performs a verb that moves data. The client's final reply waits for two things: the server's own final reply,
// and our copy. The end of a download is kept from the client until the server has confirmed it, because a server that
// dies ends its data connection just as one that is done.
func (s *Session) transfer(cmd wire.Command, d dataconn.Direction, ruling Ruling) error {
	if s.Protection == RequireTLS && !s.private[dataconn.Client] {
		return &Refusal{Code: 521, Text: "Data connections must be protected: say PROT P first", Rule: "tls"}
	}
	if s.armed == nil {
		return s.relay(cmd) // 425, as a rule; it is the server's to say
	}
	if err := s.settleDebts(); err != nil {
		return err
	}
	if err := s.cleared(); err != nil {
		return err
	}
	t := &running{Transfer: s.armed, cmd: cmd, direction: d, begun: time.Now(), path: s.resolved(cmd), offset: s.standing.offset, rule: ruling.Rule}
	if s.Policy != nil {
		e := Transferring{Verb: cmd.Verb, Path: cmd.Arg, Resolved: t.path, Upload: d == dataconn.Upload, Offset: t.offset, Rule: t.rule, Data: s.armed}
		var r *Refusal
		if t.known, r = s.Policy.Begins(e); r != nil {
			return r
		}
		if t.Past() {
			t.await() // nobody could hold its bytes back
		}
	}
	s.armed = nil
	t.Pace(ruling.Pace)
	t.Begin(d, s.securing(t), ruling.Inspector)
	code, err := 0, s.tell(cmd)
	if err == nil {
		t.by = time.Now().Add(s.Timeouts.Reply)
		code, err = s.attend(t)
	}
	if !t.committed || err != nil { // with err, nobody waits for a slow receiver any more
		t.Reset()
	}
	<-t.Closed()
	s.report(t, code, err)
	if err != nil {
		return err
	}
	return s.afterUrgent(t)
}

// report tells the Observer how the transfer ended.
func (s *Session) report(t *running, code int, err error) {
	e := Transferred{
		Verb: t.cmd.Verb, Path: t.cmd.Arg, Resolved: t.path, Upload: t.direction == dataconn.Upload, Offset: t.offset, ASCII: !s.standing.image, Rule: t.rule,
		Bytes: t.Bytes(), Duration: time.Since(t.begun), Code: code, Err: err,
		Carried: t.Carried().String(), TLS: t.facts,
	}
	if code != 0 {
		e.Text = s.said.text
	}
	if e.Err == nil {
		e.Err = t.Err()
	}
	if e.Err == nil && t.direction == dataconn.Download {
		e.Err = t.Delivered()
	}
	if e.Err == nil && !t.committed {
		e.Err = fmt.Errorf("server: %d %s", t.final.Code, t.final.Text())
	}
	s.observe(e)
}

// attend waits on a running transfer until the client has been given its final reply, and returns that reply's code.
func (s *Session) attend(t *running) (int, error) {
	for {
		w := wait{client: !s.held, server: t.final.Code == 0, drain: true, by: s.earlier(t.by)}
		if t.withheld.Code != 0 {
			w.ready = t.Ready()
		}
		if !t.copied {
			w.copied = t.Copied()
		} else if t.committed && t.final.Code != 0 {
			w.closed = t.Closed()
		}
		switch s.await(w) {
		case clientSpoke:
			if err := s.interject(t); err != nil {
				return 0, err
			}
		case serverSpoke:
			if done, code, err := s.verdict(t); done || err != nil {
				return code, err
			}
		case legsReady:
			if err := s.announce(t); err != nil {
				return 0, err
			}
		case copyEnded:
			if done, code, err := s.copyEnded(t); done || err != nil {
				return code, err
			}
		case transferClosed:
			if t.Delivered() != nil {
				_, code, err := s.broken(t)
				return code, err
			}
			// The client has every byte and has closed its end: now it may hear that it is so.
			return t.final.Code, s.pass(t.final)
		case clockExpired:
			if code, err := s.overdue(t); code != 0 || err != nil {
				return code, err
			}
		case drainBegan: // the transfer may finish; earlier sees to the rest
		}
	}
}

// earlier is the earlier of a clock and the end of draining; zero is never.
func (s *Session) earlier(by time.Time) time.Time {
	if by.IsZero() || !s.drainBy.IsZero() && s.drainBy.Before(by) {
		return s.drainBy
	}
	return by
}

// verdict takes a reply of the server. It reports done, with the code, when the client has had its final reply.
func (s *Session) verdict(t *running) (done bool, code int, err error) {
	reply, err := s.server.reply, s.server.err
	if t.Past() && t.released && reply.Preliminary() {
		// A second 1yz tells of an end, as a rule (see below), of which we shall hear in a moment.
		select {
		case <-t.Copied():
		case <-time.After(settle):
		case <-s.ctx.Done():
		}
	}
	select {
	case <-t.Copied():
		// Both came at once: our copy's end was first if the server speaks of it.
		if !t.copied {
			if done, code, err := s.copyEnded(t); done || err != nil {
				return done, code, err
			}
		}
	default:
	}
	if err != nil {
		if t.released {
			// The client was promised a transfer: it hears that it broke before it sees us leave.
			t.Reset()
			if err := s.say(wire.NewReply(426, "Transfer aborted: the server closed the connection")); err != nil {
				return true, 426, err
			}
			return true, 426, serverErr(err)
		}
		return true, 0, serverErr(err)
	}
	switch {
	case misplaced(t.cmd.Verb, reply), !t.released && s.tooLate(t.cmd.Verb, reply):
		s.observe(Dropped{Code: reply.Code})
		return false, 0, nil
	case t.answered(reply):
		if err := s.say(reply); err != nil {
			return true, 0, err
		}
		return false, 0, nil
	case reply.Preliminary() && t.CallsClient() && t.withheld.Code == 0 && !t.released && !t.copied && !t.Connected():
		// Servers call first and say 150 then, so that a client which hears 150 has been called. Some clients (curl 7.88)
		// hang up if not. Those servers that call later will find the client told in time.
		t.withheld, t.by = reply, time.Now().Add(courtesy)
		t.Call()
		return false, 0, nil
	case reply.Preliminary():
		if err := s.announce(t); err != nil {
			return true, 0, err
		}
		if err := s.say(reply); err != nil {
			return true, 0, err
		}
		if t.copied && t.released && t.Err() != nil {
			// A second 1yz after the data connection broke is all that Pure-FTPd ever says of it. Clients take it
			// for what it should have been, or wait for more.
			if len(t.urgent) == 0 {
				s.late++
			}
			return true, reply.Code, nil
		}
		if !t.copied {
			s.release(t)
		}
		return false, 0, nil
	}
	t.final = reply
	switch {
	case t.ours() != nil:
		return s.broken(t)
	case reply.Negative():
		if !t.committed {
			t.Reset() // before the client hears of it
		}
		return true, reply.Code, s.pass(reply)
	case !t.copied:
		// Our copy is still on its way; with no 150 before, it has not even begun. A 150 that is withheld still is: the
		// client has not been called.
		if t.withheld.Code != 0 {
			return false, 0, nil
		}
		s.release(t)
		if t.aborted {
			t.by = time.Now().Add(s.Timeouts.Abort) // a client that has said ABOR may take no more of it
		}
		return false, 0, nil
	case t.Err() != nil:
		return s.broken(t)
	case t.parting:
		return false, 0, nil
	case t.direction == dataconn.Upload:
		return true, reply.Code, s.pass(reply)
	}
	t.committed, t.by = true, time.Time{} // the receiver has the transfer's own clocks
	t.Commit()
	return false, 0, nil
}

// announce passes a 150 that was withheld, and lets the bytes move.
func (s *Session) announce(t *running) error {
	if t.withheld.Code == 0 {
		return nil
	}
	reply := t.withheld
	t.withheld = wire.Reply{}
	if err := s.say(reply); err != nil {
		return err
	}
	s.release(t)
	return nil
}

// release lets the bytes of a transfer move.
func (s *Session) release(t *running) {
	if !t.released {
		t.released, t.by = true, time.Time{}
		if t.aborted {
			t.by = time.Now().Add(s.Timeouts.Abort)
		}
		t.await()
		t.Release()
	}
}

// await returns when it is known that the transfer is on its way.
func (t *running) await() {
	if t.known != nil {
		t.known()
		t.known = nil
	}
}

// copyEnded deals with the end of the copy, or of the set-up. done and code are as in verdict.
func (s *Session) copyEnded(t *running) (done bool, code int, err error) {
	t.copied = true
	t.withheld = wire.Reply{} // of a client that was called in vain
	switch {
	case t.Err() != nil && t.final.Code != 0:
		return s.broken(t)
	case t.Err() != nil:
		// The server's own words say more than ours, also where the legs did not even connect: its 550 beats our 425.
		t.by = time.Now().Add(settle)
		return false, 0, nil
	case t.direction == dataconn.Upload:
		switch {
		case t.Carried() == dataconn.Passed:
			// The kernel has not kept the end back: there is but to tell whether it was one.
			if s.Gone != nil && s.Gone(s.Client) {
				return true, 0, fmt.Errorf("%w in mid-upload", errClientLeft)
			}
			code, err := s.entrust(t)
			return code != 0, code, err
		case s.private[dataconn.Client]:
			code, err := s.entrust(t) // it said close_notify, so it was not killed
			return code != 0, code, err
		}
		// A client that is killed closes its data connection as one that is done, but its control connection with it.
		t.parting, t.by = true, time.Now().Add(parting)
		return false, 0, nil
	case t.final.Code != 0:
		t.committed, t.by = true, time.Time{}
		t.Commit()
		return false, 0, nil
	}
	t.by = time.Now().Add(s.Timeouts.Reply)
	return false, 0, nil
}

// broken answers for a copy that failed although the server says that all is well.
func (s *Session) broken(t *running) (done bool, code int, err error) {
	r := wire.NewReply(426, "Transfer aborted: data connection broken")
	var leg *dataconn.LegError
	switch ours := t.ours(); {
	case ours != nil:
		r = ours.reply()
		s.observe(Refused{Verb: t.cmd.Verb, Path: t.cmd.Arg, Resolved: t.path, Refusal: ours})
	case !t.Connected():
		r = wire.NewReply(425, "Cannot open a data connection")
	case errors.As(t.Err(), &leg) && leg.Act == "TLS" && leg.Side == dataconn.Client:
		r = wire.NewReply(522, "TLS negotiation failed on the data connection") // RFC 4217 §10
	}
	return true, r.Code, s.say(r)
}

// ours is the refusal with which we have stopped the copy, or nil.
func (t *running) ours() *Refusal {
	var r *Refusal
	if t.copied && errors.As(t.Err(), &r) {
		return r
	}
	return nil
}

// entrust ends a whole upload as one, to the server. A code says that the client has had its final reply.
func (s *Session) entrust(t *running) (int, error) {
	t.parting, t.committed = false, true
	t.Commit()
	if t.final.Code != 0 {
		return t.final.Code, s.pass(t.final)
	}
	t.by = time.Now().Add(s.Timeouts.Reply)
	return 0, nil
}

// overdue deals with a clock that ran out. A code says that the client has its final reply.
func (s *Session) overdue(t *running) (int, error) {
	switch {
	case !s.drainBy.IsZero() && !time.Now().Before(s.drainBy):
		t.Reset()
		return 0, s.farewell()
	case t.withheld.Code != 0:
		return 0, s.announce(t)
	case t.parting:
		if s.Gone != nil && s.Gone(s.Client) {
			return 0, fmt.Errorf("%w in mid-upload", errClientLeft)
		}
		return s.entrust(t)
	case t.aborted && !t.copied:
		// The server did not heed ABOR in time: some look at the control connection only between transfers. Make it one.
		t.Reset()
		t.by = time.Now().Add(s.Timeouts.Reply)
		return 0, nil
	case t.copied && t.Err() != nil:
		// The server has not noticed. It owes the reply still; the client need not wait for it.
		s.owed++
		_, code, err := s.broken(t)
		return code, err
	}
	return 0, ending("The server does not answer", errors.New("server: no reply in time"))
}

// interject takes what the client says while a transfer runs: an urgent command is passed on, another is held until the
// transfer is over (RFC 959 §4.1.3, ABOR; STAT; QUIT).
func (s *Session) interject(t *running) error {
	cmd, err := s.client.cmd, s.client.err
	var syntax *wire.SyntaxError
	later := errors.As(err, &syntax) && !syntax.Binary // its answer would be taken for the transfer's now
	if err == nil {
		later = verbs[cmd.Verb].flags&urgent == 0 || len(t.urgent) >= maxUrgent ||
			s.Policy != nil && cmd.Verb == "STAT" && cmd.Arg != "" // a listing, on which the Policy has to rule; its refusal would be taken for the transfer's
	}
	if later {
		s.held = true
		return nil
	}
	if ok, err := s.heard(); !ok {
		return err // the owner of what was moving is gone
	}
	if cmd.Interrupted {
		if err := s.synch(); err != nil {
			return err
		}
	}
	if err := s.tell(cmd); err != nil {
		return err
	}
	t.urgent = append(t.urgent, cmd.Verb)
	if cmd.Verb == "ABOR" {
		t.aborted = true
		if !t.copied {
			t.by = time.Now().Add(s.Timeouts.Abort)
		}
	}
	return nil
}

// telnetIP and telnetDM are Interrupt Process and Data Mark as clients send them: the mark's IAC is the urgent byte, and the mark
// itself follows in band (RFC 854; RFC 959 §4.1.3).
var telnetIP, telnetDM = []byte{0xFF, 0xF4, 0xFF}, []byte{0xF2}

// synch tells the server to look at its control connection.
func (s *Session) synch() error {
	send := s.SendUrgent
	if send == nil {
		send = s.write
	}
	err := send(s.server.conn, telnetIP)
	if err == nil {
		err = s.write(s.server.conn, telnetDM)
	}
	if err != nil {
		return serverErr(err)
	}
	return nil
}

// answered reports whether a reply belongs to an urgent command rather than to the transfer, and takes that off the list.
func (t *running) answered(r wire.Reply) bool {
	// Before 150 a refusal is the data verb's.
	promised := t.released || t.withheld.Code != 0
	for i, verb := range t.urgent {
		if answers(verb, r) || verb != "ABOR" && promised && notDone(r) {
			t.urgent = slices.Delete(t.urgent, i, i+1)
			return true
		}
	}
	return false
}

// answers reports whether a reply that comes during a transfer has a code of an urgent command's. ABOR's has the
// transfer's codes, and comes after the transfer's (RFC 959 §4.1.3).
func answers(verb string, r wire.Reply) bool {
	switch verb {
	case "STAT":
		return r.Code >= 211 && r.Code <= 215
	case "NOOP":
		return r.Code == 200
	case "QUIT":
		return r.Code == 221
	}
	return false
}

// notDone are the codes by which commands are refused, and transfers are not.
func notDone(r wire.Reply) bool { return r.Code >= 500 && r.Code <= 504 || r.Code == 530 }

// afterUrgent awaits what is still owed to urgent commands when their transfer is over: for ABOR one more reply, if the
// server sends one within Timeouts.Abort.
func (s *Session) afterUrgent(t *running) error {
	for len(t.urgent) > 0 {
		verb := t.urgent[0]
		by := s.Timeouts.Reply
		if verb == "ABOR" {
			by = s.Timeouts.Abort
		}
		if s.await(wait{server: true, by: time.Now().Add(by)}) == clockExpired {
			if verb != "ABOR" {
				return ending("The server does not answer", errors.New("server: no reply in time"))
			}
			t.urgent = t.urgent[1:]
			s.late++
			continue
		}
		reply, err := s.server.reply, s.server.err
		if err != nil {
			return serverErr(err)
		}
		if s.owed > 0 && reply.Code != 421 {
			// The transfer's, to which we have answered already, if the server does not answer in the midst of it.
			switch {
			case t.answered(reply):
				if err := s.say(reply); err != nil {
					return err
				}
			case !reply.Preliminary():
				s.owed--
			}
			continue
		}
		if err := s.pass(reply); err != nil {
			return err
		}
		if reply.Preliminary() {
			continue
		}
		if verb == "QUIT" {
			return errGoodbye
		}
		t.urgent = t.urgent[1:]
	}
	return nil
}
