//go:build !linux

package firewall

import "log/slog"

// Pinholes makes pinholes, on Linux.
type Pinholes struct{}

// NewPinholes fails here: it is for Linux.
func NewPinholes(Plan, *slog.Logger) (*Pinholes, error) { return nil, errLinuxOnly }

// Close does nothing.
func (*Pinholes) Close() {}

// Open fails here: it is for Linux.
func (*Pinholes) Open(Hole) (*Pinhole, error) { return nil, errLinuxOnly }

// Pinhole is one, on Linux.
type Pinhole struct{ Hole Hole }

// Renew does nothing, as there are no pinholes here; nor do the others.
func (*Pinhole) Renew() error { return errLinuxOnly }

// Suspend does nothing.
func (*Pinhole) Suspend() {}

// Unused does nothing.
func (*Pinhole) Unused() (bool, error) { return false, errLinuxOnly }

// Changed does nothing.
func (*Pinhole) Changed() <-chan struct{} { return nil }

// Passage does nothing.
func (*Pinhole) Passage() Passage { return Passage{} }

// Count does nothing.
func (*Pinhole) Count() (Count, error) { return Count{}, errLinuxOnly }

// Close does nothing.
func (*Pinhole) Close() {}

// Cut does nothing.
func (*Pinhole) Cut() {}
