package proxy

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"os"
	"slices"
	"strconv"
	"strings"
	"sync"

	"ftpalg/config"
	"ftpalg/control"
	"ftpalg/dataconn"
	"ftpalg/tlsmitm"
)

// identities are what a configuration needs for TLS, read from its files: who we are to clients, and how servers are met.
type identities struct {
	interceptor *tlsmitm.Interceptor
	own         map[string]tlsmitm.KeyPair // listeners' own certificates, by the listener's name
	servers     []tlsmitm.ServerOptions    // by index in Config.Destinations
	others      tlsmitm.ServerOptions      // where none of them matches
	keyLog      *keyLog                    // nil: none
}

// keyLog is tls.key_log. A secret that cannot be written, on a full disk perhaps, is a line in the log.
type keyLog struct {
	file *os.File
	log  *slog.Logger
	told sync.Once
}

func (k *keyLog) Write(b []byte) (int, error) {
	n, err := k.file.Write(b)
	if err != nil && !errors.Is(err, os.ErrClosed) { // sessions outlive their configuration
		k.told.Do(func() {
			k.log.Error("tls.key_log cannot be written to; captures of some connections cannot be decrypted", "error", err)
		})
	}
	return n, err
}

// keptCertificates is how many certificates are kept that clients see: a few kilobytes each.
const keptCertificates = 4096

// CheckTLS says what is wrong with the files that a configuration names for TLS. It is for config.Options.Check.
func CheckTLS(cfg *config.Config) config.Faults {
	_, faults := identify(cfg, nil)
	return faults
}

// identify reads the files, or says all that is wrong with them. The key log is opened if there is a log to speak of it in.
func identify(cfg *config.Config, log *slog.Logger) (id *identities, faults config.Faults) {
	id = &identities{own: map[string]tlsmitm.KeyPair{}}
	fault := func(key string, err error) {
		if err != nil {
			faults = append(faults, config.Fault{Key: key, Text: err.Error()})
		}
	}
	var o tlsmitm.Options
	var err error
	if cfg.TLS.AuthorityCert != "" {
		var authority *tlsmitm.Authority
		authority, err = tlsmitm.LoadAuthority(string(cfg.TLS.AuthorityCert), string(cfg.TLS.AuthorityKey))
		fault("tls.authority_cert", err)
		o.Mint = tlsmitm.NewMint(authority, keptCertificates)
	}
	if cfg.TLS.ServerRoots != "" {
		o.Roots, err = tlsmitm.LoadRoots(string(cfg.TLS.ServerRoots))
		fault("tls.server_roots", err)
	}
	for i := range cfg.Listeners {
		if l := &cfg.Listeners[i]; l.Certificate != "" {
			id.own[l.Name], err = tlsmitm.LoadKeyPair(string(l.Certificate), string(l.CertificateKey))
			fault(fmt.Sprintf("listeners[%d].certificate", i), err)
		}
	}
	for i := range cfg.Destinations {
		d := &cfg.Destinations[i]
		if len(d.Allow) == 0 {
			id.servers = append(id.servers, tlsmitm.ServerOptions{})
			continue
		}
		options, key, err := serverOptions(&d.TLS)
		fault(fmt.Sprintf("destinations[%d].tls.%s", i, key), err)
		id.servers = append(id.servers, options)
	}
	others, key := config.DefaultDestinationTLS(), ""
	id.others, key, err = serverOptions(&others)
	fault("destinations[].tls."+key, err) // of the defaults
	if cfg.TLS.KeyLog != "" && len(faults) == 0 && log != nil {
		// Not truncated: a capture may need what was written before a reload.
		file, err := os.OpenFile(string(cfg.TLS.KeyLog), os.O_WRONLY|os.O_CREATE|os.O_APPEND, 0o600)
		fault("tls.key_log", err)
		id.keyLog = &keyLog{file: file, log: log}
		o.KeyLog = id.keyLog
	}
	if len(faults) > 0 {
		return nil, faults
	}
	id.interceptor = tlsmitm.New(o)
	return id, nil
}

// close closes what a configuration that is not in force any more had open. Sessions that it began may still write to the
// key log, in vain.
func (id *identities) close() {
	if id.keyLog != nil {
		id.keyLog.file.Close()
	}
}

// serverOptions are those of a rule. key is the one that an error is about.
func serverOptions(t *config.DestinationTLS) (o tlsmitm.ServerOptions, key string, err error) {
	o.Verify = map[config.Verify]tlsmitm.Verify{config.VerifyUntrustedCA: tlsmitm.UntrustedCA, config.VerifyOff: tlsmitm.Off}[t.Verify]
	for _, p := range t.Pins {
		o.Pins = append(o.Pins, p)
	}
	o.Pass = t.Pass != config.PortRange{}
	o.Tolerant = t.MissingClose == config.CloseWhole
	if t.ClientCert != "" {
		if o.Certificate, err = tlsmitm.LoadKeyPair(string(t.ClientCert), string(t.ClientKey)); err != nil {
			return o, "client_cert", err
		}
	}
	if o.MinVersion, err = tlsmitm.ParseVersion(string(t.MinVersion)); err != nil {
		return o, "min_version", err
	}
	if o.MaxVersion, err = tlsmitm.ParseVersion(string(t.MaxVersion)); err != nil {
		return o, "max_version", err
	}
	for _, name := range t.Ciphers {
		c, err := tlsmitm.ParseCipher(string(name))
		if err != nil {
			return o, "ciphers", err
		}
		o.Ciphers = append(o.Ciphers, c)
	}
	for _, name := range t.Curves {
		c, err := tlsmitm.ParseCurve(string(name))
		if err != nil {
			return o, "curves", err
		}
		o.Curves = append(o.Curves, c)
	}
	return o, "", nil
}

var protections = map[config.TLSMode]control.Protection{
	config.TLSInspect: control.InspectTLS, config.TLSRequire: control.RequireTLS,
	config.TLSClientOnly: control.ClientOnly, config.TLSServerOnly: control.ServerOnly,
}

// secured gives a session its TLS.
func (p *Proxy) secured(s *setting, session *control.Session, n *network) {
	l := s.listener
	session.Protection = protections[l.TLS]
	if session.Protection == control.RefuseTLS {
		return
	}
	o := tlsmitm.SessionOptions{ID: rand.Text(), Certificate: s.identities.own[l.Name]}
	switch {
	case n.places != nil && l.TLS != config.TLSClientOnly:
		// The client believes that it talks to the server that it has asked for by CONNECT: it sees a certificate like that one's.
		o.Certificate = nil
	case l.Mode == config.Explicit, l.Mode == config.Gateway:
		o.Names = append(o.Names, n.local.Addr().String())
		if l.Advertise != "" {
			o.Names = append(o.Names, l.Advertise)
		}
	case l.TLS != config.TLSClientOnly:
		o.Hello = func(ctx context.Context, name string) error { return p.named(ctx, n, name) }
	default:
		// There is no certificate of the server's to look like.
		o.Names = append(o.Names, n.dialed.Addr().String())
	}
	n.tls = s.identities.interceptor.Session(o)
	session.TLS = n.tls
	if l.SessionReuse == config.ReuseRequire {
		session.Reuse = control.ReuseRequired
	}
}

// named has the rules that speak of names decide about an intercepted server, whose name is known when the client says it in
// its hello (SNI).
func (p *Proxy) named(ctx context.Context, n *network, name string) error {
	isName := func(t config.Target) bool { return t.Host != "" && t.Host != "*" }
	speaks := func(d config.Destination) bool {
		return slices.ContainsFunc(d.Allow, isName) || slices.ContainsFunc(d.Deny, isName)
	}
	if name == "" || !slices.ContainsFunc(n.cfg.Destinations, speaks) {
		return nil
	}
	// A client may say any name: it is believed if the server is at one of its addresses. Else it could have what rules
	// allow to one server done to another.
	at := dataconn.AddrPort(n.server.RemoteAddr())
	places, err := p.resolve(ctx, net.JoinHostPort(name, strconv.Itoa(int(at.Port()))))
	i := slices.IndexFunc(places, func(s place) bool { return s.at == at && s.name != "" })
	if err != nil || i < 0 {
		return nil
	}
	rule, r := p.destined(n.cfg, n.listener, n.client.Addr(), n.account, places[i])
	if r != nil {
		return r
	}
	if rule != n.rule {
		n.meet(rule, "")
	}
	return nil
}

// isOwn reports whether a name that a client says in the hello of its TLS, or by HOST, is that of this proxy: in the listener's
// certificate, word for word, what it advertises, or with an address that is ours. A name without any address leads nowhere else:
// the proxy may have names that only its clients can look up.
func (p *Proxy) isOwn(ctx context.Context, s *setting, n *network, name string) bool {
	host := strings.TrimSuffix(name, ".")
	if strings.EqualFold(host, s.listener.Advertise) || tlsmitm.Names(s.identities.own[s.listener.Name], host) {
		return true
	}
	places, err := p.resolve(ctx, name)
	return err != nil || slices.ContainsFunc(places, func(to place) bool { return to.at.Addr() == n.local.Addr() || p.own.has(to.at.Addr()) })
}

// takesTLS reports whether clients of a listener may speak TLS.
func takesTLS(l *config.Listener) bool {
	return l.TLS != config.TLSRefuse && l.TLS != config.TLSServerOnly
}

// beginsWithTLS reports whether TLS begins with the first byte of a client's connection.
func beginsWithTLS(l *config.Listener, n *network) bool {
	return l.Implicit || n.dialed.IsValid() && len(l.ImplicitPorts) > 0 && inPorts(l.ImplicitPorts, n.dialed.Port())
}

// meet tells a session's TLS which server comes next.
func (n *network) meet(rule int, name string) {
	n.rule = rule
	if n.tls == nil {
		return
	}
	o := n.identities.others
	if rule >= 0 {
		o = n.identities.servers[rule]
	}
	o.Name = name
	n.tls.Meet(o)
}

// below is the connection below TLS.
func below(c net.Conn) net.Conn {
	for {
		over, ok := c.(interface{ NetConn() net.Conn })
		if !ok {
			return c
		}
		c = over.NetConn()
	}
}
