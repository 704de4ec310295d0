package tlsmitm

import (
	"bytes"
	"crypto"
	"crypto/ecdsa"
	"crypto/rsa"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/asn1"
	"errors"
	"fmt"
	"io"
	"math/big"
	"net"
	"net/url"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"
)

// handshake connects a client that trusts roots to a server with that certificate, and returns what the client saw. name is
// what the client asks for and expects.
func handshake(t *testing.T, c *tls.Certificate, roots *x509.CertPool, name string) tls.ConnectionState {
	t.Helper()
	server := &tls.Config{GetCertificate: func(*tls.ClientHelloInfo) (*tls.Certificate, error) { return c, nil }}
	state, err := shake(server, &tls.Config{RootCAs: roots, ServerName: name})
	if err != nil {
		t.Fatal(err)
	}
	return state
}

func shake(server, client *tls.Config) (tls.ConnectionState, error) {
	a, b := pipe()
	defer a.Close()
	defer b.Close()
	c, s := tls.Client(a, client), tls.Server(b, server)
	answered := make(chan error, 1)
	go func() { answered <- s.Handshake() }()
	err := c.Handshake()
	if err != nil {
		a.Close()
	}
	return c.ConnectionState(), errors.Join(err, <-answered)
}

// likenessOf mints one, and fails if it could do harm.
func likenessOf(t testing.TB, m *Mint, server *x509.Certificate, trusted bool) *tls.Certificate {
	t.Helper()
	c, err := m.Likeness(server, trusted, nil)
	if err != nil {
		t.Fatal(err)
	}
	checkHarmless(t, c, server)
	return c
}

var (
	oidSAN   = asn1.ObjectIdentifier{2, 5, 29, 17}
	oidKnown = []asn1.ObjectIdentifier{{2, 5, 29, 15}, {2, 5, 29, 37}, {2, 5, 29, 19}, {2, 5, 29, 14}, {2, 5, 29, 35}, oidSAN}
)

// checkHarmless: a likeness is a TLS server and nothing else, has no name that the server does not have, and a serial number
// and a key of its own.
func checkHarmless(t testing.TB, c *tls.Certificate, server *x509.Certificate) {
	t.Helper()
	l := c.Leaf
	if l == nil || !bytes.Equal(l.Raw, c.Certificate[0]) {
		t.Fatal("Leaf is not the first certificate")
	}
	if l.IsCA || !l.BasicConstraintsValid || l.KeyUsage&^(x509.KeyUsageDigitalSignature|x509.KeyUsageKeyEncipherment) != 0 ||
		!slices.Equal(l.ExtKeyUsage, []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth}) || len(l.UnknownExtKeyUsage) > 0 {
		t.Errorf("it may do more than serve: CA %v, %b, %v, %v", l.IsCA, l.KeyUsage, l.ExtKeyUsage, l.UnknownExtKeyUsage)
	}
	for _, e := range l.Extensions {
		if !slices.ContainsFunc(oidKnown, e.Id.Equal) {
			t.Errorf("it has extension %v", e.Id)
		}
	}
	if !c.PrivateKey.(crypto.Signer).Public().(interface{ Equal(crypto.PublicKey) bool }).Equal(l.PublicKey) {
		t.Error("it is for another key")
	}
	if l.SerialNumber.Sign() <= 0 || l.SerialNumber.Cmp(server.SerialNumber) == 0 {
		t.Errorf("its serial number is %d, the server's %d", l.SerialNumber, server.SerialNumber)
	}
	if len(l.SubjectKeyId) == 0 || len(l.AuthorityKeyId) == 0 || bytes.Equal(l.SubjectKeyId, server.SubjectKeyId) {
		t.Errorf("its key identifiers are %x and %x", l.SubjectKeyId, l.AuthorityKeyId)
	}
	if !bytes.Equal(l.RawSubject, server.RawSubject) {
		t.Errorf("it is %s, and the server %s", l.Subject, server.Subject)
	}
	for _, name := range l.DNSNames {
		if !slices.Contains(server.DNSNames, name) {
			t.Errorf("nobody calls the server %q", name)
		}
	}
	for _, name := range l.EmailAddresses {
		if !slices.Contains(server.EmailAddresses, name) {
			t.Errorf("nobody writes to %q", name)
		}
	}
	for _, ip := range l.IPAddresses {
		if !slices.ContainsFunc(server.IPAddresses, ip.Equal) {
			t.Errorf("the server is not at %v", ip)
		}
	}
	for _, u := range l.URIs {
		if !slices.ContainsFunc(server.URIs, func(s *url.URL) bool { return s.String() == u.String() && s.Host == u.Host }) {
			t.Errorf("the server is not %v", u)
		}
	}
	if len(l.DNSNames) == 0 && len(server.DNSNames) > 0 {
		t.Error("without names, clients turn to the common name")
	}
}

// TestLikeness: what a client may judge a server by it sees as the server has it, and nothing that another authority said.
func TestLikeness(t *testing.T) {
	root := issued(t, authorityOf("Example Authority"), nil)
	m := NewMint(authority(t, root), 10)
	theirs := issued(t, authorityOf("Their Authority"), nil)
	server := issued(t, x509.Certificate{
		SerialNumber: big.NewInt(4711),
		Subject: pkix.Name{CommonName: "ftp.example.com", Organization: []string{"Bücher & Söhne"},
			ExtraNames: []pkix.AttributeTypeAndValue{{Type: asn1.ObjectIdentifier{1, 2, 3, 4}, Value: "unheard of"}}},
		DNSNames:              []string{"ftp.example.com", "*.files.example.com", "under_score.example.com", "xn--bcher-kva.example"},
		IPAddresses:           []net.IP{net.IPv4(198, 51, 100, 2), net.ParseIP("2001:db8::2")},
		EmailAddresses:        []string{"hostmaster@example.com"},
		URIs:                  []*url.URL{{Scheme: "ftp", Host: "ftp.example.com", Path: "/pub"}},
		KeyUsage:              x509.KeyUsageDigitalSignature | x509.KeyUsageContentCommitment,
		ExtKeyUsage:           []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth},
		OCSPServer:            []string{"http://ocsp.example.com"},
		IssuingCertificateURL: []string{"http://ca.example.com"},
		CRLDistributionPoints: []string{"http://crl.example.com"},
		PolicyIdentifiers:     []asn1.ObjectIdentifier{{2, 23, 140, 1, 2, 1}},
		PermittedDNSDomains:   []string{"example.com"},
		SubjectKeyId:          []byte("server's"),
		ExtraExtensions: []pkix.Extension{
			{Id: asn1.ObjectIdentifier{1, 3, 6, 1, 4, 1, 11129, 2, 4, 2}, Value: []byte{4, 0}},          // SCTs
			{Id: asn1.ObjectIdentifier{1, 3, 6, 1, 5, 5, 7, 1, 24}, Value: []byte{0x30, 3, 2, 1, 5}},    // must staple
			{Id: asn1.ObjectIdentifier{1, 2, 3, 5}, Value: []byte("what is this?"), Critical: true},     // of no meaning to anybody
			{Id: asn1.ObjectIdentifier{2, 5, 29, 54}, Value: []byte{2, 1, 0}, Critical: true},           // inhibitAnyPolicy
			{Id: asn1.ObjectIdentifier{2, 16, 840, 1, 113730, 1, 1}, Value: []byte{3, 2, 0, 7}},         // Netscape: every kind of CA
			{Id: asn1.ObjectIdentifier{1, 3, 6, 1, 5, 5, 7, 1, 3}, Value: []byte{0x30, 0}},              // qualified
			{Id: asn1.ObjectIdentifier{1, 3, 6, 1, 4, 1, 311, 21, 7}, Value: []byte{0x30, 3, 6, 1, 42}}, // Microsoft's template
		},
	}, theirs).cert

	c := likenessOf(t, m, server, true)
	l := c.Leaf
	if !slices.Equal(l.DNSNames, server.DNSNames) || !slices.Equal(l.EmailAddresses, server.EmailAddresses) ||
		fmt.Sprint(l.IPAddresses) != fmt.Sprint(server.IPAddresses) || fmt.Sprint(l.URIs) != fmt.Sprint(server.URIs) {
		t.Errorf("its names are %v, %v, %v, %v", l.DNSNames, l.EmailAddresses, l.IPAddresses, l.URIs)
	}
	if !bytes.Equal(l.AuthorityKeyId, root.cert.SubjectKeyId) || !bytes.Equal(l.RawIssuer, root.cert.RawSubject) {
		t.Errorf("it is signed by %s", l.Issuer)
	}
	for _, name := range []string{"ftp.example.com", "x.files.example.com", "198.51.100.2", "[2001:db8::2]"} {
		if _, err := l.Verify(x509.VerifyOptions{Roots: pool(root.cert), DNSName: name}); err != nil {
			t.Error(err)
		}
	}
	if _, err := l.Verify(x509.VerifyOptions{Roots: pool(root.cert), DNSName: "www.example.com"}); err == nil {
		t.Error("it has a name that nobody gave it")
	}
	handshake(t, c, pool(root.cert), "ftp.example.com")
	handshake(t, c, pool(root.cert), "198.51.100.2")
}

// TestHostile: a server says the worst of itself that a certificate can, and its likeness stays what it is.
func TestHostile(t *testing.T) {
	root := issued(t, authorityOf("Example Authority"), nil)
	m := NewMint(authority(t, root), 10)
	authorityLike := authorityOf("ftp.example.com")
	authorityLike.KeyUsage |= x509.KeyUsageCRLSign
	authorityLike.ExtKeyUsage = []x509.ExtKeyUsage{x509.ExtKeyUsageAny}
	authorityLike.DNSNames = []string{"ftp.example.com"}
	impostor := authorityOf("")
	impostor.RawSubject = root.cert.RawSubject
	for name, test := range map[string]struct {
		template x509.Certificate
		names    []string
	}{
		"authority":         {authorityLike, []string{"ftp.example.com"}},
		"our own authority": {impostor, nil},
		"nobody":            {x509.Certificate{}, nil},
		"nobody but a name": {x509.Certificate{DNSNames: []string{"ftp.example.com"}}, []string{"ftp.example.com"}},
		"garbage among names": {
			x509.Certificate{DNSNames: []string{"good.example.com", "bank.test\x00.example.com", "", " ", "a b", "\x7f"}},
			[]string{"good.example.com"}},
		"garbage mail and URI": {x509.Certificate{EmailAddresses: []string{"a\nb@example.com"},
			URIs: []*url.URL{{Scheme: "ftp", Opaque: "a b"}}}, nil},
		"common name without names": {x509.Certificate{Subject: pkix.Name{CommonName: "bank.test"}}, nil},
	} {
		t.Run(name, func(t *testing.T) {
			server := issued(t, test.template, nil).cert
			c := likenessOf(t, m, server, true)
			if !slices.Equal(c.Leaf.DNSNames, test.names) {
				t.Errorf("its names are %q", c.Leaf.DNSNames)
			}
			if len(c.Leaf.EmailAddresses)+len(c.Leaf.URIs) > 0 {
				t.Errorf("garbage is mirrored: %q, %v", c.Leaf.EmailAddresses, c.Leaf.URIs)
			}
			if _, err := c.Leaf.Verify(x509.VerifyOptions{Roots: pool(root.cert)}); err != nil {
				t.Error(err)
			}
			// What it would sign is believed by nobody.
			forged := issued(t, x509.Certificate{DNSNames: []string{"bank.test"}}, &identity{c.Leaf, c.PrivateKey.(crypto.Signer)}).cert
			if _, err := forged.Verify(x509.VerifyOptions{Roots: pool(root.cert), Intermediates: pool(c.Leaf)}); err == nil {
				t.Error("it is an authority")
			}
		})
	}

	var many []string
	for i := range 4000 {
		many = append(many, fmt.Sprintf("host-%04d.a-long-name.example.com", i))
	}
	for want, server := range map[string]*x509.Certificate{
		"bytes; 1 to 102400 can be mirrored": issued(t, x509.Certificate{DNSNames: many}, nil).cert,
		"bytes; 1 to 102400":                 issued(t, x509.Certificate{Subject: pkix.Name{CommonName: strings.Repeat("n", 1<<20)}}, nil).cert,
		"has 0 bytes":                        {}, // it was never parsed
		`none of the server's names can be mirrored: "a\x00"`: issued(t, x509.Certificate{DNSNames: []string{"a\x00"}}, nil).cert,
	} {
		if _, err := m.Likeness(server, true, nil); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%v, want %s", err, want)
		}
	}
	if c := likenessOf(t, m, issued(t, x509.Certificate{DNSNames: many[:2000]}, nil).cert, true); len(c.Leaf.DNSNames) != 2000 {
		t.Errorf("of 2000 names %d are mirrored", len(c.Leaf.DNSNames))
	}
}

// TestConstrained: an authority that may sign for some names alone signs for no server with others.
func TestConstrained(t *testing.T) {
	root := issued(t, authorityOf("Root"), nil)
	template := authorityOf("Constrained")
	template.PermittedDNSDomains, template.PermittedDNSDomainsCritical = []string{"example.com"}, true
	for name, a := range map[string]*Authority{
		"itself": authority(t, issued(t, template, nil)),
		"above": func() *Authority {
			upper := issued(t, template, root)
			return authority(t, issued(t, authorityOf("Lower"), upper), upper, root)
		}(),
	} {
		t.Run(name, func(t *testing.T) {
			m := NewMint(a, 10)
			likenessOf(t, m, issued(t, x509.Certificate{DNSNames: []string{"ftp.example.com"}}, nil).cert, true)
			outside := issued(t, x509.Certificate{DNSNames: []string{"ftp.example.com", "ftp.test"}}, nil).cert
			_, err := m.Likeness(outside, true, nil)
			if want := `may not sign for all names of this certificate: DNS name "ftp.test" is not permitted`; err == nil ||
				!strings.Contains(err.Error(), want) {
				t.Errorf("%v, want %s", err, want)
			}
			likenessOf(t, m, outside, false)
			if _, err := m.Own([]string{"ftp.test"}, nil); err == nil {
				t.Error("it signs for us under a name that it may not")
			}
		})
	}
}

// TestDates: a likeness is valid when the server's certificate and the authority both are. An expired one stays so.
func TestDates(t *testing.T) {
	now := time.Now().UTC().Truncate(time.Second)
	template := authorityOf("Example Authority")
	template.NotBefore, template.NotAfter = now.Add(-30*day), now.Add(30*day)
	root := issued(t, template, nil)
	m := NewMint(authority(t, root), 10)
	for name, test := range map[string]struct{ from, until, wantFrom, wantUntil int }{
		"within":          {-2, 2, -2, 2},
		"longer":          {-90, 90, -30, 30},
		"begins before":   {-90, 2, -30, 2},
		"ends after":      {-2, 90, -2, 30},
		"expired":         {-10, -5, -10, -5},
		"to come":         {5, 10, 5, 10},
		"long gone":       {-90, -60, -90, -60},
		"in the far away": {60, 90, 60, 90},
	} {
		t.Run(name, func(t *testing.T) {
			days := func(n int) time.Time { return now.Add(time.Duration(n) * day) }
			server := issued(t, x509.Certificate{NotBefore: days(test.from), NotAfter: days(test.until)}, nil).cert
			c := likenessOf(t, m, server, true)
			if likenessOf(t, m, server, true) != c {
				t.Error("an expired server costs a signature for each session")
			}
			l := c.Leaf
			if !l.NotBefore.Equal(days(test.wantFrom)) || !l.NotAfter.Equal(days(test.wantUntil)) {
				t.Errorf("valid from %v to %v", l.NotBefore, l.NotAfter)
			}
		})
	}
}

// TestExpires: an authority that was fit when it was loaded signs nothing, and shows nothing, once it has expired.
func TestExpires(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := NewMint(authority(t, issued(t, authorityOf("Example Authority"), nil)), 10) // half a day from now
		server := issued(t, x509.Certificate{NotAfter: time.Now().Add(90 * day)}, nil).cert
		likenessOf(t, m, server, true)
		time.Sleep(day)
		want := "CN=Example Authority expired on "
		if _, err := m.Likeness(server, true, nil); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%v, want %s", err, want)
		}
		if _, err := m.Own([]string{"ftp.example.com"}, nil); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%v, want %s", err, want)
		}
		likenessOf(t, m, server, false)
	})
}

// TestUntrusted: a server that failed verification is never shown under the authority that clients trust.
func TestUntrusted(t *testing.T) {
	root := issued(t, authorityOf("Example Authority"), nil)
	server := issued(t, x509.Certificate{DNSNames: []string{"ftp.example.com"}}, nil).cert
	m := NewMint(authority(t, root), 10)
	trusted, untrusted := likenessOf(t, m, server, true), likenessOf(t, m, server, false)
	if trusted == untrusted {
		t.Fatal("they are one")
	}
	second, err := m.Untrusted()
	if err != nil {
		t.Fatal(err)
	}
	const name = "ftpalg UNTRUSTED: this server could not be verified"
	if untrusted.Leaf.Issuer.CommonName != name || second.Subject.CommonName != name {
		t.Errorf("its issuer is %q, and the second authority %q", untrusted.Leaf.Issuer, second.Subject)
	}
	verify := func(c *tls.Certificate, roots *x509.CertPool) error {
		_, err := c.Leaf.Verify(x509.VerifyOptions{Roots: roots, DNSName: "ftp.example.com"})
		return err
	}
	var unknown x509.UnknownAuthorityError
	if err := verify(untrusted, pool(root.cert)); !errors.As(err, &unknown) {
		t.Errorf("the untrusted one, by the trusted authority: %v", err)
	}
	if err := verify(trusted, pool(second)); !errors.As(err, &unknown) {
		t.Errorf("the trusted one, by the untrusted authority: %v", err)
	}
	if err := verify(untrusted, pool(second)); err != nil {
		t.Error(err)
	}
	if other, err := NewMint(nil, 1).Untrusted(); err != nil || other.Equal(second) {
		t.Errorf("two have the same second authority: %v", err)
	}

	// Without an authority there is but the second.
	none := NewMint(nil, 10)
	likenessOf(t, none, server, false)
	if _, err := none.Likeness(server, true, nil); err == nil || !strings.Contains(err.Error(), "there is no authority") {
		t.Errorf("trusted without an authority: %v", err)
	}
	if _, err := none.Own([]string{"ftp.example.com"}, nil); err == nil || !strings.Contains(err.Error(), "ftpalg ca init") {
		t.Errorf("our own without an authority: %v", err)
	}
}

// TestKeys: clients get ECDSA unless they cannot take it, whatever name they ask for.
func TestKeys(t *testing.T) {
	root := issued(t, authorityOf("Example Authority"), nil)
	m := NewMint(authority(t, root), 10)
	server := issued(t, x509.Certificate{DNSNames: []string{"ftp.example.com"}}, nil).cert
	old := &tls.Config{MaxVersion: tls.VersionTLS12, CipherSuites: []uint16{tls.TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256}}
	older := &tls.Config{MaxVersion: tls.VersionTLS12, CipherSuites: []uint16{tls.TLS_RSA_WITH_AES_128_GCM_SHA256}}
	suites := slices.Concat(old.CipherSuites, older.CipherSuites, []uint16{tls.TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256})
	for name, test := range map[string]struct {
		client *tls.Config
		ask    string
		kind   string
	}{
		"modern":           {&tls.Config{}, "ftp.example.com", "ECDSA P-256"},
		"TLS 1.2":          {&tls.Config{MaxVersion: tls.VersionTLS12}, "ftp.example.com", "ECDSA P-256"},
		"RSA":              {old, "ftp.example.com", "RSA 2048 bits"},
		"RSA key exchange": {older, "ftp.example.com", "RSA 2048 bits"},
		"another name":     {&tls.Config{}, "www.example.com", "ECDSA P-256"},
	} {
		t.Run(name, func(t *testing.T) {
			client := test.client.Clone()
			client.RootCAs, client.ServerName = pool(root.cert), test.ask
			client.InsecureSkipVerify = test.ask != "ftp.example.com"
			state, err := shake(&tls.Config{
				CipherSuites:   suites,
				GetCertificate: func(hello *tls.ClientHelloInfo) (*tls.Certificate, error) { return m.Likeness(server, true, hello) },
			}, client)
			if err != nil {
				t.Fatal(err)
			}
			if got := KeyKind(state.PeerCertificates[0]); got != test.kind {
				t.Errorf("it is shown %s", got)
			}
		})
	}

	// A client of TLS 1.3 says which signatures it takes, and no longer in its cipher suites.
	hello := &tls.ClientHelloInfo{SupportedVersions: []uint16{tls.VersionTLS13},
		SignatureSchemes: []tls.SignatureScheme{tls.PSSWithSHA256}}
	c, err := m.Likeness(server, true, hello)
	if err != nil {
		t.Fatal(err)
	}
	checkHarmless(t, c, server)
	if _, ok := c.PrivateKey.(*rsa.PrivateKey); !ok || c.Leaf.KeyUsage&x509.KeyUsageKeyEncipherment == 0 {
		t.Errorf("it is shown %T, for use %b", c.PrivateKey, c.Leaf.KeyUsage)
	}

	// One key of a kind, for all servers and for ourselves.
	own, err := m.Own([]string{"ftp.example.com"}, nil)
	if err != nil {
		t.Fatal(err)
	}
	if likeness := likenessOf(t, m, server, true); own.PrivateKey.(*ecdsa.PrivateKey) != likeness.PrivateKey.(*ecdsa.PrivateKey) {
		t.Error("there are two keys")
	}
}

// signer counts the signatures of an authority, and refuses the first ones.
type signer struct {
	crypto.Signer
	mu      sync.Mutex
	refuse  int
	refused int
	signed  int
}

func (s *signer) Sign(rand io.Reader, digest []byte, o crypto.SignerOpts) ([]byte, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.refused < s.refuse {
		s.refused++
		return nil, errors.New("not now")
	}
	s.signed++
	return s.Signer.Sign(rand, digest, o)
}

// counting is an authority whose signatures are counted.
func counting(t *testing.T, refuse int) (*Authority, *signer) {
	root := issued(t, authorityOf("Example Authority"), nil)
	s := &signer{Signer: root.key, refuse: refuse}
	return newAuthority([]*x509.Certificate{root.cert}, s), s
}

// TestOnce: many who want the same certificate at once get the same, signed once.
func TestOnce(t *testing.T) {
	a, s := counting(t, 0)
	m := NewMint(a, 10)
	servers := []*x509.Certificate{issued(t, x509.Certificate{}, nil).cert, issued(t, x509.Certificate{}, nil).cert}
	var all sync.WaitGroup
	got := make([]*tls.Certificate, 64)
	for i := range got {
		all.Go(func() {
			var err error
			if got[i], err = m.Likeness(servers[i%2], true, nil); err != nil {
				t.Error(err)
			}
		})
	}
	all.Wait()
	for i, c := range got {
		if c != got[i%2] {
			t.Errorf("%d has another", i)
		}
	}
	if got[0] == got[1] || s.signed != 2 {
		t.Errorf("two certificates took %d signatures", s.signed)
	}
}

// TestFailed: what could not be made is tried again.
func TestFailed(t *testing.T) {
	a, s := counting(t, 1)
	m := NewMint(a, 10)
	server := issued(t, x509.Certificate{}, nil).cert
	if _, err := m.Likeness(server, true, nil); err == nil || !strings.Contains(err.Error(), "not now") {
		t.Errorf("the authority refuses, and: %v", err)
	}
	if len(m.kept) != 0 || m.used.Len() != 0 {
		t.Errorf("%d failures are kept", len(m.kept))
	}
	likenessOf(t, m, server, true)
	likenessOf(t, m, server, true)
	if s.signed != 1 {
		t.Errorf("%d signatures", s.signed)
	}

	// Of many who waited for it the last must not forget what the first has made again.
	failed := m.find(coin{})
	m.drop(failed)
	again := m.find(coin{})
	m.drop(failed)
	if m.find(coin{}) != again {
		t.Error("what was made again is forgotten")
	}
}

// TestCapacity: whoever has ever new servers or names costs signatures, but no memory; those in use stay.
func TestCapacity(t *testing.T) {
	a, s := counting(t, 0)
	const capacity = 3
	m := NewMint(a, capacity)
	used := issued(t, x509.Certificate{}, nil).cert
	first := likenessOf(t, m, used, true)
	for i := range 10 {
		likenessOf(t, m, issued(t, x509.Certificate{}, nil).cert, true)
		if _, err := m.Own([]string{fmt.Sprintf("host%d.example.com", i)}, nil); err != nil {
			t.Fatal(err)
		}
		if likenessOf(t, m, used, true) != first {
			t.Fatal("the one in use went first")
		}
		if len(m.kept) > capacity || m.used.Len() != len(m.kept) {
			t.Fatalf("%d are kept, in a list of %d", len(m.kept), m.used.Len())
		}
	}
	if s.signed != 21 {
		t.Errorf("21 certificates took %d signatures", s.signed)
	}
	likenessOf(t, NewMint(a, 0), used, true) // one at least
}

func TestOwn(t *testing.T) {
	root := issued(t, authorityOf("Example Authority"), nil)
	m := NewMint(authority(t, root), 10)
	long := strings.Repeat("long.", 13) + "example.com"
	for name, test := range map[string]struct {
		names []string
		cn    string
		dns   []string
		ips   string
	}{
		"one": {[]string{"ftp.example.com"}, "ftp.example.com", []string{"ftp.example.com"}, "[]"},
		"all": {[]string{"192.0.2.1", "FTP.example.com.", "2001:DB8::1", "fe80::1%lan0"}, "192.0.2.1", []string{"ftp.example.com"},
			"[192.0.2.1 2001:db8::1 fe80::1]"},
		"twice": {[]string{"a.test", "A.test", "::ffff:192.0.2.1", "192.0.2.1"}, "a.test", []string{"a.test"}, "[192.0.2.1]"},
		"long":  {[]string{long}, long[:64], []string{long}, "[]"},
		"invalid": {[]string{"", ".", "-a", "a-", "a b", "ü.test", "*", "*.test", "a..b", "ftp://x", "a\x00", strings.Repeat("a", 64),
			"b_1"}, "b_1", []string{"b_1"}, "[]"},
	} {
		t.Run(name, func(t *testing.T) {
			c, err := m.Own(test.names, nil)
			if err != nil {
				t.Fatal(err)
			}
			l := c.Leaf
			if l.Subject.CommonName != test.cn || !slices.Equal(l.DNSNames, test.dns) || fmt.Sprint(l.IPAddresses) != test.ips {
				t.Errorf("it is for %q, %q, %v", l.Subject.CommonName, l.DNSNames, l.IPAddresses)
			}
			if l.IsCA || l.KeyUsage != x509.KeyUsageDigitalSignature {
				t.Errorf("it may do more than serve: CA %v, %b", l.IsCA, l.KeyUsage)
			}
			for _, name := range append(slices.Clone(test.dns), test.names[0]) {
				if _, ok := hostName(name); ok {
					handshake(t, c, pool(root.cert), strings.TrimSuffix(name, "."))
				}
			}
		})
	}
	for _, names := range [][]string{nil, {"*"}, {"a b", strings.Repeat("a.", 128)}} {
		if _, err := m.Own(names, nil); err == nil || !strings.Contains(err.Error(), "is a host name or an IP address") {
			t.Errorf("%q: %v", names, err)
		}
	}
}

// TestOwnAgain: our own certificate is made again before it expires, and no more often.
func TestOwnAgain(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		template := authorityOf("Example Authority")
		template.NotAfter = time.Now().Add(200 * day)
		root := issued(t, template, nil)
		s := &signer{Signer: root.key}
		m := NewMint(newAuthority([]*x509.Certificate{root.cert}, s), 10)
		own := func() *x509.Certificate {
			t.Helper()
			c, err := m.Own([]string{"ftp.example.com"}, nil)
			if err != nil {
				t.Fatal(err)
			}
			return c.Leaf
		}
		first := own()
		if from, until := time.Since(first.NotBefore), time.Until(first.NotAfter); from != time.Hour || until != 90*day {
			t.Errorf("valid since %v, for %v", from, until)
		}
		for range 195 {
			time.Sleep(day)
			if left := time.Until(own().NotAfter); left < 29*day && !own().NotAfter.Equal(root.cert.NotAfter) {
				t.Fatalf("%v is left", left)
			}
		}
		// After 61 days, and after 122 to the authority's end, beyond which none can go.
		if s.signed != 3 {
			t.Errorf("%d signatures in 195 days", s.signed)
		}
		if !own().NotAfter.Equal(root.cert.NotAfter) {
			t.Errorf("valid to %v, and the authority to %v", own().NotAfter, root.cert.NotAfter)
		}
	})
}

// FuzzLikeness mints from whatever passes for a certificate, and fails if the likeness could do harm.
func FuzzLikeness(f *testing.F) {
	seeds := []x509.Certificate{
		authorityOf("ftp.example.com"),
		{Subject: pkix.Name{CommonName: "ftp.example.com"}, DNSNames: []string{"ftp.example.com", "*.example.com", "a\x00b"},
			IPAddresses: []net.IP{net.IPv4(192, 0, 2, 1), net.ParseIP("2001:db8::1")}, EmailAddresses: []string{"a@example.com"},
			URIs: []*url.URL{{Scheme: "ftp", Host: "[2001:db8::1]", Path: "/%41 b"}, {Opaque: "a:b"}}},
		{NotBefore: time.Date(1, 1, 1, 0, 0, 0, 0, time.UTC), NotAfter: time.Date(9999, 12, 31, 23, 59, 59, 0, time.UTC)},
	}
	for _, template := range seeds {
		f.Add(issued(f, template, nil).cert.Raw)
	}
	root := issued(f, authorityOf("Example Authority"), nil)
	m := NewMint(authority(f, root), 10)
	f.Fuzz(func(t *testing.T, der []byte) {
		server, err := x509.ParseCertificate(der)
		if err != nil {
			return
		}
		for _, trusted := range []bool{true, false} {
			c, err := m.Likeness(server, trusted, nil)
			if err != nil {
				continue
			}
			checkHarmless(t, c, server)
			if got := bytes.Equal(c.Leaf.RawIssuer, root.cert.RawSubject); got != trusted {
				t.Errorf("trusted is %v, and it is signed by %s", trusted, c.Leaf.Issuer)
			}
			if c.Leaf.NotAfter.After(server.NotAfter) || c.Leaf.NotBefore.Before(server.NotBefore) {
				t.Errorf("valid from %v to %v, and the server from %v to %v", c.Leaf.NotBefore, c.Leaf.NotAfter,
					server.NotBefore, server.NotAfter)
			}
		}
	})
}
