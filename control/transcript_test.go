package control

import (
	"cmp"
	"context"
	"crypto/sha256"
	"flag"
	"fmt"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"ftpalg/control/wire"
	"ftpalg/dataconn"
	"ftpalg/integration/ftptest"
	"ftpalg/tlsmitm"
)

var update = flag.Bool("update", false, "rewrite what we say in testdata/*.txt")

// The transcripts in testdata are conversations. Each line is one of
//
//	#  a comment
//	!  an option of the session, before anything else: see option
//	>  the client says a line; >| the same as a quoted string of bytes
//	<< the server says a line; <<| the same as a quoted string of bytes
//	>> we must have said this to the server;  ">> ." we must have closed its connection
//	<  we must have said this to the client;  "<  ." we must have closed its connection
//	=  something is done with a data connection or happens: see act
//	+  time passes
//
// After each line that makes something happen, whatever we said that the next lines do not expect is a failure: so a
// transcript tests silence as well as speech.
func TestTranscripts(t *testing.T) {
	files, err := filepath.Glob("testdata/*.txt")
	if err != nil || len(files) == 0 {
		t.Fatalf("no transcripts: %v", err)
	}
	for _, file := range files {
		t.Run(strings.TrimSuffix(filepath.Base(file), ".txt"), func(t *testing.T) {
			text, err := os.ReadFile(file)
			if err != nil {
				t.Fatal(err)
			}
			var out string
			synctest.Test(t, func(t *testing.T) { out = play(t, file, string(text)) })
			if *update && !t.Failed() {
				if err := os.WriteFile(file, []byte(out), 0o644); err != nil {
					t.Fatal(err)
				}
			}
		})
	}
}

// stage is where a transcript is played.
type stage struct {
	t       *testing.T
	network ftptest.Network
	session Session
	client  end // the client's end of its control connection
	server  end // the server's end
	secret  *secrecy

	peers [2]netip.Addr
	own   [2]netip.Addr // the addresses we have on each side

	mu     sync.Mutex // guards said and events: a timer's wake-up orders nothing for the race detector
	said   []string   // what we said and the script has not expected yet, in order
	events []Event    // but for what was said
	all    []Event
	rest   map[string]string // by arrow: what we said after the last line end
	tapped map[string]*bool  // by arrow: whether what we write is heard as it is
	where  string

	listening  [2]*ftptest.Listener // of the client and of the server, by dataconn.Side
	data       [2]end
	heard      [2]netip.AddrPort // the data address that each side was last told
	strangers  int
	drain      context.CancelFunc
	lostDial   bool // Connect fails
	far        time.Duration
	passed     string // what tells that TLS is passed: "name" or "pin"
	meet       string // how servers are met: "untrusted-ca", "off", a name
	serverPort uint16
	ended      error
}

// play plays a transcript and returns it as it was.
func play(t *testing.T, file, text string) string {
	p := &stage{t: t, rest: map[string]string{}, tapped: map[string]*bool{}}
	p.peers = [2]netip.Addr{netip.MustParseAddr("192.0.2.1"), netip.MustParseAddr("203.0.113.9")}
	p.own = [2]netip.Addr{netip.MustParseAddr("192.0.2.254"), netip.MustParseAddr("203.0.113.254")}
	p.session = Session{
		Timeouts: Timeouts{
			Connect: 15 * time.Second, Login: 2 * time.Minute, Idle: 10 * time.Minute, Reply: 2 * time.Minute,
			Handshake: 15 * time.Second, DataSetup: 30 * time.Second, DataIdle: 2 * time.Minute, Abort: time.Second, Drain: 30 * time.Second,
		},
		Faithful: true,
		Observer: p,
	}
	ctx, cancel := context.WithCancel(t.Context())
	p.drain = cancel
	defer cancel()
	done := make(chan struct{})
	begun := false
	begin := func() {
		begun = true
		near, far := ftptest.Pipe(netip.AddrPortFrom(p.own[0], 2121), netip.AddrPortFrom(p.peers[0], 50000))
		p.client = far
		p.tap(near, "<")
		s := &p.session
		s.Client, s.Connect, s.Network = near, p.connect, p
		s.Gone = func(net.Conn) bool { return near.Gone() }
		s.Stranger = func(dataconn.Side, netip.AddrPort) { p.strangers++ }
		go func() { p.ended = s.Run(ctx); close(done) }()
		synctest.Wait()
	}

	defer func() { // also after a failure, or the bubble would not burst
		if !begun {
			begin()
		}
		// The end: both peers leave, and nothing of the session may remain.
		p.client.Close()
		if p.server != nil {
			p.server.Close()
		}
		for side := range p.data {
			if p.data[side] != nil {
				p.data[side].Close()
			}
			if p.listening[side] != nil {
				p.listening[side].Close()
			}
		}
		<-done
		synctest.Wait()
		if n := p.network.Open(); n != 0 {
			t.Errorf("%s: %d data listeners are left open", file, n)
		}
		if _, ok := p.events[len(p.events)-1].(Ended); !ok {
			t.Errorf("%s: the last event is %#v", file, p.events[len(p.events)-1])
		}
	}()

	var out strings.Builder
	lines := strings.SplitAfter(text, "\n")
	for i, l := range lines {
		p.where = fmt.Sprintf("%s:%d", file, i+1)
		l = strings.TrimSuffix(l, "\n")
		kind, rest, _ := strings.Cut(l, " ")
		rest = strings.TrimPrefix(rest, " ") // "> x" and ">> x" are aligned
		switch kind {
		case "", "#":
			if kind == "" && i == len(lines)-1 {
				continue
			}
		case "!":
			p.option(rest)
		case ">>", "<":
			if !begun {
				begin()
				p.flush(&out)
			}
			want := kind + " " + rest
			if *update {
				continue // what was said is written where it was said
			}
			p.expect(want)
			continue
		default:
			if !begun {
				begin()
				p.flush(&out)
			}
			p.silence()
			out.WriteString(l + "\n")
			p.act(kind, rest)
			synctest.Wait()
			p.flush(&out)
			continue
		}
		out.WriteString(l + "\n")
	}
	p.silence()
	return out.String()
}

// flush writes what we said into the transcript when it is being updated.
func (p *stage) flush(out *strings.Builder) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if !*update {
		return
	}
	for _, s := range p.said {
		kind, text, _ := strings.Cut(s, " ")
		fmt.Fprintf(out, "%-2s %s\n", kind, text)
	}
	p.said = nil
}

// expect takes one line from what we said.
func (p *stage) expect(want string) {
	p.t.Helper()
	p.mu.Lock()
	defer p.mu.Unlock()
	if len(p.said) == 0 {
		p.t.Fatalf("%s: we said nothing; want %s", p.where, want)
	}
	i := 0
	if p.secret != nil {
		// Each peer reads its TLS connection by itself: what we said to both has no order.
		arrow, _, _ := strings.Cut(want, " ")
		i = max(slices.IndexFunc(p.said, func(s string) bool { return strings.HasPrefix(s, arrow+" ") }), 0)
	}
	if p.said[i] != want {
		p.t.Fatalf("%s: we said\n\t%s\nwant\n\t%s", p.where, strings.Join(p.said, "\n\t"), want)
	}
	p.said = slices.Delete(p.said, i, i+1)
}

func (p *stage) silence() {
	p.t.Helper()
	p.mu.Lock()
	defer p.mu.Unlock()
	if len(p.said) > 0 {
		p.t.Fatalf("%s: before this we also said\n\t%s", p.where, strings.Join(p.said, "\n\t"))
	}
}

// tap records what we say on a connection.
func (p *stage) tap(c *ftptest.Conn, arrow string) {
	plain, here := p.lines(arrow), new(bool)
	p.mu.Lock()
	p.tapped[arrow] = here
	p.mu.Unlock()
	*here = true
	on := func() bool {
		p.mu.Lock()
		defer p.mu.Unlock()
		return *here
	}
	c.Wrote = func(b []byte) {
		if on() && (len(b) == 0 || b[0] < 0x14 || b[0] > 0x17) { // the types of TLS records: our part of a handshake that the peer has not begun
			plain(b)
		}
	}
	c.Shut = func() {
		if on() {
			plain(nil)
		}
	}
}

// deafen ends a tap: what we say there is read by the peer, under TLS.
func (p *stage) deafen(arrow string) {
	p.mu.Lock()
	defer p.mu.Unlock()
	*p.tapped[arrow] = false
}

// lines records what we say, as it comes; nil is that we have closed.
func (p *stage) lines(arrow string) func([]byte) {
	return func(b []byte) {
		p.mu.Lock()
		defer p.mu.Unlock()
		if b == nil {
			if rest := p.rest[arrow]; rest != "" {
				p.said = append(p.said, arrow+" "+strconv.Quote(rest)+" and no line end")
			}
			p.said = append(p.said, arrow+" .")
			return
		}
		p.rest[arrow] += string(b)
		for {
			line, more, ok := strings.Cut(p.rest[arrow], "\r\n")
			if !ok {
				return
			}
			p.rest[arrow] = more
			p.said = append(p.said, arrow+" "+readable(line))
			p.listen(arrow, line)
		}
	}
}

// readable is a line as it is, or quoted where it holds what no text file should.
func readable(line string) string {
	if q := strconv.Quote(line); strings.Contains(q, `\x`) {
		return q
	}
	return line
}

// listen notes where each side is told to connect to.
func (p *stage) listen(arrow, line string) {
	word, arg, _ := strings.Cut(line, " ")
	word = strings.ToUpper(word)
	switch {
	case arrow == "<" && (word == "227" || word == "229"):
		r := wire.Reply{Code: int(word[0]-'0')*100 + int(word[1]-'0')*10 + int(word[2]-'0'), Lines: []string{line}}
		if ap, err := r.Passive(); err == nil {
			p.heard[dataconn.Client] = netip.AddrPortFrom(p.own[0], ap.Port())
		}
	case arrow == ">>" && word == "PORT":
		p.heard[dataconn.Server], _ = wire.ParseHostPort(arg)
	case arrow == ">>" && word == "EPRT":
		p.heard[dataconn.Server], _ = wire.ParseExtended(arg)
	}
}

// option sets an option of the session.
func (p *stage) option(text string) {
	key, value, _ := strings.Cut(text, " ")
	switch key {
	case "explicit":
		p.session.Explicit, p.session.Faithful = true, false
	case "accounts": // "name:password …"
		p.session.Accounts = accounts(strings.Fields(value))
	case "login": // ways of logging in, in the words of the configuration
		for word := range strings.FieldsSeq(value) {
			p.session.Logins |= logins[word]
		}
	case "own":
		p.session.Own = func(_ context.Context, name string) bool { return name == value }
	case "gateway":
		p.session.Faithful = false
	case "server_data":
		p.session.ServerData = map[string]ServerData{"passive": Passive, "active": Active}[value]
	case "unknown":
		p.session.RefuseUnknown = value == "refuse"
	case "client":
		p.peers[0], p.own[0] = netip.MustParseAddr("2001:db8:1::1"), netip.MustParseAddr("2001:db8:1::fe")
	case "server":
		p.peers[1], p.own[1] = netip.MustParseAddr("2001:db8:2::9"), netip.MustParseAddr("2001:db8:2::fe")
	case "advertise":
		p.session.Advertise = func(context.Context) (netip.Addr, error) { return netip.MustParseAddr(value), nil }
	case "far": // calling the client takes a while
		p.far, _ = time.ParseDuration(value)
	case "unreachable":
		p.lostDial = true
	case "tls":
		p.secret = p.secrecy()
		p.session.Protection = map[string]Protection{"inspect": InspectTLS, "require": RequireTLS, "client-only": ClientOnly,
			"server-only": ServerOnly}[value]
	case "pass":
		p.session.Pass = func(heard bool) (Passage, error) {
			switch {
			case value == "nothing":
				return nil, &Refusal{Code: 534, Text: "Nothing is allowed"}
			case value == "" || heard:
				return &passing{p}, nil
			}
			return nil, nil
		}
		p.passed = value
	case "implicit":
		p.session.Implicit = true
	case "port":
		n, _ := strconv.Atoi(value)
		p.serverPort = uint16(n)
	case "session_reuse":
		p.session.Reuse = map[string]Reuse{"require": ReuseRequired}[value]
	case "meet":
		p.meet = value
	case "inspect":
		p.judge().inspector = func() dataconn.Inspector { return &taster{dislikes: value} }
	case "deny": // CLASS, VERB, "CLASS DIRECTORY", or "USER NAME"
		what, below, _ := strings.Cut(value, " ")
		p.judge().denials = append(p.judge().denials, denial{what, below})
	case "known": // how long a transfer takes to be known
		p.judge().known, _ = time.ParseDuration(value)
	case "ask_directory":
		p.session.AskDirectory = true
	default:
		p.t.Fatalf("%s: no option %q", p.where, key)
	}
}

// judge is the session's Policy.
func (p *stage) judge() *judge {
	if p.session.Policy == nil {
		p.session.Policy = &judge{}
	}
	return p.session.Policy.(*judge)
}

var logins = map[string]Logins{
	"user@host": LoginUserAtHost, "proxy-user": LoginProxyUser, "site": LoginSite, "open": LoginOpen, "joined": LoginJoined,
	"proxy-user@host": LoginProxyUserAtHost, "acct": LoginAcct, "colon": LoginColon, "sni": LoginSNI, "host": LoginHost, "resp": LoginResp,
}

// accounts is an Accounts: each is "name:password". One named banned ends the session, and one named slow is waited
// for as long as there is time.
type accounts []string

func (a accounts) Known(name string) bool {
	return slices.ContainsFunc(a, func(s string) bool { return strings.HasPrefix(s, name+":") })
}

func (a accounts) Login(ctx context.Context, name, password string) *Refusal {
	switch {
	case name == "slow": // nobody answers
		<-ctx.Done()
		return &Refusal{Code: 530, Text: "No answer"}
	case name == "banned":
		return &Refusal{Code: 421, Text: "Come back tomorrow", Rule: "ban", End: true}
	case !a.Known(name):
		return &Refusal{Code: 530, Text: "There is no account of that name"}
	case !slices.Contains(a, name+":"+password):
		return &Refusal{Code: 530, Text: "The password is wrong"}
	}
	return nil
}

// act performs a line of the script.
func (p *stage) act(kind, rest string) {
	switch kind {
	case ">":
		p.client.Write([]byte(rest + "\r\n"))
	case ">|":
		p.client.Write([]byte(p.unquote(rest)))
	case "<<":
		p.server.Write([]byte(rest + "\r\n"))
	case "<<|":
		p.server.Write([]byte(p.unquote(rest)))
	case "+":
		d, err := time.ParseDuration(rest)
		if err != nil {
			p.t.Fatalf("%s: %v", p.where, err)
		}
		time.Sleep(d)
	case "=":
		p.do(strings.Fields(rest), rest)
	default:
		p.t.Fatalf("%s: cannot read %q", p.where, kind+" "+rest)
	}
}

func (p *stage) unquote(s string) string {
	u, err := strconv.Unquote(s)
	if err != nil {
		p.t.Fatalf("%s: %v: %s", p.where, err, s)
	}
	return u
}

// do performs what happens to data connections: "client|server listens PORT|dials|accepts|sends TEXT|fills N|ends|resets|
// closes|vanishes|hears TEXT|takes N|sees end|sees reset|sees open|leaves|refused", "client says long line", "server says 600 lines", "stranger dials client|server", "drain",
// "client|server tls WORDS", "client|server has WORDS", "client|server data tls", "client|server cuts": see secured_test.go;
// "strangers N", "event TEXT", "never WORD", "login".
func (p *stage) do(w []string, text string) {
	switch w[0] {
	case "drain":
		p.drain()
		return
	case "login": // the plain case, of which testdata/login.txt is the transcript
		for _, l := range []string{"<< 220 ready", "> USER alice", "<< 331 go on", "> PASS secret", "<< 230 in"} {
			kind, rest, _ := strings.Cut(l, " ")
			p.act(kind, rest)
			synctest.Wait()
		}
		p.mu.Lock()
		p.said = nil
		p.mu.Unlock()
		return
	case "never": // does a word appear in what an Observer hears
		p.mu.Lock()
		defer p.mu.Unlock()
		for _, e := range p.all {
			if text := fmt.Sprintf("%+v", e); strings.Contains(text, w[1]) {
				p.t.Fatalf("%s: %q is in %s", p.where, w[1], text)
			}
		}
		return
	case "strangers":
		if strconv.Itoa(p.strangers) != w[1] {
			p.t.Fatalf("%s: %d strangers", p.where, p.strangers)
		}
		return
	case "event":
		p.expectEvent(strings.TrimPrefix(text, "event "))
		return
	case "stranger":
		side := p.side(w[2])
		c, err := p.network.Dial(p.t.Context(), netip.MustParseAddrPort("198.51.100.66:666"), p.heard[side])
		if err != nil {
			p.t.Fatalf("%s: %v", p.where, err)
		}
		synctest.Wait()
		if _, err := c.Available(); err == nil {
			p.t.Fatalf("%s: the stranger was not turned away", p.where)
		}
		return
	}
	side := p.side(w[0])
	c := p.data[side]
	text = strings.Join(w[min(len(w), 2):], " ")
	var err error
	switch w[1] {
	case "vanishes": // as a killed process does: control first, then data, before anybody can look
		p.client.Close()
		err = c.Close()
	case "says":
		switch {
		case side == dataconn.Client:
			_, err = p.client.Write([]byte("RETR " + strings.Repeat("x", 5000) + "\r\n"))
		default:
			_, err = p.server.Write([]byte("200-" + strings.Repeat("x\r\n", 600)))
		}
	case "leaves":
		if side == dataconn.Client {
			p.client.Close()
		} else {
			p.server.Close()
		}
	case "tls":
		p.protects(side, w[2:])
	case "data":
		p.guards(side, w[3:])
	case "cuts":
		err = p.cuts(side)
	case "has":
		control := p.client
		if side == dataconn.Server {
			control = p.server
		}
		if w[2] == "data" {
			err = p.has(c, w[3:])
		} else {
			err = p.has(control, w[2:])
		}
	case "listens":
		port, _ := strconv.Atoi(w[2])
		p.listening[side], err = p.network.Listen(netip.AddrPortFrom(p.peers[side], uint16(port)))
	case "unlistens":
		p.listening[side].Close()
		p.listening[side] = nil
	case "dials":
		var d *ftptest.Conn
		if d, err = p.network.Dial(p.t.Context(), netip.AddrPortFrom(p.peers[side], 20), p.heard[side]); err == nil {
			p.data[side] = d
		}
	case "refused": // dials, in vain
		if _, e := p.network.Dial(p.t.Context(), netip.AddrPortFrom(p.peers[side], 20), p.heard[side]); e == nil {
			err = fmt.Errorf("connected to %v", p.heard[side])
		}
	case "accepts":
		if p.listening[side].Pending() == 0 {
			p.t.Fatalf("%s: nobody has called", p.where)
		}
		var a net.Conn
		if a, err = p.listening[side].Accept(); err == nil {
			p.data[side] = a.(*ftptest.Conn)
			p.listening[side].Close()
			p.listening[side] = nil
			if len(w) > 3 { // accepts from ADDRESS
				if got := a.RemoteAddr().String(); got != w[3] {
					err = fmt.Errorf("accepted from %s", got)
				}
			}
		}
	case "sends":
		_, err = c.Write([]byte(text))
	case "fills":
		n, _ := strconv.Atoi(w[2])
		c.Write(make([]byte, n)) // as much as we take
	case "ends":
		err = c.CloseWrite()
	case "closes":
		err = c.Close()
	case "resets":
		c.SetLinger(0)
		err = c.Close()
	case "hears":
		b, _ := c.Available()
		if string(b) != text {
			err = fmt.Errorf("heard %q", b)
		}
	case "takes":
		b, _ := c.Available()
		if strconv.Itoa(len(b)) != w[2] {
			err = fmt.Errorf("took %d bytes", len(b))
		}
	case "sees":
		b, e := c.Available()
		got := seen(e)
		if got != w[2] || len(b) > 0 && got != "reset" {
			err = fmt.Errorf("saw %s after %q", got, b)
		}
	default:
		err = fmt.Errorf("cannot read %q", w)
	}
	if err != nil {
		p.t.Fatalf("%s: %v", p.where, err)
	}
}

func (p *stage) side(name string) dataconn.Side {
	switch name {
	case "client":
		return dataconn.Client
	case "server":
		return dataconn.Server
	}
	p.t.Fatalf("%s: no side %q", p.where, name)
	return 0
}

// expectEvent looks for an event whose print holds all the words.
func (p *stage) expectEvent(words string) {
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, e := range p.events {
		text := fmt.Sprintf("%T%+v", e, e)
		found := true
		for w := range strings.FieldsSeq(words) {
			found = found && strings.Contains(text, w)
		}
		if found {
			return
		}
	}
	p.t.Fatalf("%s: no event has %q among\n%+v", p.where, words, p.events)
}

// Verbatim implements Observer.
func (p *stage) Verbatim() bool { return true }

// Observe implements Observer. What was said is in the transcript already.
func (p *stage) Observe(e Event) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.all = append(p.all, e)
	if _, said := e.(Said); !said {
		p.events = append(p.events, e)
	}
}

// connect is Session.Connect.
func (p *stage) connect(ctx context.Context, name string) (net.Conn, error) {
	if p.lostDial {
		return nil, fmt.Errorf("server: connection refused")
	}
	if strings.HasPrefix(name, "unknown") {
		return nil, &Refusal{Code: 530, Text: "The server's name cannot be resolved"}
	}
	if strings.HasPrefix(name, "denied") {
		return nil, &Refusal{Code: 530, Text: "Not permitted to reach this server", Rule: "test"}
	}
	if p.session.TLS != nil {
		o := tlsmitm.ServerOptions{}
		switch p.meet {
		case "untrusted-ca":
			o.Verify = tlsmitm.UntrustedCA
		case "off":
			o.Verify = tlsmitm.Off
		default:
			o.Name = p.meet
		}
		if o.Pass = p.session.Pass != nil && p.passed != "nothing"; p.passed == "pin" {
			o.Pins = [][32]byte{sha256.Sum256(p.secret.server.Certificates[0].Certificate[0])}
		}
		p.session.TLS.Meet(o)
	}
	near, far := ftptest.Pipe(netip.AddrPortFrom(p.own[1], 50001), netip.AddrPortFrom(p.peers[1], cmp.Or(p.serverPort, 21)))
	p.server = far
	p.tap(near, ">>")
	return near, nil
}

// Listen implements dataconn.Network.
func (p *stage) Listen(_ context.Context, side dataconn.Side, avoid uint16) (net.Listener, error) {
	return p.network.Listen(netip.AddrPortFrom(p.own[side], 0))
}

// Dial implements dataconn.Network.
func (p *stage) Dial(ctx context.Context, side dataconn.Side, from uint16, to netip.AddrPort) (net.Conn, error) {
	if from == 0 {
		from = 2000
	}
	if side == dataconn.Client {
		time.Sleep(p.far)
	}
	c, err := p.network.Dial(ctx, netip.AddrPortFrom(p.own[side], from), to)
	if err != nil {
		return nil, err
	}
	return c, nil
}

// passing is a Passage whose end is an event.
type passing struct{ p *stage }

func (i *passing) Active() bool { return i.p.data[dataconn.Client] != nil }

func (i *passing) Close() { i.p.Observe(Dropped{Code: 999}) }

// taster is an Inspector that stops at a word it dislikes or, if that is "all", at the end.
type taster struct {
	dislikes string
	eaten    []byte
}

func (i *taster) Write(b []byte) (int, error) {
	i.eaten = append(i.eaten, b...)
	if strings.Contains(string(i.eaten), i.dislikes) {
		return 0, &Refusal{Code: 550, Text: "Not to our taste", Rule: "taster"}
	}
	return len(b), nil
}

func (i *taster) Verdict() error {
	if i.dislikes == "all" {
		return &Refusal{Code: 550, Text: "Not to our taste after all", Rule: "taster"}
	}
	return nil
}
