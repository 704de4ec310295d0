//go:build linux

package integration

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"math/big"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"testing"
	"time"
)

// An authority signs certificates: one those of the servers, another is the gateway's own. Nobody trusts either who is not
// told to.
type authority struct {
	CertFile, KeyFile string // PEM; the key is PKCS #8, and its owner's alone

	t    *testing.T
	dir  string
	cert *x509.Certificate
	key  *ecdsa.PrivateKey
}

// newAuthority makes an authority, and files of it in the lab's directory.
func (l *lab) newAuthority(name string) *authority {
	l.t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		l.t.Fatal(err)
	}
	a := &authority{
		CertFile: filepath.Join(l.Dir, name+".crt"), KeyFile: filepath.Join(l.Dir, name+".key"),
		t: l.t, dir: l.Dir, key: key,
	}
	template := x509.Certificate{
		Subject:               pkix.Name{CommonName: name},
		KeyUsage:              x509.KeyUsageCertSign | x509.KeyUsageCRLSign,
		BasicConstraintsValid: true,
		IsCA:                  true,
	}
	a.cert = a.sign(&template, &template, key)
	a.write(a.CertFile, 0o644, block("CERTIFICATE", a.cert.Raw))
	a.write(a.KeyFile, 0o600, a.keyBlock(key))
	return a
}

// issue makes a certificate for NAME.ftp.test and some addresses, with an RSA key or an ECDSA one, and returns a file that has
// both. It is root's alone: servers read it before they become somebody else.
func (a *authority) issue(name string, withRSA bool, addresses ...netip.Addr) (file string) {
	a.t.Helper()
	var key crypto.Signer
	var err error
	if withRSA {
		key, err = rsa.GenerateKey(rand.Reader, 2048)
	} else {
		key, err = ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	}
	if err != nil {
		a.t.Fatal(err)
	}
	template := x509.Certificate{
		Subject:     pkix.Name{CommonName: hostName(name)},
		DNSNames:    []string{hostName(name)},
		KeyUsage:    x509.KeyUsageDigitalSignature,
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth},
	}
	if withRSA {
		template.KeyUsage |= x509.KeyUsageKeyEncipherment
	}
	for _, address := range addresses {
		template.IPAddresses = append(template.IPAddresses, net.IP(address.AsSlice()))
	}
	cert := a.sign(&template, a.cert, key)
	file = filepath.Join(a.dir, name+".pem")
	a.write(file, 0o600, block("CERTIFICATE", cert.Raw), a.keyBlock(key))
	return file
}

// hostName is the name of a server in its certificate. No name server knows it.
func hostName(server string) string { return server + ".ftp.test" }

// sign completes a certificate: it is good for a day, since a minute ago.
func (a *authority) sign(template, parent *x509.Certificate, key crypto.Signer) *x509.Certificate {
	a.t.Helper()
	serial, err := rand.Int(rand.Reader, big.NewInt(1<<62))
	if err != nil {
		a.t.Fatal(err)
	}
	template.SerialNumber = serial
	template.NotBefore = time.Now().Add(-time.Minute)
	template.NotAfter = template.NotBefore.Add(24 * time.Hour)
	der, err := x509.CreateCertificate(rand.Reader, template, parent, key.Public(), a.key)
	if err != nil {
		a.t.Fatal(err)
	}
	cert, err := x509.ParseCertificate(der)
	if err != nil {
		a.t.Fatal(err)
	}
	return cert
}

// roots trust this authority and no other.
func (a *authority) roots() *x509.CertPool {
	pool := x509.NewCertPool()
	pool.AddCert(a.cert)
	return pool
}

func (a *authority) keyBlock(key crypto.Signer) []byte {
	a.t.Helper()
	der, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		a.t.Fatal(err)
	}
	return block("PRIVATE KEY", der)
}

func block(kind string, der []byte) []byte {
	return pem.EncodeToMemory(&pem.Block{Type: kind, Bytes: der})
}

func (a *authority) write(file string, mode os.FileMode, blocks ...[]byte) {
	a.t.Helper()
	var text []byte
	for _, b := range blocks {
		text = append(text, b...)
	}
	if err := os.WriteFile(file, text, mode); err != nil {
		a.t.Fatal(err)
	}
}
