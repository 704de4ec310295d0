//go:build linux

package integration

import (
	"bytes"
	"context"
	"fmt"
	"net/netip"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"ftpalg/proxy/admin"
)

// count is the value of a metric with some labels, in a scrape; those that have these labels and others are added up.
func count(series []string, name string, labels ...string) (sum float64) {
	for _, s := range series {
		all := strings.HasPrefix(s, name+"{") || strings.HasPrefix(s, name+" ")
		for _, l := range labels {
			all = all && strings.Contains(s, l)
		}
		if n, err := strconv.ParseFloat(s[strings.LastIndex(s, " ")+1:], 64); all && err == nil {
			sum += n
		}
	}
	return sum
}

// TestReloadStorm: an administrator, or his script that has gone wrong, has the configuration read once a second for a minute, each fifth
// time a wrong one, while clients come by the kernel, by splice(2) and over TLS: no file is lost, a session that was there before stays,
// every reload is counted, and nothing is left of them.
func TestReloadStorm(t *testing.T) {
	need(t, "curl")
	const reloads = 60
	l := newLab(t)
	own := l.newAuthority("gateway")
	s := startServer(t, l, nil)
	content := crowdContent(7, 300<<10)
	s.give(t, "file", content)
	at, metrics, socket := s.AddrPort(v4), netip.MustParseAddrPort("127.0.0.1:9721"), filepath.Join(l.Dir, "admin.sock")
	config := func(first int) string {
		return fmt.Sprintf(`listeners:
  - {name: kernel, mode: tproxy, data_path: kernel, data_ports: %d-%d}
  - {name: splice, mode: gateway, address: '[::]:2131', server: '%v', data_path: splice}
  - {name: tls, mode: gateway, address: '[::]:2132', server: '%[3]v', tls: client-only}
limits: {sessions_per_client: 1000}
tls: {authority_cert: %s, authority_key: %s}
admin: {socket: %s}
metrics: {address: %v}
`, first, first+9999, at, own.CertFile, own.KeyFile, socket, metrics)
	}
	g := l.startGateway(config(30000))
	g.await("msg=metrics")
	files := g.atRest()
	asks := admin.NewClient(socket)
	steady := l.logIn(t, at)
	steady.ask("TYPE I", "200")

	var clients sync.WaitGroup
	var over atomic.Bool
	var done atomic.Int64
	for _, by := range []string{fmt.Sprint(at), fmt.Sprintf("%v:2131", clientGateway[v4].Addr()), fmt.Sprintf("%v:2132", clientGateway[v4].Addr())} {
		for range 2 {
			clients.Go(func() {
				args := []string{"-sS", "--max-time", "60", fmt.Sprintf("ftp://%s:%s@%s/file", ftpUser, ftpPassword, by)}
				if strings.HasSuffix(by, ":2132") {
					args = append(args, "-k", "--ssl-reqd")
				}
				for !over.Load() {
					var wrong bytes.Buffer
					c := l.Client.Command(context.Background(), "curl", args...)
					c.Stderr = &wrong
					if got, err := c.Output(); err != nil || !bytes.Equal(got, content) {
						t.Errorf("curl %s: %v, %d bytes: %s", by, err, len(got), &wrong)
						return
					}
					done.Add(1)
				}
			})
		}
	}
	refused := 0
	every := time.NewTicker(time.Second)
	defer every.Stop()
	for i := range reloads {
		<-every.C
		if i%5 == 4 {
			g.configure(config(30000) + "nonsense: true\n")
			if err := asks.Reload(t.Context()); err == nil || !strings.Contains(err.Error(), "nonsense") {
				t.Errorf("a wrong configuration: %v", err)
			}
			refused++
		} else {
			g.configure(config(30000 + 10000*(i%2)))
			if err := asks.Reload(t.Context()); err != nil {
				t.Error(err)
			}
		}
		if i%10 == 0 {
			if reply, got := l.fetch(t, steady, at, "RETR file"); reply[:3] != "226" || got != string(content) {
				t.Errorf("who has been there from the start: %s, %d bytes", reply, len(got))
			}
			done.Add(1)
		}
	}
	over.Store(true)
	clients.Wait()
	steady.ask("QUIT", "221")
	g.until("all sessions are over", func() bool {
		ss, err := asks.Sessions(t.Context())
		return err == nil && len(ss) == 0
	})
	all := l.scrape(t, metrics)
	for _, c := range []struct {
		name, label string
		want        int64
	}{
		{"ftpalg_config_reloads_total", `outcome="success"`, reloads - int64(refused)},
		{"ftpalg_config_reloads_total", `outcome="failure"`, int64(refused)},
		{"ftpalg_transfers_total", `outcome="whole"`, done.Load()},
		{"ftpalg_transfers_total", `outcome="broken"`, 0},
		{"ftpalg_transfer_bytes_total", `direction="download"`, done.Load() * int64(len(content))},
	} {
		if got := count(all, c.name, c.label); int64(got) != c.want {
			t.Errorf("%s{%s} is %v, not %d", c.name, c.label, got, c.want)
		}
	}
	for _, carriage := range []string{"kernel", "splice", "tls"} {
		n := count(all, "ftpalg_transfers_total", `carriage="`+carriage+`"`)
		if n == 0 {
			t.Errorf("nothing was carried by %s", carriage)
		}
		t.Logf("%v files by %s", n, carriage)
	}
	t.Logf("%d reloads, %d of them refused; %d files, none lost", reloads, refused, done.Load())
	// One more than before: the client of the admin socket keeps its connection.
	g.settled(files+1, l.knock(at))
	g.goroutines(t)
	g.Stop()
	g.checkClean()
}

// TestScrapeUnderLoad: metrics and the list of sessions are read in a loop while five hundred clients
// transfer. No count ever falls, every session is seen once in a list, and in the end the counts are what the clients have moved to the byte.
func TestScrapeUnderLoad(t *testing.T) {
	const clients, rounds = 500, 6
	l := newLab(t)
	at, home := l.startCrowdServer(t)
	metrics, socket := netip.MustParseAddrPort("127.0.0.1:9721"), filepath.Join(l.Dir, "admin.sock")
	g := l.startGateway(fmt.Sprintf("listeners: [{mode: tproxy}]\nlimits: {sessions: %d, sessions_per_client: %[1]d}\nadmin: {socket: %s}\nmetrics: {address: %v}\n",
		2*clients, socket, metrics))
	g.await("msg=metrics")
	l.awaitServer(at)
	was := l.scrape(t, metrics)
	c := l.startBusyCrowd("crowd", at, clients, rounds, home)
	asks := admin.NewClient(socket)
	last, scrapes, most := map[string]float64{}, 0, 0
	for ; c.running(); scrapes++ {
		for _, s := range l.scrape(t, metrics) {
			name, value, _ := strings.Cut(s, " ")
			family, _, _ := strings.Cut(name, "{")
			if !strings.HasSuffix(family, "_total") && !strings.HasSuffix(family, "_count") && !strings.HasSuffix(family, "_bucket") {
				continue
			}
			n, err := strconv.ParseFloat(value, 64)
			if err != nil || n < last[name] {
				t.Fatalf("%s, after %v: %v", s, last[name], err)
			}
			last[name] = n
		}
		ss, err := asks.Sessions(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		seen := map[string]bool{}
		for _, s := range ss {
			if seen[s.ID] || s.ID == "" {
				t.Fatalf("session %q is there twice", s.ID)
			}
			seen[s.ID] = true
		}
		most = max(most, len(ss))
	}
	c.succeeds()
	var down, up, files float64
	for id := range clients {
		for round := range rounds {
			if files++; (id+round)%2 == 0 {
				down += 300 << 10
			} else {
				up += float64(200<<10 + id)
			}
		}
	}
	ended := func() float64 { return count(l.scrape(t, metrics), "ftpalg_sessions_ended_total", `reason="goodbye"`) }
	g.until("all sessions are over", func() bool { return ended() >= clients+count(was, "ftpalg_sessions_ended_total", `reason="goodbye"`) })
	all := l.scrape(t, metrics)
	for _, c := range []struct {
		name, label string
		want        float64
	}{
		{"ftpalg_transfer_bytes_total", `direction="download"`, down}, {"ftpalg_transfer_bytes_total", `direction="upload"`, up},
		{"ftpalg_transfers_total", `outcome="whole"`, files}, {"ftpalg_transfers_total", `outcome="broken"`, 0},
		{"ftpalg_transfer_duration_seconds_count", "", files}, {"ftpalg_logins_total", `outcome="success"`, clients},
		{"ftpalg_sessions", "", 0}, {"ftpalg_data_listeners", "", 0},
	} {
		if got := count(all, c.name, c.label); got != c.want {
			t.Errorf("%s{%s} is %v, not %v", c.name, c.label, got, c.want)
		}
	}
	t.Logf("%d scrapes of metrics and as many lists, of %d sessions at most; %v files", scrapes, most, files)
	if most < clients || scrapes < 10 {
		t.Errorf("%d sessions were seen at most, in %d looks", most, scrapes)
	}
	g.Stop()
	g.checkClean()
}
