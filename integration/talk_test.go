//go:build linux

package integration

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"net"
	"net/netip"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// A talk is one end of a control connection held by a test itself, for what no real client or server would say.
type talk struct {
	net.Conn
	t *testing.T
	r *bufio.Reader
}

func newTalk(t *testing.T, c net.Conn) *talk {
	c.SetDeadline(time.Now().Add(hang))
	t.Cleanup(func() { c.Close() })
	return &talk{c, t, bufio.NewReader(c)}
}

// call connects to an address from a namespace.
func (n *namespace) call(t *testing.T, to netip.AddrPort) *talk {
	t.Helper()
	c, err := n.Dial(t.Context(), to)
	if err != nil {
		t.Fatal(err)
	}
	return newTalk(t, c)
}

// callFrom connects from one of the namespace's addresses, port 0 being any.
func (n *namespace) callFrom(t *testing.T, from netip.AddrPort, to netip.AddrPort) net.Conn {
	t.Helper()
	var conn net.Conn
	err := n.Do(func() (err error) {
		d := net.Dialer{LocalAddr: net.TCPAddrFromAddrPort(from), Timeout: hang, Control: reusing}
		conn, err = d.DialContext(context.Background(), "tcp", to.String())
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	conn.SetDeadline(time.Now().Add(hang))
	t.Cleanup(func() { conn.Close() })
	return conn
}

// reusing lets many connections come from one port, as those of servers do from port 20.
func reusing(_, _ string, raw syscall.RawConn) (err error) {
	if e := raw.Control(func(fd uintptr) { err = unix.SetsockoptInt(int(fd), unix.SOL_SOCKET, unix.SO_REUSEADDR, 1) }); e != nil {
		return e
	}
	return err
}

// listen listens on an address in a namespace until the test is over.
func (n *namespace) listen(t *testing.T, at netip.AddrPort) *net.TCPListener {
	t.Helper()
	l, err := n.Listen(t.Context(), at)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	return l.(*net.TCPListener)
}

// say says a line.
func (k *talk) say(format string, args ...any) {
	k.t.Helper()
	k.send(fmt.Sprintf(format, args...) + "\r\n")
}

// send says bytes.
func (k *talk) send(s string) {
	k.t.Helper()
	if _, err := io.WriteString(k, s); err != nil {
		k.t.Fatalf("saying %q: %v", s, err)
	}
}

// line hears a line.
func (k *talk) line() string {
	k.t.Helper()
	l, err := k.r.ReadString('\n')
	if err != nil {
		k.t.Fatalf("hearing a line: %v after %q", err, l)
	}
	return strings.TrimRight(l, "\r\n")
}

// hear hears a reply, which must begin with a code, and returns its last line.
func (k *talk) hear(code string) string {
	k.t.Helper()
	for {
		l := k.line()
		if len(l) > 3 && l[3] == '-' || l == "" || l[0] == ' ' {
			continue
		}
		if !strings.HasPrefix(l, code) {
			k.t.Fatalf("heard %q instead of %s", l, code)
		}
		return l
	}
}

// ask says a line and hears the reply to it.
func (k *talk) ask(line, code string) string {
	k.t.Helper()
	k.say("%s", line)
	return k.hear(code)
}

// login logs in at a scripted or real server.
func (k *talk) login(user string) {
	k.t.Helper()
	k.hear("220")
	k.ask("USER "+user, "331")
	k.ask("PASS "+ftpPassword, "230")
}

// ended waits for the other side to close and returns what it said before.
func (k *talk) ended() string {
	k.t.Helper()
	b, err := io.ReadAll(k.r)
	if err != nil && !strings.Contains(err.Error(), "connection reset") {
		k.t.Fatalf("not closed: %v after %q", err, b)
	}
	return string(b)
}

// passivePort is the port that a 227 or 229 names.
func passivePort(t *testing.T, reply string) uint16 {
	t.Helper()
	p, err := portNamed(reply)
	if err != nil {
		t.Fatal(err)
	}
	return p
}

// portNamed is passivePort outside a test.
func portNamed(reply string) (uint16, error) {
	var a, b uint16
	if i := strings.Index(reply, "(|||"); i >= 0 {
		_, err := fmt.Sscanf(reply[i:], "(|||%d|)", &a)
		return a, err
	}
	var h [4]int
	i := strings.Index(reply, "(")
	if i < 0 {
		return 0, fmt.Errorf("no address in %q", reply)
	}
	if _, err := fmt.Sscanf(reply[i:], "(%d,%d,%d,%d,%d,%d)", &h[0], &h[1], &h[2], &h[3], &a, &b); err != nil {
		return 0, fmt.Errorf("%w in %q", err, reply)
	}
	return a<<8 | b, nil
}

// A puppet is a server in the lab's server namespace whose every word is the test's.
type puppet struct {
	t   *testing.T
	l   *net.TCPListener
	at  netip.AddrPort
	lab *lab
}

// newPuppet makes a puppet on an address.
func newPuppet(t *testing.T, l *lab, at netip.AddrPort) *puppet {
	t.Helper()
	return &puppet{t: t, l: l.Server.listen(t, at), at: at, lab: l}
}

// accept takes the next client, and greets it unless greeting is empty.
func (p *puppet) accept(greeting string) *talk {
	p.t.Helper()
	p.l.SetDeadline(time.Now().Add(hang))
	c, err := p.l.Accept()
	if err != nil {
		p.t.Fatal(err)
	}
	k := newTalk(p.t, c)
	if greeting != "" {
		k.say("%s", greeting)
	}
	return k
}

// admit takes the next client and logs it in, while that client, k, logs in.
func (p *puppet) admit(k *talk, user string) *talk {
	p.t.Helper()
	done := make(chan struct{})
	var s *talk
	go func() {
		defer close(done)
		s = p.accept("220 puppet")
		s.line()
		s.say("331 go on")
		s.line()
		s.say("230 in")
	}()
	k.login(user)
	<-done
	if s == nil {
		p.t.FailNow()
	}
	return s
}

// expect hears a command and answers it.
func (k *talk) expect(command, reply string) {
	k.t.Helper()
	if got := k.line(); got != command {
		k.t.Fatalf("the server heard %q instead of %q", got, command)
	}
	if reply != "" {
		k.say("%s", reply)
	}
}

// silent fails the test if anything more has been said to this end. Call it once what must not be said would have been.
func (k *talk) silent() {
	k.t.Helper()
	k.SetReadDeadline(time.Now().Add(100 * time.Millisecond))
	defer k.SetDeadline(time.Now().Add(hang))
	if b, err := k.r.Peek(1); err == nil {
		rest, _ := k.r.Peek(k.r.Buffered())
		k.t.Fatalf("the server heard %q (%q…)", rest, b)
	}
}
