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
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// What many sessions at once take, and give back. There are no limits on time here: machines differ.

// startUnraced is startGateway with a program that has no race detector in it.
func (l *lab) startUnraced(config string) *gateway {
	l.t.Helper()
	program, err := builtUnraced()
	if err != nil {
		l.t.Fatal(err)
	}
	l.DropForward()
	return l.startGatewayAs(config, func(ctx context.Context, _ string, args ...string) *exec.Cmd {
		return l.Firewall.Command(ctx, program, args...)
	})
}

// descriptors is the number of files that the gateway has open.
func (g *gateway) descriptors() int {
	g.lab.t.Helper()
	files, err := os.ReadDir(fmt.Sprintf("/proc/%d/fd", g.pid()))
	if err != nil {
		g.lab.t.Fatal(err)
	}
	return len(files)
}

// atRest is the number of files that the gateway has open before anybody comes. At its start it looks at the kernel's rules,
// which takes a socket for a while, and says nothing when it is done: so the number counts that does not change any more.
func (g *gateway) atRest() int {
	g.lab.t.Helper()
	files, same := g.descriptors(), 0
	g.until("nothing is opened or closed any more", func() bool {
		same++
		if now := g.descriptors(); now != files {
			files, same = now, 0
		}
		return same == 100
	})
	return files
}

// proportional is the memory that a process has to itself, its share of what it has with others included, in bytes.
func proportional(t *testing.T, pid int) int64 {
	t.Helper()
	for line := range strings.Lines(string(readAll(fmt.Sprintf("/proc/%d/smaps_rollup", pid)))) {
		if rest, ok := strings.CutPrefix(line, "Pss:"); ok {
			var kib int64
			if _, err := fmt.Sscan(rest, &kib); err == nil {
				return kib << 10
			}
		}
	}
	t.Fatal("no Pss in smaps_rollup")
	return 0
}

// settled waits until the gateway has as few files open as before. It keeps a splice's pipes for the next one, until
// the garbage collector finds them unused; a gateway with nothing to do collects every two minutes only. So it is given
// sessions that leave garbage: knock makes one.
func (g *gateway) settled(before int, knock func()) {
	g.lab.t.Helper()
	g.until(fmt.Sprintf("%d files are open again", before), func() bool {
		if g.descriptors() == before {
			return true
		}
		for range 20 {
			knock()
		}
		return false
	})
}

// knock has a session that is over as soon as it has begun.
func (l *lab) knock(to netip.AddrPort) func() {
	return func() {
		l.t.Helper()
		k, err := l.Client.Dial(l.t.Context(), to)
		if err != nil {
			l.t.Fatal(err)
		}
		defer k.Close()
		k.SetDeadline(time.Now().Add(hang))
		if _, err := k.Write([]byte("QUIT\r\n")); err != nil {
			l.t.Error(err)
		}
		buf := make([]byte, 512)
		for err == nil {
			_, err = k.Read(buf)
		}
	}
}

// says waits until a daemon's log has some words.
func (d *daemon) says(words string) {
	d.t.Helper()
	for deadline := time.Now().Add(hang); ; time.Sleep(5 * time.Millisecond) {
		over := false
		select {
		case <-d.ended:
			over = true
		default:
			over = time.Now().After(deadline)
		}
		if strings.Contains(string(readAll(d.Log)), words) {
			return
		}
		if over {
			d.t.Fatalf("%s has not said %q", filepath.Base(d.Log), words)
		}
	}
}

// succeeds waits for a daemon that ends by itself.
func (d *daemon) succeeds() {
	d.t.Helper()
	select {
	case <-d.ended:
		if d.err != nil {
			d.t.Fatalf("%s: %v\n%s", filepath.Base(d.Log), d.err, readAll(d.Log))
		}
	case <-time.After(hang):
		d.t.Fatalf("%s has not ended in %v", filepath.Base(d.Log), hang)
	}
}

func TestLoadTransfers(t *testing.T) {
	const clients, rounds = 1000, 4
	l := newLab(t)
	at, home := l.startCrowdServer(t)
	g := l.startUnraced(fmt.Sprintf("listeners: [{mode: tproxy}]\nlimits: {sessions: %d, sessions_per_client: %[1]d}\n", 2*clients))
	files := g.atRest()
	l.awaitServer(at)
	crowd := func(name string) {
		begun := time.Now()
		c := l.startBusyCrowd(name, at, clients, rounds, home)
		c.says("are in")
		in := time.Now()
		peak := 0
		for c.running() {
			peak = max(peak, g.descriptors())
			time.Sleep(50 * time.Millisecond) // between two looks
		}
		c.succeeds()
		t.Logf("%d sessions in after %v, %d transfers in %v, at most %d files open, %d MiB resident", clients, in.Sub(begun),
			clients*rounds, time.Since(in), peak, resident(t, g.pid())>>20)
		if peak < 2*clients {
			t.Errorf("the sessions were not there at once: %d files were open at most", peak)
		}
		g.settled(files, l.knock(at))
	}
	crowd("crowd-1")
	memory := resident(t, g.pid())
	// Whoever leaks does so again. What the first crowd took is the runtime's to keep.
	crowd("crowd-2")
	// The runtime gives back what is free in its own time, which is two minutes at most; what has leaked it never does.
	after := resident(t, g.pid())
	for deadline := time.Now().Add(3 * time.Minute); after > memory*3/2 && time.Now().Before(deadline); after = resident(t, g.pid()) {
		time.Sleep(100 * time.Millisecond) // between two looks
	}
	if after > memory*3/2 {
		t.Errorf("after one crowd there are %d bytes resident, and %d after two", memory, after)
	}
	if n := strings.Count(g.log(), "msg=transfer "); n != 2*clients*rounds {
		t.Errorf("the log has %d transfers, not %d", n, 2*clients*rounds)
	}
	if line := g.logged("outcome=broken"); line != "" {
		t.Errorf("not all is well: %s", line)
	}
	g.goroutines(t)
	g.Stop()
	g.checkClean()
}

func (d *daemon) running() bool {
	select {
	case <-d.ended:
		return false
	default:
		return true
	}
}

// goroutines fails the test if the gateway, which nobody uses any more, still has goroutines that serve somebody. It ends the
// gateway: the runtime writes all stacks when it is asked to quit.
func (g *gateway) goroutines(t *testing.T) {
	t.Helper()
	g.Signal(syscall.SIGQUIT)
	<-g.ended
	stacks := g.log()
	if !strings.Contains(stacks, "goroutine 1 ") {
		t.Error("the gateway left no stacks")
	}
	for _, name := range []string{"proxy.(*Proxy).serve", "control.(*Session).Run", "dataconn.(*Transfer)"} {
		if n := strings.Count(stacks, name); n > 0 {
			t.Errorf("%d goroutines are in %s", n, name)
		}
	}
}

func TestLoadIdle(t *testing.T) {
	l := newLab(t)
	l.addCrowd()
	// Each session has two connections in the gateway; all else that is open is less than a hundred. Where one process may
	// not have as many files as 10,000 sessions take, a second one beside it has the rest.
	const all = 10_000
	clients := min(all, (mostFiles(t)-100)/2)
	at := port(serverAddress, v4, 21)
	s := l.Server.Start("tiny", l.Server.role(context.Background(), "tiny", at.String(), "park"))
	s.says("listening")
	g := l.startUnraced("listeners: [{mode: tproxy}]\nlimits: {sessions: 10000, sessions_per_client: 10000}\n")
	files, rss, pss := g.atRest(), resident(t, g.pid()), proportional(t, g.pid())

	var beside, others *daemon
	if clients < all {
		beside, others = l.idleBeside(at, all-clients)
	}
	begun := time.Now()
	c := l.Client.Start("crowd", l.Client.role(context.Background(), "crowd", "idle", at.String(), strconv.Itoa(clients)))
	c.says("are in")
	n := int64(clients)
	each := (proportional(t, g.pid()) - pss) / n
	t.Logf("%d idle sessions in after %v; for each: %d bytes resident, %d bytes proportional, %.2f files", clients,
		time.Since(begun), (resident(t, g.pid())-rss)/n, each, float64(g.descriptors()-files)/float64(n))
	// A frame that is larger than need be doubles the stack of each: the compiler may make one by inlining what is called often. The
	// runtime takes back what stacks a login needed, and an idle session does not, in its own time, which is two minutes at most.
	const most = 24 << 10
	for deadline := time.Now().Add(2*time.Minute + 10*time.Second); each > most && time.Now().Before(deadline); {
		time.Sleep(time.Second) // between two looks
		each = (proportional(t, g.pid()) - pss) / n
	}
	if each > most {
		t.Errorf("each idle session takes %d bytes", each)
	}
	if got := g.descriptors() - files; got != 2*clients {
		t.Errorf("%d files are open for %d sessions", got, clients)
	}
	begun = time.Now()
	g.Signal(syscall.SIGTERM)
	if beside != nil {
		beside.Signal(syscall.SIGTERM)
		others.succeeds()
		beside.succeeds()
	}
	c.succeeds()
	select {
	case <-g.ended:
	case <-time.After(hang):
		t.Fatal("the gateway has not ended")
	}
	t.Logf("all have gone %v after SIGTERM", time.Since(begun))
	if g.err != nil {
		t.Errorf("the gateway ended with %v", g.err)
	}
	g.checkClean()
	if line := g.logged("level=ERROR"); line != "" {
		t.Error(line)
	}
}

// idleBeside has some idle sessions held by a gateway of their own. It returns that and their clients, who end when they have
// been told goodbye.
func (l *lab) idleBeside(at netip.AddrPort, clients int) (beside, others *daemon) {
	l.t.Helper()
	program, err := builtUnraced()
	if err != nil {
		l.t.Fatal(err)
	}
	own := netip.AddrPortFrom(clientGateway[v4].Addr(), 2199)
	file := filepath.Join(l.Dir, "beside.yaml")
	config := fmt.Sprintf("listeners: [{mode: gateway, address: '%v', server: '%v'}]\nlimits: {sessions_per_client: 10000}\n", own, at)
	if err := os.WriteFile(file, []byte(config), 0o644); err != nil {
		l.t.Fatal(err)
	}
	beside = l.Firewall.Start("ftpalg-beside", l.Firewall.Command(context.Background(), program, "run", "--config", file))
	beside.says("msg=listening")
	others = l.Client.Start("crowd-beside", l.Client.role(context.Background(), "crowd", "idle", own.String(), strconv.Itoa(clients)))
	others.says("are in")
	return beside, others
}

// mostFiles raises the limit on open files of this process, and so of those that it starts, as far as it may and is of use.
func mostFiles(t *testing.T) int {
	t.Helper()
	const wanted = 64 << 10
	var r unix.Rlimit
	if err := unix.Getrlimit(unix.RLIMIT_NOFILE, &r); err != nil {
		t.Fatal(err)
	}
	if r.Max < wanted {
		if err := unix.Setrlimit(unix.RLIMIT_NOFILE, &unix.Rlimit{Cur: wanted, Max: wanted}); err != nil {
			t.Logf("the limit on open files stays %d: %v", r.Max, err) // CAP_SYS_RESOURCE, which containers take away
			return int(r.Max)
		}
	}
	return wanted
}

// A killed server and clients that are killed or just fall silent leave nothing open in the gateway.
func TestLoadKilled(t *testing.T) {
	const times = 20
	l := newLab(t)
	at := port(serverAddress, v4, 21)
	g := l.startGateway("listeners: [{mode: tproxy}]\nlimits: {sessions_per_client: 1000}\ntimeouts: {data_idle: 1s, idle: 3s}\n")
	files := g.atRest()
	start := func() *daemon {
		d := l.Server.Start("tiny", l.Server.role(context.Background(), "tiny", at.String()))
		l.awaitServer(at)
		return d
	}
	tiny := start()
	verb := func(i int) string { return []string{"RETR", "STOR"}[i%2] }

	for i := range times {
		x := l.endless(t, at, verb(i))
		tiny.Signal(syscall.SIGKILL)
		<-tiny.ended
		if verb(i) == "RETR" {
			mustReset(t, "the client", x.data)
			x.hear("426")
		}
		x.ended()
		tiny = start()
	}
	g.settled(files, l.knock(at))

	t.Log("clients are killed")
	for i := range times {
		x := l.endless(t, at, verb(i))
		// What the kernel does for a process that is killed; the order is its own.
		for j, c := range []net.Conn{x.data, x.Conn} {
			if (i/2)%2 == j {
				defer c.Close()
				continue
			}
			c.Close()
		}
		x.data.Close()
		x.Conn.Close()
	}
	g.settled(files, l.knock(at))

	t.Log("clients fall silent")
	l.Client.AddAddress("eth0", netip.PrefixFrom(crowdHost(0), 24))
	for i := range times {
		l.endlessFrom(t, crowdHost(0), at, verb(i))
	}
	l.Client.must("nft", "add table inet silence; add chain inet silence out { type filter hook output priority 0; };"+
		"add rule inet silence out ip saddr "+crowdHost(0).String()+" drop")
	g.settled(files, l.knock(at))
	if n := strings.Count(g.log(), "outcome=whole"); n > 0 {
		t.Errorf("%d transfers are taken for whole", n)
	}
	g.Stop()
	g.checkClean()
}

// awaitServer returns when the server greets a client that comes through the gateway.
func (l *lab) awaitServer(at netip.AddrPort) {
	l.t.Helper()
	door{server: &server{Name: "the server", Addr: [2]netip.Addr{at.Addr()}, lab: l}, family: v4}.await(l.t)
}

// An unending is a client in the middle of a transfer that has no end.
type unending struct {
	*talk
	data net.Conn
}

func (l *lab) endless(t *testing.T, at netip.AddrPort, verb string) *unending {
	t.Helper()
	return l.endlessFrom(t, clientAddress[v4].Addr(), at, verb)
}

func (l *lab) endlessFrom(t *testing.T, from netip.Addr, at netip.AddrPort, verb string) *unending {
	t.Helper()
	x := &unending{talk: newTalk(t, l.Client.callFrom(t, netip.AddrPortFrom(from, 0), at))}
	x.login("alice")
	to := netip.AddrPortFrom(at.Addr(), passivePort(t, x.ask("EPSV", "229")))
	x.data = l.Client.callFrom(t, netip.AddrPortFrom(from, 0), to)
	x.ask(verb+" file", "150")
	some := make([]byte, 1<<20)
	var err error
	if verb == "RETR" {
		_, err = x.data.Read(some)
	} else {
		_, err = x.data.Write(some)
	}
	if err != nil {
		t.Fatal(err)
	}
	return x
}
