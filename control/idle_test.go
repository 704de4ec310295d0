package control

import (
	"context"
	"errors"
	"net"
	"runtime"
	"sync"
	"testing"
	"time"
)

// TestIdle counts what an idle session has: its own goroutine, and one that reads either side. Their stacks are of 4 and twice 2
// KiB, which nothing but care for what is on them has them be: there may be ten thousand sessions.
func TestIdle(t *testing.T) {
	const sessions = 200
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	var peers []net.Conn
	pair := func() (near net.Conn) {
		near, err := net.Dial("tcp", l.Addr().String())
		if err != nil {
			t.Fatal(err)
		}
		far, err := l.Accept()
		if err != nil {
			t.Fatal(err)
		}
		peers = append(peers, far)
		return near
	}
	buf := make([]byte, 100)
	say := func(from net.Conn, text string, to net.Conn) {
		_, err := from.Write([]byte(text))
		n, err2 := to.Read(buf)
		if err := errors.Join(err, err2); err != nil || string(buf[:n]) != text {
			t.Fatalf("heard %q for %q, %v", buf[:n], text, err)
		}
	}
	var all sync.WaitGroup
	defer all.Wait()
	defer func() {
		for _, p := range peers {
			p.Close()
		}
	}()
	before := measured()
	for range sessions {
		near := pair()
		client := peers[len(peers)-1]
		serverNear := pair()
		server := peers[len(peers)-1]
		s := &Session{
			Client: near, Faithful: true, Observer: unmoved{},
			Connect: func(context.Context, string) (net.Conn, error) { return serverNear, nil },
			Timeouts: Timeouts{
				Connect: time.Minute, Login: time.Minute, Idle: time.Minute, Reply: time.Minute, Handshake: time.Minute,
				DataSetup: time.Minute, DataIdle: time.Minute, Abort: time.Minute, Drain: time.Minute,
			},
		}
		all.Go(func() { s.Run(context.Background()) })
		say(server, "220 ready\r\n", client)
		say(client, "USER alice\r\n", server)
		say(server, "331 go on\r\n", client)
		say(client, "PASS secret\r\n", server)
		say(server, "230 in\r\n", client)
	}
	after := measured()
	if n := after.goroutines - before.goroutines; n != 3*sessions {
		t.Errorf("%d sessions have %d goroutines", sessions, n)
	}
	stack := (after.stack - before.stack) / sessions
	t.Logf("%d bytes of stack for each session", stack)
	if stack > 10<<10 && !raced {
		t.Errorf("%d bytes of stack for each session", stack)
	}
}

type idleness struct{ goroutines, stack int }

// measured is what there is when the garbage collector has made stacks as small as they can be.
func measured() idleness {
	time.Sleep(50 * time.Millisecond) // for those who have just been awoken to fall asleep
	for range 4 {
		runtime.GC()
	}
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return idleness{runtime.NumGoroutine(), int(m.StackInuse)}
}
