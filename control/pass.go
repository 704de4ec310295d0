package control

import (
	"context"
	"errors"
	"fmt"
	"net"

	"ftpalg/control/wire"
	"ftpalg/dataconn"
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
	return s.Pass()
}

// passUnopened performs AUTH where TLS is passed.
func (s *Session) passUnopened(cmd wire.Command, p Passage) error {
	defer p.Close()
	early, err := s.early()
	if err != nil {
		return err
	}
	reply, err := s.exchange(cmd)
	if err != nil {
		return err
	}
	if reply.Code != 234 {
		return s.unsecured(reply, early)
	}
	if err := s.notInjected(); err != nil {
		return err
	}
	s.disarm()
	if err := s.say(reply); err != nil {
		return err
	}
	return s.tunnel(&replayed{s.Client, early}, s.server.conn, p)
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
				cancel(errDraining)
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
