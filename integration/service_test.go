//go:build linux

package integration

import (
	"context"
	"fmt"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// What systemd does for a service, by peers of the test's own: no test can rely on a systemd that runs.

// A superior is what a service tells how it is, as systemd is (sd_notify(3)).
type superior struct {
	t    *testing.T
	path string
	mu   sync.Mutex
	told []notice
}

// notice is what was told at once, and by which process.
type notice struct {
	pid  int
	text string
}

func (l *lab) newSuperior(t *testing.T) *superior {
	t.Helper()
	s := &superior{t: t, path: filepath.Join(l.Dir, "notify")}
	c, err := net.ListenUnixgram("unixgram", &net.UnixAddr{Name: s.path, Net: "unixgram"})
	if err == nil {
		err = os.Chmod(s.path, 0o777) // as services run as somebody else
	}
	var raw syscall.RawConn
	if err == nil {
		raw, err = c.SyscallConn()
	}
	if err == nil {
		raw.Control(func(fd uintptr) { err = unix.SetsockoptInt(int(fd), unix.SOL_SOCKET, unix.SO_PASSCRED, 1) })
	}
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	go s.listen(c)
	return s
}

func (s *superior) listen(c *net.UnixConn) {
	text, control := make([]byte, 64<<10), make([]byte, 1024)
	for {
		n, m, _, _, err := c.ReadMsgUnix(text, control)
		if err != nil {
			return
		}
		pid := 0
		if messages, err := unix.ParseSocketControlMessage(control[:m]); err == nil && len(messages) == 1 {
			if cred, err := unix.ParseUnixCredentials(&messages[0]); err == nil {
				pid = int(cred.Pid)
			}
		}
		s.mu.Lock()
		s.told = append(s.told, notice{pid, string(text[:n])})
		s.mu.Unlock()
	}
}

// hears waits for a notice, after those that were heard before, that has some words, and returns it with all up to it.
func (s *superior) hears(from int, words ...string) (notice, int) {
	s.t.Helper()
	for deadline := time.Now().Add(hang); time.Now().Before(deadline); time.Sleep(5 * time.Millisecond) {
		s.mu.Lock()
		told := slices.Clone(s.told)
		s.mu.Unlock()
		for i := from; i < len(told); i++ {
			all := true
			for _, w := range words {
				all = all && strings.Contains(told[i].text, w)
			}
			if all {
				return told[i], i + 1
			}
		}
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.t.Fatalf("not told %q, but %v", words, s.told)
	return notice{}, 0
}

// socketOf is a listening socket in the firewall's namespace, as a .socket unit makes it.
func (l *lab) socketOf(t *testing.T, at string, transparent, only6 bool) *os.File {
	t.Helper()
	var file *os.File
	err := l.Firewall.Do(func() error {
		a := netip.MustParseAddrPort(at)
		family, level, option := unix.AF_INET, unix.SOL_IP, unix.IP_TRANSPARENT
		var sa unix.Sockaddr = &unix.SockaddrInet4{Port: int(a.Port()), Addr: [4]byte(a.Addr().AsSlice())}
		if a.Addr().Is6() {
			family, level, option = unix.AF_INET6, unix.SOL_IPV6, unix.IPV6_TRANSPARENT
			sa = &unix.SockaddrInet6{Port: int(a.Port()), Addr: a.Addr().As16()}
		}
		fd, err := unix.Socket(family, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
		if err != nil {
			return err
		}
		file = os.NewFile(uintptr(fd), at)
		set := func(level, option int, on bool) {
			if on && err == nil {
				err = unix.SetsockoptInt(fd, level, option, 1)
			}
		}
		set(unix.SOL_SOCKET, unix.SO_REUSEADDR, true)
		set(level, option, transparent)
		set(unix.SOL_IPV6, unix.IPV6_V6ONLY, only6)
		if err == nil {
			err = unix.Bind(fd, sa)
		}
		if err == nil {
			err = unix.Listen(fd, 16)
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { file.Close() })
	return file
}

// activated returns how to start a program as systemd starts a service: with sockets, and with somebody to tell how it is.
func activated(start func(context.Context, string, ...string) *exec.Cmd, names string, sockets []*os.File, environ ...string) func(context.Context, string, ...string) *exec.Cmd {
	return func(ctx context.Context, program string, args ...string) *exec.Cmd {
		c := start(ctx, "sh", append([]string{"-c", `export LISTEN_PID=$$ WATCHDOG_PID=$$; exec "$0" "$@"`, program}, args...)...)
		c.ExtraFiles = sockets
		c.Env = append(append(c.Env, environ...), "LISTEN_FDS="+strconv.Itoa(len(sockets)), "LISTEN_FDNAMES="+names)
		return c
	}
}

// A transparent gateway, an explicit proxy on two sockets, and a listener of ftpalg's own: connections come to all of them, also
// while ftpalg is down, and over reloads that take listeners away and give them back. Somebody else's socket is named in a warning.
func TestServiceSockets(t *testing.T) {
	l := newLab(t)
	l.DropForward()
	at := port(serverAddress, v4, 21)
	p := newPuppet(t, l, at)
	sockets := []*os.File{
		l.socketOf(t, "[::]:2121", true, false),
		l.socketOf(t, "[::]:2122", false, true), l.socketOf(t, "0.0.0.0:2122", false, false),
		l.socketOf(t, "0.0.0.0:2123", false, false),
	}
	tproxy := "listeners:\n  - {mode: tproxy}\n"
	other := fmt.Sprintf("  - {mode: gateway, address: '[::]:2122', server: '%v'}\n  - {name: own, mode: gateway, address: '[::]:2124', server: '%[1]v'}\n", at)
	start := activated(l.Firewall.Command, "tproxy:explicit:explicit:stray", sockets)
	g := l.startGatewayAs(tproxy+other+modest, start)
	knock := func(to netip.AddrPort) {
		t.Helper()
		k := l.Client.call(t, to)
		x := p.admit(k, "alice")
		k.say("QUIT")
		x.expect("QUIT", "221 bye")
		k.hear("221")
	}
	g.await("is no listener's", "0.0.0.0:2123")
	all := func() {
		t.Helper()
		knock(at)
		for _, f := range families {
			knock(port(clientGateway, f, 2122))
		}
		knock(port(clientGateway, v4, 2124))
	}
	all()
	if line := g.logged("level=WARN", "IP version"); line != "" {
		t.Error(line)
	}
	g.reload(tproxy + modest)
	g.await("is no listener's", "[::]:2122")
	knock(at)
	// Its clients wait until it is a listener again: systemd has the address, so it cannot be refused.
	waiting := l.Client.call(t, port(clientGateway, v6, 2122))
	g.reload(tproxy + other + modest)
	x := p.admit(waiting, "patient")
	waiting.say("QUIT")
	x.expect("QUIT", "221 bye")
	waiting.hear("221")
	all()
	g.Stop()
	g.checkClean()
	early := l.Client.call(t, at) // while nobody is there
	g = l.startGatewayAs(tproxy+other+modest, start)
	p.admit(early, "early")
	all()
	g.Stop()
	g.checkClean()
}

// A socket that is transparent for another mode than tproxy would have ftpalg take connections to that port of any host behind the
// firewall; one that is not, for tproxy, gets none. Neither is used, and the message says what to do.
func TestServiceSocketsWrong(t *testing.T) {
	l := newLab(t)
	for _, wrong := range []struct {
		what, config string
		sockets      []*os.File
		words        []string
	}{
		{"not transparent", "listeners: [{mode: tproxy}]\n", []*os.File{l.socketOf(t, "[::]:2121", false, false)},
			[]string{"listener tproxy", "[::]:2121", "Transparent=yes", "restart"}},
		{"transparent", "listeners: [{name: mine, mode: explicit, address: '0.0.0.0:2122'}]\n", []*os.File{l.socketOf(t, "0.0.0.0:2122", true, false)},
			[]string{"listener mine", "0.0.0.0:2122", "take Transparent=yes from"}},
	} {
		said := l.fails(strings.ReplaceAll(wrong.what, " ", "-"), activated(l.Firewall.Command, "a", wrong.sockets), wrong.config)
		for _, want := range wrong.words {
			if !strings.Contains(said, want) {
				t.Errorf("%s: it says, without %q: %s", wrong.what, want, said)
			}
		}
	}
	// What is no listener at all, and what is one for half of its clients; and nobody to tell.
	datagram, err := net.ListenPacket("udp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer datagram.Close()
	file, err := datagram.(*net.UDPConn).File()
	if err != nil {
		t.Fatal(err)
	}
	defer file.Close()
	g := l.startGatewayAs("listeners: [{mode: explicit, address: '[::]:2129'}]\n"+modest,
		activated(l.Firewall.Command, "datagram:half", []*os.File{file, l.socketOf(t, "[::]:2129", false, true)}, "NOTIFY_SOCKET=/nowhere/notify"))
	g.await("the supervisor cannot be told", "NOTIFY_SOCKET")
	g.await("of no use", "socket=datagram", "ListenStream=")
	g.await("one IP version", "ipv4=false", "ipv6=true")
	g.Stop()
	g.checkClean()
}

// What systemd is told: when connections are served, of reloads that succeed and fail, that all is well, of the end, and which process
// is the service after an upgrade. The watchdog's process id is the first one's; its time is everybody's.
func TestServiceNotify(t *testing.T) {
	l := newLab(t)
	l.DropForward()
	superior := l.newSuperior(t)
	at := port(serverAddress, v4, 21)
	config := fmt.Sprintf("listeners: [{mode: gateway, address: '[::]:2122', server: '%v'}]\n", at)
	g := l.startGatewayAs(config+modest, activated(l.Firewall.Command, "gateway", []*os.File{l.socketOf(t, "[::]:2122", false, false)},
		"NOTIFY_SOCKET="+superior.path, "WATCHDOG_USEC=200000")).asService()
	told, next := superior.hears(0, "READY=1\n", "STATUS=Serving; sessions: 0")
	if told.pid != g.pid() || next != 1 {
		t.Errorf("READY is notice %d, by %d", next, told.pid)
	}
	_, next = superior.hears(next, "WATCHDOG=1")
	_, next = superior.hears(next, "WATCHDOG=1")

	g.reload(config + modest)
	reloading, next := superior.hears(next, "RELOADING=1\nMONOTONIC_USEC=")
	if !regexp.MustCompile(`\nMONOTONIC_USEC=[0-9]{5,}\n`).MatchString(reloading.text) {
		t.Errorf("%q", reloading.text)
	}
	_, next = superior.hears(next, "READY=1\n", "STATUS=Serving;")
	g.configure(config + "limits: {sesions: 5}\n")
	g.Signal(syscall.SIGHUP)
	_, next = superior.hears(next, "RELOADING=1\n")
	_, next = superior.hears(next, "READY=1\n", "STATUS=Serving by the old configuration", "limits.sesions")
	g.reload(config + modest)
	_, next = superior.hears(next, "READY=1\n", "STATUS=Serving;")

	p := newPuppet(t, l, at)
	k := l.Client.call(t, port(clientGateway, v4, 2122))
	x := p.admit(k, "alice")
	_, next = superior.hears(next, "STATUS=Serving; sessions: 1")
	g.upgrade()
	main, next := superior.hears(next, "MAINPID="+strconv.Itoa(g.now))
	ready, next := superior.hears(next, "READY=1\n")
	if main.pid != g.pid() || ready.pid != g.now {
		t.Errorf("MAINPID is by %d, and READY by %d; the processes are %d and %d", main.pid, ready.pid, g.pid(), g.now)
	}
	beat, next := superior.hears(next, "WATCHDOG=1")
	if beat.pid != g.now {
		t.Errorf("the watchdog hears process %d", beat.pid)
	}
	k.say("QUIT")
	x.expect("QUIT", "221 bye")
	k.hear("221")
	g.upgraded()
	// The sockets go from process to process, and stay systemd's.
	young := l.Client.call(t, port(clientGateway, v4, 2122))
	p.admit(young, "bob")
	g.end()
	_, next = superior.hears(next, "STOPPING=1\n", "STATUS=Draining")
	extend, _ := superior.hears(next, "EXTEND_TIMEOUT_USEC=15000000\n")
	if extend.pid != g.now {
		t.Errorf("process %d asks for time", extend.pid)
	}
	young.hear("421")
	superior.mu.Lock()
	defer superior.mu.Unlock()
	for i, n := range superior.told {
		if i > next && n.pid != g.now {
			t.Errorf("after the upgrade process %d said %q", n.pid, n.text)
		}
	}
}

// By systemd's own peer for tests: it listens, and starts ftpalg when the first client comes.
func TestServiceActivate(t *testing.T) {
	need(t, "systemd-socket-activate")
	l := newLab(t)
	l.DropForward()
	at := port(serverAddress, v4, 21)
	p := newPuppet(t, l, at)
	config := filepath.Join(l.Dir, "activate.yaml")
	if err := os.WriteFile(config, fmt.Appendf(nil, "listeners: [{mode: gateway, address: '[::]:2122', server: '%v'}]\n%s", at, modest), 0o644); err != nil {
		t.Fatal(err)
	}
	d := l.Firewall.Start("activate", l.Firewall.Command(context.Background(), "systemd-socket-activate", "--listen=2122", "--fdname=explicit",
		ftpalgProgram(t), "run", "--config", config))
	d.says("Listening on")
	for range 2 {
		k := l.Client.call(t, port(clientGateway, v4, 2122))
		p.admit(k, "alice")
	}
	d.Stop()
	if log := string(readAll(d.Log)); strings.Contains(log, "level=WARN") || strings.Contains(log, "level=ERROR") {
		t.Errorf("it is not content:\n%s", log)
	}
}
