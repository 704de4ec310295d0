package firewall

import (
	"errors"
	"net/netip"
)

// Hole is a connection that a pinhole lets in: the first one from From, from any port, to At.
type Hole struct {
	// Control is our control connection to the server, our end first. The kernel forgets the pinhole with it. It must have been
	// opened with Plan.Mark while the plan's rules were in force.
	Control [2]netip.AddrPort
	From    netip.Addr     // who connects
	At      netip.AddrPort // where to, as From sees it
	To      netip.AddrPort // where that leads; At or zero: there
	As      netip.Addr     // from whom, as To sees it; From or zero: from From
}

// translated reports whether the two ends are told different addresses.
func (h Hole) translated() bool {
	return h.To.IsValid() && h.To != h.At || h.As.IsValid() && h.As != h.From
}

// target is where a hole leads.
func (h Hole) target() netip.AddrPort {
	if h.To.IsValid() {
		return h.To
	}
	return h.At
}

// Way is a direction of a connection.
type Way int

// The ways.
const (
	There Way = iota // from whom connected to whom was connected to
	Back
)

// Passage is what is known of a connection that came through a pinhole.
type Passage struct {
	Connected bool     // both ends have agreed to it
	Ended     [2]bool  // by Way: whoever sends that way has said that this was all
	Bytes     [2]int64 // by Way: exact once Ended, modulo 2^32 (see Pinhole.Count), and 0 before
	Reset     bool     // one end, or the network, has broken it off
}

// Count is what the kernel has counted of a connection, with headers and what was sent twice.
type Count struct {
	Packets, Bytes [2]int64 // by Way
	Ending         bool     // one end has said that it sends no more, or the connection is over
}

var (
	// ErrNoPinhole is a kernel that cannot make one for this connection: the rules were not in force when the control
	// connection was opened, or there are too many.
	ErrNoPinhole = errors.New("the kernel makes no pinhole")
	// ErrUntracked is a connection of which the kernel knows nothing, or nothing any more.
	ErrUntracked = errors.New("the kernel does not track the connection")
)
