//go:build linux

package integration

import (
	"fmt"
	"io"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"
)

// A transfer that broke must never look whole to either side, whoever broke it and however. In stream mode an end of file
// means "whole" (RFC 959 §3.4.1), so what the other side must see is a reset.

const brokenConfig = `
listeners:
  - {mode: tproxy}
  - {mode: explicit, address: "[::]:2122"}
log: {level: debug}
`

// transfers is a session in the middle of a transfer, with all its four ends in the test's hands.
type transfers struct {
	client, server         *talk
	clientData, serverData net.Conn
}

// begin logs in at a puppet and begins a transfer of which some bytes have gone by.
func begin(t *testing.T, l *lab, p *puppet, verb string) *transfers {
	t.Helper()
	x := &transfers{client: l.Client.call(t, p.at)}
	x.server = p.admit(x.client, "alice")
	data := l.Server.listen(t, netip.AddrPortFrom(p.at.Addr(), 0))
	x.client.say("EPSV")
	x.server.expect("EPSV", fmt.Sprintf("229 ok (|||%d|)", data.Addr().(*net.TCPAddr).Port))
	to := netip.AddrPortFrom(p.at.Addr(), passivePort(t, x.client.hear("229")))
	x.clientData = l.Client.callFrom(t, port(clientAddress, v4, 0), to)
	var err error
	if x.serverData, err = data.Accept(); err != nil {
		t.Fatal(err)
	}
	x.serverData.SetDeadline(time.Now().Add(hang))
	x.client.say("%s file", verb)
	x.server.expect(verb+" file", "150 here")
	x.client.hear("150")
	from, into := x.serverData, x.clientData
	if verb == "STOR" {
		from, into = into, from
	}
	if _, err := from.Write(make([]byte, 100_000)); err != nil {
		t.Fatal(err)
	}
	if _, err := io.ReadFull(into, make([]byte, 100_000)); err != nil {
		t.Fatal(err)
	}
	return x
}

func mustReset(t *testing.T, who string, c net.Conn) {
	t.Helper()
	if n, err := drain(c); !isReset(err) {
		t.Errorf("%s saw %d more bytes and %v instead of a reset", who, n, err)
	}
}

func TestBroken(t *testing.T) {
	l := newLab(t)
	g := l.startGateway(brokenConfig)
	p := newPuppet(t, l, port(serverAddress, v4, 21))

	t.Run("upload/client's data connection", func(t *testing.T) {
		x := begin(t, l, p, "STOR")
		x.clientData.(*net.TCPConn).SetLinger(0)
		x.clientData.Close()
		mustReset(t, "the server", x.serverData)
		x.server.say("226 I take it as whole")
		x.client.hear("426")
	})
	t.Run("upload/client killed", func(t *testing.T) {
		// The kernel closes what a killed process had open, the control connection first, and sends no reset.
		x := begin(t, l, p, "STOR")
		x.client.Close()
		x.clientData.Close()
		mustReset(t, "the server", x.serverData)
		x.server.ended()
	})
	t.Run("upload/server's data connection", func(t *testing.T) {
		x := begin(t, l, p, "STOR")
		x.serverData.Close() // as when its disk is full
		x.server.say("452 disk full")
		if _, err := io.Copy(x.clientData, zeros{}); !isReset(err) {
			t.Errorf("the client's sending ended in %v", err)
		}
		x.client.hear("452")
	})
	t.Run("download/server's data connection", func(t *testing.T) {
		x := begin(t, l, p, "RETR")
		x.serverData.(*net.TCPConn).SetLinger(0)
		x.serverData.Close()
		mustReset(t, "the client", x.clientData)
		x.server.say("226 I take it as whole")
		x.client.hear("426")
	})
	t.Run("download/server killed", func(t *testing.T) {
		x := begin(t, l, p, "RETR")
		x.server.Close()
		x.serverData.Close()
		mustReset(t, "the client", x.clientData)
		x.client.hear("426")
		x.client.ended()
	})
	t.Run("download/client's data connection", func(t *testing.T) {
		x := begin(t, l, p, "RETR")
		x.clientData.Close()
		_, err := io.Copy(x.serverData, zeros{})
		if !isReset(err) {
			t.Errorf("the server's sending ended in %v", err)
		}
		x.server.say("426 broken")
		x.client.hear("426")
	})
	t.Run("download/client gone", func(t *testing.T) {
		x := begin(t, l, p, "RETR")
		x.client.Close()
		mustReset(t, "the server", x.serverData)
		x.server.ended()
	})
	t.Run("another session after all that", func(t *testing.T) {
		x := begin(t, l, p, "RETR")
		x.serverData.Close()
		x.server.say("226 done")
		if n, err := drain(x.clientData); n != 0 || err != nil {
			t.Errorf("%d bytes, %v", n, err)
		}
		x.clientData.Close()
		x.client.hear("226")
	})
	g.Stop()
	g.checkClean()
}

// zeros is an endless source.
type zeros struct{}

func (zeros) Read(b []byte) (int, error) { return len(b), nil }

// ftpalg is killed: the kernel closes its connections, and no end of file may come of that.
func TestBrokenByKill(t *testing.T) {
	for _, verb := range []string{"RETR", "STOR"} {
		t.Run(verb, func(t *testing.T) {
			l := newLab(t)
			g := l.startGateway(brokenConfig)
			p := newPuppet(t, l, port(serverAddress, v4, 21))
			x := begin(t, l, p, verb)
			g.Signal(syscall.SIGKILL)
			<-g.ended
			if verb == "RETR" {
				mustReset(t, "the client", x.clientData)
			} else {
				mustReset(t, "the server", x.serverData)
			}
		})
	}
}

// SIGTERM lets a transfer finish and ends idle sessions; a second one ends all, with resets.
func TestDrain(t *testing.T) {
	l := newLab(t)
	p := newPuppet(t, l, port(serverAddress, v4, 21))
	t.Run("finish", func(t *testing.T) {
		g := l.startGateway(brokenConfig)
		x := begin(t, l, p, "RETR")
		idle := l.Client.call(t, p.at)
		p.admit(idle, "bob")
		g.Signal(syscall.SIGTERM)
		idle.hear("421")
		io.WriteString(x.serverData, "the rest")
		x.serverData.Close()
		x.server.say("226 done")
		if n, err := drain(x.clientData); n != int64(len("the rest")) || err != nil {
			t.Errorf("%d bytes, %v", n, err)
		}
		x.clientData.Close()
		x.client.hear("226")
		x.client.hear("421")
		<-g.ended
		if g.err != nil {
			t.Errorf("it ended with %v", g.err)
		}
		g.checkClean()
	})
	t.Run("cut", func(t *testing.T) {
		g := l.startGatewayAs(brokenConfig, l.Firewall.Command)
		x := begin(t, l, p, "STOR")
		waiting := l.Client.call(t, p.at) // for the server's answer, which does not come
		silent := p.admit(waiting, "bob")
		waiting.say("SITE SLEEP")
		silent.expect("SITE SLEEP", "")
		g.Signal(syscall.SIGTERM)
		g.await("draining")
		g.Signal(syscall.SIGTERM)
		mustReset(t, "the server", x.serverData)
		<-g.ended
		if g.err != nil {
			t.Errorf("it ended with %v", g.err)
		}
	})
}

// Real clients that are killed in the middle of a transfer, and real servers.
func TestBrokenClients(t *testing.T) {
	need(t, "curl")
	l := newLab(t)
	servers := startServers(t, l)
	g := l.startGateway(brokenConfig)
	payload := l.payload()
	for _, s := range servers {
		t.Run(s.Name, func(t *testing.T) {
			if s.missing != "" {
				lack(t, s.missing)
			}
			url := fmt.Sprintf("ftp://%s:%s@%s/", ftpUser, ftpPassword, s.Addr[v4])
			curl := l.Client.Command(t.Context(), "curl", "-sS", "--limit-rate", "200k", "-T", filepath.Join(payload.dir, "huge.bin"), url+"half.bin")
			d := l.Client.Start("curl-"+s.Name, curl)
			g.until("something has arrived", func() bool {
				info, err := os.Stat(filepath.Join(s.Home, "half.bin"))
				return err == nil && info.Size() > 0
			})
			before := strings.Count(g.log(), "in mid-upload") + strings.Count(g.log(), "reason=\"client left\"")
			d.Signal(syscall.SIGKILL)
			<-d.ended
			g.until("the session has ended", func() bool {
				return strings.Count(g.log(), "in mid-upload")+strings.Count(g.log(), "reason=\"client left\"") > before
			})
			// The next session is none the worse.
			l.Client.must("curl", "-sS", "-Q", "-DELE half.bin", "-o", filepath.Join(l.Dir, "listing"), url)
		})
	}
	if g.logged("half.bin", "outcome=whole") != "" {
		t.Error("an upload whose client was killed was taken for whole")
	}
	g.Stop()
	g.checkClean()
}
