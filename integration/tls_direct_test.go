//go:build linux

package integration

import (
	"bytes"
	"context"
	"path/filepath"
	"testing"
)

// TestDirectTLS has nothing but a router between clients and servers that speak TLS. So it proves the servers' TLS, the
// clients', and limits.
func TestDirectTLS(t *testing.T) {
	l := newLab(t)
	root := l.newAuthority("server-root")
	servers := startTLSServers(t, l, root)
	for _, via := range tlsWays(root) {
		via.Direct = true
		runMatrix(t, l, servers, via)
	}
}

// tlsWays are ways to servers over TLS, of which clients trust an authority. They are a selection: each handshake costs, and
// curl alone waits a second after many a transfer.
func tlsWays(trusted *authority) []target {
	quick := names{"lftp", "wget", "ftplib", "netftp", "jlaffaye"}
	bare := names{"lftp", "ftplib", "netftp"}
	ways := []target{
		{Name: "explicit-P", Families: []family{v6}, TLS: &protection{}},
		{
			Name: "explicit-P-1.2", Clients: quick, Families: []family{v4}, Verbs: names{"PASV", "PORT"},
			TLS: &protection{Max: "1.2"},
		},
		{
			Name: "explicit-C", Clients: bare, Families: []family{v4}, Verbs: names{"EPSV", "EPRT"},
			TLS: &protection{Clear: true},
		},
		{
			Name: "implicit-P", Clients: quick, Families: []family{v4}, Verbs: names{"EPSV", "PORT"},
			TLS: &protection{Implicit: true},
		},
		{
			Name: "implicit-P-1.2", Clients: quick, Families: []family{v6}, Verbs: names{"EPRT"},
			TLS: &protection{Implicit: true, Max: "1.2"},
		},
		{
			Name: "implicit-C", Clients: bare, Families: []family{v4}, Verbs: names{"PASV"},
			TLS: &protection{Implicit: true, Clear: true, Max: "1.2"},
		},
		{
			Name: "named", Clients: names{"curl"}, Families: []family{v4}, Verbs: names{"PASV"},
			TLS: &protection{Implicit: true, Max: "1.2", Named: true},
		},
	}
	for _, via := range ways {
		via.TLS.CA = trusted.CertFile
	}
	return ways
}

// TestDistrust has clients that trust another authority than the servers'. None may go on, least of all with a password.
func TestDistrust(t *testing.T) {
	l := newLab(t)
	s := startTLSServers(t, l, l.newAuthority("server-root"))[0]
	other := l.newAuthority("other-root")
	for _, c := range clients {
		for _, way := range []*protection{{CA: other.CertFile}, {CA: other.CertFile, Implicit: true}} {
			d := door{s, v4, way.Implicit}
			if !(pairing{c.name, s.Name, "PASV", v4, target{TLS: way}}).can(works) {
				continue
			}
			t.Run(c.name+"/"+d.String(), func(t *testing.T) {
				need(t, c.needs...)
				c.needTLS(t)
				if s.missing != "" {
					lack(t, s.missing)
				}
				j := &job{
					in: l.Client, addr: d.addrPort(), tls: way, user: ftpUser, password: ftpPassword, verb: "PASV",
					dir: ".", scratch: t.TempDir(),
				}
				j.steps = []step{{op: "list", remote: ".", local: filepath.Join(j.scratch, "list.txt")}}
				ctx, cancel := context.WithTimeout(t.Context(), hang)
				defer cancel()
				if said, err := c.run(ctx, j); err == nil {
					t.Errorf("%s is content:\n%s", c.name, said)
				}
				commands := readAll(filepath.Join(l.logs(), d.String()+".commands"))
				if !bytes.Contains(commands, []byte("CONNECT: Client")) {
					t.Error("no client has come")
				}
				if bytes.Contains(commands, []byte(`"PASS`)) {
					t.Errorf("%s has said its password:\n%s", c.name, commands)
				}
			})
		}
	}
}
