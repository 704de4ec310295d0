package quota

import (
	"path/filepath"
	"testing"
	"time"

	"ftpalg/config"
)

// A file goes from one process to the next while the first still counts: the second has all of it, and what came late once it is
// told. Nobody gets his quota twice by having the gateway upgraded.
func TestLend(t *testing.T) {
	q := config.Quota{Name: "day", Per: config.PerUser, Bytes: 1000, Files: 10, Window: time.Hour}
	path := filepath.Join(t.TempDir(), "counts")
	open := func() *Store {
		t.Helper()
		s, err := Open(path, quiet)
		if err != nil {
			t.Fatal(err)
		}
		return s
	}
	old := open()
	h := enter(t, old, q, here)
	f, over := h.Begin(config.DirectionDownload, true)
	if over != nil {
		t.Fatal(over)
	}
	f.Add(300)
	if err := old.Lend(); err != nil {
		t.Fatal(err)
	}
	next := open()
	if over := f.Add(200); over != nil {
		t.Errorf("what runs cannot go on: %v", over)
	}
	f.End()
	g, over := h.Begin(config.DirectionDownload, true)
	if over != nil {
		t.Fatal(over)
	}
	if over := g.Add(501); over == nil {
		t.Error("the lender has forgotten what it counted")
	}
	g.End()
	k := enter(t, next, q, here)
	used := func(s *Store) (bytes, files int64) {
		for _, e := range k.held {
			return e.used.Load(), e.files()
		}
		return 0, 0
	}
	if b, n := used(next); b != 300 || n != 1 {
		t.Errorf("the borrower has found %d bytes and %d files", b, n)
	}
	late := old.Late()
	if err := old.Close(); err != nil {
		t.Error(err)
	}
	next.Add(late)
	next.Add([]Late{{Quota: "day", Per: string(config.PerUser), Who: "eve@192.0.2.9", Bytes: 77}, {Quota: "day", Per: "user", Who: "mallory", Bytes: -5}})
	if b, n := used(next); b != 1001 || n != 2 {
		t.Errorf("with what came late there are %d bytes and %d files", b, n)
	}
	if over := move(k, 1); over == nil {
		t.Error("there is more than the quota")
	}
	k.Leave()
	if err := next.Close(); err != nil {
		t.Fatal(err)
	}
	// And it is kept.
	again := open()
	defer again.Close()
	if over := move(enter(t, again, q, here), 1); over == nil {
		t.Error("what came late is forgotten after a restart")
	}
	if c := again.tables["day\x00user"]["eve@192.0.2.9"]; c == nil || c.used.Load() != 77 {
		t.Error("somebody who was counted late alone is not kept")
	}
}

// Without a file the next process is told everything.
func TestLendMemory(t *testing.T) {
	q := config.Quota{Name: "day", Per: config.PerUser, Bytes: 1000, Window: time.Hour}
	old, err := Open("", quiet)
	if err != nil {
		t.Fatal(err)
	}
	h := enter(t, old, q, here)
	move(h, 600)
	if err := old.Lend(); err != nil {
		t.Fatal(err)
	}
	f, _ := h.Begin(config.DirectionDownload, true)
	f.Add(300)
	f.End()
	next, err := Open("", quiet)
	if err != nil {
		t.Fatal(err)
	}
	defer next.Close()
	next.Add(old.Late())
	k := enter(t, next, q, here)
	if over := move(k, 100); over != nil {
		t.Errorf("900 of 1000 are used: %v", over)
	}
	if over := move(k, 1); over == nil {
		t.Error("there is more than the quota")
	}
}

// When the borrower does not come to be, the lender keeps the file again, with all of it.
func TestRegain(t *testing.T) {
	q := config.Quota{Name: "day", Per: config.PerUser, Bytes: 1000, Window: time.Hour}
	path := filepath.Join(t.TempDir(), "counts")
	s, err := Open(path, quiet)
	if err != nil {
		t.Fatal(err)
	}
	h := enter(t, s, q, here)
	move(h, 100)
	if err := s.Lend(); err != nil {
		t.Fatal(err)
	}
	f, _ := h.Begin(config.DirectionDownload, true)
	f.Add(200)
	f.End()
	other, err := Open(path, quiet) // which dies
	if err != nil {
		t.Fatal(err)
	}
	other.Close()
	s.Regain()
	f, _ = h.Begin(config.DirectionDownload, true)
	f.Add(400)
	f.End()
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	again, err := Open(path, quiet)
	if err != nil {
		t.Fatal(err)
	}
	defer again.Close()
	for _, e := range enter(t, again, q, here).held {
		if got := e.used.Load(); got != 700 {
			t.Errorf("%d bytes are kept, not 700", got)
		}
	}
}
