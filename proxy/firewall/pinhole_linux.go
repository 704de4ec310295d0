package firewall

import (
	"encoding/binary"
	"errors"
	"fmt"
	"log/slog"
	"net/netip"
	"sync"
	"time"

	"golang.org/x/sys/unix"
)

// Pinholes makes pinholes: each lets one connection past us, which the kernel's connection tracking then takes for a part of
// our control connection (ct state related), so that a firewall that lets in what is related needs no other rule. Its methods
// are safe for concurrent use.
type Pinholes struct {
	mark, cut uint32
	requests  *requests
	log       *logSocket
	raw       map[byte]int // sockets by family, to make ends speak; none without CAP_NET_RAW

	nat *translations // nil: nothing can be translated

	mu    sync.Mutex
	holes map[hole]*Pinhole
}

// hole is what tells what comes through one from what comes through another.
type hole struct {
	from netip.Addr
	to   netip.AddrPort
}

// linger is how long a connection may take, after its pinhole was closed, to end in both directions. Then it is cut.
const linger = 5 * time.Second

// lifetime is how long a pinhole stays if nobody takes it away, since we were killed, and its translation, which lets nothing in by itself.
const lifetime = 10 * time.Minute

// NewPinholes takes up the work that the rules of a plan with Pinholes leave to us. It fails if they are not in force, or
// somebody has the plan's LogGroup. What a run that was killed has left is taken away. log hears what becomes of the
// packets' log.
func NewPinholes(p Plan, log *slog.Logger) (*Pinholes, error) {
	// In our own plan there may be listeners' rules: those are not looked for here.
	missing, err := Missing(Plan{Mark: p.Mark, DivertMark: p.DivertMark, RouteTable: p.RouteTable, Pinholes: p.Pinholes, PinholeNAT: p.PinholeNAT, LogGroup: p.LogGroup})
	if err != nil {
		return nil, err
	}
	if len(missing) > 0 {
		return nil, errors.New(missing[0].String())
	}
	s := &Pinholes{mark: p.Mark, cut: p.DivertMark, holes: map[hole]*Pinhole{}, raw: map[byte]int{}}
	if s.requests, err = newRequests(unix.NETLINK_NETFILTER); err != nil {
		return nil, fmt.Errorf("firewall: conntrack socket: %w", err)
	}
	if s.log, err = newLogSocket(p.LogGroup); err != nil {
		s.requests.close()
		if errors.Is(err, unix.EBUSY) || errors.Is(err, unix.EPERM) {
			return nil, fmt.Errorf("firewall: log group %d: %w (another program has it, or another ftpalg: choose another log_group)", p.LogGroup, err)
		}
		return nil, fmt.Errorf("firewall: log group %d: %w", p.LogGroup, err)
	}
	if p.PinholeNAT {
		if s.nat, err = newTranslations(p); err != nil {
			s.requests.close()
			s.log.close()
			return nil, err
		}
	}
	for family, af := range map[byte]int{byte(ipv4): unix.AF_INET, byte(ipv6): unix.AF_INET6} {
		if fd, err := rawSocket(af, s.mark); err == nil {
			s.raw[family] = fd
		}
	}
	if err := s.sweep(); err != nil {
		log.Warn("cannot take away the pinholes that an earlier run may have left", "error", err)
	}
	go func() {
		if err := s.log.read(s.seen); !s.log.closed.Load() {
			log.Error("the packets' log broke; transfers that the kernel carries end unseen", "error", err)
		}
	}()
	return s, nil
}

// Close gives up the log. Pinholes that are open stay so until they are used, or the kernel forgets them.
func (s *Pinholes) Close() {
	s.log.close()
	s.requests.close()
	if s.nat != nil {
		s.nat.close()
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, fd := range s.raw {
		unix.Close(fd)
	}
	clear(s.raw)
}

// Pinhole is one, open or used. Its methods are for one goroutine, but Count.
type Pinhole struct {
	all    *Pinholes
	Hole   Hole
	opened time.Time

	changed chan struct{}

	mu      sync.Mutex
	passage Passage
	tuple   tuple     // of the connection; zero: there is none yet
	first   [2]uint32 // by Way: the sequence number of the SYN
	begun   [2]bool   // by Way: it is known
	cut     bool      // the connection is to be cut, as soon as there is one
	closed  bool      // nobody watches it any more
	linger  *time.Timer
}

// Open makes a pinhole. It must be closed.
func (s *Pinholes) Open(h Hole) (*Pinhole, error) {
	h.From, h.As = h.From.Unmap(), h.As.Unmap()
	p := &Pinhole{all: s, Hole: h, opened: time.Now(), changed: make(chan struct{}, 1)}
	if h.translated() && s.nat == nil {
		return nil, fmt.Errorf("%w: it would have to translate addresses, and had no rules for that when ftpalg was started: ftpalg rules --apply, and restart", ErrNoPinhole)
	}
	key := hole{h.From, h.target()}
	s.mu.Lock()
	if _, taken := s.holes[key]; taken {
		s.mu.Unlock()
		return nil, fmt.Errorf("%w: there is one from %v to %v", ErrNoPinhole, h.From, key.to)
	}
	s.holes[key] = p
	s.mu.Unlock()
	err := s.expect(h)
	if err == nil && h.translated() {
		if err = s.nat.add(h); err != nil {
			s.forget(h)
		}
	}
	if err != nil {
		s.drop(p)
		return nil, err
	}
	return p, nil
}

// Renew makes a pinhole that has not been used last as long as a new one.
func (p *Pinhole) Renew() error {
	if time.Since(p.opened) < time.Minute {
		return nil
	}
	p.opened = time.Now()
	if err := p.all.forget(p.Hole); err == unix.ENOENT {
		p.mu.Lock()
		used := p.tuple != tuple{}
		p.mu.Unlock()
		if used {
			return nil
		}
	}
	if err := p.all.expect(p.Hole); err != nil {
		return err
	}
	if p.Hole.translated() {
		p.all.nat.remove(p.Hole)
		return p.all.nat.add(p.Hole)
	}
	return nil
}

// Suspend takes an unused pinhole back until Renew.
func (p *Pinhole) Suspend() {
	p.all.forget(p.Hole)
	p.opened = time.Time{}
}

// Unused reports whether the kernel still has the pinhole: nothing has come to it. What has come, and got through unseen since the rules
// were gone for a moment or the log was full, is looked for, and in Passage from then on.
func (p *Pinhole) Unused() (bool, error) {
	m := newMessage(subsysExpectation, messageGet, 0, p.Hole.tuple().family(), 0)
	m.tuple(ctaExpectTuple, p.Hole.tuple())
	err := p.all.requests.do(m, nil)
	if err == unix.ENOENT {
		return false, p.find()
	}
	return err == nil, err
}

// find looks for a connection that we have not been told of. Only one that lives will do, since an earlier one that had the same
// addresses may not be forgotten yet. Where its numbers begin stays unknown, so its end and its bytes are in Count alone.
func (p *Pinhole) find() error {
	want := p.Hole.tuple()
	m := newMessage(subsysConntrack, messageGet, unix.NLM_F_DUMP, want.family(), 0)
	m.uint32(ctaMark, p.all.mark)
	m.uint32(ctaMarkMask, ^uint32(0))
	var found tuple
	err := p.all.requests.do(m, func(b []byte) {
		var t tuple
		var state uint8
		fields(b, func(kind uint16, value []byte) {
			switch kind {
			case ctaTupleOrig:
				t = parseTuple(value)
			case ctaProtoInfo:
				state = tcpState(value)
			}
		})
		if t.source.Addr() == want.source.Addr() && t.dest == want.dest && state == established {
			found = t
		}
	})
	if found == (tuple{}) {
		return err
	}
	p.mu.Lock()
	if p.tuple == (tuple{}) {
		p.tuple, p.passage.Connected = found, true
	}
	p.mu.Unlock()
	p.tell()
	return nil
}

// tell has Changed sent to.
func (p *Pinhole) tell() {
	select {
	case p.changed <- struct{}{}:
	default:
	}
}

// Changed is sent to whenever there is more to be had from Passage, which may be less often than it changes.
func (p *Pinhole) Changed() <-chan struct{} { return p.changed }

// Passage is what has been seen of the connection so far.
func (p *Pinhole) Passage() Passage {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.passage
}

// Count asks the kernel what it has counted. It fails with ErrUntracked if there is no connection.
func (p *Pinhole) Count() (Count, error) {
	p.mu.Lock()
	t := p.tuple
	p.mu.Unlock()
	if t == (tuple{}) {
		return Count{}, ErrUntracked
	}
	m := newMessage(subsysConntrack, messageGet, 0, t.family(), 0)
	m.tuple(ctaTupleOrig, t)
	var c Count
	err := p.all.requests.do(m, func(b []byte) {
		fields(b, func(kind uint16, value []byte) {
			switch kind {
			case ctaCountersOrig, ctaCountersReply:
				way := There
				if kind == ctaCountersReply {
					way = Back
				}
				attrs(value, func(kind uint16, value []byte) {
					if len(value) != 8 {
						return
					}
					switch n := int64(binary.BigEndian.Uint64(value)); kind {
					case ctaPackets:
						c.Packets[way] = n
					case ctaBytes:
						c.Bytes[way] = n
					}
				})
			case ctaProtoInfo:
				state := tcpState(value)
				c.Ending = state > established && state < listening
			}
		})
	})
	if err == unix.ENOENT {
		err = ErrUntracked
	}
	return c, err
}

// What the kernel calls states of TCP (TCP_CONNTRACK_*); those between are a connection's end.
const (
	established = 3
	listening   = 9
)

// tcpState reads a connection's state.
func tcpState(info []byte) (state uint8) {
	attrs(info, func(_ uint16, value []byte) {
		attrs(value, func(kind uint16, value []byte) {
			if kind == ctaTCPState && len(value) == 1 {
				state = value[0]
			}
		})
	})
	return state
}

// Close ends the watch over a connection that has ended, and takes back a pinhole that has not been used. What is left of
// the connection has five seconds to end. After Cut it does nothing.
func (p *Pinhole) Close() {
	p.mu.Lock()
	if p.closed {
		p.mu.Unlock()
		return
	}
	p.closed = true
	used, over := p.tuple != tuple{}, p.over()
	if used && !over {
		p.linger = time.AfterFunc(linger, p.Cut)
	}
	p.mu.Unlock()
	if p.Hole.translated() {
		p.all.nat.remove(p.Hole)
	}
	switch {
	case over:
		p.all.drop(p)
	case !used:
		if p.all.forget(p.Hole) == nil {
			p.all.drop(p)
			return
		}
		// Something has come, of which we shall hear.
		p.Cut()
	}
}

// over reports whether nothing more can come of the connection. It needs the lock.
func (p *Pinhole) over() bool {
	return p.passage.Reset || p.passage.Ended[There] && p.passage.Ended[Back]
}

// Cut ends the connection, or takes the pinhole back: no packet passes any more, and both ends are sent a reset with which
// neither takes what it has for whole. It closes the pinhole.
func (p *Pinhole) Cut() {
	p.mu.Lock()
	first := !p.cut
	closed := p.closed
	p.cut, p.closed = true, true
	t := p.tuple
	p.mu.Unlock()
	if first && !closed && p.Hole.translated() {
		p.all.nat.remove(p.Hole)
	}
	if t == (tuple{}) {
		if p.all.forget(p.Hole) == nil {
			p.all.drop(p)
			return
		}
		// It has been used just now: the cut comes with the news of it. If it does not come, there is nothing to cut.
		if first {
			time.AfterFunc(linger, func() { p.all.drop(p) })
		}
		return
	}
	p.end(t)
	p.all.drop(p)
}

// end lets no packet of the connection pass any more.
func (p *Pinhole) end(t tuple) {
	m := newMessage(subsysConntrack, messageNew, unix.NLM_F_ACK, t.family(), 0)
	m.tuple(ctaTupleOrig, t)
	m.uint32(ctaMark, p.all.cut)
	if p.all.requests.do(m, nil) != nil {
		return // there is none any more
	}
	// The rules answer every packet with a reset to its sender. One that only receives says nothing, so it is asked: a
	// segment of the past must be answered (RFC 9293 §3.10.7.4), and the answer has the numbers that make a reset believed.
	p.mu.Lock()
	first := p.first
	p.mu.Unlock()
	to, as := p.Hole.target(), netip.AddrPortFrom(t.source.Addr(), t.source.Port())
	if p.Hole.As.IsValid() {
		as = netip.AddrPortFrom(p.Hole.As, t.source.Port())
	}
	p.all.mu.Lock()
	defer p.all.mu.Unlock()
	fd, ok := p.all.raw[t.family()]
	if !ok {
		return
	}
	send := func(packet []byte, dest netip.AddrPort) {
		var a unix.Sockaddr = &unix.SockaddrInet4{Addr: dest.Addr().As4()}
		unix.Sendto(fd, packet, 0, a)
	}
	if t.family() == byte(ipv6) {
		send = func(packet []byte, dest netip.AddrPort) {
			unix.Sendto(fd, packet, 0, &unix.SockaddrInet6{Addr: dest.Addr().As16()})
		}
	}
	// In the kernel's eyes each comes from the other end, as that is before any translation.
	send(makeSegment(t.source, t.dest, first[There], first[Back]+1), t.dest)
	send(makeSegment(to, as, first[Back], first[There]+1), as)
}

// tuple is what a hole lets in, whatever the port it comes from.
func (h Hole) tuple() tuple { return tuple{netip.AddrPortFrom(h.From, 0), h.At} }

// expect tells the kernel of a connection to come.
func (s *Pinholes) expect(h Hole) error {
	t := h.tuple()
	ones := func(a netip.Addr) netip.Addr {
		b := a.AsSlice()
		for i := range b {
			b[i] = 0xff
		}
		a, _ = netip.AddrFromSlice(b)
		return a
	}(h.From)
	m := newMessage(subsysExpectation, messageNew, unix.NLM_F_ACK|unix.NLM_F_CREATE, t.family(), 0)
	m.tuple(ctaExpectMaster, tuple{h.Control[0], h.Control[1]})
	m.tuple(ctaExpectTuple, t)
	m.tuple(ctaExpectMask, tuple{netip.AddrPortFrom(ones, 0), netip.AddrPortFrom(ones, 0xffff)})
	m.uint32(ctaExpectTimeout, uint32(lifetime/time.Second)) // the helper's own counts, which is five minutes
	switch err := s.requests.do(m, nil); err {
	case nil:
		return nil
	case unix.EOPNOTSUPP:
		return fmt.Errorf("%w: the control connection was opened without the rules for it", ErrNoPinhole)
	case unix.ENOENT:
		return fmt.Errorf("%w: the control connection is not tracked", ErrNoPinhole)
	case unix.EMFILE:
		return fmt.Errorf("%w: there are too many (net.netfilter.nf_conntrack_expect_max)", ErrNoPinhole)
	default:
		return fmt.Errorf("%w: %w", ErrNoPinhole, err)
	}
}

// forget takes back what expect has told. ENOENT: it has been used, or has expired.
func (s *Pinholes) forget(h Hole) error {
	m := newMessage(subsysExpectation, messageDelete, unix.NLM_F_ACK, h.tuple().family(), 0)
	m.tuple(ctaExpectTuple, h.tuple())
	return s.requests.do(m, nil)
}

// drop forgets a pinhole of which no more is to be heard.
func (s *Pinholes) drop(p *Pinhole) {
	p.mu.Lock()
	if p.linger != nil {
		p.linger.Stop()
	}
	p.mu.Unlock()
	s.mu.Lock()
	defer s.mu.Unlock()
	if key := (hole{p.Hole.From, p.Hole.target()}); s.holes[key] == p {
		delete(s.holes, key)
	}
}

// seen takes a packet that the rules have logged, in chain forward: there both ends have their own addresses, whatever the
// other end is told.
func (s *Pinholes) seen(packet []byte) {
	seg, err := parseSegment(packet)
	if err != nil {
		return
	}
	way, caller, callee := There, seg.source, seg.dest
	s.mu.Lock()
	p := s.holes[hole{caller.Addr(), callee}]
	if p == nil {
		way, caller, callee = Back, callee, caller
		p = s.holes[hole{caller.Addr(), callee}]
	}
	s.mu.Unlock()
	if p != nil {
		p.take(caller, way, seg)
	}
}

// take learns from a packet of the connection.
func (p *Pinhole) take(caller netip.AddrPort, way Way, seg segment) {
	p.mu.Lock()
	if p.tuple == (tuple{}) && seg.flags&(tcpSYN|tcpACK) == tcpSYN {
		p.tuple = tuple{caller, p.Hole.At}
	}
	if p.tuple.source != caller {
		p.mu.Unlock()
		return // of the last that had these addresses
	}
	if seg.flags&tcpSYN != 0 {
		p.first[way], p.begun[way] = seg.seq, true
	}
	if seg.flags&tcpFIN != 0 && p.begun[way] && !p.passage.Ended[way] {
		p.passage.Ended[way], p.passage.Bytes[way] = true, int64(seg.seq+seg.payload-p.first[way]-1)
	}
	if seg.flags&tcpRST != 0 {
		// A host that has forgotten a connection, as one does with a full table of TIME_WAIT, answers what still comes with a reset. That
		// has the number that was acknowledged, and no ACK (RFC 9293 §3.5.2): beyond the host's own FIN, it says that the other end has it all.
		if end := p.first[way] + 1 + uint32(p.passage.Bytes[way]) + 1; seg.flags&tcpACK == 0 && p.passage.Ended[way] && seg.seq == end {
			p.passage.Ended[1-way] = true
		} else {
			p.passage.Reset = true
		}
	}
	p.passage.Connected = p.passage.Connected || p.begun[There] && p.begun[Back]
	cut, done := p.cut, p.closed && p.over()
	p.mu.Unlock()
	p.tell()
	if cut {
		p.Cut()
	} else if done {
		p.all.drop(p)
	}
}

// sweep takes away what a run that was killed has left: expectations whose control connection is over, and translations that
// belong to none. Another ftpalg that still lets transfers finish keeps its own.
func (s *Pinholes) sweep() error {
	expected, err := s.expected()
	if err != nil {
		return err
	}
	for h, master := range expected {
		m := newMessage(subsysConntrack, messageGet, 0, master.family(), 0)
		m.tuple(ctaTupleOrig, master)
		ours, over := false, true
		err := s.requests.do(m, func(b []byte) {
			fields(b, func(kind uint16, value []byte) {
				switch kind {
				case ctaMark:
					ours = len(value) == 4 && binary.BigEndian.Uint32(value) == s.mark
				case ctaProtoInfo:
					over = tcpState(value) != established
				}
			})
		})
		if err == nil && ours && over {
			s.forget(Hole{From: h.from, At: h.to})
			delete(expected, h)
		}
	}
	if s.nat == nil {
		return nil
	}
	return s.nat.sweep(expected)
}

// expected are the expectations that belong to a helper of our kind, with their control connections.
func (s *Pinholes) expected() (map[hole]tuple, error) {
	all := map[hole]tuple{}
	for _, f := range allFamilies() {
		m := newMessage(subsysExpectation, messageGet, unix.NLM_F_DUMP, byte(f), 0)
		err := s.requests.do(m, func(b []byte) {
			var expected, master tuple
			ours := false
			fields(b, func(kind uint16, value []byte) {
				switch kind {
				case ctaExpectTuple:
					expected = parseTuple(value)
				case ctaExpectMaster:
					master = parseTuple(value)
				case ctaExpectHelper:
					ours = string(value) == helperType+"\x00"
				}
			})
			if ours {
				all[hole{expected.source.Addr(), expected.dest}] = master
			}
		})
		if err != nil {
			return nil, err
		}
	}
	return all, nil
}
