//go:build linux

package integration

import (
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// TestTLSSuites: files come and go whole by each cipher suite of TLS 1.3, two of which ftpalg's own records have and one crypto/tls has, and by
// both kinds on the two sides of one transfer, as servers choose by themselves.
func TestTLSSuites(t *testing.T) {
	need(t, "curl")
	l := newLab(t)
	root, ours := l.newAuthority("server-root"), l.newAuthority("gateway-authority")
	servers := startTLSServers(t, l, root)
	g := l.startGateway(fmt.Sprintf("tls: {authority_cert: %s, authority_key: %s, server_roots: %s}\n", ours.CertFile, ours.KeyFile, root.CertFile) +
		"listeners: [{mode: tproxy}]\n" + variantLimits)
	t.Cleanup(func() {
		g.Stop()
		g.checkClean()
	})
	want := crowdContent(13, 3<<20)
	local := filepath.Join(l.Dir, "suites.bin")
	if err := os.WriteFile(local, want, 0o644); err != nil {
		t.Fatal(err)
	}
	for _, s := range servers {
		for _, suite := range []string{"TLS_AES_128_GCM_SHA256", "TLS_AES_256_GCM_SHA384", "TLS_CHACHA20_POLY1305_SHA256"} {
			t.Run(s.Name+"/"+suite, func(t *testing.T) {
				if s.missing != "" {
					lack(t, s.missing)
				}
				ctx, cancel := context.WithTimeout(t.Context(), hang)
				defer cancel()
				file := "suite-" + suite + ".bin"
				defer os.Remove(filepath.Join(s.Home, file))
				url := fmt.Sprintf("ftp://%s:%s@%v/%s", ftpUser, ftpPassword, s.AddrPort(v4), file)
				curl := func(args ...string) []byte {
					t.Helper()
					args = append([]string{"--silent", "--show-error", "--ssl-reqd", "--cacert", ours.CertFile, "--tlsv1.3", "--tls13-ciphers", suite}, args...)
					out, err := l.Client.Command(ctx, "curl", args...).CombinedOutput()
					if err != nil {
						t.Fatalf("curl: %v\n%.1000s", err, out)
					}
					return out
				}
				curl("--upload-file", local, url)
				if got := readAll(filepath.Join(s.Home, file)); !bytes.Equal(got, want) {
					t.Errorf("%d of %d bytes are stored", len(got), len(want))
				}
				if got := curl(url); !bytes.Equal(got, want) {
					t.Errorf("%d of %d bytes came", len(got), len(want))
				}
				for _, verb := range []string{"STOR", "RETR"} {
					g.await("msg=transfer ", "verb="+verb, file, "client_tls.cipher="+suite, "server_tls.version=\"TLS 1.3\"", "outcome=whole")
				}
			})
		}
	}
}

// TestTLSKeyUpdate: a client that goes on to new keys in the midst of its file, and asks the same of us, as OpenSSL's does when it is told to, is
// followed.
func TestTLSKeyUpdate(t *testing.T) {
	need(t, "openssl")
	l := newLab(t)
	root, ours := l.newAuthority("server-root"), l.newAuthority("gateway-authority")
	servers := startTLSServers(t, l, root)
	g := l.startGateway(fmt.Sprintf("tls: {authority_cert: %s, authority_key: %s, server_roots: %s}\n", ours.CertFile, ours.KeyFile, root.CertFile) +
		"listeners: [{mode: tproxy}]\n" + variantLimits)
	t.Cleanup(func() {
		g.Stop()
		g.checkClean()
	})
	pool := x509.NewCertPool()
	pool.AddCert(ours.cert)
	s := servers[0]
	if s.missing != "" {
		lack(t, s.missing)
	}
	k := l.secureTalk(t, s.AddrPort(v4), &tls.Config{RootCAs: pool, ServerName: s.Addr[v4].String()})
	ctx, cancel := context.WithTimeout(t.Context(), hang)
	defer cancel()
	file := "renewed.txt"
	defer os.Remove(filepath.Join(s.Home, file))
	port := passivePort(t, k.ask("EPSV", "229"))
	client := l.Client.Command(ctx, "openssl", "s_client", "-tls1_3", "-CAfile", ours.CertFile, "-connect", fmt.Sprintf("%v:%d", s.Addr[v4], port))
	stdin, err := client.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	var said bytes.Buffer
	client.Stdout, client.Stderr = &said, &said
	if err := client.Start(); err != nil {
		t.Fatal(err)
	}
	k.ask("STOR "+file, "1")
	// Commands of s_client are lines that it reads by themselves.
	for _, line := range []string{"before\n", "K\n", "between\n", "k\n", "behind\n", "K\n", "Q\n"} {
		time.Sleep(200 * time.Millisecond)
		if _, err := io.WriteString(stdin, line); err != nil {
			t.Error(err)
		}
	}
	stdin.Close()
	if err := client.Wait(); err != nil {
		t.Errorf("OpenSSL: %v", err)
	}
	k.hear("226")
	if got := string(readAll(filepath.Join(s.Home, file))); got != "before\nbetween\nbehind\n" {
		t.Errorf("%q is stored", got)
	}
	if n := strings.Count(said.String(), "KEYUPDATE"); n != 3 {
		t.Errorf("OpenSSL has had %d new keys:\n%s", n, &said)
	}
}
