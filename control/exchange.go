package control

import (
	"context"
	"errors"
	"fmt"
	"net"
	"slices"
	"strings"
	"time"

	"ftpalg/control/wire"
	"ftpalg/dataconn"
)

// write writes b to a control connection. A peer that takes nothing for Timeouts.Reply is as good as gone.
func (s *Session) write(c net.Conn, b []byte) error {
	c.SetWriteDeadline(time.Now().Add(s.Timeouts.Reply))
	_, err := c.Write(b)
	return err
}

// say gives the client a reply.
func (s *Session) say(r wire.Reply) error {
	s.observeReply("<", r)
	s.said = said{r.Code, r.Text()}
	s.out = r.Append(s.out[:0])
	if err := s.write(s.Client, s.out); err != nil {
		return clientErr(err)
	}
	return nil
}

// observeCommand and observeReply make events only of what somebody wants to hear: there are four to a command.
func (s *Session) observeCommand(arrow string, cmd wire.Command) {
	if s.Observer != nil && s.Observer.Verbatim() {
		s.Observer.Observe(Said{arrow, redacted(cmd)})
	}
}

func (s *Session) observeReply(arrow string, r wire.Reply) {
	if s.Observer != nil && s.Observer.Verbatim() {
		s.Observer.Observe(Said{arrow, strings.Join(r.Lines, "\n")})
	}
}

// tell gives the server a command.
func (s *Session) tell(cmd wire.Command) error {
	s.observeCommand(">>", cmd)
	s.out = cmd.Append(s.out[:0])
	if err := s.write(s.server.conn, s.out); err != nil {
		return serverErr(err)
	}
	return nil
}

// relay passes a command to the server and the replies back.
func (s *Session) relay(cmd wire.Command) error {
	reply, err := s.exchange(cmd)
	if err != nil {
		return err
	}
	switch {
	case cmd.Verb == "HOST" && reply.Positive() && s.TLS != nil:
		s.TLS.Call(cmd.Arg)
	case cmd.Verb == "HELP" && reply.Code == 214 && s.Policy != nil:
		reply.Lines = s.editHelp(reply.Lines)
	}
	return s.pass(reply)
}

// pass gives the client the server's final reply; one of 421 is the server's goodbye.
func (s *Session) pass(reply wire.Reply) error {
	if err := s.say(reply); err != nil {
		return err
	}
	if reply.Code == 421 {
		return errServer421
	}
	return nil
}

// exchange tells the server a command, passes preliminary replies on as they come, and returns the final one.
func (s *Session) exchange(cmd wire.Command) (wire.Reply, error) {
	if err := s.settleDebts(); err != nil {
		return wire.Reply{}, err
	}
	if err := s.cleared(); err != nil {
		return wire.Reply{}, err
	}
	if err := s.tell(cmd); err != nil {
		return wire.Reply{}, err
	}
	for {
		reply, err := s.reply()
		switch {
		case err != nil:
			return reply, err
		case misplaced(cmd.Verb, reply), s.tooLate(cmd.Verb, reply):
			s.observe(Dropped{Code: reply.Code})
		case !reply.Preliminary():
			return reply, nil
		default:
			if err := s.say(reply); err != nil {
				return reply, err
			}
		}
	}
}

// tooLate reports whether a reply that answers a command is more likely one that was still to come, late, to what is over:
// if it has one of the codes that such replies have, and that the command would not have. What else comes shows that
// none will.
func (s *Session) tooLate(verb string, r wire.Reply) bool {
	if s.late == 0 {
		return false
	}
	switch r.Code {
	case 425:
		// What arms or begins a transfer may be refused so.
		if v := verbs[verb]; v.action != passive && v.action != active && v.flags&data == 0 {
			s.late--
			return true
		}
	case 225, 226, 426:
		if verb != "ABOR" {
			s.late--
			return true
		}
	}
	s.late = 0
	return false
}

// misplaced reports a reply that tells where to connect to and answers a command that did not ask for it. The command
// that it pretends to answer has its own answer still to come.
func misplaced(verb string, r wire.Reply) bool {
	return r.Code >= 227 && r.Code <= 229 && verb != "PASV" && verb != "EPSV"
}

// cleared deals with replies that are there already before a command is told: they cannot be its answer.
func (s *Session) cleared() error {
	for s.server.asked && (s.server.ahead || len(s.server.got) > 0) || !s.server.asked && s.server.reader.Buffered() > 0 {
		if s.await(wait{server: true, by: time.Now().Add(glance)}) == clockExpired {
			return nil // half a reply; the rest of it cannot be told from an answer
		}
		if err := s.unsolicited(); err != nil {
			return err
		}
	}
	return nil
}

// reply awaits the server's next reply.
func (s *Session) reply() (wire.Reply, error) {
	reply, ok, err := s.replyWithin(s.Timeouts.Reply)
	if err == nil && !ok {
		err = ending("The server does not answer", errors.New("server: no reply in time"))
	}
	return reply, err
}

// replyWithin awaits the server's next reply for some time. It is not ok if there is none.
func (s *Session) replyWithin(d time.Duration) (reply wire.Reply, ok bool, err error) {
	by := time.Now().Add(d)
	for {
		switch s.await(wait{server: true, drain: true, by: s.earlier(by)}) {
		case serverSpoke:
			if s.server.err != nil {
				return wire.Reply{}, false, serverErr(s.server.err)
			}
			return s.server.reply, true, nil
		case clockExpired:
			if time.Now().Before(by) {
				return wire.Reply{}, false, s.farewell()
			}
			return wire.Reply{}, false, nil
		}
	}
}

// settleDebts awaits the final replies that the server still owes to transfers whose client has had its answer from us, so
// that none of them is taken for the answer to what comes next (reply desynchronisation). A server that keeps them to
// itself (Pure-FTPd, when a data connection with TLS 1.3 is reset) is told NOOP: what comes before the answer to that is
// what it owed, and what has not come by then will not come.
func (s *Session) settleDebts() error {
	asked := false
	for s.owed > 0 {
		wait := courtesy
		if asked {
			wait = s.Timeouts.Reply
		}
		reply, ok, err := s.replyWithin(wait)
		switch {
		case err != nil:
			return err
		case !ok && asked:
			return ending("The server does not answer", errors.New("server: no reply in time"))
		case !ok:
			asked = true
			if err := s.tell(wire.NewCommand("NOOP", "")); err != nil {
				return err
			}
			s.owed++
		case asked && reply.Code == 200:
			s.owed = 0
		case !reply.Preliminary():
			s.owed--
		}
	}
	return nil
}

// unsolicited deals with what the server says while it is owed no command: its leave, a debt, or noise. Noise is
// dropped: a 227 nobody asked for is an attack on whoever believes it.
func (s *Session) unsolicited() error {
	reply, err := s.server.reply, s.server.err
	switch {
	case err != nil:
		return serverErr(err)
	case reply.Code == 421:
		return s.pass(reply)
	case s.owed > 0:
		if !reply.Preliminary() {
			s.owed--
		}
	case s.late > 0 && !misplaced("", reply):
		// The client may be waiting for it.
		if !reply.Preliminary() {
			s.late--
		}
		return s.say(reply)
	default:
		s.observe(Dropped{Code: reply.Code})
	}
	return nil
}

// connect makes the server's connection and returns its greeting, which may be a refusal.
func (s *Session) connect(name string) (wire.Reply, error) {
	by := time.Now().Add(s.Timeouts.Connect)
	ctx, cancel := context.WithDeadline(s.ctx, by)
	defer cancel()
	conn, err := s.Connect(ctx, name)
	if err != nil {
		return wire.Reply{}, err
	}
	conn, err = s.implicit(conn)
	if err != nil {
		return wire.Reply{}, err
	}
	s.server = openServer(s, conn)
	s.noEPSV, s.noEPRT, s.owed, s.late = false, false, 0, 0
	s.observe(Started{
		Client: dataconn.AddrPort(s.Client.RemoteAddr()),
		Server: dataconn.AddrPort(conn.RemoteAddr()),
		Name:   name,
	})
	for {
		if s.await(wait{server: true, by: by}) == clockExpired {
			return wire.Reply{}, errors.New("server: no greeting in time")
		}
		if s.server.err != nil {
			return wire.Reply{}, serverErr(s.server.err)
		}
		greeting := s.server.reply
		switch {
		case greeting.Code == 120 && !s.Explicit: // RFC 959 §5.4: ready in nnn minutes, 220 follows
			if err := s.say(greeting); err != nil {
				return greeting, err
			}
		case greeting.Preliminary():
		case greeting.Negative():
			return greeting, nil
		case greeting.Code == 220:
			return greeting, s.alike()
		default:
			// Nothing is done for a peer that does not greet as FTP servers do.
			return wire.Reply{}, ending("The server does not speak FTP", fmt.Errorf("server: greeted with %d", greeting.Code))
		}
	}
}

// alike makes the server's side as secure as the client's is, or as the listener wants it, where that has not come about
// by passing things on.
func (s *Session) alike() error {
	wanted := s.Protection == ServerOnly || s.Protection.follows() && !s.Faithful && (s.secured[dataconn.Client] || s.secured[dataconn.Server])
	if !wanted {
		return nil
	}
	return s.secureServer()
}

// features relays FEAT (RFC 2389 §3) and takes out what we do not let pass.
func (s *Session) features(cmd wire.Command) error {
	reply, err := s.exchange(cmd)
	if err != nil {
		return err
	}
	if reply.Code == 211 && len(reply.Lines) > 2 {
		reply.Lines = s.editFeatures(reply.Lines)
	}
	return s.pass(reply)
}

// hidden are features that announce what a session refuses; those of TLS, what it refuses where TLS is not for the client.
var (
	hidden      = []string{"CCC", "SSCN", "CPSV", "LPRT", "LPSV", "ADAT", "MIC", "CONF", "ENC"}
	tlsFeatures = []string{"AUTH TLS", "PBSZ", "PROT"}
)

// editFeatures returns the lines of a 211 reply without hidden features and with those that are ours: EPRT and EPSV, which we
// translate for servers that lack them unless the session is faithful, and TLS where that is not the server's to have.
func (s *Session) editFeatures(lines []string) []string {
	last := len(lines) - 1
	out := []string{lines[0]}
	var missing []string
	if !s.Faithful {
		missing = append(missing, "EPRT", "EPSV")
	}
	local := s.Protection == ClientOnly || s.Protection.offers() && !s.Faithful && s.secured[dataconn.Server]
	if local {
		missing = append(missing, tlsFeatures...)
	}
	for _, l := range lines[1:last] {
		name, _, _ := strings.Cut(strings.TrimLeft(strings.TrimPrefix(l, "211-"), " "), " ") // old servers repeat the code
		name = strings.ToUpper(name)
		tls := name == "AUTH" || name == "PBSZ" || name == "PROT"
		if slices.Contains(hidden, name) || s.Policy != nil && s.Policy.Hides(name) || tls && (local || !s.Protection.offers()) {
			continue
		}
		missing = slices.DeleteFunc(missing, func(m string) bool { return m == name })
		out = append(out, l)
	}
	for _, m := range missing {
		out = append(out, " "+m)
	}
	return append(out, lines[last])
}

// editHelp blanks the verbs that nobody may use out of the lines of a 214 reply, which is a list of them, as a rule. The first
// and the last line are text.
func (s *Session) editHelp(lines []string) []string {
	out := slices.Clone(lines)
	for i := 1; i < len(out)-1; i++ {
		line := []byte(out[i])
		begin := 0
		for j := 0; j <= len(line); j++ {
			if j < len(line) && (line[j]|0x20 >= 'a' && line[j]|0x20 <= 'z' || line[j] >= '0' && line[j] <= '9') {
				continue
			}
			if word := strings.ToUpper(string(line[begin:j])); len(word) >= 3 {
				if _, known := verbs[word]; known && s.Policy.Hides(word) {
					copy(line[begin:j], strings.Repeat(" ", j-begin))
				}
			}
			begin = j + 1
		}
		out[i] = string(line)
	}
	return out
}
