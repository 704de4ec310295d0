//go:build linux

package integration

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
)

// holds fails the test unless a process has these lines in its status.
func holds(t *testing.T, pid int, lines ...string) {
	t.Helper()
	status := string(readAll(fmt.Sprintf("/proc/%d/status", pid)))
	for _, want := range lines {
		if !strings.Contains(status, want+"\n") {
			t.Errorf("process %d has not %q:\n%s", pid, want, status)
		}
	}
}

// Started by root without systemd, the process becomes another user, keeps three capabilities, and writes nowhere but where its
// configuration says. It serves as ever; a program on disk that takes its place has no more than it.
func TestConfined(t *testing.T) {
	l := newLab(t)
	l.DropForward()
	state, open := filepath.Join(l.Dir, "state"), filepath.Join(l.Dir, "open")
	for _, dir := range []string{state, open} {
		if err := os.Mkdir(dir, 0o755); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.Chown(state, 65534, 65534); err != nil {
		t.Fatal(err)
	}
	if err := os.Chmod(open, 0o777); err != nil { // anybody may write here, but not this process
		t.Fatal(err)
	}
	config := "listeners: [{mode: tproxy, intercept: {ports: [21, 2021]}}]\nfirewall: apply\n" + modest
	own := fmt.Sprintf("privileges: {user: nobody}\naudit: {file: %s/audit.jsonl}\nadmin: {socket: %s/admin.sock}\npolicy: {state: %s/quotas}\ntimeouts: {drain: 1s}\n", state, state, state)
	g := l.startGatewayAs(config+own, l.Firewall.Command).asService()
	confined := []string{"Uid:\t65534\t65534\t65534\t65534", "Gid:\t65534\t65534\t65534\t65534", "Groups:\t65534 ", "CapPrm:\t0000000000003400",
		"CapEff:\t0000000000003400", "CapBnd:\t0000000000003400", "CapAmb:\t0000000000003400", "NoNewPrivs:\t1"}
	holds(t, g.now, confined...)
	for _, f := range families {
		p := newPuppet(t, l, port(serverAddress, f, 21))
		k := l.Client.call(t, p.at)
		l.everyWay(t, f, k, p.admit(k, "alice"), p)
	}
	refused := func() {
		t.Helper()
		before := strings.Count(g.log(), "the configuration is not reloaded")
		g.configure(config + fmt.Sprintf("privileges: {user: nobody}\naudit: {file: %s/audit.jsonl}\n", open))
		if err := syscall.Kill(g.now, syscall.SIGHUP); err != nil {
			t.Fatal(err)
		}
		g.sees("a place to write to is refused", func() bool { return strings.Count(g.log(), "the configuration is not reloaded") > before })
		if g.logged("the configuration is not reloaded", "permission denied", "a directory that was not in the configuration at the start takes a restart") == "" {
			t.Error("it does not say why")
		}
		if left, _ := os.ReadDir(open); len(left) > 0 {
			t.Errorf("it has written to %s", open)
		}
		g.configure(config + own)
	}
	refused()
	l.Firewall.must("nft", "delete", "table", "inet", "ftpalg")
	g.sees("rules are mended", func() bool { return g.logged("somebody had taken away rules or routes") != "" })
	g.upgrade()
	g.upgraded()
	holds(t, g.now, confined...)
	p := newPuppet(t, l, port(serverAddress, v4, 2021))
	p.admit(l.Client.call(t, p.at), "alice")
	refused()
	g.end()
}

// As root it keeps no more, but its name; and all of it where that is wanted.
func TestConfinedRoot(t *testing.T) {
	l := newLab(t)
	open := filepath.Join(l.Dir, "open")
	if err := os.Mkdir(open, 0o777); err != nil {
		t.Fatal(err)
	}
	config := "listeners: [{mode: tproxy}]\n" + modest
	g := l.startGateway(config)
	holds(t, g.pid(), "Uid:\t0\t0\t0\t0", "CapPrm:\t0000000000003400", "CapBnd:\t0000000000003400", "NoNewPrivs:\t1")
	g.configure(config + fmt.Sprintf("audit: {file: %s/audit.jsonl}\n", open))
	g.Signal(syscall.SIGHUP)
	g.await("the configuration is not reloaded", "permission denied")
	g.Stop()
	g.checkClean()

	g = l.startGateway(config + "privileges: {drop: false}\n")
	if status := string(readAll(fmt.Sprintf("/proc/%d/status", g.pid()))); strings.Contains(status, "CapPrm:\t0000000000003400") || !strings.Contains(status, "NoNewPrivs:\t0") {
		t.Errorf("with privileges.drop: false:\n%s", status)
	}
	g.reload(config + fmt.Sprintf("privileges: {drop: false}\naudit: {file: %s/audit.jsonl}\n", open))
	g.Stop()
	g.checkClean()

	if said := l.fails("wrong", l.Firewall.Command, "privileges: {user: no-such-user}\n"); !strings.Contains(said, "no user no-such-user on this machine") {
		t.Errorf("of a user that is not there it says: %s", said)
	}
	// One that is another user already cannot become a third.
	daemon := func(ctx context.Context, program string, args ...string) *exec.Cmd {
		return l.Firewall.Command(ctx, "setpriv", append([]string{"--reuid=1", "--regid=1", "--clear-groups", program}, args...)...)
	}
	if said := l.fails("third", daemon, "privileges: {user: nobody}\n"); !strings.Contains(said, "become user nobody") || !strings.Contains(said, "start as root") {
		t.Errorf("as daemon, to become nobody, it says: %s", said)
	}
}
