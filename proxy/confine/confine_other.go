//go:build !linux

package confine

import "errors"

// Due reports that there is nothing to give up: the gateway runs on Linux alone.
func (Confinement) Due() (bool, error) { return false, nil }

// Enter fails here.
func (Confinement) Enter() error { return errors.New("there is nothing to give up but on Linux") }
