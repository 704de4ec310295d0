package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/coreos/go-systemd/v22/activation"
	"github.com/coreos/go-systemd/v22/daemon"

	"ftpalg/proxy"
	"ftpalg/proxy/quota"
)

// supervisor is who has started us as a service and watches over us: systemd, or whoever speaks its protocol (sd_notify(3)). Where
// there is none, telling it something does nothing. Its methods may be called from any goroutine.
type supervisor struct {
	log *slog.Logger

	mu    sync.Mutex
	mute  bool // it is another process's to speak: the one before us, or after us
	deaf  bool // it has been logged that nobody hears us
	state string
	last  string // the last status

	done  chan struct{} // closed by leave
	watch sync.WaitGroup
}

// statusEvery is how often the status is told, if it is another, and drainEvery the same while draining, when more time is asked for.
const (
	statusEvery = 10 * time.Second
	drainEvery  = 5 * time.Second
)

func newSupervisor(log *slog.Logger, mute bool) *supervisor {
	return &supervisor{log: log, mute: mute, state: "Serving", done: make(chan struct{})}
}

// tell says lines to the supervisor.
func (s *supervisor) tell(lines ...string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.say(lines...)
}

// say is tell with the lock held.
func (s *supervisor) say(lines ...string) {
	if s.mute {
		return
	}
	if _, err := daemon.SdNotify(false, strings.Join(lines, "\n")); err != nil && !s.deaf {
		s.deaf = true
		s.log.Warn("the supervisor cannot be told how we are: it may take us for dead; NOTIFY_SOCKET names its socket", "error", err)
	}
}

// oneLine has a status without what would be another line to the supervisor: a configuration's text may be in an error.
func oneLine(s string) string { return strings.Join(strings.Fields(s), " ") }

// status tells how we are, and how many sessions there are.
func (s *supervisor) status(p *proxy.Proxy, more ...string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	status := fmt.Sprintf("STATUS=%s; sessions: %d", oneLine(s.state), p.Sessions())
	if len(more) == 0 && status == s.last {
		return
	}
	s.last = status
	s.say(append(more, status)...)
}

// turn is for another state, as from serving to draining.
func (s *supervisor) turn(p *proxy.Proxy, state string, more ...string) {
	s.mu.Lock()
	s.state = state
	s.mu.Unlock()
	s.status(p, more...)
}

// up says that we serve, and goes on saying so, until leave.
func (s *supervisor) up(p *proxy.Proxy) {
	s.mu.Lock()
	s.mute = false
	s.mu.Unlock()
	s.status(p, daemon.SdNotifyReady)
	s.watch.Go(func() { s.attend(p) })
}

// attend tells the supervisor how we are, in time for its watchdog, as long as we are able to serve.
func (s *supervisor) attend(p *proxy.Proxy) {
	every := statusEvery
	watchdog, err := daemon.SdWatchdogEnabled(false)
	if err != nil {
		s.log.Warn("the supervisor's watchdog cannot be satisfied", "error", err)
	}
	if watchdog > 0 {
		every = min(every, watchdog/2)
	}
	clock := time.NewTicker(every)
	defer clock.Stop()
	for {
		// This waits for the proxy's lock: if that is never free, the watchdog hears nothing.
		if err := p.Able(); err != nil {
			s.log.Error("not able to serve, and the watchdog is told nothing: the supervisor should start us again", "error", err)
		} else if watchdog > 0 {
			s.tell(daemon.SdNotifyWatchdog)
		}
		s.status(p)
		select {
		case <-clock.C:
		case <-s.done:
			return
		}
	}
}

// reloading says that the configuration is being read again. up's loop goes on meanwhile.
func (s *supervisor) reloading() {
	s.tell(daemon.SdNotifyReloading, strings.TrimSpace(daemon.SdNotifyMonotonicUsec()), "STATUS=Reading the configuration")
}

// reloaded says how that went. We serve, either way.
func (s *supervisor) reloaded(p *proxy.Proxy, err error) {
	state := "Serving"
	if err != nil {
		state = "Serving by the old configuration, as the new one is wrong: " + err.Error()
	}
	s.turn(p, state, daemon.SdNotifyReady)
}

// stopping says that we drain, and asks for the time that takes again and again, until leave.
func (s *supervisor) stopping(p *proxy.Proxy) {
	s.turn(p, "Draining, no new sessions", daemon.SdNotifyStopping)
	s.watch.Go(func() { s.extend(p) })
}

// extend asks for time. Each time it is for three times as long as until it asks again: a supervisor's limit for stopping is a guess,
// timeouts.drain is what was chosen.
func (s *supervisor) extend(p *proxy.Proxy) {
	clock := time.NewTicker(drainEvery)
	defer clock.Stop()
	for {
		s.status(p, fmt.Sprintf("EXTEND_TIMEOUT_USEC=%d", (3*drainEvery).Microseconds()))
		select {
		case <-clock.C:
		case <-s.done:
			return
		}
	}
}

// follow says which process is the service from now on. We say nothing any more.
func (s *supervisor) follow(pid int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.say("MAINPID="+strconv.Itoa(pid), "STATUS=Process "+strconv.Itoa(pid)+" goes on")
	s.mute = true
}

// leave ends what up and stopping have begun.
func (s *supervisor) leave() {
	close(s.done)
	s.watch.Wait()
}

// predecessor is the process before us, whose place we take; see successor, which is the same seen from there.
type predecessor struct {
	pid  int
	says io.ReadCloser  // it says "go", and what it has counted when all its sessions are over
	hear io.WriteCloser // we say "ready"; the end says that we stop
	over chan struct{}  // closed when it has ended
}

// together says whether a process is of our own group: that which starts another is, whose child it makes of it.
func together(pid int) bool {
	group, err := syscall.Getpgid(pid)
	return err == nil && group == syscall.Getpgrp()
}

// predecessorVariable has the predecessor's process id and how many of the sockets it has opened itself, the last before two pipes.
const predecessorVariable = "LISTEN_PREDECESSOR"

// inheritance is what we were started with: listening sockets, and the process before us, nil if there is none.
func inheritance() (*proxy.Inherited, *predecessor, error) {
	var pid, opened int
	after := os.Getenv(predecessorVariable)
	if after != "" {
		if _, err := fmt.Sscanf(after, "%d:%d", &pid, &opened); err != nil || !together(pid) {
			return nil, nil, fmt.Errorf("%s=%s is not by the process that has started this one", predecessorVariable, after)
		}
		os.Unsetenv(predecessorVariable)
		// It could not know our number when it made our environment.
		os.Setenv("LISTEN_PID", strconv.Itoa(os.Getpid()))
	}
	files := activation.Files(true)
	in := &proxy.Inherited{}
	var before *predecessor
	if after != "" {
		sockets := len(files) - 2
		if sockets < opened {
			return nil, nil, errors.New("the process before this one has handed over too little")
		}
		before = &predecessor{pid: pid, says: files[sockets], hear: files[sockets+1], over: make(chan struct{})}
		files, in.Predecessor = files[:sockets], true
	}
	for i, f := range files {
		in.Sockets = append(in.Sockets, proxy.Socket{File: f, Name: f.Name(), Opened: i >= len(files)-opened})
	}
	return in, before, nil
}

// take says that we accept, calls taken when we are the service, and takes up what the predecessor leaves, when it does.
func (b *predecessor) take(p *proxy.Proxy, s *supervisor, taken func(), log *slog.Logger) {
	if _, err := io.WriteString(b.hear, "ready\n"); err != nil {
		log.Warn("the process before this one is gone", "error", err)
	}
	go b.await(p, s, taken, log)
}

// await closes b.over when the predecessor has ended.
func (b *predecessor) await(p *proxy.Proxy, s *supervisor, taken func(), log *slog.Logger) {
	defer close(b.over)
	defer b.says.Close()
	word := make([]byte, len("go\n"))
	io.ReadFull(b.says, word) // or it has died; then it is ours all the same
	taken()
	s.up(p)
	var late []quota.Late
	if err := json.NewDecoder(b.says).Decode(&late); err != nil {
		log.Warn("the process before this one has ended without a word: what its last transfers took from quotas is not known", "error", err)
	} else {
		io.Copy(io.Discard, b.says)
		log.Info("the process before this one has ended")
	}
	p.Succeed(late)
}

// ended reports whether the predecessor has. A nil one has.
func (b *predecessor) ended() bool {
	if b == nil {
		return true
	}
	select {
	case <-b.over:
		return true
	default:
		return false
	}
}

// hurry has the predecessor drain, as we do.
func (b *predecessor) hurry() {
	if b != nil {
		b.hear.Close()
	}
}

// wait returns when it has ended.
func (b *predecessor) wait() {
	if b != nil {
		<-b.over
	}
}
