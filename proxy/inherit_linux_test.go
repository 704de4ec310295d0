package proxy

import (
	"log/slog"
	"net"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// The watchdog's question is answered only if somebody could be served: the lock can be had, and every listener's loop is there.
func TestAble(t *testing.T) {
	cfg := rules(t, "listeners:\n  - {name: one, mode: explicit, address: '127.0.0.1:0'}\n  - {name: two, mode: explicit, address: '127.0.0.1:0'}\n")
	p, err := New(cfg, slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	defer p.Close()
	if err := p.Able(); err != nil {
		t.Error(err)
	}
	p.mu.Lock()
	answer := make(chan error, 1)
	go func() { answer <- p.Able() }()
	select {
	case <-answer:
		t.Error("it answers while nobody can have the lock")
	case <-time.After(50 * time.Millisecond): // an answer would have come
	}
	two := p.listeners[addressOf(&cfg.Listeners[1])]
	p.mu.Unlock()
	if err := <-answer; err != nil {
		t.Error(err)
	}
	two.TCPListener.Close() // behind its back
	for deadline := time.Now().Add(time.Minute); two.accepting.Load() > 0 && time.Now().Before(deadline); {
		time.Sleep(time.Millisecond)
	}
	if err := p.Able(); err == nil || !strings.Contains(err.Error(), "listener two at 127.0.0.1:") {
		t.Errorf("of a listener that accepts nothing: %v", err)
	}
	p.Drain()
	if err := p.Able(); err != nil {
		t.Errorf("while draining: %v", err)
	}
}

// A socket that goes to a next process stays as it was: if it were made to block, the first process would hang in accept when the
// next one has taken what came. And it listens on when the first process does not.
func TestHandOver(t *testing.T) {
	p, err := New(rules(t, "listeners: [{name: one, mode: explicit, address: '127.0.0.1:0'}]\n"), slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	sockets, err := p.HandOver()
	if err != nil || len(sockets) != 1 || sockets[0].Name != "one" || !sockets[0].Opened {
		t.Fatalf("%v, %v", sockets, err)
	}
	given := sockets[0].File
	defer given.Close()
	fd := given.Fd() // as os.StartProcess has it, which makes some files block
	if flags, err := unix.FcntlInt(fd, unix.F_GETFL, 0); err != nil || flags&unix.O_NONBLOCK == 0 {
		t.Fatalf("accepting blocks: flags %x, %v", flags, err)
	}
	thief, err := net.FileListener(given)
	if err != nil {
		t.Fatal(err)
	}
	defer thief.Close()
	p.LendBooks()
	retired := make(chan struct{})
	go func() {
		hurry := make(chan struct{})
		close(hurry)
		p.Retire(hurry)
		close(retired)
	}()
	select {
	case <-retired:
	case <-time.After(time.Minute):
		t.Fatal("it never ends")
	}
	if err := p.Reload(rules(t, "listeners: [{mode: explicit}]\n")); err == nil {
		t.Error("it is reloaded when the next process accepts")
	}
	// And the next process has it: nobody is refused.
	c, err := net.Dial("tcp", thief.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	c.Close()
	again, err := duplicate(given)
	if err != nil {
		t.Fatal(err)
	}
	other, err := duplicate(given)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := NewFrom(rules(t, "listeners: [{mode: tproxy, address: '"+thief.Addr().String()+"'}]\n"), slog.New(slog.DiscardHandler),
		&Inherited{Sockets: []Socket{{File: other, Name: "one", Opened: true}}}); err == nil || !strings.Contains(err.Error(), "takes a restart") {
		t.Errorf("a socket becomes transparent by an upgrade: %v", err)
	}
	next, err := NewFrom(rules(t, "listeners: [{name: one, mode: explicit, address: '127.0.0.1:0'}]\n"), slog.New(slog.DiscardHandler),
		&Inherited{Sockets: []Socket{{File: again, Name: "one", Opened: true}}, Predecessor: true})
	if err != nil {
		t.Fatal(err)
	}
	defer next.Close()
	if got := next.addresses(); len(got) != 1 || got[0].String() != thief.Addr().String() {
		t.Errorf("the next listens at %v, not %v", got, thief.Addr())
	}
	next.Succeed(p.Late())
}
