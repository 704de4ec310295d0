//go:build !linux

package firewall

import (
	"net/netip"
	"time"
)

// TimeWaits takes away what closed transparent sockets leave, on Linux.
type TimeWaits struct{}

// Forget does nothing here.
func (*TimeWaits) Forget(local, peer netip.AddrPort) {}

// Settle does nothing here.
func (*TimeWaits) Settle(time.Duration) {}
