package firewall

import (
	"encoding/binary"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"sync"
	"sync/atomic"

	"golang.org/x/sys/unix"
)

// Netlink as pinholes need it, twice for each transfer: requests that the kernel has answered by the time that they are
// sent. The libraries there are do not know all of them, and cost more than the kernel does.

// Subsystems and messages of nfnetlink, and attributes of ctnetlink and nflog (linux/netfilter/nfnetlink*.h).
const (
	subsysConntrack   = 1
	subsysExpectation = 2
	subsysLog         = 4

	messageNew    = 0
	messageGet    = 1
	messageDelete = 2

	sizeofNfgenmsg = 4

	ctaTupleOrig     = 1
	ctaProtoInfo     = 4
	ctaMark          = 8
	ctaCountersOrig  = 9
	ctaCountersReply = 10
	ctaMarkMask      = 21

	ctaExpectMaster  = 1
	ctaExpectTuple   = 2
	ctaExpectMask    = 3
	ctaExpectTimeout = 4
	ctaExpectHelper  = 6

	ctaTupleIP     = 1
	ctaTupleProto  = 2
	ctaIPv4Source  = 1
	ctaIPv6Source  = 3
	ctaProtoNumber = 1
	ctaSourcePort  = 2
	ctaDestPort    = 3
	ctaPackets     = 1
	ctaBytes       = 2
	ctaTCPState    = 1
)

// message is a netlink message while it is being made.
type message struct{ b []byte }

// newMessage begins a message of nfnetlink. flags are added to those that every request has.
func newMessage(subsys, kind int, flags uint16, family byte, resource uint16) *message {
	m := &message{make([]byte, unix.SizeofNlMsghdr, 256)}
	binary.NativeEndian.PutUint16(m.b[4:], uint16(subsys<<8|kind))
	binary.NativeEndian.PutUint16(m.b[6:], unix.NLM_F_REQUEST|flags)
	m.b = append(m.b, family, 0)
	m.b = binary.BigEndian.AppendUint16(m.b, resource)
	return m
}

// attr adds an attribute.
func (m *message) attr(kind uint16, value []byte) {
	m.b = binary.NativeEndian.AppendUint16(m.b, uint16(unix.SizeofNlAttr+len(value)))
	m.b = binary.NativeEndian.AppendUint16(m.b, kind)
	m.b = append(m.b, value...)
	for len(m.b)%4 != 0 {
		m.b = append(m.b, 0)
	}
}

func (m *message) uint8(kind uint16, v uint8) { m.attr(kind, []byte{v}) }

func (m *message) uint16(kind uint16, v uint16) { m.attr(kind, binary.BigEndian.AppendUint16(nil, v)) }

func (m *message) uint32(kind uint16, v uint32) { m.attr(kind, binary.BigEndian.AppendUint32(nil, v)) }

// nest adds an attribute made of those that add adds.
func (m *message) nest(kind uint16, add func()) {
	at := len(m.b)
	m.attr(kind|unix.NLA_F_NESTED, nil)
	add()
	binary.NativeEndian.PutUint16(m.b[at:], uint16(len(m.b)-at))
}

// tuple adds the addresses of a connection.
func (m *message) tuple(kind uint16, t tuple) {
	m.nest(kind, func() {
		m.nest(ctaTupleIP, func() {
			source := uint16(ctaIPv4Source)
			if t.source.Addr().Is6() {
				source = ctaIPv6Source
			}
			m.attr(source, t.source.Addr().AsSlice())
			m.attr(source+1, t.dest.Addr().AsSlice())
		})
		m.nest(ctaTupleProto, func() {
			m.uint8(ctaProtoNumber, protoTCP)
			m.uint16(ctaSourcePort, t.source.Port())
			m.uint16(ctaDestPort, t.dest.Port())
		})
	})
}

// tuple is a connection as its first packet has it.
type tuple struct{ source, dest netip.AddrPort }

// family is the number of a tuple's address family.
func (t tuple) family() byte {
	if t.source.Addr().Is4() {
		return byte(ipv4)
	}
	return byte(ipv6)
}

// fields calls do with each attribute of an nfnetlink message, after that protocol's header.
func fields(b []byte, do func(kind uint16, value []byte)) {
	if len(b) >= sizeofNfgenmsg {
		attrs(b[sizeofNfgenmsg:], do)
	}
}

// attrs calls do with each attribute, without its flags.
func attrs(b []byte, do func(kind uint16, value []byte)) {
	for len(b) >= unix.SizeofNlAttr {
		length := int(binary.NativeEndian.Uint16(b))
		if length < unix.SizeofNlAttr || length > len(b) {
			return
		}
		do(binary.NativeEndian.Uint16(b[2:])&^(unix.NLA_F_NESTED|unix.NLA_F_NET_BYTEORDER), b[unix.SizeofNlAttr:length])
		b = b[min((length+3)&^3, len(b)):]
	}
}

// parseTuple reads what message.tuple writes.
func parseTuple(b []byte) (t tuple) {
	var addrs [2]netip.Addr
	var ports [2]uint16
	attrs(b, func(kind uint16, value []byte) {
		attrs(value, func(part uint16, value []byte) {
			switch {
			case kind == ctaTupleIP && part >= ctaIPv4Source && part <= ctaIPv6Source+1:
				addrs[(part-1)%2], _ = netip.AddrFromSlice(value)
			case kind == ctaTupleProto && part >= ctaSourcePort && part <= ctaDestPort && len(value) == 2:
				ports[part-ctaSourcePort] = binary.BigEndian.Uint16(value)
			}
		})
	})
	return tuple{netip.AddrPortFrom(addrs[0], ports[0]), netip.AddrPortFrom(addrs[1], ports[1])}
}

// requests is a socket for requests to the kernel, one at a time.
type requests struct {
	mu  sync.Mutex
	fd  int
	seq uint32
	buf []byte
}

// newRequests opens a socket of a netlink protocol.
func newRequests(protocol int) (*requests, error) {
	fd, err := unix.Socket(unix.AF_NETLINK, unix.SOCK_RAW|unix.SOCK_CLOEXEC, protocol)
	if err != nil {
		return nil, err
	}
	// The answer is there before the request returns; this is for a kernel that has none.
	if err := unix.SetsockoptTimeval(fd, unix.SOL_SOCKET, unix.SO_RCVTIMEO, &unix.Timeval{Sec: 2}); err != nil {
		unix.Close(fd)
		return nil, err
	}
	return &requests{fd: fd, buf: make([]byte, 64<<10)}, nil
}

// close ends it. What is asked for afterwards fails.
func (r *requests) close() {
	r.mu.Lock()
	defer r.mu.Unlock()
	unix.Close(r.fd)
	r.fd = -1
}

// do sends a request and calls each with what the kernel answers, less headers; each may be nil. The values are its
// only while it runs. The error is the kernel's.
func (r *requests) do(m *message, each func(b []byte)) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.seq++
	binary.NativeEndian.PutUint32(m.b, uint32(len(m.b)))
	binary.NativeEndian.PutUint32(m.b[8:], r.seq)
	if err := unix.Sendto(r.fd, m.b, 0, &unix.SockaddrNetlink{Family: unix.AF_NETLINK}); err != nil {
		return err
	}
	dump := binary.NativeEndian.Uint16(m.b[6:])&unix.NLM_F_DUMP == unix.NLM_F_DUMP
	for {
		n, _, err := unix.Recvfrom(r.fd, r.buf, 0)
		if err == unix.EINTR {
			continue
		}
		if err != nil {
			return err
		}
		for b := r.buf[:n]; len(b) >= unix.SizeofNlMsghdr; {
			length := int(binary.NativeEndian.Uint32(b))
			if length < unix.SizeofNlMsghdr || length > len(b) {
				return errors.New("netlink: a message longer than what there is")
			}
			kind, seq, body := binary.NativeEndian.Uint16(b[4:]), binary.NativeEndian.Uint32(b[8:]), b[unix.SizeofNlMsghdr:length]
			b = b[min((length+3)&^3, len(b)):]
			switch {
			case seq != r.seq: // of a request that timed out
			case kind == unix.NLMSG_ERROR && len(body) >= 4:
				if code := int32(binary.NativeEndian.Uint32(body)); code != 0 {
					return unix.Errno(-code)
				}
				return nil
			case kind == unix.NLMSG_DONE:
				return nil
			default:
				if each != nil {
					each(body)
				}
				if !dump {
					return nil
				}
			}
		}
	}
}

// logSocket hears what rules log to a group.
type logSocket struct {
	closed atomic.Bool
	file   *os.File
	buf    []byte
}

// newLogSocket binds a group, of which each packet comes at once.
func newLogSocket(group uint16) (*logSocket, error) {
	fd, err := unix.Socket(unix.AF_NETLINK, unix.SOCK_RAW|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, unix.NETLINK_NETFILTER)
	if err != nil {
		return nil, err
	}
	s := &logSocket{file: os.NewFile(uintptr(fd), "nflog"), buf: make([]byte, 256<<10)}
	const (
		config = 1 // NFULNL_MSG_CONFIG

		command, mode, threshold = 1, 2, 5 // NFULA_CFG_*
		bind                     = 1       // NFULNL_CFG_CMD_BIND
		copyPacket               = 2       // NFULNL_COPY_PACKET
	)
	settings := []func(m *message){
		func(m *message) { m.uint8(command, bind) },
		func(m *message) { m.attr(mode, []byte{0, 0, 0, logLength, copyPacket, 0}) },
		func(m *message) { m.uint32(threshold, 1) },
	}
	ask := &requests{fd: fd, buf: s.buf}
	// It answers at once, though it does not block.
	for _, set := range settings {
		m := newMessage(subsysLog, config, unix.NLM_F_ACK, unix.AF_UNSPEC, group)
		set(m)
		if err := ask.do(m, nil); err != nil {
			s.file.Close()
			return nil, err
		}
	}
	// A burst of ends must not be lost: 4 MiB are some five thousand.
	if err := unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_RCVBUFFORCE, 4<<20); err != nil {
		s.file.Close()
		return nil, err
	}
	return s, nil
}

// read calls each with every packet that comes, until the socket is closed. Lost are those for which there was no room:
// whoever waits for one must not do so for ever.
func (s *logSocket) read(each func(packet []byte)) error {
	const payload = 9 // NFULA_PAYLOAD
	raw, err := s.file.SyscallConn()
	if err != nil {
		return err
	}
	for {
		var n int
		var failed error
		err := raw.Read(func(fd uintptr) bool {
			n, failed = unix.Read(int(fd), s.buf)
			return failed != unix.EAGAIN
		})
		if err != nil {
			return err
		}
		if failed != nil {
			if failed == unix.ENOBUFS || failed == unix.EINTR {
				continue
			}
			return failed
		}
		for b := s.buf[:n]; len(b) >= unix.SizeofNlMsghdr+4; {
			length := int(binary.NativeEndian.Uint32(b))
			if length < unix.SizeofNlMsghdr+4 || length > len(b) {
				break
			}
			if binary.NativeEndian.Uint16(b[4:]) == subsysLog<<8 { // NFULNL_MSG_PACKET
				fields(b[unix.SizeofNlMsghdr:length], func(kind uint16, value []byte) {
					if kind == payload {
						each(value)
					}
				})
			}
			b = b[min((length+3)&^3, len(b)):]
		}
	}
}

func (s *logSocket) close() {
	s.closed.Store(true) // before read ends by it, with an error of package os that has no name
	s.file.Close()
}

// segment is what of a TCP packet pinholes are about.
type segment struct {
	tuple
	seq     uint32
	payload uint32 // bytes
	flags   uint8
}

// TCP's flags (RFC 9293 §3.1).
const (
	tcpFIN = 1
	tcpSYN = 2
	tcpRST = 4
	tcpACK = 16
)

var errPacket = errors.New("not a whole TCP header")

// parseSegment reads a packet from its IP header on. What follows the TCP header need not be there.
func parseSegment(b []byte) (segment, error) {
	if len(b) == 0 {
		return segment{}, errPacket
	}
	var header, total int
	var source, dest netip.Addr
	switch b[0] >> 4 {
	case 4:
		if len(b) < 20 {
			return segment{}, errPacket
		}
		header, total = int(b[0]&15)*4, int(binary.BigEndian.Uint16(b[2:]))
		source, dest = netip.AddrFrom4([4]byte(b[12:])), netip.AddrFrom4([4]byte(b[16:]))
	case 6:
		if len(b) < 40 || b[6] != protoTCP {
			return segment{}, errPacket
		}
		header, total = 40, 40+int(binary.BigEndian.Uint16(b[4:]))
		source, dest = netip.AddrFrom16([16]byte(b[8:])), netip.AddrFrom16([16]byte(b[24:]))
	}
	if header < 20 || len(b) < header+20 {
		return segment{}, errPacket
	}
	t := b[header:]
	s := segment{seq: binary.BigEndian.Uint32(t[4:]), flags: t[13]}
	s.source = netip.AddrPortFrom(source, binary.BigEndian.Uint16(t))
	s.dest = netip.AddrPortFrom(dest, binary.BigEndian.Uint16(t[2:]))
	if payload := total - header - int(t[12]>>4)*4; payload > 0 {
		s.payload = uint32(payload)
	}
	return s, nil
}

// makeSegment is a packet, from its IP header on, that only says something about a connection.
func makeSegment(from, to netip.AddrPort, seq, ack uint32) []byte {
	t := make([]byte, 20)
	binary.BigEndian.PutUint16(t, from.Port())
	binary.BigEndian.PutUint16(t[2:], to.Port())
	binary.BigEndian.PutUint32(t[4:], seq)
	binary.BigEndian.PutUint32(t[8:], ack)
	t[12], t[13] = 5<<4, tcpACK
	pseudo := append(append(from.Addr().AsSlice(), to.Addr().AsSlice()...), 0, 0, 0, 20, 0, 0, 0, protoTCP)
	binary.BigEndian.PutUint16(t[16:], checksum(append(pseudo, t...)))
	if from.Addr().Is6() {
		ip := append([]byte{6 << 4, 0, 0, 0, 0, 20, protoTCP, 64}, from.Addr().AsSlice()...)
		return append(append(ip, to.Addr().AsSlice()...), t...)
	}
	ip := append([]byte{4<<4 | 5, 0, 0, 40, 0, 0, 0, 0, 64, protoTCP, 0, 0}, from.Addr().AsSlice()...)
	ip = append(ip, to.Addr().AsSlice()...)
	binary.BigEndian.PutUint16(ip[10:], checksum(ip))
	return append(ip, t...)
}

// checksum is the Internet's (RFC 1071), of an even number of bytes.
func checksum(b []byte) uint16 {
	var sum uint32
	for ; len(b) >= 2; b = b[2:] {
		sum += uint32(binary.BigEndian.Uint16(b))
	}
	for sum > 0xffff {
		sum = sum>>16 + sum&0xffff
	}
	return ^uint16(sum)
}

// rawSocket sends packets that are made whole by us.
func rawSocket(family int, mark uint32) (int, error) {
	fd, err := unix.Socket(family, unix.SOCK_RAW|unix.SOCK_CLOEXEC, unix.IPPROTO_RAW)
	if err != nil {
		return -1, fmt.Errorf("raw socket: %w", err)
	}
	if err := unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_MARK, int(mark)); err != nil {
		unix.Close(fd)
		return -1, fmt.Errorf("raw socket: %w", err)
	}
	return fd, nil
}
