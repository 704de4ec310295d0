package main

import (
	"context"
	"encoding/json"
	"fmt"
	"net"
	"net/netip"
	"os"
	"path/filepath"
)

// uploadBytes is the size of the demo's files: many packets and several splices, and no round number of either.
const uploadBytes = 5_000_000

// demoSession is what all three sides said and saw of one session.
type demoSession struct {
	demoPart
	Client clientReport
	Server serverReport
	Log    []logLine // of ftpalg, about this session
}

// serverReport is what the server told of a session.
type serverReport struct {
	Lines  []demoLine
	Links  []demoLink // the control connection, then the data connections
	TLS    []demoTLS  // of the same
	Stored []storedFile
}

// logLine is a line of ftpalg's log.
type logLine struct {
	Msg     string
	Address loggedAddress // of a listener

	// Of a transfer.
	Verb      string
	Bytes     int64
	Carried   string
	Outcome   string
	ClientTLS tlsFacts `json:"client_tls"`
	ServerTLS tlsFacts `json:"server_tls"`

	// Of the TLS of a control connection.
	Side, Version, Cipher string
	Resumed               bool
	Certificate, Verified string
}

// loggedAddress is an address in the log: a string or, as slog writes a net.Addr, an object.
type loggedAddress struct{ netip.AddrPort }

// UnmarshalJSON implements json.Unmarshaler.
func (a *loggedAddress) UnmarshalJSON(b []byte) error {
	var t net.TCPAddr
	if json.Unmarshal(b, &t) == nil {
		a.AddrPort = unmapped(&t)
		return nil
	}
	return json.Unmarshal(b, &a.AddrPort)
}

// cast is the running processes and how much of what they say has been heard.
type cast struct {
	server, gateway           *child
	serverHeard, gatewayHeard int
}

// startServer starts the server on some addresses, and returns those where it listens.
func (d *demo) startServer(ctx context.Context, c *cast, in place, at ...string) ([]netip.AddrPort, error) {
	var err error
	if c.server, err = d.start(in, "server", serverJob{at, filepath.Join(d.dir, serverCert), filepath.Join(d.dir, serverKey)}, "demo", "server"); err != nil {
		return nil, err
	}
	var all []netip.AddrPort
	_, c.serverHeard, err = heard(ctx, c.server, 0, func(e serverEvent) bool {
		if e.Event == eventListening {
			all = append(all, e.Link.Own)
		}
		return len(all) == len(at)
	})
	return all, err
}

// startGateway starts ftpalg with a configuration file, and returns where its listeners listen.
func (d *demo) startGateway(ctx context.Context, c *cast, in place, config string, listeners int) ([]netip.AddrPort, error) {
	var err error
	if c.gateway, err = d.start(in, "ftpalg", nil, "run", "--config", config,
		"--log-format", "json", // for us
		"--log-level", "debug", // for who uses --keep: it has what is said
	); err != nil {
		return nil, err
	}
	var all []netip.AddrPort
	_, c.gatewayHeard, err = heard(ctx, c.gateway, 0, func(l logLine) bool {
		if l.Msg == "listening" {
			all = append(all, l.Address.AddrPort)
		}
		return len(all) == listeners
	})
	return all, err
}

// configFile is ftpalg's configuration in the demo's directory.
const configFile = "ftpalg.yaml"

// writeFile writes a file of the demo's directory and returns its path. One of an act that could not be played is replaced.
func (d *demo) writeFile(name string, content []byte) (string, error) {
	file := filepath.Join(d.dir, name)
	return file, os.WriteFile(file, content, 0o600)
}

// hold has the client hold a session, and gathers what all sides know of it.
func (d *demo) hold(ctx context.Context, c *cast, in place, p demoPart) (*demoSession, error) {
	client, err := d.start(in, "client", p.job, "demo", "client")
	if err != nil {
		return nil, err
	}
	s := &demoSession{demoPart: p}
	reports, _, err := heard(ctx, client, 0, func(clientReport) bool { return true })
	if err != nil {
		return nil, fmt.Errorf("%s: %w", p.name, err)
	}
	s.Client = reports[0]
	if s.Client.Error != "" {
		return nil, fmt.Errorf("%s: the client failed: %s%s\nftpalg's last words:\n%s",
			p.name, s.Client.Error, conversation(s.Client.Lines), c.gateway.says.last(10))
	}
	events, n, err := heard(ctx, c.server, c.serverHeard, func(e serverEvent) bool { return e.Event == eventLeft })
	if err != nil {
		return nil, fmt.Errorf("%s: %w", p.name, err)
	}
	c.serverHeard = n
	s.Server = reportOf(events)
	log, n, err := heard(ctx, c.gateway, c.gatewayHeard, func(l logLine) bool { return l.Msg == "session ended" })
	if err != nil {
		return nil, fmt.Errorf("%s: %w", p.name, err)
	}
	c.gatewayHeard = n
	s.Log = log
	return s, nil
}

// conversation is lines for an error message.
func conversation(lines []demoLine) string {
	text := ""
	for _, l := range lines {
		text += "\n  " + l.Arrow + " " + l.Text
	}
	return text
}

func reportOf(events []serverEvent) serverReport {
	var r serverReport
	for _, e := range events {
		switch e.Event {
		case eventCalled, eventConnected:
			r.Links = append(r.Links, e.Link)
		case eventSaid:
			r.Lines = append(r.Lines, e.Line)
		case eventSecured:
			r.TLS = append(r.TLS, e.TLS)
		case eventStored:
			r.Stored = append(r.Stored, e.File)
		}
	}
	return r
}

// demoPart is a session that is to be held: its name, such as IPv4 PASV, what the client does in it, and which addresses of
// each other client and server should see.
type demoPart struct {
	name                   string
	job                    clientJob
	clientSees, serverSees netip.Addr

	trust *demoTrust  // nil: without TLS
	shown certificate // with it: what the client should see
}

// parts are the sessions that call an address: both ways to ask for passive data connections, but over IPv6, which PASV
// cannot name (RFC 2428 §1), only EPSV; and that one with TLS again, where the client should be shown a certificate.
func parts(call netip.AddrPort, user string, serverSees netip.Addr, trust *demoTrust, shown certificate) []demoPart {
	family := "IPv4"
	if call.Addr().Is6() {
		family = "IPv6"
	}
	epsv := demoPart{name: family + " EPSV", clientSees: call.Addr(), serverSees: serverSees,
		job: clientJob{Server: call.String(), User: user, Verb: "EPSV", File: "random.bin", Bytes: uploadBytes}}
	secured := epsv
	secured.name, secured.trust, secured.shown, secured.job.Trust = family+" TLS", trust, shown, trust.file
	if call.Addr().Is6() {
		return []demoPart{epsv, secured}
	}
	pasv := epsv
	pasv.name, pasv.job.Verb = family+" PASV", "PASV"
	return []demoPart{pasv, epsv, secured}
}

// holdAll holds several sessions, one after the other.
func (d *demo) holdAll(ctx context.Context, c *cast, in place, parts []demoPart) ([]*demoSession, error) {
	var all []*demoSession
	for _, p := range parts {
		s, err := d.hold(ctx, c, in, p)
		if err != nil {
			return nil, err
		}
		all = append(all, s)
	}
	// Nobody reads on; what is said while the demo is kept goes to the logs only.
	c.server.says.hush()
	c.gateway.says.hush()
	return all, nil
}
