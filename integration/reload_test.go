//go:build linux

package integration

import (
	"fmt"
	"os"
	"strings"
	"syscall"
	"testing"
	"time"
)

// Reloads while clients transfer cost nobody a transfer, nor a connection that comes in just then.
func TestReloadUnderLoad(t *testing.T) {
	const clients, rounds = 20, 100
	l := newLab(t)
	at, home := l.startCrowdServer(t)
	config := "listeners: [{mode: tproxy, data_ports: %d-%d}]\nlimits: {sessions_per_client: 1000}\n"
	g := l.startGateway(fmt.Sprintf(config, 30000, 39999))
	l.awaitServer(at)
	c := l.startBusyCrowd("crowd", at, clients, rounds, home)
	reloads := 0
	for ; c.running() || reloads < 20; reloads++ {
		first := 30000 + 10000*(reloads%2)
		g.configure(fmt.Sprintf(config, first, first+9999))
		g.Signal(syscall.SIGHUP)
		g.until("it has reloaded", func() bool { return strings.Count(g.log(), "configuration reloaded") > reloads })
		l.knock(at)()
		time.Sleep(100 * time.Millisecond) // between two reloads, as a busy admin has it
	}
	c.succeeds()
	t.Logf("%d reloads, %d transfers", reloads, strings.Count(g.log(), "msg=transfer "))
	if n := strings.Count(g.log(), "outcome=whole"); n != clients*rounds {
		t.Errorf("%d transfers are whole, not %d", n, clients*rounds)
	}
	if line := g.logged("level=ERROR"); line != "" {
		t.Error(line)
	}
	g.Stop()
	g.checkClean()
}

// A listener of every address comes in the place of one of a single address with the same port, or of another mode, and goes again. Where
// the rest of the configuration cannot be had, the old one is as it was.
func TestReloadInTheWay(t *testing.T) {
	l := newLab(t)
	server := port(serverAddress, v4, 21)
	at := port(clientGateway, v4, 2121)
	taken := l.Firewall.listen(t, port(clientGateway, v4, 2123))
	one := fmt.Sprintf("listeners: [{name: one, mode: gateway, address: '%v', server: '%v'}]\n", at, server)
	all := fmt.Sprintf("listeners: [{name: all, mode: gateway, address: '[::]:2121', server: '%v'}]\n", server)
	g := l.startGateway(one)
	p := newPuppet(t, l, server)
	speaks := func(name string) {
		t.Helper()
		from := len(g.log())
		p.admit(l.Client.call(t, at), "alice")
		g.until("it is listener "+name, func() bool { return strings.Contains(g.log()[from:], "listener="+name+" ") })
	}
	speaks("one")
	g.reload(all)
	speaks("all")
	g.reload("listeners: [{name: mode, mode: tproxy}]\n")
	g.reload(one)
	speaks("one")
	before := strings.Count(g.log(), "the configuration is not reloaded")
	g.configure(strings.TrimSuffix(all, "]\n") + fmt.Sprintf(", {name: unlucky, mode: gateway, address: '%v', server: '%v'}]\n", taken.Addr(), server))
	g.Signal(syscall.SIGHUP)
	g.until("it refuses", func() bool { return strings.Count(g.log(), "the configuration is not reloaded") > before })
	speaks("one")
	g.Stop()
	g.checkClean()
}

// A configuration that is wrong, or cannot be had, leaves the old one in force and says why.
func TestReloadWrong(t *testing.T) {
	l := newLab(t)
	at := port(serverAddress, v4, 21)
	good := fmt.Sprintf("listeners:\n  - {name: old, mode: gateway, address: '[::]:2121', server: '%v'}\n", at)
	g := l.startGateway(good)
	p := newPuppet(t, l, at)
	taken := l.Firewall.listen(t, port(clientGateway, v4, 2123))
	for _, wrong := range []struct {
		config string
		words  []string
	}{
		{good + "limits:\n  sesions: 5\n", []string{"ftpalg.yaml:4: limits.sesions"}},
		{good + "timeouts:\n  idle: 300\n", []string{"ftpalg.yaml:4: timeouts.idle"}},
		{"listeners: [", []string{"ftpalg.yaml:"}},
		{"", []string{"ftpalg.yaml", "no settings"}},
		{
			good + fmt.Sprintf("  - {name: new, mode: gateway, address: '[::]:2122', server: '%v'}\n", at) +
				fmt.Sprintf("  - {name: unlucky, mode: gateway, address: '%v', server: '%v'}\n", taken.Addr(), at),
			[]string{"listener unlucky", taken.Addr().String(), "ss -ltnp"},
		},
	} {
		before := strings.Count(g.log(), "the configuration is not reloaded")
		g.configure(wrong.config)
		g.Signal(syscall.SIGHUP)
		g.until("it refuses", func() bool { return strings.Count(g.log(), "the configuration is not reloaded") > before })
		g.await(wrong.words...)
		p.admit(l.Client.call(t, port(clientGateway, v4, 2121)), "alice")
		if c, err := l.Client.Dial(t.Context(), port(clientGateway, v4, 2122)); err == nil {
			c.Close()
			t.Error("a listener of a configuration that was refused is open")
		}
	}
	if err := os.Remove(g.config); err != nil {
		t.Fatal(err)
	}
	g.Signal(syscall.SIGHUP)
	g.await("the configuration is not reloaded", "no such file")
	p.admit(l.Client.call(t, port(clientGateway, v4, 2121)), "alice")
	if strings.Contains(g.log(), "msg=\"configuration reloaded\"") {
		t.Error("something was reloaded")
	}
	g.Stop()
	g.checkClean()
}

// Listeners come and go; those that stay are never closed, and sessions keep what they began with.
func TestReloadListeners(t *testing.T) {
	l := newLab(t)
	at := port(serverAddress, v4, 21)
	gatewayAt := func(name string, listen uint16, first int) string {
		return fmt.Sprintf("  - {name: %s, mode: gateway, address: '[::]:%d', server: '%v', data_ports: %d-%d}\n", name, listen, at, first, first+99)
	}
	g := l.startGateway("listeners:\n" + gatewayAt("stays", 2121, 40000) + gatewayAt("goes", 2122, 41000))
	p := newPuppet(t, l, at)
	told := func(k, s *talk) int {
		k.say("EPSV")
		s.expect("EPSV", "229 ok (|||51201|)")
		return int(passivePort(t, k.hear("229"))) / 100 * 100
	}
	open := func(listen uint16) (k, s *talk) {
		k = l.Client.call(t, port(clientGateway, v4, listen))
		return k, p.admit(k, "alice")
	}
	staying, stayingServer := open(2121)
	going, goingServer := open(2122)
	g.reload("listeners:\n" + gatewayAt("comes", 2123, 42000) + gatewayAt("renamed", 2121, 43000))

	for _, session := range []struct {
		what string
		k, s *talk
		want int
	}{{"an old session", staying, stayingServer, 40000}, {"a session of a listener that is gone", going, goingServer, 41000}} {
		if got := told(session.k, session.s); got != session.want {
			t.Errorf("%s has data ports from %d on, not from %d", session.what, got, session.want)
		}
	}
	for listen, want := range map[uint16]int{2121: 43000, 2123: 42000} {
		if got := told(open(listen)); got != want {
			t.Errorf("a new session by port %d has data ports from %d on, not from %d", listen, got, want)
		}
	}
	g.await("session started", "listener=renamed")
	if c, err := l.Client.Dial(t.Context(), port(clientGateway, v4, 2122)); err == nil {
		c.Close()
		t.Error("a listener that is gone still takes connections")
	}
	// What was gone comes back, on the port that is free again.
	g.reload("listeners:\n" + gatewayAt("goes", 2122, 44000))
	if got := told(open(2122)); got != 44000 {
		t.Errorf("data ports from %d on", got)
	}
	if got := told(staying, stayingServer); got != 40000 {
		t.Errorf("after two reloads an old session has data ports from %d on", got)
	}
	g.Stop()
	g.checkClean()
}
