package control

import (
	"bytes"
	"context"
	"crypto/tls"
	"fmt"
	"math/rand/v2"
	"net"
	"net/netip"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"ftpalg/dataconn"
	"ftpalg/integration/ftptest"
	"ftpalg/tlsmitm"
)

// FuzzSecured lets a script say what both peers do of TLS, and when, on their connections and below them. Whatever they do:
// nothing panics or hangs; behind our 234 nothing is written to the client but TLS; and where the client has TLS, or must have
// it, no password crosses the server's wire as plain text.
func FuzzSecured(f *testing.F) {
	for _, s := range securedSeeds {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, script []byte) {
		synctest.Test(t, func(t *testing.T) { playSecured(t, script) })
	})
}

// The first byte of a script says how the listener is, each of the rest is an operation: see secured.step.
var securedSeeds = []string{
	"igAau.hupvdRsuSe", "iiHhudRs", "rgUPAau.hUPuzpvdRs", "eAhzpUauHuzpPu", "eUguAauHh", "cgAhzpUuPudRs", "sgauHuuUu", "igxa.h", "igAyu", "igAa!.h", "rgA*a.h",
	"ig.A.a.h.", "eAhU.uHu", "igAau.hzpCKAUPuE", "iiHh!Uu", "gIHhguu",
}

// secured is a session with its two peers.
type secured struct {
	t       *testing.T
	stage   *stage // for its certificates
	s       *Session
	raw     [2]*ftptest.Conn // the peers' ends, by side
	tls     [2]*tlsEnd
	mu      sync.Mutex
	begun   bool // our 234 has gone to the client, or TLS begins with the first byte
	faults  []string
	network ftptest.Network
	last    string // what the client said last, as we have read it
}

func playSecured(t *testing.T, script []byte) {
	if len(script) == 0 || len(script) > 200 {
		return
	}
	p := &stage{t: t}
	secret := p.secrecy()
	x := &secured{t: t, stage: p, s: &p.session}
	p.secret = secret
	x.s.Timeouts = Timeouts{
		Connect: 15 * time.Second, Login: 2 * time.Minute, Idle: 10 * time.Minute, Reply: 2 * time.Minute, Handshake: 15 * time.Second,
		DataSetup: 30 * time.Second, DataIdle: 2 * time.Minute, Abort: time.Second, Drain: 30 * time.Second,
	}
	x.s.Faithful = true
	x.s.Protection = InspectTLS
	switch script[0] {
	case 'r':
		x.s.Protection = RequireTLS
	case 'c':
		x.s.Protection = ClientOnly
	case 's':
		x.s.Protection = ServerOnly
	case 'e':
		x.s.Explicit, x.s.Faithful = true, false
	case 'g':
		x.s.Faithful = false
	}
	if len(script) > 1 && script[1] == 'I' {
		x.s.Implicit = true
	}
	near, far := ftptest.Pipe(netip.MustParseAddrPort("192.0.2.254:21"), netip.MustParseAddrPort("192.0.2.1:50000"))
	x.raw[dataconn.Client] = far
	x.begun = x.s.Implicit && x.s.Protection.offers()
	near.Wrote = x.toClient
	x.s.Client, x.s.Connect, x.s.Network, x.s.Observer = near, x.connect, x, x
	done := make(chan struct{})
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	go func() { x.s.Run(ctx); close(done) }()
	synctest.Wait()
	for _, op := range script[1:] {
		x.step(op)
		synctest.Wait()
		x.seen() // a clock may have the session connect, which nothing that we say comes before
	}
	for _, c := range x.raw {
		if c != nil {
			c.SetLinger(0)
			c.Close()
		}
	}
	time.Sleep(time.Hour) // longer than any clock
	synctest.Wait()
	select {
	case <-done:
	default:
		t.Error("the session goes on without its peers")
		cancel()
		<-done
	}
	for _, fault := range x.faults {
		t.Error(fault)
	}
}

// isRecords reports whether what we wrote is TLS: each Write of crypto/tls begins with a record.
func isRecords(b []byte) bool { return len(b) == 0 || b[0] >= 0x14 && b[0] <= 0x17 }

func (x *secured) toClient(b []byte) {
	x.mu.Lock()
	defer x.mu.Unlock()
	if x.begun && !isRecords(b) {
		x.faults = append(x.faults, fmt.Sprintf("the client was told %q where TLS had begun", b))
	}
	if bytes.HasPrefix(b, []byte("234 ")) && strings.HasPrefix(x.last, "AUTH ") {
		x.begun = true
	}
}

// Verbatim implements Observer.
func (x *secured) Verbatim() bool { return true }

// Observe implements Observer.
func (x *secured) Observe(e Event) {
	x.mu.Lock()
	defer x.mu.Unlock()
	if said, ok := e.(Said); ok && said.Arrow == ">" {
		x.last = said.Text
	}
}

func (x *secured) toServer(b []byte) {
	x.mu.Lock()
	defer x.mu.Unlock()
	if isRecords(b) {
		return
	}
	may := x.s.Protection == ClientOnly || x.s.Protection == InspectTLS && !x.begun
	if bytes.Contains(b, []byte("hunter2")) && !may {
		x.faults = append(x.faults, fmt.Sprintf("the server was told %q in plain text", b))
	}
}

// seen orders what the peers have done before what the session does next, and the other way round.
func (x *secured) seen() {
	x.mu.Lock()
	defer x.mu.Unlock()
}

func (x *secured) connect(context.Context, string) (net.Conn, error) {
	near, far := ftptest.Pipe(netip.MustParseAddrPort("203.0.113.254:50001"), netip.MustParseAddrPort("203.0.113.9:21"))
	x.mu.Lock()
	x.raw[dataconn.Server], x.tls[dataconn.Server] = far, nil
	x.mu.Unlock()
	near.Wrote = x.toServer
	x.s.TLS.Meet(tlsmitm.ServerOptions{})
	return near, nil
}

// Listen implements dataconn.Network.
func (x *secured) Listen(_ context.Context, side dataconn.Side, _ uint16) (net.Listener, error) {
	return x.network.Listen(netip.MustParseAddrPort("192.0.2.254:0"))
}

// Dial implements dataconn.Network.
func (x *secured) Dial(ctx context.Context, side dataconn.Side, from uint16, to netip.AddrPort) (net.Conn, error) {
	return x.network.Dial(ctx, netip.MustParseAddrPort("192.0.2.254:0"), to)
}

// says has a peer say something: over TLS if it has begun.
func (x *secured) says(side dataconn.Side, text string) {
	if e := x.tls[side]; e != nil {
		e.mu.Lock()
		up := e.up
		e.mu.Unlock()
		if up {
			e.Write([]byte(text))
		}
		return
	}
	x.below(side, text)
}

// below has somebody say something on a peer's connection below its TLS.
func (x *secured) below(side dataconn.Side, text string) {
	if c := x.raw[side]; c != nil {
		c.SetWriteDeadline(time.Now().Add(time.Second))
		c.Write([]byte(text))
	}
}

// step performs one operation.
func (x *secured) step(op byte) {
	const client, server = dataconn.Client, dataconn.Server
	commands := map[byte]string{
		'A': "AUTH TLS", 'B': "AUTH GSSAPI", 'z': "PBSZ 0", 'p': "PROT P", 'q': "PROT C", 'K': "CCC", 'E': "REIN", 'U': "USER alice@example", 'P': "PASS hunter2",
		'V': "EPSV", 'v': "PASV", 'R': "RETR a", 'S': "STOR b", 'F': "FEAT", 'Q': "QUIT", 'C': "ACCT hunter2", 'O': "HOST h",
	}
	replies := map[byte]string{
		'g': "220 ready", 'a': "234 go ahead", 'x': "500 what?", 'y': "200 fine", '3': "331 go on", '2': "230 in", '9': "229 ok (|||50010|)",
		'1': "150 here", '6': "226 done", '5': "550 no", '4': "421 bye",
	}
	switch {
	case commands[op] != "":
		x.says(client, commands[op]+"\r\n")
	case replies[op] != "":
		x.says(server, replies[op]+"\r\n")
	case op == 'u': // what servers usually say
		x.says(server, "200 OK\r\n")
	case op == '*': // a command that somebody has put behind another
		x.below(client, "PASS hunter2\r\n")
	case op == '!':
		x.below(server, "230 in\r\n")
	case op == '?':
		x.below(client, "\x16\x03\x01\x00\x05hello")
	case op == '.':
		if x.tls[server] == nil && x.raw[server] != nil {
			e := &tlsEnd{Conn: tls.Server(unread(x.raw[server]), x.stage.secret.server), below: x.raw[server]}
			x.tls[server] = e
			e.begin(func([]byte) {})
		}
	case op == 'h':
		if x.tls[client] == nil {
			e := &tlsEnd{Conn: tls.Client(unread(x.raw[client]), x.stage.secret.client), below: x.raw[client]}
			x.tls[client] = e
			e.begin(func([]byte) {})
		}
	case op == 'H': // both
		x.step('.')
		x.step('h')
	case op == 't':
		time.Sleep(time.Second)
	case op == 'T':
		time.Sleep(20 * time.Second)
	case op == 'X':
		x.raw[client].Close()
	case op == 'Y':
		if x.raw[server] != nil {
			x.raw[server].Close()
		}
	}
}

// TestSecuredAtRandom plays scripts that nobody chose.
func TestSecuredAtRandom(t *testing.T) {
	const words = "AABzzppqKEUUPPVvRSFQCOgggaaaaxy3321965u4*!?..hhHHHtT" // what leads somewhere more often
	for range 300 {
		script := []byte{"irceges"[rand.IntN(7)]}
		if rand.IntN(4) == 0 {
			script = append(script, 'I')
		}
		for range 5 + rand.IntN(40) {
			script = append(script, words[rand.IntN(len(words))])
		}
		synctest.Test(t, func(t *testing.T) { playSecured(t, script) })
		if t.Failed() {
			t.Fatalf("to play it again, add this to securedSeeds: %q", script)
		}
	}
}
