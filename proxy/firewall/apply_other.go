//go:build !linux

package firewall

import "errors"

var errLinuxOnly = errors.New("firewall: nftables and policy routes are Linux's; here they can only be printed")

// Apply puts the plan in force. It fails here: it is for Linux.
func Apply(Plan) error { return errLinuxOnly }

// Remove takes the plan out of force. It fails here: it is for Linux.
func Remove(Plan) error { return errLinuxOnly }

// InForce reports whether the kernel has exactly the plan's rules. It fails here: it is for Linux.
func InForce(Plan) (bool, error) { return false, errLinuxOnly }

// Watch is for Linux.
type Watch struct{}

// NewWatch fails here.
func NewWatch() (*Watch, error) { return nil, errLinuxOnly }

// Changed implements nothing here.
func (*Watch) Changed() <-chan struct{} { return nil }

// Close implements nothing here.
func (*Watch) Close() {}

// Missing says what of the plan is not in force now. It fails here: it is for Linux.
func Missing(Plan) ([]Fault, error) { return nil, errLinuxOnly }
