//go:build linux

package integration

import (
	"context"
	"fmt"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"
)

// unitDir is where the units are.
func unitDir(t *testing.T) string { return filepath.Join(moduleRoot(t), "config", "systemd") }

// setting is a key's value in the unit.
func setting(t *testing.T, key string) string {
	t.Helper()
	for line := range strings.Lines(string(readAll(filepath.Join(unitDir(t), "ftpalg.service")))) {
		if value, ok := strings.CutPrefix(strings.TrimSpace(line), key+"="); ok {
			return value
		}
	}
	t.Fatalf("the unit has no %s=", key)
	return ""
}

// mostExposed is ten times what `systemd-analyze security` may give the unit; README says what it gives.
const mostExposed = 16

// The units are ones, and the service is as closed as it is said to be.
func TestServiceUnits(t *testing.T) {
	need(t, "systemd-analyze")
	root := t.TempDir()
	units := filepath.Join(root, "usr/lib/systemd/system")
	for _, dir := range []string{filepath.Dir(units), filepath.Join(root, "usr/sbin"), filepath.Join(root, "bin")} {
		if err := os.MkdirAll(dir, 0o755); err != nil {
			t.Fatal(err)
		}
	}
	run := func(program string, args ...string) string {
		t.Helper()
		said, err := exec.CommandContext(t.Context(), program, args...).CombinedOutput()
		if err != nil {
			t.Fatalf("%s %q: %v\n%s", program, args, err, said)
		}
		return string(said)
	}
	run("cp", "-a", "/usr/lib/systemd/system", units)
	run("cp", ftpalgProgram(t), filepath.Join(root, "usr/sbin/ftpalg"))
	run("cp", "/bin/kill", filepath.Join(root, "bin/kill"))
	var names []string
	entries, err := os.ReadDir(unitDir(t))
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range entries {
		if !e.IsDir() {
			run("cp", filepath.Join(unitDir(t), e.Name()), units)
			names = append(names, e.Name())
		}
	}
	// The drop-in is as much of it.
	if err := os.Mkdir(filepath.Join(units, "ftpalg.service.d"), 0o755); err != nil {
		t.Fatal(err)
	}
	run("cp", filepath.Join(unitDir(t), "ftpalg.service.d/sockets.conf.example"), filepath.Join(units, "ftpalg.service.d/sockets.conf"))
	verify := append([]string{"verify", "--man=no", "--root=" + root}, names...)
	if said := run("systemd-analyze", verify...); strings.Contains(said, "ftpalg") {
		t.Errorf("%q is content, but: %s", verify, said)
	}
	said := run("systemd-analyze", "security", "--offline=true", "--threshold="+strconv.Itoa(mostExposed), filepath.Join(unitDir(t), "ftpalg.service"))
	score := regexp.MustCompile(`exposure level for ftpalg.service: ([0-9.]+)`).FindStringSubmatch(said)
	if score == nil {
		t.Fatalf("no score in:\n%s", said)
	}
	readme := string(readAll(filepath.Join(moduleRoot(t), "README.md")))
	if !strings.Contains(readme, "`systemd-analyze security` gives it "+score[1]+" ") {
		t.Errorf("README does not say that the score is %s", score[1])
	}
	if a, b := setting(t, "AmbientCapabilities"), setting(t, "CapabilityBoundingSet"); a != b {
		t.Errorf("the capabilities are %s, of %s", a, b)
	}
	const config = "/etc/ftpalg/ftpalg.yaml"
	if a, b := setting(t, "ExecStart"), setting(t, "ExecReload"); a != "/usr/sbin/ftpalg run --config "+config || b != "/usr/sbin/ftpalg check "+config {
		t.Errorf("what is run is %q, and what is checked before a reload %q", a, b)
	}
	if watchdog, stop := setting(t, "WatchdogSec"), setting(t, "TimeoutStopSec"); watchdog != "30s" || stop != "75s" {
		t.Errorf("the times are %s and %s", watchdog, stop)
	}
}

// The unit's user, capabilities and system calls are enough for a transparent gateway on given sockets whose data the kernel carries,
// which is reloaded, cuts a transfer, and is upgraded.
func TestServicePrivileges(t *testing.T) {
	need(t, "setpriv", "strace", "systemd-analyze")
	l := newLab(t)
	s := startServer(t, l, nil)
	l.ForwardRelated()
	at := s.AddrPort(v4)
	const size = 64 << 20
	s.give(t, "file", make([]byte, size))
	caps := ""
	for c := range strings.FieldsSeq(strings.ToLower(setting(t, "AmbientCapabilities"))) {
		caps += ",+" + strings.TrimPrefix(c, "cap_")
	}
	caps = caps[1:]
	dir := filepath.Join(l.Dir, "state")
	if err := os.Mkdir(dir, 0o700); err != nil {
		t.Fatal(err)
	}
	if err := os.Chown(dir, 65534, 65534); err != nil {
		t.Fatal(err)
	}
	config := fmt.Sprintf("listeners: [{mode: tproxy, data_path: kernel}]\npolicy: {state: %s/quotas}\naudit: {file: %[1]s/audit.jsonl}\ntimeouts: {data_idle: 2s}\n", dir) + modest
	start := activated(l.as(caps), "tproxy", []*os.File{l.socketOf(t, "[::]:2121", true, false)})
	calls := filepath.Join(l.Dir, "calls")
	g := l.startGatewayAs(config, func(ctx context.Context, program string, args ...string) *exec.Cmd {
		c := start(ctx, program, args...)
		c.Args = slices.Insert(c.Args, slices.Index(c.Args, "setpriv"), "strace", "-D", "-f", "-qq", "--signal=none", "-o", calls)
		return c
	}).asService()
	g.await("the kernel carries plain data connections")
	if line := g.logged("level=WARN"); line != "" {
		t.Error(line)
	}
	fetch := func() {
		t.Helper()
		k := l.logIn(t, at)
		defer k.Close()
		k.ask("TYPE I", "200")
		if reply, got := l.fetch(t, k, at, "RETR file"); reply[:3] != "226" || len(got) != size {
			t.Errorf("%s, %d bytes", reply, len(got))
		}
	}
	fetch()
	g.has("carried=kernel", 1)
	stalled := l.logIn(t, at)
	l.begin(t, stalled, at, "RETR file")
	stalled.hear("426")
	stalled.ask("QUIT", "221")
	g.reload(config)
	g.upgrade()
	g.upgraded()
	g.has("the kernel carries plain data connections", 3)
	fetch()
	g.has("carried=kernel", 3)
	g.end()
	if line := g.logged("level=ERROR"); line != "" {
		t.Error(line)
	}
	g.sees("the calls are written", func() bool { return strings.Contains(string(after(readAll(calls), "execve(")), "exit_group(") })

	allowed := map[string]bool{}
	for line := range strings.Lines(string(readAll(filepath.Join(unitDir(t), "ftpalg.service")))) {
		if filter, ok := strings.CutPrefix(strings.TrimSpace(line), "SystemCallFilter="); ok {
			rest, not := strings.CutPrefix(filter, "~")
			for set := range strings.FieldsSeq(rest) {
				allow(t, allowed, set, !not)
			}
		}
	}
	_, ran, ok := strings.Cut(string(readAll(calls)), "execve(\""+ftpalgProgram(t))
	if !ok || len(allowed) < 100 {
		t.Fatalf("the program is not among the calls, or the %d that are allowed are not all", len(allowed))
	}
	made := map[string]int{}
	for _, m := range regexp.MustCompile(`(?m)^\d+ +([a-z0-9_]+)\(`).FindAllStringSubmatch(ran, -1) {
		made[m[1]]++
	}
	if made["accept4"] == 0 || made["execve"] == 0 || made["sendto"] == 0 {
		t.Errorf("not all was seen: %v", made)
	}
	for _, call := range slices.Sorted(maps.Keys(made)) {
		if !allowed[call] {
			t.Errorf("it makes the system call %s (%d times), which the unit does not allow", call, made[call])
		}
	}
}

// allow adds what a set of systemd's has, and its sets have, or takes it away.
func allow(t *testing.T, calls map[string]bool, set string, yes bool) {
	t.Helper()
	if !strings.HasPrefix(set, "@") {
		calls[set] = yes
		return
	}
	said, err := exec.Command("systemd-analyze", "syscall-filter", set).Output()
	if err != nil {
		t.Fatalf("%s: %v", set, err)
	}
	for line := range strings.Lines(string(said)) {
		if name := strings.TrimSpace(line); name != "" && name != set && name[0] != '#' {
			allow(t, calls, name, yes)
		}
	}
}
