//go:build linux

package integration

import (
	"context"
	"fmt"
	"strings"
	"testing"
	"time"

	"ftpalg/proxy/admin"
)

// withoutRules starts ftpalg as startGateway does, but nobody has applied its rules.
func (l *lab) withoutRules(config string) *gateway {
	l.t.Helper()
	g := l.startGateway(config)
	g.Stop()
	l.Firewall.must(ftpalgProgram(l.t), "rules", "--remove", "--config", g.config)
	g.run(l.Firewall.Command(context.Background(), ftpalgProgram(l.t), "run", "--config", g.config))
	return g
}

// Somebody's script takes rules or routes away, again and again, on a firewall that drops what it would forward. What is missing is put in
// force again, and the log says what was missing. Clients whose data we carry transfer all the while, and notice nothing but a pause;
// those whose data the kernel carries come between, as what begins in the very moment without rules is not seen to have begun.
func TestFirewallMended(t *testing.T) {
	for _, path := range []string{"kernel", "splice"} {
		t.Run(path, func(t *testing.T) {
			const clients, rounds = 8, 60
			l := newLab(t)
			at, home := l.startCrowdServer(t)
			metrics := port(clientGateway, v4, 9721)
			g := l.withoutRules(fmt.Sprintf("listeners: [{mode: tproxy, data_path: %s}]\nfirewall: apply\nmetrics: {address: '%v'}\nlimits: {sessions_per_client: 1000}\n", path, metrics))
			l.awaitServer(at) // which says that the rules are in force
			transfers := clients * rounds
			var c *daemon
			if path == "splice" {
				c = l.startBusyCrowd("crowd", at, clients, rounds, home)
			} else {
				transfers = 0
			}
			breaches := []string{
				"nft delete table inet ftpalg", "nft flush chain inet ftpalg intercept", "ip -4 rule del fwmark 0x0f7a0002", "ip -4 route flush table 3990",
				"nft -f - <<'E'\nflush table inet ftpalg\nE", "ip -6 rule del fwmark 0x0f7a0002", "nft add table inet ftpalg '{ flags dormant; }'",
			}
			for i, breach := range breaches {
				l.Firewall.must("sh", "-c", breach)
				g.until(breach+" is mended", func() bool { return strings.Count(g.log(), "somebody had taken away rules or routes") > i })
				if c == nil {
					few := l.startBusyCrowd(fmt.Sprintf("few-%d", i), at, clients, 2, home)
					few.succeeds()
					transfers += clients * 2
				}
			}
			if c != nil {
				c.succeeds()
			}
			if n := strings.Count(g.log(), "outcome=whole"); n != transfers {
				t.Errorf("%d transfers are whole, not %d", n, transfers)
			}
			if n := strings.Count(g.log(), "carried="+path); n != transfers {
				t.Errorf("%d transfers went by %s, not %d", n, path, transfers)
			}
			for _, want := range []string{"table inet ftpalg", "the IPv4 policy rule", "the IPv4 local route in table 3990", "in chain intercept"} {
				if g.logged("somebody had taken away", want) == "" {
					t.Errorf("nobody is told of %q", want)
				}
			}
			all := strings.Join(l.scrape(t, metrics), "\n")
			for _, want := range []string{"ftpalg_firewall_missing 0", fmt.Sprintf("ftpalg_firewall_mended_total %d", len(breaches))} {
				if !strings.Contains(all, want) {
					t.Errorf("not in the metrics: %s", want)
				}
			}
			if line := g.logged("level=ERROR"); line != "" {
				t.Error(line)
			}
			// Even all of it: the firewall's own rules are somebody else's to mend.
			l.Firewall.must("nft", "flush", "ruleset")
			g.until("nft flush ruleset is mended", func() bool { return strings.Count(g.log(), "somebody had taken away rules or routes") > len(breaches) })
			l.knock(at)()
			g.Stop()
			g.checkClean()
		})
	}
}

// Where rules are the administrator's, it is said when some are missing, once, and when they are there again.
func TestFirewallReported(t *testing.T) {
	l := newLab(t)
	socket := l.Dir + "/admin.sock"
	g := l.startGateway("listeners: [{mode: tproxy}]\nadmin: {socket: " + socket + "}\n")
	asks := admin.NewClient(socket)
	missing := func() float64 {
		stats, err := asks.Stats(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		return stats.Counts["firewall_missing"]
	}
	const gone = "table inet ftpalg is missing; mend it with: ftpalg rules --apply"
	for i := range 2 {
		l.Firewall.must("nft", "flush", "ruleset")
		g.until("it is said", func() bool { return strings.Count(g.log(), gone) > i })
		if n := missing(); n != 1 {
			t.Errorf("%v things are missing, not 1", n)
		}
		// Others' changes are no news.
		for range 3 {
			l.Firewall.must("nft", "add", "table", "inet", "other")
			l.Firewall.must("nft", "delete", "table", "inet", "other")
			time.Sleep(time.Second)
		}
		if n := strings.Count(g.log(), gone); n != i+1 {
			t.Errorf("it is said %d times, not %d", n, i+1)
		}
		l.Firewall.must(ftpalgProgram(t), "rules", "--apply", "--config", g.config)
		g.until("they are there again", func() bool { return strings.Count(g.log(), "all rules and routes are there again") > i })
		if n := missing(); n != 0 {
			t.Errorf("%v things are missing", n)
		}
	}
	// Whoever has rules of his own wants to hear nothing.
	g.reload("listeners: [{mode: tproxy}]\nfirewall: ignore\nadmin: {socket: " + socket + "}\n")
	l.Firewall.must("nft", "flush", "ruleset")
	time.Sleep(2 * time.Second)
	if n := strings.Count(g.log(), gone); n != 2 {
		t.Errorf("with firewall: ignore it is said all the same")
	}
	g.Stop()
	g.checkClean()
}

// A reload puts the new configuration's rules in the old one's place; the last listener's go with it.
func TestFirewallReload(t *testing.T) {
	l := newLab(t)
	g := l.withoutRules("listeners: [{mode: tproxy}]\nfirewall: apply\n")
	table := func() string { return l.Firewall.must("sh", "-c", "nft list table inet ftpalg 2>&1 || true") }
	if got := table(); !strings.Contains(got, "dport 21 ") {
		t.Errorf("at the start: %s", got)
	}
	g.reload("listeners: [{mode: tproxy, intercept: {ports: [2021]}}]\nfirewall: apply\n")
	if got := table(); !strings.Contains(got, "dport 2021 ") || strings.Contains(got, "dport 21 ") {
		t.Errorf("after a reload: %s", got)
	}
	g.reload("listeners: [{mode: tproxy, intercept: {ports: [2022]}}]\nfirewall: apply\nroute_table: 3991\n")
	if got := l.Firewall.must("sh", "-c", "ip rule; ip route show table 3991; ip route show table 3990 2>/dev/null || true"); !strings.Contains(got, "lookup 3991") || strings.Contains(got, "3990") {
		t.Errorf("with another routing table: %s", got)
	}
	g.reload("listeners: [{mode: explicit, address: '127.0.0.1:2122'}]\nfirewall: apply\nroute_table: 3991\n")
	if got := l.Firewall.must("sh", "-c", "ip rule; ip -6 rule; ip route show table 3991 2>/dev/null || true"); strings.Contains(got, "3991") || strings.Contains(got, "local default") {
		t.Errorf("without a listener that has rules there are routes: %s", got)
	}
	if got := table(); !strings.Contains(got, "No such file") {
		t.Errorf("without a listener that has rules: %s", got)
	}
	g.Stop()
	g.checkClean()
	if said := l.fails("unable", l.as(""), "listeners: [{mode: redirect, address: '[::]:2122', data_ports: 30000-30999}]\nfirewall: apply\n"); !strings.Contains(said, "firewall: apply is configured") || !strings.Contains(said, "CAP_NET_ADMIN") {
		t.Errorf("without CAP_NET_ADMIN it says: %s", said)
	}
}
