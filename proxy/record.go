package proxy

import (
	"cmp"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"sync/atomic"
	"syscall"
	"time"

	"ftpalg/config"
	"ftpalg/control"
	"ftpalg/dataconn"
	"ftpalg/proxy/admin"
	"ftpalg/proxy/audit"
	"ftpalg/proxy/quota"
	"ftpalg/tlsmitm"
)

// recorder is a session's control.Observer: it tells the log, and the audit where there is one.
type recorder struct {
	*logger
	p        *Proxy
	n        *network
	policing *policing
	id       string       // of the session
	user     string       // who has logged in, or tried to
	entry    *admin.Entry // nil: the client has been turned away
	ends     ends         // as events have them
	refused  bool         // the command that is being performed
	denied   *atomic.Bool // whether the last negative reply was our own; nil: nobody asks
}

// flushPatience is how long a transfer waits for the audit to say that it begins. Files on disks take some microseconds; what takes
// longer does not hold up the transfer, unless the configuration says so.
const flushPatience = 100 * time.Millisecond

// admit refuses what would have to be recorded and cannot be, where the configuration wants that.
func (r *recorder) admit(q *control.Request) *control.Refusal {
	log := r.p.audit.Load()
	if log == nil || !q.Login && !q.Moves && q.Class != control.Modify && q.Class != control.Write {
		return nil
	}
	err := log.Admit()
	switch {
	case err == nil:
		return nil
	case q.Login:
		return unrecorded(421, err)
	}
	return unrecorded(451, err)
}

// Observe implements control.Observer.
func (r *recorder) Observe(e control.Event) {
	r.logger.Observe(e)
	r.entry.Observe(e)
	switch e := e.(type) {
	case control.Refused:
		r.refused = true
		if r.denied != nil {
			r.denied.Store(true)
		}
	case control.Transferred:
		if e.Carried == dataconn.Passed.String() {
			r.policing.passed(e.Bytes)
		}
	case control.LoggedIn:
		r.user = e.User
	case control.LoginFailed:
		r.user = e.User
	}
	if log := r.audit(); log != nil {
		r.record(log, e)
	}
	if _, over := e.(control.Commanded); over {
		r.policing.finish()
		r.refused = false
	}
}

// audit is the record in use. A reload may have closed the one that was a moment ago.
func (r *recorder) audit() *audit.Log {
	log := r.p.audit.Load()
	for log != nil && log.Closed() {
		next := r.p.audit.Load()
		if next == log {
			return nil // it is the last
		}
		log = next
	}
	return log
}

// begins records that a transfer begins, before it does. known waits until that is in the file.
func (r *recorder) begins(e control.Transferring) (known func(), _ *control.Refusal) {
	log := r.audit()
	if log == nil {
		return nil, nil
	}
	a := r.event(audit.TransferStart)
	a.Verb, a.Path, a.Resolved, a.Direction, a.Offset, a.Rule = e.Verb, e.Path, e.Resolved, string(config.DirectionOf(e.Upload)), e.Offset, e.Rule
	written := log.RecordNow(a)
	if r.n.cfg.Audit.OnFull == config.OnFullRefuse {
		if !written(flushPatience) {
			return nil, unrecorded(451, audit.ErrFull)
		}
		return nil, nil
	}
	return func() { written(flushPatience) }, nil
}

// unrecorded refuses what cannot be recorded.
func unrecorded(code int, err error) *control.Refusal {
	return &control.Refusal{Code: code, Text: "Nothing can be recorded, try again later", Rule: "audit.on_full", Err: err, End: code == 421}
}

// ends are the addresses of a session's control connections, as text.
type ends struct {
	client, clientLocal string
	server, serverLocal string       // empty: there is no server
	of                  *net.TCPConn // to the server
}

// event is an event with what all of a session have.
func (r *recorder) event(kind audit.Kind) *audit.Event {
	n, e, ends := r.n, audit.NewEvent(kind), &r.ends
	if ends.client == "" {
		called := n.local
		if n.dialed.IsValid() {
			called = n.dialed
		} else if n.announced.IsValid() {
			called = n.announced
		}
		ends.client, ends.clientLocal = n.client.String(), called.String()
	}
	if ends.of != n.server { // it is another one
		ends.of = n.server
		ends.server, ends.serverLocal = dataconn.AddrPort(n.server.RemoteAddr()).String(), dataconn.AddrPort(n.server.LocalAddr()).String()
	}
	e.Session, e.Listener, e.Mode, e.User, e.ServerName = r.id, n.listener.Name, string(n.listener.Mode), r.user, n.name
	e.Client, e.ClientLocal, e.Server, e.ServerLocal = ends.client, ends.clientLocal, ends.server, ends.serverLocal
	if n.account != nil {
		e.Account = n.account.Name
	}
	return e
}

// record tells the audit.
func (r *recorder) record(log *audit.Log, event control.Event) {
	switch e := event.(type) {
	case control.Started:
		log.Record(r.event(audit.SessionStart))
	case control.Secured:
		a, facts := r.event(audit.TLS), factsOf(e.Facts)
		facts.Certificate, facts.Verified = e.Certificate, e.Verified
		if e.Side == dataconn.Client {
			a.ClientTLS = facts
		} else {
			a.ServerTLS = facts
		}
		log.Record(a)
	case control.ProxyLogin:
		a := r.event(audit.ProxyLogin)
		a.Account, a.Outcome = e.Account, outcomeOf(e.OK)
		log.Record(a)
	case control.LoggedIn:
		a := r.event(audit.Login)
		a.Outcome = audit.Success
		log.Record(a)
	case control.LoginFailed:
		a := r.event(audit.Login)
		a.Outcome, a.Code, a.Reply = audit.Failure, e.Code, e.Text
		log.Record(a)
	case control.Refused:
		r.deny(log, e.Refusal, func(a *audit.Event) { a.Verb, a.Path, a.Resolved = e.Verb, e.Path, e.Resolved })
	case control.Transferred:
		log.Record(r.transferred(&e))
	case control.Commanded:
		r.commanded(log, e)
	case control.Ended:
		r.end(log, e)
	}
}

// deny records that we said no.
func (r *recorder) deny(log *audit.Log, refusal *control.Refusal, more func(*audit.Event)) {
	a := r.event(audit.Denial)
	a.Code, a.Reply, a.Rule = refusal.Code, refusal.Text, refusal.Rule
	if refusal.Err != nil {
		a.Reason = refusal.Err.Error()
	}
	if more != nil {
		more(a)
	}
	log.Record(a)
}

func (r *recorder) transferred(e *control.Transferred) *audit.Event {
	a := r.event(audit.Transfer)
	a.Verb, a.Path, a.Resolved, a.Direction, a.Offset, a.Rule, a.ASCII = e.Verb, e.Path, e.Resolved, string(config.DirectionOf(e.Upload)), e.Offset, e.Rule, e.ASCII
	seconds := e.Duration.Seconds()
	bytes := e.Bytes
	a.Bytes, a.Seconds, a.Carriage, a.Code, a.Reply = &bytes, &seconds, e.Carried, e.Code, e.Text
	a.SHA256 = r.policing.digest()
	for side, to := range []**audit.TLSFacts{&a.ClientTLS, &a.ServerTLS} {
		if e.TLS[side].Version != "" {
			*to = factsOf(e.TLS[side])
		}
	}
	switch {
	case e.Err == nil:
		a.Outcome = audit.Whole
	case e.Bytes == 0 && e.Code >= 500:
		a.Outcome, a.Reason, a.SHA256 = audit.Refused, e.Err.Error(), ""
	default:
		a.Outcome, a.Reason = audit.Broken, e.Err.Error()
	}
	return a
}

// commanded records what has changed, and every command where that is wanted.
func (r *recorder) commanded(log *audit.Log, e control.Commanded) {
	fill := func(a *audit.Event) *audit.Event {
		seconds := e.Duration.Seconds()
		a.Verb, a.Text, a.Path, a.Resolved, a.From, a.Code, a.Reply, a.Seconds = e.Verb, e.Text, e.Path, e.Resolved, e.From, e.Code, e.Reply, &seconds
		return a
	}
	if e.Class == control.Modify && e.Verb != "RNFR" && e.Code >= 200 && !r.refused {
		a := fill(r.event(audit.Change))
		a.Outcome = outcomeOf(e.Code < 400)
		log.Record(a)
	}
	if r.n.cfg.Audit.Commands {
		log.Record(fill(r.event(audit.Command)))
	}
}

// end records the end, and the refusal that it was, if it was one.
func (r *recorder) end(log *audit.Log, e control.Ended) {
	var refusal *control.Refusal
	if errors.As(e.Err, &refusal) && refusal.Rule != "" {
		r.deny(log, refusal, nil)
	}
	a := r.event(audit.SessionEnd)
	seconds := e.Duration.Seconds()
	a.User, a.Seconds, a.Reason = cmp.Or(e.User, r.user), &seconds, e.Reason
	if e.Err != nil {
		a.Reason += ": " + e.Err.Error()
	}
	log.Record(a)
}

// turnAway says a refusal to a client that gets no session, and records it.
func (r *recorder) turnAway(refusal *control.Refusal) {
	turnAway(r.n.conn, refusal)
	if log := r.p.audit.Load(); log != nil {
		r.deny(log, refusal, nil)
	}
}

func outcomeOf(ok bool) string {
	if ok {
		return audit.Success
	}
	return audit.Failure
}

func factsOf(f tlsmitm.Facts) *audit.TLSFacts {
	return &audit.TLSFacts{Version: f.Version, Cipher: f.Cipher, Resumed: f.Resumed, ALPN: f.Protocol}
}

// openBooks opens the counts of quotas and the audit of a configuration. Those in use are returned again if it wants the same; the
// audit is nil if it wants none.
func (p *Proxy) openBooks(cfg *config.Config) (*quota.Store, *audit.Log, error) {
	store, record := p.quotas.Load(), p.audit.Load()
	if store == nil || cfg.Policy.State != p.cfg.Policy.State {
		var err error
		if store, err = quota.Open(string(cfg.Policy.State), p.log); err != nil {
			return nil, nil, fmt.Errorf("policy.state: %w%s", err, placeHint(err))
		}
	}
	a := cfg.Audit
	if p.cfg != nil {
		a.Commands = p.cfg.Audit.Commands // sessions know for themselves
		if a == p.cfg.Audit {
			return store, record, nil
		}
	}
	record = nil
	if a.Given() {
		var err error
		record, err = audit.Open(audit.Options{File: string(a.File), Xferlog: string(a.Xferlog), Queue: a.Queue, OnFull: onFull[a.OnFull], Version: Version(), Log: p.log})
		if err != nil {
			p.closeBooks(store, nil)
			return nil, nil, fmt.Errorf("%w%s", err, placeHint(err))
		}
	}
	return store, record, nil
}

// placeHint says what an admin can do about a file that cannot be opened.
func placeHint(err error) string {
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return "; its directory must be there: make it for this user, or let systemd make it (StateDirectory=, LogsDirectory=)"
	case errors.Is(err, fs.ErrPermission):
		return fmt.Sprintf("; this user (id %d) must be able to write to it and to its directory; with privileges.drop, a directory that was "+
			"not in the configuration at the start takes a restart", os.Geteuid())
	case errors.Is(err, syscall.EROFS): // which often is so for the service alone
		return "; with ProtectSystem=strict a service of systemd can write to its StateDirectory=, LogsDirectory= and ReadWritePaths= alone: " +
			"choose a place there (/var/lib/ftpalg, /var/log/ftpalg), or name this one in ReadWritePaths="
	}
	return ""
}

// closeBooks closes what openBooks has opened, and leaves alone what is in use.
func (p *Proxy) closeBooks(store *quota.Store, record *audit.Log) {
	if store != nil && store != p.quotas.Load() {
		if err := store.Close(); err != nil {
			p.log.Error("the counts of quotas are not kept", "error", err)
		}
	}
	if record != nil && record != p.audit.Load() {
		if err := record.Close(); err != nil {
			p.log.Error("the audit is not complete", "error", err)
		}
		if written, dropped := record.Stats(); dropped > 0 {
			p.log.Warn("events of the audit were lost, as it says itself", "lost", dropped, "written", written)
		}
	}
}

// keepBooks makes others the ones in use, and closes those that were.
func (p *Proxy) keepBooks(store *quota.Store, record *audit.Log) {
	p.closeBooks(p.quotas.Swap(store), p.audit.Swap(record))
}

var onFull = map[config.OnFull]audit.OnFull{config.OnFullDrop: audit.Drop, config.OnFullBlock: audit.Block, config.OnFullRefuse: audit.Refuse}

// hurryAudit has no session wait for the audit any more.
func (p *Proxy) hurryAudit() {
	if log := p.audit.Load(); log != nil {
		log.Hurry()
	}
}

// ReopenAudit opens the files of the audit anew, for logrotate. On error the old ones stay in use.
func (p *Proxy) ReopenAudit() error {
	if log := p.audit.Load(); log != nil {
		if err := log.Reopen(); err != nil {
			return fmt.Errorf("%w%s", err, placeHint(err))
		}
	}
	return nil
}
