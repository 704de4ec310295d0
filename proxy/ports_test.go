package proxy

import (
	"testing"

	"ftpalg/config"
)

// No port comes again before half of the range has been used, all of them come, and in no order.
func TestPorts(t *testing.T) {
	for _, r := range []config.PortRange{{First: 50000, Last: 50000}, {First: 50000, Last: 50001}, {First: 50000, Last: 50999}, {First: 65000, Last: 65535}} {
		size := int(r.Last-r.First) + 1
		p := newPorts(r)
		last := map[uint16]int{}
		ascending := 0
		for i := range 10 * size {
			port := p.take()
			if !r.Contains(port) {
				t.Fatalf("%v: %d", r, port)
			}
			if before, ok := last[port]; ok && i-before < size/2 {
				t.Fatalf("%v: %d came again after %d", r, port, i-before)
			}
			if before, ok := last[port-1]; ok && before == i-1 {
				ascending++
			}
			last[port] = i
		}
		if len(last) != size {
			t.Errorf("%v: %d of %d ports came", r, len(last), size)
		}
		if size > 100 && ascending > size {
			t.Errorf("%v: %d of %d ports followed upon the one below", r, ascending, 10*size)
		}
	}
}
