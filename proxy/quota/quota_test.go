package quota

import (
	"fmt"
	"io"
	"log/slog"
	"net/netip"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"ftpalg/config"
)

var quiet = slog.New(slog.NewTextHandler(io.Discard, nil))

var here = Who{Client: netip.MustParseAddr("192.0.2.1"), User: "bob", Server: netip.MustParseAddr("198.51.100.1"), Account: "b"}

// clock is a Store's time in tests. It is set before others look.
type clock struct{ at time.Time }

func (c *clock) now() time.Time { return c.at }

func testStore() (*Store, *clock) {
	s, c := newStore("", quiet), &clock{time.Date(2026, 3, 4, 5, 6, 7, 0, time.UTC)}
	s.now = c.now
	return s, c
}

func enter(t *testing.T, s *Store, q config.Quota, who Who) *Holder {
	t.Helper()
	h, over := s.Enter([]config.Quota{q}, who)
	if over != nil {
		t.Fatal(over)
	}
	return h
}

// move moves n bytes in a transfer of its own, or says why not.
func move(h *Holder, n int64) *Over {
	f, over := h.Begin(config.DirectionDownload, true)
	if over != nil {
		return over
	}
	defer f.End()
	defer h.store.save() // as run does soon
	return f.Add(n)
}

// Who is counted together with whom.
func TestWho(t *testing.T) {
	addr := netip.MustParseAddr
	for _, test := range []struct {
		per  config.QuotaPer
		a, b Who
		same bool
	}{
		{config.PerClient, Who{Client: addr("192.0.2.1")}, Who{Client: addr("192.0.2.2")}, false},
		{config.PerClient, Who{Client: addr("192.0.2.1")}, Who{Client: addr("::ffff:192.0.2.1")}, true},
		{config.PerClient, Who{Client: addr("2001:db8::1")}, Who{Client: addr("2001:db8::ffff:1")}, true},
		{config.PerClient, Who{Client: addr("2001:db8::1")}, Who{Client: addr("2001:db8:0:1::1")}, false},
		{config.PerClient, Who{Client: addr("fe80::1%a")}, Who{Client: addr("fe80::1%b")}, true},
		{config.PerUser, Who{User: "bob", Server: here.Server}, Who{User: "BOB ", Server: here.Server}, true},
		{config.PerUser, Who{User: "bob", Server: here.Server}, Who{User: "bob", Server: here.Client}, false},
		{config.PerUser, Who{User: strings.Repeat("x", 5000) + "a"}, Who{User: strings.Repeat("x", 5000) + "b"}, false},
		{config.PerAccount, Who{Account: "a"}, Who{Account: "b"}, false},
		{config.PerAccount, Who{Client: here.Client}, Who{Client: here.Server}, true},
		{config.PerAll, Who{Account: "a"}, Who{Account: "b"}, true},
	} {
		s, _ := testStore()
		q := config.Quota{Name: "q", Per: test.per, Sessions: 1}
		h := enter(t, s, q, test.a)
		other, over := s.Enter([]config.Quota{q}, test.b)
		if (over != nil) != test.same {
			t.Errorf("%s: %+v and %+v: %v", test.per, test.a, test.b, over)
		}
		if other != nil {
			other.Leave()
		}
		if n := len(whoOf(test.per, test.a)); n > longestWho {
			t.Errorf("%d bytes are kept", n)
		}
		h.Leave()
		h.Leave()
		if len(s.tables) != 0 {
			t.Errorf("somebody who has left without a trace is kept")
		}
	}
}

// Each bound refuses the one that is too many, says so, and has counted nothing of it for other quotas.
func TestBounds(t *testing.T) {
	s, _ := testStore()
	wide := config.Quota{Name: "wide", Per: config.PerAll, Sessions: 9, Transfers: 9, Files: 9, Bytes: 900, Window: time.Hour}
	narrow := config.Quota{Name: "narrow", Per: config.PerAll, Sessions: 1, Transfers: 1, Files: 2, Bytes: 100, Window: time.Hour,
		Direction: config.DirectionDownload}
	h, over := s.Enter([]config.Quota{wide, narrow}, here)
	if over != nil {
		t.Fatal(over)
	}
	check := func(over *Over, bound string) {
		t.Helper()
		if over == nil && bound != "" || over != nil && *over != (Over{"narrow", bound}) {
			t.Errorf("%v; should be %q", over, bound)
		}
	}
	_, over = s.Enter([]config.Quota{wide, narrow}, here)
	check(over, Sessions)
	listing, over := h.Begin(config.DirectionDownload, false)
	check(over, "")
	_, over = h.Begin(config.DirectionUpload, true)
	check(over, Transfers)
	check(listing.Add(40), "")
	listing.End()
	listing.End()
	check(move(h, 10), "")
	check(move(h, 10), "")
	check(move(h, 10), Files)
	up, over := h.Begin(config.DirectionUpload, true) // is not in its direction
	check(over, "")
	check(up.Add(500), "")
	up.End()
	listing, over = h.Begin(config.DirectionDownload, false)
	check(over, "")
	check(listing.Add(40), "")
	check(listing.Add(1), Bytes)
	listing.End()
	_, over = h.Begin(config.DirectionDownload, false)
	check(over, Bytes)
	c := h.held[0].counter
	if c.sessions != 1 || c.transfers != 0 || c.files() != 3 || c.used.Load() != 601 {
		t.Errorf("the other quota has %d sessions, %d transfers, %d files, %d bytes", c.sessions, c.transfers, c.files(), c.used.Load())
	}
}

// Many who come at the same moment are not more than there may be.
func TestConcurrency(t *testing.T) {
	s, err := Open("", quiet)
	if err != nil {
		t.Fatal(err)
	}
	q := config.Quota{Name: "q", Per: config.PerAll, Sessions: 20, Transfers: 7, Bytes: 100_000, Files: 60, Window: time.Hour}
	var sessions, transfers, bytes, files, refused atomic.Int64
	var all sync.WaitGroup
	for range 100 {
		all.Go(func() {
			for range 50 {
				h, over := s.Enter([]config.Quota{q}, here)
				if over != nil {
					refused.Add(1)
					continue
				}
				if n := sessions.Add(1); n > 20 {
					t.Errorf("%d sessions", n)
				}
				if f, over := h.Begin(config.DirectionUpload, true); over == nil {
					if n := transfers.Add(1); n > 7 {
						t.Errorf("%d transfers", n)
					}
					files.Add(1)
					for range 500 {
						if f.Add(7) != nil {
							break
						}
						bytes.Add(7)
					}
					transfers.Add(-1)
					f.End()
				}
				sessions.Add(-1)
				h.Leave()
			}
		})
	}
	all.Wait()
	if b, f := bytes.Load(), files.Load(); b > 100_000 || b < 90_000 || f > 60 {
		t.Errorf("%d bytes, %d files; %d sessions refused", b, f, refused.Load())
	}
	if err := s.Close(); err != nil {
		t.Error(err)
	}
}

// Whatever the timing, nobody has more than he may in any window; and he has it again a slot later at the latest.
func TestWindow(t *testing.T) {
	for _, step := range []time.Duration{time.Second, 59 * time.Second, 61 * time.Second, 17 * time.Minute, time.Hour} {
		s, c := testStore()
		q := config.Quota{Name: "q", Per: config.PerAll, Bytes: 1000, Window: time.Hour}
		h := enter(t, s, q, here)
		type piece struct {
			at time.Time
			n  int64
		}
		var moved []piece
		for i := 0; c.at.Before(time.Date(2026, 3, 4, 10, 0, 0, 0, time.UTC)); i++ {
			n := int64(1 + i*37%90)
			if move(h, n) == nil {
				moved = append(moved, piece{c.at, n})
			}
			c.at = c.at.Add(step)
		}
		for i := range moved {
			sum := int64(0)
			for _, p := range moved[i:] {
				if p.at.Sub(moved[i].at) < q.Window {
					sum += p.n
				}
			}
			if sum > 1000 {
				t.Fatalf("every %s: %d bytes in a window", step, sum)
			}
		}
	}
	s, c := testStore()
	h := enter(t, s, config.Quota{Name: "q", Per: config.PerAll, Bytes: 1000, Window: time.Hour}, here)
	if over := move(h, 1000); over != nil {
		t.Fatal(over)
	}
	for _, at := range []struct {
		later time.Duration
		over  bool
	}{{time.Hour - time.Millisecond, true}, {time.Minute + time.Millisecond, false}} {
		c.at = c.at.Add(at.later)
		if over := move(h, 1000); (over != nil) != at.over {
			t.Errorf("%s later: %v", at.later, over)
		}
	}
}

// A clock that jumps locks nobody out for longer than a window, and frees nobody when it jumps back.
func TestClockJumps(t *testing.T) {
	const year = 365 * 24 * time.Hour
	s, c := testStore()
	h := enter(t, s, config.Quota{Name: "q", Per: config.PerAll, Bytes: 10, Window: time.Hour}, here)
	for _, jump := range []time.Duration{year, -year, -60 * year, 200 * year, 200 * year, -250 * year} {
		c.at = c.at.Add(jump)
		if jump > 0 {
			if over := move(h, 10); over != nil {
				t.Fatalf("after a jump of %s: %v", jump, over)
			}
			continue
		}
		if move(h, 1) == nil {
			t.Fatalf("a jump of %s frees", jump)
		}
		c.at = c.at.Add(62 * time.Minute)
		if over := move(h, 10); over != nil {
			t.Fatalf("an hour after a jump of %s: %v", jump, over)
		}
	}
}

// A reload with other numbers keeps the counts, and who was in before counts on.
func TestReload(t *testing.T) {
	s, c := testStore()
	q := config.Quota{Name: "q", Per: config.PerAll, Bytes: 100, Window: time.Hour}
	old := enter(t, s, q, here)
	if over := move(old, 60); over != nil {
		t.Fatal(over)
	}
	c.at = c.at.Add(30 * time.Minute)
	q.Bytes, q.Window = 200, 10*time.Hour
	h := enter(t, s, q, here)
	if move(old, 60) == nil {
		t.Error("who was in before has what he had, anew")
	}
	if over := move(h, 80); over != nil {
		t.Error(over)
	}
	if move(h, 1) == nil {
		t.Error("what was counted before the reload is forgotten")
	}
	c.at = c.at.Add(9 * time.Hour)
	if move(h, 200) == nil {
		t.Error("the longer window does not hold")
	}
	c.at = c.at.Add(11 * time.Hour)
	if over := move(h, 200); over != nil {
		t.Error(over)
	}
	q.Window = time.Minute
	h = enter(t, s, q, here)
	c.at = c.at.Add(11 * time.Minute) // a slot of the old window was as long
	if over := move(h, 200); over != nil {
		t.Error(over)
	}
}

// An adversary with a great many addresses does not fill the memory, and has what he used up not forgotten.
func TestManyClients(t *testing.T) {
	s, _ := testStore()
	s.most = 200
	q := config.Quota{Name: "q", Per: config.PerClient, Bytes: 1000, Window: time.Hour}
	account := config.Quota{Name: "a", Per: config.PerAccount, Bytes: 1, Window: time.Hour}
	first := enter(t, s, account, here)
	move(first, 1)
	first.Leave()
	h := enter(t, s, q, here)
	move(h, 1000)
	h.Leave()
	for i := range 20_000 {
		who := Who{Client: netip.AddrFrom4([4]byte{10, byte(i >> 16), byte(i >> 8), byte(i)})}
		h := enter(t, s, q, who)
		move(h, 1)
		h.Leave()
	}
	if n := len(s.tables[tableOf(q)]); n != 200 {
		t.Errorf("%d are kept", n)
	}
	for _, q := range []config.Quota{q, account} {
		h = enter(t, s, q, here)
		if move(h, 1) == nil {
			t.Errorf("%s: what was used up is forgotten", q.Name)
		}
	}
}

func BenchmarkAdd(b *testing.B) {
	for _, n := range []int{1, 4} {
		b.Run(fmt.Sprint(n), func(b *testing.B) {
			s := newStore("", quiet)
			var quotas []config.Quota
			for i := range n {
				quotas = append(quotas, config.Quota{Name: fmt.Sprint(i), Per: config.PerAll, Bytes: 1 << 60, Window: time.Hour})
			}
			h, over := s.Enter(quotas, here)
			if over != nil {
				b.Fatal(over)
			}
			f, over := h.Begin(config.DirectionUpload, true)
			if over != nil {
				b.Fatal(over)
			}
			for b.Loop() {
				f.Add(1)
			}
		})
	}
}
