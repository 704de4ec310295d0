package main

import (
	"bytes"
	"fmt"
	"io"
	"log/slog"
	"os"
	"os/signal"
	"sync"
	"syscall"

	"github.com/spf13/cobra"

	"ftpalg/config"
	"ftpalg/proxy"
	"ftpalg/proxy/admin"
)

func newRun(o *options) *cobra.Command {
	return &cobra.Command{
		Use: "run", Short: "Run the gateway",
		Long: `Run serves the configured listeners until it is told to stop.

SIGTERM or SIGINT: accept no more, let transfers finish for timeouts.drain, end.
The same again:    end at once.
SIGHUP:            read the configuration again; if it is wrong, keep the old one.
SIGUSR1:           open the files of the audit anew, for logrotate.
SIGUSR2:           start the program again as it is on disk now, which accepts from then on;
                   sessions that run stay with this process, and end with it after timeouts.drain.

Started as root, it gives up what it does not need (privileges.user, privileges.drop).
It takes listening sockets from systemd (LISTEN_FDS), and tells it how it is (NOTIFY_SOCKET).`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			var warnings bytes.Buffer
			cfg, err := o.load(&warnings, proxy.Check)
			if err == nil && cfg.Privileges.Drop {
				c := proxy.Confinement(cfg)
				due, wrong := c.Due()
				if due {
					wrong = c.Enter() // and read the configuration as whoever we are then
				}
				if wrong != nil {
					err = fail(fmt.Errorf("privileges: %w (with privileges.drop: false nothing is given up)", wrong))
				}
			}
			cmd.ErrOrStderr().Write(warnings.Bytes())
			if err != nil {
				return err
			}
			return fail(o.serve(cfg, cmd.ErrOrStderr()))
		},
	}
}

// serve runs the gateway until a signal ends it.
func (o *options) serve(cfg *config.Config, stderr io.Writer) error {
	tuneHeap()
	// Signals are ours before the first listener is open: a SIGHUP must never kill.
	signals := make(chan os.Signal, 4)
	signal.Notify(signals, syscall.SIGHUP, syscall.SIGTERM, syscall.SIGINT, syscall.SIGUSR1, syscall.SIGUSR2)
	defer signal.Stop(signals)

	level := new(slog.LevelVar)
	log := newLogger(cfg.Log, level, stderr)
	in, before, err := inheritance()
	if err != nil {
		return err
	}
	super := newSupervisor(log, before != nil)
	s := &service{o: o, stderr: stderr, level: level, log: log, super: super, cfg: cfg}
	p, err := proxy.NewFrom(cfg, log, in)
	if err != nil {
		super.tell("STATUS=Cannot start: " + oneLine(err.Error()))
		return err
	}
	if o.config == "" {
		log.Info("no --config: this is an explicit proxy for this machine; set it as your client's FTP proxy, or log in as user@host",
			"address", cfg.Listeners[0].Address)
	}
	for _, line := range proxy.Probe(cfg) {
		log.Warn(line)
	}
	s.proxy = p
	s.admin = admin.New(p, admin.Orders{Reload: s.reload, Drain: sync.OnceFunc(func() { signals <- syscall.SIGTERM }), Level: level}, proxy.Version(), log)
	p.Live().Metrics().Reloaded(true, nil)
	defer s.admin.Close()
	if before == nil {
		if err := s.admin.Adopt(cfg); err != nil {
			p.Close()
			return err
		}
		super.up(p)
	} else {
		s.admin.Follow(before.pid)
		before.take(p, super, s.succeed, log)
	}
	var after succession
	for {
		sig, successor := after.await(signals, p, log)
		if successor != nil {
			s.admin.Retire()
			return retire(p, super, successor, signals, log)
		}
		if sig == syscall.SIGUSR1 {
			reopen(p, log)
			continue
		}
		if sig == syscall.SIGUSR2 {
			after.start(p, before, log)
			continue
		}
		if sig != syscall.SIGHUP {
			log.Info("draining: no new sessions, transfers may finish; the same signal again ends them", "signal", sig.String(), "for", s.inForce().Timeouts.Drain.String())
			break
		}
		s.reload()
	}
	after.abandon(p)
	super.stopping(p)
	before.hurry()
	drained := make(chan struct{})
	go drain(p, before, drained)
	for {
		select {
		case <-drained:
			super.leave()
			log.Info("stopped")
			return nil
		case sig := <-signals:
			switch sig {
			case syscall.SIGHUP, syscall.SIGUSR2:
			case syscall.SIGUSR1:
				reopen(p, log)
			default:
				log.Warn("stopping at once", "signal", sig.String())
				p.Close()
				if !before.ended() {
					log.Info("stopped; the process before this one has not ended yet")
					return nil
				}
			}
		}
	}
}

// service is a running gateway, and what a reload is about.
type service struct {
	o      *options
	stderr io.Writer
	level  *slog.LevelVar
	log    *slog.Logger
	super  *supervisor
	proxy  *proxy.Proxy
	admin  *admin.Server

	mu  sync.Mutex
	cfg *config.Config // in force
}

func (s *service) inForce() *config.Config {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.cfg
}

// reload reads the configuration again. If it is wrong the old one stays in force, and the error says why.
func (s *service) reload() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.super.reloading()
	next, err := s.o.load(s.stderr, proxy.Check)
	if err == nil {
		err = s.proxy.Reload(next)
	}
	s.super.reloaded(s.proxy, err)
	s.proxy.Live().Metrics().Reloaded(false, err)
	if err != nil {
		s.log.Error("the configuration is not reloaded; the old one stays in force", "error", err)
		return err
	}
	s.cfg = next
	s.level.Set(levelOf(next.Log))
	s.log.Info("configuration reloaded")
	for _, line := range proxy.Probe(next) {
		s.log.Warn(line)
	}
	if err := s.admin.Adopt(next); err != nil {
		s.log.Error("the rest of the configuration is in force, but administrators are not heard everywhere", "error", err)
		return err
	}
	return nil
}

// succeed listens to administrators where the process before us did.
func (s *service) succeed() {
	s.mu.Lock()
	defer s.mu.Unlock()
	if err := s.admin.Adopt(s.cfg); err != nil {
		s.log.Error("administrators are not heard everywhere", "error", err)
	}
}

// reopen opens the files of the audit anew.
func reopen(p *proxy.Proxy, log *slog.Logger) {
	if err := p.ReopenAudit(); err != nil {
		log.Error("the audit's files are not opened anew; the old ones stay in use", "error", err)
	}
}

// drain closes drained when the proxy has, and the process before this one.
func drain(p *proxy.Proxy, before *predecessor, drained chan<- struct{}) {
	p.Drain()
	before.wait()
	close(drained)
}

func newLogger(c config.Log, level *slog.LevelVar, w io.Writer) *slog.Logger {
	level.Set(levelOf(c))
	o := &slog.HandlerOptions{Level: level}
	if c.Format == "json" {
		return slog.New(slog.NewJSONHandler(w, o))
	}
	return slog.New(slog.NewTextHandler(w, o))
}

// levelOf is the level a valid configuration names.
func levelOf(c config.Log) slog.Level {
	var l slog.Level
	if err := l.UnmarshalText([]byte(c.Level)); err != nil {
		return slog.LevelInfo
	}
	return l
}
