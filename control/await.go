package control

import (
	"context"
	"errors"
	"net"
	"time"

	"ftpalg/control/wire"
)

// A side of the control conversation is read only when it is waited for, one message at a time: a client that pipelines
// waits in its own socket buffer, and where TLS is to begin nothing is reading.

// clientSide reads commands.
type clientSide struct {
	conn   net.Conn
	reader *wire.Reader  // of the goroutine that reads, unless nothing is asked
	ask    chan struct{} // one token asks for one message; closed at the end
	asked  bool          // a message has been asked for and not come
	got    chan struct{} // cmd and err are set
	cmd    wire.Command
	err    error
}

// serverSide reads replies.
type serverSide struct {
	conn   net.Conn
	reader *wire.Reader // of the goroutine that reads, unless nothing is asked
	ask    chan struct{}
	asked  bool
	ahead  bool // when it was last asked for, some of the message had been received already
	got    chan struct{}
	reply  wire.Reply
	err    error
}

func openClient(s *Session) *clientSide {
	c := &clientSide{conn: s.Client, reader: wire.NewReader(s.Client, s.Limits), ask: make(chan struct{}, 1), got: make(chan struct{}, 1)}
	s.readers.Go(c.read)
	return c
}

// read is the goroutine that reads the client.
func (c *clientSide) read() {
	for range c.ask {
		c.cmd, c.err = c.reader.Command()
		c.got <- struct{}{}
	}
}

// listen asks for a message, if none has been asked for.
func (c *clientSide) listen() {
	if !c.asked {
		c.asked = true
		c.ask <- struct{}{}
	}
}

func (c *clientSide) close() {
	c.conn.Close()
	close(c.ask)
}

func openServer(s *Session, conn net.Conn) *serverSide {
	v := &serverSide{conn: conn, reader: wire.NewReader(conn, s.Limits), ask: make(chan struct{}, 1), got: make(chan struct{}, 1)}
	s.readers.Go(v.read)
	return v
}

// read is the goroutine that reads the server.
func (v *serverSide) read() {
	for range v.ask {
		v.reply, v.err = v.reader.Reply()
		v.got <- struct{}{}
	}
}

// listen asks for a message, if none has been asked for.
func (v *serverSide) listen() {
	if !v.asked {
		v.asked, v.ahead = true, v.reader.Buffered() > 0
		v.ask <- struct{}{}
	}
}

func (v *serverSide) close() {
	v.conn.Close()
	close(v.ask)
}

// wait says what await waits for.
type wait struct {
	client, server        bool
	drain                 bool            // also for the order to drain
	ready, copied, closed <-chan struct{} // of a transfer; nil is never
	by                    time.Time       // the clock; zero is never
}

// happening is what await returns for.
type happening int

const (
	clientSpoke happening = iota // client.cmd and client.err are set
	serverSpoke                  // server.reply and server.err are set
	legsReady
	copyEnded
	transferClosed
	clockExpired
	drainBegan
)

// await waits for the first of several things. It is the only place where a session waits for its peers.
func (s *Session) await(w wait) happening {
	var client, server <-chan struct{}
	if w.client {
		client = s.client.got
		s.client.listen()
	}
	if w.server {
		server = s.server.got
		s.server.listen()
	}
	var clock <-chan time.Time
	if !w.by.IsZero() {
		s.clock.Reset(max(time.Until(w.by), 0))
		clock = s.clock.C
	}
	var drain <-chan struct{}
	if w.drain {
		drain = s.draining
	}
	var h happening
	select {
	case <-client:
		h = clientSpoke
	case <-server:
		h = serverSpoke
	case <-w.ready:
		h = legsReady
	case <-w.copied:
		h = copyEnded
	case <-w.closed:
		h = transferClosed
	case <-clock:
		h = clockExpired
	case <-drain:
		h = drainBegan
	}
	s.clock.Stop()
	s.note(h)
	return h
}

// cutOff reports whether the session is to end at once, and not to drain.
func (s *Session) cutOff() bool { return errors.Is(context.Cause(s.given), ErrCut) }

// note keeps what follows from a happening for those to come.
func (s *Session) note(h happening) {
	switch h {
	case clientSpoke:
		s.client.asked = false
	case serverSpoke:
		s.server.asked = false
		if s.server.err == nil {
			s.observeReply("<<", s.server.reply)
		}
	case drainBegan:
		s.draining = nil
		s.drainBy = time.Now()
		if !s.cutOff() {
			s.drainBy = s.drainBy.Add(s.Timeouts.Drain)
		}
	}
}
