package dataconn

import (
	"errors"
	"net"
	"os"
	"testing"
	"testing/synctest"
	"time"
)

// sipping is a connection whose peer takes so many bytes of each write, and is then waited for until the deadline.
type sipping struct {
	net.Conn
	takes []int
	by    time.Time
}

func (s *sipping) SetReadDeadline(time.Time) error { return nil }

func (s *sipping) SetWriteDeadline(by time.Time) error {
	s.by = by
	return nil
}

func (s *sipping) Write(b []byte) (int, error) {
	n := 0
	if len(s.takes) > 0 {
		n, s.takes = min(s.takes[0], len(b)), s.takes[1:]
	}
	if n == len(b) {
		return n, nil
	}
	time.Sleep(time.Until(s.by))
	return n, os.ErrDeadlineExceeded
}

// TestPatient: a write goes on for as long as something of it is taken, and ends when nothing is for the time that its deadline gave,
// which counts for each write anew.
func TestPatient(t *testing.T) {
	const patience = 8 * time.Second
	for name, test := range map[string]struct {
		takes []int
		want  int
		after time.Duration
	}{
		"at once":         {[]int{10}, 10, 0},
		"never":           {nil, 0, patience},
		"late":            {[]int{0, 0, 0, 10}, 10, 6 * time.Second},
		"slow":            {[]int{1, 0, 0, 1, 0, 0, 1, 0, 0, 7}, 10, 18 * time.Second},
		"slow, then dead": {[]int{1, 0, 0, 1}, 2, 8*time.Second + patience},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				p := &patient{Conn: &sipping{takes: test.takes}}
				p.SetDeadline(time.Now().Add(patience))
				time.Sleep(patience) // the time before a write does not count
				begun := time.Now()
				n, err := p.Write(make([]byte, 10))
				if n != test.want || (err == nil) != (n == 10) || err != nil && !errors.Is(err, os.ErrDeadlineExceeded) {
					t.Errorf("%d bytes, %v", n, err)
				}
				if took := time.Since(begun); took != test.after {
					t.Errorf("after %v", took)
				}
			})
		})
	}
	t.Run("a deadline that is over", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			p := &patient{Conn: &sipping{}}
			p.SetDeadline(time.Now().Add(patience))
			p.SetDeadline(time.Now())
			begun := time.Now()
			if n, err := p.Write(make([]byte, 10)); n != 0 || err == nil || time.Since(begun) != 0 {
				t.Errorf("%d bytes, %v after %v", n, err, time.Since(begun))
			}
		})
	})
}
