//go:build linux

package main

import (
	"bytes"
	"encoding/json"
	"fmt"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"
)

// TestDemo runs the built program's demo as users do: as root in namespaces, and as nobody on loopback.
func TestDemo(t *testing.T) {
	if os.Geteuid() != 0 {
		if os.Getenv("FTPALG_INTEGRATION") == "1" {
			t.Fatal("needs root")
		}
		t.Skip("needs root")
	}
	program := buildProgram(t)

	t.Run("transparent", func(t *testing.T) {
		p := startDemo(t, program)
		p.exits(t, 0)
		p.tells(t, `10 files of 50000000 bytes in all came whole through ftpalg,\n6 carried by the kernel \(splice\), 4 under TLS on both sides`,
			`IPv4 PASV +198\.51\.100\.2 +192\.0\.2\.2 +5000000 +5000000 +splice +[0-9a-f]{12}, all equal`,
			`IPv4 EPSV +198\.51\.100\.2 +192\.0\.2\.2 +5000000 +5000000 +splice +[0-9a-f]{12}, all equal`,
			`IPv4 TLS +198\.51\.100\.2 +192\.0\.2\.2 +5000000 +5000000 +tls +[0-9a-f]{12}, all equal`,
			`IPv6 EPSV +2001:db8:5::2 +2001:db8:c::2 +5000000 +5000000 +splice +[0-9a-f]{12}, all equal`,
			`IPv6 TLS +2001:db8:5::2 +2001:db8:c::2 +5000000 +5000000 +tls +[0-9a-f]{12}, all equal`,
			`connection +TLS 1\.3, TLS_\S+ +TLS 1\.3, TLS_`,
			`resumed by +3 of 3 data connections +3 of 3 data connections\n`,
			`certificate +CN=ftp\.test,O=The demo's server +CN=ftp\.test,O=The demo's server\n`,
			`for +ftp\.test, 198\.51\.100\.2, 2001:db8:5::2 +ftp\.test, 198\.51\.100\.2, 2001:db8:5::2\n`,
			`issued by +CN=ftpalg demo authority +CN=Authority of the demo's server\n`,
			`IPv6 TLS: the same\n\n`,
			`it dropped calls to 198\.51\.100\.2:21 and \[2001:db8:5::2\]:21`,
			`PASV +227 .*\(198,51,100,2,\d+,\d+\) +\* PASV +227 .*\(198,51,100,2,\d+,\d+\)\n`,
			`PASS \*\*\* +230 .* +PASS \*\*\* +230 `,
			"the server only the client's; neither saw the firewall's")
		p.fits(t)
		// The firewall's own addresses are in the drawing and nowhere else.
		for _, own := range []string{"192.0.2.1 ", "198.51.100.1 ", "2001:db8:c::1 ", "2001:db8:5::1 "} {
			if n := strings.Count(p.out.String(), own); n != 1 {
				t.Errorf("%sappears %d times:\n%s", own, n, &p.out)
			}
		}
		p.leavesNothing(t)
	})
	t.Run("unprivileged", func(t *testing.T) {
		const nobody = 65534
		p := startDemo(t, program, func(c *exec.Cmd, tmp string) {
			if err := os.Chown(tmp, nobody, nobody); err != nil {
				t.Fatal(err)
			}
			c.SysProcAttr.Credential = &syscall.Credential{Uid: nobody, Gid: nobody}
		})
		p.exits(t, 0)
		p.tells(t, "on loopback, in the explicit mode,\nbecause you are not root",
			`USER demo@127\.0\.0\.1:\d+ +331 .* \* USER demo +331 `,
			`IPv4 EPSV +127\.0\.0\.1 +127\.0\.0\.1 +5000000 +5000000 +splice +[0-9a-f]{12}, all equal`,
			`IPv4 TLS +127\.0\.0\.1 +127\.0\.0\.1 +5000000 +5000000 +tls +[0-9a-f]{12}, all equal`,
			`certificate +CN=127\.0\.0\.1 +CN=ftp\.test,O=The demo's server\n +for +127\.0\.0\.1 +ftp\.test, 127\.0\.0\.1`,
			`issued by +CN=ftpalg demo authority +CN=Authority of the demo's server\n`,
			"As root this command shows the transparent mode")
		p.fits(t)
		p.leavesNothing(t)
	})
	t.Run("without capability", func(t *testing.T) {
		need := func(c *exec.Cmd, _ string) {
			c.Args = append([]string{"setpriv", "--bounding-set", "-sys_admin", "--inh-caps", "-sys_admin", program}, c.Args[1:]...)
			var err error
			if c.Path, err = exec.LookPath("setpriv"); err != nil {
				t.Skip(err) // util-linux; an odd machine without it tests the rest
			}
		}
		p := startDemo(t, program, need)
		p.exits(t, 0)
		p.tells(t, `because network namespaces are not permitted here\n\(make network namespace .*: operation not permitted\)`,
			"CAP_SYS_ADMIN, CAP_NET_ADMIN")
		p.leavesNothing(t)
	})
	t.Run("interrupted", func(t *testing.T) {
		for _, role := range []string{"server", "client"} {
			p := catchDemo(t, program, role)
			p.signal(t, syscall.SIGINT)
			p.signal(t, syscall.SIGCONT)
			p.exits(t, 1)
			if !strings.Contains(p.errs.String(), "interrupt") {
				t.Errorf("caught when the %s ran, it says: %s", role, &p.errs)
			}
			p.leavesNothing(t)
		}
	})
	t.Run("a child dies", func(t *testing.T) {
		p := catchDemo(t, program, "server")
		syscall.Kill(p.child(t, "server"), syscall.SIGKILL)
		p.signal(t, syscall.SIGCONT)
		p.exits(t, 1)
		if !strings.Contains(p.errs.String(), "server") && !strings.Contains(p.errs.String(), "client failed") {
			t.Errorf("it says: %s", &p.errs)
		}
		p.leavesNothing(t)
	})
	t.Run("killed", func(t *testing.T) {
		// One that is kept is idle, so that no child has another reason to die.
		p := keepDemo(t, program)
		p.signal(t, syscall.SIGKILL)
		<-p.ended
		p.hasNoProcesses(t)
		if len(p.namespaces(t)) != 3 {
			t.Fatal("a demo that was killed has cleaned up; then what comes now proves nothing")
		}
		next := startDemo(t, program, func(c *exec.Cmd, _ string) { c.Env = p.environ })
		next.exits(t, 0)
		next.leavesNothing(t)
		p.leavesNothing(t)
	})
	t.Run("kept", func(t *testing.T) {
		p := keepDemo(t, program)
		client := "/run/netns/" + regexp.MustCompile(`ftpalg-demo-\d+-client`).FindString(p.out.String())
		authority := regexp.MustCompile(`curl .* --ssl-reqd --cacert (\S+)`).FindStringSubmatch(p.out.String())
		if authority == nil {
			t.Fatalf("no curl for TLS in:\n%s", &p.out)
		}
		for _, file := range []string{client, authority[1]} {
			if _, err := os.Stat(file); err != nil {
				t.Error(err)
			}
		}
		p.signal(t, syscall.SIGTERM)
		p.exits(t, 0)
		p.leavesNothing(t)
	})
}

// TestDemoTLSFaults: whatever the account claims of a session over TLS is a fault if it is not so.
func TestDemoTLSFaults(t *testing.T) {
	d := &demo{dir: t.TempDir()}
	trust, err := d.certify([]netip.Addr{netip.MustParseAddr("192.0.2.21")})
	if err != nil {
		t.Fatal(err)
	}
	const facts = `"cipher":"TLS_AES_128_GCM_SHA256","resumed":`
	log := []string{
		`{"msg":"TLS","client":"192.0.2.2:2000","side":"server","version":"TLS 1.3",` + facts + `false,` +
			`"certificate":"` + digest(trust.server) + `","verified":"chain"}`,
		`{"msg":"TLS","client":"192.0.2.2:2000","side":"client","version":"TLS 1.3",` + facts + `false}`,
		`{"msg":"transfer","client":"192.0.2.2:2000","verb":"RETR","carried":"tls",` +
			`"client_tls":{"version":"TLS 1.3",` + facts + `true},"server_tls":{"version":"TLS 1.3",` + facts + `true}}`,
	}
	sound := func() *demoSession {
		s := &demoSession{demoPart: demoPart{trust: trust, shown: trust.likeness()}}
		for i := range 2 {
			seen := tlsFacts{"TLS 1.3", "TLS_AES_128_GCM_SHA256", i > 0}
			s.Client.Links = append(s.Client.Links, demoLink{})
			s.Client.TLS = append(s.Client.TLS, demoTLS{seen, trust.likeness()})
			s.Server.TLS = append(s.Server.TLS, demoTLS{tlsFacts: seen})
		}
		for _, text := range log {
			var l logLine
			if err := json.Unmarshal([]byte(text), &l); err != nil {
				t.Fatalf("%s: %v", text, err)
			}
			s.Log = append(s.Log, l)
		}
		return s
	}
	if f := sound().tlsFaults(); len(f) > 0 {
		t.Fatalf("a sound session has faults: %q", f)
	}
	for name, spoil := range map[string]func(s *demoSession){
		"no TLS at all":         func(s *demoSession) { s.Client.TLS, s.Server.TLS, s.Log = nil, nil, nil },
		"plain download":        func(s *demoSession) { s.Server.TLS, s.Log[2].ServerTLS = s.Server.TLS[:1], tlsFacts{} },
		"old version":           func(s *demoSession) { s.Server.TLS[1].Version, s.Log[2].ServerTLS.Version = "TLS 1.2", "TLS 1.2" },
		"client not resumed":    func(s *demoSession) { s.Client.TLS[1].Resumed, s.Log[2].ClientTLS.Resumed = false, false },
		"server not resumed":    func(s *demoSession) { s.Server.TLS[1].Resumed, s.Log[2].ServerTLS.Resumed = false, false },
		"log has other cipher":  func(s *demoSession) { s.Log[1].Cipher = "TLS_AES_256_GCM_SHA384" },
		"log lacks the server":  func(s *demoSession) { s.Log = s.Log[1:] },
		"real one shown":        func(s *demoSession) { s.Client.TLS[0].Certificate = certificateOf(trust.server, trust.servers) },
		"other names":           func(s *demoSession) { s.Client.TLS[1].Certificate.Names = "ftp.test" },
		"other root, same name": func(s *demoSession) { s.Client.TLS[0].Certificate.Root = digest(trust.server) },
		"other server":          func(s *demoSession) { s.Log[0].Certificate = digest(trust.servers) },
		"unverified server":     func(s *demoSession) { s.Log[0].Verified = "off" },
	} {
		s := sound()
		spoil(s)
		if len(s.tlsFaults()) == 0 {
			t.Errorf("%s: no fault", name)
		}
	}
}

// buildProgram builds ftpalg where anybody may run it.
func buildProgram(t *testing.T) string {
	t.Helper()
	// What is built is linked into this test, too: else go test would not see it change, and give a cached result.
	if _, _, err := newRoot().Find([]string{"demo"}); err != nil {
		t.Fatal(err)
	}
	dir := publicDir(t)
	program := filepath.Join(dir, "ftpalg")
	if out, err := exec.Command("go", "build", "-o", program, ".").CombinedOutput(); err != nil {
		t.Fatalf("go build: %v\n%s", err, out)
	}
	return program
}

// publicDir is a directory which others may enter, unlike t.TempDir.
func publicDir(t *testing.T) string {
	t.Helper()
	dir, err := os.MkdirTemp("", "ftpalg-test-")
	if err == nil {
		err = os.Chmod(dir, 0o755)
	}
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	return dir
}

// runningDemo is a demo that a test has started.
type runningDemo struct {
	program, tmp string
	environ      []string
	pid          int
	out, errs    lockedBuffer
	ended        chan struct{} // closed when it has; cmd may be looked at then
	cmd          *exec.Cmd
}

// startDemo starts a demo whose temporary files go to a directory of their own.
func startDemo(t *testing.T, program string, change ...func(c *exec.Cmd, tmp string)) *runningDemo {
	t.Helper()
	p := &runningDemo{program: program, tmp: publicDir(t), ended: make(chan struct{})}
	p.environ = append(os.Environ(), "TMPDIR="+p.tmp)
	p.cmd = exec.Command(program, "demo")
	p.cmd.Env, p.cmd.Stdout, p.cmd.Stderr = p.environ, &p.out, &p.errs
	p.cmd.SysProcAttr = &syscall.SysProcAttr{}
	for _, c := range change {
		c(p.cmd, p.tmp)
	}
	if err := p.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	p.pid = p.cmd.Process.Pid
	go p.wait()
	t.Cleanup(func() {
		p.cmd.Process.Kill()
		<-p.ended
	})
	return p
}

func (p *runningDemo) wait() {
	p.cmd.Wait()
	close(p.ended)
}

// catchDemo starts a demo and stops it, as SIGSTOP does, while it has a child of that role. That takes a few tries if the
// demo is faster than we are.
func catchDemo(t *testing.T, program, role string) *runningDemo {
	t.Helper()
	for range 100 {
		p := startDemo(t, program)
		for p.child(t, role) == 0 && !p.hasEnded() {
			time.Sleep(100 * time.Microsecond)
		}
		p.cmd.Process.Signal(syscall.SIGSTOP)
		if p.child(t, role) != 0 && p.out.String() == "" {
			return p
		}
		p.cmd.Process.Signal(syscall.SIGCONT)
		<-p.ended
	}
	t.Fatalf("no demo can be caught while its %s runs", role)
	return nil
}

// keepDemo starts a demo with --keep and waits until it is left running.
func keepDemo(t *testing.T, program string) *runningDemo {
	t.Helper()
	p := startDemo(t, program, func(c *exec.Cmd, _ string) { c.Args = append(c.Args, "--keep") })
	p.until(t, "it is kept", func() bool { return strings.Contains(p.out.String(), "Ctrl-C ends it") || p.hasEnded() })
	if p.hasEnded() {
		t.Fatalf("it has ended\n%s%s", &p.out, &p.errs)
	}
	return p
}

func (p *runningDemo) hasEnded() bool {
	select {
	case <-p.ended:
		return true
	default:
		return false
	}
}

func (p *runningDemo) signal(t *testing.T, s syscall.Signal) {
	t.Helper()
	if err := p.cmd.Process.Signal(s); err != nil {
		t.Fatal(err)
	}
}

// until waits for something; the limit is for what never comes.
func (p *runningDemo) until(t *testing.T, what string, holds func() bool) {
	t.Helper()
	for by := time.Now().Add(2 * time.Minute); !holds(); time.Sleep(time.Millisecond) {
		if time.Now().After(by) {
			t.Fatalf("not yet: %s\n%s%s", what, &p.out, &p.errs)
		}
	}
}

func (p *runningDemo) exits(t *testing.T, code int) {
	t.Helper()
	p.until(t, "it has ended", p.hasEnded)
	if got := p.cmd.ProcessState.ExitCode(); got != code {
		t.Fatalf("exit code %d (%v), want %d\n%s%s", got, p.cmd.ProcessState, code, &p.out, &p.errs)
	}
}

// tells checks that patterns are in the output, which must not have the password.
func (p *runningDemo) tells(t *testing.T, patterns ...string) {
	t.Helper()
	for _, pattern := range append(patterns, `^ftpalg demo: `) {
		if !regexp.MustCompile(pattern).MatchString(p.out.String()) {
			t.Errorf("nothing matches %s in:\n%s", pattern, &p.out)
		}
	}
	if strings.Contains(p.out.String(), demoPassword) || strings.Contains(p.out.String(), "FAILED") {
		t.Errorf("it has a password or FAILED in it:\n%s", &p.out)
	}
}

// fits checks that the account can be seen at once.
func (p *runningDemo) fits(t *testing.T) {
	t.Helper()
	lines := strings.Split(strings.TrimSpace(p.out.String()), "\n")
	if len(lines) > 60 {
		t.Errorf("%d lines", len(lines))
	}
	for _, l := range lines {
		if len(l) > 100 {
			t.Errorf("%d columns: %s", len(l), l)
		}
	}
}

// leavesNothing checks that all is gone that a demo had.
func (p *runningDemo) leavesNothing(t *testing.T) {
	t.Helper()
	p.hasNoProcesses(t)
	if n := p.namespaces(t); len(n) != 0 {
		t.Errorf("namespaces are left: %q", n)
	}
	if files, err := os.ReadDir(p.tmp); err != nil || len(files) != 0 {
		t.Errorf("files are left: %v %v", files, err)
	}
}

// hasNoProcesses waits until the kernel has ended all processes of the program.
func (p *runningDemo) hasNoProcesses(t *testing.T) {
	t.Helper()
	p.until(t, "no processes", func() bool { return len(processes(t, p.program)) == 0 })
}

func (p *runningDemo) namespaces(t *testing.T) []string {
	t.Helper()
	found, err := filepath.Glob(fmt.Sprintf("/run/netns/ftpalg-demo-%d-*", p.pid))
	if err != nil {
		t.Fatal(err)
	}
	return found
}

// child is the process that plays a role, zero if there is none.
func (p *runningDemo) child(t *testing.T, role string) int {
	t.Helper()
	for _, pid := range processes(t, p.program) {
		args, _ := os.ReadFile(fmt.Sprintf("/proc/%d/cmdline", pid))
		if bytes.HasSuffix(args, []byte("\x00demo\x00"+role+"\x00")) {
			return pid
		}
	}
	return 0
}

// processes are those that run a program.
func processes(t *testing.T, program string) []int {
	t.Helper()
	links, err := filepath.Glob("/proc/[0-9]*/exe")
	if err != nil {
		t.Fatal(err)
	}
	var pids []int
	for _, l := range links {
		if to, err := os.Readlink(l); err == nil && to == program {
			pid, _ := strconv.Atoi(filepath.Base(filepath.Dir(l)))
			pids = append(pids, pid)
		}
	}
	return pids
}

// lockedBuffer is a buffer that can be read while os/exec writes to it.
type lockedBuffer struct {
	mu sync.Mutex
	b  bytes.Buffer
}

// Write implements io.Writer.
func (l *lockedBuffer) Write(b []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.Write(b)
}

func (l *lockedBuffer) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.String()
}
