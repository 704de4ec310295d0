//go:build linux

package main

import (
	"bufio"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"os"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"
)

// The origin is the FTP server: it sends from memory what has the length that its name says, discards what it receives, and
// lets everybody in. It is a role of the program, in the server's namespace.

// block is the size in bytes of the ends' reads and writes.
const block = 256 << 10

// zeros is what all files are made of. The cipher does not care, and nothing on the way compresses.
var zeros = make([]byte, block)

// buffers are for reading.
var buffers = sync.Pool{New: func() any { b := make([]byte, block); return &b }}

// farewell bounds how long an end waits for the other to close.
const farewell = 10 * time.Second

// Where the origin finds its certificate and key.
const (
	certVariable = "FTPALG_BENCH_CERT"
	keyVariable  = "FTPALG_BENCH_KEY"
)

type origin struct{ tls *tls.Config }

func serveOrigin() error {
	certificate, err := tls.LoadX509KeyPair(os.Getenv(certVariable), os.Getenv(keyVariable))
	if err != nil {
		return err
	}
	o := &origin{tls: &tls.Config{Certificates: []tls.Certificate{certificate}, MinVersion: tls.VersionTLS13, DynamicRecordSizingDisabled: true}}
	control, err := net.Listen("tcp4", fmt.Sprintf(":%d", ftpPort))
	if err != nil {
		return err
	}
	relay, err := net.Listen("tcp4", fmt.Sprintf(":%d", relayPort))
	if err != nil {
		return err
	}
	fmt.Println("listening")
	failed := make(chan error)
	go accept(control, o.session, failed)
	go accept(relay, o.relayed, failed)
	return <-failed
}

func accept(l net.Listener, serve func(*net.TCPConn), failed chan<- error) {
	for {
		c, err := l.Accept()
		if err != nil {
			failed <- err
			return
		}
		go serve(c.(*net.TCPConn))
	}
}

// relayed serves one file over bare TLS, as a data connection that says itself what it is for: RETR or STOR, and the length.
func (o *origin) relayed(c *net.TCPConn) {
	defer c.Close()
	s := tls.Server(c, o.tls)
	// Byte by byte, since what follows is the file.
	var line []byte
	for b := make([]byte, 1); ; {
		if _, err := io.ReadFull(s, b); err != nil || len(line) > 64 {
			return
		}
		if b[0] == '\n' {
			break
		}
		line = append(line, b[0])
	}
	verb, size, _ := strings.Cut(string(line), " ")
	n, err := strconv.ParseInt(size, 10, 64)
	switch {
	case err != nil:
	case verb == "RETR":
		if send(s, n) == nil {
			part(s, c)
		}
	case verb == "STOR":
		if received, err := receive(io.LimitReader(s, n)); err == nil && received == n {
			// The client has no control connection on which to hear that all has arrived.
			fmt.Fprintln(s, "226 done")
			part(s, c)
		}
	}
}

// An originSession is a conversation.
type originSession struct {
	*origin
	control net.Conn // secured after AUTH
	r       *bufio.Reader
	local   netip.Addr // the origin's
	peer    netip.Addr
	dialed  netip.AddrPort // by PORT and EPRT
	data    *net.TCPListener
	prot    bool
}

func (o *origin) session(c *net.TCPConn) {
	s := &originSession{origin: o, control: c, r: bufio.NewReaderSize(c, 256),
		local: c.LocalAddr().(*net.TCPAddr).AddrPort().Addr().Unmap(),
		peer:  c.RemoteAddr().(*net.TCPAddr).AddrPort().Addr().Unmap()}
	defer func() {
		s.control.Close()
		s.disarm()
	}()
	reply := "220 bench"
	for reply != "" {
		if _, err := io.WriteString(s.control, reply+"\r\n"); err != nil || strings.HasPrefix(reply, "221") {
			return
		}
		if strings.HasPrefix(reply, "234") {
			s.control = tls.Server(c, o.tls)
			s.r.Reset(s.control)
		}
		line, err := s.r.ReadString('\n')
		if err != nil {
			return
		}
		verb, argument, _ := strings.Cut(strings.TrimRight(line, "\r\n"), " ")
		reply = s.act(strings.ToUpper(verb), argument)
	}
}

// act does what a command says and returns the reply.
func (s *originSession) act(verb, argument string) string {
	switch verb {
	case "USER":
		return "331 password, please"
	case "PASS":
		return "230 in"
	case "NOOP", "TYPE", "MODE", "STRU", "OPTS", "CLNT", "ALLO":
		return "200 fine"
	case "SYST":
		return "215 UNIX Type: L8"
	case "FEAT":
		return "211-Features:\r\n AUTH TLS\r\n PBSZ\r\n PROT\r\n EPRT\r\n EPSV\r\n TVFS\r\n UTF8\r\n211 End"
	case "PWD":
		return `257 "/" is here`
	case "CWD":
		return "250 there"
	case "SIZE":
		return "213 " + argument
	case "AUTH":
		return "234 go on"
	case "PBSZ":
		return "200 PBSZ=0"
	case "PROT":
		s.prot = argument == "P"
		return "200 fine"
	case "PASV", "EPSV":
		s.disarm()
		var err error
		if s.data, err = net.ListenTCP("tcp4", &net.TCPAddr{IP: s.local.AsSlice()}); err != nil {
			return "425 " + err.Error()
		}
		port := s.data.Addr().(*net.TCPAddr).Port
		if verb == "EPSV" {
			return fmt.Sprintf("229 here (|||%d|)", port)
		}
		return fmt.Sprintf("227 here (%s,%d,%d)", strings.ReplaceAll(s.local.String(), ".", ","), port>>8, port&255)
	case "PORT", "EPRT":
		s.disarm()
		var err error
		if s.dialed, err = parseTarget(verb, argument); err != nil {
			return "501 " + err.Error()
		}
		return "200 fine"
	case "RETR":
		return s.transfer(func(c net.Conn, tcp *net.TCPConn) error {
			n, err := strconv.ParseInt(argument, 10, 64)
			if err != nil {
				return err
			}
			if err := send(c, n); err != nil {
				return err
			}
			return part(c, tcp)
		})
	case "STOR":
		return s.transfer(func(c net.Conn, tcp *net.TCPConn) error {
			_, err := receive(c)
			// The file is whole, whatever becomes of our last words: mod_proxy resets the connection without hearing them.
			part(c, tcp)
			return err
		})
	case "QUIT":
		return "221 bye"
	}
	return "502 not here"
}

func (s *originSession) disarm() {
	if s.data != nil {
		s.data.Close()
	}
	s.data, s.dialed = nil, netip.AddrPort{}
}

// transfer makes the data connection, moves the file and returns the last reply.
func (s *originSession) transfer(move func(net.Conn, *net.TCPConn) error) string {
	defer s.disarm()
	if s.data == nil && !s.dialed.IsValid() {
		return "425 PASV or PORT first"
	}
	if _, err := io.WriteString(s.control, "150 here it goes\r\n"); err != nil {
		return ""
	}
	var tcp *net.TCPConn
	if s.data != nil {
		s.data.SetDeadline(time.Now().Add(farewell))
		c, err := s.data.AcceptTCP()
		if err != nil {
			return "425 " + err.Error()
		}
		tcp = c
	} else {
		d := net.Dialer{Timeout: farewell, LocalAddr: &net.TCPAddr{IP: s.local.AsSlice()}}
		c, err := d.Dial("tcp4", s.dialed.String())
		if err != nil {
			return "425 " + err.Error()
		}
		tcp = c.(*net.TCPConn)
	}
	defer tcp.Close()
	var data net.Conn = tcp
	if s.prot {
		data = tls.Server(tcp, s.dataTLS())
	}
	if err := move(data, tcp); err != nil {
		return "426 " + err.Error()
	}
	return "226 done"
}

// send writes a file.
func send(c net.Conn, size int64) error {
	for size > 0 {
		n, err := c.Write(zeros[:min(size, block)])
		if err != nil {
			return err
		}
		size -= int64(n)
	}
	return nil
}

// receive reads a file to its end.
func receive(c io.Reader) (size int64, err error) {
	b := buffers.Get().(*[]byte)
	defer buffers.Put(b)
	for {
		n, err := c.Read(*b)
		size += int64(n)
		if errors.Is(err, io.EOF) {
			return size, nil
		}
		if err != nil {
			return size, err
		}
	}
}

// dataTLS is for a data connection: the control connection's session may be resumed, and no other ticket is sent. That would
// lie in the socket of a client that only writes, which resets the connection when it closes it, and loses the end of the
// file: mod_proxy does.
func (o *origin) dataTLS() *tls.Config {
	return &tls.Config{GetConfigForClient: func(h *tls.ClientHelloInfo) (*tls.Config, error) {
		const preSharedKey = 41 // RFC 8446, section 4.2
		config := o.tls.Clone()
		config.SessionTicketsDisabled = !slices.Contains(h.Extensions, preSharedKey)
		config.UnwrapSession = func(identity []byte, cs tls.ConnectionState) (*tls.SessionState, error) {
			config.SessionTicketsDisabled = true // from here on it is about new ones alone
			return o.tls.DecryptTicket(identity, cs)
		}
		return config, nil
	}}
}

// part closes a connection in order. TLS says its last, TCP too, and the peer's last words are read, since a reset in answer
// to them would take from the peer what it has not read yet. Without TLS there are no such words.
func part(c net.Conn, tcp *net.TCPConn) error {
	s, ok := c.(*tls.Conn)
	if !ok {
		return tcp.Close()
	}
	if err := s.CloseWrite(); err != nil {
		return err
	}
	tcp.SetReadDeadline(time.Now().Add(farewell))
	err := tcp.CloseWrite()
	if err == nil {
		_, err = io.Copy(io.Discard, tcp)
	}
	return errors.Join(err, tcp.Close())
}

// parseTarget reads the argument of PORT or EPRT.
func parseTarget(verb, argument string) (netip.AddrPort, error) {
	if verb == "EPRT" {
		f := strings.Split(argument, "|")
		if len(f) != 5 {
			return netip.AddrPort{}, errors.New("not |1|address|port|")
		}
		return netip.ParseAddrPort(f[2] + ":" + f[3])
	}
	f := strings.Split(argument, ",")
	if len(f) != 6 {
		return netip.AddrPort{}, errors.New("not six numbers")
	}
	high, err1 := strconv.ParseUint(f[4], 10, 8)
	low, err2 := strconv.ParseUint(f[5], 10, 8)
	address, err := netip.ParseAddr(strings.Join(f[:4], "."))
	return netip.AddrPortFrom(address, uint16(high<<8|low)), errors.Join(err1, err2, err)
}
