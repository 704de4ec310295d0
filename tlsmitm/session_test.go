package tlsmitm

import (
	"bytes"
	"context"
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"net"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"
)

// issuer is a server that notes which of its connections issued the tickets that clients come back with.
type issuer struct {
	config *tls.Config
	mu     sync.Mutex
	shown  []string
}

func newIssuer(config *tls.Config) *issuer { return &issuer{config: config.Clone()} }

// on is the configuration of a connection of that name.
func (i *issuer) on(name string) *tls.Config {
	config := i.config.Clone()
	config.WrapSession = func(cs tls.ConnectionState, ss *tls.SessionState) ([]byte, error) {
		ss.Extra = append(ss.Extra, []byte(name))
		return i.config.EncryptTicket(cs, ss)
	}
	config.UnwrapSession = func(identity []byte, cs tls.ConnectionState) (*tls.SessionState, error) {
		ss, err := i.config.DecryptTicket(identity, cs)
		if ss != nil {
			i.mu.Lock()
			defer i.mu.Unlock()
			i.shown = append(i.shown, string(ss.Extra[len(ss.Extra)-1]))
		}
		return ss, err
	}
	return config
}

// TestPinned: all data connections show the server its control connection's ticket, whatever became of those before.
func TestPinned(t *testing.T) {
	l := newLab(t)
	for version, number := range versions {
		t.Run(version, func(t *testing.T) {
			i := newIssuer(of(number, l.server(example())))
			s := l.session("1")
			mustIntercept(t, s, l.client(), i.on("control"))
			for n := range 20 {
				v, p, err := serverData(t, s, i.on(fmt.Sprint("data ", n)))
				if err != nil || p.err != nil {
					t.Fatal(err, p.err)
				}
				if f := v.Facts(); !f.Resumed || !p.ConnectionState().DidResume || f.Version != "TLS "+version {
					t.Errorf("connection %d: %+v", n, f)
				}
			}
			for name, abort := range map[string]func(*net.TCPConn){
				"closes":     func(c *net.TCPConn) { c.Close() },
				"says bye":   func(c *net.TCPConn) { tls.Server(c, &tls.Config{}).Handshake() },
				"resets":     func(c *net.TCPConn) { c.SetLinger(0); c.Close() },
				"talks back": func(c *net.TCPConn) { c.Write([]byte("550 No\r\n")) },
			} {
				near, far := wire(t)
				go func() {
					if name != "says bye" {
						far.Read(make([]byte, 10_000)) // the hello; what is unread would make each end a reset
					}
					abort(far)
				}()
				if _, err := s.ServerData(t.Context(), near); err == nil {
					t.Errorf("a server that %s in the handshake is one", name)
				}
				if v, _, err := serverData(t, s, i.on("data")); err != nil || !v.Facts().Resumed {
					t.Errorf("after a server that %s: %v", name, err)
				}
			}
			if len(i.shown) != 24 || slices.ContainsFunc(i.shown, func(of string) bool { return of != "control" }) {
				t.Errorf("it was shown tickets of %q", i.shown)
			}
		})
	}
}

// TestPinnedLate: a server that issues tickets on data connections only is shown the first of them.
func TestPinnedLate(t *testing.T) {
	l := newLab(t)
	for version, number := range versions {
		t.Run(version, func(t *testing.T) {
			i := newIssuer(of(number, l.server(example())))
			s := l.session("1")
			control := i.on("control")
			control.SessionTicketsDisabled = true
			mustIntercept(t, s, l.client(), control)
			for n := range 4 {
				v, _, err := serverData(t, s, i.on(fmt.Sprint("data ", n)))
				if err != nil || v.Facts().Resumed != (n > 0) {
					t.Errorf("connection %d: %v, %+v", n, err, v.Facts())
				}
			}
			if want := []string{"data 0", "data 0", "data 0"}; !slices.Equal(i.shown, want) {
				t.Errorf("it was shown tickets of %q", i.shown)
			}
		})
	}
}

// TestPinnedNewer: the control connection's newest ticket is the one, and nothing takes it away.
func TestPinnedNewer(t *testing.T) {
	a, b, c := &tls.ClientSessionState{}, &tls.ClientSessionState{}, &tls.ClientSessionState{}
	control := &pinned{}
	data := dataTickets{control}
	for n, step := range []struct {
		cache tls.ClientSessionCache
		put   *tls.ClientSessionState
		want  *tls.ClientSessionState
	}{
		{data, nil, nil}, {control, nil, nil}, {data, a, a}, {data, b, a}, {control, b, b}, {data, a, b}, {control, c, c},
		{control, nil, c}, {data, nil, c}, {data, b, c},
	} {
		step.cache.Put("any", step.put)
		for _, cache := range []tls.ClientSessionCache{control, data} {
			if got, ok := cache.Get("another"); got != step.want || ok != (step.want != nil) {
				t.Errorf("step %d: %p, want %p", n, got, step.want)
			}
		}
	}
}

// TestResumesTheExpired: a server whose certificate has expired, and who is accepted all the same, can demand resumption too.
func TestResumesTheExpired(t *testing.T) {
	l := newLab(t)
	template := example()
	template.NotBefore, template.NotAfter = time.Now().Add(-2*day), time.Now().Add(-day)
	for version, number := range versions {
		s := l.session("1")
		s.Meet(ServerOptions{Verify: Off})
		client := l.client()
		client.InsecureSkipVerify = true
		i := newIssuer(of(number, l.server(template)))
		mustIntercept(t, s, client, i.on("control"))
		for n := range 3 {
			v, _, err := serverData(t, s, i.on("data"))
			if err != nil || !v.Facts().Resumed {
				t.Errorf("%s, connection %d: %v, %+v", version, n, err, v.Facts())
			}
		}
	}
}

// showing is a client's cache that has one ticket, or none, and takes no other.
type showing struct{ ticket *tls.ClientSessionState }

func (s showing) Get(string) (*tls.ClientSessionState, bool) { return s.ticket, s.ticket != nil }

func (showing) Put(string, *tls.ClientSessionState) {}

// TestResumes: a client's data connections resume the session of its control connection, and no ticket but that of its own
// session is worth anything on its data port. Those that are not make no harm either.
func TestResumes(t *testing.T) {
	l := newLab(t)
	elsewhere := New(l.interceptor.options)
	for version, number := range versions {
		t.Run(version, func(t *testing.T) {
			server := l.server(example())
			hold := func(i *Interceptor, id string) (*Session, *tls.ClientSessionState) {
				s := i.Session(SessionOptions{ID: id})
				s.Meet(ServerOptions{})
				config := of(number, l.client())
				mustIntercept(t, s, config, server)
				ticket, ok := config.ClientSessionCache.Get("")
				if !ok {
					t.Fatal("the client has no ticket")
				}
				return s, ticket
			}
			s, own := hold(l.interceptor, "1")
			_, others := hold(l.interceptor, "2")
			_, longer := hold(l.interceptor, "11")
			_, foreign := hold(elsewhere, "1")
			again, _ := hold(l.interceptor, "1") // the same session after a second AUTH, if there were one
			forge := func(change func([]byte) []byte) *tls.ClientSessionState {
				must := func(err error) {
					if err != nil {
						t.Fatal(err)
					}
				}
				ticket, state, err := own.ResumptionState()
				must(err)
				raw, err := state.Bytes()
				must(err)
				state, err = tls.ParseSessionState(raw) // a copy, or the genuine one would have the forged ticket too
				must(err)
				forged, err := tls.NewResumptionState(change(bytes.Clone(ticket)), state)
				must(err)
				return forged
			}
			for name, test := range map[string]struct {
				s       *Session
				ticket  *tls.ClientSessionState
				resumes bool
			}{
				"own":                   {s, own, true},
				"own again":             {s, own, true},
				"of the same id":        {again, own, true},
				"none":                  {s, nil, false},
				"another session's":     {s, others, false},
				"of a longer id":        {s, longer, false},
				"another interceptor's": {s, foreign, false},
				"garbage":               {s, forge(func([]byte) []byte { return []byte("garbage") }), false},
				"long garbage":          {s, forge(func([]byte) []byte { return bytes.Repeat([]byte("garbage"), 1000) }), false},
				"changed":               {s, forge(func(b []byte) []byte { b[len(b)/2] ^= 1; return b }), false},
				"cut off":               {s, forge(func(b []byte) []byte { return b[:len(b)-1] }), false},
			} {
				t.Run(name, func(t *testing.T) {
					config := of(number, l.client())
					config.ClientSessionCache = showing{test.ticket}
					c, p, err := clientData(t, test.s, config, false)
					if err != nil || p.err != nil {
						t.Fatal(err, p.err)
					}
					if c.Facts().Resumed != test.resumes || p.ConnectionState().DidResume != test.resumes {
						t.Errorf("resumed: %v", c.Facts().Resumed)
					}
					c, _, err = clientData(t, test.s, config, true)
					if test.resumes {
						if err != nil || !c.Facts().Resumed {
							t.Errorf("where it must resume: %v", err)
						}
						return
					}
					var side *SideError
					if c != nil || !errors.Is(err, ErrReuse) || !errors.As(err, &side) || side.Side != "client" {
						t.Errorf("where it must resume: %v", err)
					}
				})
			}
			bare := of(number, l.client())
			bare.ClientSessionCache = nil
			if c, p, err := clientData(t, s, bare, false); err != nil || p.err != nil || c.Facts().Resumed {
				t.Errorf("a client that keeps no tickets: %v, %v", err, p.err)
			}
			if _, _, err := clientData(t, s, bare, true); !errors.Is(err, ErrReuse) {
				t.Errorf("a client that keeps no tickets, where it must: %v", err)
			}
		})
	}
}

// hellos has a server note what the hellos to it say.
func hellos(config *tls.Config) (*tls.Config, *[]*tls.ClientHelloInfo) {
	config = config.Clone()
	var seen []*tls.ClientHelloInfo
	config.GetConfigForClient = func(h *tls.ClientHelloInfo) (*tls.Config, error) {
		seen = append(seen, h)
		return nil, nil
	}
	return config, &seen
}

// TestHello: the client's hello shapes ours, in its name for the server and ALPN.
func TestHello(t *testing.T) {
	l := newLab(t)
	for name, test := range map[string]struct {
		offers  []string
		speaks  []string // the server, by ALPN
		options ServerOptions
		ask     string
		sni     string
		agreed  string // with the client
	}{
		"name":            {ask: "ftp.example.com", sni: "ftp.example.com"},
		"other name":      {ask: "www.example.com", options: ServerOptions{Name: "ftp.example.com"}, sni: "ftp.example.com"},
		"no name":         {ask: "192.0.2.1", sni: ""}, // crypto/tls sends none then
		"address by USER": {ask: "ftp.example.com", options: ServerOptions{Name: "192.0.2.9"}, sni: ""},
		"ALPN": {ask: "ftp.example.com", sni: "ftp.example.com", offers: []string{"ftp"}, speaks: []string{"ftp"},
			agreed: "ftp"},
		"ALPN among others": {ask: "ftp.example.com", sni: "ftp.example.com", offers: []string{"x-test", "ftp"}, speaks: []string{"ftp"},
			agreed: "ftp"},
		"server without": {ask: "ftp.example.com", sni: "ftp.example.com", offers: []string{"ftp"}, agreed: "ftp"},
		"client without": {ask: "ftp.example.com", sni: "ftp.example.com", speaks: []string{"ftp"}},
	} {
		t.Run(name, func(t *testing.T) {
			template := example()
			template.IPAddresses = []net.IP{net.IPv4(192, 0, 2, 9)}
			server, seen := hellos(l.server(template))
			server.NextProtos = test.speaks
			s := l.session("1")
			s.Meet(test.options)
			client := l.client()
			client.ServerName, client.NextProtos, client.InsecureSkipVerify = test.ask, test.offers, true
			m := mustIntercept(t, s, client, server)
			h := (*seen)[0]
			if h.ServerName != test.sni {
				t.Errorf("the server is asked for %q", h.ServerName)
			}
			var want []string
			if test.offers != nil {
				want = []string{"ftp"}
			}
			if !slices.Equal(h.SupportedProtos, want) {
				t.Errorf("the server is offered %q", h.SupportedProtos)
			}
			if got := m.client.ConnectionState().NegotiatedProtocol; got != test.agreed || m.c.Facts().Protocol != got {
				t.Errorf("the client has %q, and we %q", got, m.c.Facts().Protocol)
			}
		})
	}
}

// patched is a client's connection in whose first bytes something is replaced by something as long.
type patched struct {
	net.Conn
	old, by string
	done    bool
}

func (p *patched) Write(b []byte) (int, error) {
	if !p.done {
		p.done = true
		if !bytes.Contains(b, []byte(p.old)) {
			panic("the hello does not have what is to be replaced")
		}
		return p.Conn.Write(bytes.Replace(b, []byte(p.old), []byte(p.by), 1))
	}
	return p.Conn.Write(b)
}

// TestAddressAsName: an address is no name, whatever the client (lftp) says. What crypto/tls's client makes of a hello that is
// not its own does not matter.
func TestAddressAsName(t *testing.T) {
	l := newLab(t)
	for _, address := range []string{"192.0.2.100", "2001:db8::a", "::ffff:1.2.3.4"} {
		server, seen := hellos(l.server(example()))
		nearClient, farClient := wire(t)
		nearServer, farServer := wire(t)
		name := strings.Repeat("a", len(address))
		client := l.client()
		client.ServerName = name
		go tls.Client(&patched{Conn: farClient, old: name, by: address}, client).Handshake()
		p := begin(tls.Server(farServer, server), farServer)
		s := l.session("1")
		_, _, err := s.Intercept(t.Context(), nearClient, nearServer)
		<-p.done
		var side *SideError
		if p.err != nil || s.Verified() != "chain" || !errors.As(err, &side) || side.Side != "client" {
			t.Errorf("%s: the server: %v; verified: %s; we: %v", address, p.err, s.Verified(), err)
		}
		if len(*seen) != 1 || (*seen)[0].ServerName != "" {
			t.Errorf("%s: the server is asked for %q", address, (*seen)[0].ServerName)
		}
	}
}

// TestForeignProtocol: a browser that an attacker sent to an FTP port is told so, and the server hears nothing (ALPACA).
func TestForeignProtocol(t *testing.T) {
	l := newLab(t)
	for _, offers := range [][]string{{"h2", "http/1.1"}, {"http/1.1"}, {"ftp-data"}, {"FTP"}} {
		client := l.client()
		client.NextProtos = offers
		m := intercept(t, l.session("1"), client, l.server(example()))
		if !errors.Is(m.err, ErrALPN) || m.err.(*SideError).Side != "client" {
			t.Errorf("%q: %v", offers, m.err)
		}
		if want := "remote error: tls: no application protocol"; m.client.err == nil || m.client.err.Error() != want {
			t.Errorf("%q: the client hears %v", offers, m.client.err)
		}
		if n := m.toServer.written.Load(); n > 0 {
			t.Errorf("%q: the server was sent %d bytes", offers, n)
		}
	}
}

// TestDataProtocol: clients name data connections by ALPN in more than one way.
func TestDataProtocol(t *testing.T) {
	l := newLab(t)
	for version, number := range versions {
		s := l.session("1")
		mustIntercept(t, s, of(number, l.client()), l.server(example()))
		for _, test := range []struct {
			offers []string
			agreed string
		}{
			{nil, ""}, {[]string{"ftp-data"}, "ftp-data"}, {[]string{"ftp"}, "ftp"}, {[]string{"ftp", "ftp-data"}, "ftp-data"},
			{[]string{"x-test", "ftp"}, "ftp"},
		} {
			config := of(number, l.client())
			config.NextProtos = test.offers
			// A data connection that resumes nothing gets no ticket by which another would: the second is as fresh as the first.
			for range 2 {
				c, p, err := clientData(t, s, config, false)
				if err != nil || p.err != nil {
					t.Fatal(err, p.err)
				}
				got := p.ConnectionState().NegotiatedProtocol
				if got != test.agreed || c.Facts().Protocol != got || c.Facts().Resumed {
					t.Errorf("%s, %q: the client has %q, and we %+v", version, test.offers, got, c.Facts())
				}
			}
		}
		config := of(number, l.client())
		config.NextProtos = []string{"h2"}
		_, p, err := clientData(t, s, config, false)
		if !errors.Is(err, ErrALPN) || p.err == nil || p.err.Error() != "remote error: tls: no application protocol" {
			t.Errorf("%s: a browser: %v; it hears %v", version, err, p.err)
		}
	}
}

// TestVerify: what a server's certificate may lack, and what the client sees of a server that lacks it.
func TestVerify(t *testing.T) {
	l := newLab(t)
	now := time.Now()
	expired, early := example(), example()
	expired.NotBefore, expired.NotAfter = now.Add(-2*day), now.Add(-day)
	early.NotBefore, early.NotAfter = now.Add(day), now.Add(2*day)
	intermediate := issued(t, authorityOf("Intermediate"), l.their)
	address := x509.Certificate{IPAddresses: []net.IP{net.IPv4(192, 0, 2, 9), net.ParseIP("2001:db8::9")}}
	signer := example()
	signer.ExtKeyUsage = []x509.ExtKeyUsage{x509.ExtKeyUsageCodeSigning}
	stranger := issued(t, example(), nil)
	good := issued(t, example(), l.their)
	digest := func(der []byte) [][32]byte { return [][32]byte{{}, sha256.Sum256(der)} }

	for name, test := range map[string]struct {
		server   *identity
		above    *identity
		options  ServerOptions
		ask      string
		verified string // if it verifies
		check    string // if not
		reason   string // part of what is said of it
	}{
		"good":               {server: good, verified: "chain"},
		"intermediate":       {server: issued(t, example(), intermediate), above: intermediate, verified: "chain"},
		"no intermediate":    {server: issued(t, example(), intermediate), check: "authority", reason: "unknown authority"},
		"unknown authority":  {server: stranger, check: "authority", reason: "unknown authority"},
		"expired":            {server: issued(t, expired, l.their), check: "dates", reason: "expired"},
		"not yet valid":      {server: issued(t, early, l.their), check: "dates", reason: "not yet valid"},
		"not a server":       {server: issued(t, signer, l.their), check: "certificate", reason: "usage"},
		"name by SNI":        {server: good, ask: "www.example.com", check: "name", reason: "not www.example.com"},
		"name by USER":       {server: good, options: ServerOptions{Name: "www.example.com"}, check: "name", reason: "not www.example.com"},
		"right name by USER": {server: good, ask: "www.example.com", options: ServerOptions{Name: "ftp.example.com"}, verified: "chain"},
		"no name":            {server: good, ask: "192.0.2.1", verified: "chain"},
		"IPv4":               {server: issued(t, address, l.their), options: ServerOptions{Name: "192.0.2.9"}, verified: "chain"},
		"IPv6":               {server: issued(t, address, l.their), options: ServerOptions{Name: "2001:db8::9"}, verified: "chain"},
		"wrong address": {server: issued(t, address, l.their), options: ServerOptions{Name: "192.0.2.8"},
			check: "name", reason: "192.0.2.8"},
		"address, no such": {server: good, options: ServerOptions{Name: "192.0.2.9"}, check: "name", reason: "192.0.2.9"},
		"pinned":           {server: stranger, options: ServerOptions{Pins: digest(stranger.cert.Raw)}, verified: "pin"},
		"key pinned": {server: stranger, options: ServerOptions{Pins: digest(stranger.cert.RawSubjectPublicKeyInfo)},
			verified: "pin"},
		"expired and pinned": {server: issuedFor(t, expired, nil, good.key), verified: "pin",
			options: ServerOptions{Pins: digest(good.cert.RawSubjectPublicKeyInfo)}},
		"other pin": {server: good, options: ServerOptions{Pins: digest(stranger.cert.Raw)}, check: "pin",
			reason: fmt.Sprintf("%x is not pinned", sha256.Sum256(good.cert.Raw))},
		"authority pinned": {server: good, above: l.their, options: ServerOptions{Pins: digest(l.their.cert.Raw)}, check: "pin",
			reason: "is not pinned"},
	} {
		for how, verify := range map[string]Verify{"strict": Strict, "untrusted": UntrustedCA, "off": Off} {
			t.Run(name+"/"+how, func(t *testing.T) {
				s := l.session("1")
				options := test.options
				options.Verify = verify
				s.Meet(options)
				client := l.client()
				client.InsecureSkipVerify = true
				if test.ask != "" {
					client.ServerName = test.ask
				}
				identity := test.server.tls()
				if test.above != nil {
					identity = test.server.tls(test.above)
				}
				m := intercept(t, s, client, &tls.Config{Certificates: []tls.Certificate{identity}})
				verified, check := test.verified, test.check
				if verify == Off && len(options.Pins) == 0 {
					verified, check = "off", ""
				}
				if check != "" && (verify == Strict || check == "pin") {
					var side *SideError
					var failed *VerifyError
					if !errors.As(m.err, &side) || side.Side != "server" || !errors.As(m.err, &failed) || failed.Check != check ||
						!strings.Contains(failed.Error(), test.reason) {
						t.Errorf("%v, want %s: %s", m.err, check, test.reason)
					}
					if m.c != nil || m.v != nil || m.client.err == nil || m.client.err.Error() != "remote error: tls: internal error" {
						t.Errorf("the client hears %v", m.client.err)
					}
					return
				}
				if m.err != nil || m.client.err != nil || m.server.err != nil {
					t.Fatalf("%v; the client: %v; the server: %v", m.err, m.client.err, m.server.err)
				}
				authority := l.root.cert
				if verified != "chain" && verified != "pin" {
					var err error
					if authority, err = l.mint.Untrusted(); err != nil {
						t.Fatal(err)
					}
				}
				seen := m.client.ConnectionState().PeerCertificates[0]
				if err := seen.CheckSignatureFrom(authority); err != nil {
					t.Errorf("the client sees one signed by %s", seen.Issuer)
				}
				if !bytes.Equal(seen.RawSubject, test.server.cert.RawSubject) || !slices.Equal(seen.DNSNames, test.server.cert.DNSNames) ||
					seen.Equal(test.server.cert) {
					t.Errorf("the client sees %s, %q", seen.Subject, seen.DNSNames)
				}
				switch got := s.Verified(); {
				case check == "" && got != verified:
					t.Errorf("verified: %s, want %s", got, verified)
				case check != "" && (!strings.HasPrefix(got, "failed: certificate: "+check+": ") || !strings.Contains(got, test.reason)):
					t.Errorf("verified: %s, want a failure of %s: %s", got, check, test.reason)
				}
				if d := sha256.Sum256(test.server.cert.Raw); s.Fingerprint() != hex.EncodeToString(d[:]) {
					t.Errorf("its fingerprint is %s", s.Fingerprint())
				}
				s.Meet(ServerOptions{})
				if s.Verified() != "" || s.Fingerprint() != "" {
					t.Errorf("of the next server it is said: %q, %q", s.Verified(), s.Fingerprint())
				}
			})
		}
	}
}

// TestSame: whoever got to the server's data port first is not the server, even with a certificate that verifies.
func TestSame(t *testing.T) {
	l := newLab(t)
	for version, number := range versions {
		for _, verify := range []Verify{Strict, UntrustedCA, Off} {
			i := newIssuer(of(number, l.server(example())))
			s := l.session("1")
			s.Meet(ServerOptions{Verify: verify})
			client := l.client()
			client.InsecureSkipVerify = true
			mustIntercept(t, s, client, i.on("control"))
			if _, p, err := serverData(t, s, i.on("data")); err != nil || p.err != nil || !p.ConnectionState().DidResume {
				t.Errorf("%s: the server: %v, %v", version, err, p.err)
			}
			fresh := i.config.Clone()
			fresh.SetSessionTicketKeys([][32]byte{{1}})
			if v, _, err := serverData(t, s, fresh); err != nil || v.Facts().Resumed {
				t.Errorf("%s: the server, which does not resume: %v", version, err)
			}
			_, _, err := serverData(t, s, of(number, l.server(example())))
			var side *SideError
			var failed *VerifyError
			if !errors.As(err, &side) || side.Side != "server" || !errors.As(err, &failed) || failed.Check != "same" {
				t.Errorf("%s: another: %v", version, err)
			}
			if v, _, err := serverData(t, s, i.on("data")); err != nil || !v.Facts().Resumed {
				t.Errorf("%s: the server, after another: %v", version, err)
			}
		}
	}
}

// TestClientCertificate: a server that asks for a certificate is shown ours, on data connections too.
func TestClientCertificate(t *testing.T) {
	l := newLab(t)
	usage := []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth}
	own := issued(t, x509.Certificate{DNSNames: []string{"ftpalg.example.com"}, ExtKeyUsage: usage}, l.their)
	certificate := own.tls()
	for version, number := range versions {
		i := newIssuer(of(number, l.server(example())))
		i.config.ClientAuth, i.config.ClientCAs = tls.RequireAndVerifyClientCert, pool(l.their.cert)
		s := l.session("1")
		s.Meet(ServerOptions{Certificate: &certificate})
		m := mustIntercept(t, s, l.client(), i.on("control"))
		if !m.server.ConnectionState().PeerCertificates[0].Equal(own.cert) {
			t.Errorf("%s: the server is shown another", version)
		}
		fresh := i.config.Clone()
		fresh.SetSessionTicketKeys([][32]byte{{1}})
		for _, config := range []*tls.Config{i.on("data"), fresh} {
			_, p, err := serverData(t, s, config)
			if err != nil || p.err != nil || !p.ConnectionState().PeerCertificates[0].Equal(own.cert) {
				t.Errorf("%s: on a data connection: %v, %v", version, err, p.err)
			}
		}
		if m := intercept(t, l.session("2"), l.client(), i.on("control")); m.server.err == nil {
			t.Errorf("%s: the server takes us without one", version)
		}
	}
}

// TestCertificate: what a client sees where the session has something to say about it.
func TestCertificate(t *testing.T) {
	l := newLab(t)
	shown := issued(t, example(), l.root).tls()
	toServer := func(t *testing.T, o SessionOptions, v ServerOptions, server *tls.Config) *met {
		s := l.interceptor.Session(o)
		s.Meet(v)
		client := l.client()
		client.InsecureSkipVerify = true
		return intercept(t, s, client, server)
	}
	seen := func(t *testing.T, m *met) *x509.Certificate {
		t.Helper()
		if m.err != nil || m.client.err != nil {
			t.Fatal(m.err, m.client.err)
		}
		return m.client.ConnectionState().PeerCertificates[0]
	}
	other := x509.Certificate{DNSNames: []string{"other.example.com"}}
	unknown := &tls.Config{Certificates: []tls.Certificate{issued(t, other, nil).tls()}}

	c := seen(t, toServer(t, SessionOptions{Certificate: &shown}, ServerOptions{}, l.server(example())))
	if !bytes.Equal(c.Raw, shown.Certificate[0]) {
		t.Errorf("instead of our own certificate: %s", c.Issuer)
	}
	names := SessionOptions{Names: []string{"proxy.example.com", "192.0.2.1"}}
	want := []string{"ftp.example.com", "proxy.example.com"}
	c = seen(t, toServer(t, names, ServerOptions{Name: "other.example.com"}, l.server(other)))
	if !slices.Equal(c.DNSNames, want) || len(c.IPAddresses) != 1 || c.CheckSignatureFrom(l.root.cert) != nil {
		t.Errorf("under our own names: %q, %v, by %s", c.DNSNames, c.IPAddresses, c.Issuer)
	}
	// A server that did not verify is not hidden behind a certificate of ours that does.
	c = seen(t, toServer(t, names, ServerOptions{Name: "other.example.com", Verify: UntrustedCA}, unknown))
	untrusted, err := l.mint.Untrusted()
	if err != nil {
		t.Fatal(err)
	}
	if !slices.Equal(c.DNSNames, want) || c.CheckSignatureFrom(untrusted) != nil {
		t.Errorf("under our own names, of an unknown server: %q, by %s", c.DNSNames, c.Issuer)
	}

	// What cannot be mirrored is no server that a client could judge.
	m := toServer(t, SessionOptions{}, ServerOptions{Verify: Off}, l.server(x509.Certificate{DNSNames: []string{"a\x00.example.com"}}))
	var side *SideError
	if !errors.As(m.err, &side) || side.Side != "client" || !strings.Contains(m.err.Error(), "can be mirrored") || m.client.err == nil {
		t.Errorf("a server with a name that is none: %v; the client: %v", m.err, m.client.err)
	}
	if _, err := m.toServer.Write([]byte("x")); err == nil {
		t.Error("the server's connection is still open")
	}

	without := New(Options{Roots: pool(l.their.cert)})
	for name, test := range map[string]struct {
		options SessionOptions
		want    string
	}{
		"none":        {SessionOptions{}, "there is no authority"},
		"names alone": {names, "there is no authority"},
		"own":         {SessionOptions{Certificate: &shown}, ""},
	} {
		s := without.Session(test.options)
		s.Meet(ServerOptions{})
		m := intercept(t, s, l.client(), l.server(example()))
		if (m.err == nil) != (test.want == "") || m.err != nil && !strings.Contains(m.err.Error(), test.want) {
			t.Errorf("without an authority, %s: %v", name, m.err)
		}
	}
}

// TestOneSide: the sides are secured alone, too.
func TestOneSide(t *testing.T) {
	l := newLab(t)
	s := l.interceptor.Session(SessionOptions{ID: "1", Names: []string{"proxy.example.com"}})
	s.Meet(ServerOptions{Name: "ftp.example.com"})
	client := l.client()
	c, p, err := join(t, func(c *net.TCPConn) *tls.Conn { return tls.Client(c, client) }, s.ToClient)
	if err != nil || p.err != nil {
		t.Fatal(err, p.err)
	}
	greet(t, c, p)
	if got := p.ConnectionState().PeerCertificates[0].DNSNames; !slices.Equal(got, []string{"ftp.example.com", "proxy.example.com"}) {
		t.Errorf("the client sees %q", got)
	}
	i := newIssuer(l.server(example()))
	v, p, err := join(t, func(c *net.TCPConn) *tls.Conn { return tls.Server(c, i.on("control")) }, s.ToServer)
	if err != nil || p.err != nil || s.Verified() != "chain" {
		t.Fatal(err, p.err, s.Verified())
	}
	greet(t, p, v)
	if c, _, err := clientData(t, s, client, true); err != nil || !c.Facts().Resumed {
		t.Errorf("the client's data connection: %v", err)
	}
	if v, _, err := serverData(t, s, i.on("data")); err != nil || !v.Facts().Resumed {
		t.Errorf("the server's data connection: %v", err)
	}
	if _, p, err := join(t, func(c *net.TCPConn) *tls.Conn {
		return tls.Client(c, &tls.Config{InsecureSkipVerify: true, NextProtos: []string{"h2"}})
	}, s.ToClient); !errors.Is(err, ErrALPN) || p.err == nil {
		t.Errorf("a browser: %v; it hears %v", err, p.err)
	}
}

// TestVersions: nothing below TLS 1.2 on either side, unless a server is excepted.
func TestVersions(t *testing.T) {
	l := newLab(t)
	for name, number := range map[string]uint16{
		"1.0": tls.VersionTLS10, "1.1": tls.VersionTLS11, "1.2": tls.VersionTLS12, "1.3": tls.VersionTLS13,
	} {
		old := number < tls.VersionTLS12
		if m := intercept(t, l.session("1"), of(number, l.client()), l.server(example())); (m.err == nil) == old {
			t.Errorf("a client with TLS %s: %v", name, m.err)
		} else if old {
			// The server was met first: its connection is closed.
			if _, err := m.v.Write([]byte("x")); m.err.(*SideError).Side != "client" || err == nil {
				t.Errorf("a client with TLS %s: %v; the server: %v", name, m.err, err)
			}
		}
		if m := intercept(t, l.session("1"), l.client(), of(number, l.server(example()))); (m.err == nil) == old {
			t.Errorf("a server with TLS %s: %v", name, m.err)
		} else if old && m.err.(*SideError).Side != "server" {
			t.Errorf("a server with TLS %s: %v", name, m.err)
		}
		s := l.session("1")
		s.Meet(ServerOptions{MinVersion: number, MaxVersion: number})
		any := l.server(example())
		any.MinVersion = tls.VersionTLS10
		m := mustIntercept(t, s, l.client(), any)
		if m.v.Facts().Version != "TLS "+name || m.c.Facts().Version != "TLS 1.3" {
			t.Errorf("bound to TLS %s: %+v, and the client %+v", name, m.v.Facts(), m.c.Facts())
		}
		if v, _, err := serverData(t, s, any); err != nil || v.Facts().Version != "TLS "+name {
			t.Errorf("bound to TLS %s, a data connection: %v", name, err)
		}
	}
}

// TestCiphers: a server is offered the cipher suites and key exchanges that were chosen for it.
func TestCiphers(t *testing.T) {
	l := newLab(t)
	server, seen := hellos(l.server(example()))
	s := l.session("1")
	suites := []uint16{tls.TLS_ECDHE_ECDSA_WITH_AES_256_GCM_SHA384, tls.TLS_RSA_WITH_AES_128_CBC_SHA}
	s.Meet(ServerOptions{MaxVersion: tls.VersionTLS12, Ciphers: suites, Curves: []tls.CurveID{tls.CurveP384}})
	m := mustIntercept(t, s, l.client(), server)
	if f := m.v.Facts(); f.Cipher != "TLS_ECDHE_ECDSA_WITH_AES_256_GCM_SHA384" {
		t.Errorf("%+v", f)
	}
	if _, _, err := serverData(t, s, server); err != nil {
		t.Fatal(err)
	}
	for n, h := range *seen {
		if !slices.Equal(h.CipherSuites, suites) || !slices.Equal(h.SupportedCurves, []tls.CurveID{tls.CurveP384}) {
			t.Errorf("connection %d: the server is offered %v and %v", n, h.CipherSuites, h.SupportedCurves)
		}
	}
	if len(*seen) != 2 {
		t.Errorf("%d hellos", len(*seen))
	}
}

// TestKeyLog: with the key log, all four connections of a session can be read, and without it none.
func TestKeyLog(t *testing.T) {
	l := newLab(t)
	secrets := map[string]int{"1.2": 2, "1.3": 4 * 4} // a resumed session of TLS 1.2 has none of its own
	for version, number := range versions {
		var log bytes.Buffer
		l.interceptor = New(Options{Mint: l.mint, Roots: pool(l.their.cert), KeyLog: &log})
		s := l.session("1")
		client, server := of(number, l.client()), of(number, l.server(example()))
		var theirs bytes.Buffer
		client.KeyLogWriter, server.KeyLogWriter = &theirs, &theirs // crypto/tls locks for all writers at once
		mustIntercept(t, s, client, server)
		if _, _, err := clientData(t, s, client, true); err != nil {
			t.Fatal(err)
		}
		if _, _, err := serverData(t, s, server); err != nil {
			t.Fatal(err)
		}
		sorted := func(b *bytes.Buffer) string {
			lines := strings.SplitAfter(b.String(), "\n")
			slices.Sort(lines)
			return strings.Join(lines, "")
		}
		// The secrets that peers log are those that we log.
		if sorted(&log) != sorted(&theirs) || strings.Count(log.String(), "\n") < secrets[version] {
			t.Errorf("%s: the log is\n%s\nand the peers'\n%s", version, log.String(), theirs.String())
		}
	}
}

// full is a disk that takes nothing.
type full struct{}

func (full) Write([]byte) (int, error) { return 0, errors.New("no space left") }

// TestKeyLogFull: what cannot be logged is lost, and no connection with it.
func TestKeyLogFull(t *testing.T) {
	l := newLab(t)
	l.interceptor = New(Options{Mint: l.mint, Roots: pool(l.their.cert), KeyLog: full{}})
	mustIntercept(t, l.session("1"), l.client(), l.server(example()))
}

// TestOverdue: a peer that stalls in its handshake is left when the time is up, and nothing goes on behind it: what did
// would burst the bubble.
func TestOverdue(t *testing.T) {
	const took = "TLS: the handshake took too long"
	for name, test := range map[string]struct {
		client, server string // what they do, if not their part
		want           string
	}{
		"client says nothing":    {"stall", "", "client " + took},
		"client stalls":          {"stall later", "", "client " + took},
		"server says nothing":    {"", "stall", "server " + took},
		"server stalls":          {"", "stall later", "server " + took},
		"client leaves":          {"leave", "", "client TLS: the connection was closed during the handshake"},
		"server leaves":          {"", "hear and leave", "server TLS: the connection was closed during the handshake"},
		"both stall":             {"stall", "stall", "client " + took},
		"everybody is all right": {},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				l := newLab(t)
				s := l.session("1")
				ctx, cancel := context.WithTimeout(t.Context(), 15*time.Second)
				defer cancel()
				nearClient, farClient := pipe()
				nearServer, farServer := pipe()
				all := []io.Closer{nearClient, farClient, nearServer, farServer}
				defer func() {
					for _, c := range all {
						c.Close()
					}
				}()
				play := func(what string, c net.Conn, handshake func(net.Conn) error) {
					switch what {
					case "stall":
					case "stall later":
						handshake(&mute{Conn: c})
					case "leave":
						c.Close()
					case "hear and leave":
						c.Read(make([]byte, 10_000))
						c.Close()
					default:
						handshake(c)
					}
				}
				go play(test.client, farClient, func(c net.Conn) error { return tls.Client(c, l.client()).Handshake() })
				server := of(tls.VersionTLS12, l.server(example()))
				go play(test.server, farServer, func(c net.Conn) error { return tls.Server(c, server).Handshake() })
				start := time.Now()
				_, _, err := s.Intercept(ctx, nearClient, nearServer)
				if test.want == "" {
					if err != nil {
						t.Error(err)
					}
				} else if err == nil || err.Error() != test.want {
					t.Errorf("%v, want %s", err, test.want)
				}
				if took := time.Since(start); took != 0 && took != 15*time.Second || (took != 0) != strings.Contains(test.want, "too long") {
					t.Errorf("after %v", took)
				}
			})
		})
	}
}

// mute is a connection that says one thing and then no more, while it still listens.
type mute struct {
	net.Conn
	said bool
}

func (m *mute) Write(b []byte) (int, error) {
	if m.said {
		return len(b), nil
	}
	m.said = true
	return m.Conn.Write(b)
}

// TestOverdueData: the same on data connections.
func TestOverdueData(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := newLab(t)
		s := l.session("1")
		nearClient, farClient := pipe()
		nearServer, farServer := pipe()
		defer nearClient.Close()
		defer nearServer.Close()
		go tls.Client(farClient, l.client()).Handshake()
		go tls.Server(farServer, l.server(example())).Handshake()
		if _, _, err := s.Intercept(t.Context(), nearClient, nearServer); err != nil {
			t.Fatal(err)
		}
		for side, data := range map[string]func(context.Context, net.Conn) (Data, error){
			"client": func(ctx context.Context, c net.Conn) (Data, error) { return s.ClientData(ctx, c, false) },
			"server": s.ServerData,
		} {
			near, far := pipe()
			ctx, cancel := context.WithTimeout(t.Context(), 15*time.Second)
			start := time.Now()
			_, err := data(ctx, near)
			if want := side + " TLS: the handshake took too long"; err == nil || err.Error() != want || time.Since(start) != 15*time.Second {
				t.Errorf("%v after %v, want %s", err, time.Since(start), want)
			}
			cancel()
			near.Close()
			far.Close()
		}
	})
}

// TestPanic: what panics in a handshake does so where the session was called, which is looked after.
func TestPanic(t *testing.T) {
	l := newLab(t)
	s := l.interceptor.Session(SessionOptions{ID: "1", Hello: func(context.Context, string) error { panic("out of order") }})
	s.Meet(ServerOptions{})
	near, far := wire(t)
	begin(tls.Client(far, l.client()), far)
	defer func() {
		if p := recover(); p == nil || !strings.Contains(fmt.Sprint(p), "out of order") || !strings.Contains(fmt.Sprint(p), "TestPanic.func1") {
			t.Errorf("%v", p)
		}
	}()
	s.Intercept(t.Context(), near, near)
	t.Error("Intercept returned")
}
