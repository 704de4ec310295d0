package config

import (
	"encoding/hex"
	"fmt"
	"slices"
	"strings"
)

// File is the path of a file. In a Config that was loaded it is absolute. In the file, a flag or the environment it may
// also be relative to the directory of the configuration file (without one, to the working directory), or
// "credential:NAME", the file NAME of $CREDENTIALS_DIRECTORY, where systemd puts what LoadCredential= names. Empty: none.
type File string

// TLS is what all listeners share of FTPS (RFC 4217).
type TLS struct {
	// AuthorityCert and AuthorityKey are PEM files, perhaps the same one, of the authority that signs the certificates
	// clients see. Both or neither.
	AuthorityCert File `yaml:"authority_cert"`
	AuthorityKey  File `yaml:"authority_key"`
	// ServerRoots is a PEM file of the authorities that servers' certificates are checked against. Empty: the system's.
	ServerRoots File `yaml:"server_roots"`
	// KeyLog is a file to which the secrets of every TLS connection are appended in NSS format. Empty: none.
	KeyLog File `yaml:"key_log"`
}

// TLSMode says what a listener does with TLS.
type TLSMode string

// The modes of TLS. The default is inspect where there is an authority, else refuse.
const (
	TLSInspect    TLSMode = "inspect"     // the client's TLS ends here, the server gets another; plain sessions pass too
	TLSRefuse     TLSMode = "refuse"      // AUTH is answered with 534, and TLS is hidden from FEAT
	TLSRequire    TLSMode = "require"     // as inspect, but plain logins and plain transfers are refused
	TLSClientOnly TLSMode = "client-only" // TLS with the client; the server's side is plain text on the wire
	TLSServerOnly TLSMode = "server-only" // TLS with the server; the client's side is plain text on the wire
	TLSPass       TLSMode = "pass"        // relayed unopened; data connections only to the ports of DestinationTLS.Pass
)

var tlsModes = []TLSMode{TLSInspect, TLSRefuse, TLSRequire, TLSClientOnly, TLSServerOnly, TLSPass}

// endsClients reports whether ftpalg is the TLS server of its clients, which see a certificate of its choice.
func (m TLSMode) endsClients() bool { return m == TLSInspect || m == TLSRequire || m == TLSClientOnly }

// SessionReuse says what becomes of a client's data connection that does not resume the TLS session of its control
// connection, and so does not prove that it is the same client's.
type SessionReuse string

// The ways with TLS sessions that are not resumed.
const (
	ReuseOff     SessionReuse = "off"
	ReuseLog     SessionReuse = "log"
	ReuseRequire SessionReuse = "require" // the transfer is answered with 522
)

// DestinationTLS is TLS with the servers of a rule that allows.
type DestinationTLS struct {
	Verify Verify `yaml:"verify"`
	Pins   []Pin  `yaml:"pins"` // a server must have one of them, and then needs no authority; empty: authorities decide
	// ClientCert and ClientKey are PEM files, perhaps the same one, of a certificate for servers that ask for one. Both
	// or neither.
	ClientCert File       `yaml:"client_cert"`
	ClientKey  File       `yaml:"client_key"`
	MinVersion TLSVersion `yaml:"min_version"`
	MaxVersion TLSVersion `yaml:"max_version"` // not below MinVersion
	Ciphers    []Cipher   `yaml:"ciphers"`     // for TLS 1.0 to 1.2; empty: those of crypto/tls
	Curves     []Curve    `yaml:"curves"`      // empty: those of crypto/tls
	// MissingClose is about data connections that the server ends without the close_notify of TLS.
	MissingClose MissingClose `yaml:"missing_close_notify"`
	// Pass are the server's ports for passive data connections that the mode pass lets through: at most 1024, all 1024
	// or above. Zero: none, and then pass is refused.
	Pass PortRange `yaml:"pass"`
}

// Verify says what becomes of servers whose certificate does not verify.
type Verify string

// The ways of verifying servers.
const (
	VerifyStrict      Verify = "strict"       // they are refused
	VerifyUntrustedCA Verify = "untrusted-ca" // the client sees them under a second, untrusted authority, and decides
	VerifyOff         Verify = "off"          // nothing is verified; every server is shown under the untrusted authority
)

// MissingClose says what a data connection is that ends without TLS's own close, so that anyone could have ended it.
type MissingClose string

// The meanings of a missing close_notify.
const (
	CloseBroken MissingClose = "broken" // the transfer failed
	CloseWhole  MissingClose = "whole"  // the file is whole
)

// TLSVersion is a version of TLS. Versions compare as their texts do.
type TLSVersion string

// The versions of TLS.
const (
	TLS10 TLSVersion = "1.0"
	TLS11 TLSVersion = "1.1"
	TLS12 TLSVersion = "1.2"
	TLS13 TLSVersion = "1.3"
)

var tlsVersions = []TLSVersion{TLS10, TLS11, TLS12, TLS13}

// Cipher is the name of a cipher suite as IANA has it, such as TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256. Its form is
// checked here; whether crypto/tls has it is not.
type Cipher string

// Curve is a way to agree on keys, by the name that crypto/tls has for it.
type Curve string

// The curves.
const (
	CurveX25519         Curve = "X25519"
	CurveP256           Curve = "P-256"
	CurveP384           Curve = "P-384"
	CurveP521           Curve = "P-521"
	CurveX25519MLKEM768 Curve = "X25519MLKEM768"
)

var curves = []Curve{CurveX25519, CurveP256, CurveP384, CurveP521, CurveX25519MLKEM768}

// Pin is the SHA-256 of a certificate, or of its SubjectPublicKeyInfo (RFC 5280 §4.1). Its text is "sha256:" and 64
// hexadecimal digits.
type Pin [32]byte

// String writes the pin as UnmarshalText reads it, in lower case.
func (p Pin) String() string { return "sha256:" + hex.EncodeToString(p[:]) }

// UnmarshalText reads a pin; it fails if the text is not "sha256:" and 64 hexadecimal digits.
func (p *Pin) UnmarshalText(text []byte) error {
	digits, ok := strings.CutPrefix(string(text), "sha256:")
	sum, err := hex.DecodeString(digits)
	if !ok || err != nil || len(sum) != len(p) {
		return fmt.Errorf("%s is no pin: write sha256: and 64 hexadecimal digits, without colons between them",
			quoted(string(text)))
	}
	*p = Pin(sum)
	return nil
}

// DefaultDestinationTLS is the TLS with servers for which no rule says otherwise.
func DefaultDestinationTLS() DestinationTLS {
	var t DestinationTLS
	t.complete()
	return t
}

// complete gives what is empty its default.
func (t *DestinationTLS) complete() {
	if t.Verify == "" {
		t.Verify = VerifyStrict
	}
	if t.MinVersion == "" {
		t.MinVersion = TLS12
	}
	if t.MaxVersion == "" {
		t.MaxVersion = TLS13
	}
	if t.MissingClose == "" {
		t.MissingClose = CloseBroken
	}
}

// completeTLS gives a listener of a known mode the defaults of TLS, which differ if there is an authority, and the
// default of its intercepted ports, which depend on them.
func (l *Listener) completeTLS(authority bool) {
	if l.TLS == "" {
		l.TLS = TLSRefuse
		if authority {
			l.TLS = TLSInspect
		}
	}
	if l.SessionReuse == "" {
		l.SessionReuse = ReuseLog
	}
	if !l.intercepts() {
		return
	}
	if len(l.ImplicitPorts) == 0 {
		l.ImplicitPorts = []PortRange{{990, 990}}
	}
	if len(l.Intercept.Ports) > 0 {
		return
	}
	if l.TLS != TLSRefuse && l.TLS != TLSServerOnly {
		l.Intercept.Ports = slices.Clone(l.ImplicitPorts)
	}
	if !slices.ContainsFunc(l.Intercept.Ports, func(r PortRange) bool { return r.Contains(21) }) {
		l.Intercept.Ports = slices.Insert(l.Intercept.Ports, 0, PortRange{21, 21})
	}
}

// together checks two files of which each is useless without the other.
func (k *checker) together(section, certName, keyName string, cert, key File) {
	given, missing := certName, keyName
	switch {
	case (cert == "") == (key == ""):
		return
	case cert == "":
		given, missing = keyName, certName
	}
	k.fault(join(section, given), "is given without %s; write both, which may be the same file, or neither", missing)
}

// listenerTLS checks what a listener says of TLS.
func (k *checker) listenerTLS(key string, l *Listener, authority bool) {
	oneOf(k, key+".tls", l.TLS, tlsModes)
	oneOf(k, key+".session_reuse", l.SessionReuse, []SessionReuse{ReuseOff, ReuseLog, ReuseRequire})
	k.together(key, "certificate", "certificate_key", l.Certificate, l.CertificateKey)
	k.ports(key+".implicit_ports", l.ImplicitPorts)
	if !l.intercepts() && len(l.ImplicitPorts) > 0 {
		k.fault(key+".implicit_ports", "is for the modes tproxy and redirect; a listener of mode %s has one port: write "+
			"implicit: true", l.Mode)
	}
	if slices.Contains(tlsModes, l.TLS) { // or else nothing can be said about the rest
		k.certificate(key, l, authority)
		if l.Implicit && (l.TLS == TLSRefuse || l.TLS == TLSServerOnly) {
			k.fault(key+".implicit", "is TLS with clients, and tls is %s; write another mode there, or remove this key", l.TLS)
		}
	}
}

// certificate checks that clients can be shown a certificate, and that one which was given can be shown.
func (k *checker) certificate(key string, l *Listener, authority bool) {
	given := l.Certificate != "" || l.CertificateKey != ""
	likeness := l.intercepts() && l.TLS != TLSClientOnly // clients see the server's certificate, or one like it
	switch {
	case likeness && given:
		k.fault(key+".certificate", "is for the modes explicit and gateway, and for tls: client-only; other clients of mode %s "+
			"see the certificate of their server, or one like it", l.Mode)
	case authority || !l.TLS.endsClients():
	case likeness:
		k.fault(key+".tls", "%s needs an authority to sign the certificates that clients see; write tls.authority_cert and "+
			"tls.authority_key", l.TLS)
	case !given:
		k.fault(key+".tls", "%s needs a certificate to show to clients; write certificate and certificate_key, or an authority "+
			"as tls.authority_cert and tls.authority_key", l.TLS)
	}
}

// maxPass is the most ports that TLS may pass to without being opened: enough for the passive range of most servers,
// and few enough that a client cannot reach every service of the machine.
const maxPass = 1024

// destinationTLS checks the TLS of a rule that allows.
func (k *checker) destinationTLS(key string, t DestinationTLS) {
	oneOf(k, key+".verify", t.Verify, []Verify{VerifyStrict, VerifyUntrustedCA, VerifyOff})
	k.together(key, "client_cert", "client_key", t.ClientCert, t.ClientKey)
	oneOf(k, key+".min_version", t.MinVersion, tlsVersions)
	oneOf(k, key+".max_version", t.MaxVersion, tlsVersions)
	if slices.Contains(tlsVersions, t.MinVersion) && slices.Contains(tlsVersions, t.MaxVersion) && t.MaxVersion < t.MinVersion {
		k.fault(key+".max_version", "is %s, which is below min_version, %s", t.MaxVersion, t.MinVersion)
	}
	for i, c := range t.Ciphers {
		name, ok := strings.CutPrefix(string(c), "TLS_")
		if !ok || name == "" || !consistsOf(name, upper+digits+"_") {
			k.fault(element(key+".ciphers", i), "%s is no cipher suite; write its name as IANA has it, such as "+
				"TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256", quoted(string(c)))
		}
	}
	for i, c := range t.Curves {
		oneOf(k, element(key+".curves", i), c, curves)
	}
	oneOf(k, key+".missing_close_notify", t.MissingClose, []MissingClose{CloseBroken, CloseWhole})
	switch p := t.Pass; {
	case p == PortRange{}:
	case p.First > p.Last:
		k.fault(key+".pass", "%v begins after its end", p)
	case p.First < 1024:
		k.fault(key+".pass", "%v must begin at 1024 or above; the ports below are those of other services", p)
	case p.Last-p.First >= maxPass:
		k.fault(key+".pass", "%v has %d ports; at most %d are allowed, because clients can reach all of them", p,
			int(p.Last-p.First)+1, maxPass)
	}
}

// strangeTLS warns of TLS that is weak, or that nobody will see.
func (k *checker) strangeTLS(c *Config) {
	if c.TLS.KeyLog != "" {
		k.warn("tls.key_log", "whoever reads %s can decrypt all traffic; remove the key when the debugging is done", c.TLS.KeyLog)
	}
	passes := slices.ContainsFunc(c.Destinations, func(d Destination) bool { return d.TLS.Pass != PortRange{} })
	for i := range c.Listeners {
		l, key := &c.Listeners[i], element("listeners", i)
		if l.Certificate != "" && !l.TLS.endsClients() {
			k.warn(key+".certificate", "is shown to nobody, because tls is %s", l.TLS)
		}
		if l.SessionReuse == ReuseRequire && l.TLS.endsClients() {
			k.warn(key+".session_reuse", "clients that cannot resume sessions get 522 for every protected transfer; curl with TLS 1.2 "+
				"and Python's ftplib are such")
		}
		if l.TLS == TLSPass && !passes {
			k.warn(key+".tls", "pass lets no TLS through: no rule of destinations has ports for it under tls.pass")
		}
	}
	for i, d := range c.Destinations {
		if d.TLS.MinVersion != "" && d.TLS.MinVersion < TLS12 {
			k.warn(element("destinations", i)+".tls.min_version", "is %s; RFC 8996 forbids versions below 1.2, which are weak; allow "+
				"them only to servers that have no other", d.TLS.MinVersion)
		}
	}
}
