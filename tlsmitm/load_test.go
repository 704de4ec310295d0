package tlsmitm

import (
	"crypto/tls"
	"crypto/x509"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

// write makes a file in the test's directory, with what is given.
func write(t *testing.T, name string, mode os.FileMode, parts ...[]byte) string {
	t.Helper()
	file := filepath.Join(t.TempDir(), name)
	if err := os.WriteFile(file, slices.Concat(parts...), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Chmod(file, mode); err != nil { // the umask does not matter
		t.Fatal(err)
	}
	return file
}

func TestLoadRoots(t *testing.T) {
	a, b := issued(t, authorityOf("A"), nil), issued(t, authorityOf("B"), nil)
	broken := []byte("-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n")
	for name, test := range map[string]struct {
		content []byte
		want    []*x509.Certificate
	}{
		"one":         {chainPEM(a), []*x509.Certificate{a.cert}},
		"two":         {chainPEM(a, b), []*x509.Certificate{a.cert, b.cert}},
		"with words":  {slices.Concat([]byte("# A\n"), chainPEM(a), []byte("# B\n"), chainPEM(b)), []*x509.Certificate{a.cert, b.cert}},
		"empty":       {},
		"garbage":     {content: []byte("garbage")},
		"DER":         {content: a.cert.Raw},
		"key":         {content: a.keyPEM(t)},
		"broken":      {content: broken},
		"broken, two": {slices.Concat(broken, chainPEM(b)), []*x509.Certificate{b.cert}},
	} {
		file := write(t, "roots.pem", 0o644, test.content)
		got, err := LoadRoots(file)
		if len(test.want) == 0 {
			if got != nil || err == nil || !strings.HasPrefix(err.Error(), file+": no certificate in it") {
				t.Errorf("%s: %v", name, err)
			}
			continue
		}
		if err != nil || !got.Equal(pool(test.want...)) {
			t.Errorf("%s: %v", name, err)
		}
	}
	if _, err := LoadRoots(filepath.Join(t.TempDir(), "missing.pem")); err == nil || !strings.Contains(err.Error(), "missing.pem") {
		t.Errorf("a missing file: %v", err)
	}
}

func TestLoadKeyPair(t *testing.T) {
	root := issued(t, authorityOf("A"), nil)
	own, other := issued(t, example(), root), issued(t, example(), root)
	missing := filepath.Join(t.TempDir(), "missing.pem")
	cert, chain := write(t, "cert.pem", 0o644, chainPEM(own)), write(t, "chain.pem", 0o644, chainPEM(own, root))
	key, one := write(t, "key.pem", 0o600, own.keyPEM(t)), write(t, "one.pem", 0o600, own.keyPEM(t), chainPEM(own))
	open, others := write(t, "open.pem", 0o644, own.keyPEM(t)), write(t, "others.pem", 0o400, other.keyPEM(t))
	none := write(t, "none.pem", 0o600, chainPEM(own))
	broken := write(t, "broken.pem", 0o600, []byte("-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----\n"))
	for name, test := range map[string]struct {
		cert, key string
		sent      int    // certificates
		want      string // of the error
	}{
		"two files":    {cert: cert, key: key, sent: 1},
		"chain":        {cert: chain, key: key, sent: 2},
		"one file":     {cert: one, key: one, sent: 1},
		"no cert":      {cert: missing, key: key, want: "missing.pem"},
		"no key":       {cert: cert, key: missing, want: "missing.pem"},
		"open key":     {cert: cert, key: open, want: open + ": others than its owner can read or write this key (mode 0644): chmod 600 "},
		"other key":    {cert: cert, key: others, want: cert + " and " + others + ": tls: private key does not match public key"},
		"swapped":      {cert: key, key: one, want: key + " and " + one + ": tls: failed to find certificate PEM data"},
		"key in none":  {cert: cert, key: none, want: "none.pem: tls: found a certificate rather than a key"},
		"broken key":   {cert: cert, key: broken, want: "broken.pem: tls: failed to parse private key"},
		"key as group": {cert: cert, key: write(t, "group.pem", 0o640, own.keyPEM(t)), want: "mode 0640"},
	} {
		got, err := LoadKeyPair(test.cert, test.key)
		if test.want != "" {
			if got != nil || err == nil || !strings.Contains(err.Error(), test.want) {
				t.Errorf("%s: %v, want %s", name, err, test.want)
				continue
			}
			silentAbout(t, err, own.keyPEM(t))
			silentAbout(t, err, other.keyPEM(t))
			continue
		}
		if err != nil {
			t.Errorf("%s: %v", name, err)
			continue
		}
		if len(got.Certificate) != test.sent {
			t.Errorf("%s: %d certificates", name, len(got.Certificate))
		}
		handshake(t, got, pool(root.cert), "ftp.example.com")
	}
}

func TestParseVersion(t *testing.T) {
	for number, want := range map[string]uint16{
		"1.0": tls.VersionTLS10, "1.1": tls.VersionTLS11, "1.2": tls.VersionTLS12, "1.3": tls.VersionTLS13,
	} {
		if got, err := ParseVersion(number); got != want || err != nil {
			t.Errorf("%s: %#x, %v", number, got, err)
		}
	}
	for _, number := range []string{"", "1", "1.4", "TLS 1.2", "1.2 ", "3.0", "SSLv3"} {
		if got, err := ParseVersion(number); got != 0 || err == nil || !strings.Contains(err.Error(), "is no version of TLS") {
			t.Errorf("%q: %#x, %v", number, got, err)
		}
	}
}

func TestParseCipher(t *testing.T) {
	known := 0
	for _, c := range slices.Concat(tls.CipherSuites(), tls.InsecureCipherSuites()) {
		got, err := ParseCipher(c.Name)
		if slices.Contains(c.SupportedVersions, tls.VersionTLS13) {
			if err == nil {
				t.Errorf("%s can be chosen, to no effect", c.Name)
			}
			continue
		}
		known++
		if got != c.ID || err != nil {
			t.Errorf("%s: %#x, %v", c.Name, got, err)
		}
	}
	for _, name := range []string{"", "ECDHE-RSA-AES128-GCM-SHA256", "tls_rsa_with_aes_128_gcm_sha256", "HIGH"} {
		_, err := ParseCipher(name)
		if err == nil || strings.Count(err.Error(), "TLS_") != known {
			t.Errorf("%q: %v, which should name %d", name, err, known)
		}
	}
}

func TestParseCurve(t *testing.T) {
	for name, want := range map[string]tls.CurveID{
		"X25519": tls.X25519, "P-256": tls.CurveP256, "P-384": tls.CurveP384, "P-521": tls.CurveP521,
		"X25519MLKEM768": tls.X25519MLKEM768,
	} {
		if got, err := ParseCurve(name); got != want || err != nil {
			t.Errorf("%s: %v, %v", name, got, err)
		}
	}
	for _, name := range []string{"", "p-256", "CurveP256", "P-224"} {
		if got, err := ParseCurve(name); got != 0 || err == nil || !strings.Contains(err.Error(), "is no key exchange") {
			t.Errorf("%q: %v, %v", name, got, err)
		}
	}
}
