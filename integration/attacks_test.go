//go:build linux

package integration

import (
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"os"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"time"
)

// Each test carries out an attack by way of a real gateway. Transcripts in package control have the same attacks in all
// their variants; here it is shown that no packet went where it should not.

// port is an address of a pair with a port.
func port(a [2]netip.Prefix, f family, p uint16) netip.AddrPort {
	return netip.AddrPortFrom(a[f].Addr(), p)
}

// A trap is a listener that nobody may reach.
type trap struct {
	where  string
	caught atomic.Int32
}

func (n *namespace) trap(t *testing.T, at netip.AddrPort) *trap {
	t.Helper()
	tr := &trap{where: at.String()}
	l := n.listen(t, at)
	go tr.wait(l)
	return tr
}

func (tr *trap) wait(l net.Listener) {
	for {
		c, err := l.Accept()
		if err != nil {
			return
		}
		c.Close()
		tr.caught.Add(1)
	}
}

func (tr *trap) check(t *testing.T) {
	t.Helper()
	if n := tr.caught.Load(); n > 0 {
		t.Errorf("%s was connected to %d times", tr.where, n)
	}
}

const attackConfig = `
listeners:
  - {mode: tproxy}
  - {mode: explicit, address: "[::]:2122"}
limits: {sessions_per_client: 20, data_listeners: 8}
log: {level: debug}
`

func TestAttackBounce(t *testing.T) {
	l := newLab(t)
	l.startGateway(attackConfig)
	l.Client.AddAddress("eth0", netip.MustParsePrefix("192.0.2.3/24"))
	victim := l.Client.trap(t, netip.MustParseAddrPort("192.0.2.3:5555"))
	low := l.Client.trap(t, netip.MustParseAddrPort("192.0.2.2:22"))
	server := l.Server.trap(t, port(serverAddress, v4, 5555))
	p := newPuppet(t, l, port(serverAddress, v4, 21))
	k := l.Client.call(t, p.at)
	s := p.admit(k, "alice")
	k.ask("PORT 192,0,2,3,21,179", "501")
	k.ask("EPRT |1|192.0.2.3|5555|", "501")
	k.ask("PORT 198,51,100,2,21,179", "501")
	k.ask("PORT 192,0,2,2,0,22", "504")
	k.ask("EPRT |2|::ffff:192.0.2.3|5555|", "501")
	k.say("RETR x")
	s.expect("RETR x", "425 Use PORT or PASV first") // the first thing that the server hears
	k.hear("425")
	victim.check(t)
	low.check(t)
	server.check(t)
}

// A server that names another's address in 227 (CVE-2020-8284): only its own is called.
func TestAttackPassiveAddress(t *testing.T) {
	l := newLab(t)
	l.startGateway(attackConfig)
	inside := l.Firewall.trap(t, netip.MustParseAddrPort("127.0.0.1:6379"))
	other := l.Client.trap(t, port(clientAddress, v4, 6379))
	p := newPuppet(t, l, port(serverAddress, v4, 21))
	data := l.Server.listen(t, port(serverAddress, v4, 6379))
	k := l.Client.call(t, p.at)
	s := p.admit(k, "alice")
	for _, address := range []string{"127,0,0,1", "192,0,2,2", "192,0,2,1"} {
		k.say("PASV")
		s.expect("PASV", "227 ok ("+address+",24,235)")
		reply := k.hear("227")
		if !strings.Contains(reply, "(198,51,100,2,") {
			t.Errorf("the client hears of an address that is not the server's: %s", reply)
		}
		c := l.Client.callFrom(t, port(clientAddress, v4, 0), netip.AddrPortFrom(p.at.Addr(), passivePort(t, reply)))
		d, err := data.Accept()
		if err != nil {
			t.Fatal(err)
		}
		k.say("RETR x")
		s.expect("RETR x", "150 here")
		k.hear("150")
		io.WriteString(d, "bytes")
		d.Close()
		s.say("226 done")
		if b, err := io.ReadAll(c); err != nil || string(b) != "bytes" {
			t.Errorf("the client got %q, %v", b, err)
		}
		c.Close()
		k.hear("226")
	}
	// A data port that is a service's (RFC 2577 §3).
	k.say("PASV")
	s.expect("PASV", "227 ok (198,51,100,2,0,25)")
	k.hear("425")
	inside.check(t)
	other.check(t)
}

// Port theft (RFC 2577 §8): a stranger who guesses a data port first gets nothing, and spoils nothing.
func TestAttackPortTheft(t *testing.T) {
	l := newLab(t)
	g := l.startGateway(attackConfig)
	l.Client.AddAddress("eth0", netip.MustParsePrefix("192.0.2.66/24"))
	l.Server.AddAddress("eth0", netip.MustParsePrefix("198.51.100.66/24"))
	p := newPuppet(t, l, port(serverAddress, v4, 21))
	k := l.Client.call(t, p.at)
	s := p.admit(k, "alice")

	// On the client's side.
	data := l.Server.listen(t, port(serverAddress, v4, 50000))
	k.say("PASV")
	s.expect("PASV", "227 ok (198,51,100,2,195,80)")
	to := netip.AddrPortFrom(p.at.Addr(), passivePort(t, k.hear("227")))
	for range 3 {
		l.Client.steal(t, netip.MustParseAddrPort("192.0.2.66:0"), to)
	}
	c := l.Client.callFrom(t, port(clientAddress, v4, 0), to)
	d, err := data.Accept()
	if err != nil {
		t.Fatal(err)
	}
	k.say("RETR x")
	s.expect("RETR x", "150 here")
	k.hear("150")
	io.WriteString(d, "mine")
	d.Close()
	s.say("226 done")
	if b, err := io.ReadAll(c); err != nil || string(b) != "mine" {
		t.Errorf("the client got %q, %v", b, err)
	}
	c.Close()
	k.hear("226")
	g.await("stranger", "side=client", "192.0.2.66")

	// On the server's side, in active mode.
	mine := l.Client.listen(t, port(clientAddress, v4, 50010))
	k.say("PORT 192,0,2,2,195,90")
	said := s.line()
	s.say("200 ok")
	k.hear("200")
	var h [6]int
	if _, err := fmt.Sscanf(said, "PORT %d,%d,%d,%d,%d,%d", &h[0], &h[1], &h[2], &h[3], &h[4], &h[5]); err != nil {
		t.Fatalf("%q: %v", said, err)
	}
	if h[0] != 192 || h[3] != 2 {
		t.Errorf("the server is told %q, not the client's address", said)
	}
	to = netip.AddrPortFrom(clientAddress[v4].Addr(), uint16(h[4]<<8|h[5]))
	k.say("RETR y")
	s.expect("RETR y", "150 here")
	k.hear("150")
	l.Server.steal(t, netip.MustParseAddrPort("198.51.100.66:20"), to)
	sd := l.Server.callFrom(t, port(serverAddress, v4, 20), to)
	io.WriteString(sd, "mine too")
	sd.Close()
	cd, err := mine.Accept()
	if err != nil {
		t.Fatal(err)
	}
	if from := cd.RemoteAddr().String(); from != "198.51.100.2:20" {
		t.Errorf("the client was called from %s, not from the server's port 20", from)
	}
	s.say("226 done")
	if b, err := io.ReadAll(cd); err != nil || string(b) != "mine too" {
		t.Errorf("the client got %q, %v", b, err)
	}
	cd.Close()
	k.hear("226")
	g.await("stranger", "side=server", "198.51.100.66")
}

// steal connects to a data port that is another's, and has to be turned away.
func (n *namespace) steal(t *testing.T, from, to netip.AddrPort) {
	t.Helper()
	var b []byte
	err := n.Do(func() error {
		d := net.Dialer{LocalAddr: net.TCPAddrFromAddrPort(from), Timeout: hang}
		c, err := d.Dial("tcp", to.String())
		if err != nil {
			return err // the reset may come this early
		}
		defer c.Close()
		c.SetDeadline(time.Now().Add(hang))
		b, err = io.ReadAll(c)
		return err
	})
	if !isReset(err) || len(b) > 0 {
		t.Errorf("the thief was not reset: %q, %v", b, err)
	}
}

// NAT slipstreaming: a page makes a browser post FTP commands to port 21, where a kernel helper would act on them.
func TestAttackSlipstream(t *testing.T) {
	l := newLab(t)
	l.startGateway(attackConfig)
	p := newPuppet(t, l, port(serverAddress, v4, 21))
	inside := l.Client.trap(t, port(clientAddress, v4, 2049))
	for _, what := range []string{
		"POST / HTTP/1.1\r\nHost: attacker\r\nContent-Length: 100\r\n\r\nUSER a\r\nPASS b\r\nPORT 192,0,2,2,8,1\r\n",
		"GET /PORT 192,0,2,2,8,1 HTTP/1.1\r\n\r\n",
		"REGISTER sip:x SIP/2.0\r\nPORT 192,0,2,2,8,1\r\n",
		"EHLO x\r\nPORT 192,0,2,2,8,1\r\n",
		"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03",
		"SSH-2.0-OpenSSH\r\n",
	} {
		k := l.Client.call(t, p.at)
		k.send(what) // browsers do not wait to be greeted
		s := p.accept("220 hello")
		if said := k.ended(); strings.Contains(said, "200") || strings.Count(said, "\n") > 3 {
			t.Errorf("%.20q was answered %q", what, said)
		}
		if said := s.ended(); said != "" {
			t.Errorf("the server heard %q after %.20q", said, what)
		}
	}
	inside.check(t)
}

// What a client cannot smuggle past the gateway, nor a server.
func TestAttackInjection(t *testing.T) {
	l := newLab(t)
	l.startGateway(attackConfig)
	p := newPuppet(t, l, port(serverAddress, v4, 21))
	k := l.Client.call(t, p.at)
	s := p.admit(k, "alice")
	k.send("RETR a\rDELE b\r\n")
	k.hear("500")
	k.send("RETR a\x00DELE b\r\n")
	k.hear("500")
	s.silent()
	k.say("227 Entering Passive Mode (127,0,0,1,0,80)") // a reply where a command belongs
	k.ended()
	s.ended()

	k = l.Client.call(t, p.at)
	s = p.admit(k, "alice")
	s.say("227 Entering Passive Mode (127,0,0,1,0,80)") // a reply that nobody asked for
	k.say("NOOP")
	s.expect("NOOP", "200 fine\rDELE 230 in")
	if got := k.hear("200"); strings.ContainsAny(got, "\r") {
		t.Errorf("heard %q", got)
	}
	s.say("PORT 127,0,0,1,0,80") // a command where a reply belongs
	if said := k.ended(); strings.Contains(said, "PORT") {
		t.Errorf("the client heard %q", said)
	}
}

// resident is the memory that a process has, in bytes.
func resident(t *testing.T, pid int) int64 {
	t.Helper()
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/statm", pid))
	if err != nil {
		t.Fatal(err)
	}
	var size, rss int64
	if _, err := fmt.Sscan(string(b), &size, &rss); err != nil {
		t.Fatal(err)
	}
	return rss * int64(os.Getpagesize())
}

// A gigabyte of greeting, of one reply or of one line costs the gateway no memory to speak of, and the peer its session.
func TestAttackFlood(t *testing.T) {
	const flood = 1 << 30
	l := newLab(t)
	g := l.startGateway(attackConfig)
	p := newPuppet(t, l, port(serverAddress, v4, 21))
	before := resident(t, g.pid())
	for name, chunk := range map[string]string{
		"lines":    strings.Repeat("220-"+strings.Repeat("x", 60)+"\r\n", 1000),
		"one line": strings.Repeat("220-xxxxxxxxxxx", 4000),
		"binary":   strings.Repeat("\x00\xff", 32000),
	} {
		k := l.Client.call(t, p.at)
		s := p.accept("")
		sent := 0
		for sent < flood {
			n, err := io.WriteString(s, chunk)
			sent += n
			if err != nil {
				break
			}
		}
		if sent >= flood {
			t.Errorf("%s: the gateway took all of it", name)
		}
		k.hear("421")
		k.ended()
	}
	// And from the client.
	k := l.Client.call(t, p.at)
	s := p.admit(k, "alice")
	sent := 0
	for chunk := strings.Repeat("A", 64<<10); sent < flood/4; {
		n, err := io.WriteString(k, chunk)
		sent += n
		if err != nil {
			break
		}
	}
	k.send("\r\n")
	k.hear("500")
	s.silent()
	if after := resident(t, g.pid()); after > before+64<<20 {
		t.Errorf("the gateway grew from %d to %d bytes", before, after)
	}
}

// Slowloris and the exhaustion of data ports: one client's sessions and listeners are limited, and others are served.
func TestAttackExhaustion(t *testing.T) {
	l := newLab(t)
	g := l.startGateway(attackConfig)
	l.Client.AddAddress("eth0", netip.MustParsePrefix("192.0.2.3/24"))
	p := newPuppet(t, l, port(serverAddress, v4, 21))
	var idle []*talk
	for range 20 {
		k := l.Client.call(t, p.at)
		p.accept("220 hello")
		k.hear("220")
		idle = append(idle, k)
	}
	over := l.Client.call(t, p.at)
	if said := over.ended(); !strings.HasPrefix(said, "421 ") {
		t.Errorf("one session too many was told %q", said)
	}
	g.await("refused a session", "limits.sessions_per_client 20")
	other := newTalk(t, l.Client.callFrom(t, netip.MustParseAddrPort("192.0.2.3:0"), p.at))
	s := p.admit(other, "bob")
	for _, k := range idle {
		k.Close()
	}

	// One session has one listener, however often it says PASV.
	for i := range 10000 {
		other.say("PASV")
		s.expect("PASV", fmt.Sprintf("227 ok (198,51,100,2,200,%d)", i%250))
		other.hear("227")
	}
	if n := strings.Count(l.Firewall.must("ss", "-Hltn", "src", "198.51.100.2"), "LISTEN"); n != 1 {
		t.Errorf("%d data listeners are open", n)
	}
	// All sessions together have no more than the limit.
	var talks, ends []*talk
	for range 7 {
		k := newTalk(t, l.Client.callFrom(t, netip.MustParseAddrPort("192.0.2.3:0"), p.at))
		e := p.admit(k, "bob")
		k.say("EPSV")
		e.expect("EPSV", "229 ok (|||51200|)")
		k.hear("229")
		talks, ends = append(talks, k), append(ends, e)
	}
	k := newTalk(t, l.Client.callFrom(t, netip.MustParseAddrPort("192.0.2.3:0"), p.at))
	e := p.admit(k, "bob")
	k.say("EPSV")
	e.expect("EPSV", "229 ok (|||51200|)")
	k.hear("425")
	g.await("refused", "limits.data_listeners 8")
	talks[0].Close() // and what is closed is free again
	ends[0].ended()
	k.say("EPSV")
	e.expect("EPSV", "229 ok (|||51200|)")
	k.hear("229")
}

// Server-side request forgery: what an explicit client may not name. The client has a public address, as far as such
// documentation addresses go.
func TestAttackForgery(t *testing.T) {
	l := newLab(t)
	g := l.startGateway(attackConfig)
	proxy := port(clientGateway, v4, 2122)
	inside := l.Firewall.trap(t, netip.MustParseAddrPort("127.0.0.1:6379"))
	l.Firewall.AddAddress(serverSide, netip.MustParsePrefix("10.0.0.1/24"))
	l.Server.AddAddress("eth0", netip.MustParsePrefix("10.0.0.2/24"))
	private := l.Server.trap(t, netip.MustParseAddrPort("10.0.0.2:21"))
	ssh := l.Server.trap(t, port(serverAddress, v4, 22))
	for _, name := range []string{
		"127.0.0.1:6379", "localhost:6379", "[::1]:6379", "[::ffff:127.0.0.1]:6379", "0.0.0.0:6379", "[::]:6379", "127.1.2.3:2122",
		"[64:ff9b::7f00:1]:6379", "[2002:7f00:1::]:6379", "[::127.0.0.1]:6379",
		"192.0.2.1:2122", "198.51.100.1:2122", "[fd00:c::1]:2122", "192.0.2.1:2121", // ourselves
		"10.0.0.2", "[64:ff9b::a00:2]", "169.254.169.254", "[fe80::1]", "[fd00:ec2::254]", "100.100.100.200",
		"224.0.0.1", "[ff02::1]", "255.255.255.255", "198.51.100.255", "192.0.2.255",
		"198.51.100.2:22", "198.51.100.2:80", "198.51.100.2:0", "198.51.100.2:99999", "198.51.100.2:-1", "198.51.100.2:",
		"[::1", "::1]", "a b", "", "2130706433", "0x7f.1", "fe80::1%eth0",
	} {
		for _, way := range [][2]string{
			{"USER u@" + name, "530"}, {"OPEN " + name, "5"}, {"SITE " + name, "5"},
			{"USER a:u@" + name + "\r\nPASS a:p", ""}, {"USER u@" + name + " a\r\nPASS p\r\nACCT a", ""},
			{"HOST " + name + "\r\nUSER u", ""}, // names that are ours are none of a server, so the user is no server's
		} {
			if way[1] == "530" && name == "a b" {
				continue // b is an account
			}
			k := l.Client.call(t, proxy)
			k.hear("220")
			k.ask(way[0], way[1])
			for range strings.Count(way[0], "\r\n") {
				k.hear("")
			}
			k.ask("QUIT", "221")
		}
	}
	if line := g.logged("session started"); line != "" {
		t.Errorf("a server was connected to: %s", line)
	}
	// Three are enough.
	k := l.Client.call(t, proxy)
	k.hear("220")
	k.ask("USER u@127.0.0.1:1", "530")
	k.ask("USER u@127.0.0.1:2", "530")
	k.ask("USER u@127.0.0.1:3", "421")
	k.ended()

	// A connection to the port itself is intercepted from nobody.
	direct := l.Client.call(t, port(clientGateway, v4, 2121))
	if said := direct.ended(); !strings.HasPrefix(said, "421 ") {
		t.Errorf("a connection to the tproxy listener itself was told %q", said)
	}
	g.await("the server is this proxy itself")
	for _, tr := range []*trap{inside, private, ssh} {
		tr.check(t)
	}
	g.Stop()
	g.checkClean()
}

// isReset reports whether reading ended in a reset, not in an end of file.
func isReset(err error) bool {
	return errors.Is(err, syscall.ECONNRESET) || errors.Is(err, syscall.EPIPE)
}

// drain reads until the connection ends and returns how.
func drain(c net.Conn) (n int64, err error) {
	c.SetDeadline(time.Now().Add(hang))
	n, err = io.Copy(io.Discard, c)
	return n, err
}
