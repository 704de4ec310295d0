package tlsmitm

import (
	"bytes"
	"context"
	"crypto/rand"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"os"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"ftpalg/integration/ftptest"
)

// cutter is a connection of which, when it is told to, a record's last bytes are lost.
type cutter struct {
	net.Conn
	cut bool
}

func (c *cutter) Write(b []byte) (int, error) {
	if c.cut {
		_, err := c.Conn.Write(b[:len(b)-3])
		return len(b), err
	}
	return c.Conn.Write(b)
}

// ends are the ways in which a peer's connection ends, and what Read makes of them.
var ends = map[string]struct {
	end      func(*peer, *cutter)
	err      error // as errors.Is sees it
	tolerant error // the same, of a connection that is tolerant
}{
	"close_notify":        {func(p *peer, _ *cutter) { p.Close() }, io.EOF, io.EOF},
	"close_notify alone":  {func(p *peer, _ *cutter) { p.CloseWrite() }, io.EOF, io.EOF},
	"FIN":                 {func(p *peer, _ *cutter) { p.tcp.CloseWrite() }, io.ErrUnexpectedEOF, io.EOF},
	"close without words": {func(p *peer, _ *cutter) { p.tcp.Close() }, io.ErrUnexpectedEOF, io.EOF},
	"FIN inside a record": {func(p *peer, c *cutter) {
		c.cut = true
		p.Write(make([]byte, 1000))
		p.tcp.CloseWrite()
	}, io.ErrUnexpectedEOF, io.ErrUnexpectedEOF},
	"FIN inside close_notify": {func(p *peer, c *cutter) {
		c.cut = true
		p.CloseWrite()
		p.tcp.CloseWrite()
	}, io.ErrUnexpectedEOF, io.ErrUnexpectedEOF},
	"RST": {func(p *peer, _ *cutter) {
		p.tcp.SetLinger(0)
		p.tcp.Close()
	}, syscall.ECONNRESET, syscall.ECONNRESET},
}

// TestEnd: a connection ends where its peer says so by close_notify, and not where somebody has cut it off.
func TestEnd(t *testing.T) {
	l := newLab(t)
	server := l.server(example())
	for version, number := range versions {
		strict, tolerant := l.session("strict"), l.session("tolerant")
		tolerant.Meet(ServerOptions{Tolerant: true})
		for _, s := range []*Session{strict, tolerant} {
			mustIntercept(t, s, l.client(), of(number, server))
		}
		toClient := func(c *cutter) *tls.Conn { return tls.Client(c, of(number, l.client())) }
		toServer := func(c *cutter) *tls.Conn { return tls.Server(c, of(number, server)) }
		for name, test := range ends {
			for _, size := range []int{0, 100, 300_000} {
				for _, kind := range []struct {
					name string
					far  func(*cutter) *tls.Conn
					near func(context.Context, net.Conn) (Data, error)
					want error
				}{
					{"client", toClient, func(ctx context.Context, c net.Conn) (Data, error) { return strict.ClientData(ctx, c, false) }, test.err},
					{"server", toServer, strict.ServerData, test.err},
					{"tolerated server", toServer, tolerant.ServerData, test.tolerant},
				} {
					t.Run(fmt.Sprintf("%s/%s/%d/%s", version, name, size, kind.name), func(t *testing.T) {
						var below *cutter
						near, far, err := join(t, func(c *net.TCPConn) *tls.Conn {
							below = &cutter{Conn: c}
							return kind.far(below)
						}, kind.near)
						if err != nil || far.err != nil {
							t.Fatal(err, far.err)
						}
						greet(t, near, far) // or a ticket that it has not read would make its end a reset
						sent := make([]byte, size)
						rand.Read(sent)
						written := make(chan struct{})
						go func() {
							defer close(written)
							far.Write(sent)
						}()
						got := make([]byte, size)
						if _, err := io.ReadFull(near, got); err != nil || !bytes.Equal(got, sent) {
							t.Fatalf("it does not get what was sent: %v", err)
						}
						<-written // or Close would take itself for a way to end it
						test.end(far, below)
						n, err := near.Read(make([]byte, 1))
						if n != 0 || !errors.Is(err, kind.want) || errors.Is(err, io.EOF) != (err == io.EOF) {
							t.Errorf("%d bytes and %v, want %v", n, err, kind.want)
						}
						if _, again := near.Read(make([]byte, 1)); !errors.Is(again, kind.want) {
							t.Errorf("and then %v", again)
						}
					})
				}
			}
		}
	}
}

// TestEndOfControl: clients may leave as they like, since their last word is QUIT; of servers it is known.
func TestEndOfControl(t *testing.T) {
	l := newLab(t)
	for version, number := range versions {
		t.Run(version, func(t *testing.T) {
			m := mustIntercept(t, l.session("1"), of(number, l.client()), of(number, l.server(example())))
			m.client.tcp.CloseWrite()
			m.server.tcp.CloseWrite()
			if _, err := m.c.Read(make([]byte, 1)); err != io.EOF {
				t.Errorf("the client: %v", err)
			}
			_, err := m.v.Read(make([]byte, 1))
			const want = "the connection ended without TLS's close_notify"
			if !errors.Is(err, io.ErrUnexpectedEOF) || err.Error() != want {
				t.Errorf("the server: %v, want %s", err, want)
			}
		})
	}
}

// TestNetConn: CloseWrite leaves the connection below open, and NetConn is it.
func TestNetConn(t *testing.T) {
	l := newLab(t)
	m := mustIntercept(t, l.session("1"), l.client(), l.server(example()))
	if m.v.NetConn() != net.Conn(m.toServer) {
		t.Errorf("NetConn is %v", m.v.NetConn())
	}
	if err := m.v.CloseWrite(); err != nil {
		t.Fatal(err)
	}
	if _, err := m.server.Read(make([]byte, 1)); err != io.EOF {
		t.Errorf("the server read %v", err)
	}
	greet(t, m.server, m.v)
	m.server.tcp.Write([]byte("x"))
	m.toServer.SetReadDeadline(time.Time{})
	if n, err := m.v.NetConn().Read(make([]byte, 2)); n != 1 || err != nil {
		t.Errorf("read %d bytes below, %v", n, err)
	}
}

// slow is a connection that takes each Write after a while, if its deadline allows.
type slow struct {
	net.Conn
	pause time.Duration
	by    time.Time
}

func (s *slow) SetWriteDeadline(t time.Time) error {
	s.by = t
	return nil
}

func (s *slow) Write(b []byte) (int, error) {
	if left := time.Until(s.by); !s.by.IsZero() && left < s.pause {
		time.Sleep(left)
		return 0, os.ErrDeadlineExceeded
	}
	time.Sleep(s.pause)
	return s.Conn.Write(b)
}

// TestCloseWriteSlow: close_notify has the time that other bytes have, for a receiver that takes them slowly.
func TestCloseWriteSlow(t *testing.T) {
	for limit, want := range map[time.Duration]error{time.Minute: nil, 10 * time.Second: os.ErrDeadlineExceeded} {
		synctest.Test(t, func(t *testing.T) {
			l := newLab(t)
			near, far := pipe()
			defer near.Close()
			client := tls.Client(far, l.client())
			go client.Handshake()
			below := &slow{Conn: near}
			c, err := l.session("1").ToClient(t.Context(), below)
			if err != nil {
				t.Fatal(err)
			}
			below.pause = 20 * time.Second
			c.SetWriteDeadline(time.Now().Add(limit))
			if err := c.CloseWrite(); !errors.Is(err, want) {
				t.Errorf("with %v: %v", limit, err)
			}
			if _, err := c.Write([]byte("x")); err == nil {
				t.Error("it can be written to after its end")
			}
		})
	}
}

// pipe is the two ends of a connection in memory, for tests in a bubble.
func pipe() (near, far *ftptest.Conn) {
	return ftptest.Pipe(netip.MustParseAddrPort("192.0.2.2:40000"), netip.MustParseAddrPort("198.51.100.2:21"))
}
