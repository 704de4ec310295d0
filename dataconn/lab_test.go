package dataconn

import (
	"context"
	"fmt"
	"io"
	"net"
	"net/netip"
	"os"
	"syscall"
	"testing"
	"time"

	"go.uber.org/goleak"
)

// TestMain also plays the part that TestKilled kills, and the one that BenchmarkCarry measures.
func TestMain(m *testing.M) {
	if server := os.Getenv(relaysVariable); server != "" {
		if err := relayForBenchmark(server); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		return
	}
	if legs := os.Getenv(carriedVariable); legs != "" {
		if err := carryToBeKilled(legs); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		return
	}
	goleak.VerifyTestMain(m)
}

// loopback is a Network of 127.0.0.1.
type loopback struct{}

func (loopback) Listen(ctx context.Context, _ Side, _ uint16) (net.Listener, error) {
	var lc net.ListenConfig
	return lc.Listen(ctx, "tcp", "127.0.0.1:0")
}

// Dial makes a connection that ends in a reset even if Reset comes just before DialContext returns: it closes the socket
// then, and its peer, which has accepted it, would see an end of file.
func (loopback) Dial(ctx context.Context, _ Side, _ uint16, to netip.AddrPort) (net.Conn, error) {
	d := net.Dialer{Control: func(_, _ string, raw syscall.RawConn) error {
		var err error
		if e := raw.Control(func(fd uintptr) {
			err = syscall.SetsockoptLinger(int(fd), syscall.SOL_SOCKET, syscall.SO_LINGER, &syscall.Linger{Onoff: 1})
		}); e != nil {
			return e
		}
		return err
	}}
	return d.DialContext(ctx, "tcp", to.String())
}

// Splice implements Splicer, with a pipe that is no kernel's. It gives in small pieces.
func (loopback) Splice(from, to net.Conn) Splice { return &pipe{from: from, to: to} }

type pipe struct {
	from, to net.Conn
	room     [bulk]byte
	held     []byte
	closed   bool
}

func (p *pipe) Take() (int, error) {
	if len(p.held) > 0 || p.closed {
		panic("it was not to be taken from yet, or any more")
	}
	n, err := p.from.Read(p.room[:])
	p.held = p.room[:n]
	return n, err
}

func (p *pipe) Give() (int, error) {
	n, err := p.to.Write(p.held[:min(len(p.held), 100_000)])
	p.held = p.held[n:]
	return n, err
}

func (p *pipe) Gather(bytes int) error {
	raw, err := p.from.(*net.TCPConn).SyscallConn()
	if err != nil {
		return err
	}
	if e := raw.Control(func(fd uintptr) {
		err = syscall.SetsockoptInt(int(fd), syscall.SOL_SOCKET, syscall.SO_RCVLOWAT, bytes)
	}); e != nil {
		return e
	}
	return err
}

func (p *pipe) Close() { p.closed = true }

// lab is a transfer with its two peers, on real TCP connections.
type lab struct {
	t    *testing.T
	opts Options
	// Where each leg and each peer listens, if it does, by Side.
	legs, peers [2]net.Listener
	transfer    *Transfer
}

var localhost = netip.MustParseAddr("127.0.0.1")

// newLab prepares a transfer whose legs listen or dial. Times are long; tests of clocks shorten them.
func newLab(t *testing.T, clientListens, serverListens bool) *lab {
	t.Helper()
	l := &lab{t: t}
	for side, listens := range []bool{clientListens, serverListens} {
		ln, err := loopback{}.Listen(t.Context(), Side(side), 0)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { ln.Close() })
		if listens {
			l.legs[side] = ln
		} else {
			l.peers[side] = ln
		}
	}
	leg := func(side Side) Leg {
		if l.legs[side] != nil {
			return Leg{Listener: l.legs[side], Peer: localhost}
		}
		return Leg{Address: AddrPort(l.peers[side].Addr())}
	}
	l.opts = Options{Network: loopback{}, Client: leg(Client), Server: leg(Server),
		Setup: time.Minute, Idle: time.Minute, Linger: time.Minute}
	return l
}

// arm arms the transfer, and resets it when the test has failed to end it.
func (l *lab) arm() *Transfer {
	l.transfer = Arm(l.t.Context(), l.opts)
	l.t.Cleanup(func() {
		l.transfer.Reset()
		<-l.transfer.Closed()
	})
	return l.transfer
}

// connect makes a peer's end of its leg: it dials where the leg listens, and accepts where it dials.
func (l *lab) connect(side Side) *net.TCPConn {
	l.t.Helper()
	var c net.Conn
	var err error
	if l.legs[side] != nil {
		c, err = net.Dial("tcp", l.legs[side].Addr().String())
	} else {
		c, err = l.peers[side].Accept()
	}
	if err != nil {
		l.t.Fatal(err)
	}
	l.t.Cleanup(func() { c.Close() })
	return c.(*net.TCPConn)
}

// begin arms, begins and releases a transfer, and connects both peers.
func (l *lab) begin(d Direction) (from, to *net.TCPConn) {
	l.t.Helper()
	t := l.arm()
	t.Begin(d, [2]Secure{}, nil)
	t.Release()
	client, server := l.connectBoth()
	if d == Upload {
		return client, server
	}
	return server, client
}

func (l *lab) connectBoth() (client, server *net.TCPConn) {
	if l.legs[Client] == nil && l.legs[Server] == nil {
		server = l.connect(Server) // the server is called first
		return l.connect(Client), server
	}
	if l.legs[Client] == nil { // a client is called once the server has been
		server = l.connect(Server)
		return l.connect(Client), server
	}
	client = l.connect(Client)
	return client, l.connect(Server)
}

// copied waits until the transfer has copied.
func (l *lab) copied() error {
	<-l.transfer.Copied()
	return l.transfer.Err()
}

// commit ends the transfer as whole.
func (l *lab) commit() {
	l.transfer.Commit()
	<-l.transfer.Closed()
}

// read reads a connection to its end in the background. The channel is closed when it is there.
func read(c net.Conn, w io.Writer) (done <-chan struct{}, err *error) {
	ended := make(chan struct{})
	err = new(error)
	go func() {
		defer close(ended)
		_, *err = io.Copy(w, struct{ io.Reader }{c})
	}()
	return ended, err
}

// send writes to a connection in the background, until it is broken.
func send(c net.Conn, r io.Reader) (done <-chan struct{}, err *error) {
	ended := make(chan struct{})
	err = new(error)
	go func() {
		defer close(ended)
		_, *err = io.Copy(struct{ io.Writer }{c}, r)
	}()
	return ended, err
}

// zeros is a sender that never comes to its end.
type zeros struct{}

func (zeros) Read(p []byte) (int, error) { return len(p), nil }

// modes are the four ways of making two legs.
var modes = []struct {
	name                         string
	clientListens, serverListens bool
}{
	{"passive", true, false},
	{"active", false, true},
	{"both listen", true, true},
	{"both dial", false, false},
}
