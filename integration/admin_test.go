//go:build linux

package integration

import (
	"fmt"
	"io"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"ftpalg/proxy/admin"
)

// scrape asks a gateway's metrics, from the firewall itself.
func (l *lab) scrape(t *testing.T, at netip.AddrPort) []string {
	t.Helper()
	c, err := l.Firewall.Dial(t.Context(), at)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	c.SetDeadline(time.Now().Add(hang))
	fmt.Fprintf(c, "GET /metrics HTTP/1.0\r\n\r\n")
	b, err := io.ReadAll(c)
	if err != nil || !strings.HasPrefix(string(b), "HTTP/1.0 200") {
		t.Fatalf("%v: %.200s", err, b)
	}
	var series []string
	for line := range strings.Lines(string(b)) {
		if strings.HasPrefix(line, "ftpalg_") {
			series = append(series, strings.TrimSpace(line))
		}
	}
	return series
}

// TestAdmin: a session is seen with what moves in it, its last commands without their secrets, and its bytes are counted to the
// last; one that is killed is gone, and its file whole to nobody, whoever carries it. Others than root are told nothing.
func TestAdmin(t *testing.T) {
	for _, path := range []string{"kernel", "splice"} {
		t.Run(path, func(t *testing.T) {
			l := newLab(t)
			s := startServer(t, l, nil)
			const size = 64 << 20 // more than all buffers between
			if err := os.WriteFile(filepath.Join(s.Home, "large"), make([]byte, size), 0o644); err != nil {
				t.Fatal(err)
			}
			if err := os.WriteFile(filepath.Join(s.Home, "small"), make([]byte, 12345), 0o644); err != nil {
				t.Fatal(err)
			}
			socket := filepath.Join(l.Dir, "admin.sock")
			metrics := netip.MustParseAddrPort("127.0.0.1:9721")
			g := l.startGateway(fmt.Sprintf("listeners: [{mode: tproxy, data_path: %s}]\nadmin: {socket: %s}\nmetrics: {address: %v}\n", path, socket, metrics))
			g.await("msg=metrics")
			asks := admin.NewClient(socket)
			k := l.logIn(t, s.AddrPort(v4))
			k.ask("TYPE I", "200")
			if reply, got := l.fetch(t, k, s.AddrPort(v4), "RETR small"); reply[:3] != "226" || len(got) != 12345 {
				t.Fatalf("%q, %d bytes", reply, len(got))
			}
			data, _ := l.start(t, k, s.AddrPort(v4), "RETR large")
			var seen admin.Session
			g.until("bytes are seen to move", func() bool {
				ss, err := asks.Sessions(t.Context())
				if err != nil || len(ss) != 1 {
					t.Fatalf("%v, %d sessions", err, len(ss))
				}
				seen = ss[0]
				return seen.Transfer != nil && seen.Transfer.Bytes > 0 && seen.Transfer.Carriage == path
			})
			if seen.State != admin.Moving || seen.User != ftpUser || seen.Server != s.AddrPort(v4).String() || seen.Transfer.Verb != "RETR" ||
				!strings.HasSuffix(seen.Transfer.Path, "large") || seen.Downloaded < 12345 {
				t.Errorf("seen: %+v, %+v", seen, *seen.Transfer)
			}
			one, err := asks.Session(t.Context(), seen.ID)
			if err != nil {
				t.Fatal(err)
			}
			said := fmt.Sprint(one.Commands)
			if !strings.Contains(said, "PASS ***") || !strings.Contains(said, "RETR small") || strings.Contains(said, ftpPassword) {
				t.Errorf("commands: %s", said)
			}
			nobody := l.Firewall.Command(t.Context(), "setpriv", "--reuid=65534", "--regid=65534", "--clear-groups",
				ftpalgProgram(t), "sessions", "--socket", socket)
			if answer, err := nobody.CombinedOutput(); err == nil || !strings.Contains(string(answer), "admin.readers") {
				t.Errorf("nobody is told: %v, %s", err, answer)
			}
			if err := asks.Kill(t.Context(), seen.ID); err != nil {
				t.Fatal(err)
			}
			n, err := io.Copy(io.Discard, data)
			if err == nil || n >= size {
				t.Errorf("the killed file: %d bytes, %v", n, err)
			}
			g.await("session ended", seen.ID, "administrator")
			if ss, err := asks.Sessions(t.Context()); err != nil || len(ss) != 0 {
				t.Errorf("after the kill: %v, %v", ss, err)
			}
			if err := asks.Kill(t.Context(), seen.ID); err == nil {
				t.Error("it could be killed twice")
			}
			all := strings.Join(l.scrape(t, metrics), "\n")
			for _, want := range []string{
				`ftpalg_transfers_total{carriage="` + path + `",direction="download",listener="tproxy",outcome="whole"} 1`,
				`ftpalg_transfers_total{carriage="` + path + `",direction="download",listener="tproxy",outcome="broken"} 1`,
				`ftpalg_sessions_ended_total{listener="tproxy",reason="killed"} 1`,
				`ftpalg_ready 1`,
			} {
				if !strings.Contains(all, want) {
					t.Errorf("not in the metrics: %s", want)
				}
			}
			// Another gateway does not take the socket from this one, unasked.
			said = l.fails("second", l.Firewall.Command, fmt.Sprintf("listeners: [{mode: explicit, address: '127.0.0.1:2199'}]\nadmin: {socket: %s}\n", socket))
			if !strings.Contains(said, fmt.Sprintf("admin.socket: process %d answers at %s", g.pid(), socket)) {
				t.Errorf("a second gateway with the same socket says: %s", said)
			}
			if _, err := asks.Stats(t.Context()); err != nil {
				t.Errorf("after a second gateway came: %v", err)
			}
			g.Stop()
			if _, err := os.Lstat(socket); err == nil {
				t.Error("the socket is left")
			}
			g.checkClean()
		})
	}
}

// TestMetricsLabels: a client that makes up commands, users and files does not make more series of metrics.
func TestMetricsLabels(t *testing.T) {
	l := newLab(t)
	s := startServer(t, l, nil)
	metrics := netip.MustParseAddrPort("127.0.0.1:9721")
	g := l.startGateway(fmt.Sprintf("listeners: [{mode: tproxy}]\nmetrics: {address: %v}\nlimits: {sessions_per_client: 100}\n", metrics))
	g.await("msg=metrics")
	attack := func(round int) int {
		k := l.logIn(t, s.AddrPort(v4))
		for i := range 200 {
			for _, verb := range []string{"XV%d%dQ", "SIZE f%d-%d", "SITE X%d-%d", "CWD d%d-%d"} {
				k.say(verb, round, i)
				k.reply()
			}
		}
		k.ask("QUIT", "221")
		k.Close()
		other := l.Client.call(t, s.AddrPort(v4))
		other.hear("220")
		other.ask(fmt.Sprintf("USER made-up-%d", round), "331")
		other.say("PASS wrong")
		other.reply()
		other.Close()
		ended := fmt.Sprintf("ftpalg_session_duration_seconds_count{listener=\"tproxy\"} %d", 2*round)
		g.until("its sessions are over", func() bool { return strings.Contains(strings.Join(l.scrape(t, metrics), "\n"), ended) })
		return len(l.scrape(t, metrics))
	}
	first := attack(1)
	if second := attack(2); second != first || first < 30 {
		t.Errorf("%d series, and after more of the same %d", first, second)
	}
	g.Stop()
}
