package firewall

import (
	"encoding/binary"
	"errors"
	"net/netip"
	"sync"
	"time"

	"golang.org/x/sys/unix"
)

// TimeWaits takes away what closed transparent sockets leave: for a minute after it closed first, TCP keeps a socket's addresses
// (TIME_WAIT, RFC 9293 §3.4). Ours have the addresses of client and server, and the kernel does not forward packets between two
// addresses for which it has a socket: the next connection of the same two ports, through a pinhole or past a proxy that has
// stopped, would find nobody. What the state protects from is kept in mind by the peer's sequence numbers and by the firewall's
// connection tracking. Its methods are safe for concurrent use.
type TimeWaits struct {
	requests *requests // nil: it does nothing

	mu      sync.Mutex
	waiting [tries][]closing // by how often they have been looked at: so each list is in the order of their times
	running bool
}

// closing is a socket that was closed, by its own address and its peer's.
type closing struct {
	local, peer netip.AddrPort
	due         time.Time
}

// A closed socket's peer may take its time to close as well. These are the times after which we look again, in all as long as
// the kernel waits for it.
const tries = 6

var lookAgain = [tries]time.Duration{50 * time.Millisecond, 200 * time.Millisecond, time.Second, 4 * time.Second, 15 * time.Second, 42 * time.Second}

// NewTimeWaits opens what it asks the kernel by. Where that cannot be had it does nothing.
func NewTimeWaits() *TimeWaits {
	r, err := newRequests(unix.NETLINK_SOCK_DIAG)
	if err != nil {
		return &TimeWaits{}
	}
	return &TimeWaits{requests: r}
}

// Forget has a socket that has been closed forgotten as soon as it is in TIME_WAIT.
func (w *TimeWaits) Forget(local, peer netip.AddrPort) {
	if w.requests == nil {
		return
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	w.wait(0, closing{local: local, peer: peer})
	if !w.running {
		w.running = true
		go w.run()
	}
}

// wait puts a socket where it waits for its next look. It is called under the lock.
func (w *TimeWaits) wait(looks int, c closing) {
	c.due = time.Now().Add(lookAgain[looks])
	w.waiting[looks] = append(w.waiting[looks], c)
}

// next is when the first socket is due. It is not ok if there is none.
func (w *TimeWaits) next() (due time.Time, ok bool) {
	w.mu.Lock()
	defer w.mu.Unlock()
	for _, list := range w.waiting {
		if len(list) > 0 && (!ok || list[0].due.Before(due)) {
			due, ok = list[0].due, true
		}
	}
	w.running = w.running && ok
	return due, ok
}

// Settle does its work at once, for as long as anything is left of it, but not for longer than patience.
func (w *TimeWaits) Settle(patience time.Duration) {
	for end := time.Now().Add(patience); ; time.Sleep(20 * time.Millisecond) {
		w.look(end.Add(time.Hour))
		w.mu.Lock()
		left := 0
		for _, list := range w.waiting {
			left += len(list)
		}
		w.mu.Unlock()
		if left == 0 || time.Now().After(end) {
			return
		}
	}
}

// run looks after closed sockets as long as there are any.
func (w *TimeWaits) run() {
	for {
		due, ok := w.next()
		if !ok {
			return
		}
		// Not one by one: many sessions may end in a moment.
		time.Sleep(max(time.Until(due), 10*time.Millisecond))
		w.look(time.Now())
	}
}

// look looks at the sockets that are due by a time.
func (w *TimeWaits) look(by time.Time) {
	for looks := tries - 1; looks >= 0; looks-- { // downwards, so that none is looked at twice
		w.mu.Lock()
		list := w.waiting[looks]
		n := 0
		for n < len(list) && !list[n].due.After(by) {
			n++
		}
		due := list[:n:n]
		if w.waiting[looks] = list[n:]; n == len(list) {
			w.waiting[looks] = nil // due has its room
		}
		w.mu.Unlock()
		for _, c := range due {
			if w.forget(c) || looks+1 == tries {
				continue
			}
			w.mu.Lock()
			w.wait(looks+1, c)
			w.mu.Unlock()
		}
	}
}

// forget destroys a socket if it is in TIME_WAIT. It reports false if it may yet come to that.
func (w *TimeWaits) forget(c closing) bool {
	const timeWait, closed = 6, 7 // TCP_TIME_WAIT, TCP_CLOSE
	state := byte(closed)
	err := w.requests.do(socketMessage(sockDiagByFamily, 0, c), func(b []byte) {
		if len(b) > 1 {
			state = b[1]
		}
	})
	switch {
	case errors.Is(err, unix.ENOENT):
		return true
	case err == nil && state == timeWait:
		w.requests.do(socketMessage(sockDestroy, unix.NLM_F_ACK, c), nil) // a kernel that cannot (CONFIG_INET_DIAG_DESTROY) keeps it
		return true
	}
	return false
}

// Messages about sockets (linux/sock_diag.h).
const (
	sockDiagByFamily = 20
	sockDestroy      = 21
)

// socketMessage is a message about one socket (struct inet_diag_req_v2).
func socketMessage(kind, flags uint16, c closing) *message {
	m := &message{make([]byte, unix.SizeofNlMsghdr, 128)}
	binary.NativeEndian.PutUint16(m.b[4:], kind)
	binary.NativeEndian.PutUint16(m.b[6:], unix.NLM_F_REQUEST|flags)
	family := byte(unix.AF_INET)
	if c.local.Addr().Is6() {
		family = unix.AF_INET6
	}
	m.b = append(m.b, family, protoTCP, 0, 0)
	m.b = binary.NativeEndian.AppendUint32(m.b, ^uint32(0)) // in any state
	m.b = binary.BigEndian.AppendUint16(m.b, c.local.Port())
	m.b = binary.BigEndian.AppendUint16(m.b, c.peer.Port())
	for _, a := range []netip.Addr{c.local.Addr(), c.peer.Addr()} {
		var field [16]byte
		copy(field[:], a.AsSlice())
		m.b = append(m.b, field[:]...)
	}
	m.b = binary.NativeEndian.AppendUint32(m.b, 0)          // at any interface
	m.b = binary.NativeEndian.AppendUint64(m.b, ^uint64(0)) // whatever its cookie
	return m
}
