//go:build linux

package integration

import (
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"net/netip"
	"strings"
	"testing"
	"time"
)

// An attackImpostor is a server whose certificate proves nothing, and what the gateway must say is wrong with it.
type attackImpostor struct {
	what   string
	cert   tls.Certificate
	called string // what the client calls the server by SNI; empty: nothing
	check  string // that fails
}

// attackImpostors are all kinds of them, at an address.
func attackImpostors(f *attackField, at netip.Addr) []attackImpostor {
	t, key := f.t, newAttackKey(f.t)
	dated := func(from, to time.Duration) func(*x509.Certificate) {
		return func(c *x509.Certificate) { c.NotBefore, c.NotAfter = time.Now().Add(from), time.Now().Add(to) }
	}
	authority := func(c *x509.Certificate) { c.IsCA = true }
	other := func(c *x509.Certificate) { c.DNSNames = []string{"other.example.com"} }
	client := func(c *x509.Certificate) { c.ExtKeyUsage = []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth} }
	return []attackImpostor{
		{"signed by itself", (*attackCA)(nil).leaf(t, key, at, nil), "", "authority"},
		{"signed by itself as an authority", (*attackCA)(nil).leaf(t, key, at, authority), "", "authority"},
		{"signed by another authority of the same name", newAttackCA(t).leaf(t, key, at, nil), "", "authority"},
		{"expired", f.ca.leaf(t, key, at, dated(-2*time.Hour, -time.Minute)), "", "dates"},
		{"not valid yet", f.ca.leaf(t, key, at, dated(time.Hour, 2*time.Hour)), "", "dates"},
		{"of another name", f.ca.leaf(t, key, at, other), "ftp.example.com", "name"},
		{"of a client", f.ca.leaf(t, key, at, client), "", "certificate"},
	}
}

// What clients see of a server is a likeness of its certificate. It must never make a server look better than it is.
func TestAttackTLSMimicry(t *testing.T) {
	metrics := port(clientGateway, v4, 9721)
	counted := fmt.Sprintf("metrics: {address: '%v'}\n", metrics)
	f := newAttackField(t, attackTLSConfig+counted)
	at := func(host byte) *puppet {
		a := netip.AddrFrom4([4]byte{198, 51, 100, host})
		f.Server.AddAddress("eth0", netip.PrefixFrom(a, 24))
		_, p := f.puppets(a)
		return p
	}
	untrusted, off, pinned, mispinned := at(3), at(4), at(5), at(6)
	own := (*attackCA)(nil).leaf(t, newAttackKey(t), pinned.at.Addr(), nil)
	key := sha256.Sum256(own.Leaf.RawSubjectPublicKeyInfo)
	f.gateway.reload(f.head + attackTLSConfig + counted + fmt.Sprintf(`
destinations:
  - {allow: %v, tls: {verify: untrusted-ca}}
  - {allow: %v, tls: {verify: "off"}}
  - {allow: [%v, %v], tls: {pins: "sha256:%x"}}
`, untrusted.at.Addr(), off.at.Addr(), pinned.at.Addr(), mispinned.at.Addr(), key))
	// met is a session with TLS from the first byte, whose server has a certificate. The client looks at nothing: seen does.
	met := func(t *testing.T, p *puppet, cert tls.Certificate, called string) *attackSession {
		t.Helper()
		s := f.called(t, honestAddress, p)
		s.serverTLS = &tls.Config{Certificates: []tls.Certificate{cert}}
		s.clientTLS.ServerName, s.clientTLS.InsecureSkipVerify = called, true
		return s
	}
	// seen is the certificate that the client was shown, and what a client that cares says of it.
	seen := func(s *attackSession) (*x509.Certificate, error) {
		s.t.Helper()
		chain := s.client.Conn.(*tls.Conn).ConnectionState().PeerCertificates
		o := x509.VerifyOptions{Roots: f.authority, Intermediates: x509.NewCertPool()}
		for _, c := range chain[1:] {
			o.Intermediates.AddCert(c)
		}
		_, err := chain[0].Verify(o)
		return chain[0], err
	}
	failures := func() (n int) {
		for _, line := range f.scrape(t, metrics) {
			fmt.Sscanf(line, "ftpalg_tls_verification_failures_total %d", &n)
		}
		return n
	}
	refused := func(t *testing.T, s *attackSession, check string) {
		t.Helper()
		before := failures()
		done := make(chan error, 1)
		go func() {
			err := s.server.shake(tls.Server(s.server.Conn, s.serverTLS))
			if err == nil {
				_, err = s.server.r.ReadByte() // the handshake's end is in here with TLS 1.3
			}
			done <- err
		}()
		s.mustFailAtClient()
		if err := <-done; err == nil || !strings.Contains(err.Error(), "bad certificate") {
			t.Errorf("the server's handshake ended in %v", err)
		}
		s.logged("session ended", `reason="TLS handshake failed"`, "server TLS: ", "certificate: "+check+":")
		if n := failures(); n != before+1 {
			t.Errorf("%d failures are counted, after %d", n, before)
		}
	}
	for _, i := range attackImpostors(f, serverAddress[v4].Addr()) {
		t.Run("strict/"+i.what, func(t *testing.T) { refused(t, met(t, f.implicit, i.cert, i.called), i.check) })
	}
	for _, i := range attackImpostors(f, untrusted.at.Addr()) {
		t.Run("untrusted-ca/"+i.what, func(t *testing.T) {
			s := met(t, untrusted, i.cert, i.called)
			s.mustShake()
			s.server.say("220 puppet")
			s.client.hear("220") // heedless
			c, err := seen(s)
			if err == nil || c.CheckSignatureFrom(f.root) == nil {
				t.Errorf("a client that cares accepts it: %v", err)
			}
			if !strings.Contains(c.Issuer.CommonName, "UNTRUSTED") {
				t.Errorf("the client sees %v as its authority", c.Issuer)
			}
			if c.IsCA || c.KeyUsage&x509.KeyUsageCertSign != 0 {
				t.Error("the likeness is an authority")
			}
			if !c.NotAfter.Equal(i.cert.Leaf.NotAfter) && i.check == "dates" {
				t.Errorf("what is valid until %v looks valid until %v", i.cert.Leaf.NotAfter, c.NotAfter)
			}
			s.logged("msg=TLS", "side=server", `verified="failed: certificate: `+i.check+":")

			careful := met(t, untrusted, i.cert, i.called)
			careful.clientTLS.InsecureSkipVerify, careful.clientTLS.ServerName = false, "ftp.example.com"
			if client, _ := careful.shake(); client == nil {
				t.Error("a client that cares has a session")
			}
			careful.logged("session ended", `reason="TLS handshake failed"`, "client TLS: remote error: tls: ")
		})
	}
	t.Run("off", func(t *testing.T) {
		for _, i := range attackImpostors(f, off.at.Addr())[:1] {
			s := met(t, off, i.cert, i.called)
			s.mustShake()
			if c, err := seen(s); err == nil || !strings.Contains(c.Issuer.CommonName, "UNTRUSTED") {
				t.Errorf("the client sees a certificate by %v, and accepts it: %v", c.Issuer, err)
			}
			s.logged("msg=TLS", "side=server", "verified=off")
		}
		s := met(t, off, f.ca.leaf(t, newAttackKey(t), off.at.Addr(), nil), "")
		s.mustShake()
		if c, err := seen(s); err == nil || !strings.Contains(c.Issuer.CommonName, "UNTRUSTED") {
			t.Errorf("nobody has looked at the certificate, and the client sees one by %v", c.Issuer)
		}
	})
	t.Run("pins", func(t *testing.T) {
		s := met(t, pinned, own, "")
		s.mustShake()
		if _, err := seen(s); err != nil {
			t.Error(err)
		}
		s.logged("msg=TLS", "side=server", "verified=pin")
		// An authority does not make up for a wrong pin.
		refused(t, met(t, mispinned, f.ca.leaf(t, newAttackKey(t), mispinned.at.Addr(), nil), ""), "pin")
	})
	rsaKey, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		t.Fatal(err)
	}
	here := serverAddress[v4].Addr()
	for what, cert := range map[string]tls.Certificate{
		"an authority's": f.ca.leaf(t, newAttackKey(t), here, func(c *x509.Certificate) {
			c.IsCA, c.KeyUsage, c.ExtKeyUsage = true, x509.KeyUsageCertSign|x509.KeyUsageDigitalSignature, nil
		}),
		"RSA": f.ca.leaf(t, rsaKey, here, nil),
	} {
		t.Run("likeness/"+what, func(t *testing.T) {
			s := met(t, f.implicit, cert, "ftp.example.com")
			s.clientTLS.InsecureSkipVerify = false
			s.mustShake()
			c, err := seen(s)
			if err != nil {
				t.Error(err)
			}
			if c.IsCA || c.KeyUsage&x509.KeyUsageCertSign != 0 || len(c.ExtKeyUsage) != 1 {
				t.Errorf("the likeness may do more than be a server: %v, %v, %v", c.IsCA, c.KeyUsage, c.ExtKeyUsage)
			}
			s.logged("msg=TLS", "side=server", "verified=chain", fmt.Sprintf("certificate=%x", sha256.Sum256(cert.Leaf.Raw)))
		})
	}
	t.Run("names", func(t *testing.T) {
		// Where the client names nobody, it alone can tell: the likeness says what the certificate does.
		other := f.ca.leaf(t, newAttackKey(t), netip.MustParseAddr("198.51.100.99"), nil)
		s := met(t, f.implicit, other, "")
		s.clientTLS.InsecureSkipVerify, s.clientTLS.ServerName = false, here.String()
		if client, _ := s.shake(); client == nil || !strings.Contains(client.Error(), "198.51.100.99") {
			t.Errorf("the client's handshake ended in %v", client)
		}
		// An address is not a name (RFC 6066 §3), though some clients say it as one; crypto/tls takes the dot away.
		s = met(t, f.implicit, f.serverTLS.Certificates[0], here.String()+".")
		said := make(chan string, 1)
		s.serverTLS.GetConfigForClient = func(h *tls.ClientHelloInfo) (*tls.Config, error) {
			said <- h.ServerName
			return nil, nil
		}
		s.mustShake()
		if c, err := seen(s); err != nil || c.VerifyHostname(here.String()) != nil {
			t.Errorf("the client sees %v, %v", c.IPAddresses, err)
		}
		if name := <-said; name != "" {
			t.Errorf("the server was called %q", name)
		}
		// A name is, and the server hears it.
		s = met(t, f.implicit, f.serverTLS.Certificates[0], "ftp.example.com")
		s.serverTLS.GetConfigForClient = func(h *tls.ClientHelloInfo) (*tls.Config, error) {
			said <- h.ServerName
			return nil, nil
		}
		s.mustShake()
		if name := <-said; name != "ftp.example.com" {
			t.Errorf("the server was called %q", name)
		}
	})
	t.Run("data connection", func(t *testing.T) {
		// Whoever took the server's data port has a certificate of the same authority, for the same name.
		s := f.secured(t)
		s.login()
		s.serverTLS = &tls.Config{Certificates: []tls.Certificate{f.ca.leaf(t, newAttackKey(t), here, nil)}}
		x := s.armed()
		s.orders("STOR")
		client, server := x.shake()
		if server == nil {
			_, server = x.serverTLS.Read(make([]byte, 1))
		}
		if server == nil || !strings.Contains(server.Error(), "bad certificate") && !isReset(server) {
			t.Errorf("the impostor's handshake ended in %v", server)
		}
		attackCut(t, "the client", x.clientTLS, client)
		s.server.say("226 got it all")
		s.client.hear("426")
		s.logged("msg=transfer", "outcome=broken", "server data: TLS: ", "certificate: same:")
	})
	f.survived()
}
