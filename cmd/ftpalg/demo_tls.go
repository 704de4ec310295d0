package main

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"fmt"
	"net"
	"net/netip"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"ftpalg/tlsmitm"
)

// Files in the demo's directory, beside those of ftpalg's authority, which are called as ftpalg ca init calls them.
const (
	serversCert = "servers.crt" // the authority of the server
	serverCert  = "server.crt"
	serverKey   = "server.key"
)

// tlsConfig is what ftpalg is told for TLS.
const tlsConfig = "tls: {authority_cert: " + authorityCert + ", authority_key: " + authorityKey + ", server_roots: " + serversCert + "}\n"

// certificateLifetime is that of all certificates of a demo: longer than one is kept running.
const certificateLifetime = 30 * 24 * time.Hour

// demoTrust is whom client, ftpalg and server have to show, and whom they trust.
type demoTrust struct {
	authority *x509.Certificate // ftpalg's, which the client trusts and no other
	servers   *x509.Certificate // the server's, which ftpalg trusts and no other
	server    *x509.Certificate // what the server has
	file      string            // of authority
}

// certify makes the authorities, and a certificate for a server that has these addresses.
func (d *demo) certify(addresses []netip.Addr) (*demoTrust, error) {
	ours, err := d.newAuthority("ftpalg demo authority", authorityCert, authorityKey)
	if err != nil {
		return nil, err
	}
	servers, err := d.newAuthority("Authority of the demo's server", serversCert, "")
	if err != nil {
		return nil, err
	}
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, err
	}
	template := &x509.Certificate{
		Subject:   pkix.Name{CommonName: "ftp.test", Organization: []string{"The demo's server"}},
		DNSNames:  []string{"ftp.test"},
		NotBefore: servers.Leaf.NotBefore, NotAfter: servers.Leaf.NotAfter,
	}
	for _, a := range addresses {
		template.IPAddresses = append(template.IPAddresses, a.AsSlice())
	}
	der, err := x509.CreateCertificate(rand.Reader, template, servers.Leaf, key.Public(), servers.PrivateKey)
	if err != nil {
		return nil, err
	}
	server, err := x509.ParseCertificate(der)
	if err != nil {
		return nil, err
	}
	pkcs8, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		return nil, err
	}
	if _, err := d.writeFile(serverCert, tlsmitm.CertificatePEM(server)); err != nil {
		return nil, err
	}
	if _, err := d.writeFile(serverKey, pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: pkcs8})); err != nil {
		return nil, err
	}
	return &demoTrust{ours.Leaf, servers.Leaf, server, filepath.Join(d.dir, authorityCert)}, nil
}

// newAuthority makes an authority, and files of it; keyFile is empty if nobody needs its key.
func (d *demo) newAuthority(name, certFile, keyFile string) (tls.Certificate, error) {
	certPEM, keyPEM, err := tlsmitm.NewAuthority(tlsmitm.AuthorityOptions{Name: name, Lifetime: certificateLifetime})
	if err == nil {
		_, err = d.writeFile(certFile, certPEM)
	}
	if err == nil && keyFile != "" {
		_, err = d.writeFile(keyFile, keyPEM)
	}
	if err != nil {
		return tls.Certificate{}, err
	}
	return tls.X509KeyPair(certPEM, keyPEM)
}

// certificate is what the account has of one.
type certificate struct {
	Subject string
	Names   string // DNS names and addresses
	Issuer  string
	Root    string // SHA-256 of the authority that it was verified with
}

func certificateOf(leaf, root *x509.Certificate) certificate {
	names := slices.Clone(leaf.DNSNames)
	for _, ip := range leaf.IPAddresses {
		names = append(names, ip.String())
	}
	return certificate{leaf.Subject.String(), strings.Join(names, ", "), leaf.Issuer.String(), digest(root)}
}

// digest is the SHA-256 of a certificate as ftpalg's log has it.
func digest(c *x509.Certificate) string { return fmt.Sprintf("%x", sha256.Sum256(c.Raw)) }

// likeness is how an intercepted client should see the server's certificate.
func (t *demoTrust) likeness() certificate {
	c := certificateOf(t.server, t.authority)
	c.Issuer = t.authority.Subject.String()
	return c
}

// own is the certificate that a client should see of ftpalg itself, which it knows by an address.
func (t *demoTrust) own(a netip.Addr) certificate {
	return certificate{"CN=" + a.String(), a.String(), t.authority.Subject.String(), digest(t.authority)}
}

// tlsFacts are what both ends of a TLS connection know.
type tlsFacts struct {
	Version string
	Cipher  string
	Resumed bool
}

// demoTLS is a TLS connection as one of its ends sees it.
type demoTLS struct {
	tlsFacts
	Certificate certificate // the other end's; empty if it has none
}

func tlsOf(s tls.ConnectionState) demoTLS {
	t := demoTLS{tlsFacts: tlsFacts{tls.VersionName(s.Version), tls.CipherSuiteName(s.CipherSuite), s.DidResume}}
	if len(s.VerifiedChains) > 0 {
		chain := s.VerifiedChains[0]
		t.Certificate = certificateOf(chain[0], chain[len(chain)-1])
	}
	return t
}

// logged is what ftpalg logged of a side's TLS: of the control connection, then of the data connections.
func (s *demoSession) logged(side string) []tlsFacts {
	var all []tlsFacts
	for _, l := range s.Log {
		switch {
		case l.Msg == "TLS" && l.Side == side:
			all = append(all, tlsFacts{l.Version, l.Cipher, l.Resumed})
		case l.Msg == "transfer" && side == "client":
			all = append(all, l.ClientTLS)
		case l.Msg == "transfer":
			all = append(all, l.ServerTLS)
		}
	}
	return all
}

// printTLS prints the TLS of both sides: all of it, then only where other sessions differ.
func (a *account) printTLS(b *strings.Builder) {
	var printed []string
	for _, s := range a.sessions {
		if s.trust == nil {
			continue
		}
		rows := s.tlsRows()
		title := " (AUTH TLS, PROT P): ftpalg ended the client's TLS and had its own with the server"
		if printed != nil {
			title = ": the same"
			if rows = slices.DeleteFunc(rows, func(r string) bool { return slices.Contains(printed, r) }); len(rows) > 0 {
				title = ": the same, but"
			}
		}
		fmt.Fprintln(b, s.name+title)
		for _, r := range rows {
			fmt.Fprintln(b, r)
		}
		printed = append(printed, rows...)
	}
	b.WriteByte('\n')
}

// tlsRows are the TLS of both sides as the ends saw it.
func (s *demoSession) tlsRows() []string {
	client, server := s.Client.TLS, s.Server.TLS
	shown, has := first(client).Certificate, certificateOf(s.trust.server, s.trust.servers)
	var rows []string
	for _, r := range [][3]string{
		{"", "the client saw", "the server has"},
		{"connection", first(client).Version + ", " + first(client).Cipher, first(server).Version + ", " + first(server).Cipher},
		{"resumed by", resumed(client), resumed(server)},
		{"certificate", shown.Subject, has.Subject},
		{"for", shown.Names, has.Names},
		{"issued by", shown.Issuer, has.Issuer},
		{"verified by", "the client, which trusts no other", "ftpalg, which trusts no other"},
	} {
		rows = append(rows, fmt.Sprintf("  %-12s %-40s %s", r[0], r[1], r[2]))
	}
	return rows
}

func first(connections []demoTLS) demoTLS {
	if len(connections) == 0 {
		return demoTLS{}
	}
	return connections[0]
}

// resumed says how many data connections resumed the TLS session of their control connection.
func resumed(connections []demoTLS) string {
	n := 0
	for _, c := range connections {
		if c.Resumed {
			n++
		}
	}
	return fmt.Sprintf("%d of %d data connections", n, max(len(connections)-1, 0))
}

// tlsFaults is what is wrong with the TLS of a session that should have it.
func (s *demoSession) tlsFaults() []string {
	if s.trust == nil {
		return nil
	}
	var all []string
	fault := func(format string, args ...any) { all = append(all, fmt.Sprintf(format, args...)) }
	for _, side := range []struct {
		name string
		saw  []demoTLS
	}{{"client", s.Client.TLS}, {"server", s.Server.TLS}} {
		var facts []tlsFacts
		for i, c := range side.saw {
			facts = append(facts, c.tlsFacts)
			if c.Version != tls.VersionName(tls.VersionTLS13) || c.Resumed != (i > 0) {
				fault("connection %d of the %s is %s, resumed: %v; all should be TLS 1.3, and all but the first resumed",
					i+1, side.name, c.Version, c.Resumed)
			}
		}
		if len(facts) != len(s.Client.Links) {
			fault("%d connections of the %s have TLS, not %d", len(facts), side.name, len(s.Client.Links))
		}
		if logged := s.logged(side.name); !slices.Equal(facts, logged) {
			fault("ftpalg logged %v of the TLS of the %s, which saw %v", logged, side.name, facts)
		}
	}
	for i, c := range s.Client.TLS {
		if c.Certificate != s.shown {
			fault("connection %d: the client saw the certificate %q, not %q", i+1, c.Certificate, s.shown)
		}
	}
	for _, l := range s.Log {
		if l.Msg == "TLS" && l.Side == "server" && (l.Certificate != digest(s.trust.server) || l.Verified != "chain") {
			fault("ftpalg logged the server's certificate as %s, verified by %q; it is %s, and %q would verify it",
				l.Certificate, l.Verified, digest(s.trust.server), "chain")
		}
	}
	return all
}

// trusting is the TLS of a client that calls an address and trusts the authorities of a file.
func trusting(pem []byte, address string, saw func(demoTLS)) (*tls.Config, error) {
	host, _, err := net.SplitHostPort(address)
	if err != nil {
		return nil, err
	}
	roots := x509.NewCertPool()
	if !roots.AppendCertsFromPEM(pem) {
		return nil, fmt.Errorf("no certificate in %.40q", pem)
	}
	return &tls.Config{
		RootCAs:            roots,
		ServerName:         host,
		ClientSessionCache: tls.NewLRUClientSessionCache(1), // so that data connections resume
		VerifyConnection: func(s tls.ConnectionState) error { // called when crypto/tls has verified
			saw(tlsOf(s))
			return nil
		},
	}, nil
}
