package accounts

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"net/netip"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"
)

// scripted is a source in which everybody's password is "right". It counts what it is asked.
type scripted struct {
	takes time.Duration
	asked atomic.Int64
	most  atomic.Int64 // at once
	now   atomic.Int64
}

func (s *scripted) known(context.Context, string) bool { return true }

func (s *scripted) verify(_ context.Context, name, password string) (*Account, error) {
	s.asked.Add(1)
	s.most.Store(max(s.most.Load(), s.now.Add(1)))
	defer s.now.Add(-1)
	time.Sleep(s.takes)
	switch password {
	case "right":
		return &Account{Name: name}, nil
	case "down":
		return nil, fmt.Errorf("%w: it is down", ErrUnavailable)
	}
	return nil, ErrFailed
}

var testLimits = Limits{Failures: 4, Window: 10 * time.Minute, Ban: 30 * time.Minute}

func newScripted(said *log) (*Accounts, *scripted) {
	s := &scripted{takes: time.Millisecond}
	return &Accounts{source: s, guard: NewGuard(), limits: testLimits, log: said.logger()}, s
}

var (
	here  = netip.MustParseAddr("192.0.2.1")
	there = netip.MustParseAddr("192.0.2.2")
)

// A guesser at one address waits 1, 2, 4 s, and is banned; nobody asks for him then. In time he is forgiven.
func TestGuessing(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var said log
		a, s := newScripted(&said)
		for i, want := range []time.Duration{0, time.Second, 2 * time.Second, 4 * time.Second} {
			begun := time.Now()
			if _, err := a.Login(t.Context(), here, fmt.Sprint("name", i), "wrong"); !errors.Is(err, ErrFailed) {
				t.Error(err)
			}
			if took := time.Since(begun).Truncate(100 * time.Millisecond); took != want {
				t.Errorf("try %d took %v, not %v", i, took, want)
			}
		}
		var later *Later
		for range 100 {
			if _, err := a.Login(t.Context(), here, "alice", "right"); !errors.As(err, &later) || later.Until.Sub(time.Now()) > testLimits.Ban {
				t.Fatal(err)
			}
		}
		if s.asked.Load() != 4 {
			t.Errorf("asked %d times", s.asked.Load())
		}
		if n := strings.Count(said.String(), "proxy login failed"); n != 4 || strings.Count(said.String(), "\n") != 5 {
			t.Errorf("%d failures: %s", n, said.String())
		}
		if strings.Contains(said.String(), "wrong") {
			t.Error("a password is in the log")
		}
		time.Sleep(testLimits.Ban)
		if _, err := a.Login(t.Context(), here, "alice", "right"); err != nil {
			t.Error(err)
		}
	})
}

// Many connections of one address at once have no more guesses than one after the other.
func TestGuessingAtOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var said log
		a, s := newScripted(&said)
		var all sync.WaitGroup
		for i := range 500 {
			all.Go(func() {
				a.Login(t.Context(), netip.MustParseAddr("2001:db8::").Next(), fmt.Sprint("name", i), "wrong")
			})
		}
		all.Wait()
		if n := s.asked.Load(); n > int64(testLimits.Failures) {
			t.Errorf("%d guesses in parallel", n)
		}
	})
}

// An account that is guessed at from many addresses has one try at a time, soon one in 30 s; who has logged in as it before
// does not wait, nor is anybody locked out.
func TestGuessingFromEverywhere(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var said log
		a, s := newScripted(&said)
		if _, err := a.Login(t.Context(), here, "alice", "right"); err != nil {
			t.Fatal(err)
		}
		ctx, cancel := context.WithCancel(t.Context())
		var all sync.WaitGroup
		for i := range 300 {
			all.Go(func() {
				name := []string{"alice", "ALICE", "Alice"}[i%3] // one to a directory
				a.Login(ctx, netip.AddrFrom4([4]byte{198, 51, byte(i >> 8), byte(i)}), name, "wrong")
			})
		}
		time.Sleep(30 * time.Minute)
		if n := s.asked.Load() - 1; n < 50 || n > 30*2+int64(testLimits.Failures)+5 {
			t.Errorf("%d guesses in half an hour", n)
		}
		begun := time.Now()
		if _, err := a.Login(t.Context(), here, "alice", "right"); err != nil || time.Since(begun) > 10*time.Millisecond {
			t.Error("a friend waits", time.Since(begun), err)
		}
		cancel()
		all.Wait()
		begun = time.Now()
		if _, err := a.Login(t.Context(), there, "alice", "right"); err != nil || time.Since(begun) > longest+time.Second {
			t.Error("locked out by others", time.Since(begun), err)
		}
	})
}

// Behind one address somebody guesses at somebody else's account. The friendship is over with his first failure, and he is
// banned like others; those who know their own passwords are not.
func TestGuessingBesideAFriend(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var said log
		a, s := newScripted(&said)
		for _, name := range []string{"alice", "bob"} {
			if _, err := a.Login(t.Context(), here, name, "right"); err != nil {
				t.Fatal(err)
			}
		}
		s.asked.Store(0)
		var all sync.WaitGroup
		for range 200 {
			all.Go(func() { a.Login(t.Context(), here, "alice", "wrong") })
		}
		all.Wait()
		if n := s.asked.Load(); n > 2*int64(testLimits.Failures) {
			t.Errorf("%d guesses", n)
		}
		if _, err := a.Login(t.Context(), here, "alice", "right"); !errors.As(err, new(*Later)) {
			t.Error(err)
		}
		begun := time.Now()
		if _, err := a.Login(t.Context(), here, "bob", "right"); err != nil || time.Since(begun) > 10*time.Millisecond {
			t.Error("bob waits", time.Since(begun), err)
		}
	})
}

// All of an IPv6 /64 is one guesser, and an IPv4 address is the same one inside IPv6.
func TestGuessingFromOneNetwork(t *testing.T) {
	for name, addrs := range map[string][]string{
		"a /64":  {"2001:db8::1", "2001:db8::2", "2001:db8::3:4:5:6", "2001:db8::ffff:ffff:ffff:ffff"},
		"mapped": {"192.0.2.9", "::ffff:192.0.2.9", "::ffff:192.0.2.9", "192.0.2.9"},
		"zones":  {"fe80::1%eth0", "fe80::2%eth1", "fe80::1", "fe80::3%eth0"},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				var said log
				a, _ := newScripted(&said)
				for i, addr := range addrs {
					a.Login(t.Context(), netip.MustParseAddr(addr), fmt.Sprint(i), "wrong")
				}
				if _, err := a.Login(t.Context(), netip.MustParseAddr(addrs[0]), "alice", "right"); !errors.As(err, new(*Later)) {
					t.Error(err)
				}
			})
		})
	}
}

// Failures that are far apart add up to nothing, and a directory that is down bans nobody.
func TestForgetting(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var said log
		a, _ := newScripted(&said)
		for i := range 20 {
			a.Login(t.Context(), here, "alice", "wrong")
			if i%2 == 1 {
				time.Sleep(testLimits.Window)
			}
		}
		for range 20 {
			a.Login(t.Context(), there, "bob", "down")
		}
		for name, addr := range map[string]netip.Addr{"alice": here, "bob": there} {
			if _, err := a.Login(t.Context(), addr, name, "right"); err != nil {
				t.Error(name, err)
			}
		}
		time.Sleep(friendship)
		for range 10 {
			a.guard.names.makeRoom(time.Now(), testLimits.Window)
			a.guard.addresses.makeRoom(time.Now(), testLimits.Window)
			a.guard.friends.makeRoom(time.Now(), friendship)
		}
		if n := len(a.guard.names) + len(a.guard.addresses) + len(a.guard.friends); n > 0 {
			t.Errorf("%d are remembered for ever", n)
		}
	})
}

// An adversary with very many addresses and names fills what is remembered, but no more memory; and what is forgotten is not
// the account that he guesses at, nor his ban.
func TestFlood(t *testing.T) {
	synctest.Test(t, testFlood)
}

func testFlood(t *testing.T) {
	g := NewGuard()
	fail := func(addr netip.Addr, name string) {
		if try, err := g.begin(t.Context(), testLimits, addr, name); err == nil {
			try.end(ErrFailed)
		}
	}
	for range testLimits.Failures {
		ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
		try, err := g.begin(ctx, testLimits, here, "alice")
		cancel()
		if err != nil {
			t.Fatal(err)
		}
		try.end(ErrFailed)
	}
	for i := range 3 * maxRecords {
		fail(netip.AddrFrom4([4]byte{10, byte(i >> 16), byte(i >> 8), byte(i)}), fmt.Sprint("name", i))
		if i%1000 == 0 {
			g.mu.Lock()
			if len(g.addresses) > maxRecords || len(g.names) > maxRecords || len(g.friends) > maxRecords {
				t.Fatalf("%d addresses, %d names", len(g.addresses), len(g.names))
			}
			g.mu.Unlock()
		}
	}
	if _, err := g.begin(t.Context(), testLimits, here, "bob"); !errors.As(err, new(*Later)) {
		t.Error("the ban is forgotten:", err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 100*time.Millisecond)
	defer cancel()
	if _, err := g.begin(ctx, testLimits, there, "alice"); !errors.Is(err, context.DeadlineExceeded) {
		t.Error("the account is forgotten:", err)
	}
}

// Who has logged in as an account is its friend for a day, no longer.
func TestFriendship(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var said log
		a, _ := newScripted(&said)
		banned := func(want bool) {
			t.Helper()
			for i := range testLimits.Failures {
				a.Login(t.Context(), here, fmt.Sprint("name", i), "wrong")
			}
			if _, err := a.Login(t.Context(), here, "alice", "right"); errors.As(err, new(*Later)) != want {
				t.Error(err)
			}
		}
		if _, err := a.Login(t.Context(), here, "alice", "right"); err != nil {
			t.Fatal(err)
		}
		time.Sleep(friendship - time.Minute)
		banned(false)
		time.Sleep(friendship)
		banned(true)
	})
}

// What no account can have is wrong without anybody being asked: names that are none, no password, and one so long that its
// hash would cost more than others'.
func TestNotAsked(t *testing.T) {
	var said log
	a, s := newScripted(&said)
	a.limits.Failures = 1000
	for i, try := range []struct{ name, password string }{{"alice", ""}, {"bob", strings.Repeat("x", maxPassword+1)}, {"", "right"}, {"a b", "right"}, {"a\n", "right"}} {
		if _, err := a.Login(t.Context(), netip.AddrFrom4([4]byte{10, 0, 0, byte(i)}), try.name, try.password); !errors.Is(err, ErrFailed) {
			t.Error(err)
		}
	}
	if s.asked.Load() != 0 {
		t.Errorf("asked %d times", s.asked.Load())
	}
}

// slowHash counts how many are computed at once.
type slowHash struct{ asked, now, most *atomic.Int64 }

func (h slowHash) matches(string) bool {
	h.asked.Add(1)
	h.most.Store(max(h.most.Load(), h.now.Add(1)))
	defer h.now.Add(-1)
	time.Sleep(2 * time.Millisecond)
	return false
}

// A flood of logins from everywhere has half of the processors.
func TestHashesAtOnce(t *testing.T) {
	var asked, now, most atomic.Int64
	e := &entry{"alice", slowHash{&asked, &now, &most}}
	h := &hashed{files: &files{looked: time.Now().Add(time.Hour)}, guard: NewGuard()}
	h.files.table.Store(&table{entries: map[string]*entry{"alice": e}, order: []*entry{e}})
	var all sync.WaitGroup
	for i := range 200 {
		all.Go(func() { h.verify(t.Context(), []string{"alice", "nobody"}[i%2], "x") })
	}
	all.Wait()
	if asked.Load() != 200 || most.Load() > int64(cap(h.guard.hashing)) {
		t.Errorf("%d hashes, %d at once, not %d", asked.Load(), most.Load(), cap(h.guard.hashing))
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	for range cap(h.guard.hashing) {
		h.guard.hashing <- struct{}{}
	}
	if _, err := h.verify(ctx, "alice", "x"); !errors.Is(err, context.Canceled) {
		t.Error(err)
	}
}

// Whether there is an account must not show in the time: a name that is none's costs one hash, of one that is some's, the same
// one each time; and over many names all kinds of hashes are such ones.
func TestTimingOfUnknownNames(t *testing.T) {
	var counts [3]atomic.Int64
	var now, most atomic.Int64
	tab := &table{entries: map[string]*entry{}}
	for i, name := range []string{"alice", "bob", "carol"} {
		e := &entry{name, slowHash{&counts[i], &now, &most}}
		tab.entries[name], tab.order = e, append(tab.order, e)
	}
	h := &hashed{files: &files{looked: time.Now().Add(time.Hour)}, guard: NewGuard()}
	h.files.table.Store(tab)
	sum := func() int64 { return counts[0].Load() + counts[1].Load() + counts[2].Load() }
	for i := range 60 {
		var last int
		for range 2 {
			before := [3]int64{counts[0].Load(), counts[1].Load(), counts[2].Load()}
			total := sum()
			if _, err := h.verify(t.Context(), fmt.Sprint("nobody", i), "x"); err != ErrFailed {
				t.Fatal(err)
			}
			if sum() != total+1 {
				t.Fatalf("%d hashes for one login", sum()-total)
			}
			for k := range counts {
				if counts[k].Load() == before[k] {
					continue
				}
				if last != 0 && last != k+1 {
					t.Errorf("nobody%d costs now one, now another", i)
				}
				last = k + 1
			}
		}
	}
	for k := range counts {
		if counts[k].Load() == 0 {
			t.Errorf("no unknown name costs what account %d does", k)
		}
	}
}

// The same with a clock, and real hashes: the fastest of some is compared, as that is what a measuring guesser does.
func TestTimingOfRealHashes(t *testing.T) {
	line, err := Entry("alice", "right", 8)
	if err != nil {
		t.Fatal(err)
	}
	a, faults := New(Options{File: write(t, filepath.Join(t.TempDir(), "users"), line)}, NewGuard())
	if len(faults) > 0 {
		t.Fatal(faults)
	}
	// The hash that gives an unknown name its time lets nobody in.
	for i := range 20 {
		if account, err := a.source.verify(t.Context(), fmt.Sprint("nobody", i), "right"); err != ErrFailed {
			t.Fatal(account, err)
		}
	}
	fastest := func(name, password string) time.Duration {
		best := time.Hour
		for range 10 {
			begun := time.Now()
			a.source.verify(t.Context(), name, password)
			best = min(best, time.Since(begun))
		}
		return best
	}
	known, unknown := fastest("alice", "wrong"), fastest("nobody", "wrong")
	if unknown < known/2 || known < unknown/2 {
		t.Errorf("known %v, unknown %v", known, unknown)
	}
}

// hostile are names that clients may give so that the log, or who reads it, blames another address.
var hostile = []string{
	`alice`, `a b`, `a" client=198.51.100.1 x="`, "a\nlevel=WARN msg=\"proxy login failed\" client=198.51.100.1 account=x",
	"a\r\n{\"level\":\"WARN\",\"msg\":\"proxy login failed\",\"client\":\"198.51.100.1\",\"account\":\"x\"}", `","client":"198.51.100.1","account":"`,
	`client=198.51.100.1`, `\" client=198.51.100.1`, "\x00\x1b[2J", "a\u2028client=198.51.100.1", "\xff\xfe", strings.Repeat("client=198.51.100.1 ", 100), "", "{name}", "%n",
}

// What fail2ban takes out of a line of the log is the client, whatever the name of the account.
func TestFail2ban(t *testing.T) {
	text, err := os.ReadFile("../../config/fail2ban/ftpalg.conf")
	if err != nil {
		t.Fatal(err)
	}
	_, rest, ok := strings.Cut(string(text), "failregex = ")
	expressions, _, also := strings.Cut(rest, "\n\n")
	if !ok || !also {
		t.Fatal("the filter has no failregex")
	}
	// Before it looks for failures, fail2ban takes what its datepattern matches out of the line; systemd's journal has its own.
	date := regexp.MustCompile(`^time=\d{4}-\d\d-\d\dT[\d:]+(\.\d+)?(Z|[+-]\d\d:\d\d)|^\{"time":"\d{4}-\d\d-\d\dT[\d:]+(\.\d+)?(Z|[+-]\d\d:\d\d)`)
	var filters []*regexp.Regexp
	for line := range strings.Lines(expressions) {
		expr := strings.ReplaceAll(strings.TrimSpace(line), "<ADDR>", `(?P<addr>[0-9a-fA-F:.]+)`)
		filters = append(filters, regexp.MustCompile(expr))
	}
	if len(filters) != 2 {
		t.Fatalf("%d expressions", len(filters))
	}
	for _, client := range []string{"192.0.2.7", "2001:db8::7", "::ffff:192.0.2.7"} {
		want := netip.MustParseAddr(client).Unmap().String()
		for _, name := range hostile {
			for format, handler := range map[string]func(*log) slog.Handler{
				"text": func(l *log) slog.Handler { return slog.NewTextHandler(l, nil) },
				"json": func(l *log) slog.Handler { return slog.NewJSONHandler(l, nil) },
			} {
				var said log
				a, _ := newScripted(&said)
				a.log = slog.New(handler(&said))
				if _, err := a.Login(t.Context(), netip.MustParseAddr(client), name, "wrong"); !errors.Is(err, ErrFailed) {
					t.Fatal(err)
				}
				// The same name on other lines of a session, as the user of a server, is nobody's failure.
				slog.New(handler(&said)).Info("logged in", "user", name)
				slog.New(handler(&said)).Warn("refused", "text", name)
				lines := strings.Split(strings.TrimSuffix(said.String(), "\n"), "\n")
				if len(lines) != 3 || format == "json" && !json.Valid([]byte(lines[0])) || strings.ContainsAny(said.String(), "\x00\x1b\r\u2028") && format == "text" {
					t.Fatalf("%s: %q makes %q", format, name, said.String())
				}
				var found []string
				for _, line := range lines {
					for _, l := range []string{line, date.ReplaceAllString(line, ""), "host ftpalg[1]: " + line} {
						for _, f := range filters {
							if m := f.FindStringSubmatch(l); m != nil {
								found = append(found, m[1])
							}
						}
					}
				}
				if len(found) != 3 || strings.Trim(strings.Join(found, " "), want+" ") != "" || found[0] != want {
					t.Errorf("%s: %q of %s is %v: %s", format, name, client, found, lines[0])
				}
			}
		}
	}
}
