package dataconn

import (
	"bytes"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"math/big"
	mathrand "math/rand/v2"
	"net"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"ftpalg/tlsmitm"
)

// certificate is what servers have, and clients see.
var certificate = sync.OnceValue(func() *tls.Certificate {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		panic(err)
	}
	template := &x509.Certificate{SerialNumber: big.NewInt(1), NotAfter: time.Now().Add(time.Hour)}
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		panic(err)
	}
	return &tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key}
})

// secrecy secures the legs of transfers, and their peers.
type secrecy struct {
	secure [2]Secure
	peers  [2]func(net.Conn) *tls.Conn
}

// newSecrecy has a session begin with a client and a server over their control connections.
func newSecrecy(t *testing.T, version uint16) *secrecy {
	t.Helper()
	client := &tls.Config{InsecureSkipVerify: true, ServerName: "ftp.example.com", MinVersion: version, MaxVersion: version,
		ClientSessionCache: tls.NewLRUClientSessionCache(1)}
	server := &tls.Config{Certificates: []tls.Certificate{*certificate()}}
	s := tlsmitm.New(tlsmitm.Options{}).Session(tlsmitm.SessionOptions{ID: "1", Certificate: certificate()})
	s.Meet(tlsmitm.ServerOptions{Verify: tlsmitm.Off, MinVersion: version, MaxVersion: version})
	secret := &secrecy{
		secure: [2]Secure{
			func(ctx context.Context, c net.Conn) (Stream, error) { return s.ClientData(ctx, c, false) },
			func(ctx context.Context, c net.Conn) (Stream, error) { return s.ServerData(ctx, c) },
		},
		peers: [2]func(net.Conn) *tls.Conn{
			func(c net.Conn) *tls.Conn { return tls.Client(c, client) },
			func(c net.Conn) *tls.Conn { return tls.Server(c, server) },
		},
	}
	var near [2]net.Conn
	var all sync.WaitGroup
	for side, peer := range secret.peers {
		a, b := connected(t)
		near[side] = a
		all.Go(func() { peer(b).Handshake() })
	}
	if _, _, err := s.Intercept(t.Context(), near[Client], near[Server]); err != nil {
		t.Fatal(err)
	}
	all.Wait()
	return secret
}

// connected is the two ends of a connection on loopback.
func connected(t *testing.T) (near, far net.Conn) {
	t.Helper()
	l, err := loopback{}.Listen(t.Context(), Client, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	if near, err = net.Dial("tcp", l.Addr().String()); err == nil {
		far, err = l.Accept()
	}
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		near.Close()
		far.Close()
	})
	return near, far
}

// peer is a peer's end of its leg: with TLS, or the TCP connection itself.
type peer struct {
	net.Conn
	tcp *watchedTCP
}

// watchedTCP notes that a connection has ended, which crypto/tls takes for an end that its peer has spoken of.
type watchedTCP struct {
	*net.TCPConn
	ended bool
	cut   bool // the end of what is written is lost
}

func (w *watchedTCP) Read(p []byte) (int, error) {
	n, err := w.TCPConn.Read(p)
	w.ended = w.ended || err == io.EOF
	return n, err
}

func (w *watchedTCP) Write(p []byte) (int, error) {
	if w.cut {
		_, err := w.TCPConn.Write(p[:len(p)-3])
		return len(p), err
	}
	return w.TCPConn.Write(p)
}

// secured reports whether the peer speaks TLS.
func (p *peer) secured() bool { return p.Conn != net.Conn(p.tcp) }

// end is the end of a file: close_notify, where there is TLS, and the end of what is written.
func (p *peer) end() {
	if c, ok := p.Conn.(*tls.Conn); ok {
		c.CloseWrite()
	}
	p.tcp.CloseWrite()
}

// sawEnd checks that a peer reads an end now, by close_notify if there is TLS, and then the end of the connection.
func (p *peer) sawEnd(t *testing.T, who string) {
	t.Helper()
	if n, err := io.Copy(io.Discard, struct{ io.Reader }{p}); n != 0 || err != nil {
		t.Errorf("the %s read %d bytes and %v, want its end", who, n, err)
	}
	if p.secured() && p.tcp.ended {
		t.Errorf("the %s's connection ended without close_notify", who)
	}
	if n, err := p.tcp.Read(make([]byte, 1)); n != 0 || err != io.EOF {
		t.Errorf("the %s read %d bytes and %v below, want its end", who, n, err)
	}
}

// join connects a peer, with TLS or without. Its handshake is for the caller to begin.
func (l *lab) join(secret *secrecy, side Side, secured bool) *peer {
	p := &peer{tcp: &watchedTCP{TCPConn: l.connect(side)}}
	p.Conn = p.tcp
	if secured {
		p.Conn = secret.peers[side](p.tcp)
	}
	return p
}

// joinBoth connects both peers, by Side.
func (l *lab) joinBoth(secret *secrecy, secured [2]bool) (peers [2]*peer) {
	first, second := Client, Server
	if l.legs[Client] == nil {
		first, second = Server, Client
	}
	peers[first] = l.join(secret, first, secured[first])
	peers[second] = l.join(secret, second, secured[second])
	return peers
}

// handshakes has both peers shake hands.
func handshakes(t *testing.T, peers [2]*peer) {
	t.Helper()
	var both sync.WaitGroup
	for side, p := range peers {
		if c, ok := p.Conn.(*tls.Conn); ok {
			both.Go(func() {
				if err := c.Handshake(); err != nil {
					t.Errorf("the %v: %v", Side(side), err)
				}
			})
		}
	}
	both.Wait()
}

// securing is what Begin needs for those legs.
func (s *secrecy) securing(secured [2]bool) (secure [2]Secure) {
	for side, yes := range secured {
		if yes {
			secure[side] = s.secure[side]
		}
	}
	return secure
}

// beginSecured is begin, with TLS on those legs. The handshakes are over.
func (l *lab) beginSecured(d Direction, secret *secrecy, secured [2]bool, i Inspector) (from, to *peer) {
	l.t.Helper()
	t := l.arm()
	t.Begin(d, secret.securing(secured), i)
	t.Release()
	peers := l.joinBoth(secret, secured)
	handshakes(l.t, peers)
	if d == Upload {
		return peers[Client], peers[Server]
	}
	return peers[Server], peers[Client]
}

var both = [2]bool{true, true}

// sides are the legs that can be secured.
var sides = map[string][2]bool{"client": {true, false}, "server": {false, true}, "both": both}

var directions = map[string]Direction{"download": Download, "upload": Upload}

// sender and receiver are the sides of a direction.
func (d Direction) sender() Side   { return Side(1 - d) }
func (d Direction) receiver() Side { return Side(d) }

// TestSecured is TestWhole with TLS. Ends are said by close_notify, and the server of a download is answered at once.
func TestSecured(t *testing.T) {
	for version, number := range map[string]uint16{"1.2": tls.VersionTLS12, "1.3": tls.VersionTLS13} {
		secret := newSecrecy(t, number)
		for _, mode := range modes {
			for direction, d := range directions {
				for which, secured := range sides {
					for _, size := range []int64{0, 1, 1 << 20} {
						t.Run(fmt.Sprintf("%s/%s/%s/%s/%d", version, mode.name, direction, which, size), func(t *testing.T) {
							l := newLab(t, mode.clientListens, mode.serverListens)
							from, to := l.beginSecured(d, secret, secured, nil)
							got, want := sha256.New(), sha256.New()
							ended, readErr := read(to, got)
							source := io.LimitReader(mathrand.NewChaCha8([32]byte{1}), size)
							if n, err := io.Copy(from, io.TeeReader(source, want)); err != nil || n != size {
								t.Fatalf("sent %d bytes: %v", n, err)
							}
							from.end()
							if err := l.copied(); err != nil {
								t.Fatal(err)
							}
							select {
							case <-ended:
								t.Error("the receiver heard of the end before it was confirmed")
							default:
							}
							if d == Download {
								from.sawEnd(t, "server")
							}
							l.transfer.Commit()
							<-ended
							if *readErr != nil {
								t.Errorf("the receiver: %v", *readErr)
							}
							to.sawEnd(t, "receiver")
							to.Close()
							<-l.transfer.Closed()
							if d == Upload {
								from.sawEnd(t, "client")
							}
							if string(got.Sum(nil)) != string(want.Sum(nil)) {
								t.Error("the receiver got something else")
							}
							if err := l.transfer.Delivered(); err != nil {
								t.Error(err)
							}
							if n := l.transfer.Bytes(); n != size {
								t.Errorf("%d bytes were counted", n)
							}
							if by := l.transfer.Carried(); by != Secured || by.String() != "tls" {
								t.Errorf("carried by %v", by)
							}
						})
					}
				}
			}
		}
	}
}

// TestUnreadOfServer: a server of TLS 1.3 has said something (tickets, as a rule) that nobody reads in an upload. That must not
// make a reset of our close, which would cost the server the file's end.
func TestUnreadOfServer(t *testing.T) {
	secret := newSecrecy(t, tls.VersionTLS13)
	for range 5 {
		l := newLab(t, true, false)
		from, to := l.beginSecured(Upload, secret, both, nil)
		if _, err := to.Write(make([]byte, 1000)); err != nil {
			t.Fatal(err)
		}
		const size = 100_000 // the kernel holds it all
		if _, err := from.Write(make([]byte, size)); err != nil {
			t.Fatal(err)
		}
		from.end()
		if err := l.copied(); err != nil {
			t.Fatal(err)
		}
		l.transfer.Commit()
		time.Sleep(20 * time.Millisecond) // for the reset that must not come
		if n, err := io.Copy(io.Discard, struct{ io.Reader }{to}); n != size || err != nil {
			t.Fatalf("the server got %d bytes and saw %v", n, err)
		}
		to.sawEnd(t, "server")
		to.Close()
		<-l.transfer.Closed()
		if err := l.transfer.Delivered(); err != nil {
			t.Error(err)
		}
	}
}

// breaks are the ways in which a sender's connection ends though its file does not, or nobody knows.
var breaks = map[string]struct {
	end  func(*peer)
	want error
}{
	"reset": {func(p *peer) { p.tcp.SetLinger(0); p.tcp.Close() }, syscall.ECONNRESET},
	"FIN":   {func(p *peer) { p.tcp.CloseWrite() }, io.ErrUnexpectedEOF},
	"FIN in a record": {func(p *peer) {
		p.tcp.cut = true
		p.Write([]byte("more"))
		p.tcp.CloseWrite()
	}, io.ErrUnexpectedEOF},
	"plain text": {func(p *peer) { p.tcp.Write([]byte("more, in the clear\r\n")); p.tcp.CloseWrite() }, nil},
}

// TestSecuredBrokenSender: a file that broke is never an end to its receiver, and neither is one whose end was not said.
func TestSecuredBrokenSender(t *testing.T) {
	secret := newSecrecy(t, tls.VersionTLS13)
	for _, mode := range modes {
		for direction, d := range directions {
			for _, receiver := range []string{"TLS", "plain"} {
				for name, test := range breaks {
					t.Run(fmt.Sprintf("%s/%s/%s/%s", mode.name, direction, receiver, name), func(t *testing.T) {
						l := newLab(t, mode.clientListens, mode.serverListens)
						secured := both
						secured[d.receiver()] = receiver == "TLS"
						from, to := l.beginSecured(d, secret, secured, nil)
						from.Write(make([]byte, 100_000))
						if _, err := io.ReadFull(to, make([]byte, 100_000)); err != nil { // a reset overtakes what was not read
							t.Fatal(err)
						}
						test.end(from)
						err := l.copied()
						var leg *LegError
						if !errors.As(err, &leg) || leg.Act != "read" || leg.Side != d.sender() || test.want != nil && !errors.Is(err, test.want) {
							t.Errorf("%v, want %v", err, test.want)
						}
						sawReset(t, "receiver", to)
						<-l.transfer.Closed()
					})
				}
			}
		}
	}
}

// TestSecuredBrokenReceiver: a receiver that breaks makes the sender see a reset.
func TestSecuredBrokenReceiver(t *testing.T) {
	secret := newSecrecy(t, tls.VersionTLS13)
	for _, mode := range modes {
		for direction, d := range directions {
			t.Run(mode.name+"/"+direction, func(t *testing.T) {
				l := newLab(t, mode.clientListens, mode.serverListens)
				from, to := l.beginSecured(d, secret, both, nil)
				sent, sendErr := send(from, zeros{})
				if _, err := io.ReadFull(to, make([]byte, 1<<20)); err != nil {
					t.Fatal(err)
				}
				to.tcp.SetLinger(0)
				to.tcp.Close()
				err := l.copied()
				var leg *LegError
				if !errors.As(err, &leg) || leg.Act != "write" || leg.Side != d.receiver() {
					t.Errorf("%v", err)
				}
				<-sent
				if !errors.Is(*sendErr, syscall.ECONNRESET) && !errors.Is(*sendErr, syscall.EPIPE) {
					t.Errorf("the sender saw %v", *sendErr)
				}
				<-l.transfer.Closed()
			})
		}
	}
}

// TestHandshakeFails: a leg whose handshake fails or stalls is named, and the other's peer sees a reset, whether its own
// handshake is over or it has none.
func TestHandshakeFails(t *testing.T) {
	secret := newSecrecy(t, tls.VersionTLS13)
	for _, side := range []Side{Client, Server} {
		for _, other := range []string{"TLS", "plain"} {
			for name, act := range map[string]func(*net.TCPConn){
				"stalls":     func(*net.TCPConn) {},
				"talks":      func(c *net.TCPConn) { c.Write([]byte("not what you think\r\n")) },
				"ends":       func(c *net.TCPConn) { c.CloseWrite() },
				"is reset":   func(c *net.TCPConn) { c.SetLinger(0); c.Close() },
				"talks late": func(c *net.TCPConn) { c.Write([]byte{22, 3, 1, 0, 100, 1}) },
			} {
				t.Run(fmt.Sprintf("%v/%s/%s", side, name, other), func(t *testing.T) {
					l := newLab(t, true, false)
					late := strings.HasPrefix(name, "stalls") || strings.HasSuffix(name, "late")
					if late {
						l.opts.Setup = 40 * time.Millisecond
					}
					secured := both
					secured[1-side] = other == "TLS"
					tr := l.arm()
					tr.Begin(Download, secret.securing(secured), nil)
					peers := l.joinBoth(secret, secured)
					<-tr.Ready()
					c, ok := peers[1-side].Conn.(*tls.Conn)
					if ok && side == Server { // with a server we begin after Release
						if err := c.Handshake(); err != nil {
							t.Fatal(err)
						}
					}
					act(peers[side].tcp.TCPConn)
					if late {
						// The clock runs from Release: clients begin after 150.
						select {
						case <-tr.Copied():
							t.Errorf("before Release: %v", tr.Err())
						case <-time.After(2 * l.opts.Setup):
						}
					}
					begin := time.Now()
					tr.Release()
					if ok && side == Client {
						c.Handshake() // it may fail, since the client's has
					}
					err := l.copied()
					var leg *LegError
					if !errors.As(err, &leg) || leg.Side != side || leg.Act != "TLS" || errors.Is(err, ErrSetup) != late {
						t.Errorf("%v", err)
					}
					if took := time.Since(begin); late && took < l.opts.Setup {
						t.Errorf("after %v", took)
					}
					sawReset(t, "other", peers[1-side])
					<-tr.Closed()
					if tr.Bytes() != 0 || !tr.Connected() {
						t.Errorf("%d bytes, connected: %v", tr.Bytes(), tr.Connected())
					}
				})
			}
		}
	}
}

// TestBothStall: of two legs that are late the client's is named, since it is the client that is told.
func TestBothStall(t *testing.T) {
	secret := newSecrecy(t, tls.VersionTLS13)
	l := newLab(t, true, false)
	l.opts.Setup = 40 * time.Millisecond
	tr := l.arm()
	tr.Begin(Download, secret.secure, nil)
	peers := l.joinBoth(secret, both)
	tr.Release()
	err := l.copied()
	var leg *LegError
	if !errors.As(err, &leg) || leg.Side != Client || leg.Act != "TLS" || !errors.Is(err, ErrSetup) {
		t.Errorf("%v", err)
	}
	sawReset(t, "client", peers[Client].tcp)
	sawReset(t, "server", peers[Server].tcp)
}

// TestSecuredReset resets a transfer with TLS in the phases that one without does not have. Nobody hears close_notify.
func TestSecuredReset(t *testing.T) {
	secret := newSecrecy(t, tls.VersionTLS13)
	for _, mode := range modes[:3] {
		for name, upTo := range map[string]func(l *lab, peers [2]*peer){
			"before the handshakes": func(*lab, [2]*peer) {},
			"in the client's": func(l *lab, peers [2]*peer) {
				l.transfer.Release() // with a server we begin after it
				peers[Client].tcp.Write([]byte{22, 3, 1})
				if err := peers[Server].Conn.(*tls.Conn).Handshake(); err != nil {
					l.t.Error(err)
				}
			},
			"in the server's": func(l *lab, peers [2]*peer) {
				if err := peers[Client].Conn.(*tls.Conn).Handshake(); err != nil {
					l.t.Error(err)
				}
			},
			"after them": func(l *lab, peers [2]*peer) {
				l.transfer.Release()
				handshakes(l.t, peers)
			},
			"copying": func(l *lab, peers [2]*peer) {
				l.transfer.Release()
				handshakes(l.t, peers)
				peers[Server].Write([]byte("x"))
				io.ReadFull(peers[Client], make([]byte, 1))
			},
			"copied": func(l *lab, peers [2]*peer) {
				l.transfer.Release()
				handshakes(l.t, peers)
				peers[Server].end()
				if err := l.copied(); err != nil {
					l.t.Error(err)
				}
			},
		} {
			t.Run(mode.name+"/"+name, func(t *testing.T) {
				l := newLab(t, mode.clientListens, mode.serverListens)
				tr := l.arm()
				tr.Begin(Download, secret.secure, nil)
				peers := l.joinBoth(secret, both)
				<-tr.Ready()
				upTo(l, peers)
				tr.Reset()
				<-tr.Closed()
				if err := tr.Err(); !errors.Is(err, ErrReset) && name != "copied" {
					t.Errorf("%v", err)
				}
				for side, p := range peers {
					switch c, ok := p.Conn.(*tls.Conn); {
					case name == "copied" && Side(side) == Server:
						p.sawEnd(t, "server")
					case ok && c.ConnectionState().HandshakeComplete:
						sawReset(t, Side(side).String(), p)
					default:
						sawReset(t, Side(side).String(), p.tcp)
					}
				}
			})
		}
	}
}

// TestSecuredIdle: no byte moves, for one reason or the other.
func TestSecuredIdle(t *testing.T) {
	secret := newSecrecy(t, tls.VersionTLS13)
	for direction, d := range directions {
		for _, act := range []string{"read", "write"} {
			t.Run(direction+"/"+act, func(t *testing.T) {
				l := newLab(t, true, false)
				l.opts.Idle = 100 * time.Millisecond
				begin := time.Now()
				from, to := l.beginSecured(d, secret, both, nil)
				var sent <-chan struct{}
				side := d.sender()
				if act == "write" {
					side = d.receiver()
					sent, _ = send(from, zeros{})
				}
				err := l.copied()
				var leg *LegError
				if !errors.Is(err, ErrIdle) || !errors.As(err, &leg) || leg.Act != act || leg.Side != side {
					t.Errorf("%v", err)
				}
				if took := time.Since(begin); took < l.opts.Idle {
					t.Errorf("after %v", took)
				}
				sawReset(t, "receiver", to)
				if sent == nil {
					sawReset(t, "sender", from)
				} else {
					<-sent
				}
			})
		}
	}
}

// mumbling is a stream that cannot say its end.
type mumbling struct{ net.Conn }

func (mumbling) CloseWrite() error { return io.ErrShortWrite }

// TestLastWord: a receiver that could not be told of the end sees a reset, and was not delivered to.
func TestLastWord(t *testing.T) {
	for direction, d := range directions {
		t.Run(direction, func(t *testing.T) {
			l := newLab(t, true, false)
			tr := l.arm()
			var secure [2]Secure
			secure[d.receiver()] = func(_ context.Context, c net.Conn) (Stream, error) { return mumbling{c}, nil }
			tr.Begin(d, secure, nil)
			tr.Release()
			client, server := l.connectBoth()
			from, to := server, client
			if d == Upload {
				from, to = client, server
			}
			from.CloseWrite()
			if err := l.copied(); err != nil {
				t.Fatal(err)
			}
			l.commit()
			var leg *LegError
			err := tr.Delivered()
			if !errors.As(err, &leg) || leg.Act != "close" || leg.Side != d.receiver() || !errors.Is(err, io.ErrShortWrite) {
				t.Errorf("%v", err)
			}
			sawReset(t, "receiver", to)
		})
	}
}

// taster is an Inspector that keeps what it sees.
type taster struct {
	seen    bytes.Buffer
	limit   int // beyond which it fails; 0: none
	verdict error
	asked   int
}

var errTaste = errors.New("distasteful")

func (i *taster) Write(p []byte) (int, error) {
	i.seen.Write(p)
	if i.limit > 0 && i.seen.Len() > i.limit {
		return 0, errTaste
	}
	return len(p), nil
}

func (i *taster) Verdict() error {
	i.asked++
	return i.verdict
}

// TestInspected: an Inspector sees each byte once, in the clear, and what it says no to looks whole to nobody.
func TestInspected(t *testing.T) {
	secret := newSecrecy(t, tls.VersionTLS13)
	file := make([]byte, 300_000)
	rand.Read(file)
	for direction, d := range directions {
		for which, secured := range map[string][2]bool{"plain": {}, "client": {true, false}, "server": {false, true}, "both": both} {
			for name, test := range map[string]struct {
				file     []byte
				taster   taster
				unbroken bool
			}{
				"whole":       {file: file, unbroken: true},
				"empty":       {unbroken: true},
				"stopped":     {file: file, taster: taster{limit: 200_000}},
				"at once":     {file: file, taster: taster{limit: 1}},
				"condemned":   {file: file, taster: taster{verdict: errTaste}},
				"empty, also": {taster: taster{verdict: errTaste}},
			} {
				t.Run(fmt.Sprintf("%s/%s/%s", direction, which, name), func(t *testing.T) {
					l := newLab(t, true, false)
					i := &test.taster
					from, to := l.beginSecured(d, secret, secured, i)
					var got bytes.Buffer
					ended, readErr := read(to, &got)
					_, sendErr := from.Write(test.file)
					if test.taster.limit == 0 {
						from.end()
					}
					err := l.copied()
					want := Copied
					if secured != [2]bool{} {
						want = Secured
					}
					if by := l.transfer.Carried(); by != want {
						t.Errorf("carried by %v", by)
					}
					if test.unbroken {
						if err != nil {
							t.Fatal(err)
						}
						l.transfer.Commit()
						<-ended
						if *readErr != nil || !bytes.Equal(got.Bytes(), test.file) {
							t.Errorf("the receiver got %d bytes, and saw %v", got.Len(), *readErr)
						}
						if !bytes.Equal(i.seen.Bytes(), test.file) || i.asked != 1 {
							t.Errorf("%d bytes were seen, and the verdict was asked for %d times", i.seen.Len(), i.asked)
						}
						to.sawEnd(t, "receiver")
						to.Close()
						from.sawEnd(t, "sender")
						return
					}
					if err != errTaste {
						t.Errorf("%v", err)
					}
					<-ended
					if !errors.Is(*readErr, syscall.ECONNRESET) {
						t.Errorf("the receiver saw %v", *readErr)
					}
					if sendErr == nil {
						sawReset(t, "sender", from)
					} else if !errors.Is(sendErr, syscall.ECONNRESET) && !errors.Is(sendErr, syscall.EPIPE) {
						t.Errorf("the sender saw %v", sendErr)
					}
					if test.taster.limit > 0 && (l.transfer.Bytes() > int64(i.limit) || i.asked > 0) {
						t.Errorf("%d bytes went on, and the verdict was asked for %d times", l.transfer.Bytes(), i.asked)
					}
					if !bytes.HasPrefix(test.file, got.Bytes()) {
						t.Error("the receiver got something else")
					}
				})
			}
		}
	}
}

// TestNotCarried: legs that did not connect have carried nothing.
func TestNotCarried(t *testing.T) {
	l := newLab(t, true, false)
	tr := l.arm()
	tr.Reset()
	<-tr.Copied()
	if by := tr.Carried(); by != NotCarried || by.String() != "" {
		t.Errorf("carried by %v", by)
	}
}
