//go:build linux

package integration

import (
	"context"
	"fmt"
	"io"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"syscall"
	"testing"

	"ftpalg/proxy/audit"
)

// begin begins a transfer and leaves it open: the server has said 150.
func (l *lab) begin(t *testing.T, k *talk, at netip.AddrPort, command string) net.Conn {
	t.Helper()
	k.say("EPSV")
	data, err := l.Client.Dial(t.Context(), netip.AddrPortFrom(at.Addr(), passivePort(t, k.hear("229"))))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { data.Close() })
	k.ask(command, "150")
	return data
}

// TestAuditKilled: somebody who can have ftpalg killed does not hide what was on its way by that. Each transfer that moved bytes
// has a beginning in the audit and no end, and the next process says that it is another.
func TestAuditKilled(t *testing.T) {
	l := newLab(t)
	s := startServer(t, l, nil)
	if err := os.WriteFile(filepath.Join(s.Home, "big"), make([]byte, 64<<20), 0o644); err != nil {
		t.Fatal(err)
	}
	record := filepath.Join(l.Dir, "audit.jsonl")
	g := l.startGateway(fmt.Sprintf("listeners: [{mode: tproxy}]\naudit: {file: %s}\n", record))
	at := s.AddrPort(v4)
	begun := map[string]int{}
	for i := range 3 {
		data := l.begin(t, l.logIn(t, at), at, "RETR big")
		if _, err := io.ReadFull(data, make([]byte, 1000)); err != nil {
			t.Fatal(err)
		}
		begun["RETR"]++
		up := l.begin(t, l.logIn(t, at), at, fmt.Sprintf("STOR up%d", i))
		if _, err := up.Write(make([]byte, 1000)); err != nil {
			t.Fatal(err)
		}
		begun["STOR"]++
	}
	g.Signal(syscall.SIGKILL)
	<-g.ended
	first := len(readAudit(t, record))
	again := l.Firewall.Start("again", l.Firewall.Command(context.Background(), ftpalgProgram(t), "run", "--config", g.config))
	(&gateway{daemon: again, lab: l}).await("msg=listening")
	again.Stop()
	events := readAudit(t, record)
	if len(events) <= first {
		t.Fatal("the second process wrote nothing")
	}
	if e := events[first]; e.Event != audit.Opened || e.PID == events[0].PID {
		t.Errorf("the second process begins with %+v", e)
	}
	for _, e := range events[:first] {
		switch e.Event {
		case audit.TransferStart:
			begun[e.Verb]--
		case audit.Transfer:
			t.Errorf("a transfer that was not over has an end: %+v", e)
		}
	}
	if begun["RETR"] != 0 || begun["STOR"] != 0 {
		t.Errorf("transfers without a beginning: %v", begun)
	}
}
