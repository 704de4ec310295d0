package control

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"strings"

	"ftpalg/control/wire"
	"ftpalg/dataconn"
)

// Arming a transfer: PASV and EPSV, PORT and EPRT (RFC 959 §4.1.2, RFC 2428). Each makes one leg for the client and one
// for the server, and forgets what was armed before. The server is asked first, so that a client hears of success only
// when there is some.

// minDataPort is the lowest port that either side may name: what listens below is a service, and a data connection to
// it an attack by way of us (RFC 2577 §3).
const minDataPort = 1024

func (s *Session) clientAddr() netip.Addr { return dataconn.AddrPort(s.Client.RemoteAddr()).Addr() }

func (s *Session) serverAddr() netip.Addr {
	return dataconn.AddrPort(s.server.conn.RemoteAddr()).Addr()
}

// beforeLogin relays a data set-up said before login, for the server to refuse. A server that accepts it is not one
// that a data connection may be opened for: the slipstreaming page's accomplice would.
func (s *Session) beforeLogin(cmd wire.Command) error {
	reply, err := s.exchange(cmd)
	if err != nil {
		return err
	}
	if !reply.Negative() {
		return ending("No data connection before login", fmt.Errorf("server: answered %s with %d before login", cmd.Verb, reply.Code))
	}
	return s.pass(reply)
}

// passive performs PASV and EPSV: the client will call.
func (s *Session) passive(cmd wire.Command) error {
	if !s.loggedIn {
		return s.beforeLogin(cmd)
	}
	family := wire.FamilyOf(s.clientAddr())
	switch {
	case s.epsvAll && cmd.Verb != "EPSV":
		return refusal(500, "EPSV ALL is in force") // RFC 2428 §4: MUST be rejected
	case cmd.Verb == "EPSV" && strings.EqualFold(cmd.Arg, "ALL"):
		return s.allExtended(cmd)
	case cmd.Verb == "PASV" && family == wire.IPv6 && !s.Faithful:
		return refusal(425, "PASV cannot name an IPv6 address; use EPSV")
	case cmd.Verb == "EPSV" && cmd.Arg != "" && !s.Faithful:
		switch cmd.Arg {
		case "1", "2":
			if cmd.Arg[0]-'0' != byte(family) {
				return otherFamily(family)
			}
			cmd = cmd.WithArg("") // the server's family may be the other
		default:
			return refusal(501, "EPSV takes 1, 2 or ALL")
		}
	}
	s.disarm()

	var server dataconn.Leg
	var reply wire.Reply
	var err error
	if s.ServerData == Active {
		server, reply, err = s.askActive(counterpart(cmd), 0)
	} else {
		server, reply, err = s.askPassive(cmd)
	}
	if err != nil {
		return err
	}
	if !reply.Positive() {
		return s.pass(reply)
	}
	var at netip.AddrPort
	client := dataconn.Leg{Peer: s.clientAddr()}
	hole := s.pinhole(dataconn.Client, server.Address)
	if hole != nil {
		at = hole.At()
	} else {
		l, err := s.Network.Listen(s.ctx, dataconn.Client, server.Address.Port())
		if err != nil {
			closeListener(server.Listener)
			return noListener(err)
		}
		client.Listener, at = l, dataconn.AddrPort(l.Addr())
	}
	s.arm(client, server, hole, dataconn.Client)

	if s.Advertise != nil {
		if a, err := s.Advertise(s.ctx); err == nil && a.Is4() == at.Addr().Is4() {
			at = netip.AddrPortFrom(a, at.Port())
		}
	}
	switch {
	case reply.Code == 227 && cmd.Verb == "PASV", reply.Code == 229 && cmd.Verb == "EPSV":
		reply = reply.WithPassive(at) // the server's own words
	case cmd.Verb == "PASV":
		reply = wire.NewPassive(227, at)
	default:
		reply = wire.NewPassive(229, at)
	}
	return s.say(reply)
}

// allExtended performs EPSV ALL. A server that will be asked otherwise is not told.
func (s *Session) allExtended(cmd wire.Command) error {
	reply := wire.NewReply(200, "EPSV ALL is in force")
	if s.Faithful || s.ServerData != Active && wire.FamilyOf(s.clientAddr()) == wire.FamilyOf(s.serverAddr()) && !s.noEPSV {
		var err error
		if reply, err = s.exchange(cmd); err != nil {
			return err
		}
	}
	s.epsvAll = s.epsvAll || reply.Positive()
	return s.pass(reply)
}

// active performs PORT and EPRT: the client is to be called.
func (s *Session) active(cmd wire.Command) error {
	if s.epsvAll {
		return refusal(500, "EPSV ALL is in force") // RFC 2428 §4
	}
	var to netip.AddrPort
	var err error
	if cmd.Verb == "PORT" {
		to, err = wire.ParseHostPort(cmd.Arg)
	} else {
		to, err = wire.ParseExtended(cmd.Arg)
	}
	own := s.clientAddr()
	switch {
	case errors.Is(err, wire.ErrFamily), err == nil && cmd.Verb == "EPRT" && wire.FamilyOf(to.Addr()) != wire.FamilyOf(own):
		return otherFamily(wire.FamilyOf(own))
	case err != nil:
		return refusal(501, "Syntax error in the address")
	case to.Addr() != own:
		// The bounce attack (RFC 2577 §2, CVE-2001-0405): the client would have us call somebody else.
		return &Refusal{Code: 501, Text: "The address must be your own", Rule: "bounce"}
	case to.Port() < minDataPort:
		return &Refusal{Code: 504, Text: "The port must be above 1023", Rule: "bounce"}
	case !s.loggedIn:
		return s.beforeLogin(cmd)
	}
	s.disarm()

	var server dataconn.Leg
	var reply wire.Reply
	if hole := s.pinhole(dataconn.Server, to); hole != nil {
		// Some servers (pyftpdlib) call before they answer, and it must be seen to.
		s.arm(dataconn.Leg{Address: to}, dataconn.Leg{Peer: s.serverAddr()}, hole, dataconn.Server)
		if reply, err = s.tellActive(cmd, hole.At()); err != nil {
			return err
		}
		if !reply.Positive() {
			s.disarm()
		}
		return s.pass(reply)
	}
	if s.ServerData == Passive {
		server, reply, err = s.askPassive(counterpart(cmd))
		if reply.Positive() {
			reply = wire.NewReply(200, cmd.Verb+" command successful")
		}
	} else {
		server, reply, err = s.askActive(cmd, to.Port())
	}
	if err != nil {
		return err
	}
	if reply.Positive() {
		s.arm(dataconn.Leg{Address: to}, server, nil, dataconn.Server)
	}
	return s.pass(reply)
}

// pinhole has the kernel carry the next transfer: the peer of a side is to connect to an address on the other. Nil: it is for
// us to carry, since we must see it, since the two sides speak of it differently, or since it can't be had.
func (s *Session) pinhole(caller dataconn.Side, to netip.AddrPort) dataconn.Pinhole {
	passer, ok := s.Network.(dataconn.Passer)
	switch {
	case !ok, s.Policy != nil && s.Policy.Watches(), s.private != [2]bool{}, s.ServerData != Same,
		wire.FamilyOf(s.clientAddr()) != wire.FamilyOf(s.serverAddr()):
		return nil
	}
	hole, err := passer.Pinhole(s.ctx, caller, to)
	if err != nil {
		return nil // the Network says why, to whom it concerns
	}
	return hole
}

// askPassive asks the server to listen, with the client's verb where it will do, and returns the leg that dials it. A
// reply that is not positive comes without one.
func (s *Session) askPassive(cmd wire.Command) (dataconn.Leg, wire.Reply, error) {
	v6 := wire.FamilyOf(s.serverAddr()) == wire.IPv6
	converted := s.ServerData == Passive || !s.Faithful
	switch {
	case converted && v6 && cmd.Verb != "EPSV":
		cmd = wire.NewCommand("EPSV", "")
	case converted && !v6 && cmd.Verb == "EPSV" && s.noEPSV:
		cmd = wire.NewCommand("PASV", "")
	}
	reply, err := s.exchange(cmd)
	if err != nil {
		return dataconn.Leg{}, reply, err
	}
	at, lost := reply.Passive()
	if cmd.Verb == "EPSV" && !v6 && converted && (lacking(reply) || reply.Positive() && lost != nil) {
		s.noEPSV = true
		return s.askPassive(cmd)
	}
	if !reply.Positive() {
		return dataconn.Leg{}, reply, nil
	}
	want := 227
	if cmd.Verb == "EPSV" {
		want = 229
	}
	if lost != nil || reply.Code != want {
		return dataconn.Leg{}, reply, &Refusal{Code: 425, Text: "The server's answer names no data port", Err: lost}
	}
	if at.Port() < minDataPort {
		return dataconn.Leg{}, reply, &Refusal{Code: 425, Text: "The server's data port is below 1024", Rule: "bounce"}
	}
	// The address a server names is not believed (CVE-2020-8284): it is the control connection's.
	return dataconn.Leg{Address: netip.AddrPortFrom(s.serverAddr(), at.Port())}, reply, nil
}

// askActive listens for the server and asks it to call, with the client's verb where it will do. A reply that is not
// positive comes without a leg. avoid is a port not to listen on.
func (s *Session) askActive(cmd wire.Command, avoid uint16) (dataconn.Leg, wire.Reply, error) {
	l, err := s.Network.Listen(s.ctx, dataconn.Server, avoid)
	if err != nil {
		return dataconn.Leg{}, wire.Reply{}, noListener(err)
	}
	reply, err := s.tellActive(cmd, dataconn.AddrPort(l.Addr()))
	if err != nil || !reply.Positive() {
		l.Close()
		return dataconn.Leg{}, reply, err
	}
	return dataconn.Leg{Listener: l, Peer: s.serverAddr()}, reply, nil
}

// tellActive asks the server to call an address.
func (s *Session) tellActive(cmd wire.Command, at netip.AddrPort) (wire.Reply, error) {
	v6 := at.Addr().Is6()
	if cmd.Verb == "PORT" && v6 {
		cmd = wire.NewCommand("EPRT", "")
	}
	converted := s.ServerData == Active || !s.Faithful
	reply, err := s.exchangePort(cmd, at, converted && !v6 && s.noEPRT)
	if err == nil && cmd.Verb == "EPRT" && !v6 && converted && !s.noEPRT && lacking(reply) {
		s.noEPRT = true
		reply, err = s.exchangePort(cmd, at, true)
	}
	return reply, err
}

// exchangePort says EPRT or PORT with our address.
func (s *Session) exchangePort(cmd wire.Command, at netip.AddrPort, byPort bool) (wire.Reply, error) {
	if byPort && cmd.Verb != "PORT" {
		cmd = wire.NewCommand("PORT", "")
	}
	if cmd.Verb == "PORT" {
		return s.exchange(cmd.WithArg(wire.FormatHostPort(at)))
	}
	return s.exchange(cmd.WithArg(wire.FormatExtended(at)))
}

// counterpart is the verb that asks the server for the other mode, as old or as new as the client's.
func counterpart(cmd wire.Command) wire.Command {
	verb := map[string]string{"PASV": "PORT", "PORT": "PASV", "EPSV": "EPRT", "EPRT": "EPSV"}[cmd.Verb]
	return wire.NewCommand(verb, "")
}

// lacking reports whether a server says that it has no such command, or not for its own family.
func lacking(r wire.Reply) bool {
	switch r.Code {
	case 500, 501, 502, 504, 522:
		return true
	}
	return false
}

// arm makes the transfer that the next data verb will spend.
func (s *Session) arm(client, server dataconn.Leg, hole dataconn.Pinhole, caller dataconn.Side) {
	s.armed = dataconn.Arm(s.ctx, dataconn.Options{
		Network: s.Network, Client: client, Server: server, Pinhole: hole, Caller: caller,
		Setup: s.Timeouts.DataSetup, Idle: s.Timeouts.DataIdle, Linger: linger,
		Stranger: s.Stranger,
	})
}

// otherFamily is the answer to a data set-up in a family that the client's control connection is not of; the list is
// mandatory (RFC 2428 §2).
func otherFamily(own wire.Family) *Refusal {
	return refusal(522, fmt.Sprintf("Network protocol not supported, use (%d)", own))
}

func noListener(err error) error {
	var r *Refusal
	if errors.As(err, &r) {
		return r
	}
	return &Refusal{Code: 425, Text: "Cannot open a data connection", Err: err}
}

func closeListener(l net.Listener) {
	if l != nil {
		l.Close()
	}
}
