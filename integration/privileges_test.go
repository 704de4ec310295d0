//go:build linux

package integration

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os/exec"
	"strings"
	"testing"
)

// as returns how to start a program as nobody, with some capabilities only: "+net_admin,+net_bind_service", or "".
func (l *lab) as(caps string) func(context.Context, string, ...string) *exec.Cmd {
	set := "-all"
	if caps != "" {
		set += "," + caps
	}
	return func(ctx context.Context, program string, args ...string) *exec.Cmd {
		return l.Firewall.Command(ctx, "setpriv", append([]string{
			"--reuid=65534", "--regid=65534", "--clear-groups", "--inh-caps=" + set, "--ambient-caps=" + set, "--bounding-set=" + set,
			"--no-new-privs", program,
		}, args...)...)
	}
}

// modest has few sessions, so that no limit on open files is too low for it.
const modest = "limits: {sessions: 100}\n"

// Two capabilities are all that a transparent gateway needs, once root has applied the rules.
func TestPrivileges(t *testing.T) {
	need(t, "setpriv")
	l := newLab(t)
	l.DropForward()
	g := l.startGatewayAs("listeners: [{mode: tproxy}]\n"+modest, l.as("+net_admin,+net_bind_service"))
	status := string(readAll(fmt.Sprintf("/proc/%d/status", g.pid())))
	for _, want := range []string{"Uid:\t65534\t65534\t65534\t65534\n", "CapEff:\t0000000000001400\n", "CapBnd:\t0000000000001400\n"} {
		if !strings.Contains(status, want) {
			t.Fatalf("the process has not %q:\n%s", want, status)
		}
	}
	for _, f := range families {
		p := newPuppet(t, l, port(serverAddress, f, 21))
		k := l.Client.call(t, p.at)
		l.everyWay(t, f, k, p.admit(k, "alice"), p)
	}
	if line := g.logged("level=WARN"); line != "" {
		t.Error(line)
	}
	g.Stop()
	g.checkClean()
}

// fails starts a gateway that cannot run, and returns what it says.
func (l *lab) fails(name string, command func(context.Context, string, ...string) *exec.Cmd, config string) string {
	l.t.Helper()
	g := &gateway{config: l.Dir + "/" + name + ".yaml", lab: l}
	g.configure(config)
	said, err := command(l.t.Context(), ftpalgProgram(l.t), "run", "--config", g.config).CombinedOutput()
	var exit *exec.ExitError
	if !errors.As(err, &exit) || exit.ExitCode() != 1 {
		l.t.Errorf("%s: it ended with %v: %s", name, err, said)
	}
	return string(said)
}

func TestNoPrivileges(t *testing.T) {
	need(t, "setpriv")
	l := newLab(t)
	l.DropForward()
	if said := l.fails("tproxy", l.as(""), "listeners: [{mode: tproxy}]\n"); !strings.Contains(said, "listener tproxy") || !strings.Contains(said, "CAP_NET_ADMIN") {
		t.Errorf("without capabilities it says of tproxy: %s", said)
	}
	if said := l.fails("low", l.as(""), "listeners: [{mode: explicit, address: '[::]:21'}]\n"); !strings.Contains(said, "CAP_NET_BIND_SERVICE") {
		t.Errorf("without capabilities it says of port 21: %s", said)
	}

	g := l.startGatewayAs("listeners: [{mode: explicit, address: '[::]:2121'}]\ndestinations: [{allow: '*'}]\n"+modest, l.as(""))
	if status := string(readAll(fmt.Sprintf("/proc/%d/status", g.pid()))); !strings.Contains(status, "CapEff:\t0000000000000000\n") {
		t.Fatalf("it has capabilities:\n%s", status)
	}
	for _, f := range families {
		p := newPuppet(t, l, port(serverAddress, f, 21))
		k := l.Client.call(t, port(clientGateway, f, 2121))
		host := p.at.Addr().String()
		if f == v6 {
			host = "[" + host + "]"
		}
		s := p.admitAs(k, true, "alice@"+host)
		data := l.Server.listen(t, netip.AddrPortFrom(p.at.Addr(), 0))
		k.say("EPSV")
		s.expect("EPSV", fmt.Sprintf("229 ok (|||%d|)", data.Addr().(*net.TCPAddr).Port))
		c := l.Client.callFrom(t, port(clientAddress, f, 0), netip.AddrPortFrom(clientGateway[f].Addr(), passivePort(t, k.hear("229"))))
		moveFile(t, k, s, func() net.Conn { return c }, accepted(t, data))
		mine := l.Client.listen(t, port(clientAddress, f, 0))
		k.say("EPRT |%d|%s|%d|", f+1, clientAddress[f].Addr(), mine.Addr().(*net.TCPAddr).Port)
		told := extendedPort(t, s.line())
		s.say("200 ok")
		k.hear("200")
		moveFile(t, k, s, accepted(t, mine), func() net.Conn { return l.Server.callFrom(t, port(serverAddress, f, 20), told) })
	}
	g.Stop()
	g.checkClean()
}

// At the start the log says what the kernel lacks, and the command that mends it; which does.
func TestProbe(t *testing.T) {
	l := newLab(t)
	config := "listeners: [{mode: tproxy}]\n" + modest
	g := l.startGatewayAs(config, l.Firewall.Command)
	if line := g.logged("level=WARN"); line != "" {
		t.Errorf("with everything there it warns: %s", line)
	}
	g.Stop()
	starts := 0
	start := func() string {
		starts++
		d := l.Firewall.Start(fmt.Sprintf("ftpalg-%d", starts), l.Firewall.Command(context.Background(), ftpalgProgram(t), "run", "--config", g.config))
		d.says("msg=listening")
		if err := d.Stop(); err != nil { // after the probe: signals are heard then
			t.Error(err)
		}
		return string(readAll(d.Log))
	}
	for _, breach := range []struct{ what, command string }{
		{"the IPv4 policy rule", "ip -4 rule del fwmark 0x0f7a0002"},
		{"the IPv6 policy rule", "ip -6 rule del fwmark 0x0f7a0002"},
		{"the IPv4 local route in table 3990", "ip -4 route flush table 3990"},
		{"the IPv6 local route in table 3990", "ip -6 route flush table 3990"},
		{"table inet ftpalg", "nft delete table inet ftpalg"},
		{"rule ", "nft flush chain inet ftpalg intercept"},
		{"src_valid_mark=0", "echo 1 > /proc/sys/net/ipv4/conf/all/src_valid_mark"},
	} {
		l.Firewall.must("sh", "-c", breach.command)
		var mends []string
		for line := range strings.Lines(start()) {
			if !strings.Contains(line, "level=WARN") {
				continue
			}
			if !strings.Contains(line, breach.what) {
				t.Errorf("after %q it says also: %s", breach.command, line)
			}
			if _, mend, ok := strings.Cut(strings.TrimRight(line, "\"\n"), "mend it with: "); ok {
				mends = append(mends, mend)
			}
		}
		if len(mends) == 0 {
			t.Errorf("after %q it offers nothing to mend it with", breach.command)
		}
		for _, mend := range mends {
			if rest, ok := strings.CutPrefix(mend, "ftpalg "); ok {
				mend = ftpalgProgram(t) + " " + rest + " --config " + g.config
			}
			l.Firewall.must("sh", "-c", mend)
		}
		if said := start(); strings.Contains(said, "level=WARN") {
			t.Errorf("after %q and %q it still says:\n%s", breach.command, mends, said)
		}
	}
}

func TestPortInUse(t *testing.T) {
	l := newLab(t)
	l.Firewall.listen(t, port(clientGateway, v4, 2121))
	said := l.fails("taken", l.Firewall.Command, fmt.Sprintf("listeners: [{name: mine, mode: explicit, address: '%s'}]\n", port(clientGateway, v4, 2121)))
	for _, want := range []string{"mine", "192.0.2.1:2121", "ss -ltnp"} {
		if !strings.Contains(said, want) {
			t.Errorf("of a port in use it says, without %q: %s", want, said)
		}
	}
}
