//go:build linux

package integration

import (
	"bytes"
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"io"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"testing"
)

// A tlsTalk is a session over TLS that a test holds itself, its data connections protected.
type tlsTalk struct {
	*talk
	config *tls.Config
	dial   func(port uint16) net.Conn
}

// TestTLSReuse has many transfers of all kinds in one session, refused and aborted ones between them, with the servers that
// demand of every data connection that it resume the session of the control connection. Each upload is looked at on the
// server's disk: closed in another order, vsftpd loses the end of those over TLS 1.3.
func TestTLSReuse(t *testing.T) {
	l := newLab(t)
	root, ours := l.newAuthority("server-root"), l.newAuthority("gateway-authority")
	l.pureTLS = [2]string{"3", "3"}
	servers := startTLSServers(t, l, root)
	g := l.startGateway(fmt.Sprintf("tls: {authority_cert: %s, authority_key: %s, server_roots: %s}\n", ours.CertFile, ours.KeyFile, root.CertFile) +
		"listeners: [{mode: tproxy, session_reuse: require}]\n" + variantLimits)
	t.Cleanup(func() {
		g.Stop()
		g.checkClean()
	})
	pool := x509.NewCertPool()
	pool.AddCert(ours.cert)
	for _, s := range servers {
		for name, version := range map[string]uint16{"1.2": tls.VersionTLS12, "1.3": tls.VersionTLS13} {
			t.Run(s.Name+"/"+name, func(t *testing.T) {
				if s.missing != "" {
					lack(t, s.missing)
				}
				k := l.secureTalk(t, s.AddrPort(v4), &tls.Config{
					RootCAs: pool, ServerName: s.Addr[v4].String(), MaxVersion: version, ClientSessionCache: tls.NewLRUClientSessionCache(4),
				})
				file := fmt.Sprintf("reuse-%d.bin", version)
				defer os.Remove(filepath.Join(s.Home, file))
				want := crowdContent(int(version), 3<<20)
				for i := range 8 {
					k.upload("STOR "+file, want, "226")
					if got := readAll(filepath.Join(s.Home, file)); !bytes.Equal(got, want) {
						t.Fatalf("upload %d: %d of %d bytes are stored", i, len(got), len(want))
					}
					k.download("NLST", "226")
					if got := k.download("RETR "+file, "226"); !bytes.Equal(got, want) {
						t.Fatalf("download %d: %d of %d bytes came", i, len(got), len(want))
					}
					switch i % 4 {
					case 0:
						k.passive()
						k.ask("RETR no-such-file", "550")
					case 1:
						k.passive()
						k.ask("STOR no-such-directory/file", "55")
					case 2:
						k.broken("RETR " + file)
					case 3:
						k.ask("REST 3000000", "350")
						if got := k.download("RETR "+file, "226"); !bytes.Equal(got, want[3000000:]) {
							t.Fatalf("resumed download %d: %d bytes came", i, len(got))
						}
						k.upload("STOR "+file, nil, "226")
					}
				}
				k.ask("QUIT", "221")
			})
		}
	}
}

// secureTalk logs in at a server over TLS.
func (l *lab) secureTalk(t *testing.T, at netip.AddrPort, config *tls.Config) *tlsTalk {
	t.Helper()
	k := &tlsTalk{talk: l.Client.call(t, at), config: config}
	k.dial = func(port uint16) net.Conn {
		return l.Client.callFrom(t, netip.AddrPortFrom(clientAddress[v4].Addr(), 0), netip.AddrPortFrom(at.Addr(), port))
	}
	k.hear("220")
	k.ask("AUTH TLS", "234")
	c := tls.Client(k.Conn, config)
	if err := c.Handshake(); err != nil {
		t.Fatal(err)
	}
	k.talk = newTalk(t, c)
	k.ask("PBSZ 0", "200")
	k.ask("PROT P", "200")
	k.ask("USER "+ftpUser, "331")
	k.ask("PASS "+ftpPassword, "230")
	k.ask("TYPE I", "200")
	return k
}

// passive arms a transfer.
func (k *tlsTalk) passive() net.Conn {
	k.t.Helper()
	return k.dial(passivePort(k.t, k.ask("EPSV", "229")))
}

// begin begins a transfer.
func (k *tlsTalk) begin(command string) *tls.Conn {
	k.t.Helper()
	data := k.passive()
	k.ask(command, "1")
	c := tls.Client(data, k.config)
	if err := c.Handshake(); err != nil {
		k.t.Fatalf("%s: %v", command, err)
	}
	return c
}

func (k *tlsTalk) upload(command string, content []byte, code string) {
	k.t.Helper()
	c := k.begin(command)
	if _, err := c.Write(content); err != nil {
		k.t.Fatalf("%s: %v", command, err)
	}
	c.CloseWrite()
	io.Copy(io.Discard, c) // so that no ticket is left unread
	c.Close()
	k.hear(code)
}

func (k *tlsTalk) download(command, code string) []byte {
	k.t.Helper()
	c := k.begin(command)
	b, err := io.ReadAll(c)
	if err != nil {
		k.t.Fatalf("%s: %v", command, err)
	}
	c.Close()
	k.hear(code)
	return b
}

// broken begins a download and hangs up.
func (k *tlsTalk) broken(command string) {
	k.t.Helper()
	c := k.begin(command)
	if _, err := c.Read(make([]byte, 1)); err != nil {
		k.t.Fatalf("%s: %v", command, err)
	}
	c.NetConn().(*net.TCPConn).SetLinger(0)
	c.NetConn().Close()
	k.hear("") // Pure-FTPd says 150 once more, the others 426 or what they like
}
