// Package admin is what an administrator sees of a running gateway, and does to it: the sessions there are, counts for Prometheus, and
// a Unix socket to ask and to order by. It is told what happens, as the log and the audit are; it has no part in any session.
package admin

import (
	"cmp"
	"errors"
	"net/netip"
	"slices"
	"sync"
	"time"

	"ftpalg/config"
	"ftpalg/control"
	"ftpalg/dataconn"
)

// State is what a session is at.
type State string

// The states of a session.
const (
	Connecting State = "connecting" // no server yet
	LoggingIn  State = "login"
	Idle       State = "idle" // between transfers; a command may be under way
	Moving     State = "transfer"
)

var states = [...]State{Connecting, LoggingIn, Idle, Moving}

// Session is a session at one moment. What is empty is not known, or does not apply.
type Session struct {
	ID         string    `json:"id"` // as in the log and the audit
	Listener   string    `json:"listener"`
	Mode       string    `json:"mode"`
	State      State     `json:"state"`
	Client     string    `json:"client"` // address and port
	Server     string    `json:"server,omitempty"`
	ServerName string    `json:"server_name,omitempty"`
	Account    string    `json:"account,omitempty"` // of the proxy
	User       string    `json:"user,omitempty"`
	ClientTLS  string    `json:"client_tls,omitempty"` // version
	ServerTLS  string    `json:"server_tls,omitempty"`
	Since      time.Time `json:"since"`
	LastSpoke  time.Time `json:"last_command"` // when a command was over last; Since where none was
	Downloaded int64     `json:"downloaded"`   // bytes, with those that move
	Uploaded   int64     `json:"uploaded"`
	Files      int       `json:"transfers"` // that have ended, listings among them
	Transfer   *Transfer `json:"transfer,omitempty"`
	Commands   []Command `json:"commands,omitempty"` // the last ones, oldest first; only where one session is asked for
}

// Transfer is one that runs.
type Transfer struct {
	Verb      string               `json:"verb"`
	Path      string               `json:"path,omitempty"` // resolved, or as the client gave it if that is not known
	Direction config.MoveDirection `json:"direction"`
	Bytes     int64                `json:"bytes"`
	Carriage  string               `json:"carriage,omitempty"` // empty: its connections are not there yet
	Since     time.Time            `json:"since"`
}

// Command is one that is over.
type Command struct {
	Time    time.Time `json:"time"` // of its end
	Text    string    `json:"text"` // without secrets
	Code    int       `json:"code,omitempty"`
	Seconds float64   `json:"duration"`
}

// Live is the sessions that run, and what is counted of all that ever ran. Its methods may be called from any goroutine.
type Live struct {
	metrics *Metrics

	mu        sync.Mutex
	entries   map[string]*Entry
	listeners []string // of the configuration in force
}

// NewLive makes one without sessions.
func NewLive() *Live { return &Live{metrics: newMetrics(), entries: map[string]*Entry{}} }

// Metrics is what is counted.
func (l *Live) Metrics() *Metrics { return l.metrics }

// Listening says which listeners there are from now on, by name.
func (l *Live) Listening(names []string) {
	l.mu.Lock()
	l.listeners = names
	l.mu.Unlock()
	for _, n := range names {
		l.metrics.begin(n)
	}
}

// Entry is one session's place in a Live. It is told of it by the session's goroutine, and read by any other.
type Entry struct {
	live *Live
	kill func()

	mu       sync.Mutex
	s        Session // Commands is nil
	server   netip.AddrPort
	loggedIn bool
	data     *dataconn.Transfer // what runs; nil: nothing does
	counted  int64              // of its bytes, in the metrics
	last     []Command          // a ring of lastCommands, once there are as many
	next     int                // where the next command goes
}

// lastCommands is how many are kept of each session.
const lastCommands = 8

// Enter adds a session. kill ends it; it is called from any goroutine, and perhaps when it has ended.
func (l *Live) Enter(id, listener, mode string, client netip.AddrPort, account string, kill func()) *Entry {
	now := time.Now()
	e := &Entry{live: l, kill: kill, s: Session{ID: id, Listener: listener, Mode: mode, Client: client.String(), Account: account, Since: now, LastSpoke: now}}
	l.mu.Lock()
	l.entries[id] = e
	l.mu.Unlock()
	l.metrics.started.WithLabelValues(listener).Inc()
	return e
}

// Leave removes it.
func (e *Entry) Leave() {
	e.live.mu.Lock()
	delete(e.live.entries, e.s.ID)
	e.live.mu.Unlock()
}

// Begins says that a transfer is about to begin.
func (e *Entry) Begins(t control.Transferring) {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.data, e.counted = t.Data, 0
	e.s.Transfer = &Transfer{Verb: t.Verb, Path: cmp.Or(t.Resolved, t.Path), Direction: config.DirectionOf(t.Upload), Since: time.Now()}
}

// Observe hears what happens in the session.
func (e *Entry) Observe(event control.Event) {
	e.live.metrics.observe(e.s.Listener, event)
	e.mu.Lock()
	defer e.mu.Unlock()
	switch v := event.(type) {
	case control.Started:
		e.server, e.s.ServerName = v.Server, v.Name
	case control.Secured:
		if v.Side == dataconn.Client {
			e.s.ClientTLS = v.Facts.Version
		} else {
			e.s.ServerTLS = v.Facts.Version
		}
	case control.ProxyLogin:
		if v.OK {
			e.s.Account = v.Account
		}
	case control.LoggedIn:
		e.s.User, e.loggedIn = v.User, true
	case control.Transferred:
		e.count() // those who ask next see all of it in the session's sums
		if v.Upload {
			e.s.Uploaded += v.Bytes
		} else {
			e.s.Downloaded += v.Bytes
		}
		e.s.Files++
		e.data, e.s.Transfer = nil, nil
	case control.Commanded:
		e.data, e.s.Transfer = nil, nil // of a transfer that was refused at the last moment
		e.s.LastSpoke = time.Now()
		c := Command{Time: e.s.LastSpoke, Text: v.Text, Code: v.Code, Seconds: v.Duration.Seconds()}
		if len(e.last) < lastCommands {
			e.last = append(e.last, c)
		} else {
			e.last[e.next] = c
		}
		e.next = (e.next + 1) % lastCommands
	}
}

// count counts the bytes that have moved since the last time. e.mu is held.
func (e *Entry) count() {
	if e.data == nil {
		return
	}
	if n := e.data.Bytes(); n > e.counted {
		e.live.metrics.moved(e.s.Listener, string(e.s.Transfer.Direction), e.data.Carried().String(), n-e.counted)
		e.counted = n
	}
}

func (e *Entry) state() State {
	switch {
	case e.data != nil:
		return Moving
	case e.loggedIn:
		return Idle
	case e.server.IsValid():
		return LoggingIn
	}
	return Connecting
}

// look is the session now.
func (e *Entry) look(commands bool) Session {
	e.mu.Lock()
	defer e.mu.Unlock()
	s := e.s
	s.State = e.state()
	if e.server.IsValid() {
		s.Server = e.server.String()
	}
	if e.data != nil {
		t := *e.s.Transfer
		t.Bytes, t.Carriage = e.data.Bytes(), e.data.Carried().String()
		s.Transfer = &t
		if t.Direction == config.DirectionUpload {
			s.Uploaded += t.Bytes
		} else {
			s.Downloaded += t.Bytes
		}
	}
	if commands {
		for i := range e.last {
			at := i
			if len(e.last) == lastCommands {
				at = (e.next + i) % lastCommands
			}
			s.Commands = append(s.Commands, e.last[at])
		}
	}
	return s
}

// all are the entries, in no order.
func (l *Live) all() []*Entry {
	l.mu.Lock()
	defer l.mu.Unlock()
	es := make([]*Entry, 0, len(l.entries))
	for _, e := range l.entries {
		es = append(es, e)
	}
	return es
}

// tally is how many sessions of each listener are at what. A state that all have left is 0 and not gone.
func (l *Live) tally() map[string]map[State]int {
	n := map[string]map[State]int{}
	begin := func(listener string) {
		if n[listener] == nil {
			n[listener] = map[State]int{}
			for _, s := range states {
				n[listener][s] = 0
			}
		}
	}
	l.mu.Lock()
	listeners := l.listeners
	l.mu.Unlock()
	for _, name := range listeners {
		begin(name)
	}
	for _, e := range l.all() {
		e.mu.Lock()
		listener, state := e.s.Listener, e.state()
		e.mu.Unlock()
		begin(listener) // or it is one that a reload has ended
		n[listener][state]++
	}
	return n
}

// byState is how many sessions are at what; what none is at is left out.
func (l *Live) byState() map[State]int {
	sum := map[State]int{}
	for _, n := range l.tally() {
		for state, n := range n {
			if n > 0 {
				sum[state] += n
			}
		}
	}
	return sum
}

// Sessions are those that run, the oldest first.
func (l *Live) Sessions() []Session {
	ss := []Session{}
	for _, e := range l.all() {
		ss = append(ss, e.look(false))
	}
	slices.SortFunc(ss, func(a, b Session) int { return cmp.Or(a.Since.Compare(b.Since), cmp.Compare(a.ID, b.ID)) })
	return ss
}

// ErrNoSession is for an id that no session has, or not any more.
var ErrNoSession = errors.New("no session has this id")

func (l *Live) find(id string) (*Entry, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if e := l.entries[id]; e != nil {
		return e, nil
	}
	return nil, ErrNoSession
}

// Session is the one with an id, with its last commands. The error is ErrNoSession.
func (l *Live) Session(id string) (Session, error) {
	e, err := l.find(id)
	if err != nil {
		return Session{}, err
	}
	return e.look(true), nil
}

// Kill ends the session with an id, and what moves in it. It does not wait for that. The error is ErrNoSession.
func (l *Live) Kill(id string) error {
	e, err := l.find(id)
	if err == nil {
		e.kill()
	}
	return err
}
