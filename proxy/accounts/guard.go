package accounts

import (
	"context"
	"errors"
	"hash/maphash"
	"net/netip"
	"runtime"
	"strings"
	"sync"
	"time"
)

// Limits are how guessers are met. All are positive.
type Limits struct {
	Failures int           // of one address, within Window of one another, before it is banned
	Window   time.Duration // how long a failure is remembered
	Ban      time.Duration // how long an address that is banned can try nothing
}

// Guard remembers who failed to log in. An address (of IPv6 a /64, since one host has all of that) that fails has to wait
// before it may try again, longer each time, can try one password at a time, and is banned after Limits.Failures. An account
// for which logins fail, from whichever addresses, has the same waits and is not banned: otherwise anybody could lock
// anybody out. And an address that has logged in as the account within a day does not wait for either.
//
// An adversary with many addresses can fill what is remembered, so there is room for so many, and those with few failures
// are forgotten first: he cannot have an account forgotten that he guesses at.
type Guard struct {
	// hashing has a place for each hash that may be computed at the same time.
	hashing chan struct{}
	seed    maphash.Seed // unknown to all, so that nobody can choose names that are taken for one another

	mu        sync.Mutex
	addresses ledger
	names     ledger
	friends   ledger // addresses with the names by which they have logged in
}

// ledger has who failed, by a hash of who it is.
type ledger map[uint64]*record

type record struct {
	failures int
	running  int       // tries under way
	last     time.Time // the last failure; of a friend, the last success
	next     time.Time // no try before
	banned   time.Time // no try at all until
}

const (
	// maxRecords bounds each ledger: about 10 MB when full.
	maxRecords = 1 << 16
	// sampled is how many are compared to find one that can be forgotten.
	sampled = 16
	// friendship is how long an address that has logged in as an account is its friend.
	friendship = 24 * time.Hour
	// longest is the longest delay: a guesser has 2880 tries a day then for one account, with all addresses together.
	longest = 30 * time.Second
	// turn is how often those look that wait until another try of theirs is over.
	turn = 20 * time.Millisecond
)

// NewGuard makes a Guard that remembers nothing.
func NewGuard() *Guard {
	// Half of the processors: the sessions of those who are in go on.
	n := max(1, runtime.GOMAXPROCS(0)/2)
	return &Guard{hashing: make(chan struct{}, n), seed: maphash.MakeSeed(), addresses: ledger{}, names: ledger{}, friends: ledger{}}
}

// delay is the wait after so many failures: 1 s, and twice as long each time.
func delay(failures int) time.Duration {
	if failures > 5 {
		return longest
	}
	return min(time.Second<<max(0, failures-1), longest)
}

// try is one attempt to log in that has begun. It must be ended.
type try struct {
	guard   *Guard
	limits  Limits
	address uint64
	name    uint64
	friend  uint64
	trusted bool
}

// begin begins an attempt when it may be made. The error is *Later for those who are banned, or the context's.
func (g *Guard) begin(ctx context.Context, l Limits, client netip.Addr, name string) (*try, error) {
	who := counted(client).String()
	name = strings.ToLower(name) // to a directory they are one
	t := &try{guard: g, limits: l, address: maphash.String(g.seed, who), name: maphash.String(g.seed, name),
		friend: maphash.String(g.seed, who+" "+name)}
	for {
		wait, err := t.admit(time.Now())
		if err != nil || wait <= 0 {
			return t, err
		}
		clock := time.NewTimer(wait)
		select {
		case <-clock.C:
		case <-ctx.Done():
			clock.Stop()
			return nil, ctx.Err()
		}
	}
}

// admit counts an attempt in, or says how long it has to wait before it asks again.
func (t *try) admit(now time.Time) (wait time.Duration, err error) {
	g := t.guard
	g.mu.Lock()
	defer g.mu.Unlock()
	// Not more friends at once than others: all that come before the first has failed are let in.
	if f := g.friends[t.friend]; f != nil && now.Sub(f.last) < friendship && f.running < t.limits.Failures {
		f.running++
		t.trusted = true
		return 0, nil
	}
	a := g.addresses.open(t.address, now, t.limits.Window)
	n := g.names.open(t.name, now, t.limits.Window)
	if now.Before(a.banned) {
		return 0, &Later{a.banned}
	}
	for _, r := range []*record{a, n} {
		wait = max(wait, r.next.Sub(now))
		// Many tries at once, before the first of them has failed, must not be more than there would be one by one.
		if most := t.limits.Failures; r.running >= most || r.failures > 0 && r.running > 0 {
			wait = max(wait, turn)
		}
	}
	if wait > 0 {
		return wait, nil
	}
	a.running++
	n.running++
	return 0, nil
}

// end counts an attempt out, with its outcome. It reports whether the address is banned from now on.
func (t *try) end(outcome error) (banned bool) {
	g, now := t.guard, time.Now()
	g.mu.Lock()
	defer g.mu.Unlock()
	failed := errors.Is(outcome, ErrFailed)
	a := g.addresses.open(t.address, now, t.limits.Window)
	n := g.names.open(t.name, now, t.limits.Window)
	for _, r := range []*record{a, n} {
		if !t.trusted {
			r.running--
		}
		if failed {
			r.failures++
			r.last, r.next = now, now.Add(delay(r.failures))
		}
	}
	if f := g.friends[t.friend]; t.trusted && f != nil {
		f.running = max(0, f.running-1) // it may have been forgotten, and made again since
	}
	if failed {
		delete(g.friends, t.friend)
		if a.failures >= t.limits.Failures {
			*a = record{running: a.running, last: now, banned: now.Add(t.limits.Ban)}
			banned = true
		}
	}
	if outcome == nil {
		g.friends.open(t.friend, now, friendship).last = now
	}
	g.addresses.settle(t.address)
	g.names.settle(t.name)
	return banned
}

// open is the record of a key, a new one if there is none or if it is over.
func (l ledger) open(key uint64, now time.Time, memory time.Duration) *record {
	r := l[key]
	if r == nil {
		l.makeRoom(now, memory)
		r = &record{}
		l[key] = r
	}
	if r.running == 0 && r.over(now, memory) {
		*r = record{}
	}
	return r
}

// over reports whether a record has nothing left to say.
func (r *record) over(now time.Time, memory time.Duration) bool {
	return now.Sub(r.last) >= memory && !now.Before(r.banned)
}

// settle forgets a record that has nothing to say.
func (l ledger) settle(key uint64) {
	if r := l[key]; r != nil && *r == (record{}) {
		delete(l, key)
	}
}

// makeRoom forgets a few records that are over, and if there are as many as may be, one that matters least of some.
// Maps are ranged over from a random place on.
func (l ledger) makeRoom(now time.Time, memory time.Duration) {
	var least *record
	var leastKey uint64
	looked := 0
	for key, r := range l {
		if looked++; looked > sampled {
			break
		}
		switch {
		case r.running > 0:
		case r.over(now, memory):
			delete(l, key)
		case least == nil || r.less(least):
			least, leastKey = r, key
		}
	}
	if len(l) >= maxRecords && least != nil {
		delete(l, leastKey)
	}
}

// less reports whether forgetting r loses less than forgetting s.
func (r *record) less(s *record) bool {
	if !r.banned.Equal(s.banned) {
		return r.banned.Before(s.banned)
	}
	if r.failures != s.failures {
		return r.failures < s.failures
	}
	return r.last.Before(s.last)
}

// counted is what an address counts as: for IPv6 its /64.
func counted(a netip.Addr) netip.Addr {
	if a.Is6() {
		if p, err := a.Prefix(64); err == nil {
			return p.Addr()
		}
	}
	return a
}
