package control

import (
	"context"
	"errors"
	"fmt"
	"net"

	"ftpalg/control/wire"
	"ftpalg/dataconn"
	"ftpalg/tlsmitm"
)

// Passing: some servers' TLS must not be opened. Then nothing of the conversation can be read, so nothing in it can say which
// data connections to let through; what lets them through is opened before, and open for as long as the conversation is.

// Passage is what lets data connections through between one client and one server while their TLS is passed unopened.
type Passage interface {
	// Active reports whether a data connection is open, or was until just now.
	Active() bool
	// Close ends the passage and all that goes through it.
	Close()
}

// passes returns the passage for the session's TLS, or nil if it is to be opened; the error is a refusal.
func (s *Session) passes() (Passage, error) {
	if s.Pass == nil || s.secured[dataconn.Client] || s.secured[dataconn.Server] {
		return nil, nil
	}
	return s.Pass(false)
}

// passUnopened performs AUTH where TLS is passed.
func (s *Session) passUnopened(cmd wire.Command, p Passage) error {
	defer p.Close()
	early, err := s.early()
	if err != nil {
		return err
	}
	reply, agreed, err := s.agree(cmd, early)
	if !agreed {
		return err
	}
	s.disarm()
	if err := s.say(reply); err != nil {
		return err
	}
	return s.tunnel(&replayed{s.Client, early}, s.server.conn, p)
}

// passHello goes on where the client's hello, or the server's certificate, has shown that TLS is to be passed. server is the
// connection to it, if that is of use still.
func (s *Session) passHello(passed *tlsmitm.Passed, server net.Conn) error {
	p, err := s.Pass(true)
	if err != nil {
		return &handshakeError{err}
	}
	defer p.Close()
	if passed.Met {
		if server, err = s.again(); err != nil {
			return &handshakeError{err}
		}
	}
	defer server.Close()
	return s.tunnel(&replayed{s.Client, passed.Hello}, server, p)
}

// again connects to the server anew, up to where its TLS begins.
func (s *Session) again() (net.Conn, error) {
	if s.loggedIn {
		return nil, errors.New("its TLS is passed, and the client had logged in before it said AUTH")
	}
	s.disconnect()
	if s.Implicit {
		ctx, cancel := context.WithTimeout(s.ctx, s.Timeouts.Connect)
		defer cancel()
		return s.Connect(ctx, s.named)
	}
	greeting, err := s.connect(s.named)
	if err == nil && !greeting.Positive() {
		err = fmt.Errorf("server: greeted with %d when it was connected to again", greeting.Code)
	}
	if err != nil {
		return nil, err
	}
	reply, err := s.exchange(wire.NewCommand("AUTH", "TLS"))
	if err == nil && reply.Code != 234 {
		err = fmt.Errorf("server: answered AUTH TLS with %d", reply.Code)
	}
	if err == nil {
		err = s.notInjected()
	}
	if err != nil {
		return nil, err
	}
	return s.server.conn, nil
}

// tunnel carries the conversation, until both sides have ended it, one breaks, or nothing moves for Timeouts.Idle, neither
// here nor through the passage. Nothing can be said inside another's TLS.
func (s *Session) tunnel(client, server net.Conn, p Passage) error {
	ctx, cancel := context.WithCancelCause(s.ctx)
	defer cancel(nil)
	if draining := s.draining; draining != nil {
		s.readers.Go(func() {
			select {
			case <-draining:
				cancel(s.farewell())
			case <-ctx.Done():
			}
		})
	}
	if _, _, err := dataconn.Tunnel(ctx, client, server, s.Timeouts.Idle, p.Active); err != nil {
		return fmt.Errorf("%w: %v", errPassed, err)
	}
	return errGoodbye
}

// errPassed is the end of a conversation that was passed unopened, where it was not both sides' will.
var errPassed = errors.New("passed TLS broke off")
