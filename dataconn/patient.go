package dataconn

import (
	"errors"
	"net"
	"os"
	"time"
)

// patient is a leg whose write deadline bounds the time in which its peer takes nothing, and not that of a whole write: the more is
// written at once the less it costs, and a peer that is slow to take it is not dead. One goroutine may write and set its deadline.
type patient struct {
	net.Conn
	patience time.Duration // 0: there is no deadline
}

// looks is how often, in the time that a peer has to take something, it is looked whether it has: the kernel tells by itself only when
// there is much room again, but a write finds what room there is. A peer that takes nothing is noticed after that time, and a look later at
// the latest.
const looks = 4

// SetWriteDeadline implements net.Conn, but the time from now until then begins anew with each write, and with what is written of it.
func (p *patient) SetWriteDeadline(by time.Time) error {
	p.patience = 0
	if left := time.Until(by); left > 0 {
		p.patience = left
		return nil
	}
	return p.Conn.SetWriteDeadline(by)
}

// SetDeadline implements net.Conn.
func (p *patient) SetDeadline(by time.Time) error {
	return errors.Join(p.SetReadDeadline(by), p.SetWriteDeadline(by))
}

func (p *patient) Write(b []byte) (done int, err error) {
	if p.patience == 0 {
		return p.Conn.Write(b)
	}
	for moved := time.Now(); ; {
		p.Conn.SetWriteDeadline(time.Now().Add(p.patience / looks))
		n, err := p.Conn.Write(b[done:])
		done += n
		if n > 0 {
			moved = time.Now()
		}
		if !errors.Is(err, os.ErrDeadlineExceeded) || time.Since(moved) >= p.patience {
			return done, err
		}
	}
}
