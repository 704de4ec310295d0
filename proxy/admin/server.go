package admin

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"net"
	"net/http"
	"net/http/pprof"
	"net/netip"
	"os"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/prometheus/client_golang/prometheus/promhttp"
	dto "github.com/prometheus/client_model/go"
	"golang.org/x/sys/unix"

	"ftpalg/config"
)

// Gateway is what is administered.
type Gateway interface {
	Live() *Live
	// Ready is nil if the gateway takes new sessions: it listens, and does not drain.
	Ready() error
	Addresses() []netip.AddrPort // of its control listeners
	Pending() int                // data connections that are being waited for
	Audited() (written, lost uint64)
	// Firewall is how many of the kernel's rules, routes and settings were missing at the last look, and how often they were mended.
	Firewall() (missing int, mended uint64)
	Rules() []Rule         // of the configuration in force, in order
	Configuration() []byte // in force, as YAML; secrets are in files, whose names it has
}

// Rule is how often one has decided since the configuration that it is in came into force.
type Rule struct {
	Name    string `json:"rule"` // empty: the default
	Action  string `json:"action"`
	Decided uint64 `json:"decided"`
}

// Orders are what a writer may have done. None of them waits for sessions.
type Orders struct {
	Reload func() error // of the configuration; the error is what is wrong with it
	Drain  func()
	Level  *slog.LevelVar // of the log, until a reload
}

// Stats are how the gateway is.
type Stats struct {
	Version     string             `json:"version"`
	PID         int                `json:"pid"`
	Started     time.Time          `json:"started"`
	Serving     bool               `json:"serving"`
	NotServing  string             `json:"not_serving,omitempty"` // why
	Configured  time.Time          `json:"configured"`            // when the configuration in force was read
	ConfigError string             `json:"config_error,omitempty"`
	Level       string             `json:"log_level"`
	Listeners   []netip.AddrPort   `json:"listeners"`
	Sessions    map[State]int      `json:"sessions"`
	Rules       []Rule             `json:"rules"`
	Counts      map[string]float64 `json:"counts"` // the metrics, but for histograms and what is the runtime's
}

// Server answers those who ask. Make one with New.
type Server struct {
	gateway Gateway
	orders  Orders
	version string
	log     *slog.Logger
	started time.Time
	before  int // see Follow

	mu      sync.Mutex
	metrics config.Metrics // where scraped listens
	status  config.Status  // where page listens
	socket  *socket
	scraped *http.Server // nil: there are no metrics
	page    *status      // nil: there is no status page
	closed  bool
}

// New makes a Server that listens nowhere yet.
func New(g Gateway, o Orders, version string, log *slog.Logger) *Server {
	g.Live().metrics.registry.MustRegister(&current{g})
	return &Server{gateway: g, orders: o, version: version, log: log, started: time.Now()}
}

// Follow names the process before this one, whose place this one takes: its socket may be replaced. Call it before Adopt.
func (s *Server) Follow(pid int) { s.before = pid }

// Adopt has the Server listen where a configuration says. What it says of all addresses is tried, and the error names what cannot
// be; where it has listened before it goes on then.
func (s *Server) Adopt(cfg *config.Config) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed {
		return nil // nobody is to be heard any more
	}
	var faults []error
	switch {
	case s.socket != nil && s.socket.path == string(cfg.Admin.Socket):
		s.socket.adopt(cfg.Admin)
	case cfg.Admin.Socket == "":
		s.socket.close()
		s.socket = nil
	default:
		next, err := s.openSocket(cfg.Admin)
		if err != nil {
			faults = append(faults, fmt.Errorf("admin.socket: %w", err))
			break
		}
		s.socket.close()
		s.socket = next
	}
	if cfg.Metrics != s.metrics {
		next, err := s.openMetrics(cfg.Metrics)
		if err != nil {
			faults = append(faults, fmt.Errorf("metrics.address: %w", err))
		} else {
			if s.scraped != nil {
				s.scraped.Close()
			}
			s.scraped, s.metrics = next, cfg.Metrics
		}
	}
	if cfg.Status != s.status {
		next, err := s.openStatus(cfg.Status)
		if err != nil {
			faults = append(faults, fmt.Errorf("status.address: %w", err))
		} else {
			s.page.close()
			s.page, s.status = next, cfg.Status
		}
	}
	return errors.Join(faults...)
}

// Retire leaves the field to the next process, as far as it cannot have it while we do: a scrape must be its own. The socket it puts its
// own in place of, when it takes over; until then ours answers.
func (s *Server) Retire() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.closeWeb()
}

// closeWeb ends what listens at addresses.
func (s *Server) closeWeb() {
	if s.scraped != nil {
		s.scraped.Close()
	}
	s.page.close()
	s.page = nil
}

// Close stops listening. Who is being answered hears no more.
func (s *Server) Close() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.closed = true
	s.socket.close()
	s.closeWeb()
}

// newHTTP makes an HTTP server that a silent or slow client costs little.
func (s *Server) newHTTP(h http.Handler) *http.Server {
	return &http.Server{Handler: h, ReadHeaderTimeout: 5 * time.Second, IdleTimeout: time.Minute, MaxHeaderBytes: 16 << 10,
		ErrorLog: slog.NewLogLogger(s.log.Handler(), slog.LevelDebug)}
}

// listen listens for HTTP. The port may be shared with the same user's processes, of which the one before us may not have let go of it yet.
func listen(at netip.AddrPort) (net.Listener, error) {
	lc := net.ListenConfig{Control: func(_, _ string, c syscall.RawConn) (err error) {
		if e := c.Control(func(fd uintptr) { err = unix.SetsockoptInt(int(fd), unix.SOL_SOCKET, unix.SO_REUSEPORT, 1) }); e != nil {
			return e
		}
		return err
	}}
	return lc.Listen(context.Background(), "tcp", at.String())
}

// openMetrics serves counts.
func (s *Server) openMetrics(m config.Metrics) (*http.Server, error) {
	if !m.Address.IsValid() {
		return nil, nil
	}
	l, err := listen(m.Address)
	if err != nil {
		return nil, err
	}
	mux := http.NewServeMux()
	mux.Handle("GET /metrics", s.scrape())
	mux.HandleFunc("GET /-/healthy", func(w http.ResponseWriter, _ *http.Request) { fmt.Fprintln(w, "healthy") })
	mux.HandleFunc("GET /-/ready", func(w http.ResponseWriter, _ *http.Request) {
		if err := s.gateway.Ready(); err != nil {
			http.Error(w, err.Error(), http.StatusServiceUnavailable)
			return
		}
		fmt.Fprintln(w, "ready")
	})
	h := s.newHTTP(mux)
	h.ReadTimeout, h.WriteTimeout = 10*time.Second, 30*time.Second
	go h.Serve(l)
	s.log.Info("metrics", "address", l.Addr())
	return h, nil
}

func (s *Server) scrape() http.Handler {
	m := s.gateway.Live().metrics
	h := promhttp.HandlerFor(m.registry, promhttp.HandlerOpts{Registry: m.registry, MaxRequestsInFlight: 4})
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		s.gateway.Live().settle()
		h.ServeHTTP(w, r)
	})
}

// settle counts what has moved until now.
func (l *Live) settle() {
	for _, e := range l.all() {
		e.mu.Lock()
		e.count()
		e.mu.Unlock()
	}
}

// socket is the Unix socket that is listened at.
type socket struct {
	*http.Server
	path string
	file os.FileInfo

	mu               sync.Mutex
	readers, writers []config.Peer
}

// rights are what a peer may.
type rights int

const (
	none rights = iota
	reads
	writes
)

// rightsKey is that of a connection's rights in its context.
type rightsKey struct{}

// openSocket listens at a path. A socket that nobody listens at any more is replaced, and so is that of the process before us;
// but never that of another gateway, which its administrators would no longer reach.
func (s *Server) openSocket(a config.Admin) (*socket, error) {
	path := string(a.Socket)
	if at, err := os.Lstat(path); err == nil && at.Mode()&fs.ModeSocket == 0 {
		return nil, fmt.Errorf("%s is there, and no socket: remove it, or choose another path", path)
	}
	if c, err := net.Dial("unix", path); err == nil {
		p, err := peerOf(c)
		c.Close()
		if err == nil && p.pid != s.before {
			return nil, fmt.Errorf("process %d answers at %s: end it, or choose another path", p.pid, path)
		}
	}
	// It is made beside its place and moved there, so that what is at the path always answers, or has ended.
	beside := fmt.Sprintf("%s.%d", path, os.Getpid())
	os.Remove(beside)
	l, err := net.Listen("unix", beside)
	if err != nil {
		return nil, fmt.Errorf("%w; its directory must be there, and this user (id %d) be able to write to it: systemd makes it by RuntimeDirectory=ftpalg", err, os.Geteuid())
	}
	l.(*net.UnixListener).SetUnlinkOnClose(false)
	k := &socket{path: path}
	k.adopt(a)
	// Everybody may connect: who it is decides, which the kernel tells us.
	err = os.Chmod(beside, 0o666)
	if err == nil {
		k.file, err = os.Lstat(beside)
	}
	if err == nil {
		err = os.Rename(beside, path)
	}
	if err != nil {
		l.Close()
		os.Remove(beside)
		return nil, err
	}
	k.Server = s.newHTTP(s.routes())
	k.ConnContext = func(ctx context.Context, c net.Conn) context.Context {
		return context.WithValue(ctx, rightsKey{}, k.rightsOf(c, s.log))
	}
	go k.Serve(l)
	s.log.Info("administration", "socket", path)
	return k, nil
}

// adopt makes others the ones who may ask and order. Connections keep the rights they began with.
func (k *socket) adopt(a config.Admin) {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.readers, k.writers = a.Readers, a.Writers
}

// close stops listening, and removes the socket unless another process has put its own there.
func (k *socket) close() {
	if k == nil {
		return
	}
	k.Server.Close()
	if at, err := os.Lstat(k.path); err == nil && os.SameFile(at, k.file) {
		os.Remove(k.path)
	}
}

// rightsOf are those of whoever has connected.
func (k *socket) rightsOf(c net.Conn, log *slog.Logger) rights {
	p, err := peerOf(c)
	if err != nil {
		log.Warn("refused an administrator whom the kernel does not tell", "error", err)
		return none
	}
	k.mu.Lock()
	defer k.mu.Unlock()
	switch {
	case p.uid == 0 || p.uid == uint32(os.Geteuid()) || p.is(k.writers):
		return writes
	case p.is(k.readers):
		return reads
	}
	return none
}

// routes are what may be asked at the socket. Whatever is no GET is an order.
func (s *Server) routes() http.Handler {
	live := s.gateway.Live()
	mux := http.NewServeMux()
	mux.HandleFunc("GET /v1/sessions", func(w http.ResponseWriter, _ *http.Request) { answer(w, live.Sessions()) })
	mux.HandleFunc("GET /v1/sessions/{id}", func(w http.ResponseWriter, r *http.Request) {
		session, err := live.Session(r.PathValue("id"))
		if err != nil {
			http.Error(w, err.Error(), http.StatusNotFound)
			return
		}
		answer(w, session)
	})
	mux.HandleFunc("DELETE /v1/sessions/{id}", func(w http.ResponseWriter, r *http.Request) {
		id := r.PathValue("id")
		if err := live.Kill(id); err != nil {
			http.Error(w, err.Error(), http.StatusNotFound)
			return
		}
		s.log.Warn("an administrator ends a session", "session", id)
		w.WriteHeader(http.StatusNoContent)
	})
	mux.HandleFunc("POST /v1/drain", func(w http.ResponseWriter, _ *http.Request) {
		// The answer first: without sessions we may have ended before it is written.
		w.Header().Set("Content-Length", "0")
		w.WriteHeader(http.StatusAccepted)
		http.NewResponseController(w).Flush()
		s.orders.Drain()
	})
	mux.HandleFunc("POST /v1/reload", func(w http.ResponseWriter, _ *http.Request) {
		if err := s.orders.Reload(); err != nil {
			http.Error(w, err.Error(), http.StatusUnprocessableEntity)
			return
		}
		w.WriteHeader(http.StatusNoContent)
	})
	mux.HandleFunc("PUT /v1/log-level", func(w http.ResponseWriter, r *http.Request) {
		var level slog.Level
		if err := level.UnmarshalText([]byte(r.FormValue("level"))); err != nil {
			http.Error(w, "level is one of debug, info, warn, error", http.StatusBadRequest)
			return
		}
		s.orders.Level.Set(level)
		s.log.Warn("an administrator has changed the level of the log", "level", level)
		w.WriteHeader(http.StatusNoContent)
	})
	mux.HandleFunc("GET /v1/stats", func(w http.ResponseWriter, _ *http.Request) {
		families, err := s.gather()
		if err != nil {
			http.Error(w, err.Error(), http.StatusInternalServerError)
			return
		}
		answer(w, s.stats(families))
	})
	mux.HandleFunc("GET /v1/config", func(w http.ResponseWriter, _ *http.Request) { w.Write(s.gateway.Configuration()) })
	mux.Handle("GET /metrics", s.scrape())
	// What the memory and the stacks hold is for those who may do anything: names and passwords are in it.
	debug := http.NewServeMux()
	debug.HandleFunc("/debug/pprof/", pprof.Index)
	debug.HandleFunc("/debug/pprof/profile", pprof.Profile)
	debug.HandleFunc("/debug/pprof/trace", pprof.Trace)
	mux.Handle("/debug/", debug)
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		needed := writes
		if r.Method == http.MethodGet && !strings.HasPrefix(r.URL.Path, "/debug/") {
			needed = reads
		}
		switch may, _ := r.Context().Value(rightsKey{}).(rights); {
		case may >= needed:
			mux.ServeHTTP(w, r)
		case may == reads:
			http.Error(w, "you may ask and not order; admin.writers names those who may", http.StatusForbidden)
		default:
			http.Error(w, "you are not among admin.readers or admin.writers", http.StatusForbidden)
		}
	})
}

func answer(w http.ResponseWriter, v any) {
	w.Header().Set("Content-Type", "application/json")
	json.NewEncoder(w).Encode(v)
}

// stats are how the gateway is; families are what gather has.
func (s *Server) stats(families map[string][]*dto.Metric) *Stats {
	live := s.gateway.Live()
	at, wrong := live.metrics.lastReload()
	stats := &Stats{Version: s.version, PID: os.Getpid(), Started: s.started, Configured: at, ConfigError: wrong, Level: s.orders.Level.Level().String(),
		Listeners: s.gateway.Addresses(), Sessions: live.byState(), Rules: s.gateway.Rules(), Counts: map[string]float64{}}
	err := s.gateway.Ready()
	if stats.Serving = err == nil; err != nil {
		stats.NotServing = err.Error()
	}
	for family, metrics := range families {
		for _, m := range metrics {
			var labels []string
			for _, l := range m.GetLabel() {
				labels = append(labels, l.GetName()+"="+l.GetValue())
			}
			name := family
			if len(labels) > 0 {
				name += "{" + strings.Join(labels, ",") + "}"
			}
			switch {
			case m.GetCounter() != nil:
				stats.Counts[name] = m.GetCounter().GetValue()
			case m.GetGauge() != nil:
				stats.Counts[name] = m.GetGauge().GetValue()
			}
		}
	}
	return stats
}
