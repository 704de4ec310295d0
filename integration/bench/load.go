//go:build linux

package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"slices"
	"sync"
	"sync/atomic"
	"time"
)

// The load generator is a role of the program, in the client's namespace. It does tasks, one after the other, and keeps only
// the sessions that it was told to gather.

// A task is something to do.
type task struct {
	Do string // a key of doing
	target

	Upload, Active bool
	AtOnce         int           // streams or sessions at once; of gather the number of sessions to have then
	Warm, Window   time.Duration // how long it goes on before it is measured, and then
	File           time.Duration // about how long one file takes when there is a stream of them: what is between two does not count then
}

// An answer is what came of it. Bytes and Count are of the whole task, for the sake of processor time; Rate is of the window.
type answer struct {
	Error    string
	Bytes    int64   // of files
	Count    int64   // of sessions, transfers or commands
	Rate     float64 // bytes or count a second
	P50, P99 time.Duration
}

var doing = map[string]func(*generator, *task) (answer, error){
	"streams":  (*generator).streams,
	"sessions": (*generator).sessions,
	"small":    (*generator).small,
	"noop":     func(g *generator, t *task) (answer, error) { return g.ask(t, "NOOP", "200") },
	"size":     func(g *generator, t *task) (answer, error) { return g.ask(t, "SIZE /pub/directory/file.tar.gz", "213") },
	"gather":   (*generator).gather,
	"disperse": (*generator).disperse,
}

type generator struct {
	gathered []*client
}

// generateLoad is the role. Tasks come as JSON on standard input, answers go so to standard output.
func generateLoad() error {
	g := &generator{}
	tasks, answers := json.NewDecoder(os.Stdin), json.NewEncoder(os.Stdout)
	for {
		var t task
		if err := tasks.Decode(&t); err != nil {
			if errors.Is(err, io.EOF) {
				return nil
			}
			return err
		}
		do, known := doing[t.Do]
		if !known {
			return fmt.Errorf("unknown task %q", t.Do)
		}
		var a answer
		err := t.open()
		if err == nil {
			a, err = do(g, &t)
		}
		if err != nil {
			a = answer{Error: err.Error()}
		}
		if err := answers.Encode(a); err != nil {
			return err
		}
	}
}

// streams moves files for a while, as large ones as the way is fast.
func (g *generator) streams(t *task) (answer, error) {
	var bytes atomic.Int64
	count := func(n int) { bytes.Add(int64(n)) }
	return t.measure(&bytes, func(n int, ready func(), over func() bool) error {
		move := func(size int64) error { return t.relayed(n, size, t.Upload, count) }
		if t.Control.IsValid() {
			c, err := t.login(n)
			if err != nil {
				return err
			}
			defer c.quit()
			move = func(size int64) error { return c.retrieve(size, t.Active, count) }
			if t.Upload {
				move = func(size int64) error { return c.store(size, t.Active, count) }
			}
		}
		ready()
		for size, first := int64(8<<20), true; first || !over(); first = false {
			begun := time.Now()
			if err := move(size); err != nil {
				return err
			}
			faster := float64(t.File) / float64(time.Since(begun))
			size = max(1<<20, int64(float64(size)*min(faster, 8)))
		}
		return nil
	})
}

// smallFile is the size of files that are there for all but their content, in bytes.
const smallFile = 1 << 10

// sessions has complete sessions.
func (g *generator) sessions(t *task) (answer, error) {
	var done atomic.Int64
	return t.measure(&done, func(n int, ready func(), over func() bool) error {
		ready()
		for first := true; first || !over(); n, first = n+t.AtOnce, false {
			c, err := t.login(n)
			if err != nil {
				return err
			}
			if err := c.retrieve(smallFile, t.Active, func(int) {}); err != nil {
				c.control.Close()
				return err
			}
			if err := c.quit(); err != nil {
				return err
			}
			done.Add(1)
		}
		return nil
	})
}

// small has small transfers within a session.
func (g *generator) small(t *task) (answer, error) {
	var done atomic.Int64
	return t.measure(&done, func(n int, ready func(), over func() bool) error {
		c, err := t.login(n)
		if err != nil {
			return err
		}
		defer c.quit()
		ready()
		for first := true; first || !over(); first = false {
			if err := c.retrieve(smallFile, t.Active, func(int) {}); err != nil {
				return err
			}
			done.Add(1)
		}
		return nil
	})
}

// measure has AtOnce workers work until it is over, which adds to a counter. They say when they are ready to begin.
func (t *task) measure(counter *atomic.Int64, work func(n int, ready func(), over func() bool) error) (answer, error) {
	var over atomic.Bool
	var wg, preparing sync.WaitGroup
	failed := make(chan error, t.AtOnce)
	preparing.Add(t.AtOnce)
	for n := range t.AtOnce {
		wg.Go(func() {
			ready := sync.OnceFunc(preparing.Done)
			defer ready()
			if err := work(n, ready, over.Load); err != nil {
				failed <- err
			}
		})
	}
	preparing.Wait()
	pause := func(d time.Duration) error {
		select {
		case err := <-failed:
			return err
		case <-time.After(d):
			return nil
		}
	}
	err := pause(t.Warm)
	begun, before := time.Now(), counter.Load()
	// On a busy machine a short window can be over before anything is done; nobody needs a rate of zero.
	for again := true; again && err == nil; again = counter.Load() == before && time.Since(begun) < patience {
		err = pause(t.Window)
	}
	took, after := time.Since(begun), counter.Load()
	over.Store(true)
	wg.Wait()
	close(failed)
	if err == nil {
		err = <-failed // nil if there is none
	}
	a := answer{Count: counter.Load(), Rate: float64(after-before) / took.Seconds()}
	if t.Do == "streams" {
		a.Bytes, a.Count = a.Count, 0
	}
	return a, err
}

// ask has one session, and in it one command after the other.
func (g *generator) ask(t *task, command, code string) (answer, error) {
	c, err := t.login(0)
	if err != nil {
		return answer{}, err
	}
	defer c.quit()
	var took []time.Duration
	begun := time.Now()
	for at := begun; at.Sub(begun) < t.Warm+t.Window; {
		if _, err := c.ask(command, code); err != nil {
			return answer{}, err
		}
		now := time.Now()
		if at.Sub(begun) >= t.Warm {
			took = append(took, now.Sub(at))
		}
		at = now
	}
	if len(took) == 0 {
		return answer{}, fmt.Errorf("not one %s was answered in time", command)
	}
	slices.Sort(took)
	return answer{Count: int64(len(took)), P50: took[len(took)/2], P99: took[len(took)*99/100]}, nil
}

// logins is how many clients log in at once when they gather.
const logins = 32

// gather has more sessions log in and stay, until there are AtOnce.
func (g *generator) gather(t *task) (answer, error) {
	have := len(g.gathered)
	g.gathered = append(g.gathered, make([]*client, max(0, t.AtOnce-have))...)
	var next, broken atomic.Int64
	next.Store(int64(have))
	var wg sync.WaitGroup
	failed := make(chan error, logins)
	for range logins {
		wg.Go(func() {
			for broken.Load() == 0 {
				n := int(next.Add(1) - 1)
				if n >= t.AtOnce {
					return
				}
				c, err := t.login(n)
				if err != nil {
					broken.Add(1)
					failed <- fmt.Errorf("session %d: %w", n+1, err)
					return
				}
				c.control.SetDeadline(time.Time{})
				g.gathered[n] = c
			}
		})
	}
	wg.Wait()
	close(failed)
	return answer{Count: int64(len(g.gathered))}, <-failed
}

// disperse ends gathered sessions until there are AtOnce.
func (g *generator) disperse(t *task) (answer, error) {
	for len(g.gathered) > t.AtOnce {
		last := len(g.gathered) - 1
		if c := g.gathered[last]; c != nil {
			c.control.Close()
		}
		g.gathered = g.gathered[:last]
	}
	return answer{Count: int64(len(g.gathered))}, nil
}
