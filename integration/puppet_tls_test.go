//go:build linux

package integration

import (
	"bufio"
	"bytes"
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"math/big"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"testing"
	"time"

	"ftpalg/tlsmitm"
)

// Puppets that speak TLS: clients and servers whose every word, record and certificate is the test's.

// An attackCA is an authority that signs servers' certificates.
type attackCA struct {
	cert *x509.Certificate
	key  crypto.Signer
	pool *x509.CertPool // it alone
}

func newAttackKey(t *testing.T) crypto.Signer {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	return key
}

func newAttackCA(t *testing.T) *attackCA {
	t.Helper()
	ca := &attackCA{key: newAttackKey(t), pool: x509.NewCertPool()}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "the servers' authority"},
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour),
		KeyUsage: x509.KeyUsageCertSign, IsCA: true, BasicConstraintsValid: true,
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, ca.key.Public(), ca.key)
	if err != nil {
		t.Fatal(err)
	}
	if ca.cert, err = x509.ParseCertificate(der); err != nil {
		t.Fatal(err)
	}
	ca.pool.AddCert(ca.cert)
	return ca
}

// leaf makes the certificate of the server at an address. change, if not nil, makes it another; a nil authority means that it
// signs itself.
func (ca *attackCA) leaf(t *testing.T, key crypto.Signer, at netip.Addr, change func(*x509.Certificate)) tls.Certificate {
	t.Helper()
	serial, err := rand.Int(rand.Reader, big.NewInt(1<<62))
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{
		SerialNumber: serial, Subject: pkix.Name{CommonName: "puppet"},
		DNSNames: []string{"ftp.example.com"}, IPAddresses: []net.IP{at.AsSlice()},
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour),
		KeyUsage: x509.KeyUsageDigitalSignature, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth},
		BasicConstraintsValid: true,
	}
	if change != nil {
		change(template)
	}
	parent, signer := template, key
	if ca != nil {
		parent, signer = ca.cert, ca.key
	}
	der, err := x509.CreateCertificate(rand.Reader, template, parent, key.Public(), signer)
	if err != nil {
		t.Fatal(err)
	}
	leaf, err := x509.ParseCertificate(der)
	if err != nil {
		t.Fatal(err)
	}
	return tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key, Leaf: leaf}
}

// attackWrite writes a certificate and its key as PEM.
func attackWrite(t *testing.T, c tls.Certificate, certFile, keyFile string) {
	t.Helper()
	key, err := x509.MarshalPKCS8PrivateKey(c.PrivateKey)
	if err == nil {
		err = os.WriteFile(certFile, tlsmitm.CertificatePEM(c.Leaf), 0o600)
	}
	if err == nil {
		err = os.WriteFile(keyFile, pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: key}), 0o600)
	}
	if err != nil {
		t.Fatal(err)
	}
}

// Where clients come from: honest ones, and one who would steal what is theirs.
var (
	honestAddress = netip.AddrPortFrom(clientAddress[v4].Addr(), 0)
	thiefAddress  = netip.MustParseAddrPort("192.0.2.66:0")
)

// An attackField is a lab with a gateway that ends TLS, and a puppet on either of the server's control ports.
type attackField struct {
	*lab
	t                  *testing.T
	gateway            *gateway
	ca                 *attackCA
	explicit, implicit *puppet           // the server's ports 21 and 990
	serverTLS          *tls.Config       // the server's, with a good certificate
	authority          *x509.CertPool    // what clients trust: the gateway's authority, and nothing else
	head               string            // the configuration of TLS
	files              int               // that the gateway has open when nobody is there
	root               *x509.Certificate // the gateway's authority
}

// newAttackField makes one. config is what follows the section tls of the gateway's configuration.
func newAttackField(t *testing.T, config string) *attackField {
	t.Helper()
	f := &attackField{lab: newLab(t), t: t, ca: newAttackCA(t), authority: x509.NewCertPool()}
	f.Client.AddAddress("eth0", netip.PrefixFrom(thiefAddress.Addr(), 24))
	at := serverAddress[v4].Addr()
	f.serverTLS = &tls.Config{Certificates: []tls.Certificate{f.ca.leaf(t, newAttackKey(t), at, nil)}, MinVersion: tls.VersionTLS10}

	cert, key, err := tlsmitm.NewAuthority(tlsmitm.AuthorityOptions{Name: "the gateway's authority", Lifetime: time.Hour})
	if err != nil {
		t.Fatal(err)
	}
	block, _ := pem.Decode(cert)
	if f.root, err = x509.ParseCertificate(block.Bytes); err != nil {
		t.Fatal(err)
	}
	f.authority.AddCert(f.root)
	roots := tlsmitm.CertificatePEM(f.ca.cert)
	for name, content := range map[string][]byte{"authority.crt": cert, "authority.key": key, "roots.crt": roots} {
		if err := os.WriteFile(filepath.Join(f.Dir, name), content, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	f.head = "tls: {authority_cert: authority.crt, authority_key: authority.key, server_roots: roots.crt}\n"
	f.explicit, f.implicit = f.puppets(at)
	f.gateway = f.startGateway(f.head + config)
	f.files = f.gateway.atRest()
	return f
}

// puppets are the two at an address of the server's.
func (f *attackField) puppets(at netip.Addr) (explicit, implicit *puppet) {
	f.t.Helper()
	return newPuppet(f.t, f.lab, netip.AddrPortFrom(at, 21)), newPuppet(f.t, f.lab, netip.AddrPortFrom(at, 990))
}

// survived is the end of a test: an honest client is served as ever, and nothing has leaked.
func (f *attackField) survived() {
	f.t.Helper()
	f.honest(f.t)
	f.leftNothing()
}

// leftNothing ends the gateway when it has as few files open as before anybody came.
func (f *attackField) leftNothing() {
	f.t.Helper()
	f.gateway.settled(f.files, func() {
		k := f.Client.call(f.t, f.explicit.at)
		f.explicit.accept("").Close()
		attackRest(f.t, k)
		k.Close()
	})
	f.gateway.Stop()
	f.gateway.checkClean()
}

// honest has a session with a download and an upload. Both of its data connections resume the control connection's TLS session.
func (f *attackField) honest(t *testing.T) {
	t.Helper()
	s := f.secured(t)
	s.login()
	content := crowdContent(1, 300<<10)
	for _, verb := range []string{"RETR", "STOR"} {
		x := s.transfer(verb)
		from, into := x.serverTLS, x.clientTLS
		if verb == "STOR" {
			from, into = into, from
		}
		if !x.clientTLS.ConnectionState().DidResume || !x.serverTLS.ConnectionState().DidResume {
			t.Errorf("%s: a data connection has not resumed the control connection's TLS session", verb)
		}
		sent := make(chan error, 1)
		go func() {
			_, err := from.Write(content)
			sent <- errors.Join(err, from.Close())
		}()
		if verb == "RETR" {
			s.server.say("226 done")
		}
		got, err := io.ReadAll(into)
		if !bytes.Equal(got, content) || err != nil {
			t.Errorf("%s: %d bytes of %d have arrived, or others; %v", verb, len(got), len(content), err)
		}
		if err := <-sent; err != nil {
			t.Errorf("%s: sending ended in %v", verb, err)
		}
		into.Close()
		if verb == "STOR" {
			s.server.say("226 done")
		}
		s.client.hear("226")
	}
	s.client.say("QUIT")
	s.server.expect("QUIT", "221 bye")
	s.client.hear("221")
	s.logged("session ended", "reason=goodbye")
}

// clientTLS is the configuration of a client that trusts the gateway's authority and calls the server by its address.
func (f *attackField) clientTLS() *tls.Config {
	return &tls.Config{
		RootCAs: f.authority, ServerName: serverAddress[v4].Addr().String(),
		ClientSessionCache: tls.NewLRUClientSessionCache(1),
	}
}

// An attackSession is a session with both control connections in the test's hands.
type attackSession struct {
	f                    *attackField
	t                    *testing.T
	at                   netip.AddrPort // the server
	who                  string         // the client's address, as in the log
	from                 netip.AddrPort // the same, with any port
	client, server       *talk
	clientTLS, serverTLS *tls.Config // also those of data connections
}

// called has a client call a server; the puppet does not greet.
func (f *attackField) called(t *testing.T, from netip.AddrPort, p *puppet) *attackSession {
	t.Helper()
	s := &attackSession{f: f, t: t, at: p.at, from: from, clientTLS: f.clientTLS(), serverTLS: f.serverTLS}
	s.client = newTalk(t, f.Client.callFrom(t, from, p.at))
	s.who = s.client.LocalAddr().String()
	p.l.SetDeadline(time.Now().Add(hang))
	c, err := p.l.Accept()
	if err != nil {
		t.Fatal(err)
	}
	s.server = newTalk(t, c)
	return s
}

// greeted has a client call the server's port 21 and be greeted.
func (f *attackField) greeted(t *testing.T, from netip.AddrPort, p *puppet) *attackSession {
	t.Helper()
	s := f.called(t, from, p)
	s.server.say("220 puppet")
	s.client.hear("220")
	return s
}

// begun is greeted up to 234, which both sides have said and heard.
func (f *attackField) begun(t *testing.T, from netip.AddrPort, p *puppet) *attackSession {
	t.Helper()
	s := f.greeted(t, from, p)
	s.client.say("AUTH TLS")
	s.server.expect("AUTH TLS", "234 go ahead")
	s.client.hear("234")
	return s
}

// secured is a session of an honest client's with TLS on both sides.
func (f *attackField) secured(t *testing.T) *attackSession {
	t.Helper()
	return f.securedFrom(t, honestAddress)
}

func (f *attackField) securedFrom(t *testing.T, from netip.AddrPort) *attackSession {
	t.Helper()
	s := f.begun(t, from, f.explicit)
	s.mustShake()
	return s
}

// shake makes both TLS handshakes of the control connections, and returns how each went.
func (s *attackSession) shake() (client, server error) {
	done := make(chan error, 1)
	go func() { done <- s.server.shake(tls.Server(s.server.Conn, s.serverTLS)) }()
	client = s.client.shake(tls.Client(s.client.Conn, s.clientTLS))
	return client, <-done
}

func (s *attackSession) mustShake() {
	s.t.Helper()
	if client, server := s.shake(); client != nil || server != nil {
		s.t.Fatalf("the handshakes ended in %v at the client and %v at the server", client, server)
	}
}

// shake goes on over TLS, if the handshake succeeds.
func (k *talk) shake(c *tls.Conn) error {
	err := c.Handshake()
	if err == nil {
		k.Conn, k.r = c, bufio.NewReader(c)
	}
	return err
}

// relayed has the client say something that the server hears and answers.
func (s *attackSession) relayed(command, reply string) {
	s.t.Helper()
	s.client.say("%s", command)
	s.server.expect(command, reply)
	s.client.hear(reply[:3])
}

// login logs in and protects data connections.
func (s *attackSession) login() {
	s.t.Helper()
	s.relayed("USER alice", "331 go on")
	s.relayed("PASS "+ftpPassword, "230 in")
	s.relayed("PBSZ 0", "200 PBSZ=0")
	s.relayed("PROT P", "200 private")
}

// logged awaits a line of the gateway's log about this session that has some words.
func (s *attackSession) logged(words ...string) string {
	s.t.Helper()
	return s.f.gateway.await(append(words, "client="+s.who)...)
}

// An attackTransfer is one data connection, of which both ends are the test's.
type attackTransfer struct {
	client, server       net.Conn
	clientTLS, serverTLS *tls.Conn // over those
}

// armed makes a data connection to which nobody has said anything yet.
func (s *attackSession) armed() *attackTransfer {
	s.t.Helper()
	to, listener := s.passive()
	x := &attackTransfer{client: s.f.Client.callFrom(s.t, s.from, to)}
	s.takes(x, listener)
	return x
}

// passive has the client told where to call, and the server listen.
func (s *attackSession) passive() (to netip.AddrPort, server *net.TCPListener) {
	s.t.Helper()
	server = s.f.Server.listen(s.t, netip.AddrPortFrom(s.at.Addr(), 0))
	s.client.say("EPSV")
	s.server.expect("EPSV", fmt.Sprintf("229 ok (|||%d|)", server.Addr().(*net.TCPAddr).Port))
	return netip.AddrPortFrom(s.at.Addr(), passivePort(s.t, s.client.hear("229"))), server
}

// takes accepts the server's end of a data connection.
func (s *attackSession) takes(x *attackTransfer, listener *net.TCPListener) {
	s.t.Helper()
	listener.SetDeadline(time.Now().Add(hang))
	c, err := listener.Accept()
	if err != nil {
		s.t.Fatal(err)
	}
	s.t.Cleanup(func() { c.Close() })
	c.SetDeadline(time.Now().Add(hang))
	x.server = c
	x.clientTLS, x.serverTLS = tls.Client(x.client, s.clientTLS), tls.Server(x.server, s.serverTLS)
}

// orders says a data verb, which the server promises to perform.
func (s *attackSession) orders(verb string) {
	s.t.Helper()
	s.relayed(verb+" file", "150 here")
}

// transfer begins a transfer whose data connections have TLS.
func (s *attackSession) transfer(verb string) *attackTransfer {
	s.t.Helper()
	x := s.armed()
	s.orders(verb)
	if client, server := x.shake(); client != nil || server != nil {
		s.t.Fatalf("the data connections' handshakes ended in %v at the client and %v at the server", client, server)
	}
	return x
}

// shake makes both TLS handshakes of a data connection, and returns how each went.
func (x *attackTransfer) shake() (client, server error) {
	done := make(chan error, 1)
	go func() { done <- x.serverTLS.Handshake() }()
	client = x.clientTLS.Handshake()
	return client, <-done
}

// attackRest is what is said to one end until its connection is over, however that ends: but it must end.
func attackRest(t *testing.T, k *talk) string {
	t.Helper()
	b, err := io.ReadAll(k.r)
	if errors.Is(err, os.ErrDeadlineExceeded) {
		t.Fatalf("not closed after %q", b)
	}
	return string(b)
}

// attackHello is the first message of a TLS client.
func attackHello(t *testing.T, config *tls.Config) []byte {
	t.Helper()
	r := &attackRecorder{}
	if err := tls.Client(r, config).Handshake(); !errors.Is(err, io.EOF) || r.said.Len() == 0 {
		t.Fatalf("no hello: %v", err)
	}
	return r.said.Bytes()
}

// attackRecorder is a connection to nobody.
type attackRecorder struct {
	net.Conn // nil
	said     bytes.Buffer
}

func (r *attackRecorder) Write(b []byte) (int, error) { return r.said.Write(b) }
func (r *attackRecorder) Read([]byte) (int, error)    { return 0, io.EOF }
