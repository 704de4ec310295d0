//go:build linux

package main

import (
	"bufio"
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"io"
	"net"
	"net/netip"
	"os"
	"strconv"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// A target is where and how the load generator's clients work.
type target struct {
	Control   netip.AddrPort // invalid: Relay is to be used
	Relay     netip.AddrPort
	User      string
	From      []netip.Addr // the clients' addresses, taken in turn
	Protected bool
	Authority string // PEM file; for Protected
	OldVerbs  bool   // PASV and PORT, not EPSV and EPRT

	roots *x509.CertPool
}

// A client is an FTP client that has logged in.
type client struct {
	*target
	from    *net.TCPAddr
	control net.Conn // secured if Protected
	r       *bufio.Reader
	tls     *tls.Config // of this session alone, so that data connections resume it and nothing else does
}

// open readies a target that has come by JSON.
func (t *target) open() error {
	if !t.Protected {
		return nil
	}
	authority, err := os.ReadFile(t.Authority)
	if err != nil {
		return err
	}
	t.roots = x509.NewCertPool()
	if !t.roots.AppendCertsFromPEM(authority) {
		return fmt.Errorf("%s: no certificate in it", t.Authority)
	}
	return nil
}

func (t *target) config() *tls.Config {
	return &tls.Config{ServerName: serverName, RootCAs: t.roots, MinVersion: tls.VersionTLS13,
		ClientSessionCache: tls.NewLRUClientSessionCache(1), DynamicRecordSizingDisabled: true}
}

// dial connects from one of the clients' addresses.
func dial(from *net.TCPAddr, to netip.AddrPort) (*net.TCPConn, error) {
	d := net.Dialer{Timeout: patience, LocalAddr: from, Control: shareports}
	c, err := d.Dial("tcp4", to.String())
	if err != nil {
		return nil, err
	}
	return c.(*net.TCPConn), nil
}

// shareports has the kernel choose the port when it knows where to: then two connections may have the same.
func shareports(_, _ string, raw syscall.RawConn) error {
	var err error
	if e := raw.Control(func(fd uintptr) {
		err = unix.SetsockoptInt(int(fd), unix.SOL_IP, unix.IP_BIND_ADDRESS_NO_PORT, 1)
	}); e != nil {
		return e
	}
	return os.NewSyscallError("setsockopt", err)
}

// login connects the nth client and logs it in.
func (t *target) login(n int) (*client, error) {
	c := &client{target: t, from: &net.TCPAddr{IP: t.From[n%len(t.From)].AsSlice()}}
	tcp, err := dial(c.from, t.Control)
	if err != nil {
		return nil, err
	}
	tcp.SetDeadline(time.Now().Add(patience))
	c.control, c.r = tcp, bufio.NewReaderSize(tcp, 256)
	if err := c.enter(tcp); err != nil {
		tcp.Close()
		return nil, err
	}
	return c, nil
}

func (c *client) enter(tcp *net.TCPConn) error {
	if _, err := c.hear("220"); err != nil {
		return err
	}
	if c.Protected {
		if _, err := c.ask("AUTH TLS", "234"); err != nil {
			return err
		}
		c.tls = c.config()
		c.control = tls.Client(tcp, c.tls)
		c.r.Reset(c.control)
	}
	if _, err := c.ask("USER "+c.User, "331"); err != nil {
		return err
	}
	if _, err := c.ask("PASS bench", "230"); err != nil || !c.Protected {
		return err
	}
	if _, err := c.ask("PBSZ 0", "200"); err != nil {
		return err
	}
	_, err := c.ask("PROT P", "200")
	return err
}

// ask says a command and returns the last line of its reply, which must begin with a code.
func (c *client) ask(command, code string) (string, error) {
	if _, err := io.WriteString(c.control, command+"\r\n"); err != nil {
		return "", fmt.Errorf("%s: %w", command, err)
	}
	line, err := c.hear(code)
	if err != nil {
		err = fmt.Errorf("%s: %w", command, err)
	}
	return line, err
}

func (c *client) hear(code string) (string, error) {
	for {
		line, err := c.r.ReadSlice('\n')
		if err != nil {
			return "", fmt.Errorf("wait for %s: %w", code, err)
		}
		if len(line) < 4 || line[3] == '-' || line[0] == ' ' {
			continue
		}
		if string(line[:3]) != code {
			return "", fmt.Errorf("heard %q instead of %s", line, code)
		}
		return string(line), nil
	}
}

// retrieve downloads a file of a size, and tells count of the bytes as they come.
func (c *client) retrieve(size int64, active bool, count func(int)) error {
	data, tcp, err := c.data("RETR "+strconv.FormatInt(size, 10), active)
	if err != nil {
		return err
	}
	defer tcp.Close()
	got, err := download(data, count)
	if err != nil {
		return err
	}
	if got != size {
		return fmt.Errorf("RETR: %d bytes have come instead of %d", got, size)
	}
	if s, ok := data.(*tls.Conn); ok {
		s.CloseWrite() // the server waits for it; if it can't be said, the server has gone already
	}
	if err := tcp.Close(); err != nil {
		return err
	}
	_, err = c.hear("226")
	return err
}

// store uploads a file.
func (c *client) store(size int64, active bool, count func(int)) error {
	data, tcp, err := c.data("STOR file", active)
	if err != nil {
		return err
	}
	defer tcp.Close()
	if err := upload(data, size, count); err != nil {
		return err
	}
	if err := part(data, tcp); err != nil {
		return err
	}
	_, err = c.hear("226")
	return err
}

func download(data io.Reader, count func(int)) (int64, error) {
	b := buffers.Get().(*[]byte)
	defer buffers.Put(b)
	got := int64(0)
	for {
		n, err := data.Read(*b)
		got += int64(n)
		count(n)
		if err == io.EOF {
			return got, nil
		}
		if err != nil {
			return got, err
		}
	}
}

func upload(data io.Writer, size int64, count func(int)) error {
	for size > 0 {
		n, err := data.Write(zeros[:min(size, block)])
		if err != nil {
			return err
		}
		size -= int64(n)
		count(n)
	}
	return nil
}

// data says a command with a data connection, and returns that connection as it is and as TCP has it.
func (c *client) data(command string, active bool) (net.Conn, *net.TCPConn, error) {
	c.control.SetDeadline(time.Now().Add(patience))
	tcp, err := c.call(command, active)
	if err != nil {
		return nil, nil, err
	}
	tcp.SetDeadline(time.Now().Add(patience))
	if !c.Protected {
		return tcp, tcp, nil
	}
	s := tls.Client(tcp, c.tls)
	if err := s.Handshake(); err != nil {
		tcp.Close()
		return nil, nil, fmt.Errorf("%s: %w", command, err)
	}
	return s, tcp, nil
}

func (c *client) call(command string, active bool) (*net.TCPConn, error) {
	if !active {
		port, err := c.passive()
		if err != nil {
			return nil, err
		}
		tcp, err := dial(c.from, netip.AddrPortFrom(c.Control.Addr(), port))
		if err != nil {
			return nil, err
		}
		if _, err := c.ask(command, "150"); err != nil {
			tcp.Close()
			return nil, err
		}
		return tcp, nil
	}
	l, err := net.ListenTCP("tcp4", c.from)
	if err != nil {
		return nil, err
	}
	defer l.Close()
	l.SetDeadline(time.Now().Add(patience))
	port := l.Addr().(*net.TCPAddr).Port
	line := fmt.Sprintf("EPRT |1|%s|%d|", c.from.IP, port)
	if c.OldVerbs {
		line = fmt.Sprintf("PORT %s,%d,%d", strings.ReplaceAll(c.from.IP.String(), ".", ","), port>>8, port&255)
	}
	if _, err := c.ask(line, "200"); err != nil {
		return nil, err
	}
	if _, err := c.ask(command, "150"); err != nil {
		return nil, err
	}
	return l.AcceptTCP()
}

// passive asks for a data port. The address in a 227 is as good as that of the control connection.
func (c *client) passive() (uint16, error) {
	if !c.OldVerbs {
		reply, err := c.ask("EPSV", "229")
		if err != nil {
			return 0, err
		}
		_, rest, _ := strings.Cut(reply, "(|||")
		digits, _, found := strings.Cut(rest, "|)")
		port, err := strconv.ParseUint(digits, 10, 16)
		if err != nil || !found {
			return 0, fmt.Errorf("no port in %q", reply)
		}
		return uint16(port), nil
	}
	reply, err := c.ask("PASV", "227")
	if err != nil {
		return 0, err
	}
	_, rest, _ := strings.Cut(reply, "(")
	numbers, _, found := strings.Cut(rest, ")")
	at, err := parseTarget("PORT", numbers)
	if err != nil || !found {
		return 0, fmt.Errorf("no address in %q", reply)
	}
	return at.Port(), nil
}

// quit says goodbye.
func (c *client) quit() error {
	_, err := c.ask("QUIT", "221")
	c.control.Close()
	return err
}

// relayed moves a file over the relay, on a connection that is the file's alone.
func (t *target) relayed(n int, size int64, up bool, count func(int)) error {
	tcp, err := dial(&net.TCPAddr{IP: t.From[n%len(t.From)].AsSlice()}, t.Relay)
	if err != nil {
		return err
	}
	defer tcp.Close()
	tcp.SetDeadline(time.Now().Add(patience))
	s := tls.Client(tcp, t.config())
	if !up {
		if _, err := fmt.Fprintf(s, "RETR %d\n", size); err != nil {
			return err
		}
		got, err := download(s, count)
		if err == nil && got != size {
			err = fmt.Errorf("%d bytes have come instead of %d", got, size)
		}
		return err
	}
	if _, err := fmt.Fprintf(s, "STOR %d\n", size); err != nil {
		return err
	}
	if err := upload(s, size, count); err != nil {
		return err
	}
	// Not CloseWrite: what knows only streams of bytes may take one end of file for both.
	said, err := bufio.NewReader(s).ReadString('\n')
	if err == nil && !strings.HasPrefix(said, "226") {
		err = fmt.Errorf("heard %q instead of 226", said)
	}
	return err
}
