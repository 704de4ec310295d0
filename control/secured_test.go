package control

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"errors"
	"io"
	"math/big"
	"net"
	"slices"
	"strings"
	"sync"
	"time"

	"ftpalg/dataconn"
	"ftpalg/integration/ftptest"
	"ftpalg/tlsmitm"
)

// end is a peer's end of a connection.
type end interface {
	net.Conn
	CloseWrite() error
	SetLinger(seconds int) error
	Available() ([]byte, error)
}

// tlsEnd is a peer's end of a connection with TLS. Reading goes on all the time, since that is how crypto/tls takes notice.
type tlsEnd struct {
	*tls.Conn
	below *ftptest.Conn

	mu  sync.Mutex
	buf []byte
	err error // of the handshake or of reading
	up  bool  // the handshake is done
}

// begin begins the handshake. heard, if not nil, is given what is read instead of Available, and nil at the end.
func (e *tlsEnd) begin(heard func([]byte)) { go e.read(heard) }

func (e *tlsEnd) read(heard func([]byte)) {
	err := e.Handshake()
	e.mu.Lock()
	e.up = err == nil
	e.mu.Unlock()
	b := make([]byte, 32<<10)
	for err == nil {
		var n int
		if n, err = e.Read(b); n > 0 && heard != nil {
			heard(b[:n])
		} else {
			e.mu.Lock()
			e.buf = append(e.buf, b[:n]...)
			e.mu.Unlock()
		}
	}
	e.mu.Lock()
	e.err = err
	e.mu.Unlock()
	if heard != nil {
		heard(nil)
	}
}

// Available is ftptest.Conn's, of what was protected. io.EOF needs close_notify or, as crypto/tls does not tell, the end of
// the connection behind a whole record.
func (e *tlsEnd) Available() ([]byte, error) {
	e.mu.Lock()
	defer e.mu.Unlock()
	b := e.buf
	e.buf = nil
	return b, e.err
}

// CloseWrite says close_notify, and ends the connection too.
func (e *tlsEnd) CloseWrite() error { return errors.Join(e.Conn.CloseWrite(), e.below.CloseWrite()) }

func (e *tlsEnd) SetLinger(seconds int) error { return e.below.SetLinger(seconds) }

// secrecy is how the peers of a transcript speak TLS.
type secrecy struct {
	client, server, expired *tls.Config
}

// secrecy makes it all, at the time of the bubble.
func (p *stage) secrecy() *secrecy {
	must := func(err error) {
		if err != nil {
			p.t.Fatal(err)
		}
	}
	certPEM, keyPEM, err := tlsmitm.NewAuthority(tlsmitm.AuthorityOptions{Name: "ours", Lifetime: 1000 * time.Hour})
	must(err)
	authority, err := tlsmitm.ParseAuthority(certPEM, keyPEM)
	must(err)

	rootKey, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	must(err)
	root := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "theirs"}, IsCA: true, BasicConstraintsValid: true,
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(1000 * time.Hour), KeyUsage: x509.KeyUsageCertSign,
	}
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	must(err)
	rootDER, err := x509.CreateCertificate(rand.Reader, root, root, rootKey.Public(), rootKey)
	must(err)
	if root, err = x509.ParseCertificate(rootDER); err != nil {
		p.t.Fatal(err)
	}
	server := func(until time.Time) *tls.Config {
		leaf := &x509.Certificate{
			SerialNumber: big.NewInt(2), Subject: pkix.Name{CommonName: "ftp.example.com"}, DNSNames: []string{"ftp.example.com"},
			NotBefore: root.NotBefore, NotAfter: until,
		}
		der, err := x509.CreateCertificate(rand.Reader, leaf, root, key.Public(), rootKey)
		must(err)
		return &tls.Config{Certificates: []tls.Certificate{{Certificate: [][]byte{der}, PrivateKey: key}}}
	}

	trusted := func(c *x509.Certificate) *x509.CertPool {
		pool := x509.NewCertPool()
		pool.AddCert(c)
		return pool
	}
	interceptor := tlsmitm.New(tlsmitm.Options{Mint: tlsmitm.NewMint(authority, 10), Roots: trusted(root)})
	p.session.TLS = interceptor.Session(tlsmitm.SessionOptions{ID: "session"})
	return &secrecy{
		client: &tls.Config{
			RootCAs: trusted(authority.Certificate()), ServerName: "ftp.example.com", ClientSessionCache: tls.NewLRUClientSessionCache(10),
		},
		server: server(root.NotAfter), expired: server(time.Now().Add(-time.Minute)),
	}
}

// protects performs "client|server tls [bad] [alpn NAME]" on a control connection: the peer begins its handshake.
func (p *stage) protects(side dataconn.Side, w []string) {
	config := p.secret.client.Clone()
	if side == dataconn.Server {
		config = p.secret.server // and no clone, which has other keys for its tickets
	}
	for i, word := range w {
		switch word {
		case "alpn":
			config = config.Clone()
			config.NextProtos = strings.Split(w[i+1], ",")
		case "expired": // the server's certificate is
			config = p.secret.expired
		case "nameless": // the client does not say which server it wants
			config.ServerName, config.InsecureSkipVerify = "", true
		case "misnamed":
			config.ServerName, config.InsecureSkipVerify = "other.example.com", true
		case "heedless": // the client looks at no certificate
			config.InsecureSkipVerify = true
		case "distrusting": // the client knows no authority
			config.RootCAs = x509.NewCertPool()
		}
	}
	if side == dataconn.Client {
		p.deafen("<")
		raw := p.client.(*ftptest.Conn)
		e := &tlsEnd{Conn: tls.Client(unread(raw), config), below: raw}
		p.client = e // before anything comes of it
		e.begin(p.lines("<"))
		return
	}
	p.deafen(">>")
	raw := p.server.(*ftptest.Conn)
	e := &tlsEnd{Conn: tls.Server(unread(raw), config), below: raw}
	p.server = e
	e.begin(p.lines(">>"))
}

// unread is a peer's connection without the plain text that nobody has read from it.
func unread(c *ftptest.Conn) net.Conn {
	b, _ := c.Available()
	if hello := bytes.IndexByte(b, 0x16); hello >= 0 {
		return &replayed{c, b[hello:]}
	}
	return c
}

// guards performs "client|server data tls [fresh]": the peer begins its handshake on its data connection.
func (p *stage) guards(side dataconn.Side, w []string) {
	raw := p.data[side].(*ftptest.Conn)
	if side == dataconn.Server {
		e := &tlsEnd{Conn: tls.Server(raw, p.secret.server), below: raw}
		p.data[side] = e
		e.begin(nil)
		return
	}
	config := p.secret.client
	if slices.Contains(w, "fresh") { // it resumes nothing
		config = config.Clone()
		config.ClientSessionCache = nil
	}
	e := &tlsEnd{Conn: tls.Client(raw, config), below: raw}
	p.data[side] = e
	e.begin(nil)
}

// cuts ends a peer's data connection without close_notify.
func (p *stage) cuts(side dataconn.Side) error { return p.data[side].(*tlsEnd).below.CloseWrite() }

// has reports on what "client|server has WORDS" claims of a peer's TLS connection: "tls", "resumed", "failed", "chain NAME".
func (p *stage) has(c end, w []string) error {
	e, ok := c.(*tlsEnd)
	if !ok {
		return errors.New("has no TLS")
	}
	e.mu.Lock()
	defer e.mu.Unlock()
	s := e.ConnectionState()
	switch w[0] {
	case "tls", "fresh":
		if !e.up || s.DidResume {
			return errors.Join(errors.New("has no fresh TLS connection"), e.err)
		}
	case "resumed":
		if !e.up || !s.DidResume {
			return errors.Join(errors.New("has not resumed"), e.err)
		}
	case "failed":
		if e.up || e.err == nil {
			return errors.New("has not failed")
		}
		if want := strings.Join(w[1:], " "); !strings.Contains(e.err.Error(), want) {
			return e.err
		}
	case "chain":
		if len(s.PeerCertificates) == 0 {
			return errors.Join(errors.New("has seen no certificate"), e.err)
		}
		if got := s.PeerCertificates[0].Issuer.CommonName; got != strings.Join(w[1:], " ") {
			return errors.New("has one of " + got)
		}
	case "alpn":
		if s.NegotiatedProtocol != w[1] {
			return errors.New("has agreed on " + s.NegotiatedProtocol)
		}
	default:
		return errors.New("cannot read " + w[0])
	}
	return nil
}

// seen is how a peer's end stands, for "sees": TLS ends in an error of its own if it is cut off.
func seen(err error) string {
	switch {
	case err == nil:
		return "open"
	case errors.Is(err, io.EOF):
		return "end"
	}
	return "reset"
}
