package main

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"time"
)

// patience bounds every wait for a child. It is no demand for speed: whatever is waited for takes milliseconds, and this is
// for the fault that would let it take for ever.
const patience = 2 * time.Minute

// place runs do where a role is played, on the calling thread: in a network namespace, or just here.
type place func(do func() error) error

// child is this program in another role.
type child struct {
	role  string
	says  *feed
	stdin io.WriteCloser // its end tells client and server that the demo has ended
	ended chan struct{}  // closed when it has; err is set before
	err   error
}

// start runs this program in a place, with these arguments and, if job is not nil, with the job as JSON on standard input.
func (d *demo) start(in place, role string, job any, args ...string) (*child, error) {
	log, err := os.Create(filepath.Join(d.dir, role+".log"))
	if err != nil {
		return nil, err
	}
	c := &child{role: role, says: newFeed(log), ended: make(chan struct{})}
	cmd := exec.Command(d.self, args...)
	cmd.Stdout, cmd.Stderr = c.says, c.says
	cmd.Env = demoEnviron()
	cmd.SysProcAttr = demoProcess()
	if job != nil {
		c.stdin, err = cmd.StdinPipe()
	}
	if err == nil {
		err = in(cmd.Start)
	}
	if err != nil {
		log.Close()
		return nil, fmt.Errorf("start %s: %w", role, err)
	}
	go c.wait(cmd, log)
	d.later(func() error {
		// Not asked, but killed: there is nothing that it could save.
		cmd.Process.Kill()
		<-c.ended
		return nil
	})
	if job != nil {
		// If it cannot be told it has ended, and whoever waits for it will say so.
		json.NewEncoder(c.stdin).Encode(job)
	}
	return c, nil
}

// demoEnviron is the environment without settings for ftpalg, since the demo brings its own.
func demoEnviron() []string {
	environ := []string{}
	for _, v := range os.Environ() {
		if !strings.HasPrefix(v, "FTPALG_") {
			environ = append(environ, v)
		}
	}
	return environ
}

func (c *child) wait(cmd *exec.Cmd, log io.Closer) {
	c.err = cmd.Wait() // and for all of its output
	log.Close()
	close(c.ended)
}

// heard is the JSON objects among the lines that a child says, from the nth line on until one satisfies, and the number of
// lines up to there. Other lines are for people.
func heard[T any](ctx context.Context, c *child, n int, satisfies func(T) bool) ([]T, int, error) {
	ctx, cancel := context.WithTimeoutCause(ctx, patience, fmt.Errorf("no answer for %v", patience))
	defer cancel()
	var all []T
	for {
		ended := false
		select {
		case <-c.ended: // all that it will ever say is there
			ended = true
		default:
		}
		lines, more := c.says.from(n)
		for _, l := range lines {
			n++
			var t T
			if json.Unmarshal(l, &t) != nil {
				continue
			}
			all = append(all, t)
			if satisfies(t) {
				return all, n, nil
			}
		}
		if ended {
			return all, n, fmt.Errorf("%s ended too early (%v); its last words:\n%s", c.role, c.err, c.says.last(10))
		}
		select {
		case <-more:
		case <-c.ended:
		case <-ctx.Done():
			return all, n, fmt.Errorf("wait for %s: %w", c.role, context.Cause(ctx))
		}
	}
}

// feed is what a child says, in lines. It is written to by os/exec and copied to a log.
type feed struct {
	log io.Writer

	mu    sync.Mutex
	part  []byte // of a line
	lines [][]byte
	more  chan struct{} // closed, and another made, when there is more
	quiet bool
}

func newFeed(log io.Writer) *feed { return &feed{log: log, more: make(chan struct{})} }

// Write implements io.Writer.
func (f *feed) Write(b []byte) (int, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.quiet {
		return f.log.Write(b)
	}
	f.part = append(f.part, b...)
	for {
		line, rest, whole := bytes.Cut(f.part, []byte("\n"))
		if !whole {
			break
		}
		f.lines, f.part = append(f.lines, bytes.Clone(line)), rest
	}
	close(f.more)
	f.more = make(chan struct{})
	return f.log.Write(b)
}

// from is the lines from the nth on, and what is closed when there are more.
func (f *feed) from(n int) ([][]byte, <-chan struct{}) {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.lines[n:], f.more
}

// last is the last lines, n at most.
func (f *feed) last(n int) string {
	f.mu.Lock()
	defer f.mu.Unlock()
	lines := append(f.lines[max(0, len(f.lines)-n):], f.part)
	return string(bytes.TrimSpace(bytes.Join(lines, []byte("\n"))))
}

// hush has further lines go to the log only, so that a demo that is kept running does not grow.
func (f *feed) hush() {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.quiet = true
}
