//go:build linux

package integration

import (
	"context"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// Places that are not there, not ours, or read-only for the service: what is said names the file, and what to do. A wrong
// configuration's exit code is 78, which the unit does not start again; that of a place that may come back is 1.
func TestServicePlaces(t *testing.T) {
	need(t, "setpriv", "mount")
	l := newLab(t)
	other := filepath.Join(l.Dir, "roots") // 0755
	if err := os.Mkdir(other, 0o755); err != nil {
		t.Fatal(err)
	}
	readOnly := filepath.Join(l.Dir, "read-only")
	if err := os.Mkdir(readOnly, 0o755); err != nil {
		t.Fatal(err)
	}
	// What is mounted in a namespace of ip netns exec is there for that command alone, as systemd's are for a service.
	start := func(ctx context.Context, program string, args ...string) *exec.Cmd {
		c := l.as("")(ctx, program, args...)
		at := slices.Index(c.Args, "setpriv")
		c.Args = slices.Insert(c.Args, at, "sh", "-c", `mount -t tmpfs -o ro none "$0" && exec "$@"`, readOnly)
		return c
	}
	const head = "listeners: [{mode: explicit, address: '127.0.0.1:2122'}]\n"
	for i, place := range []struct {
		config string
		words  []string
	}{
		{"policy: {state: /nowhere/ftpalg/quotas}\n", []string{"policy.state: /nowhere/ftpalg/quotas", "no such file", "directory must be there", "StateDirectory="}},
		{fmt.Sprintf("policy: {state: %s/quotas}\n", other), []string{other + "/quotas", "permission denied", "user (id 65534) must be able to write"}},
		{fmt.Sprintf("policy: {state: %s/quotas}\n", readOnly), []string{readOnly + "/quotas", "read-only file system", "ReadWritePaths=", "/var/lib/ftpalg"}},
		{"audit: {file: /nowhere/ftpalg/audit.jsonl}\n", []string{"/nowhere/ftpalg/audit.jsonl", "no such file", "directory must be there"}},
		{fmt.Sprintf("audit: {file: %s/audit.jsonl}\n", other), []string{other + "/audit.jsonl", "permission denied", "user (id 65534)"}},
		{fmt.Sprintf("audit: {xferlog: %s/xferlog}\n", readOnly), []string{readOnly + "/xferlog", "read-only file system", "ReadWritePaths="}},
	} {
		said := l.fails(fmt.Sprintf("place-%d", i), start, head+place.config)
		for _, want := range place.words {
			if !strings.Contains(said, want) {
				t.Errorf("%s: it says, without %q: %s", place.config, want, said)
			}
		}
	}
	said, err := start(t.Context(), ftpalgProgram(t), "run", "--config", "/nowhere/ftpalg.yaml").CombinedOutput()
	if exit, ok := err.(*exec.ExitError); !ok || exit.ExitCode() != 78 || !strings.Contains(string(said), "/nowhere/ftpalg.yaml: no such file; give the path") {
		t.Errorf("without a configuration: %v, %s", err, said)
	}
}

// The machine's clock is set forward, by more than data may be idle, and back: both are said, and a transfer goes on.
func TestServiceClock(t *testing.T) {
	const step = 5 * time.Second
	set := func(by time.Duration) {
		t.Helper()
		var now unix.Timespec
		err := unix.ClockGettime(unix.CLOCK_REALTIME, &now)
		if err == nil {
			now = unix.NsecToTimespec(now.Nano() + int64(by))
			err = unix.ClockSettime(unix.CLOCK_REALTIME, &now)
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	l := newLab(t)
	g := l.startGateway("listeners: [{mode: tproxy}]\ntimeouts: {data_idle: 3s}\n")
	p := newPuppet(t, l, port(serverAddress, v4, 21))
	x := begin(t, l, p, "RETR")
	sent := make(chan struct{})
	over := make(chan struct{})
	go func() {
		defer close(sent)
		for {
			x.serverData.Write([]byte("x"))
			select {
			case <-over:
				return
			case <-time.After(time.Second):
			}
		}
	}()
	set(step)
	back := sync.OnceFunc(func() { set(-step) })
	defer back()
	g.await("level=WARN", "clock was set forward", "by=5s")
	back()
	g.await("level=WARN", "clock was set back", "by=5s")
	close(over)
	<-sent
	x.serverData.Close()
	x.server.say("226 done") // before that the client does not see the end
	if _, err := drain(x.clientData); err != nil {
		t.Error(err)
	}
	x.clientData.Close()
	x.client.hear("226")
	g.Stop()
	g.checkClean()
}

// When there are no descriptors left, connections wait instead of being refused, it is said what to raise, and whoever comes when
// there are some again is served; those that have waited are heard.
func TestServiceDescriptors(t *testing.T) {
	l := newLab(t)
	l.DropForward()
	at := port(serverAddress, v4, 21)
	g := l.startGatewayAs(fmt.Sprintf("listeners: [{mode: gateway, address: '[::]:2122', server: '%v'}]\n", at),
		func(ctx context.Context, program string, args ...string) *exec.Cmd {
			return l.Firewall.Command(ctx, "sh", append([]string{"-c", `ulimit -n 40; exec "$0" "$@"`, program}, args...)...)
		})
	p := newPuppet(t, l, at)
	g.await("the limit of 40 open files", "LimitNOFILE=")
	var in []net.Conn
	for range 60 {
		c, err := l.Client.Dial(t.Context(), port(clientGateway, v4, 2122))
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { c.Close() })
		in = append(in, c)
	}
	g.await("level=ERROR", "cannot accept connections", "LimitNOFILE=", "limits.sessions")
	for _, c := range in[:59] {
		c.Close()
	}
	go greetAll(p.l) // some of them have come to the server, and are gone
	// Whoever has waited is heard, though there may be no descriptor yet for a connection to the server; soon there is.
	if reply := newTalk(t, in[59]).reply(); reply[:3] != "220" && reply[:3] != "421" {
		t.Errorf("who has waited is told %q", reply)
	}
	g.until("who comes late is served", func() bool {
		late := l.Client.call(t, port(clientGateway, v4, 2122))
		defer late.Close()
		return late.reply()[:3] == "220"
	})
	g.Stop()
	g.checkClean()
}

// greetAll greets whoever comes, until the listener is closed.
func greetAll(l net.Listener) {
	for {
		c, err := l.Accept()
		if err != nil {
			return
		}
		fmt.Fprint(c, "220 puppet\r\n")
	}
}
