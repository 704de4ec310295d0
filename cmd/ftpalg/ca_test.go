package main

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"go.yaml.in/yaml/v3"

	"ftpalg/tlsmitm"
)

// TestCA: what init prints for the configuration is YAML, whatever the files' names, and names an authority that loads.
func TestCA(t *testing.T) {
	for _, name := range []string{"plain", "with space", "a, {b}: #c", `"quoted"\n`, "ü", "- \t"} {
		t.Run(name, func(t *testing.T) {
			dir := t.TempDir()
			cert, key := filepath.Join(dir, name+".crt"), filepath.Join(dir, name+".key")
			out := succeed(t, "ca", "init", "--cert", cert, "--key", key, "--days", "30")
			var got struct {
				TLS map[string]string `yaml:"tls"`
			}
			line := out[strings.Index(out, "\ntls: ")+1:]
			line, _, _ = strings.Cut(line, "\n")
			if err := yaml.Unmarshal([]byte(line), &got); err != nil {
				t.Fatalf("%s: %v", line, err)
			}
			if len(got.TLS) != 2 || got.TLS["authority_cert"] != cert || got.TLS["authority_key"] != key {
				t.Errorf("%s is %q", line, got)
			}
			a, err := tlsmitm.LoadAuthority(cert, key)
			if err != nil {
				t.Fatal(err)
			}
			c := a.Certificate()
			if left := time.Until(c.NotAfter).Round(24 * time.Hour); left != 30*24*time.Hour {
				t.Errorf("it is valid for %v", left)
			}
			host, err := os.Hostname()
			if err != nil {
				t.Fatal(err)
			}
			if want := fmt.Sprintf("ftpalg authority (%.45s)", host); c.Subject.CommonName != want {
				t.Errorf("it is %s, want %s", c.Subject, want)
			}
			for _, out := range []string{out, succeed(t, "ca", "show", "--cert", cert)} {
				if !strings.Contains(out, tlsmitm.Fingerprint(c)) {
					t.Errorf("no fingerprint in %s", out)
				}
			}
		})
	}
}

// TestCAIntermediate: who is told to trust an intermediate hears whom to trust instead.
func TestCAIntermediate(t *testing.T) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	root := &x509.Certificate{Subject: pkix.Name{CommonName: "Root"}}
	template := &x509.Certificate{Subject: pkix.Name{CommonName: "Intermediate"}, IsCA: true, BasicConstraintsValid: true,
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour)}
	der, err := x509.CreateCertificate(rand.Reader, template, root, key.Public(), key)
	if err != nil {
		t.Fatal(err)
	}
	file := filepath.Join(t.TempDir(), "authority.crt")
	if err := os.WriteFile(file, tlsmitm.CertificatePEM(&x509.Certificate{Raw: der}), 0o644); err != nil {
		t.Fatal(err)
	}
	out := succeed(t, "ca", "show", "--cert", file)
	if want := "  issued by    CN=Root, whom clients must trust instead"; !strings.Contains(out, want) {
		t.Errorf("%s\nhas no %q", out, want)
	}
}

// TestCARace: a file that somebody makes between our look and our writing is theirs.
func TestCARace(t *testing.T) {
	file := filepath.Join(t.TempDir(), "authority.key")
	if err := os.WriteFile(file, []byte("theirs"), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := writeNew(file, []byte("ours"), 0o644); !errors.Is(err, os.ErrExist) {
		t.Errorf("it is written: %v", err)
	}
	if b, err := os.ReadFile(file); string(b) != "theirs" {
		t.Errorf("it is %q now: %v", b, err)
	}
}

// succeed runs the program and returns what it prints.
func succeed(t *testing.T, args ...string) string {
	t.Helper()
	var stdout, stderr bytes.Buffer
	if code := run(args, &stdout, &stderr); code != 0 || stderr.Len() > 0 {
		t.Fatalf("%q ended with %d: %s", args, code, &stderr)
	}
	return stdout.String()
}
