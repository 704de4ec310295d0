package control

import (
	"fmt"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"ftpalg/dataconn"
)

// plays are conversations in steps, each of which FuzzSession's operations can make.
var plays = map[string][]func(m *match){
	"passive download": {
		server("220 ready"), client("USER alice"), server("331 go on"), client("PASS hunter2"), server("230 in"),
		client("PASV"), server("227 ok (203,0,113,9,200,10)"), dials(dataconn.Client), accepts(dataconn.Server),
		client("RETR a"), server("150 Opening"), sends(dataconn.Server), sends(dataconn.Server), ends(dataconn.Server),
		server("226 Done"), ends(dataconn.Client), client("QUIT"), server("221 Bye"),
	},
	"passive upload": {
		server("220 ready"), client("USER alice"), server("230 in"),
		client("EPSV"), server("229 ok (|||51210|)"), client("STOR b"), server("150 Opening"), dials(dataconn.Client),
		accepts(dataconn.Server), sends(dataconn.Client), sends(dataconn.Client), ends(dataconn.Client), passes(5 * time.Millisecond),
		ends(dataconn.Server), server("226 Done"), client("PWD"), server("257 x"),
	},
	"active download": {
		server("220 ready"), client("USER alice"), server("230 in"), client("PORT 192,0,2,1,195,90"), server("200 ok"),
		client("LIST"), dials(dataconn.Server), accepts(dataconn.Client), server("150 Opening"), sends(dataconn.Server),
		ends(dataconn.Server), server("226 Done"), ends(dataconn.Client),
	},
	"active upload": {
		server("220 ready"), client("USER alice"), server("230 in"), client("EPRT |1|192.0.2.1|50010|"), server("200 ok"),
		client("APPE b"), server("150 Opening"), dials(dataconn.Server), accepts(dataconn.Client), sends(dataconn.Client),
		ends(dataconn.Client), passes(5 * time.Millisecond), ends(dataconn.Server), server("226 Done"),
	},
	"abort": {
		server("220 ready"), client("USER alice"), server("230 in"),
		client("PASV"), server("227 ok (203,0,113,9,200,10)"), dials(dataconn.Client), accepts(dataconn.Server),
		client("RETR a"), server("150 Opening"), sends(dataconn.Server), client("\xff\xf4\xff\xf2ABOR"), server("426 Aborted"),
		server("226 ABOR successful"), client("NOOP"), server("200 ok"),
	},
	"status and pipelining": {
		server("220 ready"), client("USER alice"), server("230 in"),
		client("PASV"), server("227 ok (203,0,113,9,200,10)"), dials(dataconn.Client), accepts(dataconn.Server),
		client("RETR a\r\nSTAT\r\nPWD\r\nCWD x"), server("150 Opening"), server("211 half"), sends(dataconn.Server),
		ends(dataconn.Server), server("226 Done"), ends(dataconn.Client), server("257 x"), server("250 ok"),
	},
	"explicit open": {
		client("USER paul\r\nPASS purple"), client("OPEN one"), server("220 ready"), client("OPEN two"), server("220 ready"),
		client("USER alice"), server("331 go on"), client("PASS hunter2"), server("230 in"),
	},
	"explicit acct, accounts": {
		client("USER alice@one paul"), client("PASS hunter2"), client("ACCT wrong"), client("USER alice@one paul"), client("PASS hunter2"),
		client("ACCT purple"), server("220 ready"), server("331 go on"), server("230 in"),
	},
	"explicit": {
		client("OPTS UTF8 ON"), client("USER alice@one"), server("220 ready"), server("200 ok"), server("530 no"),
		client("USER alice@two"), server("220 ready"), server("230 in"), client("EPSV"), server("229 ok (|||51210|)"),
		dials(dataconn.Client), accepts(dataconn.Server), client("RETR a"), server("150 Opening"), sends(dataconn.Server),
		ends(dataconn.Server), server("226 Done"), ends(dataconn.Client),
	},
}

func client(line string) func(*match) {
	return func(m *match) { m.say(dataconn.Client, line+"\r\n") }
}

func server(line string) func(*match) {
	return func(m *match) { m.say(dataconn.Server, line+"\r\n") }
}

func dials(side dataconn.Side) func(*match)   { return func(m *match) { m.dial(side) } }
func accepts(side dataconn.Side) func(*match) { return func(m *match) { m.accept(side) } }
func passes(d time.Duration) func(*match)     { return func(*match) { time.Sleep(d) } }

func sends(side dataconn.Side) func(*match) {
	return func(m *match) {
		if s := m.stream(side); s != nil {
			m.send(s, 1000)
		}
	}
}

func ends(side dataconn.Side) func(*match) {
	return func(m *match) {
		if s := m.stream(side); s != nil {
			m.closeData(s)
		}
	}
}

// cuts are what can come between two steps. After most of them the play goes on as if nothing had happened.
var cuts = map[string]func(m *match){
	"nothing":                         func(*match) {},
	"client leaves":                   func(m *match) { m.client.Close() },
	"client is killed":                func(m *match) { m.client.Close(); m.killData(dataconn.Client) },
	"client's data connection breaks": func(m *match) { m.breakData(dataconn.Client) },
	"server leaves": func(m *match) {
		if m.server != nil {
			m.server.Close()
		}
	},
	"server is killed": func(m *match) {
		if m.server != nil {
			m.server.Close()
		}
		m.killData(dataconn.Server)
	},
	"server's data connection breaks": func(m *match) { m.breakData(dataconn.Server) },
	"server says 421":                 server("421 Closing"),
	"server says 500":                 server("500 What?"),
	"server says 226":                 server("226 Done"),
	"server says 150":                 server("150 Opening"),
	"server says 227":                 server("227 ok (127,0,0,1,0,80)"),
	"server says no FTP":              server("hello"),
	"server breaks off":               func(m *match) { m.say(dataconn.Server, "200-hal"); m.server.Close() },
	"client says ABOR":                client("ABOR"),
	"client says PWD":                 client("PWD"),
	"client says REIN":                client("REIN"),
	"client says noise":               client("a\rb"),
	"client says another protocol":    func(m *match) { m.say(dataconn.Client, "\x16\x03\x01") },
	"a second":                        passes(time.Second),
	"an hour":                         passes(time.Hour),
	"drain":                           func(m *match) { m.drain() },
	"drain and a minute":              func(m *match) { m.drain(); time.Sleep(time.Minute) },
}

// TestCut does everything to a session after each of its steps, in every order that plays have. What holds for FuzzSession
// must hold here.
func TestCut(t *testing.T) {
	for name, steps := range plays {
		for cut, do := range cuts {
			for at := range steps {
				t.Run(fmt.Sprintf("%s/%s/%d", name, cut, at), func(t *testing.T) {
					synctest.Test(t, func(t *testing.T) {
						m := &match{t: t}
						kind := byte(1)
						switch {
						case strings.HasSuffix(name, "accounts"):
							kind = 128 | 2
						case strings.HasPrefix(name, "explicit"):
							kind = 2
						}
						done := m.start(kind)
						for i, step := range steps {
							step(m)
							synctest.Wait()
							m.read()
							if i == at && (m.server != nil || cut != "server breaks off") {
								do(m)
								synctest.Wait()
								m.read()
							}
						}
						time.Sleep(time.Minute)
						m.finish(done)
						m.judge()
						if cut == "nothing" {
							m.judgeWhole(name)
						}
					})
				})
			}
		}
	}
}

// judgeWhole: a play that nothing interferes with comes to its end.
func (m *match) judgeWhole(name string) {
	for _, e := range m.events {
		e, ok := e.(Transferred)
		if ok && (e.Err == nil) == (name == "abort") {
			m.t.Errorf("%+v", e)
		}
	}
}

// killData closes a data connection as a kernel does whose process was killed: it looks like an end, and is none.
func (m *match) killData(side dataconn.Side) {
	if s := m.stream(side); s != nil {
		m.take(s)
		s.lost = true
		s.conn.Close()
	}
}
