package control

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"ftpalg/control/wire"
	"ftpalg/dataconn"
	"ftpalg/integration/ftptest"
)

// clientWords and serverWords are what the peers of FuzzSession say, besides bytes of no meaning.
var clientWords = []string{
	"USER alice\r\n", "PASS hunter2\r\n", "PASV\r\n", "EPSV\r\n", "PORT 192,0,2,1,195,90\r\n", "EPRT |1|192.0.2.1|50010|\r\n",
	"RETR a\r\n", "STOR b\r\n", "LIST\r\n", "APPE b\r\n", "ABOR\r\n", "\xff\xf4\xff\xf2ABOR\r\n", "STAT\r\n", "NOOP\r\n", "QUIT\r\n",
	"PWD\r\n", "CWD x\r\n", "REIN\r\n", "FEAT\r\n", "TYPE I\r\n", "REST 100\r\n", "EPSV ALL\r\n", "EPSV 1\r\n", "EPSV 2\r\n", "EPRT |2|2001:db8:1::1|50010|\r\n",
	"PORT 192,0,2,66,195,90\r\n", "XFOO bar\r\n", "AUTH TLS\r\n", "OPTS UTF8 ON\r\n", "HOST h\r\n", "USER bob@one\r\n", "USER bob@denied\r\n",
	"ACCT hunter2\r\n", "SITE PSWD x hunter2\r\n", "NO\rOP\r\n", "NO\x00OP\r\n", "RETR " + strings.Repeat("x", 5000) + "\r\n", "GET / HTTP/1.1\r\n",
	"\x16\x03\x01", "RETR a\xffb\r\n", "DELE a\xff\xffb\r\n", "\xff\xfd\x03", "\xff\xfa\x01x\xff\xf0", "NO", "\r\n", "\n", " ",
	"USER bob\r\n", "USER bob@corp@paul@one\r\n", "USER bob@one paul\r\n", "USER paul:bob@one\r\n", "USER paul@one\r\n", "OPEN one\r\n", "SITE one\r\n",
	"PASS purple\r\n", "PASS hunter2@purple\r\n", "PASS purple:hunter2\r\n", "ACCT purple\r\n", "USER paul\r\nPASS purple\r\n",
	"USER paul\r\nPASS purple\r\nUSER bob@one\r\nPASS hunter2\r\n", "USER paul\r\nPASS purple\r\nOPEN one\r\n", "AUTH paul\r\n", "RESP purple\r\n",
	"RETR a\r\nPWD\r\nABOR\r\n", "PWD\r\nNOOP\r\nPWD\r\n", "STOR c\r\nQUIT\r\n",
}

var serverWords = []string{
	"220 ready\r\n", "331 go on\r\n", "230 in\r\n", "200 ok\r\n", "227 ok (203,0,113,9,200,10)\r\n", "229 ok (|||51210|)\r\n", "150 Opening\r\n",
	"226 Done\r\n", "426 Broken\r\n", "550 No\r\n", "225 No transfer\r\n", "421 Bye\r\n", "500 What?\r\n", "502 No\r\n", "530 Log in\r\n", "250 ok\r\n",
	"125 Going on\r\n", "110 MARK\r\n", "120 Soon\r\n", "350 More\r\n", "211-a\r\n EPSV\r\n211 b\r\n", "221 Goodbye\r\n", "425 Cannot\r\n", "452 Full\r\n",
	"202 Not needed\r\n", "332 Account\r\n", "522 Not that, use (1)\r\n", "227 ok (127,0,0,1,0,80)\r\n", "227 ok\r\n", "200-a\r\n", "226", " x\r\n",
	"hello\r\n", "226 Done\r\n200 ok\r\n", "426 Broken\r\n226 Done\r\n", "150 Opening\r\n226 Done\r\n", "200 a\rb\x00\r\n", "\r\n",
}

// usual is what a server mostly says to a verb; it takes FuzzSession where lone bytes would not.
var usual = map[string]string{
	"USER": "331 go on", "PASS": "230 in", "PASV": "227 ok (203,0,113,9,200,10)", "EPSV": "229 ok (|||51210|)", "PORT": "200 ok", "EPRT": "200 ok",
	"RETR": "150 Opening", "STOR": "150 Opening", "LIST": "150 Opening", "APPE": "150 Opening", "ABOR": "426 Aborted\r\n226 ok", "QUIT": "221 Bye",
	"STAT": "211 fine", "REIN": "220 ready", "REST": "350 go on",
}

// stream is one end of a data connection, as one of the peers has it.
type stream struct {
	side  dataconn.Side
	conn  *ftptest.Conn
	wrote []byte
	ended bool // its peer was told that this is all, and had not been reset before
	lost  bool // its peer was told so by a kernel, whose process was killed
	reset bool
	deaf  bool // it reads nothing for now
	got   []byte
	saw   error // nil, io.EOF, or what broke it
}

// match is a session with its two peers, played by a script of bytes.
type match struct {
	t       *testing.T
	network ftptest.Network
	session Session
	peers   [2]netip.Addr
	own     [2]netip.Addr
	client  *ftptest.Conn
	server  *ftptest.Conn
	calls   [2]*ftptest.Listener // where each peer listens for data connections
	drain   context.CancelFunc
	streams []*stream
	said    []byte // by the client

	mu      sync.Mutex
	toPeer  [2][][]byte // what we wrote on the control connections
	last    string      // the verb the server heard last
	heard   [2]netip.AddrPort
	near    []*ftptest.Conn // our ends of all connections
	open    int             // how many of them are not closed
	events  []Event
	servers int
}

// FuzzSession lets a script of bytes say what both peers do, and when. Whatever they do: nothing panics, nothing leaks, each
// side hears well-formed messages only, nobody is told that a broken transfer is whole, and no secret gets out.
func FuzzSession(f *testing.F) {
	for _, s := range sessionSeeds() {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, script []byte) {
		synctest.Test(t, func(t *testing.T) { playMatch(t, script) })
	})
}

// TestSessionAtRandom plays scripts that nobody chose, so that every run of the tests has some new ones.
func TestSessionAtRandom(t *testing.T) {
	n := 2000
	if testing.Short() {
		n = 200
	}
	for range n {
		seed := rand.Uint64()
		random := rand.New(rand.NewPCG(seed, 0))
		script := make([]byte, 20+random.IntN(120))
		for i := range script {
			script[i] = byte(random.Uint32())
		}
		ok := true
		synctest.Test(t, func(t *testing.T) {
			playMatch(t, script)
			ok = !t.Failed()
		})
		if !ok || t.Failed() {
			t.Fatalf("to play it again, add this to sessionSeeds: []byte(%q)", script)
		}
	}
}

// The operations of a script: one byte each, and one or two more that say which.
const (
	opClientWord = iota
	opServerWord
	opUsual // the server answers what it heard last as servers do
	opTime
	opDial   // a peer connects where it was told
	opAccept // a peer takes the connection that was made to it
	opSend
	opEnd // no more is sent
	opCloseData
	opResetData
	opDeaf // a peer stops or resumes reading its data connection
	opTransfer
	opClientBytes
	opServerBytes
	opStranger
	opClose
	opDrain
	ops
)

// sessionSeeds are scripts that go far.
func sessionSeeds() [][]byte {
	word := func(words []string, w string) byte {
		for i, x := range words {
			if x == w+"\r\n" {
				return byte(i)
			}
		}
		panic(w)
	}
	c := func(w string) []byte { return []byte{opClientWord, word(clientWords, w)} }
	s := func(w string) []byte { return []byte{opServerWord, word(serverWords, w)} }
	join := func(parts ...[]byte) []byte { return bytes.Join(parts, nil) }
	const download, upload = 0, 1
	start := func(kind, direction byte) []byte { return []byte{kind, opTransfer, direction} }
	cl, sv := byte(dataconn.Client), byte(dataconn.Server)
	var seeds [][]byte
	for kind := range byte(32) { // of the session: see playMatch
		seeds = append(seeds,
			join(start(kind, download), []byte{opSend, sv, 9, opEnd, sv}, s("226 Done"), []byte{opEnd, cl}, c("QUIT"), s("221 Goodbye")),
			join(start(kind, upload), []byte{opSend, cl, 9, opEnd, cl, opCloseData, sv}, s("226 Done"), c("PWD"), s("200 ok")))
	}
	for _, login := range [][]byte{
		join(c("USER bob@corp@paul@one"), c("PASS hunter2@purple")), join(c("USER paul:bob@one"), c("PASS purple:hunter2")),
		join(c("USER bob@one paul"), c("PASS hunter2"), c("ACCT purple")), join(c("USER paul@one"), c("PASS purple")),
		join(c("USER bob@one"), c("PASS hunter2"), c("AUTH paul"), c("RESP purple")), c("OPEN one"), c("SITE one"),
		c("USER paul\r\nPASS purple\r\nOPEN one"), c("USER paul\r\nPASS purple\r\nUSER bob@one\r\nPASS hunter2"),
	} {
		for _, kind := range []byte{2, 128 + 2, 128 + 3} {
			seeds = append(seeds, join([]byte{kind}, login, s("220 ready"), []byte{opUsual, opUsual}, c("USER bob"), []byte{opUsual},
				c("PASS hunter2"), []byte{opUsual}, c("PWD"), []byte{opUsual}))
		}
	}
	seeds = append(seeds,
		join(start(1, download), []byte{opSend, sv, 9, opResetData, sv}, s("426 Broken")),
		join(start(1, download), []byte{opSend, sv, 9, opEnd, sv}, []byte{opClose, sv}),
		join(start(1, download), c("ABOR"), s("426 Broken"), s("226 Done"), c("NOOP"), s("200 ok")),
		join(start(1, download), c("ABOR"), []byte{opTime, 3}, s("426 Broken"), s("225 No transfer"), c("PWD"), s("250 ok")),
		join(start(1, download), c("STAT"), []byte{opEnd, sv}, s("226 Done"), []byte{opCloseData, cl, opUsual}),
		join(start(1, download), c("QUIT"), []byte{opEnd, sv}, s("226 Done"), []byte{opCloseData, cl}, s("221 Goodbye")),
		join(start(1, download), c("NO\rOP"), []byte{opSend, sv, 3, opEnd, sv}, s("226 Done"), []byte{opCloseData, cl}),
		join(start(1, upload), []byte{opSend, cl, 200, opResetData, cl}, s("226 Done")),
		join(start(1, upload), []byte{opSend, cl, 200}, []byte{opClose, cl}),
		join(start(1, upload), []byte{opSend, cl, 200, opDrain, opTime, 5, opTime, 5}),
		join(start(1, download), []byte{opDeaf, cl, opSend, sv, 255, opSend, sv, 255, opSend, sv, 255, opTime, 6, opTime, 6}),
	)
	return seeds
}

// playMatch plays a script: one byte for the kind of session, then operations.
func playMatch(t *testing.T, script []byte) {
	m := &match{t: t}
	next := func() byte {
		if len(script) == 0 {
			return 0
		}
		b := script[0]
		script = script[1:]
		return b
	}
	done := m.start(next())
	for range 150 { // longer scripts reach nothing that shorter ones do not
		if len(script) == 0 {
			break
		}
		m.step(next)
		synctest.Wait()
		m.read()
	}
	m.finish(done)
	m.judge()
}

// start begins a session of a kind; see begin. What it returns is closed when the session is over.
func (m *match) start(kind byte) <-chan struct{} {
	m.begin(kind)
	done := make(chan struct{})
	var ctx context.Context
	ctx, m.drain = context.WithCancel(m.t.Context())
	go func() { m.session.Run(ctx); close(done) }()
	synctest.Wait()
	return done
}

// begin prepares the session: bit 0 is faithful, 1 explicit, 2 an IPv6 client, 3 an IPv6 server, 4 and 5 the server data, 6 that
// unknown commands are refused, 7 an explicit one that has accounts.
func (m *match) begin(kind byte) {
	m.peers = [2]netip.Addr{netip.MustParseAddr("192.0.2.1"), netip.MustParseAddr("203.0.113.9")}
	m.own = [2]netip.Addr{netip.MustParseAddr("192.0.2.254"), netip.MustParseAddr("203.0.113.254")}
	if kind&4 != 0 {
		m.peers[0], m.own[0] = netip.MustParseAddr("2001:db8:1::1"), netip.MustParseAddr("2001:db8:1::fe")
	}
	if kind&8 != 0 {
		m.peers[1], m.own[1] = netip.MustParseAddr("2001:db8:2::9"), netip.MustParseAddr("2001:db8:2::fe")
	}
	for side, port := range map[dataconn.Side]uint16{dataconn.Client: 50010, dataconn.Server: 51210} {
		l, err := m.network.Listen(netip.AddrPortFrom(m.peers[side], port))
		if err != nil {
			m.t.Fatal(err)
		}
		m.calls[side] = l
	}
	near, far := ftptest.Pipe(netip.AddrPortFrom(m.own[0], 2121), netip.AddrPortFrom(m.peers[0], 50000))
	m.client = far
	m.watch(near, dataconn.Client)
	m.session = Session{
		Client: near, Connect: m.connect, Network: m, Observer: m,
		Gone: func(c net.Conn) bool { return c.(*ftptest.Conn).Gone() },
		Timeouts: Timeouts{
			Connect: 15 * time.Second, Login: 2 * time.Minute, Idle: 10 * time.Minute, Reply: 2 * time.Minute,
			DataSetup: 30 * time.Second, DataIdle: 2 * time.Minute, Abort: time.Second, Drain: 30 * time.Second,
		},
		Faithful: kind&1 != 0 && kind&2 == 0, Explicit: kind&2 != 0,
		ServerData:    []ServerData{Same, Passive, Active, Same}[kind>>4&3],
		RefuseUnknown: kind&64 != 0,
	}
	if kind&(128|2) == 128|2 {
		m.session.Accounts = accounts{"paul:purple"}
		m.session.Logins = []Logins{0, DefaultLogins | LoginResp}[kind&1]
	}
}

// step performs one operation.
func (m *match) step(next func() byte) {
	side := func() dataconn.Side { return dataconn.Side(next() & 1) }
	switch next() % ops {
	case opClientWord:
		m.say(dataconn.Client, clientWords[int(next())%len(clientWords)])
	case opServerWord:
		m.say(dataconn.Server, serverWords[int(next())%len(serverWords)])
	case opUsual:
		m.answer()
	case opTime:
		time.Sleep([]time.Duration{time.Millisecond, 100 * time.Millisecond, 999 * time.Millisecond, time.Second, 3 * time.Second,
			30 * time.Second, 2 * time.Minute, 10 * time.Minute}[next()%8])
	case opDial:
		m.dial(side())
	case opAccept:
		m.accept(side())
	case opSend:
		if s := m.stream(side()); s != nil {
			n := int(next())
			m.send(s, 1+n*n/8)
		}
	case opEnd:
		if s := m.stream(side()); s != nil {
			s.conn.CloseWrite()
			s.ended = s.ended || !s.reset
		}
	case opCloseData:
		if s := m.stream(side()); s != nil {
			m.closeData(s)
		}
	case opResetData:
		m.breakData(side())
	case opDeaf:
		if s := m.stream(side()); s != nil {
			s.deaf = !s.deaf
		}
	case opTransfer:
		m.transfer(next())
	case opClientBytes:
		m.say(dataconn.Client, string([]byte{next(), next()}))
	case opServerBytes:
		m.say(dataconn.Server, string([]byte{next(), next()}))
	case opStranger:
		s := side()
		if c, err := m.network.Dial(m.t.Context(), netip.MustParseAddrPort("198.51.100.66:666"), m.address(s)); err == nil {
			c.Write([]byte("stranger"))
			synctest.Wait()
			// Before its time it may be waiting to be turned away, but it must not be heard or hear.
			if b, _ := c.Available(); len(b) > 0 {
				m.t.Errorf("a stranger was told %q", b)
			}
			c.Close()
		}
	case opClose:
		if side() == dataconn.Client {
			m.client.Close()
		} else if m.server != nil {
			m.server.Close()
		}
	case opDrain:
		m.drain()
	}
}

// send writes on a data connection. What is said tells who said it, so that what arrives can be traced.
func (m *match) send(s *stream, times int) {
	s.conn.SetWriteDeadline(time.Now().Add(time.Millisecond)) // we may not be taking any
	b := bytes.Repeat(fmt.Appendf(nil, "%v%d ", s.side, len(m.streams)*1000+len(s.wrote)), times)
	n, _ := s.conn.Write(b)
	s.wrote = append(s.wrote, b[:n]...)
}

// closeData closes a data connection as a peer does that is done.
func (m *match) closeData(s *stream) {
	m.take(s) // with bytes unread, it would be a reset
	s.ended = s.ended || !s.reset
	s.conn.Close()
}

// breakData resets a peer's newest data connection.
func (m *match) breakData(side dataconn.Side) {
	if s := m.stream(side); s != nil {
		s.reset = true
		s.conn.SetLinger(0)
		s.conn.Close()
	}
}

// transfer takes the session from wherever it is into a transfer, if it lets itself be taken.
func (m *match) transfer(direction byte) {
	if m.session.Explicit {
		if m.session.Accounts != nil {
			m.say(dataconn.Client, "USER paul\r\nPASS purple\r\n")
		}
		m.say(dataconn.Client, "USER alice@one\r\n")
		m.say(dataconn.Server, "220 ready\r\n")
	} else {
		m.say(dataconn.Server, "220 ready\r\n")
		m.say(dataconn.Client, "USER alice\r\n")
	}
	m.answer()
	m.say(dataconn.Client, "PASS hunter2\r\n")
	m.answer()
	m.say(dataconn.Client, []string{"EPSV\r\n", "PASV\r\n"}[direction>>1&1])
	m.answer()
	m.dial(dataconn.Client)
	m.say(dataconn.Client, []string{"RETR a\r\n", "STOR b\r\n"}[direction&1])
	m.dial(dataconn.Server) // in case it was asked to
	m.accept(dataconn.Server)
	m.answer()
}

func (m *match) say(side dataconn.Side, text string) {
	c := m.client
	if side == dataconn.Server {
		c = m.server
	}
	if c == nil {
		return
	}
	c.SetWriteDeadline(time.Now().Add(time.Millisecond))
	n, _ := c.Write([]byte(text))
	if side == dataconn.Client {
		m.said = append(m.said, text[:n]...)
	}
	synctest.Wait()
}

func (m *match) answer() {
	m.mu.Lock()
	text, ok := usual[m.last]
	m.mu.Unlock()
	if !ok {
		text = "200 ok"
	}
	m.say(dataconn.Server, text+"\r\n")
}

func (m *match) address(side dataconn.Side) netip.AddrPort {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.heard[side]
}

func (m *match) dial(side dataconn.Side) {
	if c, err := m.network.Dial(m.t.Context(), netip.AddrPortFrom(m.peers[side], 20), m.address(side)); err == nil {
		m.streams = append(m.streams, &stream{side: side, conn: c})
	}
	synctest.Wait()
}

func (m *match) accept(side dataconn.Side) {
	if m.calls[side].Pending() == 0 {
		return
	}
	if c, err := m.calls[side].Accept(); err == nil {
		m.streams = append(m.streams, &stream{side: side, conn: c.(*ftptest.Conn)})
	}
	synctest.Wait()
}

// stream is a peer's newest data connection.
func (m *match) stream(side dataconn.Side) *stream {
	for i := len(m.streams) - 1; i >= 0; i-- {
		if m.streams[i].side == side {
			return m.streams[i]
		}
	}
	return nil
}

// read lets the peers take what has come.
func (m *match) read() {
	m.client.Available()
	if m.server != nil {
		m.server.Available()
	}
	for _, s := range m.streams {
		if !s.deaf {
			m.take(s)
		}
	}
	for side := range m.calls {
		for m.calls[side].Pending() > 8 { // the queue is not endless
			m.accept(dataconn.Side(side))
		}
	}
}

func (m *match) take(s *stream) {
	b, err := s.conn.Available()
	s.got = append(s.got, b...)
	if s.saw == nil {
		s.saw = err
	}
}

// finish has both peers leave, and waits for the session to end.
func (m *match) finish(done <-chan struct{}) {
	defer m.drain() // a context's leak, else
	leave := func() {
		m.client.Close()
		if m.server != nil {
			m.server.Close()
		}
		for side := range m.calls {
			for m.calls[side].Pending() > 0 {
				m.accept(dataconn.Side(side))
			}
		}
		for _, s := range m.streams {
			m.take(s)
			s.reset = true
			s.conn.SetLinger(0)
			s.conn.Close()
		}
		synctest.Wait()
	}
	leave()
	leave() // there may be others by now
	// Nothing is left to wait for but the short clocks of a transfer's end, and its set-up where the session reads neither
	// side: a command is held, and the server has had its last word.
	by := time.NewTimer(45 * time.Second)
	defer by.Stop()
	select {
	case <-done:
	case <-by.C:
		m.t.Error("the session goes on for 45 s after both sides have left")
		m.drain()
		<-done
	}
	synctest.Wait()
	for side := range m.calls {
		m.calls[side].Close()
	}
}

// judge looks at what was heard.
func (m *match) judge() {
	t := m.t
	if n := m.network.Open(); n != 0 {
		t.Errorf("%d data listeners are left open", n)
	}
	if m.open != 0 {
		t.Errorf("%d connections are left open", m.open)
	}
	if testing.Verbose() { // a failure is understood by what was said
		for _, e := range m.events {
			t.Logf("%T%+v", e, e)
		}
	}
	m.judgeServer()
	m.judgeClient()
	for _, s := range m.streams {
		m.judgeStream(s)
	}
	for i, e := range m.events {
		if text := fmt.Sprintf("%+v", e); strings.Contains(text, "hunter2") {
			t.Errorf("a secret is in %s", text)
		}
		switch e := e.(type) {
		case Started:
			in := ProxyLogin{Account: "paul", OK: true}
			if m.session.Accounts != nil && !slices.Contains(m.events[:i], Event(in)) {
				t.Errorf("a server was connected to before any account was in: %+v", e)
			}
		case Ended:
			if i != len(m.events)-1 {
				t.Errorf("%d events after the end", len(m.events)-1-i)
			}
			if e.Err != nil && strings.HasPrefix(e.Err.Error(), "panic") {
				t.Errorf("%v", e.Err)
			}
		case Transferred:
			m.judgeTransfer(e)
		}
	}
	if len(m.events) == 0 {
		t.Error("nothing was observed")
	} else if _, ok := m.events[len(m.events)-1].(Ended); !ok {
		t.Errorf("the last event is %+v", m.events[len(m.events)-1])
	}
}

// judgeServer: the server hears whole commands, those of the client, in its order, and our own only where we translate.
func (m *match) judgeServer() {
	var said []wire.Command
	r := wire.NewReader(bytes.NewReader(m.said), wire.Limits{})
	for {
		c, err := r.Command()
		var syntax *wire.SyntaxError
		if err != nil && !errors.As(err, &syntax) {
			break
		}
		if err == nil {
			said = append(said, c)
		}
	}
	for _, b := range m.toPeer[dataconn.Server] {
		if bytes.Equal(b, telnetIP) || bytes.Equal(b, telnetDM) {
			continue
		}
		r := wire.NewReader(bytes.NewReader(b), wire.Limits{})
		c, err := r.Command()
		if err != nil || r.Buffered() > 0 || !bytes.Equal(c.Append(nil), b) || !bytes.HasSuffix(b, []byte("\r\n")) {
			m.t.Errorf("the server heard %q: %v", b, err)
			continue
		}
		switch c.Verb {
		case "PASV", "EPSV", "PORT", "EPRT":
			continue // ours as often as not
		case "NOOP":
			if len(said) == 0 || said[0].Verb != "NOOP" {
				continue // ours, to hear of what is owed
			}
		case "OPTS", "HOST", "CLNT", "CSID", "LANG":
			if m.session.Explicit {
				continue // promised to the client, and told to each server that it names
			}
		}
		for {
			if len(said) == 0 {
				m.t.Errorf("the server heard %q, which the client did not say, or not then", b)
				return
			}
			// What is said to the proxy by USER and PASS besides is not the server's.
			part := m.session.Explicit && (c.Verb == "USER" || c.Verb == "PASS") && strings.Contains(said[0].Arg, c.Arg)
			match := said[0].Verb == c.Verb && (said[0].Arg == c.Arg || part)
			said = said[1:]
			if match {
				break
			}
		}
	}
}

// judgeClient: the client hears whole replies, and no more of them than it has asked for.
func (m *match) judgeClient() {
	final := 0
	for _, b := range m.toPeer[dataconn.Client] {
		if b[0] == 0xFF { // the refusal of a Telnet option
			if len(b)%3 != 0 || len(b) > 24 {
				m.t.Errorf("the client heard %q", b)
			}
			continue
		}
		r := wire.NewReader(bytes.NewReader(b), wire.Limits{})
		reply, err := r.Reply()
		if err != nil || r.Buffered() > 0 || !bytes.Equal(reply.Append(nil), b) {
			m.t.Errorf("the client heard %q: %v", b, err)
		}
		if !reply.Preliminary() && reply.Code != 421 {
			final++
		}
	}
	// The greeting, each line, and what has no line end because it is no FTP.
	if most := 1 + bytes.Count(m.said, []byte("\n")) + 1; final > most {
		m.t.Errorf("the client heard %d final replies to at most %d commands: %q", final, most-2, m.toPeer[dataconn.Client])
	}
}

// judgeStream: what a peer read is the beginning of what the other wrote on one connection, and a clean end means that it is
// all of it.
func (m *match) judgeStream(s *stream) {
	if len(s.got) == 0 && (s.saw != io.EOF || s.ended || s.lost) {
		return // nothing was claimed, or it was the sender's own end
	}
	for _, other := range m.streams {
		if other.side == s.side || !bytes.HasPrefix(other.wrote, s.got) {
			continue
		}
		if s.saw != io.EOF || other.ended && len(other.wrote) == len(s.got) {
			return
		}
	}
	// An upload's end is not kept from its sender, who may not have ended itself: the server's refusal ends it too.
	m.t.Errorf("the %v read %d bytes %.40q and saw %v; nobody wrote that, or not to its end", s.side, len(s.got), s.got, s.saw)
}

// judgeTransfer: a code that says all is well needs a transfer that is whole.
func (m *match) judgeTransfer(e Transferred) {
	if e.Err != nil {
		if e.Code/100 == 2 && !errors.Is(e.Err, errClientLeft) {
			m.t.Errorf("the client was told %d of %+v", e.Code, e)
		}
		return
	}
	from := dataconn.Server
	if e.Upload {
		from = dataconn.Client
	}
	for _, s := range m.streams {
		if s.side == from && s.ended && int64(len(s.wrote)) == e.Bytes {
			return
		}
	}
	m.t.Errorf("no sender ended after %d bytes: %+v", e.Bytes, e)
}

// written is what we have written to a peer until now. A clock may have us write more at any time.
func (m *match) written(side dataconn.Side) [][]byte {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.toPeer[side]
}

// watch records what we write on a control connection.
func (m *match) watch(c *ftptest.Conn, side dataconn.Side) {
	m.count(c)
	c.Wrote = func(b []byte) {
		m.mu.Lock()
		defer m.mu.Unlock()
		m.toPeer[side] = append(m.toPeer[side], bytes.Clone(b))
		verb, arg, _ := strings.Cut(strings.TrimSpace(string(b)), " ")
		verb = strings.ToUpper(verb)
		if side == dataconn.Client {
			if reply, err := wire.NewReader(bytes.NewReader(b), wire.Limits{}).Reply(); err == nil {
				if at, err := reply.Passive(); err == nil {
					m.heard[side] = netip.AddrPortFrom(m.own[side], at.Port())
				}
			}
			return
		}
		m.last = verb
		at, err := wire.ParseHostPort(arg)
		if verb == "EPRT" {
			at, err = wire.ParseExtended(arg)
		}
		if err == nil && at.Addr() == m.own[side] { // before login it is the client's own, for the server to refuse
			m.heard[side] = at
		}
	}
}

// count sees to it that one of our ends is closed in the end.
func (m *match) count(c *ftptest.Conn) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.open++
	c.Shut = func() {
		m.mu.Lock()
		defer m.mu.Unlock()
		m.open--
	}
}

// Verbatim implements Observer.
func (m *match) Verbatim() bool { return true }

// Observe implements Observer.
func (m *match) Observe(e Event) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.events = append(m.events, e)
}

// connect is Session.Connect.
func (m *match) connect(ctx context.Context, name string) (net.Conn, error) {
	if name == "denied" {
		return nil, &Refusal{Code: 530, Text: "Not permitted"}
	}
	near, far := ftptest.Pipe(netip.AddrPortFrom(m.own[1], 50001), netip.AddrPortFrom(m.peers[1], 21))
	m.server = far
	m.watch(near, dataconn.Server)
	return near, nil
}

// Listen implements dataconn.Network.
func (m *match) Listen(_ context.Context, side dataconn.Side, avoid uint16) (net.Listener, error) {
	l, err := m.network.Listen(netip.AddrPortFrom(m.own[side], 0))
	if err != nil {
		return nil, err
	}
	return countedListener{l, m}, nil
}

// countedListener counts what it accepts.
type countedListener struct {
	*ftptest.Listener
	m *match
}

func (l countedListener) Accept() (net.Conn, error) {
	c, err := l.Listener.Accept()
	if err == nil {
		l.m.count(c.(*ftptest.Conn))
	}
	return c, err
}

// Dial implements dataconn.Network.
func (m *match) Dial(ctx context.Context, side dataconn.Side, from uint16, to netip.AddrPort) (net.Conn, error) {
	c, err := m.network.Dial(ctx, netip.AddrPortFrom(m.own[side], from), to)
	if err != nil {
		return nil, err
	}
	m.count(c)
	return c, nil
}
