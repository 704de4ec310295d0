//go:build linux

package integration

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"sync"
	"syscall"
	"testing"
)

// builtProgram builds ftpalg once for all tests and returns its path.
var builtProgram = sync.OnceValues(func() (string, error) { return buildProgram(raced) })

// builtUnraced is the same without the race detector, which allows 8128 goroutines at most.
var builtUnraced = sync.OnceValues(func() (string, error) { return buildProgram(false) })

func buildProgram(race bool) (string, error) {
	if err := os.MkdirAll(buildDir(), 0o755); err != nil { // it runs as other users too
		return "", err
	}
	path := filepath.Join(buildDir(), fmt.Sprintf("ftpalg-race=%t", race))
	args := []string{"build", "-o", path}
	if race {
		args = append(args, "-race")
	}
	command := exec.Command("go", append(args, "ftpalg/cmd/ftpalg")...)
	if said, err := command.CombinedOutput(); err != nil {
		return "", fmt.Errorf("%v: %v\n%s", command, err, said)
	}
	return path, nil
}

// buildDir is where ftpalg is built: TestMain removes it, and removeStale that of a run that was killed.
func buildDir() string {
	return filepath.Join(os.TempDir(), fmt.Sprintf("ftpalg-%d-0-build", os.Getpid()))
}

func ftpalgProgram(t *testing.T) string {
	t.Helper()
	path, err := builtProgram()
	if err != nil {
		t.Fatal(err)
	}
	return path
}

// A gateway is ftpalg at work on a lab's firewall.
type gateway struct {
	*daemon
	config string
	lab    *lab
}

// startGateway starts ftpalg on the firewall with a configuration, its rules applied, and returns when it listens. Nothing
// is forwarded past it, unless the kernel is to carry data.
func (l *lab) startGateway(config string) *gateway {
	l.t.Helper()
	if strings.Contains(config, "data_path: kernel") {
		l.ForwardRelated()
	} else {
		l.DropForward()
	}
	return l.startGatewayAs(config, func(ctx context.Context, program string, args ...string) *exec.Cmd {
		return l.Firewall.Command(ctx, program, args...)
	})
}

// startGatewayAs is startGateway without the drop, and with a say in how the daemon is started. The rules are root's to apply.
func (l *lab) startGatewayAs(config string, command func(context.Context, string, ...string) *exec.Cmd) *gateway {
	l.t.Helper()
	program := ftpalgProgram(l.t)
	g := &gateway{config: filepath.Join(l.Dir, "ftpalg.yaml"), lab: l}
	g.configure(config)
	l.Firewall.must(program, "rules", "--apply", "--config", g.config)
	g.run(command(context.Background(), program, "run", "--config", g.config))
	return g
}

// run starts the daemon, and returns when it listens. A lab's gateways have one log.
func (g *gateway) run(c *exec.Cmd) {
	g.lab.t.Helper()
	before := strings.Count(string(readAll(filepath.Join(g.lab.logs(), "ftpalg.log"))), "msg=listening")
	g.daemon = g.lab.Firewall.Start("ftpalg", c)
	g.until("it listens", func() bool { return strings.Count(g.log(), "msg=listening") > before })
}

// modeKey is where a listener's keys begin.
var modeKey = regexp.MustCompile(`\bmode: (tproxy|redirect|explicit|gateway)\b`)

// configure writes another configuration, which a SIGHUP makes ftpalg read. One that says nothing of data paths has splice
// everywhere: those are the tests of what ftpalg carries itself.
func (g *gateway) configure(config string) {
	g.lab.t.Helper()
	if !strings.Contains(config, "data_path:") {
		config = modeKey.ReplaceAllString(config, "data_path: splice, $0")
	}
	if err := os.WriteFile(g.config, []byte(config), 0o644); err != nil {
		g.lab.t.Fatal(err)
	}
}

// reload makes ftpalg take another configuration.
func (g *gateway) reload(config string) {
	g.lab.t.Helper()
	before := strings.Count(g.log(), "configuration reloaded")
	g.configure(config)
	g.Signal(syscall.SIGHUP)
	g.until("it has reloaded", func() bool { return strings.Count(g.log(), "configuration reloaded") > before })
}

func (g *gateway) log() string { return string(readAll(g.Log)) }

// await waits until the log has all of some words in one line, and returns that line.
func (g *gateway) await(words ...string) (line string) {
	g.lab.t.Helper()
	g.until(fmt.Sprintf("the log has %q", words), func() bool {
		line = g.logged(words...)
		return line != ""
	})
	return line
}

// logged returns the first line of the log that has all of some words, or nothing.
func (g *gateway) logged(words ...string) string {
	for line := range strings.Lines(g.log()) {
		all := true
		for _, w := range words {
			all = all && strings.Contains(line, w)
		}
		if all {
			return line
		}
	}
	return ""
}

// pid is the process of ftpalg itself, which ip netns exec has become.
func (g *gateway) pid() int { return g.process.Pid }

// checkClean fails the test if the daemon's log tells of a data race or a panic. Call it after Stop.
func (g *gateway) checkClean() {
	g.lab.t.Helper()
	log := readAll(g.Log)
	for _, bad := range []string{"DATA RACE", "panic:", "internal error"} {
		if bytes.Contains(log, []byte(bad)) {
			g.lab.t.Errorf("ftpalg's log has %q", bad)
		}
	}
}
