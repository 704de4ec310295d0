package control

import (
	"bytes"
	"context"
	"io"
	"net"
	"net/netip"
	"strconv"
	"testing"
	"time"

	"ftpalg/dataconn"
	"ftpalg/integration/ftptest"
)

// ring is a session that is logged in, with both of its peers, on the memory network. The client's side of the benchmark is
// its own goroutine; the server answers from one that reads a line at a time.
type ring struct {
	tb      testing.TB
	network ftptest.Network
	session Session
	client  *ftptest.Conn
	buf     [512]byte
	done    chan struct{}
}

var ringPeers, ringOwn = [2]netip.Addr{netip.MustParseAddr("192.0.2.1"), netip.MustParseAddr("203.0.113.9")},
	[2]netip.Addr{netip.MustParseAddr("192.0.2.254"), netip.MustParseAddr("203.0.113.254")}

// unmoved is an Observer that does not want to hear each word, like one that writes a log.
type unmoved struct{}

func (unmoved) Verbatim() bool { return false }

func (unmoved) Observe(Event) {}

func newRing(tb testing.TB) *ring {
	r := &ring{tb: tb, done: make(chan struct{})}
	near, far := ftptest.Pipe(netip.AddrPortFrom(ringOwn[0], 2121), netip.AddrPortFrom(ringPeers[0], 50000))
	r.client = far
	r.session = Session{
		Client: near, Network: r, Faithful: true, Observer: unmoved{},
		Connect: func(context.Context, string) (net.Conn, error) {
			near, far := ftptest.Pipe(netip.AddrPortFrom(ringOwn[1], 50001), netip.AddrPortFrom(ringPeers[1], 21))
			go r.serve(far)
			return near, nil
		},
		Timeouts: Timeouts{
			Connect: 15 * time.Second, Login: 2 * time.Minute, Idle: 10 * time.Minute, Reply: 2 * time.Minute,
			Handshake: 15 * time.Second, DataSetup: 30 * time.Second, DataIdle: 2 * time.Minute, Abort: time.Second, Drain: 30 * time.Second,
		},
	}
	go func() {
		defer close(r.done)
		r.session.Run(context.Background())
	}()
	r.hear("220")
	for _, said := range []string{"USER alice\r\n331", "PASS secret\r\n230"} {
		line, code, _ := bytes.Cut([]byte(said), []byte("\n"))
		r.say(append(line, '\n'))
		r.hear(string(code))
	}
	return r
}

// Listen implements dataconn.Network.
func (r *ring) Listen(_ context.Context, side dataconn.Side, _ uint16) (net.Listener, error) {
	return r.network.Listen(netip.AddrPortFrom(ringOwn[side], 0))
}

// Dial implements dataconn.Network.
func (r *ring) Dial(ctx context.Context, side dataconn.Side, _ uint16, to netip.AddrPort) (net.Conn, error) {
	return r.network.Dial(ctx, netip.AddrPortFrom(ringOwn[side], 0), to)
}

func (r *ring) say(line []byte) { r.client.Write(line) }

// hear returns what the client hears next: one reply, which must have that code.
func (r *ring) hear(code string) []byte {
	n, err := r.client.Read(r.buf[:])
	if err != nil || string(r.buf[:3]) != code {
		r.tb.Fatalf("heard %q, %v", r.buf[:n], err)
	}
	return r.buf[:n]
}

// close ends the session.
func (r *ring) close() {
	r.client.Close()
	<-r.done
}

var (
	ringFile = bytes.Repeat([]byte("x"), 1024)
	noop     = []byte("NOOP\r\n")
	epsv     = []byte("EPSV\r\n")
	retr     = []byte("RETR file\r\n")
	answer   = map[string][]byte{
		"USER": []byte("331 go on\r\n"), "PASS": []byte("230 in\r\n"), "NOOP": []byte("200 NOOP ok.\r\n"),
	}
	opening  = []byte("150 Opening BINARY mode data connection.\r\n")
	complete = []byte("226 Transfer complete.\r\n")
)

// serve is the server.
func (r *ring) serve(c *ftptest.Conn) {
	defer c.Close()
	c.Write([]byte("220 ready\r\n"))
	var l *ftptest.Listener
	buf := make([]byte, 512)
	for {
		n, err := c.Read(buf)
		if err != nil {
			return
		}
		switch verb := string(buf[:min(n, 4)]); verb {
		case "EPSV":
			if l, err = r.network.Listen(netip.AddrPortFrom(ringPeers[1], 0)); err != nil {
				return
			}
			c.Write([]byte("229 Entering Extended Passive Mode (|||" + strconv.Itoa(l.Addr().(*net.TCPAddr).Port) + "|)\r\n"))
		case "RETR":
			d, err := l.Accept()
			l.Close()
			if err != nil {
				return
			}
			c.Write(opening)
			d.Write(ringFile)
			d.(*ftptest.Conn).CloseWrite()
			c.Write(complete)
			io.Copy(io.Discard, d)
			d.Close()
		default:
			c.Write(answer[verb])
		}
	}
}

// BenchmarkNOOP is a command there, and its reply back.
func BenchmarkNOOP(b *testing.B) {
	r := newRing(b)
	defer r.close()
	b.ReportAllocs()
	for b.Loop() {
		r.say(noop)
		r.hear("200")
	}
}

// BenchmarkRETR is EPSV and RETR of 1 KiB.
func BenchmarkRETR(b *testing.B) {
	r := newRing(b)
	defer r.close()
	b.ReportAllocs()
	for b.Loop() {
		r.retrieve()
	}
}

// retrieve downloads the file.
func (r *ring) retrieve() {
	r.say(epsv)
	reply := r.hear("229")
	port, _ := strconv.Atoi(string(bytes.Trim(reply[bytes.IndexByte(reply, '('):], "(|)\r\n")))
	d, err := r.network.Dial(context.Background(), netip.AddrPortFrom(ringPeers[0], 0), netip.AddrPortFrom(ringOwn[0], uint16(port)))
	if err != nil {
		r.tb.Fatal(err)
	}
	r.say(retr)
	r.hear("150")
	n, err := io.Copy(io.Discard, d)
	if n != int64(len(ringFile)) || err != nil {
		r.tb.Fatalf("%d bytes, %v", n, err)
	}
	d.Close()
	r.hear("226")
}

// TestAllocations holds what a command and its reply allocate in the steady state: the texts of both, the list of the reply's
// lines, and the event. Observers that want more have more made for them.
func TestAllocations(t *testing.T) {
	r := newRing(t)
	defer r.close()
	got := testing.AllocsPerRun(200, func() {
		r.say(noop)
		r.hear("200")
	})
	if got > 4 {
		t.Errorf("%v allocations for NOOP, want 4 at most", got)
	}
}
