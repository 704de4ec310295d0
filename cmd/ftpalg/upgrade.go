package main

import (
	"bufio"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"

	"ftpalg/proxy"
)

// successor is the process that is to take our place: the program as it is on disk now, with our listening sockets. Both accept until
// it says "ready"; then we stop, and say "go". Our sessions go on here, as does what the kernel carries for them, and with the
// last of them we end. If it does not come to say "ready", nothing has happened.
type successor struct {
	process *os.Process
	says    *os.File // it says "ready"; the end is its own, or says that it stops
	hear    *os.File // we say "go", and at the end what was counted late

	started chan error    // nil: it accepts; else it has ended, and this is why
	gone    chan struct{} // closed when it stops or has ended, after it was started
	all     sync.WaitGroup
}

// startPatience is how long a successor may take to be ready: it reads files and may look up names.
const startPatience = time.Minute

// startSuccessor starts the next process. What only one process can have is lent to it.
func startSuccessor(p *proxy.Proxy) (*successor, error) {
	sockets, err := p.HandOver()
	if err != nil {
		return nil, err
	}
	defer func() {
		for _, s := range sockets {
			s.File.Close()
		}
	}()
	program, err := os.Executable() // by its path: the file there may be another by now
	if err != nil {
		return nil, err
	}
	s := &successor{started: make(chan error, 1), gone: make(chan struct{})}
	var its [2]*os.File
	if s.says, its[1], err = os.Pipe(); err != nil {
		return nil, err
	}
	defer its[1].Close()
	if its[0], s.hear, err = os.Pipe(); err != nil {
		s.says.Close()
		return nil, err
	}
	defer its[0].Close()
	slices.SortStableFunc(sockets, func(a, b proxy.Socket) int { // those that we have opened are the last
		switch {
		case a.Opened == b.Opened:
			return 0
		case a.Opened:
			return 1
		}
		return -1
	})
	files := []*os.File{os.Stdin, os.Stdout, os.Stderr}
	var names []string
	opened := 0
	for _, k := range sockets {
		files, names = append(files, k.File), append(names, k.Name)
		if k.Opened {
			opened++
		}
	}
	files, names = append(files, its[0], its[1]), append(names, "says", "hear")
	environ := slices.DeleteFunc(os.Environ(), func(e string) bool {
		return strings.HasPrefix(e, "LISTEN_") || strings.HasPrefix(e, "WATCHDOG_PID=") // the watchdog is the next process's
	})
	environ = append(environ, "LISTEN_FDS="+strconv.Itoa(len(names)), "LISTEN_FDNAMES="+strings.Join(names, ":"),
		fmt.Sprintf("%s=%d:%d", predecessorVariable, os.Getpid(), opened))
	p.LendBooks()
	s.process, err = os.StartProcess(program, os.Args, &os.ProcAttr{Env: environ, Files: files, Sys: beside()})
	if err != nil {
		p.RegainBooks()
		s.says.Close()
		s.hear.Close()
		return nil, err
	}
	s.all.Go(s.attend)
	return s, nil
}

// attend hears what the next process says, until it stops.
func (s *successor) attend() {
	s.says.SetReadDeadline(time.Now().Add(startPatience))
	r := bufio.NewReader(s.says)
	line, err := r.ReadString('\n')
	if line != "ready\n" {
		why := errors.New("it is not ready after " + startPatience.String())
		s.process.Kill() // unless it has ended by itself, and says why above
		state, waited := s.process.Wait()
		switch {
		case errors.Is(err, os.ErrDeadlineExceeded):
		case errors.Is(waited, syscall.ECHILD):
			why = errors.New("it has ended") // how, its parent knows
		case waited != nil:
			why = waited
		default:
			why = errors.New(state.String())
		}
		s.started <- why
		return
	}
	s.says.SetReadDeadline(time.Time{})
	s.started <- nil
	r.ReadString('\n') // it says nothing more
	close(s.gone)
}

// goes tells the next process that it is the service now.
func (s *successor) goes(log *slog.Logger) {
	if _, err := s.hear.WriteString("go\n"); err != nil {
		log.Error("the next process is gone already", "error", err)
	}
}

// leave tells it what was counted late, with which we end.
func (s *successor) leave(p *proxy.Proxy, log *slog.Logger) {
	if err := json.NewEncoder(s.hear).Encode(p.Late()); err != nil {
		log.Error("the next process cannot be told what was counted", "error", err)
	}
}

// succession is whether somebody is about to take our place.
type succession struct{ under *successor }

// start has the next process started, for await to say how that went.
func (n *succession) start(p *proxy.Proxy, before *predecessor, log *slog.Logger) {
	switch {
	case n.under != nil:
		log.Warn("an upgrade is under way already")
	case !before.ended():
		// There would be three, and the last would not know when the first has ended.
		log.Warn("no upgrade: the process before this one still lets its sessions end; try again later")
	default:
		s, err := startSuccessor(p)
		if err != nil {
			log.Error("the upgrade has failed, and this process goes on", "error", err)
			return
		}
		log.Info("starting the next process", "pid", s.process.Pid)
		n.under = s
	}
}

// await waits for a signal, or for a next process that accepts.
func (n *succession) await(signals <-chan os.Signal, p *proxy.Proxy, log *slog.Logger) (os.Signal, *successor) {
	for {
		var started <-chan error
		if n.under != nil {
			started = n.under.started
		}
		select {
		case sig := <-signals:
			return sig, nil
		case err := <-started:
			if err == nil {
				return nil, n.under
			}
			n.failed(p)
			log.Error("the upgrade has failed, and this process goes on: the next one has said why it did not start", "error", err)
		}
	}
}

// abandon has no next process come any more.
func (n *succession) abandon(p *proxy.Proxy) {
	if n.under != nil {
		n.under.process.Kill()
		if <-n.under.started == nil { // just now
			<-n.under.gone
		}
		n.failed(p)
	}
}

// failed takes back what the next process was lent.
func (n *succession) failed(p *proxy.Proxy) {
	n.under.all.Wait()
	n.under.says.Close()
	n.under.hear.Close()
	n.under = nil
	p.RegainBooks()
}

// retire leaves the field to the next process, and returns when our sessions are over.
func retire(p *proxy.Proxy, super *supervisor, next *successor, signals <-chan os.Signal, log *slog.Logger) error {
	super.follow(next.process.Pid)
	next.goes(log)
	log.Info("the next process accepts; sessions of this one go on for timeouts.drain, then transfers may finish",
		"pid", next.process.Pid, "sessions", p.Sessions())
	hurry, retired := make(chan struct{}), make(chan struct{})
	go stepBack(p, hurry, retired)
	hurried, gone := false, next.gone
	for {
		end := false
		select {
		case <-retired:
			super.leave()
			next.leave(p, log)
			log.Info("stopped: the next process goes on", "pid", next.process.Pid)
			return nil
		case <-gone:
			gone, end = nil, true
			log.Info("the next process stops, so this one drains", "pid", next.process.Pid)
		case sig := <-signals:
			switch {
			case sig == syscall.SIGHUP || sig == syscall.SIGUSR2:
			case sig == syscall.SIGUSR1:
				reopen(p, log)
			case hurried:
				log.Warn("stopping at once", "signal", sig.String())
				p.Close()
			default:
				end = true
				log.Info("draining: transfers may finish; the same signal again ends them", "signal", sig.String())
			}
		}
		if end && !hurried {
			hurried = true
			close(hurry)
		}
	}
}

// stepBack closes retired when the proxy's sessions are over.
func stepBack(p *proxy.Proxy, hurry <-chan struct{}, retired chan<- struct{}) {
	p.Retire(hurry)
	close(retired)
}
