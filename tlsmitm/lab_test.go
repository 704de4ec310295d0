package tlsmitm

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"net"
	"sync/atomic"
	"testing"
	"time"
)

// lab has what sessions between TLS clients and servers need: our authority, the servers' authority, and an Interceptor.
type lab struct {
	t           testing.TB
	root, their *identity
	mint        *Mint
	interceptor *Interceptor
}

func newLab(t testing.TB) *lab {
	l := &lab{t: t,
		root:  issued(t, always(authorityOf("Example Authority")), nil),
		their: issued(t, always(authorityOf("Their Authority")), nil),
	}
	l.mint = NewMint(authority(t, l.root), 10)
	l.interceptor = New(Options{Mint: l.mint, Roots: pool(l.their.cert)})
	return l
}

// session is one towards a server that is ftp.example.com.
func (l *lab) session(id string) *Session {
	s := l.interceptor.Session(SessionOptions{ID: id})
	s.Meet(ServerOptions{})
	return s
}

// server is the configuration of a server with a certificate of that template by their authority.
func (l *lab) server(template x509.Certificate) *tls.Config {
	return &tls.Config{Certificates: []tls.Certificate{issued(l.t, template, l.their).tls()}}
}

// always makes a template valid at the time of any bubble, too.
func always(template x509.Certificate) x509.Certificate {
	template.NotBefore, template.NotAfter = time.Date(1999, 1, 1, 0, 0, 0, 0, time.UTC), time.Date(2100, 1, 1, 0, 0, 0, 0, time.UTC)
	return template
}

// example is the template of the server that clients ask for.
func example() x509.Certificate { return x509.Certificate{DNSNames: []string{"ftp.example.com"}} }

// client is the configuration of a client that trusts our authority, and asks for ftp.example.com.
func (l *lab) client() *tls.Config {
	return &tls.Config{RootCAs: pool(l.root.cert), ServerName: "ftp.example.com", ClientSessionCache: &pinned{}}
}

// tls is the identity as crypto/tls has it.
func (i *identity) tls(above ...*identity) tls.Certificate {
	c := tls.Certificate{Certificate: [][]byte{i.cert.Raw}, PrivateKey: i.key}
	for _, a := range above {
		c.Certificate = append(c.Certificate, a.cert.Raw)
	}
	return c
}

// wire is the two ends of a connection on loopback. Both are closed with the test.
func wire(t testing.TB) (near, far *net.TCPConn) {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	a, err := net.Dial("tcp", l.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	b, err := l.Accept()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		a.Close()
		b.Close()
	})
	return a.(*net.TCPConn), b.(*net.TCPConn)
}

// peer is the far end of a connection, with TLS and what became of its handshake.
type peer struct {
	*tls.Conn
	tcp  *net.TCPConn
	err  error // of the handshake; see done
	done chan struct{}
}

// begin has a peer shake hands in the background. A peer whose handshake fails closes its connection.
func begin(c *tls.Conn, tcp *net.TCPConn) *peer {
	p := &peer{Conn: c, tcp: tcp, done: make(chan struct{})}
	go func() {
		defer close(p.done)
		if p.err = c.Handshake(); p.err != nil {
			tcp.Close()
		}
	}()
	return p
}

// met is a session with both of its peers.
type met struct {
	session        *Session
	client, server *peer
	c, v           *Conn // what we have of them
	err            error // of Intercept
	toServer       *counted
}

// counted counts what is written to a connection.
type counted struct {
	net.Conn
	written atomic.Int64
}

func (c *counted) Write(b []byte) (int, error) {
	n, err := c.Conn.Write(b)
	c.written.Add(int64(n))
	return n, err
}

// intercept has a client and a server meet in a session, and greet each other: whoever issues a ticket has then done so.
func intercept(t testing.TB, s *Session, client, server *tls.Config) *met {
	t.Helper()
	nearClient, farClient := wire(t)
	nearServer, farServer := wire(t)
	m := &met{session: s, toServer: &counted{Conn: nearServer},
		client: begin(tls.Client(farClient, client), farClient), server: begin(tls.Server(farServer, server), farServer)}
	m.c, m.v, m.err = s.Intercept(t.Context(), nearClient, m.toServer)
	if m.err != nil {
		nearClient.Close()
	}
	if m.v == nil {
		nearServer.Close()
	}
	<-m.client.done
	<-m.server.done
	if m.err == nil && m.client.err == nil && m.server.err == nil {
		greet(t, m.server, m.v)
		greet(t, m.c, m.client)
	}
	return m
}

// mustIntercept is the same, and fails if it fails.
func mustIntercept(t testing.TB, s *Session, client, server *tls.Config) *met {
	t.Helper()
	m := intercept(t, s, client, server)
	if m.err != nil || m.client.err != nil || m.server.err != nil {
		t.Fatalf("%v; the client: %v; the server: %v", m.err, m.client.err, m.server.err)
	}
	return m
}

// greet has one end say something that the other must hear.
func greet(t testing.TB, from, to net.Conn) {
	t.Helper()
	if _, err := from.Write([]byte("220")); err != nil {
		t.Fatal(err)
	}
	b := make([]byte, 3)
	for n := 0; n < len(b); {
		m, err := to.Read(b[n:])
		if n += m; err != nil {
			t.Fatal(err)
		}
	}
}

// join makes one TLS connection between a peer and us, either of whom may refuse it.
func join[C net.Conn](t testing.TB, far func(*net.TCPConn) *tls.Conn, near func(context.Context, net.Conn) (C, error)) (C, *peer, error) {
	t.Helper()
	ours, theirs := wire(t)
	p := begin(far(theirs), theirs)
	c, err := near(t.Context(), ours)
	if err != nil {
		ours.Close()
	}
	<-p.done
	return c, p, err
}

// serverData makes a server's data connection, and has the server say something on it.
func serverData(t testing.TB, s *Session, server *tls.Config) (Data, *peer, error) {
	t.Helper()
	v, p, err := join(t, func(c *net.TCPConn) *tls.Conn { return tls.Server(c, server) }, s.ServerData)
	if err == nil && p.err == nil {
		greet(t, p, v)
	}
	return v, p, err
}

// clientData makes a client's data connection, and has the client hear something on it.
func clientData(t testing.TB, s *Session, client *tls.Config, resume bool) (Data, *peer, error) {
	t.Helper()
	c, p, err := join(t, func(c *net.TCPConn) *tls.Conn { return tls.Client(c, client) },
		func(ctx context.Context, c net.Conn) (Data, error) { return s.ClientData(ctx, c, resume) })
	if err == nil && p.err == nil {
		greet(t, c, p)
	}
	return c, p, err
}

// versions are the versions of TLS that are spoken by default.
var versions = map[string]uint16{"1.2": tls.VersionTLS12, "1.3": tls.VersionTLS13}

// of is a configuration of one version of TLS.
func of(version uint16, c *tls.Config) *tls.Config {
	c = c.Clone()
	c.MinVersion, c.MaxVersion = version, version
	return c
}
