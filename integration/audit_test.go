//go:build linux

package integration

import (
	"bytes"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"ftpalg/proxy/audit"
)

// send says a command that takes data, sends some, and ends the data connection: well, or by a reset. It returns the final reply.
func (l *lab) send(t *testing.T, k *talk, at netip.AddrPort, command string, content []byte, well bool) string {
	t.Helper()
	data, reply := l.start(t, k, at, command)
	if reply[0] != '1' {
		return reply
	}
	if _, err := data.Write(content); err != nil {
		t.Fatal(err)
	}
	if !well {
		time.Sleep(50 * time.Millisecond) // or the kernel throws away what it has not sent
		data.(*net.TCPConn).SetLinger(0)
	}
	data.Close()
	return k.reply()
}

// begin begins a transfer, and returns its data connection when the server has said 150.
func (l *lab) begin(t *testing.T, k *talk, at netip.AddrPort, command string) net.Conn {
	t.Helper()
	data, reply := l.start(t, k, at, command)
	if reply[0] != '1' {
		t.Fatalf("%s: %s", command, reply)
	}
	return data
}

// give puts a file where the server's user finds it, and may change it.
func (s *server) give(t *testing.T, name string, content []byte) {
	t.Helper()
	file := filepath.Join(s.Home, name)
	err := os.MkdirAll(filepath.Dir(file), 0o755)
	if err == nil {
		err = os.WriteFile(file, content, 0o644)
	}
	for _, f := range []string{filepath.Dir(file), file} {
		if err == nil {
			err = os.Chown(f, s.uid, s.uid)
		}
	}
	if err != nil {
		t.Fatal(err)
	}
}

// of are the events of a kind, in order.
func of(events []audit.Event, kind audit.Kind) []audit.Event {
	return slices.DeleteFunc(slices.Clone(events), func(e audit.Event) bool { return e.Event != kind })
}

// TestAuditTransfers has what is recorded of transfers on each way that bytes go: how many, by what, of which digest, and whether they
// are a whole file. What is compared with is what has arrived.
func TestAuditTransfers(t *testing.T) {
	file := make([]byte, 1<<20+7)
	rand.NewChaCha8([32]byte{6}).Read(file)
	sum := func(b []byte) string { return fmt.Sprintf("%x", sha256.Sum256(b)) }
	for _, way := range []struct{ name, config, carriage string }{
		{"kernel", "listeners: [{mode: tproxy, data_path: kernel}]\n", "kernel"},
		{"splice", "listeners: [{mode: tproxy}]\n", "splice"},
		{"copy", "listeners: [{mode: tproxy}]\npolicy: {rules: [{name: all, action: allow, digest: true}]}\n", "copy"},
	} {
		t.Run(way.name, func(t *testing.T) {
			l := newLab(t)
			record, xferlog := filepath.Join(l.Dir, "audit.jsonl"), filepath.Join(l.Dir, "xferlog")
			s := startServer(t, l, nil)
			s.give(t, "file", file)
			s.give(t, "empty", nil)
			g := l.startGateway(way.config + fmt.Sprintf("audit: {file: %s, xferlog: %s}\n", record, xferlog))
			at := s.AddrPort(v4)
			k := l.logIn(t, at)
			k.ask("TYPE I", "200")
			type want struct {
				verb, outcome string
				content       []byte // that moved
			}
			var wants []want
			expect := func(verb, outcome string, content []byte, reply, code string) {
				t.Helper()
				if !strings.HasPrefix(reply, code) {
					t.Errorf("%s: %s", verb, reply)
				}
				wants = append(wants, want{verb, outcome, content})
			}
			reply, got := l.fetch(t, k, at, "RETR file")
			if got != string(file) {
				t.Error("the file is another")
			}
			expect("RETR", audit.Whole, file, reply, "226")
			reply, _ = l.fetch(t, k, at, "RETR empty")
			expect("RETR", audit.Whole, nil, reply, "226")
			k.ask("REST 1000", "350")
			reply, got = l.fetch(t, k, at, "RETR file")
			if got != string(file[1000:]) {
				t.Error("the rest is another")
			}
			expect("RETR", audit.Whole, file[1000:], reply, "226")
			expect("STOR", audit.Whole, file, l.send(t, k, at, "STOR up", file, true), "226")
			k.ask("REST 1000", "350")
			expect("STOR", audit.Whole, file[:50], l.send(t, k, at, "STOR up", file[:50], true), "226")
			expect("APPE", audit.Whole, file[:99], l.send(t, k, at, "APPE up", file[:99], true), "226")
			expect("STOR", audit.Broken, file[:70000], l.send(t, k, at, "STOR broken", file[:70000], false), "4")
			reply, _ = l.fetch(t, k, at, "RETR nothing")
			expect("RETR", audit.Refused, nil, reply, "550")
			k.ask("QUIT", "221")
			g.Stop()
			g.checkClean()
			events := readAudit(t, record)
			transfers, starts := of(events, audit.Transfer), of(events, audit.TransferStart)
			if len(transfers) != len(wants) || len(starts) != len(wants) {
				t.Fatalf("%d transfers and %d starts are recorded, not %d", len(transfers), len(starts), len(wants))
			}
			for i, w := range wants {
				e := transfers[i]
				counted := *e.Bytes == int64(len(w.content)) || way.carriage == "kernel" && w.outcome == audit.Broken // it counts what has come to an end
				if e.Verb != w.verb || e.Outcome != w.outcome || !counted {
					t.Errorf("%d: %s %s %s, %d bytes, %q; not %s %s, %d", i, e.Verb, e.Path, e.Outcome, *e.Bytes, e.Reason, w.verb, w.outcome, len(w.content))
				}
				if w.outcome != audit.Refused && e.Carriage != way.carriage {
					t.Errorf("%d: carried by %q", i, e.Carriage)
				}
				if way.carriage == "copy" && w.outcome != audit.Refused && e.SHA256 != sum(w.content) {
					t.Errorf("%d: the digest of %s is not that of what moved", i, e.Path)
				}
				if starts[i].Seq >= e.Seq || starts[i].Path != e.Path || starts[i].Offset != e.Offset {
					t.Errorf("%+v begins %+v", starts[i], e)
				}
			}
			b, err := os.ReadFile(xferlog)
			if lines := strings.Count(string(b), "\n"); err != nil || lines != len(wants) || strings.Count(string(b), " c\n") != 6 {
				t.Errorf("%v\n%s", err, b)
			}
		})
	}
}

// TestAuditTLS is the same of TLS on both sides, by curl.
func TestAuditTLS(t *testing.T) {
	need(t, "curl")
	l := newLab(t)
	root := l.newAuthority("root")
	s := startServer(t, l, root)
	file := make([]byte, 300001)
	rand.NewChaCha8([32]byte{7}).Read(file)
	s.give(t, "file", file)
	local := filepath.Join(l.Dir, "local")
	if err := os.WriteFile(local, file, 0o644); err != nil {
		t.Fatal(err)
	}
	own := l.newAuthority("own")
	record := filepath.Join(l.Dir, "audit.jsonl")
	g := l.startGateway(fmt.Sprintf("listeners: [{mode: tproxy, tls: inspect}]\ntls: {authority_cert: %s, authority_key: %s, server_roots: %s}\n"+
		"policy: {rules: [{name: all, action: allow, digest: true}]}\naudit: {file: %s}\n", own.CertFile, own.KeyFile, root.CertFile, record))
	url := fmt.Sprintf("ftp://%s:%s@%s/", ftpUser, ftpPassword, s.Addr[v4])
	for _, args := range [][]string{{"-o", "/dev/null", url + "file"}, {"-T", local, url + "up"}} {
		args = append([]string{"-sS", "--ssl-reqd", "--cacert", own.CertFile}, args...)
		if out, err := l.Client.Command(t.Context(), "curl", args...).CombinedOutput(); err != nil {
			t.Fatalf("%v: %s", err, out)
		}
	}
	g.Stop()
	g.checkClean()
	events := readAudit(t, record)
	for _, e := range of(events, audit.Transfer) {
		if e.Outcome != audit.Whole || *e.Bytes != int64(len(file)) || e.SHA256 != fmt.Sprintf("%x", sha256.Sum256(file)) || e.Carriage != "tls" ||
			e.ClientTLS == nil || e.ServerTLS == nil || !e.ServerTLS.Resumed {
			t.Errorf("%+v", e)
		}
	}
	sides := [2]int{}
	for _, e := range of(events, audit.TLS) {
		if e.ClientTLS != nil {
			sides[0]++
		}
		if e.ServerTLS != nil && e.ServerTLS.Certificate != "" && e.ServerTLS.Verified == "chain" {
			sides[1]++
		}
	}
	if n := len(of(events, audit.Transfer)); n != 2 || sides != [2]int{2, 2} {
		t.Errorf("%d transfers, and TLS of %v", n, sides)
	}
}

// TestAuditKilled: what was on its way when ftpalg was killed has begun in the record and not ended; every line is whole.
func TestAuditKilled(t *testing.T) {
	for _, path := range []string{"kernel", "splice"} {
		t.Run(path, func(t *testing.T) {
			l := newLab(t)
			s := startServer(t, l, nil)
			s.give(t, "file", make([]byte, 64<<20))
			record := filepath.Join(l.Dir, "audit.jsonl")
			config := fmt.Sprintf("listeners: [{mode: tproxy, data_path: %s}]\naudit: {file: %s}\n", path, record)
			g := l.startGateway(config)
			at := s.AddrPort(v4)
			var open []net.Conn
			for i := range 6 {
				k := l.logIn(t, at)
				verb := []string{"RETR file", fmt.Sprintf("STOR up%d", i)}[i%2]
				data := l.begin(t, k, at, verb)
				if i%2 == 1 {
					io.WriteString(data, "some")
				}
				open = append(open, data)
			}
			k := l.logIn(t, at)
			l.send(t, k, at, "STOR whole", []byte("whole"), true)
			g.until("its end is recorded", func() bool { return len(of(readAudit(t, record), audit.Transfer)) == 1 })
			g.Signal(syscall.SIGKILL)
			<-g.ended
			for _, c := range open {
				c.Close()
			}
			events := readAudit(t, record)
			begun := map[string]string{}
			for _, e := range events {
				switch e.Event {
				case audit.TransferStart:
					begun[e.Session] = e.Path
				case audit.Transfer:
					delete(begun, e.Session)
					if e.Carriage != path {
						t.Errorf("the whole one went by %s", e.Carriage)
					}
				}
			}
			if len(begun) != len(open) {
				t.Errorf("%d transfers were on their way, and by the record it is %v", len(open), begun)
			}
			before := len(events)
			g = l.startGatewayAs(config, func(ctx context.Context, program string, args ...string) *exec.Cmd {
				return l.Firewall.Command(ctx, program, args...)
			})
			g.until("the next process begins", func() bool { return len(readAudit(t, record)) > before })
			g.Stop()
			if events = readAudit(t, record); len(events) <= before || events[before].Event != audit.Opened || events[before].Seq != 1 {
				t.Errorf("the next process does not begin anew: %+v", events[before:])
			}
		})
	}
}

// TestAuditDisk fills the disk under the record while clients work.
func TestAuditDisk(t *testing.T) {
	for _, mode := range []string{"drop", "refuse", "block"} {
		t.Run(mode, func(t *testing.T) {
			l := newLab(t)
			s := startServer(t, l, nil)
			s.give(t, "file", []byte("hello"))
			dir := filepath.Join(l.Dir, "disk")
			if err := os.Mkdir(dir, 0o755); err != nil {
				t.Fatal(err)
			}
			if out, err := exec.Command("mount", "-t", "tmpfs", "-o", "size=128k", "tmpfs", dir).CombinedOutput(); err != nil {
				t.Fatalf("%v: %s", err, out)
			}
			t.Cleanup(func() { syscall.Unmount(dir, syscall.MNT_DETACH) })
			record, ballast := filepath.Join(dir, "audit.jsonl"), filepath.Join(dir, "ballast")
			g := l.startGateway(fmt.Sprintf("listeners: [{mode: tproxy}]\naudit: {file: %s, queue: 20, on_full: %s, commands: true}\n", record, mode))
			at := s.AddrPort(v4)
			k := l.logIn(t, at)
			full := bytes.Repeat([]byte{1}, 128<<10)
			os.WriteFile(ballast, full, 0o600) // as much as there is room for
			// What is left of the last page takes some lines yet.
			stuck := make(chan struct{})
			go func() {
				defer close(stuck)
				for range 200 {
					k.say("NOOP")
					if _, err := k.r.ReadString('\n'); err != nil {
						return
					}
				}
			}()
			if mode == "block" {
				select {
				case <-stuck:
					t.Fatal("the session does not wait")
				case <-time.After(2 * time.Second):
				}
			} else {
				<-stuck
			}
			g.await("the audit cannot be written", "no space left on device", record)
			switch mode {
			case "drop":
				if reply, content := l.fetch(t, k, at, "RETR file"); reply[:3] != "226" || content != "hello" {
					t.Errorf("%s, %q", reply, content)
				}
			case "refuse":
				if reply, content := l.fetch(t, k, at, "RETR file"); reply[:3] != "451" || content != "" {
					t.Errorf("%s, %q", reply, content)
				}
				k.ask("DELE file", "451")
				k.ask("PWD", "257")
				other := l.Client.call(t, at)
				other.hear("220")
				other.ask("USER "+ftpUser, "421")
			}
			os.Remove(ballast)
			<-stuck
			g.await("the audit can be written again")
			if reply, content := l.fetch(t, k, at, "RETR file"); reply[:3] != "226" || content != "hello" {
				t.Errorf("with room again: %s, %q", reply, content)
			}
			k.ask("QUIT", "221")
			g.Stop()
			g.checkClean()
			events := readAudit(t, record)
			lost := of(events, audit.Dropped)
			if mode == "block" && len(lost) != 0 || mode != "block" && len(lost) == 0 {
				t.Errorf("lost by the record: %+v", lost)
			}
			for i, e := range events {
				if e.Seq != uint64(i+1) {
					t.Fatalf("line %d has seq %d", i+1, e.Seq)
				}
			}
			if _, err := os.Stat(filepath.Join(s.Home, "file")); err != nil {
				t.Error(err)
			}
		})
	}
}

// TestAuditRotate has a busy record rotated by its signal: no line is lost.
func TestAuditRotate(t *testing.T) {
	l := newLab(t)
	s := startServer(t, l, nil)
	record := filepath.Join(l.Dir, "audit.jsonl")
	g := l.startGateway(fmt.Sprintf("listeners: [{mode: tproxy}]\naudit: {file: %s, commands: true}\n", record))
	k := l.logIn(t, s.AddrPort(v4))
	const rotations = 5
	for i := range rotations {
		for range 300 {
			k.ask("NOOP", "200")
		}
		if err := os.Rename(record, fmt.Sprintf("%s.%d", record, i)); err != nil {
			t.Fatal(err)
		}
		g.Signal(syscall.SIGUSR1)
	}
	k.ask("QUIT", "221")
	g.Stop()
	g.checkClean()
	var files []string
	for i := range rotations {
		files = append(files, fmt.Sprintf("%s.%d", record, i))
	}
	checkNoneLost(t, 300*rotations, append(files, record)...)
}

// checkNoneLost fails the test unless some files of an audit, the oldest first, have every event, and so many NOOPs among them.
func checkNoneLost(t *testing.T, noops int, files ...string) {
	t.Helper()
	next, commands := uint64(1), 0
	for _, file := range files {
		for _, e := range readAudit(t, file) {
			if e.Seq != next {
				t.Fatalf("%s: seq %d follows %d", file, e.Seq, next-1)
			}
			if next++; e.Verb == "NOOP" {
				commands++
			}
		}
	}
	if commands != noops {
		t.Errorf("%d commands are recorded", commands)
	}
}

// TestLogrotate has logrotate itself rotate a busy record, by the rule that we ship and in a directory as the package makes it, three times:
// no line is lost, ftpalg goes on in a file of its own, and a link that ftpalg's user has put there makes logrotate, which is root, touch
// nothing elsewhere.
func TestLogrotate(t *testing.T) {
	need(t, "logrotate", "setpriv")
	l := newLab(t)
	s := startServer(t, l, nil)
	logs := filepath.Join(l.Dir, "rotated")
	record := filepath.Join(logs, "audit.jsonl")
	const nobody = 65534
	if err := errors.Join(os.Mkdir(logs, 0o750), os.Chmod(logs, 0o750), os.Chown(logs, nobody, nobody)); err != nil {
		t.Fatal(err)
	}
	g := l.startGatewayAs(fmt.Sprintf("listeners: [{mode: tproxy}]\naudit: {file: %s, commands: true}\n", record)+modest, l.as("+net_admin,+net_bind_service"))

	// Only what is of this machine is not as we ship it: where the files are, who they belong to, and by whom the signal is sent.
	rule, err := os.ReadFile("../config/logrotate/ftpalg")
	if err != nil {
		t.Fatal(err)
	}
	text := string(rule)
	for old, now := range map[string]string{
		"/var/log/ftpalg/": logs + "/", "su ftpalg ftpalg": "su nobody nogroup",
		"systemctl kill --signal=USR1 --kill-whom=main ftpalg.service": fmt.Sprintf("kill -USR1 %d", g.pid()),
	} {
		if !strings.Contains(text, old) {
			t.Fatalf("the rule has no %q", old)
		}
		text = strings.ReplaceAll(text, old, now)
	}
	// logrotate reads no rule that others may write.
	file := filepath.Join(l.Dir, "logrotate.conf")
	if err := os.WriteFile(file, []byte(text), 0o644); err != nil {
		t.Fatal(err)
	}
	secret := filepath.Join(l.Dir, "secret")
	if err := errors.Join(os.WriteFile(secret, []byte("root's"), 0o600), os.Symlink(secret, filepath.Join(logs, "evil.jsonl"))); err != nil {
		t.Fatal(err)
	}

	k := l.logIn(t, s.AddrPort(v4))
	const rotations = 3
	for i := range rotations {
		for range 300 {
			k.ask("NOOP", "200")
		}
		before, err := os.Stat(record)
		if err != nil {
			t.Fatal(err)
		}
		if said, err := exec.Command("logrotate", "-f", "-s", filepath.Join(l.Dir, "state"), file).CombinedOutput(); err != nil || len(said) > 0 {
			t.Fatalf("logrotate: %v: %s", err, said)
		}
		g.until(fmt.Sprintf("file %d is there", i+2), func() bool {
			after, err := os.Stat(record)
			return err == nil && !os.SameFile(before, after)
		})
	}
	k.ask("QUIT", "221")
	g.Stop()
	g.checkClean()

	var files []string
	for n := rotations; n > 0; n-- {
		file := fmt.Sprintf("%s.%d", record, n)
		if n > 1 { // delaycompress leaves the last one
			if said, err := exec.Command("gzip", "-d", file+".gz").CombinedOutput(); err != nil {
				t.Fatalf("%v: %s", err, said)
			}
		}
		files = append(files, file)
	}
	checkNoneLost(t, 300*rotations, append(files, record)...)
	if got := string(readAll(secret)); got != "root's" {
		t.Errorf("a file of root's has become %q", got)
	}
	for _, name := range []string{"audit.jsonl", "audit.jsonl.1"} {
		info, err := os.Stat(filepath.Join(logs, name))
		if err != nil || info.Sys().(*syscall.Stat_t).Uid != nobody || info.Mode().Perm()&0o137 != 0 {
			t.Errorf("%s: %v, %v", name, info, err)
		}
	}
}

// TestAuditSecrets: no password is in the record, whichever way it came.
func TestAuditSecrets(t *testing.T) {
	l := newLab(t)
	s := startServer(t, l, nil)
	record := filepath.Join(l.Dir, "audit.jsonl")
	g := l.startGateway(tunnelProxy + l.accounts(true) + fmt.Sprintf("audit: {file: %s, commands: true}\n", record))
	at, host := ftpalgItself(v4), s.Addr[v4].String()
	for _, lines := range [][][2]string{
		{{"USER " + proxyUser, "331"}, {"PASS " + proxyPassword, "230"}, {"USER " + ftpUser + "@" + host, "331"}, {"PASS " + ftpPassword, "230"}, {"ACCT " + ftpPassword, ""}, {"XPAS " + ftpPassword, ""}, {"SITE PSWD " + ftpPassword, ""}},
		{{"USER " + ftpUser + "@" + proxyUser + "@" + host, "331"}, {"PASS " + ftpPassword + "@" + proxyPassword, "230"}},
		{{"USER " + ftpUser + "@" + host + " " + proxyUser, "331"}, {"PASS " + ftpPassword, "332"}, {"ACCT " + proxyPassword, "230"}},
		{{"USER " + proxyUser + ":" + ftpUser + "@" + host, "331"}, {"PASS " + proxyPassword + ":" + ftpPassword, "230"}},
	} {
		k := l.Client.call(t, at)
		k.hear("220")
		for _, line := range lines {
			k.say("%s", line[0])
			if reply := k.reply(); !strings.HasPrefix(reply, line[1]) {
				t.Errorf("%s: %s", line[0], reply)
			}
		}
		k.ask("QUIT", "221")
	}
	g.Stop()
	g.checkClean()
	b, err := os.ReadFile(record)
	if err != nil || bytes.Contains(b, []byte(ftpPassword)) || bytes.Contains(b, []byte(proxyPassword)) {
		t.Errorf("%v: a password is in the record", err)
	}
	events := readAudit(t, record)
	logins := slices.DeleteFunc(of(events, audit.Login), func(e audit.Event) bool { return e.Outcome != audit.Success }) // ACCT has failed
	if len(logins) != 4 || logins[0].Account != proxyUser || logins[0].User != ftpUser || len(of(events, audit.ProxyLogin)) != 4 {
		t.Errorf("%+v", logins)
	}
}
