package config

import (
	"bytes"
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// FuzzLoad: no text is a panic; faults are one line each, with their place; and what loads is valid and is the same
// after YAML.
func FuzzLoad(f *testing.F) {
	f.Add(Example())
	paths, err := filepath.Glob("testdata/*.txt")
	if err != nil {
		f.Fatal(err)
	}
	for _, path := range paths {
		text, err := os.ReadFile(path)
		if err != nil {
			f.Fatal(err)
		}
		for c := range bytes.SplitSeq(text, []byte("\n=== ")) {
			_, body, _ := bytes.Cut(c, []byte("\n"))
			input, _, _ := bytes.Cut(body, []byte("~~~\n"))
			f.Add(slices.Clone(input))
		}
	}
	f.Add([]byte("listeners: [{mode: explicit, address: '[fe80::1%eth0]:1', advertise: a.b}, {mode: gateway, server: '[::1]:2'}]"))
	f.Add([]byte("destinations: [{allow: ['fe80::', 'a*', 'b.', '::/0', self], ports: 1-2}]\nlimits: {line: 1000B}"))
	f.Add([]byte("tls: {authority_cert: a/../b.pem, authority_key: /b.pem, server_roots: ' /x', key_log: './credential:x'}\n" +
		"listeners: [{mode: redirect, tls: require, implicit: true, implicit_ports: 20-22}, " +
		"{mode: tproxy, address: '[::]:1', tls: pass}]"))
	f.Add([]byte("listeners: [{mode: explicit, tls: client-only, certificate: 'é #', certificate_key: ': x', " +
		"session_reuse: require}]\n" +
		"destinations: [{allow: '*', tls: {pins: ['sha256:" + digits64 + "'], min_version: 1.0, max_version: 1.1, " +
		"ciphers: TLS_RSA_WITH_AES_128_CBC_SHA, curves: P-256, verify: untrusted-ca, pass: 1024-2047}}]"))
	examples, err := filepath.Glob("examples/*.yaml")
	if err != nil || len(examples) == 0 {
		f.Fatal(examples, err)
	}
	for _, path := range examples {
		text, err := os.ReadFile(path)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(text)
	}
	f.Fuzz(func(t *testing.T, text []byte) {
		l := newLoader("f", nil)
		l.document(text)
		c, _, err := l.config(nil)
		if err != nil {
			faults, ok := errors.AsType[Faults](err)
			if !ok || len(faults) == 0 {
				t.Fatalf("not Faults: %v", err)
			}
			for _, fault := range faults {
				if s := fault.String(); !strings.HasPrefix(s, "f:") || strings.ContainsAny(s, "\n\r\x00") {
					t.Errorf("a fault that is not one line with its place: %q", s)
				}
			}
			return
		}
		if err := c.Validate(); err != nil {
			t.Fatalf("loaded and is not valid: %v", err)
		}
		again := newLoader("again", nil)
		again.document(c.YAML())
		d, _, err := again.config(nil)
		if err != nil {
			t.Fatalf("%v\n%s", err, c.YAML())
		}
		if diff := cmp.Diff(c, d, byValue); diff != "" {
			t.Fatalf("%s\n%s", c.YAML(), diff)
		}
		if !bytes.Equal(c.YAML(), d.YAML()) {
			t.Fatalf("%s\nis not\n%s", c.YAML(), d.YAML())
		}
	})
}
