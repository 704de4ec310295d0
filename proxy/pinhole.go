package proxy

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/netip"
	"sync"
	"syscall"
	"time"

	"ftpalg/config"
	"ftpalg/dataconn"
	"ftpalg/proxy/firewall"
)

// pinholes is how the kernel carries data connections: what makes them, and where that has turned out not to work.
type pinholes struct {
	log *slog.Logger

	mu      sync.Mutex
	waiting bool // the process before us has the kernel's log of packets
	made    *firewall.Pinholes
	blocked map[string]time.Time // by listener: until then nothing is tried
	faults  map[string]time.Time // by listener: until then no fault is reported again
}

// blockedFor is how long a listener's data come to us after a firewall has not let one through, and faultsEvery how often a
// listener's faults are reported.
const (
	blockedFor  = 10 * time.Minute
	faultsEvery = time.Minute
)

// adopt makes pinholes possible for a configuration, if it wants any and the kernel can. What makes them stays until close, as
// running transfers depend on it: other marks and another log group are for a restart.
func (s *pinholes) adopt(cfg *config.Config) {
	plan := Plan(cfg)
	plan.Intercepts = nil // of no matter here
	s.mu.Lock()
	defer s.mu.Unlock()
	s.blocked, s.faults = map[string]time.Time{}, map[string]time.Time{}
	if !plan.Pinholes {
		return
	}
	if s.waiting {
		s.log.Info("data connections come to us until the process before this one has ended; then the kernel may carry those that are plain")
		return
	}
	var err error
	if s.made == nil {
		if s.made, err = firewall.NewPinholes(plan, s.log); err != nil {
			s.made = nil
		}
	}
	for i := range cfg.Listeners {
		switch l := &cfg.Listeners[i]; {
		case !mayPass(l):
		case err == nil:
			s.log.Info("the kernel carries plain data connections", "listener", l.Name)
		case l.DataPath == config.PathKernel:
			s.log.Warn("the kernel cannot carry data connections, so they come to us", "listener", l.Name, "error", err)
		default:
			s.log.Info("data connections come to us; the kernel could carry those that are plain", "listener", l.Name, "why", err)
		}
	}
}

// DataPaths says for each listener of a configuration who would carry its plain data connections now, and why that is not the
// kernel.
func DataPaths(cfg *config.Config) []string {
	plan := Plan(cfg)
	plan.Intercepts, plan.Divert = nil, false
	why := ""
	if plan.Pinholes {
		switch missing, err := firewall.Missing(plan); {
		case err != nil:
			why = fmt.Sprintf("it cannot be told what the kernel has: %v", err)
		case len(missing) > 0:
			why = missing[0].String()
		}
	}
	var lines []string
	for i := range cfg.Listeners {
		l := &cfg.Listeners[i]
		why := cmp.Or(kept(l), why)
		if why == "" {
			lines = append(lines, fmt.Sprintf("listener %s: the kernel carries plain data connections", l.Name))
		} else {
			lines = append(lines, fmt.Sprintf("listener %s: data connections come to ftpalg: %s", l.Name, why))
		}
	}
	return lines
}

// kept says why nothing that belongs to a listener can be carried by the kernel; empty: it may be.
func kept(l *config.Listener) string {
	switch {
	case l.DataPath == config.PathSplice:
		return "data_path is splice"
	case l.ServerData != config.DataSame:
		return "server_data is not same"
	case len(l.ProxyProtocol.Trusted) > 0:
		return "they may come by way of a load balancer"
	case l.Address.Addr().IsLoopback():
		return "its clients are on this machine"
	}
	return ""
}

// mayPass reports whether the kernel may carry what belongs to a listener.
func mayPass(l *config.Listener) bool { return kept(l) == "" }

// succeed is for when the process before us has ended.
func (s *pinholes) succeed() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.waiting = false
}

func (s *pinholes) close() {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.made != nil {
		s.made.Close()
		s.made = nil
	}
}

// get is what makes pinholes for a listener, nil if nothing does now.
func (s *pinholes) get(l *config.Listener) *firewall.Pinholes {
	s.mu.Lock()
	defer s.mu.Unlock()
	if time.Now().Before(s.blocked[l.Name]) {
		return nil
	}
	return s.made
}

// block has a listener's data come to us for a while.
func (s *pinholes) block(l *config.Listener, why error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.made != nil && !time.Now().Before(s.blocked[l.Name]) {
		s.log.Warn("a data connection that the kernel was to carry did not get through, so they come to us for now; "+
			"your forward chain needs: ct state established,related accept", "listener", l.Name, "for", blockedFor.String(), "error", why)
	}
	s.blocked[l.Name] = time.Now().Add(blockedFor)
}

// unblock has the kernel tried again: its rules are new.
func (s *pinholes) unblock() {
	s.mu.Lock()
	defer s.mu.Unlock()
	clear(s.blocked)
	clear(s.faults)
}

// fault reports that the kernel did not make a pinhole.
func (s *pinholes) fault(l *config.Listener, err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if time.Now().Before(s.faults[l.Name]) {
		return
	}
	s.faults[l.Name] = time.Now().Add(faultsEvery)
	s.log.Warn("the kernel does not carry a data connection, so it comes to us", "listener", l.Name, "error", err)
}

// errHere is for connections that do not cross this machine.
var errHere = errors.New("one of the peers is this machine")

// Pinhole implements dataconn.Passer.
func (n *network) Pinhole(ctx context.Context, caller dataconn.Side, to netip.AddrPort) (dataconn.Pinhole, error) {
	made := n.pinholes.get(n.listener)
	if made == nil || !mayPass(n.listener) || n.listenClient != nil {
		return nil, firewall.ErrNoPinhole
	}
	ours := [2]netip.AddrPort{n.local, dataconn.AddrPort(n.server.LocalAddr())}
	server := dataconn.AddrPort(n.server.RemoteAddr())
	if n.own.has(n.client.Addr()) || n.own.has(server.Addr()) {
		return nil, errHere
	}
	if err := n.counts.listen(n.cfg.Limits); err != nil {
		return nil, err
	}
	h := firewall.Hole{Control: [2]netip.AddrPort{ours[dataconn.Server], server}, To: to}
	// What each side has to see of the other: itself where it is hidden that we are between them, else us.
	callee := dataconn.Server
	if h.From = n.client.Addr(); caller == dataconn.Server {
		h.From, callee = server.Addr(), dataconn.Client
	}
	if !n.seesOther(callee) {
		h.As = ours[callee].Addr()
	}
	p := &pinhole{n: n, caller: caller}
	var err error
	if n.seesOther(caller) {
		h.At = to
		if caller == dataconn.Client {
			h.At = netip.AddrPortFrom(n.dialed.Addr(), to.Port())
		}
	} else {
		p.reserved, err = n.reserve(ctx, ours[caller].Addr())
		if err == nil {
			h.At = p.reserved.at
		}
	}
	if err == nil {
		p.Pinhole, err = made.Open(h)
	}
	if err != nil {
		p.release()
		n.pinholes.fault(n.listener, err)
		return nil, err
	}
	return p, nil
}

// seesOther reports whether the peer of a side sees the other peer's address in data connections, and not ours.
func (n *network) seesOther(side dataconn.Side) bool {
	if side == dataconn.Client {
		return n.listener.Mode == config.TPROXY || n.listener.Mode == config.Redirect
	}
	return n.transparent(dataconn.Server)
}

// reserve takes a port of data_ports on an address of ours, at which a pinhole begins.
func (n *network) reserve(ctx context.Context, at netip.Addr) (*reserved, error) {
	var r *reserved
	err := n.eachPort(at, 0, func(at netip.AddrPort) (err error) {
		r, err = n.sockets.reserve(at)
		return err
	})
	return r, err
}

// pinhole is dataconn.Pinhole for a session.
type pinhole struct {
	*firewall.Pinhole
	n        *network
	caller   dataconn.Side
	reserved *reserved // nil: it begins at an address that is not ours
	released sync.Once
	since    time.Time // it is connected
}

// way is how the bytes of a file go.
func (p *pinhole) way(d dataconn.Direction) firewall.Way {
	if (d == dataconn.Upload) == (p.caller == dataconn.Client) {
		return firewall.There
	}
	return firewall.Back
}

// At implements dataconn.Pinhole.
func (p *pinhole) At() netip.AddrPort { return p.Hole.At }

// wrapped is how long a connection must have lasted to have carried 4 GiB, at more than 100 Gbit/s.
const wrapped = 200 * time.Millisecond

// Seen implements dataconn.Pinhole.
func (p *pinhole) Seen(d dataconn.Direction) dataconn.Seen {
	passage, way := p.Passage(), p.way(d)
	if passage.Connected && p.since.IsZero() {
		p.since = time.Now()
	}
	seen := dataconn.Seen{
		Connected: passage.Connected, Ended: passage.Ended[way], Closed: passage.Ended[1-way], Broken: passage.Reset, Bytes: passage.Bytes[way],
	}
	if seen.Ended && time.Since(p.since) > wrapped {
		// TCP counts modulo 2^32; the kernel's count, which is not exact, says how often that came round.
		if about, _, err := p.Count(d); err == nil {
			const round = 1 << 32
			seen.Bytes += max(0, (about-seen.Bytes+round/2)/round) * round
		}
	}
	return seen
}

// Count implements dataconn.Pinhole.
func (p *pinhole) Count(d dataconn.Direction) (int64, bool, error) {
	c, err := p.Pinhole.Count()
	way := p.way(d)
	headers := int64(20 + 20 + 12) // IPv4, TCP, and time stamps, which all have nowadays
	if p.Hole.From.Is6() {
		headers += 20
	}
	const first = 8 // the first packet has more options: how large segments and windows may be, and SACK
	return max(0, c.Bytes[way]-headers*c.Packets[way]-first), c.Ending, err
}

// Listen implements dataconn.Pinhole.
func (p *pinhole) Listen(ctx context.Context, why error) (net.Listener, error) {
	if errors.Is(why, dataconn.ErrBlocked) {
		p.n.pinholes.block(p.n.listener, why)
	} else if !errors.Is(why, dataconn.ErrSeen) {
		p.n.pinholes.fault(p.n.listener, why)
	}
	p.Pinhole.Cut()
	var l net.Listener
	var err error
	if p.reserved != nil {
		l, err = p.reserved.listen()
	} else {
		l, err = p.n.listenData(ctx, p.Hole.At, true)
	}
	if err != nil {
		p.release()
		return nil, fmt.Errorf("listen on %v: %w", p.Hole.At, err)
	}
	p.released.Do(func() {}) // the listener is counted in its place
	return &countedListener{Listener: l, counts: p.n.counts}, nil
}

// Close implements dataconn.Pinhole.
func (p *pinhole) Close() {
	p.Pinhole.Close()
	p.release()
}

// Cut implements dataconn.Pinhole.
func (p *pinhole) Cut() {
	p.Pinhole.Cut()
	p.release()
}

// release gives back what the session has of a pinhole's.
func (p *pinhole) release() {
	p.released.Do(func() {
		p.n.counts.unlisten()
		if p.reserved != nil {
			p.reserved.close()
		}
	})
}

// eachPort tries the ports of data_ports but one until one is not in use.
func (n *network) eachPort(at netip.Addr, avoid uint16, try func(netip.AddrPort) error) error {
	wanted := n.listener.DataPorts
	if wanted.First == 0 {
		wanted = anyPorts
	}
	ports := n.ports.get(wanted)
	for range int(wanted.Last-wanted.First) + 1 {
		port := ports.take()
		if port == avoid {
			continue
		}
		if err := try(netip.AddrPortFrom(at, port)); err == nil || !errors.Is(err, syscall.EADDRINUSE) {
			return err
		}
	}
	return fmt.Errorf("all of data_ports %v are in use on %v: widen the range", wanted, at)
}
