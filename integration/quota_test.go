//go:build linux

package integration

import (
	"fmt"
	"net"
	"os"
	"path/filepath"
	"testing"
)

// TestQuotaSessions: a client that takes more sessions at once than it may have is refused at its login, and a session that is
// gone without a word gives its place back.
func TestQuotaSessions(t *testing.T) {
	l := newLab(t)
	s := startServer(t, l, nil)
	g := l.startGateway("listeners: [{mode: tproxy}]\npolicy: {quotas: [{name: two, per: client, sessions: 2}]}\n")
	at := s.AddrPort(v4)
	l.logIn(t, at)
	second := l.logIn(t, at)
	refused := func() bool {
		k := l.Client.call(t, at)
		defer k.Close()
		k.hear("220")
		k.say("USER %s", ftpUser)
		reply := k.reply()
		if reply[:3] == "331" {
			k.say("PASS %s", ftpPassword)
			reply = k.reply()
		}
		if code := reply[:3]; code != "421" && code != "230" {
			t.Fatalf("%q", reply)
		}
		return reply[:3] == "421"
	}
	if !refused() {
		t.Error("a third session was let in")
	}
	second.Conn.(*net.TCPConn).SetLinger(0)
	second.Close()
	g.until("there is room again", func() bool { return !refused() })
	g.Stop()
	g.checkClean()
}

// TestQuotaRestart: who has had what it may have does not get it again by a restart or a reload.
func TestQuotaRestart(t *testing.T) {
	l := newLab(t)
	s := startServer(t, l, nil)
	if err := os.WriteFile(filepath.Join(s.Home, "file"), []byte("hello"), 0o644); err != nil {
		t.Fatal(err)
	}
	config := fmt.Sprintf(`
listeners: [{mode: tproxy}]
policy:
  quotas: [{name: few, per: user, files: 2, direction: download}]
  state: %s
`, filepath.Join(l.Dir, "quotas"))
	g := l.startGateway(config)
	at := s.AddrPort(v4)
	fetch := func(code string) {
		t.Helper()
		k := l.logIn(t, at)
		defer k.Close()
		if reply, _ := l.fetch(t, k, at, "RETR file"); reply[:3] != code {
			t.Errorf("%q, not %s", reply, code)
		}
	}
	fetch("226")
	g.Stop()
	g = l.startGateway(config)
	fetch("226")
	fetch("450")
	g.reload(config)
	fetch("450")
	g.Stop()
	g = l.startGateway(config)
	fetch("450")
	g.Stop()
	g.checkClean()
}
