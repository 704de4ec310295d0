//go:build !linux

package firewall

import (
	"net/netip"
	"time"
)

// TimeWaits takes away what closed transparent sockets leave, on Linux.
type TimeWaits struct{}

// NewTimeWaits is nothing here.
func NewTimeWaits() *TimeWaits { return &TimeWaits{} }

// Forget does nothing here.
func (*TimeWaits) Forget(local, peer netip.AddrPort) {}

// Settle does nothing here.
func (*TimeWaits) Settle(time.Duration) {}
