package proxy

import (
	"math/rand/v2"
	"sync"

	"ftpalg/config"
)

// ports hands out the ports of a range for data listeners: at random, lest the next one be guessed (RFC 2577 §8), but
// none again before at least half of the range has had its turn. A server that calls from its port 20 keeps the pair of
// its port and ours for a minute after it has closed (TIME_WAIT) and cannot call the same port of ours until then.
type ports struct {
	mu    sync.Mutex
	order []uint16
	next  int
}

// anyPorts is the range of a listener without data_ports: what Linux gives out by default (ip_local_port_range).
var anyPorts = config.PortRange{First: 32768, Last: 60999}

func newPorts(r config.PortRange) *ports {
	p := &ports{order: make([]uint16, 0, int(r.Last-r.First)+1)}
	for port := int(r.First); port <= int(r.Last); port++ {
		p.order = append(p.order, uint16(port))
	}
	shuffle(p.order)
	return p
}

func shuffle(order []uint16) {
	rand.Shuffle(len(order), func(i, j int) { order[i], order[j] = order[j], order[i] })
}

// take returns the next port.
func (p *ports) take() uint16 {
	p.mu.Lock()
	defer p.mu.Unlock()
	half := len(p.order) / 2
	switch p.next {
	case half: // each half is shuffled when it comes round again, so the other half lies between two uses of a port
		shuffle(p.order[half:])
	case len(p.order):
		p.next = 0
		shuffle(p.order[:half])
	}
	port := p.order[p.next]
	p.next++
	return port
}

// portRanges are the ports of each range that is in use. They outlive reloads.
type portRanges struct {
	mu sync.Mutex
	of map[config.PortRange]*ports
}

func (r *portRanges) get(of config.PortRange) *ports {
	r.mu.Lock()
	defer r.mu.Unlock()
	p := r.of[of]
	if p == nil {
		if r.of == nil {
			r.of = map[config.PortRange]*ports{}
		}
		p = newPorts(of)
		r.of[of] = p
	}
	return p
}
