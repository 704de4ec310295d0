//go:build linux

package integration

import (
	"fmt"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"ftpalg/proxy/audit"
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
		l.fetchAnew(t, at, code)
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
	// Another gateway that would count in the same file does not start: two would each know half.
	second := strings.Replace(config, "mode: tproxy", "mode: explicit, address: '127.0.0.1:2199'", 1)
	if said := l.fails("second", l.Firewall.Command, second); !strings.Contains(said, "policy.state: "+filepath.Join(l.Dir, "quotas")+": another process has this file open") {
		t.Errorf("a second gateway with the same counts says: %s", said)
	}
	fetch("450")
	g.Stop()
	g.checkClean()
}

// TestQuotaBytes: a transfer that has used its quota up is broken off, and looks whole to nobody; the next is refused. Other
// directions and users are not concerned.
func TestQuotaBytes(t *testing.T) {
	l := newLab(t)
	s := startServer(t, l, nil)
	const limit = 1 << 20
	s.give(t, "file", make([]byte, limit/2+1))
	record := filepath.Join(l.Dir, "audit.jsonl")
	g := l.startGateway(fmt.Sprintf("listeners: [{mode: tproxy}]\npolicy: {quotas: [{name: down, per: user, bytes: 1MiB, direction: download}]}\naudit: {file: %s}\n", record))
	at := s.AddrPort(v4)
	k := l.logIn(t, at)
	k.ask("TYPE I", "200")
	if reply, got := l.fetch(t, k, at, "RETR file"); reply[:3] != "226" || len(got) != limit/2+1 {
		t.Errorf("%s, %d bytes", reply, len(got))
	}
	if reply, got := l.fetch(t, k, at, "RETR file"); reply != "452 Quota down: no more bytes for now" || len(got) >= limit/2+1 {
		t.Errorf("over it: %s, %d bytes", reply, len(got))
	}
	other := l.logIn(t, at) // the same user has no more by another session
	if reply, got := l.fetch(t, other, at, "RETR file"); reply != "452 Quota down: no more bytes for now" || got != "" {
		t.Errorf("after it: %s, %d bytes", reply, len(got))
	}
	if reply := l.send(t, k, at, "STOR up", make([]byte, 2*limit), true); reply[:3] != "226" {
		t.Errorf("an upload: %s", reply)
	}
	g.Stop()
	g.checkClean()
	var outcomes []string
	for _, e := range of(readAudit(t, record), audit.Transfer) {
		outcomes = append(outcomes, e.Outcome)
	}
	if want := []string{audit.Whole, audit.Broken, audit.Whole}; !slices.Equal(outcomes, want) {
		t.Errorf("recorded are %v, not %v", outcomes, want)
	}
}

// TestQuotaTransfers: transfers at once are counted, also those that are broken off; and a reload's quotas hold for sessions that run.
func TestQuotaTransfers(t *testing.T) {
	l := newLab(t)
	s := startServer(t, l, nil)
	s.give(t, "file", make([]byte, 64<<20))
	const head = "listeners: [{mode: tproxy}]\npolicy: {quotas: ["
	g := l.startGateway(head + "{name: one, per: client, transfers: 1}]}\n")
	at := s.AddrPort(v4)
	first, second := l.logIn(t, at), l.logIn(t, at)
	data := l.begin(t, first, at, "RETR file")
	if reply, _ := l.fetch(t, second, at, "NLST"); reply != "450 Quota one: no more transfers for now" {
		t.Errorf("a second transfer: %s", reply)
	}
	data.(*net.TCPConn).SetLinger(0)
	data.Close()
	first.hear("4")
	if reply, _ := l.fetch(t, second, at, "NLST"); reply[:3] != "226" {
		t.Errorf("when there is room again: %s", reply)
	}
	// There is room for one of the sessions that run.
	g.reload(head + "{name: alone, per: client, sessions: 1}]}\n")
	first.ask("PWD", "257")
	second.ask("PWD", "257")
	if reply, _ := l.fetch(t, first, at, "NLST"); reply[:3] != "226" {
		t.Errorf("the first session: %s", reply)
	}
	if reply, _ := l.fetch(t, second, at, "NLST"); reply != "450 Quota alone: no more sessions for now" {
		t.Errorf("the second session: %s", reply)
	}
	g.Stop()
	g.checkClean()
}
