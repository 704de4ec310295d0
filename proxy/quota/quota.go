// Package quota counts what those do whom config.Quota is about, and says when they have had enough: sessions and transfers at
// once, bytes and files in a sliding window. Bytes and files survive a restart in a file.
//
// Its adversaries are those who want more than their share: by timing it around the edges of a window, by many transfers that
// begin at the same moment, by breaking off and beginning anew, by having the gateway restarted, by spelling their name in another
// way; and those who have many addresses, or names on a server that takes any, and want to fill our memory or have counts
// forgotten.
package quota

import (
	"crypto/sha256"
	"encoding/hex"
	"log/slog"
	"net/netip"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"go.etcd.io/bbolt"

	"ftpalg/config"
)

// Who a session belongs to. Only sessions that have logged in are to be counted: whoever has not can call himself anything.
type Who struct {
	Client  netip.Addr // counted by itself, of IPv6 by its /64: one host has all of that
	User    string     // the FTP user, counted without regard to case: to some servers that is one user
	Server  netip.Addr // where User has logged in
	Account string     // of the proxy; those without one count together, as if they had one
}

// The bounds that Over names, by their keys in the configuration.
const (
	Sessions  = "sessions"
	Transfers = "transfers"
	Bytes     = "bytes"
	Files     = "files"
)

// Over says which quota does not allow what was asked for, and by which of its bounds. It is an error.
type Over struct {
	Quota string // its name
	Bound string // Sessions, Transfers, Bytes or Files
}

func (o *Over) Error() string { return "quota " + o.Quota + ": no more " + o.Bound }

const (
	// interval is how often counts are written, and those forgotten that are over. What is lost when the process is killed was
	// counted within it.
	interval = 5 * time.Second
	// maxCounters bounds what is kept of each quota for those who are not here at the moment: 8 MB usually, and 60 MB when each
	// of them has spread what he did over the whole window. Those who are here are bounded by limits.sessions.
	maxCounters = 1 << 15
	// sampled is how many are compared to find one that can be forgotten.
	sampled = 16
	// longestWho is the longest text by which somebody is kept, bytes: user names may be as long as a command.
	longestWho = 128
)

// Store counts. Its counts are those of a quota's name, of whom it is Per and of him: a configuration that is reloaded with other
// bounds finds them again. All methods may be called from any goroutine.
//
// Time is the clock's on the wall, as it must be across restarts. When it is set back, what has been counted is as old as it was
// then, and not from the future: nobody is kept out for longer than a Window. When it is set forward, what was counted gets older.
type Store struct {
	path string // empty: there is no file
	log  *slog.Logger
	now  func() time.Time
	stop chan struct{}
	done sync.WaitGroup
	most int // maxCounters, but in tests

	// The file is run's alone, and before and after it Open's and Close's.
	db         *bbolt.DB // nil: there is none, or it cannot be opened now
	complained time.Time // when a write that failed was last logged

	mu     sync.Mutex // of all that follows, and of all counters; it is not held while the file is written
	tables map[string]table
	gone   map[string]bool // keys of the file that are to be removed from it: not more than it has
	lent   bool            // the file is another process's
}

// table has the counters of one quota, by who they are for. Quotas are apart because an adversary who can have what one of them
// has counted forgotten, with many addresses, must not reach the others, as those of accounts.
type table map[string]*counter

// Open reads the counts of a file and keeps them there, or in memory alone if path is empty. The file is made with mode 0600 if
// there is none: it tells who was here and what he moved. The error names the file; it is there when another process has it, or
// when the system does not let us have it. A file that is broken is put aside, as NAME.broken-TIME, and counting begins anew; one
// that cannot be made because the disk is full is made later. Both are logged. The caller must Close.
func Open(path string, log *slog.Logger) (*Store, error) {
	s := newStore(path, log)
	if err := s.load(); err != nil {
		return nil, err
	}
	s.done.Add(1)
	go s.run()
	return s, nil
}

// newStore makes a Store that has nothing and does nothing by itself.
func newStore(path string, log *slog.Logger) *Store {
	return &Store{path: path, log: log, now: time.Now, stop: make(chan struct{}), most: maxCounters,
		tables: map[string]table{}, gone: map[string]bool{}}
}

// run writes and forgets until Close.
func (s *Store) run() {
	defer s.done.Done()
	clock := time.NewTicker(interval)
	defer clock.Stop()
	for {
		select {
		case <-clock.C:
			s.save()
		case <-s.stop:
			return
		}
	}
}

// Close writes what has not been written and lets go of the file, if it is not lent. What is counted afterwards is not kept. The error
// is that of the write or of the file.
func (s *Store) Close() error {
	if s.lent {
		return nil
	}
	close(s.stop)
	s.done.Wait()
	return s.letGo()
}

// letGo writes what has not been written and closes the file. run has ended.
func (s *Store) letGo() error {
	err := s.save()
	if s.db != nil {
		if e := s.db.Close(); err == nil {
			err = e
		}
		s.db = nil
	}
	return err
}

// Holder is a session that counts. It must Leave.
type Holder struct {
	store *Store
	held  []held
	left  bool
}

// held is a counter and the bounds by which a session is held against it.
type held struct {
	*counter
	quota config.Quota
}

// Enter counts a session in, for all of some quotas or for none: those that its listener, client, and so on match, which the caller
// knows. The bounds hold for the session as they are now; after a reload it may Leave and Enter again. The Window is for all
// sessions that which was given last.
func (s *Store) Enter(quotas []config.Quota, who Who) (*Holder, *Over) {
	h := &Holder{store: s, held: make([]held, 0, len(quotas))}
	s.mu.Lock()
	defer s.mu.Unlock()
	now := s.now().UnixMilli()
	for _, q := range quotas {
		c := s.counter(q, who, now)
		if q.Sessions > 0 && c.sessions >= q.Sessions {
			h.leave()
			return nil, &Over{q.Name, Sessions}
		}
		c.sessions++
		h.held = append(h.held, held{c, q})
	}
	return h, nil
}

// Leave counts the session out. Its transfers that have not ended stay. Further calls do nothing.
func (h *Holder) Leave() {
	h.store.mu.Lock()
	defer h.store.mu.Unlock()
	h.leave()
}

func (h *Holder) leave() {
	if h.left {
		return
	}
	h.left = true
	for _, e := range h.held {
		e.sessions--
		h.store.settle(e.counter)
	}
}

// Flow is a transfer that counts. It must End.
type Flow struct {
	store   *Store
	held    []held
	counted []held // those whose bytes are bounded, in this direction
	ended   bool
}

// Begin counts a transfer in, for all quotas of its session or for none. A listing is no file, but its bytes count. A file counts
// from here on, whatever becomes of it: otherwise those would have files for nothing who break off before the last byte.
func (h *Holder) Begin(direction config.MoveDirection, isFile bool) (*Flow, *Over) {
	s := h.store
	f := &Flow{store: s, held: h.held}
	s.mu.Lock()
	defer s.mu.Unlock()
	now := s.now().UnixMilli()
	for _, e := range h.held {
		e.slide(now)
		q := e.quota
		ours := q.Direction == "" || q.Direction == direction
		switch {
		case q.Transfers > 0 && e.transfers >= q.Transfers:
			return nil, &Over{q.Name, Transfers}
		case ours && isFile && q.Files > 0 && e.files() >= int64(q.Files):
			return nil, &Over{q.Name, Files}
		case ours && q.Bytes > 0 && e.used.Load() >= int64(q.Bytes):
			return nil, &Over{q.Name, Bytes}
		}
		if ours && q.Bytes > 0 {
			f.counted = append(f.counted, e)
		}
	}
	for _, e := range h.held {
		e.transfers++
		if q := e.quota; isFile && q.Files > 0 && (q.Direction == "" || q.Direction == direction) {
			e.put(e.slotAt(now), 0, 1)
		}
	}
	return f, nil
}

// Add counts n bytes that are about to move. If it says Over they must not, and the transfer is at its end. They count even then:
// so those who have had enough hear it when they Begin, and not after the first piece each time. It is called from one goroutine,
// for each piece: it waits for nobody unless a quota is exceeded.
func (f *Flow) Add(n int64) *Over {
	if n <= 0 {
		return nil
	}
	var over *Over
	for _, e := range f.counted {
		if e.used.Add(n) > int64(e.quota.Bytes) && !f.fits(e) && over == nil {
			over = &Over{e.quota.Name, Bytes}
		}
	}
	return over
}

// fits reports whether what has been counted is within its bound once what is over is left out.
func (f *Flow) fits(e held) bool {
	f.store.mu.Lock()
	defer f.store.mu.Unlock()
	e.slide(f.store.now().UnixMilli())
	return e.used.Load() <= int64(e.quota.Bytes)
}

// End counts the transfer out. Further calls do nothing.
func (f *Flow) End() {
	f.store.mu.Lock()
	defer f.store.mu.Unlock()
	if f.ended {
		return
	}
	f.ended = true
	for _, e := range f.held {
		e.transfers--
		f.store.settle(e.counter)
	}
}

// counter is that of a quota for somebody, a new one if there is none. mu is held.
func (s *Store) counter(q config.Quota, who Who, now int64) *counter {
	c := s.open(tableOf(q), whoOf(q.Per, who), now)
	c.resize(widthOf(q.Window), now)
	return c
}

// open is the counter of a name in a table, a new one if there is none. mu is held.
func (s *Store) open(name, who string, now int64) *counter {
	t := s.tables[name]
	if t == nil {
		t = table{}
		s.tables[name] = t
	}
	c := t[who]
	if c == nil {
		if len(t) >= s.most {
			s.makeRoom(t, now)
			s.tables[name] = t // that may have been its last one
		}
		c = &counter{table: name, who: who}
		t[who] = c
	}
	return c
}

// makeRoom forgets one of those who are not here: of some, who has used least, and of those the one who has been away for longest.
// So an adversary who has used up what he may have cannot have that forgotten by coming from a great many other addresses, unless
// he uses as much from each. Maps are ranged over from a random place on.
func (s *Store) makeRoom(t table, now int64) {
	var least *counter
	looked := 0
	for _, c := range t {
		if !c.idle() {
			continue
		}
		c.slide(now)
		if least == nil || c.less(least) {
			least = c
		}
		if looked++; looked >= sampled {
			break
		}
	}
	if least != nil {
		s.forget(least)
	}
}

// settle forgets a counter that has nothing to say any more. mu is held.
func (s *Store) settle(c *counter) {
	if c.idle() && c.used.Load() == 0 && len(c.slots) == 0 && !c.forgotten {
		s.forget(c)
	}
}

// forget takes a counter out, and out of the file. mu is held.
func (s *Store) forget(c *counter) {
	c.forgotten = true
	delete(s.tables[c.table], c.who)
	if len(s.tables[c.table]) == 0 {
		delete(s.tables, c.table)
	}
	if c.stored {
		s.gone[c.key()] = true
	}
}

// tableOf is the name of a quota's table.
func tableOf(q config.Quota) string { return q.Name + "\x00" + string(q.Per) }

// whoOf is the text by which a quota counts somebody. Long ones are a hash of 64 digits.
func whoOf(per config.QuotaPer, who Who) string {
	text := ""
	switch per {
	case config.PerClient:
		a := who.Client.Unmap().WithZone("")
		if a.Is6() {
			if p, err := a.Prefix(64); err == nil {
				text = p.String()
				break
			}
		}
		text = a.String()
	case config.PerUser:
		text = strings.ToLower(strings.TrimSpace(who.User)) + "@" + who.Server.Unmap().WithZone("").String()
	case config.PerAccount:
		text = who.Account
	}
	if len(text) > longestWho {
		sum := sha256.Sum256([]byte(text))
		return "sha256:" + hex.EncodeToString(sum[:])
	}
	return text
}

// counter is what has been counted for somebody by one quota. But for used, Store.mu is held for all of it.
type counter struct {
	table, who string
	sessions   int
	transfers  int
	// used are the bytes in the window. Those that have come since it last slid are not in a slot yet.
	used  atomic.Int64
	width int64  // of a slot, ms
	slots []slot // by time; none is empty

	// What was put into slots since the file was lent; before that it says nothing.
	lateBytes, lateFiles int64

	dirty     bool // is not in the file as it is
	stored    bool // is in the file
	forgotten bool // is not in a table any more
}

// idle reports whether nobody is here who counts.
func (c *counter) idle() bool { return c.sessions == 0 && c.transfers == 0 }

// key is the counter's in the file.
func (c *counter) key() string { return c.table + "\x00" + c.who }

// less reports whether forgetting c loses less than forgetting d.
func (c *counter) less(d *counter) bool {
	if a, b := c.used.Load(), d.used.Load(); a != b {
		return a < b
	}
	if a, b := c.files(), d.files(); a != b {
		return a < b
	}
	return c.last() < d.last()
}
