// Package tlsmitm holds the two TLS identities of a session: towards the server it is a client that verifies, and towards
// the client it is a server, with a likeness of the real server's certificate that an Authority has signed.
package tlsmitm

import (
	"bytes"
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha256"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"
	"unicode/utf8"
)

// backdate is how long before its making a certificate of ours begins to be valid: clocks of clients are slow.
const backdate = time.Hour

// maxCommonName is the length of a common name, in characters (ub-common-name, RFC 5280 Appendix A.1).
const maxCommonName = 64

// AuthorityOptions describe an authority to make.
type AuthorityOptions struct {
	Name     string        // common name, 1 to 64 characters
	RSA      bool          // RSA-3072 instead of ECDSA P-256, for clients that know nothing else
	Lifetime time.Duration // positive
}

// NewAuthority makes a self-signed authority and returns its certificate and private key (PKCS #8) as PEM.
func NewAuthority(o AuthorityOptions) (certPEM, keyPEM []byte, err error) {
	cert, key, err := makeAuthority(o)
	if err != nil {
		return nil, nil, err
	}
	der, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		return nil, nil, err
	}
	return CertificatePEM(cert), pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: der}), nil
}

func makeAuthority(o AuthorityOptions) (*x509.Certificate, crypto.Signer, error) {
	if n := utf8.RuneCountInString(o.Name); n < 1 || n > maxCommonName {
		return nil, nil, fmt.Errorf("the name of an authority has %d characters; 1 to %d are allowed", n, maxCommonName)
	}
	if o.Lifetime <= 0 {
		return nil, nil, fmt.Errorf("the lifetime of an authority is %v; it must be positive", o.Lifetime)
	}
	var key crypto.Signer
	var err error
	if o.RSA {
		key, err = rsa.GenerateKey(rand.Reader, 3072)
	} else {
		key, err = ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	}
	if err != nil {
		return nil, nil, err
	}
	now := time.Now()
	template := &x509.Certificate{
		Subject:   pkix.Name{CommonName: o.Name},
		NotBefore: now.Add(-backdate),
		NotAfter:  now.Add(o.Lifetime),
		// A stolen key is worth little more than it must be: it makes no other authorities, and no signers of mail or code.
		KeyUsage:              x509.KeyUsageCertSign | x509.KeyUsageCRLSign,
		ExtKeyUsage:           []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth},
		BasicConstraintsValid: true,
		IsCA:                  true,
		MaxPathLenZero:        true,
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		return nil, nil, err
	}
	cert, err := x509.ParseCertificate(der)
	return cert, key, err
}

// Authority signs certificates for the client's eyes.
type Authority struct {
	cert *x509.Certificate
	key  crypto.Signer
	sent [][]byte // what goes after a certificate that it signed: itself and those above it, but for the root

	// The authority's own chain as a client that trusts its top sees it.
	top, below *x509.CertPool
}

// Certificate returns the authority's own certificate.
func (a *Authority) Certificate() *x509.Certificate { return a.cert }

// ParseAuthority reads an authority from PEM. certPEM has its certificate first, and then, if it is an intermediate, those
// above it in order; the root may be among them, and is left out of what clients are sent. keyPEM is PKCS #8, PKCS #1 or
// SEC 1, and not encrypted. Errors say what would mend them, and never quote the key.
func ParseAuthority(certPEM, keyPEM []byte) (*Authority, error) {
	return parseAuthority(certPEM, keyPEM, "the authority's certificate", "the authority's key")
}

// LoadAuthority is ParseAuthority for files; both may be one. Nobody but its owner may read or write the key's, except
// that systemd decides about those below $CREDENTIALS_DIRECTORY.
func LoadAuthority(certFile, keyFile string) (*Authority, error) {
	certPEM, err := os.ReadFile(certFile)
	if err != nil {
		return nil, err
	}
	keyPEM, err := readKey(keyFile)
	if err != nil {
		return nil, err
	}
	return parseAuthority(certPEM, keyPEM, certFile, keyFile)
}

// LoadCertificate reads an authority's certificate from a file as LoadAuthority does, without its key.
func LoadCertificate(file string) (*x509.Certificate, error) {
	certPEM, err := os.ReadFile(file)
	if err != nil {
		return nil, err
	}
	chain, err := parseChain(certPEM, file)
	if err != nil {
		return nil, err
	}
	return chain[0], nil
}

// readKey reads a file that is the business of its owner.
func readKey(file string) ([]byte, error) {
	f, err := os.Open(file)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		return nil, err
	}
	if mode := info.Mode().Perm(); mode&0o066 != 0 && !isCredential(file) {
		return nil, fmt.Errorf("%s: others than its owner can read or write this key (mode %#o): chmod 600 %[1]s", file, mode)
	}
	var b bytes.Buffer
	if _, err := b.ReadFrom(f); err != nil {
		return nil, err
	}
	return b.Bytes(), nil
}

// isCredential reports whether systemd has put the file where it is: LoadCredential= grants access by ACL, which shows as
// mode 0440, and lets nobody else into the directory.
func isCredential(file string) bool {
	file, err := filepath.Abs(file)
	if err != nil {
		return false
	}
	rel, err := filepath.Rel(os.Getenv("CREDENTIALS_DIRECTORY"), file) // an error if it is not set
	return err == nil && filepath.IsLocal(rel)
}

// parseAuthority is ParseAuthority with the names that errors have for the two.
func parseAuthority(certPEM, keyPEM []byte, certName, keyName string) (*Authority, error) {
	chain, err := parseChain(certPEM, certName)
	if err != nil {
		return nil, err
	}
	key, err := parseKey(keyPEM, keyName)
	if err != nil {
		return nil, err
	}
	cert := chain[0]
	if public, ok := key.Public().(interface{ Equal(crypto.PublicKey) bool }); !ok || !public.Equal(cert.PublicKey) {
		return nil, fmt.Errorf("%s: this key does not belong to the first certificate of %s (%s)", keyName, certName, cert.Subject)
	}
	return newAuthority(chain, key), nil
}

func newAuthority(chain []*x509.Certificate, key crypto.Signer) *Authority {
	a := &Authority{cert: chain[0], key: key, top: x509.NewCertPool(), below: x509.NewCertPool()}
	for i, c := range chain {
		if !selfIssued(c) {
			a.sent = append(a.sent, c.Raw)
		}
		if i < len(chain)-1 {
			a.below.AddCert(c)
		} else {
			a.top.AddCert(c)
		}
	}
	return a
}

// selfIssued reports whether a certificate is a root's, which clients have or never trust: it need not be sent.
func selfIssued(c *x509.Certificate) bool { return bytes.Equal(c.RawSubject, c.RawIssuer) }

// parseChain reads an authority's certificate and those above it, and says what would keep clients from believing them.
func parseChain(certPEM []byte, name string) ([]*x509.Certificate, error) {
	var chain []*x509.Certificate
	keys := false
	for block, rest := pem.Decode(certPEM); block != nil; block, rest = pem.Decode(rest) {
		keys = keys || strings.HasSuffix(block.Type, "PRIVATE KEY")
		if block.Type != "CERTIFICATE" {
			continue
		}
		c, err := x509.ParseCertificate(block.Bytes)
		if err != nil {
			return nil, fmt.Errorf("%s: certificate %d: %w", name, len(chain)+1, err)
		}
		chain = append(chain, c)
	}
	switch {
	case len(chain) == 0 && keys:
		return nil, fmt.Errorf("%s: has a private key and no certificate: are the two files swapped?", name)
	case len(chain) == 0:
		return nil, fmt.Errorf("%s: has no PEM block CERTIFICATE; if it is DER: "+
			"openssl x509 -inform der -in FILE -out FILE.pem", name)
	}
	if fault := unfit(chain[0], time.Now()); fault != "" {
		return nil, fmt.Errorf("%s: %s %s", name, chain[0].Subject, fault)
	}
	for i := range len(chain) - 1 {
		if err := chain[i].CheckSignatureFrom(chain[i+1]); err != nil {
			return nil, fmt.Errorf("%s: certificate %d is not signed by the one after it (%w): put the authority's first, "+
				"then its issuer's and so on", name, i+1, err)
		}
	}
	return chain, nil
}

// unfit says what keeps a certificate from being an authority's for servers.
func unfit(c *x509.Certificate, now time.Time) string {
	serves := func(u x509.ExtKeyUsage) bool { return u == x509.ExtKeyUsageAny || u == x509.ExtKeyUsageServerAuth }
	limited := len(c.ExtKeyUsage)+len(c.UnknownExtKeyUsage) > 0
	switch {
	case !c.BasicConstraintsValid || !c.IsCA:
		return "is not an authority's certificate, for it lacks basicConstraints CA:TRUE; " +
			"make one with ftpalg ca init, or have your own authority issue an intermediate"
	case c.KeyUsage != 0 && c.KeyUsage&x509.KeyUsageCertSign == 0:
		return "may not sign certificates: its keyUsage lacks keyCertSign"
	case limited && !slices.ContainsFunc(c.ExtKeyUsage, serves):
		return "may not sign for servers: its extendedKeyUsage lacks serverAuth"
	case now.Before(c.NotBefore):
		return fmt.Sprintf("is not valid before %s: is the clock right?", date(c.NotBefore))
	case now.After(c.NotAfter):
		return fmt.Sprintf("expired on %s: make a new authority and give it to the clients", date(c.NotAfter))
	}
	return ""
}

// parseKey reads the first private key. What x509 says of a bad one has no part of it.
func parseKey(keyPEM []byte, name string) (crypto.Signer, error) {
	for block, rest := pem.Decode(keyPEM); block != nil; block, rest = pem.Decode(rest) {
		var key any
		var err error
		switch kind := block.Type; {
		case !strings.HasSuffix(kind, "PRIVATE KEY"):
			continue
		case kind == "ENCRYPTED PRIVATE KEY" || strings.Contains(block.Headers["Proc-Type"], "ENCRYPTED"):
			return nil, fmt.Errorf("%s: the key is encrypted, and nobody is there to type its password; "+
				"decrypt it with openssl pkey -in FILE -out FILE.new, and chmod 600 that", name)
		case kind == "PRIVATE KEY":
			key, err = x509.ParsePKCS8PrivateKey(block.Bytes)
		case kind == "RSA PRIVATE KEY":
			key, err = x509.ParsePKCS1PrivateKey(block.Bytes)
		case kind == "EC PRIVATE KEY":
			key, err = x509.ParseECPrivateKey(block.Bytes)
		default:
			return nil, fmt.Errorf("%s: PEM block %s is of no kind that is known; PKCS #8, PKCS #1 and SEC 1 are", name, kind)
		}
		if err != nil {
			return nil, fmt.Errorf("%s: %w", name, err)
		}
		signer, ok := key.(crypto.Signer)
		if !ok {
			return nil, fmt.Errorf("%s: this key cannot sign; RSA, ECDSA and Ed25519 can", name)
		}
		return signer, nil
	}
	return nil, fmt.Errorf("%s: has no PEM block PRIVATE KEY; if it is DER: "+
		"openssl pkey -inform der -in FILE -out FILE.pem", name)
}

// permits holds a certificate against the name constraints of the authority and of those above it (RFC 5280 §4.2.1.10).
// A client does, and refuses the whole certificate for one name too many.
func (a *Authority) permits(c *x509.Certificate) error {
	_, err := c.Verify(x509.VerifyOptions{Roots: a.top, Intermediates: a.below})
	var invalid x509.CertificateInvalidError
	if errors.As(err, &invalid) && invalid.Reason == x509.CANotAuthorizedForThisName {
		return fmt.Errorf("the authority (%s) may not sign for all names of this certificate: %s", a.cert.Subject, invalid.Detail)
	}
	return nil // dates are for the client to judge
}

// sign makes a certificate of a template. Its dates are those of the authority where it would begin earlier or end later,
// since a client holds the whole chain against its clock.
func (a *Authority) sign(template *x509.Certificate, public crypto.PublicKey) (*x509.Certificate, error) {
	from, until := template.NotBefore, template.NotAfter
	if from.Before(a.cert.NotBefore) {
		from = a.cert.NotBefore
	}
	if until.After(a.cert.NotAfter) {
		until = a.cert.NotAfter
	}
	if !until.Before(from) { // else one of the two was over before the other began, and no dates of ours would change that
		template.NotBefore, template.NotAfter = from, until
	}
	spki, err := x509.MarshalPKIXPublicKey(public)
	if err != nil {
		return nil, err
	}
	id := sha256.Sum256(spki)
	template.SubjectKeyId = id[:20]
	// CreateCertificate leaves it out where subject and issuer are alike, which a hostile server can bring about.
	template.AuthorityKeyId = a.cert.SubjectKeyId
	der, err := x509.CreateCertificate(rand.Reader, template, a.cert, public, a.key)
	if err != nil {
		return nil, err
	}
	c, err := x509.ParseCertificate(der)
	if err != nil {
		return nil, err
	}
	return c, a.permits(c)
}

// date is a day as certificates are talked about.
func date(t time.Time) string { return t.UTC().Format("2006-01-02 15:04 MST") }

// CertificatePEM is the certificate in the form that clients import.
func CertificatePEM(c *x509.Certificate) []byte {
	return pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: c.Raw})
}

// Fingerprint is the SHA-256 of a certificate as other programs show it: hexadecimal pairs with colons between.
func Fingerprint(c *x509.Certificate) string {
	sum := sha256.Sum256(c.Raw)
	return strings.ReplaceAll(fmt.Sprintf("% X", sum[:]), " ", ":")
}

// KeyKind names the kind and size of a certificate's key: "ECDSA P-256", "RSA 3072 bits".
func KeyKind(c *x509.Certificate) string {
	switch key := c.PublicKey.(type) {
	case *ecdsa.PublicKey:
		return "ECDSA " + key.Curve.Params().Name
	case *rsa.PublicKey:
		return fmt.Sprintf("RSA %d bits", key.N.BitLen())
	}
	return c.PublicKeyAlgorithm.String()
}
