package tlsmitm

import (
	"container/list"
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"net/url"
	"slices"
	"strings"
	"sync"
	"time"
)

// maxServerCertificate is the size of the largest certificate that is mirrored, in bytes: a hostile server can fill one
// with names, and we would sign, keep and send them. OpenSSL's clients take chains of 100 KB.
const maxServerCertificate = 100 << 10

// untrustedName is what a client shows of the authority that no client trusts.
const untrustedName = "ftpalg UNTRUSTED: this server could not be verified"

// ownLifetime is how long a certificate for ourselves is valid. It is made again in time.
const ownLifetime = 90 * 24 * time.Hour

// Mint makes certificates and keeps them. It is for many goroutines at once. What it returns is shared: it must not be
// changed.
type Mint struct {
	trusted   *Authority                 // may be nil
	untrusted func() (*Authority, error) // made at first need, as are the keys
	ecdsa     func() (crypto.Signer, error)
	rsa       func() (crypto.Signer, error)
	capacity  int

	mu   sync.Mutex
	kept map[coin]*list.Element // of used
	used list.List              // of *minted, the last used first
}

// coin is what a certificate was made of.
type coin struct {
	of        [sha256.Size]byte // the server's certificate, or the names
	own       bool              // the names
	authority *Authority
	key       crypto.Signer
}

// minted is a certificate, or one that is being made.
type minted struct {
	coin coin
	once sync.Once
	cert *tls.Certificate
	err  error
}

// NewMint returns a Mint that signs with the trusted authority; nil: there is none, and asking for a trusted certificate is
// an error. For servers that failed verification it makes a second authority of its own, in memory, at first need.
// capacity bounds the certificates kept, at least 1; those not used for longest go first.
func NewMint(trusted *Authority, capacity int) *Mint {
	return &Mint{
		trusted: trusted,
		untrusted: sync.OnceValues(func() (*Authority, error) {
			cert, key, err := makeAuthority(AuthorityOptions{Name: untrustedName, Lifetime: 10 * 365 * 24 * time.Hour})
			if err != nil {
				return nil, err
			}
			return newAuthority([]*x509.Certificate{cert}, key), nil
		}),
		ecdsa: sync.OnceValues(func() (crypto.Signer, error) { return ecdsa.GenerateKey(elliptic.P256(), rand.Reader) }),
		// Only for clients too old for ECDSA, which check no more than 2048 bits with any speed.
		rsa:      sync.OnceValues(func() (crypto.Signer, error) { return rsa.GenerateKey(rand.Reader, 2048) }),
		capacity: max(capacity, 1),
		kept:     map[coin]*list.Element{},
	}
}

// Likeness returns a certificate that looks like a server's, signed by the trusted or the untrusted authority: its
// subject, its names (DNS, IP, mail, URI) and its dates as far as the authority's go, with a key of ours. The server's
// must have been parsed, and have 100 KiB at most. Whatever that one may do, ours can be a TLS server and nothing else.
//
// The key is ECDSA P-256, or RSA-2048 for a client that cannot take that; nil: a client that can. A client sees the
// authority's signature as well, and one without any ECDSA needs an authority with RSA.
//
// The common name of a certificate without other names is not put among them. Clients that still look at it do so with the
// likeness too. Those that do not would refuse the original, and rightly: nobody vouched for it, and constraints on the
// server's authority do not bind it.
func (m *Mint) Likeness(server *x509.Certificate, trusted bool, hello *tls.ClientHelloInfo) (*tls.Certificate, error) {
	if n := len(server.Raw); n == 0 || n > maxServerCertificate {
		return nil, fmt.Errorf("the server's certificate has %d bytes; 1 to %d can be mirrored", n, maxServerCertificate)
	}
	authority := m.untrusted
	if trusted {
		authority = m.authority
	}
	template := func() (*x509.Certificate, error) { return likeness(server) }
	return m.mint(coin{of: sha256.Sum256(server.Raw)}, authority, hello, template)
}

// Own returns a certificate for ourselves, by the trusted authority, under the given names: host names or IP addresses as
// text. The first is the common name, cut at 64 characters. What is neither is left out; if nothing is left, it is an
// error. It is valid for 90 days or until the authority's end, and made again when less than a third of that remains.
func (m *Mint) Own(names []string, hello *tls.ClientHelloInfo) (*tls.Certificate, error) {
	var valid []string
	for _, name := range names {
		if name, ok := hostName(name); ok && !slices.Contains(valid, name) {
			valid = append(valid, name)
		}
	}
	if len(valid) == 0 {
		return nil, fmt.Errorf("none of %q is a host name or an IP address, so there is no certificate for it", names)
	}
	template := func() (*x509.Certificate, error) { return own(valid), nil }
	return m.mint(coin{of: sha256.Sum256([]byte(strings.Join(valid, " "))), own: true}, m.authority, hello, template)
}

// Untrusted returns the certificate of the second authority, for logs and tests.
func (m *Mint) Untrusted() (*x509.Certificate, error) {
	a, err := m.untrusted()
	if err != nil {
		return nil, err
	}
	return a.cert, nil
}

func (m *Mint) authority() (*Authority, error) {
	if m.trusted == nil {
		return nil, errors.New("there is no authority that clients trust: make one with ftpalg ca init")
	}
	if fault := unfit(m.trusted.cert, time.Now()); fault != "" { // it was fit once, but authorities expire
		return nil, fmt.Errorf("the authority: %s %s", m.trusted.cert.Subject, fault)
	}
	return m.trusted, nil
}

// keyFor returns the key that a client can be shown.
func (m *Mint) keyFor(hello *tls.ClientHelloInfo) (crypto.Signer, error) {
	key, err := m.ecdsa()
	if err != nil || hello == nil {
		return key, err
	}
	nameless := *hello
	nameless.ServerName = "" // names say nothing about keys, and clients ask for ones that the server does not have
	if nameless.SupportsCertificate(&tls.Certificate{PrivateKey: key}) == nil {
		return key, nil
	}
	return m.rsa()
}

// mint returns a certificate that is kept, or makes it. Whoever else wants the same meanwhile waits for it.
func (m *Mint) mint(c coin, authority func() (*Authority, error), hello *tls.ClientHelloInfo,
	template func() (*x509.Certificate, error)) (_ *tls.Certificate, err error) {
	if c.authority, err = authority(); err != nil {
		return nil, err
	}
	if c.key, err = m.keyFor(hello); err != nil {
		return nil, err
	}
	for {
		e := m.find(c)
		fresh := false
		e.once.Do(func() {
			fresh = true
			e.cert, e.err = c.strike(template)
		})
		switch {
		case e.err != nil:
			m.drop(e)
			return nil, e.err
		case fresh || !c.own || !stale(e.cert.Leaf, c.authority.cert, time.Now()):
			// A likeness is never stale: its dates follow from what it was made of, and would be the same again.
			return e.cert, nil
		}
		m.drop(e)
	}
}

// find returns what is kept of a coin, or begins it.
func (m *Mint) find(c coin) *minted {
	m.mu.Lock()
	defer m.mu.Unlock()
	if at, ok := m.kept[c]; ok {
		m.used.MoveToFront(at)
		return at.Value.(*minted)
	}
	// A server can show a new certificate each time, and a client can ask for new names: they cost a signature, and no memory.
	if len(m.kept) >= m.capacity {
		oldest := m.used.Remove(m.used.Back()).(*minted)
		delete(m.kept, oldest.coin)
	}
	e := &minted{coin: c}
	m.kept[c] = m.used.PushFront(e)
	return e
}

// drop forgets what failed or is stale, unless another has taken its place.
func (m *Mint) drop(e *minted) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if at, ok := m.kept[e.coin]; ok && at.Value == e {
		m.used.Remove(at)
		delete(m.kept, e.coin)
	}
}

// stale reports whether a certificate for ourselves should be made again, if that would make it last longer.
func stale(c, authority *x509.Certificate, now time.Time) bool {
	return c.NotAfter.Before(authority.NotAfter) && c.NotAfter.Sub(now) < c.NotAfter.Sub(c.NotBefore)/3
}

// strike makes the certificate, for a TLS server and nothing else, and the chain that is sent with it.
func (c coin) strike(template func() (*x509.Certificate, error)) (*tls.Certificate, error) {
	t, err := template()
	if err != nil {
		return nil, err
	}
	t.KeyUsage = x509.KeyUsageDigitalSignature
	if _, ok := c.key.(*rsa.PrivateKey); ok {
		t.KeyUsage |= x509.KeyUsageKeyEncipherment // for clients that know no other key exchange
	}
	t.ExtKeyUsage = []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth}
	t.BasicConstraintsValid = true // and IsCA is not
	leaf, err := c.authority.sign(t, c.key.Public())
	if err != nil {
		return nil, err
	}
	return &tls.Certificate{Certificate: append([][]byte{leaf.Raw}, c.authority.sent...), PrivateKey: c.key, Leaf: leaf}, nil
}

// likeness is the template of one. It takes over what it names and nothing else: not the serial number, under which the
// server's authority may know it, nor anything that speaks of that authority (SCTs, AIA, CRLs, policies).
func likeness(server *x509.Certificate) (*x509.Certificate, error) {
	t := &x509.Certificate{
		RawSubject:     server.RawSubject, // to the byte, with types of strings and attributes that we do not know
		NotBefore:      server.NotBefore,
		NotAfter:       server.NotAfter,
		DNSNames:       slices.DeleteFunc(slices.Clone(server.DNSNames), garbage),
		EmailAddresses: slices.DeleteFunc(slices.Clone(server.EmailAddresses), garbage),
		IPAddresses:    slices.Clone(server.IPAddresses),
	}
	for _, u := range server.URIs {
		// Written anew, it may be another.
		if s := u.String(); !garbage(s) {
			if again, err := url.Parse(s); err == nil && again.Host == u.Host {
				t.URIs = append(t.URIs, u)
			}
		}
	}
	if len(server.DNSNames) > 0 && len(t.DNSNames) == 0 {
		// Without any, clients would turn to the common name, which nobody may have vouched for.
		return nil, fmt.Errorf("none of the server's names can be mirrored: %.100q", server.DNSNames[0])
	}
	return t, nil
}

// garbage reports whether a name has bytes that no name has: a client that stops at a NUL would read another.
func garbage(name string) bool {
	return name == "" || strings.ContainsFunc(name, func(r rune) bool { return r <= ' ' || r > '~' })
}

// own is the template of a certificate for ourselves. There is a name at least, and all are valid.
func own(names []string) *x509.Certificate {
	now := time.Now()
	t := &x509.Certificate{
		Subject:   pkix.Name{CommonName: names[0][:min(len(names[0]), maxCommonName)]},
		NotBefore: now.Add(-backdate),
		NotAfter:  now.Add(ownLifetime),
	}
	for _, name := range names {
		if ip := net.ParseIP(name); ip != nil {
			t.IPAddresses = append(t.IPAddresses, ip)
		} else {
			t.DNSNames = append(t.DNSNames, name)
		}
	}
	return t
}

// hostName returns the one spelling of an IP address, without a zone, or of a host name (RFC 1123 §2.1, and the underscore
// that people use), and whether it is one.
func hostName(name string) (string, bool) {
	if ip, err := netip.ParseAddr(name); err == nil {
		return ip.Unmap().WithZone("").String(), true
	}
	name = strings.ToLower(strings.TrimSuffix(name, "."))
	if len(name) > 253 {
		return "", false
	}
	for label := range strings.SplitSeq(name, ".") {
		if label == "" || len(label) > 63 || label[0] == '-' || label[len(label)-1] == '-' ||
			strings.Trim(label, "abcdefghijklmnopqrstuvwxyz0123456789-_") != "" {
			return "", false
		}
	}
	return name, true
}
