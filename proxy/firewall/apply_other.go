//go:build !linux

package firewall

import "errors"

var errLinuxOnly = errors.New("firewall: nftables and policy routes are Linux's; here they can only be printed")

// Apply puts the plan in force. It fails here: it is for Linux.
func Apply(Plan) error { return errLinuxOnly }

// Remove takes the plan out of force. It fails here: it is for Linux.
func Remove(Plan) error { return errLinuxOnly }

// Missing says what of the plan is not in force now. It fails here: it is for Linux.
func Missing(Plan) ([]Fault, error) { return nil, errLinuxOnly }
