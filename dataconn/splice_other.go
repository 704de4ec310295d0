//go:build !linux

package dataconn

import (
	"errors"
	"net"
)

func spliceable(src, dst net.Conn) bool { return false }

func gather(net.Conn, int) error { return errors.ErrUnsupported }
