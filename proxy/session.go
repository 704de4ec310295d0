package proxy

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
	"net/netip"
	"sync/atomic"
	"time"

	"ftpalg/config"
	"ftpalg/control"
	"ftpalg/control/wire"
	"ftpalg/dataconn"
	"ftpalg/proxy/accounts"
)

// arrival is a client's control connection, and how it came to us.
type arrival struct {
	conn          net.Conn // the session's to close
	client, local netip.AddrPort
	announced     netip.AddrPort // where the client has connected to, if a load balancer has brought the connection
	implicit      bool           // the client has begun with TLS
	places        []place        // where the client's server is, if it has named it otherwise than by FTP; nil: it has not
	// listen, if not nil, makes the listeners for the client's data connections, which are no connections to a port of ours then.
	listen  func(ctx context.Context, server netip.AddrPort) (net.Listener, error)
	counted bool              // limits have counted the client already
	denied  *atomic.Bool      // whether the last negative reply was our own; nil: nobody asks
	account *accounts.Account // that the client has logged in to by another protocol than FTP; nil: it has not
}

// accountName is empty where there is no account.
func (a arrival) accountName() string {
	if a.account == nil {
		return ""
	}
	return a.account.Name
}

// serve serves one client, from its connection to its end. It is done for p.sessions then.
func (p *Proxy) serve(s *setting, c *net.TCPConn) {
	defer p.sessions.Done()
	p.track(c)
	if v := p.receive(s, c); v != nil {
		v.hold()
	}
}

// receive makes a client that speaks FTP a session, and serves any other. A session spends its time below serve, which is why what
// it takes to begin one is not on its stack: no compiler may put it there.
//
//go:noinline
func (p *Proxy) receive(s *setting, c *net.TCPConn) *served {
	a, ok := p.met(s, c)
	if !ok {
		return nil
	}
	v := p.admit(s, &a)
	if v == nil {
		p.drop(a.conn)
	}
	return v
}

// met finds out what a client is: one that speaks FTP, unless it has been served otherwise.
func (p *Proxy) met(s *setting, c *net.TCPConn) (a arrival, ok bool) {
	a = arrival{client: dataconn.AddrPort(c.RemoteAddr()), local: dataconn.AddrPort(c.LocalAddr())}
	if trusts(s.listener, a.client.Addr()) {
		client, dialed, err := announced(c)
		if err != nil {
			p.log.Warn("refused a connection from a trusted load balancer", "listener", s.listener.Name, "from", a.client, "error", err)
			p.drop(c)
			return a, false
		}
		a.client, a.announced = client, dialed
	}
	switch p.sniff(s, c) {
	case speaksSOCKS:
		p.socks(s, c, a)
		return a, false
	case speaksHTTP:
		p.http(s, c, a)
		return a, false
	case speaksTLS:
		a.implicit = true
	}
	if s.listener.Mode == config.Explicit && !s.listener.Speaks(config.ProtocolFTP) {
		turnAway(c, &control.Refusal{Code: 421, Text: "This port does not serve FTP clients as such"})
		p.drop(c)
		return a, false
	}
	a.conn = swiftly(c, a.client)
	return a, true
}

// hold holds a session with a client that p.track knows, until it ends. The error is why, as that of control.Session.Run.
func (p *Proxy) hold(s *setting, a arrival) error {
	v := p.admit(s, &a)
	if v == nil {
		p.drop(a.conn)
		return errTurnedAway
	}
	return v.hold()
}

// errTurnedAway is a client that gets no session, and has been told so.
var errTurnedAway = errors.New("turned away")

// served is a session with what it holds of the Proxy.
type served struct {
	p        *Proxy
	n        *network
	client   net.Conn
	counted  bool // by somebody else
	session  *control.Session
	policing *policing
	recorder *recorder
	servers  []net.Conn      // one, as a rule; p.mu guards them
	hungUp   bool            // guarded by p.mu: by an administrator
	ctx      context.Context // the proxy's, but an administrator may end it before
	cancel   context.CancelCauseFunc
	loggedIn bool
}

// hold holds the session until it ends. The error is why, as that of control.Session.Run.
func (v *served) hold() error {
	defer v.leave()
	return v.session.Run(v.ctx)
}

// admit makes a client's session, or turns it away and returns nil.
func (p *Proxy) admit(s *setting, a *arrival) *served {
	cfg, l := s.cfg, s.listener
	id := fmt.Sprintf("%012x", rand.Uint64()>>16)
	log := p.log.With("session", id, "listener", l.Name, "client", a.client)
	n := &network{sockets: s.sockets, cfg: cfg, listener: l, counts: &p.counts, ports: &p.ports, own: &p.own, remains: p.remains, pinholes: &p.pinholes,
		client: a.client, conn: a.conn, local: a.local, announced: a.announced, places: a.places, listenClient: a.listen, account: a.account, identities: s.identities}
	v := &served{p: p, n: n, client: a.conn, counted: a.counted}
	observer := &logger{loggedIn: v.login}
	observer.log.Store(log)
	if a.account != nil {
		observer.identify(a.account.Name)
	}
	v.recorder = &recorder{p: p, n: n, id: id, logger: observer, denied: a.denied}
	v.policing = &policing{p: p, n: n, log: observer, record: v.recorder}
	v.recorder.policing = v.policing
	if !a.counted {
		if r := p.counts.admit(a.client.Addr(), cfg.Limits); r != nil {
			log.Warn("refused a session", "text", r.Text, "rule", r.Rule)
			p.live.Metrics().TurnedAway(l.Name, r)
			v.recorder.turnAway(r)
			return nil
		}
	}
	switch l.Mode {
	case config.TPROXY:
		n.dialed = n.local
	case config.Redirect:
		to, err := originalDestination(below(a.conn).(*net.TCPConn))
		if err != nil {
			log.Warn("refused a session", "text", "the connection was not redirected", "error", err)
			v.recorder.turnAway(&control.Refusal{Code: 421, Text: "This port serves redirected connections only"})
			p.counts.leave(a.client.Addr(), false)
			return nil
		}
		n.dialed = to
	}
	v.ctx, v.cancel = context.WithCancelCause(p.ctx)
	v.recorder.entry = p.live.Enter(id, l.Name, string(l.Mode), a.client, a.accountName(), v.cutOff)
	session := &control.Session{
		Client:        a.conn,
		Connect:       v.connect,
		Network:       n,
		Observer:      v.recorder,
		Policy:        v.policing,
		AskDirectory:  cfg.Policy.AskDirectory,
		Stranger:      observer.stranger,
		Gone:          gone,
		SendUrgent:    sendUrgent,
		Timeouts:      timeouts(cfg.Timeouts),
		Limits:        wire.Limits{Line: int(cfg.Limits.Line), ReplyLines: cfg.Limits.ReplyLines, ReplyBytes: int(cfg.Limits.ReplyBytes)},
		Explicit:      l.Mode == config.Explicit && a.places == nil,
		Faithful:      l.Mode == config.TPROXY || l.Mode == config.Redirect,
		ServerData:    serverData[l.ServerData],
		RefuseUnknown: l.Unknown == config.UnknownRefuse,
		Logins:        loginsOf(l),
		Own:           func(ctx context.Context, name string) bool { return p.isOwn(ctx, s, n, name) },
	}
	if s.accounts != nil && (session.Explicit || l.ProxyLogin) { // who comes by another protocol has logged in there
		session.Accounts = &proxyLogin{accounts: s.accounts, p: p, n: n, log: observer, alive: p.alive}
	}
	v.session = session
	p.secured(s, session, n)
	session.Implicit = a.implicit || beginsWithTLS(l, n)
	if takesTLS(l) && l.TLS != config.TLSClientOnly {
		session.Pass = func(heard bool) (control.Passage, error) { return p.pass(p.alive, n, log, heard) }
	}
	switch {
	case l.Advertise != "":
		session.Advertise = func(ctx context.Context) (netip.Addr, error) { return p.advertised(ctx, l) }
	case l.Mode == config.Redirect:
		// The client dials the server's address; the rules redirect data_ports to us as well.
		session.Advertise = func(context.Context) (netip.Addr, error) { return n.dialed.Addr(), nil }
	}
	return v
}

var serverData = map[config.ServerData]control.ServerData{config.DataPassive: control.Passive, config.DataActive: control.Active}

var logins = map[config.Login]control.Logins{
	config.LoginUserAtHost: control.LoginUserAtHost, config.LoginProxyUser: control.LoginProxyUser, config.LoginSite: control.LoginSite,
	config.LoginOpen: control.LoginOpen, config.LoginJoined: control.LoginJoined,
	config.LoginProxyUserAtHost: control.LoginProxyUserAtHost, config.LoginAcct: control.LoginAcct, config.LoginColon: control.LoginColon,
	config.LoginSNI: control.LoginSNI, config.LoginHost: control.LoginHost, config.LoginResp: control.LoginResp,
}

// loginsOf are the ways of logging in through a listener; zero is the default.
func loginsOf(l *config.Listener) (ways control.Logins) {
	for _, w := range l.Login {
		ways |= logins[w]
	}
	return ways
}

// connect is control.Session.Connect.
func (v *served) connect(ctx context.Context, name string) (net.Conn, error) {
	c, err := v.p.connect(ctx, v.n, name)
	if err != nil {
		return nil, err
	}
	v.p.track(c)
	v.meets(c)
	return swiftly(c, dataconn.AddrPort(c.RemoteAddr())), nil
}

// login counts the session as one that has logged in.
func (v *served) login() {
	v.loggedIn = true
	if !v.counted {
		v.p.counts.loggedIn()
	}
}

// leave gives back what a session that has ended held.
func (v *served) leave() {
	v.recorder.entry.Leave()
	v.cancel(nil)
	v.policing.leave()
	for _, c := range v.servers {
		v.p.untrack(c)
		v.n.Closed(dataconn.Server, dataconn.AddrPort(c.LocalAddr()), dataconn.AddrPort(c.RemoteAddr()))
	}
	v.p.drop(v.client)
	if v.n.listener.Mode == config.TPROXY {
		v.p.remains.Forget(v.n.local, v.n.client)
	}
	if !v.counted {
		v.p.counts.leave(v.n.client.Addr(), v.loggedIn)
	}
}

// turnAway says a refusal to a client that gets no session. It is given a moment to take it, no more.
func turnAway(c net.Conn, r *control.Refusal) {
	c.SetWriteDeadline(time.Now().Add(time.Second))
	c.Write(wire.NewReply(r.Code, r.Text).Append(nil))
	if h, ok := c.(interface{ CloseWrite() error }); ok {
		h.CloseWrite()
	}
}

func timeouts(t config.Timeouts) control.Timeouts {
	return control.Timeouts{
		Connect: t.Connect, Handshake: t.TLSHandshake, Login: t.Login, Idle: t.Idle, Reply: t.Reply,
		DataSetup: t.DataSetup, DataIdle: t.DataIdle, Abort: t.Abort, Drain: t.Drain,
	}
}

// connect opens the connection to the server of a session: where the connection was going, the fixed one, or the one
// that the client names.
func (p *Proxy) connect(ctx context.Context, n *network, name string) (*net.TCPConn, error) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	defer context.AfterFunc(p.alive, cancel)()
	var places []place
	var err error
	switch {
	case n.places != nil:
		places = n.places
	case n.listener.Mode == config.Explicit:
		places, err = p.resolve(ctx, name)
	case n.listener.Mode == config.Gateway:
		places, err = p.resolve(ctx, n.listener.Server)
	default:
		places = []place{{at: n.dialed}}
	}
	if err != nil {
		return nil, err
	}
	var faults []error
	for i, to := range places {
		rule, r := p.destined(n.cfg, n.listener, n.client.Addr(), n.account, to)
		if r != nil && !(n.listener.ProxyLogin && errors.Is(r, accounts.ErrNeeded)) { // it is asked again when who it is is known
			faults = append(faults, r)
			continue
		}
		c, err := p.dialOne(ctx, n, to.at, len(places)-i)
		if err == nil {
			name := to.name
			if name == "" && n.listener.Mode != config.TPROXY && n.listener.Mode != config.Redirect {
				name = to.at.Addr().String() // that is how it was named
			}
			n.name, n.place = to.name, to
			n.meet(rule, name)
			return c, nil
		}
		faults = append(faults, fmt.Errorf("server: %w", err))
	}
	// A refusal among them is what the client is told: errors.As finds it.
	if err := errors.Join(faults...); err != nil {
		return nil, err
	}
	return nil, errors.New("server: the name has no address")
}

// dialOne dials one of the places that are left, giving each its share of the time.
func (p *Proxy) dialOne(ctx context.Context, n *network, to netip.AddrPort, left int) (*net.TCPConn, error) {
	if by, ok := ctx.Deadline(); ok && left > 1 {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(ctx, time.Until(by)/time.Duration(left))
		defer cancel()
	}
	return n.dialServer(ctx, to)
}

// advertised is the IPv4 address that a listener's advertise stands for now.
func (p *Proxy) advertised(ctx context.Context, l *config.Listener) (netip.Addr, error) {
	if a, err := netip.ParseAddr(l.Advertise); err == nil {
		return a.Unmap(), nil
	}
	ctx, cancel := context.WithTimeout(ctx, 2*time.Second)
	defer cancel()
	addrs, err := p.resolver.LookupNetIP(ctx, "ip4", l.Advertise)
	if err != nil {
		p.log.Error("cannot resolve advertise; clients are told our own address", "listener", l.Name, "advertise", l.Advertise, "error", err)
		return netip.Addr{}, err
	}
	return addrs[0].Unmap(), nil
}
