package proxy

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"net/netip"
	"strconv"
	"sync"
	"sync/atomic"
	"time"

	"ftpalg/control"
	"ftpalg/proxy/accounts"
	"ftpalg/proxy/web"
)

// Clients that are told of an HTTP proxy ask it for ftp URLs, or for tunnels by CONNECT. Both become sessions like any other: the
// first by package web, whose FTP client is in memory, the second as those of SOCKS.

const (
	// maxHeader bounds what a request's head can fill, in bytes: four times what URLs and cookies need.
	maxHeader = 32 << 10
	// maxIdleHTTP is how long a client may keep a connection for its next request.
	maxIdleHTTP = time.Minute
)

// webClient is a client that speaks HTTP. It is the net.Listener, of one connection, of a http.Server of its own: so each
// connection keeps the configuration it began with, and ends with p.sessions.
type webClient struct {
	p     *Proxy
	s     *setting
	c     *net.TCPConn
	a     arrival
	front web.Front

	given    bool          // Accept has given c; of Serve's goroutine
	over     chan struct{} // closed when the connection is, or is a tunnel that has ended
	closed   sync.Once     // over
	loggedIn bool          // of the goroutine of requests, and of http once that is over
	left     sync.Once     // counts.leave
	// session is closed when the last request's session is over; nil: there was none. A connection has one at a time, so that
	// limits, which count connections, bound sessions too, though a server be slow to let go of one.
	session chan struct{}
	// credentials are those by which a.account, if it is set, is in.
	credentials string
}

// http serves a client that speaks HTTP, until it is done with c.
func (p *Proxy) http(s *setting, c *net.TCPConn, a arrival) {
	if r := p.counts.admit(a.client.Addr(), s.cfg.Limits); r != nil {
		p.log.Warn("refused an HTTP client", "listener", s.listener.Name, "client", a.client, "text", r.Text, "rule", r.Rule)
		refuseHTTP(c, http.StatusServiceUnavailable, r.Text)
		p.drop(c)
		return
	}
	v := &webClient{p: p, s: s, c: c, a: a, over: make(chan struct{})}
	v.front = web.Front{Open: v.open, LoggedIn: v.login, Abort: func() { c.SetLinger(0) }, Stall: 2 * s.cfg.Timeouts.DataIdle}
	server := &http.Server{
		Handler:                      v,
		DisableGeneralOptionsHandler: true,
		ReadHeaderTimeout:            min(s.cfg.Timeouts.Login, s.cfg.Timeouts.Reply), // slow headers hold a connection for so long
		IdleTimeout:                  min(s.cfg.Timeouts.Idle, maxIdleHTTP),
		MaxHeaderBytes:               maxHeader,
		ErrorLog:                     slog.NewLogLogger(p.log.Handler(), slog.LevelDebug),
		ConnState:                    v.state,
	}
	server.Serve(v)
	// The connection is over, or we are shutting down: then requests finish as their sessions do.
	ctx, cancel := context.WithTimeout(p.alive, s.cfg.Timeouts.Drain+time.Second)
	server.Shutdown(ctx)
	cancel()
	server.Close()
	<-v.over
	if v.session != nil {
		<-v.session
	}
	v.leave()
}

// Accept implements net.Listener: it gives the connection, and then waits until there is nothing more to serve.
func (v *webClient) Accept() (net.Conn, error) {
	if !v.given {
		v.given = true
		return v.c, nil
	}
	select {
	case <-v.over:
	case <-v.p.ctx.Done():
	}
	return nil, net.ErrClosed
}

// Addr implements net.Listener.
func (v *webClient) Addr() net.Addr { return v.c.LocalAddr() }

// Close implements net.Listener.
func (v *webClient) Close() error { return nil }

// state hears of the connection's life.
func (v *webClient) state(_ net.Conn, state http.ConnState) {
	if state == http.StateClosed {
		v.p.untrack(v.c)
		v.end()
	}
}

func (v *webClient) end() { v.closed.Do(func() { close(v.over) }) }

// login counts the client as one that has logged in.
func (v *webClient) login() {
	if !v.loggedIn {
		v.loggedIn = true
		v.p.counts.loggedIn()
	}
}

// leave counts the client out.
func (v *webClient) leave() {
	v.left.Do(func() { v.p.counts.leave(v.a.client.Addr(), v.loggedIn) })
}

// authorize logs a request in to the proxy, where it has accounts (RFC 9110 §11.7). Where there are none, addresses alone decide
// (destinations), and nobody is asked. What a connection has been let in by is not checked again on it: a hash takes long.
func (v *webClient) authorize(r *http.Request) error {
	said := r.Header.Get("Proxy-Authorization")
	if v.s.accounts == nil || v.a.account != nil && said == v.credentials {
		return nil
	}
	v.a.account = nil
	name, password, ok := (&http.Request{Header: http.Header{"Authorization": {said}}}).BasicAuth()
	if !ok {
		return accounts.ErrNeeded
	}
	ctx, cancel := context.WithTimeout(r.Context(), v.s.cfg.Timeouts.Login)
	defer cancel()
	account, err := v.s.accounts.Login(ctx, v.a.client.Addr(), name, password)
	if err == nil {
		v.a.account, v.credentials = account, said
	}
	return err
}

// ServeHTTP implements http.Handler.
func (v *webClient) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	err := v.authorize(r)
	switch {
	case errors.Is(err, accounts.ErrNeeded), errors.Is(err, accounts.ErrFailed):
		w.Header().Set("Proxy-Authenticate", `Basic realm="ftpalg", charset="UTF-8"`)
		http.Error(w, "Say who you are to the proxy", http.StatusProxyAuthRequired)
	case errors.As(err, new(*accounts.Later)):
		http.Error(w, "Too many failed proxy logins, try again later", http.StatusTooManyRequests)
	case err != nil:
		http.Error(w, "Proxy accounts cannot be looked up, try again later", http.StatusServiceUnavailable)
	case r.Method == http.MethodConnect:
		v.connect(w, r)
	default:
		v.front.ServeHTTP(w, r)
	}
}

// open begins the session of a request. It is web.Front.Open.
func (v *webClient) open(ctx context.Context, named string) (*web.Line, error) {
	p, a := v.p, v.a
	if v.session != nil {
		select {
		case <-v.session:
		case <-ctx.Done():
			return nil, ctx.Err()
		}
	}
	places, err := p.allowed(v.s, a, named, func(int) *control.Refusal { return nil })
	if err != nil {
		p.log.Warn("refused a request", "listener", v.s.listener.Name, "client", a.client, "wanted", named, "error", err)
		return nil, &web.Status{Code: statusOf(err), Text: textOf(err)}
	}
	near, far := web.Pipe(a.client, a.local)
	var data atomic.Pointer[handed] // the newest listener
	a.conn, a.places, a.counted, a.denied = far, places, true, new(atomic.Bool)
	a.listen = func(_ context.Context, server netip.AddrPort) (net.Listener, error) {
		l := newHanded(netip.AddrPortFrom(server.Addr(), webDataPort))
		data.Store(l)
		return l, nil
	}
	p.track(far)
	over := make(chan struct{})
	v.session = over
	var ended error
	p.sessions.Go(func() {
		defer close(over)
		ended = p.hold(v.s, a)
	})
	dial := func() (*web.Conn, error) {
		l := data.Load()
		if l == nil {
			return nil, net.ErrClosed
		}
		near, far := web.Pipe(a.client, l.at)
		if !l.hand(far) {
			return nil, net.ErrClosed
		}
		return near, nil
	}
	return &web.Line{Control: near, Dial: dial, Denied: a.denied.Load, Over: func() int {
		<-over
		if ended == nil {
			return 0
		}
		return statusOf(ended)
	}}, nil
}

// webDataPort is what a session names to its client in memory. Nobody listens there; it is none that a session would refuse to name.
const webDataPort = 65535

// statusOf is the HTTP status for a request whose session was not to be, or ended early.
func statusOf(err error) int {
	var r *control.Refusal
	var n net.Error
	switch {
	case errors.As(err, &r) && r.Rule != "":
		return http.StatusForbidden
	case errors.As(err, &n) && n.Timeout():
		return http.StatusGatewayTimeout
	case r != nil && r.Err == nil && r.Code == 421:
		return http.StatusServiceUnavailable // we are shutting down
	}
	return http.StatusBadGateway
}

// textOf is what a client is told of such an error.
func textOf(err error) string {
	var r *control.Refusal
	if errors.As(err, &r) {
		return r.Text
	}
	return "The server cannot be reached"
}

// connect answers CONNECT.
func (v *webClient) connect(w http.ResponseWriter, r *http.Request) {
	want, err := wantedBy(r.URL.Host)
	if err != nil || r.ContentLength != 0 {
		w.Header().Set("Connection", "close")
		http.Error(w, "CONNECT is for HOST:PORT", http.StatusBadRequest)
		return
	}
	_, rw, err := http.NewResponseController(w).Hijack()
	if err != nil {
		return // the connection is over
	}
	defer v.end()
	v.leave() // the session counts for itself
	err = errEager
	agreed := false
	if untouched(rw) {
		err = v.p.tunnel(v.s, v.c, v.a, want, func() error {
			agreed = true
			_, err := v.c.Write([]byte("HTTP/1.1 200 Connection established\r\n\r\n"))
			return err
		})
	}
	if err == nil {
		return // the session has closed it, or a transfer will
	}
	v.p.refusedTunnel(v.s, v.a, want, err)
	switch {
	case agreed:
	case err == errEager:
		refuseHTTP(v.c, http.StatusBadRequest, "A tunnel's client speaks when it has been answered")
	default:
		refuseHTTP(v.c, statusOf(err), textOf(err))
	}
	v.p.drop(v.c)
}

// errEager is a client that speaks into a tunnel before it has one. FTP clients wait for the server's greeting; what another says
// must not come to be read as anything else than it was meant for.
var errEager = errors.New("the client said something before the tunnel was there")

func untouched(rw *bufio.ReadWriter) bool { return rw.Reader.Buffered() == 0 }

// wantedBy reads the target of a CONNECT, RFC 9110 §9.3.6.
func wantedBy(target string) (w wanted, err error) {
	host, digits, err := net.SplitHostPort(target)
	if err != nil {
		return w, err
	}
	port, err := strconv.ParseUint(digits, 10, 16)
	if err != nil || port == 0 || host == "" {
		return w, errServerName
	}
	return wanted{host: host, port: uint16(port)}, nil
}

// refuseHTTP answers a client that net/http does not serve, or no longer.
func refuseHTTP(c *net.TCPConn, status int, text string) {
	c.SetWriteDeadline(time.Now().Add(time.Second))
	fmt.Fprintf(c, "HTTP/1.1 %d %s\r\nContent-Type: text/plain; charset=utf-8\r\nContent-Length: %d\r\nConnection: close\r\n\r\n%s\n",
		status, http.StatusText(status), len(text)+1, text)
	c.CloseWrite()
}
