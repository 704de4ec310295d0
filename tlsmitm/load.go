package tlsmitm

import (
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"os"
	"slices"
	"strings"
)

// KeyPair is a certificate with its key, and those between it and its authority: our own towards clients or servers.
type KeyPair = *tls.Certificate

// LoadRoots reads authorities from a PEM file. The error says which file, and what is wrong with it.
func LoadRoots(file string) (*x509.CertPool, error) {
	pem, err := os.ReadFile(file)
	if err != nil {
		return nil, err
	}
	pool := x509.NewCertPool()
	if !pool.AppendCertsFromPEM(pem) {
		return nil, fmt.Errorf("%s: no certificate in it; it must be PEM, with lines -----BEGIN CERTIFICATE-----", file)
	}
	return pool, nil
}

// LoadKeyPair reads a KeyPair from PEM files, which may be one. The key's file may be read by its owner alone. The error says
// which files, and what is wrong with them; it holds nothing of the key.
func LoadKeyPair(certFile, keyFile string) (KeyPair, error) {
	certPEM, err := os.ReadFile(certFile)
	if err != nil {
		return nil, err
	}
	keyPEM, err := readKey(keyFile)
	if err != nil {
		return nil, err
	}
	c, err := tls.X509KeyPair(certPEM, keyPEM)
	if err != nil {
		return nil, fmt.Errorf("%s and %s: %w", certFile, keyFile, err)
	}
	return &c, nil
}

// Names reports whether a certificate names a host in full, and not by a wildcard, which may be all of an organisation's. A nil
// KeyPair names none.
func Names(pair KeyPair, host string) bool {
	return pair != nil && slices.ContainsFunc(pair.Leaf.DNSNames, func(name string) bool { return strings.EqualFold(name, host) })
}

// ParseVersion is a TLS version by its number, "1.0" to "1.3".
func ParseVersion(number string) (uint16, error) {
	for _, v := range []uint16{tls.VersionTLS10, tls.VersionTLS11, tls.VersionTLS12, tls.VersionTLS13} {
		if tls.VersionName(v) == "TLS "+number {
			return v, nil
		}
	}
	return 0, fmt.Errorf("%q is no version of TLS", number)
}

// ParseCipher is a cipher suite of TLS 1.0 to 1.2 by its IANA name. Those that are not safe are known too: some servers have
// nothing else.
func ParseCipher(name string) (uint16, error) {
	var known []string
	for _, suites := range [][]*tls.CipherSuite{tls.CipherSuites(), tls.InsecureCipherSuites()} {
		for _, c := range suites {
			if c.SupportedVersions[0] == tls.VersionTLS13 {
				continue
			}
			if c.Name == name {
				return c.ID, nil
			}
			known = append(known, c.Name)
		}
	}
	return 0, fmt.Errorf("%q is not among the cipher suites that can be chosen: %s", name, strings.Join(known, ", "))
}

// ParseCurve is a key exchange by its name.
func ParseCurve(name string) (tls.CurveID, error) {
	curves := map[string]tls.CurveID{
		"X25519": tls.X25519, "P-256": tls.CurveP256, "P-384": tls.CurveP384, "P-521": tls.CurveP521,
		"X25519MLKEM768": tls.X25519MLKEM768,
	}
	if c, ok := curves[name]; ok {
		return c, nil
	}
	return 0, fmt.Errorf("%q is no key exchange that can be chosen", name)
}
