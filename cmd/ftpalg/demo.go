package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/signal"
	"path/filepath"
	"regexp"
	"runtime"
	"strconv"
	"syscall"

	"github.com/spf13/cobra"
)

func newDemo() *cobra.Command {
	var o demoOptions
	c := &cobra.Command{
		Use: "demo", Short: "Show on this machine alone what ftpalg does",
		Long: `Demo runs an FTP client, ftpalg and an FTP server, has files carried between them, without
TLS and with it, and prints what each of them said and saw. What it prints is measured; if
something is not as it should be, demo says so and exits with 1.

As root on Linux: in three network namespaces, with the firewall's real rules; the client and
the server do not know of ftpalg, whose authority the client trusts for TLS. Otherwise: on
loopback; the client logs in to ftpalg and names the server. Nothing outside is touched,
nothing is left behind, and no other program is needed.`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error { return fail(perform(cmd.OutOrStdout(), o)) },
	}
	c.Flags().BoolVar(&o.keep, "keep", false, "leave it running afterwards, to try by hand, until Ctrl-C")
	c.Flags().BoolVar(&o.explicit, "explicit", false, "use loopback even where network namespaces can be had")
	c.AddCommand(newDemoServer(), newDemoClient())
	return c
}

type demoOptions struct{ keep, explicit bool }

// demo is one performance: what has been started and made, and how to undo it.
type demo struct {
	self string // this program
	dir  string // for the configuration and the logs
	undo []func() error
}

// unfit is why the lab cannot be had here. It is no failure: there is another way to show something.
type unfit struct {
	why  string
	mend string // what would have it shown; may be empty
}

func (u *unfit) Error() string { return u.why }

// perform is the whole demo.
func perform(out io.Writer, o demoOptions) (err error) {
	// One thread for all of it, for ever: it enters network namespaces, which are a thread's; and a child that is to
	// die with its parent (Pdeathsig) dies with the thread that started it.
	runtime.LockOSThread()
	// SIGPIPE is among them so that `ftpalg demo | head` leaves nothing behind.
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM, syscall.SIGHUP, syscall.SIGPIPE)
	defer stop()

	d := &demo{}
	defer func() {
		left := d.unwind()
		switch {
		case left != nil:
			err = errors.Join(err, fmt.Errorf("not everything could be cleaned up: %w", left))
		case err != nil && ctx.Err() != nil:
			err = fmt.Errorf("%w; all is cleaned up", err)
		}
	}()
	if err := d.prepare(); err != nil {
		return err
	}
	a, err := d.play(ctx, o)
	if err != nil {
		return err
	}
	if err := a.print(out); err != nil {
		return fmt.Errorf("print the account: %w", err)
	}
	if o.keep {
		if err := a.printKept(out, d.dir); err != nil {
			return fmt.Errorf("print what to try: %w", err)
		}
		<-ctx.Done()
	}
	if n := len(a.faults()); n > 0 {
		return fmt.Errorf("the demo failed: %d of its checks did not hold; they are marked FAILED above", n)
	}
	return nil
}

// play shows the transparent mode, or the explicit one where that cannot be had.
func (d *demo) play(ctx context.Context, o demoOptions) (*account, error) {
	why := &unfit{why: "--explicit was given"}
	if !o.explicit {
		done := len(d.undo)
		a, err := d.transparent(ctx)
		if !errors.As(err, &why) {
			return a, err
		}
		if err := d.unwindTo(done); err != nil {
			return nil, fmt.Errorf("clean up an incomplete lab: %w", err)
		}
	}
	return d.explicit(ctx, why)
}

// demoName is how everything is called that a demo makes outside of itself; its process id is in the parentheses.
var demoName = regexp.MustCompile(`^ftpalg-demo-(\d+)-[a-z0-9]+$`)

// prepare makes the demo's directory, and removes what demos that were killed have left.
func (d *demo) prepare() error {
	var err error
	if d.self, err = os.Executable(); err != nil {
		return fmt.Errorf("find this program, which is to be run again as client and server: %w", err)
	}
	removeStale(os.TempDir(), os.RemoveAll)
	if d.dir, err = os.MkdirTemp("", fmt.Sprintf("ftpalg-demo-%d-*", os.Getpid())); err != nil {
		return fmt.Errorf("make a directory for the configuration and the logs: %w (set TMPDIR to one that can be written)", err)
	}
	d.later(func() error { return os.RemoveAll(d.dir) })
	return nil
}

// removeStale removes from a directory what demos made that are dead. What cannot be removed is somebody else's.
func removeStale(dir string, remove func(path string) error) {
	entries, _ := os.ReadDir(dir)
	for _, e := range entries {
		m := demoName.FindStringSubmatch(e.Name())
		if m == nil {
			continue
		}
		if pid, err := strconv.Atoi(m[1]); err == nil && !processRuns(pid) {
			remove(filepath.Join(dir, e.Name()))
		}
	}
}

// processRuns reports whether there is a process of this id.
func processRuns(pid int) bool {
	p, err := os.FindProcess(pid)
	if err != nil {
		return false
	}
	defer p.Release()
	err = p.Signal(syscall.Signal(0))
	return err == nil || errors.Is(err, os.ErrPermission)
}

// later has something done when the demo ends, before all that was to be done later already.
func (d *demo) later(do func() error) { d.undo = append(d.undo, do) }

func (d *demo) unwind() error { return d.unwindTo(0) }

// unwindTo undoes all but the first n things. It goes on after an error.
func (d *demo) unwindTo(n int) error {
	var errs []error
	for len(d.undo) > n {
		last := d.undo[len(d.undo)-1]
		d.undo = d.undo[:len(d.undo)-1]
		errs = append(errs, last())
	}
	return errors.Join(errs...)
}
