package proxy

import (
	"context"
	"log/slog"
	"net/netip"
	"sync/atomic"
	"time"

	"ftpalg/control"
	"ftpalg/dataconn"
)

// logger is the control.Observer that writes a session's log lines: one when it starts, one for each transfer and
// refusal, one when it ends, and the conversation at debug.
type logger struct {
	log atomic.Pointer[slog.Logger] // has the session's id, listener and client, and the proxy account that has logged in
	// anonymous is log without the account; nil: nobody has logged in to the proxy yet.
	anonymous *slog.Logger
	loggedIn  func() // called once, at the first login
}

// Verbatim implements control.Observer: the conversation is for debug.
func (l *logger) Verbatim() bool { return l.log.Load().Enabled(context.Background(), slog.LevelDebug) }

// Observe implements control.Observer.
func (l *logger) Observe(e control.Event) {
	log := l.log.Load()
	switch e := e.(type) {
	case control.Said:
		log.Debug("said", "arrow", e.Arrow, "text", e.Text)
	case control.Started:
		args := []any{"server", e.Server}
		if e.Name != "" {
			args = append(args, "name", e.Name)
		}
		log.Info("session started", args...)
	case control.Secured:
		args := []any{"side", e.Side.String(), "version", e.Facts.Version, "cipher", e.Facts.Cipher, "resumed", e.Facts.Resumed}
		if e.Facts.Protocol != "" {
			args = append(args, "alpn", e.Facts.Protocol)
		}
		if e.Certificate != "" {
			args = append(args, "certificate", e.Certificate, "verified", e.Verified)
		}
		log.Info("TLS", args...)
	case control.ProxyLogin:
		if e.OK { // the others have their line
			log.Info("logged in to the proxy")
		}
	case control.LoggedIn:
		if l.loggedIn != nil {
			l.loggedIn()
			l.loggedIn = nil
		}
		log.Info("logged in", "user", e.User)
	case control.Refused:
		args := []any{"verb", e.Verb, "code", e.Refusal.Code, "text", e.Refusal.Text}
		if e.Refusal.Rule != "" {
			args = append(args, "rule", e.Refusal.Rule)
		}
		if e.Refusal.Err != nil {
			args = append(args, "error", e.Refusal.Err)
		}
		log.Info("refused", args...)
	case control.Dropped:
		log.Warn("dropped a reply that nobody asked for", "code", e.Code)
	case control.Transferred:
		outcome := "whole"
		if e.Err != nil {
			outcome = "broken"
		}
		args := []any{"verb", e.Verb, "path", e.Path, "bytes", e.Bytes, "duration", round(e.Duration),
			"carried", e.Carried, "code", e.Code, "outcome", outcome}
		for side, facts := range e.TLS {
			if facts.Version != "" {
				args = append(args, slog.Group(dataconn.Side(side).String()+"_tls", "version", facts.Version, "cipher", facts.Cipher, "resumed", facts.Resumed))
			}
		}
		if e.Err != nil {
			args = append(args, "error", e.Err)
		}
		log.Info("transfer", args...)
	case control.Ended:
		args := []any{"user", e.User, "duration", round(e.Duration), "reason", e.Reason}
		if e.Err != nil {
			args = append(args, "error", e.Err)
		}
		log.Info("session ended", args...)
	}
}

// stranger logs a data connection from somebody else than the peer. Servers with several addresses may call from
// another one than they were called at; the line says how to tell.
func (l *logger) stranger(side dataconn.Side, from netip.AddrPort) {
	l.log.Load().Warn("refused a data connection from a stranger", "side", side.String(), "from", from)
}

// identify puts a proxy account's name on all lines from now on.
func (l *logger) identify(account string) {
	if l.anonymous == nil {
		l.anonymous = l.log.Load()
	}
	l.log.Store(l.anonymous.With("account", account))
}

func round(d time.Duration) string { return d.Round(10 * time.Microsecond).String() }
