//go:build linux

package integration

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"
)

// boot has an installation with systemd run, in the network of the lab's firewall: what is run in it from then on, systemd knows of.
func (i *installation) boot() {
	i.t.Helper()
	need(i.t, "unshare", "nsenter", "pivot_root")
	script, err := filepath.Abs("testdata/boot.sh")
	if err != nil {
		i.t.Fatal(err)
	}
	group := "ftpalg-" + i.Firewall.Name
	i.systemd = i.Firewall.Start("systemd", i.Firewall.Command(context.Background(), "sh", script, i.root, group))
	i.t.Cleanup(func() {
		syscall.Kill(i.init, syscall.SIGKILL) // and with it all that it has started
		<-i.systemd.ended
		exec.Command("sh", "-c", `d=$(mktemp -d); mount -t cgroup2 none $d && find "$d/$0" -depth -type d -exec rmdir {} +
			umount $d; rmdir $d`, group).Run()
	})
	i.systemd.until("systemd has started", func() bool {
		i.init, _ = strconv.Atoi(strings.TrimSpace(string(readAll(fmt.Sprintf("/proc/%d/task/%[1]d/children", i.systemd.process.Pid)))))
		if i.init == 0 {
			return false
		}
		said, _ := i.command(i.t.Context(), "systemctl", "is-system-running").Output()
		return strings.TrimSpace(string(said)) == "running"
	})
}

// shows is a property of the service, as systemd has it.
func (i *installation) shows(property string) string {
	i.t.Helper()
	return strings.TrimSpace(i.run("systemctl", "show", "--property="+property, "--value", "ftpalg.service"))
}

// journal is what the service has said, and systemd of it.
func (i *installation) journal() string {
	i.t.Helper()
	return i.run("journalctl", "--no-pager", "--output=cat", "--unit=ftpalg.service")
}

// TestPackageBooted: under a systemd that runs, the package is installed and serves as it is delivered; becomes a firewall as README has
// it; refuses a wrong reload; is upgraded under load; is started by its first client, and restarted while clients come; is started again
// when it is killed and when it hangs; and is removed and leaves nothing in the kernel.
func TestPackageBooted(t *testing.T) {
	debs := t.TempDir()
	first, second := buildDeb(t, "1.0.0", debs), buildDeb(t, "1.1.0", debs)
	i := newInstallation(t, "booted")
	s := startServer(t, i.lab, nil)
	if err := os.WriteFile(filepath.Join(s.Home, "file"), []byte("hello"), 0o644); err != nil {
		t.Fatal(err)
	}
	at := s.AddrPort(v4)
	curl := func() error {
		url := fmt.Sprintf("ftp://%s:%s@%v/file", ftpUser, ftpPassword, at)
		got, err := i.Client.Command(context.Background(), "curl", "-sS", "-m", "60", url).CombinedOutput()
		if err == nil && string(got) != "hello" {
			err = fmt.Errorf("the file has %q", got)
		}
		return err
	}
	fetches := func(when string) {
		t.Helper()
		if err := curl(); err != nil {
			t.Errorf("%s: %v", when, err)
		}
	}
	i.ForwardRelated()
	i.boot()
	defer func() {
		if t.Failed() {
			keep(t, "journal", []byte(i.journal()))
		}
	}()

	i.dpkg("-i", i.give(first))
	if state := i.shows("ActiveState"); state != "active" {
		t.Fatalf("the service is %s", state)
	}
	// It is what its unit lets it be, and no more.
	status := i.run("cat", "/proc/"+i.shows("MainPID")+"/status")
	for _, want := range []string{"NoNewPrivs:\t1", "Seccomp:\t2", "CapBnd:\t0000000000003400", "CapEff:\t0000000000003400"} {
		if !strings.Contains(status, want) {
			t.Errorf("its process has not %q: %s", want, status)
		}
	}

	// README's firewall, by README's commands.
	_, configuration, commands := readmeFirewall(t)
	write := func(text string) {
		t.Helper()
		if err := os.WriteFile(filepath.Join(i.root, "etc/ftpalg/ftpalg.yaml"), []byte(text), 0o640); err != nil {
			t.Fatal(err)
		}
	}
	write(configuration)
	for _, command := range commands {
		i.run("sh", "-c", command)
	}
	fetches("as a firewall")
	if said := i.journal(); !strings.Contains(said, "carried=kernel") {
		t.Errorf("the kernel has not carried it: %s", said)
	}
	if said := i.run("ftpalg", "stats"); !strings.Contains(said, "transfers_total{") {
		t.Errorf("ftpalg stats: %s", said)
	}

	// A wrong configuration changes nothing.
	write(configuration + "nonsense: yes\n")
	if said, err := i.command(t.Context(), "systemctl", "reload", "ftpalg").CombinedOutput(); err == nil {
		t.Errorf("a wrong configuration is taken: %s", said)
	}
	if said := i.journal(); !strings.Contains(said, "nonsense") {
		t.Errorf("nobody is told what is wrong: %s", said)
	}
	fetches("after a refused reload")
	write(configuration)

	// Upgraded, while clients fetch all the time.
	var clients sync.WaitGroup
	var over atomic.Bool
	var files atomic.Int64
	for range 4 {
		clients.Go(func() {
			for !over.Load() {
				if err := curl(); err != nil {
					t.Errorf("during the upgrade: %v", err)
					return
				}
				files.Add(1)
			}
		})
	}
	some := func() {
		t.Helper()
		n := files.Load()
		i.systemd.until("clients come", func() bool { return files.Load() > n+20 })
	}
	some()
	k := i.logIn(t, at)
	old := i.shows("MainPID")
	i.dpkg("-i", i.give(second))
	i.systemd.until("another process is the service", func() bool { return i.shows("MainPID") != old })
	some()
	if reply, content := i.fetch(t, k, at, "RETR file"); reply[:3] != "226" || content != "hello" {
		t.Errorf("in a session that was there before, RETR has %s, %q", reply, content)
	}
	k.ask("QUIT", "221")
	over.Store(true)
	clients.Wait()
	t.Logf("%d files while the package was upgraded", files.Load())
	if program := i.run("readlink", "/proc/"+i.shows("MainPID")+"/exe"); program != "/usr/sbin/ftpalg\n" {
		t.Errorf("what goes on is %s", program)
	}
	if state := i.shows("ActiveState"); state != "active" {
		t.Errorf("the service is %s", state)
	}
	if said := i.run("ftpalg", "stats"); !strings.Contains(said, "transfers_total{") {
		t.Errorf("ftpalg stats: %s", said)
	}

	// Systemd listens: the first client has the service started.
	i.run("systemctl", "stop", "ftpalg.service")
	i.run("systemctl", "enable", "--now", "ftpalg.socket")
	if state := i.shows("ActiveState"); state != "inactive" {
		t.Errorf("without a client the service is %s", state)
	}
	fetches("as the first")
	// And whoever comes during a restart waits, and is let in. Who is in already is told to go.
	over.Store(false)
	var let, gone atomic.Int64
	for range 4 {
		clients.Go(func() {
			for !over.Load() {
				c, err := i.Client.Dial(context.Background(), at)
				if err != nil {
					t.Errorf("during a restart: %v", err)
					return
				}
				c.SetDeadline(time.Now().Add(hang))
				said := make([]byte, 3)
				_, err = c.Read(said)
				c.Close()
				switch {
				case err == nil && string(said) == "220":
					let.Add(1)
				case err == nil && string(said) == "421":
					gone.Add(1)
				default:
					t.Errorf("during a restart: %q, %v", said, err)
					return
				}
			}
		})
	}
	for range 3 {
		n := let.Load()
		i.run("systemctl", "restart", "ftpalg.service")
		i.systemd.until("clients are let in", func() bool { return let.Load() > n+20 })
	}
	over.Store(true)
	clients.Wait()
	t.Logf("%d clients were greeted over three restarts, and %d told to go", let.Load(), gone.Load())

	// Killed, and hung.
	for _, signal := range []string{"KILL", "STOP"} {
		if signal == "STOP" {
			i.run("sh", "-ec", `dir=/run/systemd/system/ftpalg.service.d; mkdir -p $dir
				printf '[Service]\nWatchdogSec=2s\n' >$dir/quick.conf
				systemctl daemon-reload; systemctl restart ftpalg`)
		}
		old := i.shows("MainPID")
		i.run("kill", "-"+signal, old)
		i.systemd.until("it is started again after SIG"+signal, func() bool {
			pid := i.shows("MainPID")
			return pid != old && pid != "0" && i.shows("ActiveState") == "active"
		})
		fetches("after SIG" + signal)
	}
	said := i.journal()
	if !strings.Contains(said, "Watchdog timeout") {
		t.Errorf("nobody has noticed that it hung: %s", said)
	}
	for line := range strings.Lines(said) {
		if strings.Contains(line, "level=ERROR") {
			t.Error(line)
		}
	}

	i.dpkg("-r", "ftpalg")
	if state := i.shows("ActiveState"); state == "active" {
		t.Errorf("the service is %s after its removal", state)
	}
	if tables := i.Firewall.must("nft", "list", "tables"); strings.Contains(tables, "ftpalg") {
		t.Errorf("the rules are still there: %s", tables)
	}
	i.dpkg("-P", "ftpalg")
	if said := i.run("systemctl", "list-unit-files"); strings.Contains(said, "ftpalg") {
		t.Errorf("systemd still knows of it: %s", said)
	}
}
