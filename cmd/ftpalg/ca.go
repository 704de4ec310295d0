package main

import (
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"ftpalg/tlsmitm"
)

// Where the files of an authority are if nothing else is said.
const (
	authorityCert = "authority.crt"
	authorityKey  = "authority.key"
)

// maxDays keeps the end of an authority within what durations can say: 292 years.
const maxDays = 36500

func newCA(o *options) *cobra.Command {
	c := &cobra.Command{
		Use: "ca", Short: "Make the authority that signs certificates for clients, and give it to them",
		Long: `With TLS on both sides, clients are shown certificates that look like their servers' and
are signed by an authority of yours, which they must trust.`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error { return cmd.Help() },
	}
	c.AddCommand(newCAInit(), newCAShow(o))
	return c
}

func newCAInit() *cobra.Command {
	var cert, key, name string
	var rsa bool
	var days int
	c := &cobra.Command{
		Use: "init", Short: "Make an authority: a certificate and its private key",
		Long: `Init writes a new self-signed authority to two files, the key readable by you alone, and says
what to put into the configuration. It overwrites nothing.`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if days < 1 || days > maxDays {
				return fmt.Errorf("--days is %d; 1 to %d are possible", days, maxDays)
			}
			cert, err := filepath.Abs(cert)
			if err != nil {
				return fail(err)
			}
			key, err := filepath.Abs(key)
			if err != nil {
				return fail(err)
			}
			if cert == key {
				return errors.New("--cert and --key are one file; the certificate is for everybody, and the key for nobody else")
			}
			if !cmd.Flags().Changed("name") {
				host, err := os.Hostname()
				if err != nil {
					return fail(err)
				}
				name = fmt.Sprintf("ftpalg authority (%.45s)", host) // 64 characters at most
			}
			certPEM, keyPEM, err := tlsmitm.NewAuthority(tlsmitm.AuthorityOptions{
				Name: name, RSA: rsa, Lifetime: time.Duration(days) * 24 * time.Hour,
			})
			if err != nil {
				return err // the name's
			}
			if err := writeAuthority(cert, certPEM, key, keyPEM); err != nil {
				return fail(err)
			}
			return fail(introduce(cmd.OutOrStdout(), cert, key))
		},
	}
	c.Flags().StringVar(&cert, "cert", authorityCert, "certificate `file` to make")
	c.Flags().StringVar(&key, "key", authorityKey, "private key `file` to make")
	c.Flags().StringVar(&name, "name", "", "common `name`, which clients show; without one: ftpalg authority (HOSTNAME)")
	c.Flags().BoolVar(&rsa, "rsa", false, "RSA-3072 instead of ECDSA P-256, for clients that know nothing else")
	c.Flags().IntVar(&days, "days", 3650, "`number` of days until it expires")
	return c
}

func newCAShow(o *options) *cobra.Command {
	var cert string
	var pem bool
	c := &cobra.Command{
		Use: "show", Short: "Print the authority's certificate and how clients come to trust it", Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if o.config != "" && !cmd.Flags().Changed("cert") {
				cfg, err := o.load(cmd.ErrOrStderr(), nil)
				if err != nil {
					return err
				}
				if cfg.TLS.AuthorityCert == "" {
					return fail(fmt.Errorf("%s has no tls.authority_cert; make an authority with ftpalg ca init", o.config))
				}
				cert = string(cfg.TLS.AuthorityCert)
			}
			if pem {
				c, err := tlsmitm.LoadCertificate(cert)
				if err != nil {
					return fail(err)
				}
				_, err = cmd.OutOrStdout().Write(tlsmitm.CertificatePEM(c))
				return fail(err)
			}
			return fail(show(cmd.OutOrStdout(), cert))
		},
	}
	c.Flags().StringVar(&cert, "cert", authorityCert, "certificate `file` to show; with --config: the one in it")
	c.Flags().BoolVar(&pem, "pem", false, "print the certificate alone, as PEM")
	return c
}

// writeAuthority makes both files or none. What is there already may be what clients trust.
func writeAuthority(cert string, certPEM []byte, key string, keyPEM []byte) error {
	var there []string
	for _, file := range []string{cert, key} {
		if _, err := os.Lstat(file); err == nil {
			there = append(there, file)
		}
	}
	if len(there) > 0 {
		return fmt.Errorf("%s: there already, and not overwritten; choose other files with --cert and --key",
			strings.Join(there, " and "))
	}
	if err := writeNew(key, keyPEM, 0o600); err != nil {
		return err
	}
	if err := writeNew(cert, certPEM, 0o644); err != nil {
		return errors.Join(err, os.Remove(key))
	}
	return nil
}

// writeNew makes a file that nobody else can open before it has its mode, and that is whole or not there.
func writeNew(file string, content []byte, mode os.FileMode) error {
	f, err := os.OpenFile(file, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return err
	}
	_, err = f.Write(content)
	if err = errors.Join(err, f.Chmod(mode), f.Close()); err != nil {
		return errors.Join(err, os.Remove(file))
	}
	return nil
}

// introduce says what has been made and what to do with it.
func introduce(w io.Writer, cert, key string) error {
	if _, err := describe(w, cert); err != nil {
		return err
	}
	fmt.Fprintf(w, `  private key  %s

Whoever has the key can be any server to your clients. Let it be readable by the user that ftpalg runs as, and by
nobody else. Put this into the configuration:

tls: {authority_cert: %s, authority_key: %s}

and give clients the certificate, never the key. This says how:

  ftpalg ca show --cert %s
`, key, scalar(cert), scalar(key), cert)
	return nil
}

// scalar is a path as YAML has it within braces.
func scalar(path string) string {
	if strings.ContainsAny(path, `,[]{}:#"'\`) || strconv.Quote(path) != `"`+path+`"` {
		return strconv.Quote(path)
	}
	return path
}

// show prints the certificate and what clients do with it.
func show(w io.Writer, file string) error {
	pem, err := describe(w, file)
	if err != nil {
		return err
	}
	fmt.Fprintf(w, "\n%s\n%s", pem, installing)
	return nil
}

// describe prints what tells one authority from another, and returns its certificate as PEM.
func describe(w io.Writer, file string) ([]byte, error) {
	c, err := tlsmitm.LoadCertificate(file)
	if err != nil {
		return nil, err
	}
	const day = "2 January 2006"
	fmt.Fprintf(w, "Authority %s\n\n", c.Subject)
	fmt.Fprintf(w, "  valid        %s to %s\n", c.NotBefore.UTC().Format(day), c.NotAfter.UTC().Format(day))
	fmt.Fprintf(w, "  key          %s\n", tlsmitm.KeyKind(c))
	fmt.Fprintf(w, "  SHA-256      %s\n", tlsmitm.Fingerprint(c))
	if issuer := c.Issuer.String(); issuer != c.Subject.String() {
		fmt.Fprintf(w, "  issued by    %s, whom clients must trust instead, and may do already\n", issuer)
	}
	fmt.Fprintf(w, "  certificate  %s\n", file)
	return tlsmitm.CertificatePEM(c), nil
}

// installing is what an administrator can paste.
const installing = `Save it on the client, here as authority.crt (ftpalg ca show --pem), and compare the fingerprint:

  openssl x509 -in authority.crt -noout -fingerprint -sha256

For all programs of a machine, as root or administrator:

  Debian, Ubuntu   cp authority.crt /usr/local/share/ca-certificates/ftpalg.crt && update-ca-certificates
  Red Hat, Fedora  cp authority.crt /etc/pki/ca-trust/source/anchors/ftpalg.crt && update-ca-trust
  Windows          certutil -addstore -f Root authority.crt
                   or for a domain by group policy: Computer Configuration, Policies, Windows Settings,
                   Security Settings, Public Key Policies, Trusted Root Certification Authorities, Import
  macOS            security add-trusted-cert -d -r trustRoot -k /Library/Keychains/System.keychain authority.crt

For programs that do not look there, or for one alone (most of these replace what it trusts otherwise):

  curl             curl --cacert authority.crt ..., or CURL_CA_BUNDLE=/path/to/authority.crt in its environment
  lftp             set ssl:ca-file /path/to/authority.crt
  FileZilla        Settings, Connection: "Use system trust store to validate TLS certificates"; what is known by
                   an address and not by a name is asked about all the same, again after every restart of ftpalg
  Java 9 or later  keytool -importcert -cacerts -alias ftpalg -file authority.crt
  Python           ssl.create_default_context(cafile="/path/to/authority.crt"), as the context of ftplib.FTP_TLS
                   (which verifies nothing without one), or SSL_CERT_FILE=/path/to/authority.crt in its environment
  Perl             Net::FTP->new($host, SSL_ca_file => "/path/to/authority.crt"), or SSL_CERT_FILE as for Python
`
