package proxy

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/netip"
	"slices"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"ftpalg/config"
	"ftpalg/control"
	"ftpalg/dataconn"
)

// Where TLS is passed unopened nobody here can read which data connection client and server agree on. What they may use is
// an allowance: the passive ports that the configuration gives the server, for as long as their control connection lives, and
// between these two addresses alone. Not a rule of the firewall's but listeners of ours, on the server's address where we are
// transparent: so all of it ends with the session or with us, and every connection is in the log (a wide pinhole is
// what CVE-2015-5361 was).

// allowances are those of all sessions, since several clients may use one server's ports at once.
type allowances struct {
	log   *slog.Logger
	mu    sync.Mutex
	ports map[netip.AddrPort]*allowedPort
}

// allowedPort listens on one port of a server for those clients that have an allowance for it.
type allowedPort struct {
	net.Listener
	clients map[netip.Addr][]*passage // the newest last
}

// passage is one session's allowance. It is control.Passage.
type passage struct {
	of     *allowances
	n      *network
	log    *slog.Logger
	ctx    context.Context
	cancel context.CancelFunc
	client netip.Addr
	server netip.Addr
	ports  config.PortRange
	open   atomic.Int64 // data connections
	last   atomic.Int64 // when one ended, in nanoseconds of Unix time
	moving sync.WaitGroup
}

// pass returns the session's passage. It is control.Session.Pass.
func (p *Proxy) pass(ctx context.Context, n *network, log *slog.Logger, heard bool) (control.Passage, error) {
	var ports config.PortRange
	if n.rule >= 0 {
		ports = n.cfg.Destinations[n.rule].TLS.Pass
		if len(n.cfg.Destinations[n.rule].TLS.Pins) > 0 && !heard {
			if n.listener.TLS == config.TLSPass {
				return nil, &control.Refusal{Code: 534, Text: "TLS is not allowed here: this server's certificate would have to be looked at",
					Rule: "tls", Err: errors.New("tls: pass looks at no certificate, and the rule has pins: use tls: inspect")}
			}
			return nil, nil // the server's certificate will tell
		}
	}
	if ports == (config.PortRange{}) {
		if n.listener.TLS == config.TLSPass {
			return nil, &control.Refusal{Code: 534, Text: "TLS is not allowed here: nothing is known of this server's data ports", Rule: "tls",
				Err: errors.New("tls: pass, and no rule of destinations has tls.pass for this server")}
		}
		return nil, nil
	}
	a := &passage{of: &p.allowances, n: n, log: log, client: n.client.Addr(), ports: ports,
		server: dataconn.AddrPort(n.server.RemoteAddr()).Addr()}
	a.ctx, a.cancel = context.WithCancel(ctx)
	if err := a.listen(); err != nil {
		a.Close()
		return nil, &control.Refusal{Code: 421, Text: "Cannot let the server's data connections through", End: true, Rule: "tls", Err: err}
	}
	log.Info("TLS is passed unopened", "allowed", fmt.Sprintf("%v to %v ports %v", a.client, a.server, ports))
	return a, nil
}

// at is where the client finds the server.
func (a *passage) at(port uint16) netip.AddrPort {
	if a.n.transparent(dataconn.Client) {
		return netip.AddrPortFrom(a.n.dialed.Addr(), port)
	}
	return netip.AddrPortFrom(a.n.local.Addr(), port)
}

// listen opens the ports that no other session of this client or another has open yet.
func (a *passage) listen() error {
	a.of.mu.Lock()
	defer a.of.mu.Unlock()
	for port := int(a.ports.First); port <= int(a.ports.Last); port++ {
		at := a.at(uint16(port))
		l := a.of.ports[at]
		if l == nil {
			opened, err := a.n.listenAt(a.ctx, at)
			if errors.Is(err, syscall.EADDRINUSE) {
				// A data connection of another session has it for the moment. The client will be refused there, and try another.
				a.log.Warn("a port cannot be allowed, it is in use", "address", at)
				continue
			}
			if err != nil {
				return fmt.Errorf("listen on %v: %w", at, err)
			}
			l = &allowedPort{Listener: opened, clients: map[netip.Addr][]*passage{}}
			a.of.ports[at] = l
			go a.of.accept(at, l)
		}
		l.clients[a.client] = append(l.clients[a.client], a)
	}
	return nil
}

// Close implements control.Passage.
func (a *passage) Close() {
	a.cancel()
	a.of.mu.Lock()
	for port := int(a.ports.First); port <= int(a.ports.Last); port++ {
		at := a.at(uint16(port))
		l := a.of.ports[at]
		if l == nil {
			continue
		}
		l.clients[a.client] = slices.DeleteFunc(l.clients[a.client], func(o *passage) bool { return o == a })
		if len(l.clients[a.client]) == 0 {
			delete(l.clients, a.client)
		}
		if len(l.clients) == 0 {
			delete(a.of.ports, at)
			l.Close()
		}
	}
	a.of.mu.Unlock()
	a.moving.Wait()
}

// Active implements control.Passage.
func (a *passage) Active() bool {
	return a.open.Load() > 0 || time.Since(time.Unix(0, a.last.Load())) < a.n.cfg.Timeouts.Idle
}

// accept takes the connections to an allowed port until that is closed.
func (s *allowances) accept(at netip.AddrPort, l *allowedPort) {
	for {
		c, err := l.Accept()
		if errors.Is(err, net.ErrClosed) {
			return
		}
		if err != nil {
			time.Sleep(5 * time.Millisecond) // a shortage of descriptors passes
			continue
		}
		from := dataconn.AddrPort(c.RemoteAddr()).Addr()
		s.mu.Lock()
		allowed := l.clients[from]
		var a *passage
		if len(allowed) > 0 {
			a = allowed[len(allowed)-1]
			a.open.Add(1)
			a.moving.Add(1)
		}
		s.mu.Unlock()
		if a == nil {
			// Nobody knows which session's data it was after.
			s.log.Warn("refused a data connection from a stranger to a port that others are allowed",
				"from", dataconn.AddrPort(c.RemoteAddr()), "to", at)
			c.Close() // data sockets end in a reset from birth
			continue
		}
		go a.carry(c, at.Port())
	}
}

// carry carries one data connection, both ways: it may be either side's to send, and TLS is always both's.
func (a *passage) carry(client net.Conn, port uint16) {
	defer func() {
		a.last.Store(time.Now().UnixNano())
		a.open.Add(-1)
		a.moving.Done()
	}()
	defer client.Close()
	begun := time.Now()
	ctx, cancel := context.WithTimeout(a.ctx, a.n.cfg.Timeouts.DataSetup)
	server, err := a.n.Dial(ctx, dataconn.Server, 0, netip.AddrPortFrom(a.server, port))
	cancel()
	if err != nil {
		a.log.Info("passed data connection", "port", port, "error", err)
		return
	}
	defer server.Close()
	sent, received, err := dataconn.Tunnel(a.ctx, client, server, a.n.cfg.Timeouts.DataIdle, nil)
	args := []any{"port", port, "sent", sent, "received", received, "duration", round(time.Since(begun))}
	if err != nil {
		args = append(args, "error", err)
	}
	a.log.Info("passed data connection", args...)
}
