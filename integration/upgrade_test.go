//go:build linux

package integration

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"ftpalg/proxy/admin"
)

// A service is a gateway whose place other processes take.
type service struct {
	*gateway
	now      int // the process that is the service
	upgrades int
}

// asService has a gateway's next processes end with the test.
func (g *gateway) asService() *service {
	s := &service{gateway: g, now: g.pid(), upgrades: strings.Count(g.log(), accepts)} // a lab's gateways have one log
	g.lab.t.Cleanup(func() {
		if s.now != g.pid() {
			syscall.Kill(s.now, syscall.SIGKILL)
		}
	})
	return s
}

// accepts is what the old process says when the next one serves.
const accepts = `msg="the next process accepts;`

var nextPid = regexp.MustCompile(`msg="starting the next process" pid=(\d+)`)

// sees is until for a service: the first process may end.
func (s *service) sees(what string, done func() bool) {
	s.lab.t.Helper()
	for deadline := time.Now().Add(hang); !done(); time.Sleep(5 * time.Millisecond) {
		if time.Now().After(deadline) {
			s.lab.t.Fatalf("not in %v: %s", hang, what)
		}
	}
}

// has waits until some words are in the log so many times.
func (s *service) has(words string, times int) {
	s.lab.t.Helper()
	s.sees(fmt.Sprintf("%d times %q", times, words), func() bool { return strings.Count(s.log(), words) >= times })
}

// upgrade has the next process accept. The one before it may still have sessions.
func (s *service) upgrade() {
	s.lab.t.Helper()
	if err := syscall.Kill(s.now, syscall.SIGUSR2); err != nil {
		s.lab.t.Fatal(err)
	}
	s.upgrades++
	s.has(accepts, s.upgrades)
	pids := nextPid.FindAllStringSubmatch(s.log(), -1)
	s.now, _ = strconv.Atoi(pids[len(pids)-1][1])
}

// upgraded waits until the process before the one that is the service has ended.
func (s *service) upgraded() {
	s.lab.t.Helper()
	s.has(`msg="the process before this one has ended"`, s.upgrades)
}

// end ends the service.
func (s *service) end() {
	s.lab.t.Helper()
	if err := syscall.Kill(s.now, syscall.SIGTERM); err != nil {
		s.lab.t.Error(err)
	}
	for deadline := time.Now().Add(hang); alive(s.now); time.Sleep(5 * time.Millisecond) {
		if time.Now().After(deadline) {
			s.lab.t.Fatalf("process %d has not ended", s.now)
		}
		if state, _, _ := strings.Cut(string(after(readAll(fmt.Sprintf("/proc/%d/stat", s.now)), ") ")), " "); state == "Z" {
			break // nobody here waits for it
		}
	}
	s.checkClean()
}

// after is what comes after the last of some words.
func after(text []byte, words string) []byte {
	if i := bytes.LastIndex(text, []byte(words)); i >= 0 {
		return text[i+len(words):]
	}
	return nil
}

// Three upgrades in a row, under load of curl, which comes for each file anew: no file is lost or broken, and nobody is refused. Nor
// are the files that are longer than that: each process carries to the end what it has begun, and the kernel for it.
func TestUpgradeUnderLoad(t *testing.T) {
	need(t, "curl")
	for _, how := range []struct{ name, config, carried string }{
		{"kernel", "listeners: [{mode: tproxy, data_path: kernel}]\nfirewall: apply\n", "carried=kernel"},
		{"splice", "listeners: [{mode: tproxy, data_path: splice}]\n", "carried=splice"},
		{"tls", "listeners: [{mode: tproxy, data_path: splice, tls: require}]\n", "client_tls"},
	} {
		t.Run(how.name, func(t *testing.T) {
			l := newLab(t)
			var root, own *authority
			socket := filepath.Join(l.Dir, "admin.sock")
			config := how.config + "limits: {sessions_per_client: 1000}\nadmin: {socket: " + socket + "}\n"
			var args []string
			if how.name == "tls" {
				root, own = l.newAuthority("server-root"), l.newAuthority("gateway")
				config += fmt.Sprintf("tls: {authority_cert: %s, authority_key: %s, server_roots: %s}\n", own.CertFile, own.KeyFile, root.CertFile)
				args = []string{"--ssl-reqd", "--cacert", own.CertFile}
			}
			s := startServer(t, l, root)
			content := crowdContent(7, 300<<10)
			s.give(t, "file", content)
			big := crowdContent(8, 48<<20)
			s.give(t, "big", big)
			g := l.startGateway(config).asService()
			at := s.AddrPort(v4)
			url := func(name string) string { return fmt.Sprintf("ftp://%s:%s@%s/%s", ftpUser, ftpPassword, at, name) }
			curl := func(more ...string) error {
				var said, wrong bytes.Buffer
				c := l.Client.Command(context.Background(), "curl", append(append([]string{"-sS", "--max-time", "120"}, args...), more...)...)
				c.Stdout, c.Stderr = &said, &wrong
				if err := c.Run(); err != nil {
					return fmt.Errorf("curl %v: %w: %s", more, err, wrong.String())
				}
				if strings.HasSuffix(more[len(more)-1], "file") && !bytes.Equal(said.Bytes(), content) {
					return fmt.Errorf("curl has another content, of %d bytes", said.Len())
				}
				return nil
			}
			upload := filepath.Join(l.Dir, "upload")
			if err := os.WriteFile(upload, content, 0o644); err != nil {
				t.Fatal(err)
			}
			var clients sync.WaitGroup
			var over atomic.Bool
			var files atomic.Int64
			for i := range 6 {
				clients.Go(func() {
					for n := 0; !over.Load(); n++ {
						err := curl(url("file"))
						if i%2 == 1 {
							err = errors.Join(err, curl("-T", upload, url(fmt.Sprintf("up-%d-%d", i, n))))
							files.Add(1)
						}
						files.Add(1)
						if err != nil {
							t.Error(err)
							return
						}
					}
				})
			}
			// Somebody answers administrators all the time, at last the next process.
			answered := 0
			g.await("msg=administration")
			clients.Go(func() {
				for asks := admin.NewClient(socket); !over.Load(); time.Sleep(time.Millisecond) {
					stats, err := asks.Stats(t.Context())
					if err != nil {
						t.Errorf("administration in an upgrade: %v", err)
						return
					}
					answered = stats.PID
				}
			})
			var long sync.WaitGroup
			slow := func(i int) {
				to := filepath.Join(l.Dir, fmt.Sprintf("big-%d", i))
				if err := curl("--limit-rate", "16M", "-o", to, url("big")); err != nil {
					t.Error(err)
				} else if !bytes.Equal(readAll(to), big) {
					t.Error("a file that took longer than an upgrade has another content")
				}
				files.Add(1)
			}
			for i := range 3 {
				moving := strings.Count(g.log(), "msg=\"logged in\"")
				long.Go(func() { slow(i) })
				g.sees("sessions have come", func() bool { return strings.Count(g.log(), "msg=\"logged in\"") > moving+20 })
				g.upgrade()
				if got := strings.Count(g.log(), "path=big "); got > i {
					t.Error("the long file was done before the upgrade: it is not long enough")
				}
				begun := strings.Count(g.log(), "msg=transfer ")
				g.sees("the next process serves", func() bool { return strings.Count(g.log(), "msg=transfer ") > begun+20 })
				g.upgraded()
			}
			over.Store(true)
			clients.Wait()
			long.Wait()
			if answered != g.now {
				t.Errorf("process %d answers administrators, and the service is %d", answered, g.now)
			}
			g.end()
			if line := g.logged("outcome=broken"); line != "" {
				t.Errorf("not all is well: %s", line)
			}
			if line := g.logged("level=ERROR"); line != "" {
				t.Error(line)
			}
			log := g.log()
			if got := strings.Count(log, "msg=transfer "); int64(got) != files.Load() {
				t.Errorf("the log has %d transfers, of %d", got, files.Load())
			}
			carried := 0
			for line := range strings.Lines(log) {
				if strings.Contains(line, "msg=transfer ") && strings.Contains(line, how.carried) {
					carried++
				}
			}
			t.Logf("%d files over %d upgrades, none lost; %d of them %s", files.Load(), g.upgrades, carried, how.carried)
			if carried == 0 {
				t.Errorf("no transfer has %s", how.carried)
			}
			if how.name == "kernel" {
				for line := range strings.Lines(log) {
					if strings.Contains(line, "path=big ") && !strings.Contains(line, "carried=kernel") {
						t.Errorf("a long file did not stay with the kernel: %s", line)
					}
				}
			}
		})
	}
}

// What the kernel carries for the old process outlives the upgrade, is watched to its end, and is cut if it stalls; and afterwards the
// kernel carries for the new one.
func TestUpgradeKernel(t *testing.T) {
	l := newLab(t)
	s := startServer(t, l, nil)
	at := s.AddrPort(v4)
	content := strings.Repeat("x", 4<<20)
	s.give(t, "file", []byte(content))
	g := l.startGateway("listeners: [{mode: tproxy, data_path: kernel}]\n").asService()
	g.await("the kernel carries plain data connections")
	old := l.logIn(t, at)
	old.ask("TYPE I", "200")
	data := l.begin(t, old, at, "RETR file")
	g.upgrade()
	g.await("data connections come to us until the process before this one has ended")
	young := l.logIn(t, at)
	young.ask("TYPE I", "200")
	if reply, got := l.fetch(t, young, at, "RETR file"); reply[:3] != "226" || got != content {
		t.Errorf("by the new process meanwhile: %s, %d bytes", reply, len(got))
	}
	g.await("msg=transfer", "carried=splice", "outcome=whole")
	var got bytes.Buffer
	if _, err := got.ReadFrom(data); err != nil || got.String() != content {
		t.Errorf("of the old process's file came %d bytes, %v", got.Len(), err)
	}
	data.Close()
	old.hear("226")
	g.await("msg=transfer", "carried=kernel", "outcome=whole")
	old.ask("QUIT", "221")
	g.upgraded()
	g.has("msg=\"the kernel carries plain data connections\"", 2)
	// The session that was begun meanwhile has it from now on, too.
	if reply, got := l.fetch(t, young, at, "RETR file"); reply[:3] != "226" || got != content {
		t.Errorf("by the new process: %s, %d bytes", reply, len(got))
	}
	g.has("carried=kernel", 2)
	g.end()
}

// A next process that does not start changes nothing: the old one says why, goes on, and keeps the quotas' counts.
func TestUpgradeFails(t *testing.T) {
	l := newLab(t)
	s := startServer(t, l, nil)
	s.give(t, "file", []byte("hello"))
	state := filepath.Join(l.Dir, "quotas")
	config := fmt.Sprintf("listeners: [{mode: tproxy}]\npolicy: {quotas: [{name: few, per: user, files: 3, direction: download}], state: %s}\n", state)
	g := l.startGateway(config).asService()
	at := s.AddrPort(v4)
	fetch := func(code string) {
		t.Helper()
		l.fetchAnew(t, at, code)
	}
	fetch("226")
	g.configure(config + "limits: {sesions: 5}\n")
	g.Signal(syscall.SIGUSR2)
	g.await("the upgrade has failed, and this process goes on", "exit status 78")
	if !strings.Contains(g.log(), "limits.sesions") {
		t.Error("nobody says what is wrong")
	}
	fetch("226")
	// Nothing was lost to it: the next one that does start has both.
	g.configure(config)
	g.upgrade()
	g.upgraded()
	fetch("226")
	fetch("450")
	g.end()
}

// A transfer that ends in the old process counts in the new one, which has the file.
func TestUpgradeQuota(t *testing.T) {
	l := newLab(t)
	s := startServer(t, l, nil)
	const size = 1 << 20
	s.give(t, "file", make([]byte, size))
	state := filepath.Join(l.Dir, "quotas")
	config := fmt.Sprintf("listeners: [{mode: tproxy}]\npolicy: {quotas: [{name: day, per: user, bytes: %dB, direction: download}], state: %s}\n",
		2*size+size/2, state)
	g := l.startGateway(config).asService()
	at := s.AddrPort(v4)
	k := l.logIn(t, at)
	k.ask("TYPE I", "200")
	g.upgrade()
	for range 2 {
		if reply, got := l.fetch(t, k, at, "RETR file"); reply[:3] != "226" || len(got) != size {
			t.Errorf("in the old process: %s, %d bytes", reply, len(got))
		}
	}
	k.ask("QUIT", "221")
	g.upgraded()
	k = l.logIn(t, at)
	k.ask("TYPE I", "200")
	if reply, got := l.fetch(t, k, at, "RETR file"); reply[:3] != "452" || len(got) >= size {
		t.Errorf("in the new process there is more than the quota: %s, %d bytes", reply, len(got))
	}
	g.end()

	// The new process may have ended before it is told.
	if err := os.Remove(state); err != nil {
		t.Fatal(err)
	}
	g = l.startGateway(config).asService()
	k = l.logIn(t, at)
	k.ask("TYPE I", "200")
	g.upgrade()
	for range 2 {
		l.fetch(t, k, at, "RETR file")
	}
	data := l.begin(t, k, at, "RETR file")
	if err := syscall.Kill(g.now, syscall.SIGTERM); err != nil {
		t.Fatal(err)
	}
	g.has("the next process stops, so this one drains", 1)
	io.Copy(io.Discard, data)
	data.Close()
	<-g.ended
	g.end()
	g = l.startGateway(config).asService()
	k = l.logIn(t, at)
	if reply, _ := l.fetch(t, k, at, "RETR file"); reply[:3] != "452" {
		t.Errorf("after a stop amid an upgrade there is more than the quota: %s", reply)
	}
	g.end()
}

// Who is there when the upgrade comes is not turned away before timeouts.drain, and then told so; and while the old process is
// there no third one comes.
func TestUpgradeDrain(t *testing.T) {
	l := newLab(t)
	at := port(serverAddress, v4, 21)
	g := l.startGateway("listeners: [{mode: tproxy}]\ntimeouts: {drain: 3s}\n").asService()
	p := newPuppet(t, l, at)
	k := l.Client.call(t, at)
	x := p.admit(k, "alice")
	g.upgrade()
	k.say("NOOP")
	x.expect("NOOP", "200 ok")
	k.hear("200")
	if err := syscall.Kill(g.now, syscall.SIGUSR2); err != nil {
		t.Fatal(err)
	}
	g.has("no upgrade: the process before this one still lets its sessions end", 1)
	young := l.Client.call(t, at)
	y := p.admit(young, "bob")
	k.hear("421")
	g.upgraded()
	young.say("NOOP")
	y.expect("NOOP", "200 ok")
	young.hear("200")
	// A stop hurries the old process, too.
	g.upgrade()
	if err := syscall.Kill(g.now, syscall.SIGTERM); err != nil {
		t.Fatal(err)
	}
	young.hear("421")
	g.has("the next process stops, so this one drains", 1)
	g.has("msg=stopped", 1)
}

// What is started is the program that is on disk by then, as a package leaves it there; and one that is none changes nothing.
func TestUpgradeProgram(t *testing.T) {
	l := newLab(t)
	l.DropForward()
	at := port(serverAddress, v4, 21)
	p := newPuppet(t, l, at)
	program := filepath.Join(l.Dir, "ftpalg")
	replace := func(with []byte) {
		t.Helper()
		err := os.WriteFile(program+".new", with, 0o755)
		if err == nil {
			err = os.Rename(program+".new", program)
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	whole := readAll(ftpalgProgram(t))
	replace(whole)
	g := l.startGatewayAs("listeners: [{mode: tproxy}]\n", func(ctx context.Context, _ string, args ...string) *exec.Cmd {
		return l.Firewall.Command(ctx, program, args...)
	}).asService()
	failures := 0
	for _, none := range []string{"#!/bin/sh\necho 'the new one is here' >&2\nexit 5\n", "\x7fELF is not all that it takes"} {
		replace([]byte(none))
		g.Signal(syscall.SIGUSR2)
		failures++
		g.has("the upgrade has failed, and this process goes on", failures)
		p.admit(l.Client.call(t, at), "alice")
	}
	g.await("the new one is here")
	g.await("the upgrade has failed", "exit status 5")
	g.await("the upgrade has failed", "exec format error")
	replace(whole)
	g.upgrade()
	if exe, err := os.Readlink(fmt.Sprintf("/proc/%d/exe", g.now)); err != nil || exe != program {
		t.Errorf("the next process runs %s, %v", exe, err)
	}
	p.admit(l.Client.call(t, at), "bob")
	g.end()
}
