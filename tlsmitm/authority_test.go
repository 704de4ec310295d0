package tlsmitm

import (
	"bytes"
	"crypto"
	"crypto/ecdh"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"
)

const day = 24 * time.Hour

// identity is a certificate with its key, as somebody else may have made it.
type identity struct {
	cert *x509.Certificate
	key  crypto.Signer
}

// issued makes an identity of a template; issuer nil: it signs itself. It is valid for a day around now unless the template
// says else.
func issued(t testing.TB, template x509.Certificate, issuer *identity) *identity {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	return issuedFor(t, template, issuer, key)
}

func issuedFor(t testing.TB, template x509.Certificate, issuer *identity, key crypto.Signer) *identity {
	t.Helper()
	if template.NotAfter.IsZero() {
		template.NotBefore, template.NotAfter = time.Now().Add(-day/2), time.Now().Add(day/2)
	}
	if issuer == nil {
		issuer = &identity{&template, key}
	}
	der, err := x509.CreateCertificate(rand.Reader, &template, issuer.cert, key.Public(), issuer.key)
	if err != nil {
		t.Fatal(err)
	}
	cert, err := x509.ParseCertificate(der)
	if err != nil {
		t.Fatal(err)
	}
	return &identity{cert, key}
}

// authorityOf is a template of an authority.
func authorityOf(name string) x509.Certificate {
	return x509.Certificate{Subject: pkix.Name{CommonName: name}, KeyUsage: x509.KeyUsageCertSign,
		BasicConstraintsValid: true, IsCA: true}
}

func (i *identity) keyPEM(t testing.TB) []byte {
	t.Helper()
	der, err := x509.MarshalPKCS8PrivateKey(i.key)
	if err != nil {
		t.Fatal(err)
	}
	return pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: der})
}

// authority reads an identity and those above it as ParseAuthority does.
func authority(t testing.TB, own *identity, above ...*identity) *Authority {
	t.Helper()
	a, err := ParseAuthority(chainPEM(append([]*identity{own}, above...)...), own.keyPEM(t))
	if err != nil {
		t.Fatal(err)
	}
	return a
}

func chainPEM(chain ...*identity) []byte {
	var b bytes.Buffer
	for _, i := range chain {
		b.Write(CertificatePEM(i.cert))
	}
	return b.Bytes()
}

func pool(certs ...*x509.Certificate) *x509.CertPool {
	p := x509.NewCertPool()
	for _, c := range certs {
		p.AddCert(c)
	}
	return p
}

func TestNewAuthority(t *testing.T) {
	for name, test := range map[string]struct {
		options AuthorityOptions
		kind    string
		sign    x509.SignatureAlgorithm
	}{
		"ECDSA": {AuthorityOptions{Name: "Example", Lifetime: 100 * day}, "ECDSA P-256", x509.ECDSAWithSHA256},
		"RSA":   {AuthorityOptions{Name: strings.Repeat("ü", 64), RSA: true, Lifetime: time.Hour}, "RSA 3072 bits", x509.SHA256WithRSA},
	} {
		t.Run(name, func(t *testing.T) {
			before := time.Now().Truncate(time.Second)
			certPEM, keyPEM, err := NewAuthority(test.options)
			if err != nil {
				t.Fatal(err)
			}
			a, err := ParseAuthority(certPEM, keyPEM)
			if err != nil {
				t.Fatal(err)
			}
			c := a.Certificate()
			if c.Subject.CommonName != test.options.Name || KeyKind(c) != test.kind || c.SignatureAlgorithm != test.sign {
				t.Errorf("made %q, %s, %v", c.Subject, KeyKind(c), c.SignatureAlgorithm)
			}
			if !c.IsCA || c.MaxPathLen != 0 || c.KeyUsage != x509.KeyUsageCertSign|x509.KeyUsageCRLSign ||
				!slices.Equal(c.ExtKeyUsage, []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth}) || len(c.SubjectKeyId) == 0 {
				t.Errorf("it may do more or less than it should: %+v", c)
			}
			after := time.Now()
			if from := c.NotBefore.Add(backdate); from.Before(before) || from.After(after) {
				t.Errorf("valid from %v, made at %v", c.NotBefore, before)
			}
			if until := c.NotAfter.Add(-test.options.Lifetime); until.Before(before) || until.After(after) {
				t.Errorf("valid until %v, made at %v", c.NotAfter, before)
			}
			if _, err := c.Verify(x509.VerifyOptions{Roots: pool(c)}); err != nil {
				t.Error(err)
			}
			if block, rest := pem.Decode(keyPEM); block.Type != "PRIVATE KEY" || len(rest) > 0 {
				t.Errorf("the key is a %s and %d bytes more", block.Type, len(rest))
			}
		})
	}
	for want, o := range map[string]AuthorityOptions{
		"0 characters; 1 to 64":      {Lifetime: day},
		"65 characters; 1 to 64":     {Name: strings.Repeat("n", 65), Lifetime: day},
		"is 0s; it must be positive": {Name: "Example"},
		"is -1s":                     {Name: "Example", Lifetime: -time.Second},
		"not valid UTF-8":            {Name: "\xff", Lifetime: day},
	} {
		if _, _, err := NewAuthority(o); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%+v: %v, want %s", o, err, want)
		}
	}
}

// TestKeyForms: a key is known in the forms that programs write, behind what else they put in the file.
func TestKeyForms(t *testing.T) {
	ec, err := ecdsa.GenerateKey(elliptic.P384(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	sec1, err := x509.MarshalECPrivateKey(ec)
	if err != nil {
		t.Fatal(err)
	}
	rsaKey, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		t.Fatal(err)
	}
	_, ed, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	parameters := []byte("-----BEGIN EC PARAMETERS-----\nBgUrgQQAIg==\n-----END EC PARAMETERS-----\n")
	pkcs8 := func(key crypto.Signer) []byte { return (&identity{key: key}).keyPEM(t) }
	for name, test := range map[string]struct {
		key  crypto.Signer
		pem  []byte
		kind string
	}{
		"PKCS8-EC":  {ec, pkcs8(ec), "ECDSA P-384"},
		"SEC1":      {ec, append(parameters, pem.EncodeToMemory(&pem.Block{Type: "EC PRIVATE KEY", Bytes: sec1})...), "ECDSA P-384"},
		"PKCS8-RSA": {rsaKey, pkcs8(rsaKey), "RSA 2048 bits"},
		"PKCS1": {rsaKey, pem.EncodeToMemory(&pem.Block{Type: "RSA PRIVATE KEY", Bytes: x509.MarshalPKCS1PrivateKey(rsaKey)}),
			"RSA 2048 bits"},
		"Ed25519": {ed, pkcs8(ed), "Ed25519"},
	} {
		t.Run(name, func(t *testing.T) {
			i := issuedFor(t, authorityOf("Example"), nil, test.key)
			a, err := ParseAuthority(append([]byte("Bag Attributes\n"), CertificatePEM(i.cert)...), test.pem)
			if err != nil {
				t.Fatal(err)
			}
			if KeyKind(a.Certificate()) != test.kind {
				t.Errorf("it is %s", KeyKind(a.Certificate()))
			}
			likeness, err := NewMint(a, 1).Own([]string{"ftp.example.com"}, nil)
			if err != nil {
				t.Fatal(err)
			}
			if _, err := likeness.Leaf.Verify(x509.VerifyOptions{Roots: pool(i.cert), DNSName: "ftp.example.com"}); err != nil {
				t.Error(err)
			}
		})
	}
}

// TestParseAuthority: what is no authority, or whose key is another's, is told so by name.
func TestParseAuthority(t *testing.T) {
	good := issued(t, authorityOf("Good"), nil)
	other := issued(t, authorityOf("Other"), nil)
	with := func(change func(*x509.Certificate)) *identity {
		template := authorityOf("Odd")
		change(&template)
		return issued(t, template, nil)
	}
	leaf := with(func(c *x509.Certificate) { c.IsCA = false })
	silent := with(func(c *x509.Certificate) { c.BasicConstraintsValid = false })
	noSign := with(func(c *x509.Certificate) { c.KeyUsage = x509.KeyUsageDigitalSignature })
	noServer := with(func(c *x509.Certificate) { c.ExtKeyUsage = []x509.ExtKeyUsage{x509.ExtKeyUsageEmailProtection} })
	expired := with(func(c *x509.Certificate) { c.NotBefore, c.NotAfter = time.Now().Add(-2*day), time.Now().Add(-day) })
	future := with(func(c *x509.Certificate) { c.NotBefore, c.NotAfter = time.Now().Add(day), time.Now().Add(2*day) })
	block := func(kind, encryption string) []byte {
		b := &pem.Block{Type: kind, Bytes: []byte("secret")}
		if encryption != "" {
			b.Headers = map[string]string{"Proc-Type": encryption}
		}
		return pem.EncodeToMemory(b)
	}
	x25519, err := ecdh.X25519().GenerateKey(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	agreement, err := x509.MarshalPKCS8PrivateKey(x25519)
	if err != nil {
		t.Fatal(err)
	}
	cert, key := CertificatePEM(good.cert), good.keyPEM(t)
	for name, test := range map[string]struct {
		cert, key []byte
		want      string
	}{
		"no certificate":  {nil, key, "the authority's certificate: has no PEM block CERTIFICATE; if it is DER: openssl x509"},
		"DER":             {good.cert.Raw, key, "has no PEM block CERTIFICATE"},
		"swapped":         {key, cert, "certificate: has a private key and no certificate: are the two files swapped?"},
		"bad certificate": {block("CERTIFICATE", ""), key, "the authority's certificate: certificate 1: x509: "},
		"bad above":       {append(bytes.Clone(cert), block("CERTIFICATE", "")...), key, "certificate 2: x509: "},
		"no key":          {cert, cert, "the authority's key: has no PEM block PRIVATE KEY; if it is DER: openssl pkey"},
		"bad key":         {cert, block("PRIVATE KEY", ""), "the authority's key: "},
		"bad PKCS1":       {cert, block("RSA PRIVATE KEY", ""), "the authority's key: "},
		"bad SEC1":        {cert, block("EC PRIVATE KEY", ""), "the authority's key: "},
		"encrypted PKCS8": {cert, block("ENCRYPTED PRIVATE KEY", ""), "the key is encrypted, and nobody is there"},
		"encrypted PKCS1": {cert, block("RSA PRIVATE KEY", "4,ENCRYPTED"), "decrypt it with openssl pkey"},
		"SSH":             {cert, block("OPENSSH PRIVATE KEY", ""), "PEM block OPENSSH PRIVATE KEY is of no kind that is known"},
		"X25519":          {cert, pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: agreement}), "this key cannot sign"},
		"another's key":   {cert, other.keyPEM(t), "does not belong to the first certificate of the authority's certificate (CN=Good)"},
		"order":           {chainPEM(other, good), key, "certificate 1 is not signed by the one after it (x509: "},
		"server":          {chainPEM(leaf), leaf.keyPEM(t), "CN=Odd is not an authority's certificate, for it lacks basicConstr"},
		"no constraints":  {chainPEM(silent), silent.keyPEM(t), "lacks basicConstraints CA:TRUE; make one with ftpalg ca init"},
		"no keyCertSign":  {chainPEM(noSign), noSign.keyPEM(t), "CN=Odd may not sign certificates: its keyUsage lacks keyCertSign"},
		"not for servers": {chainPEM(noServer), noServer.keyPEM(t), "CN=Odd may not sign for servers: its extendedKeyUsage lacks"},
		"expired":         {chainPEM(expired), expired.keyPEM(t), "CN=Odd expired on " + date(expired.cert.NotAfter) + ": make a new"},
		"not yet":         {chainPEM(future), future.keyPEM(t), "CN=Odd is not valid before " + date(future.cert.NotBefore)},
		"good":            {cert, key, ""},
	} {
		t.Run(name, func(t *testing.T) {
			a, err := ParseAuthority(test.cert, test.key)
			switch {
			case test.want == "" && err != nil:
				t.Error(err)
			case test.want != "" && (err == nil || !strings.Contains(err.Error(), test.want)):
				t.Errorf("%v, want %s", err, test.want)
			case test.want != "" && a != nil:
				t.Error("there is an authority all the same")
			}
			if err != nil {
				silentAbout(t, err, test.key)
			}
		})
	}
}

// silentAbout: an error has nothing of a key in it, neither as PEM nor as bytes.
func silentAbout(t *testing.T, err error, key []byte) {
	t.Helper()
	for line := range strings.Lines(string(key)) {
		if line = strings.TrimSpace(line); !strings.HasPrefix(line, "---") && line != "" && strings.Contains(err.Error(), line) {
			t.Errorf("%v has %q of the key", err, line)
		}
	}
	if strings.Contains(err.Error(), "secret") {
		t.Errorf("%v has bytes of the key", err)
	}
}

func TestLoadAuthority(t *testing.T) {
	i := issued(t, authorityOf("Example"), nil)
	dir := t.TempDir()
	write := func(name string, content []byte, mode os.FileMode) string {
		file := filepath.Join(dir, name)
		if err := os.MkdirAll(filepath.Dir(file), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(file, content, 0o600); err != nil {
			t.Fatal(err)
		}
		if err := os.Chmod(file, mode); err != nil { // not masked
			t.Fatal(err)
		}
		return file
	}
	t.Setenv("CREDENTIALS_DIRECTORY", filepath.Join(dir, "credentials"))
	both := append(chainPEM(i), i.keyPEM(t)...)
	cert := write("authority.crt", chainPEM(i), 0o644)
	nowhere := filepath.Join(dir, "nowhere")
	open := "others than its owner can read or write this key (mode "
	for name, test := range map[string]struct{ cert, key, want string }{
		"0600":                 {cert, write("0600.key", i.keyPEM(t), 0o600), ""},
		"0400":                 {cert, write("0400.key", i.keyPEM(t), 0o400), ""},
		"0640":                 {cert, write("0640.key", i.keyPEM(t), 0o640), open + "0640): chmod 600 " + filepath.Join(dir, "0640.key")},
		"0620":                 {cert, write("0620.key", i.keyPEM(t), 0o620), open + "0620)"},
		"0604":                 {cert, write("0604.key", i.keyPEM(t), 0o604), open + "0604)"},
		"0602":                 {cert, write("0602.key", i.keyPEM(t), 0o602), open + "0602)"},
		"one file":             {write("both.pem", both, 0o600), filepath.Join(dir, "both.pem"), ""},
		"one open file":        {write("open.pem", both, 0o644), filepath.Join(dir, "open.pem"), open + "0644)"},
		"credential":           {cert, write("credentials/key", i.keyPEM(t), 0o440), ""},
		"beside credentials":   {cert, write("credentials-not/key", i.keyPEM(t), 0o440), open + "0440)"},
		"up from credentials":  {cert, filepath.Join(dir, "credentials") + "/../0640.key", open + "0640)"},
		"no certificate":       {nowhere, nowhere, "open " + nowhere + ": "},
		"no key":               {cert, nowhere, "open " + nowhere + ": "},
		"directory":            {cert, dir, dir + ": "},
		"error of certificate": {write("not.crt", []byte("no"), 0o644), filepath.Join(dir, "0600.key"), "not.crt: has no PEM block"},
		"error of key":         {cert, write("not.key", []byte("no"), 0o600), "not.key: has no PEM block PRIVATE KEY"},
	} {
		t.Run(name, func(t *testing.T) {
			a, err := LoadAuthority(test.cert, test.key)
			switch {
			case test.want != "" && (err == nil || !strings.Contains(err.Error(), test.want)):
				t.Errorf("%v, want %s", err, test.want)
			case test.want == "" && err != nil:
				t.Error(err)
			case test.want == "" && !a.Certificate().Equal(i.cert):
				t.Errorf("it is %s", a.Certificate().Subject)
			}
			if err != nil {
				silentAbout(t, err, i.keyPEM(t))
			}
		})
	}
	t.Setenv("CREDENTIALS_DIRECTORY", "")
	if _, err := LoadAuthority(cert, filepath.Join(dir, "credentials/key")); err == nil {
		t.Error("a key that others can read is taken without systemd's word")
	}

	if c, err := LoadCertificate(filepath.Join(dir, "both.pem")); err != nil || !c.Equal(i.cert) {
		t.Errorf("the certificate alone: %v", err)
	}
	_, err := LoadCertificate(filepath.Join(dir, "0600.key"))
	if err == nil || !strings.Contains(err.Error(), "0600.key: has a private key") {
		t.Errorf("a key is no certificate: %v", err)
	}
}

// TestIntermediate: clients that have the root alone believe what an intermediate of theirs signs, and are not sent the root.
func TestIntermediate(t *testing.T) {
	root := issued(t, authorityOf("Root"), nil)
	upper := issued(t, authorityOf("Upper"), root)
	lower := issued(t, authorityOf("Lower"), upper)
	for name, chain := range map[string][]*identity{"without root": {upper}, "with root": {upper, root}} {
		t.Run(name, func(t *testing.T) {
			c, err := NewMint(authority(t, lower, chain...), 1).Own([]string{"ftp.example.com"}, nil)
			if err != nil {
				t.Fatal(err)
			}
			if len(c.Certificate) != 3 || !bytes.Equal(c.Certificate[1], lower.cert.Raw) || !bytes.Equal(c.Certificate[2], upper.cert.Raw) {
				t.Errorf("%d certificates are sent", len(c.Certificate))
			}
			handshake(t, c, pool(root.cert), "ftp.example.com")
		})
	}
	alone, err := NewMint(authority(t, root), 1).Own([]string{"ftp.example.com"}, nil)
	if err != nil {
		t.Fatal(err)
	}
	if len(alone.Certificate) != 1 {
		t.Errorf("a root is sent: %d certificates", len(alone.Certificate))
	}
}

func TestFingerprint(t *testing.T) {
	got := Fingerprint(&x509.Certificate{Raw: []byte("abc")}) // FIPS 180-2 Appendix B.1
	if want := "BA:78:16:BF:8F:01:CF:EA:41:41:40:DE:5D:AE:22:23:B0:03:61:A3:96:17:7A:9C:B4:10:FF:61:F2:00:15:AD"; got != want {
		t.Errorf("%s, want %s", got, want)
	}
}
