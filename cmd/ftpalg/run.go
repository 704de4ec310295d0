package main

import (
	"io"
	"log/slog"
	"os"
	"os/signal"
	"syscall"

	"github.com/spf13/cobra"

	"ftpalg/config"
	"ftpalg/proxy"
)

func newRun(o *options) *cobra.Command {
	return &cobra.Command{
		Use: "run", Short: "Run the gateway",
		Long: `Run serves the configured listeners until it is told to stop.

SIGTERM or SIGINT: accept no more, let transfers finish for timeouts.drain, end.
The same again:    end at once.
SIGHUP:            read the configuration again; if it is wrong, keep the old one.
SIGUSR1:           open the files of the audit anew, for logrotate.`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			cfg, err := o.load(cmd.ErrOrStderr(), proxy.Check)
			if err != nil {
				return err
			}
			return fail(o.serve(cfg, cmd.ErrOrStderr()))
		},
	}
}

// serve runs the gateway until a signal ends it.
func (o *options) serve(cfg *config.Config, stderr io.Writer) error {
	// Signals are ours before the first listener is open: a SIGHUP must never kill.
	signals := make(chan os.Signal, 4)
	signal.Notify(signals, syscall.SIGHUP, syscall.SIGTERM, syscall.SIGINT, syscall.SIGUSR1)
	defer signal.Stop(signals)

	level := new(slog.LevelVar)
	log := newLogger(cfg.Log, level, stderr)
	p, err := proxy.New(cfg, log)
	if err != nil {
		return err
	}
	if o.config == "" {
		log.Info("no --config: this is an explicit proxy for this machine; set it as your client's FTP proxy, or log in as user@host",
			"address", cfg.Listeners[0].Address)
	}
	for _, line := range proxy.Probe(cfg) {
		log.Warn(line)
	}
	for sig := range signals {
		if sig == syscall.SIGUSR1 {
			reopen(p, log)
			continue
		}
		if sig != syscall.SIGHUP {
			log.Info("draining: no new sessions, transfers may finish; the same signal again ends them", "signal", sig.String(), "for", cfg.Timeouts.Drain.String())
			break
		}
		next, err := o.load(stderr, proxy.Check)
		if err == nil {
			err = p.Reload(next)
		}
		if err != nil {
			log.Error("the configuration is not reloaded; the old one stays in force", "error", err)
			continue
		}
		cfg = next
		level.Set(levelOf(cfg.Log))
		log.Info("configuration reloaded")
		for _, line := range proxy.Probe(cfg) {
			log.Warn(line)
		}
	}
	drained := make(chan struct{})
	go drain(p, drained)
	for {
		select {
		case <-drained:
			log.Info("stopped")
			return nil
		case sig := <-signals:
			switch sig {
			case syscall.SIGHUP:
			case syscall.SIGUSR1:
				reopen(p, log)
			default:
				log.Warn("stopping at once", "signal", sig.String())
				p.Close()
			}
		}
	}
}

// reopen opens the files of the audit anew.
func reopen(p *proxy.Proxy, log *slog.Logger) {
	if err := p.ReopenAudit(); err != nil {
		log.Error("the audit's files are not opened anew; the old ones stay in use", "error", err)
	}
}

// drain closes drained when the proxy has.
func drain(p *proxy.Proxy, drained chan<- struct{}) {
	p.Drain()
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
