//go:build linux

package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/signal"
	"path"
	"slices"
	"strings"
	"syscall"
	"text/tabwriter"
	"time"
)

// The program is also started by itself, in the lab, to play one of these roles. Its environment says which.
const roleVariable = "FTPALG_BENCH_ROLE"

var roles = map[string]func() error{"origin": serveOrigin, "load": generateLoad}

// playRole plays the role that the environment gives this process, and says whether there is one.
func playRole() bool {
	role, ok := roles[os.Getenv(roleVariable)]
	if !ok {
		return false
	}
	if err := role(); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	return true
}

// atExit is what a run leaves to be done at its end.
var atExit []func()

func main() {
	if playRole() {
		return
	}
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	err := bench(ctx, os.Args[1:], os.Stdout)
	for _, f := range atExit {
		f()
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "bench:", err)
		os.Exit(1)
	}
}

// bench is the command line.
func bench(ctx context.Context, args []string, out io.Writer) error {
	flags := flag.NewFlagSet("bench", flag.ExitOnError)
	rounds := flags.Int("rounds", 5, "`number` of rounds over all subjects")
	wanted := flags.String("subjects", "*", "`names` of subjects to measure, with commas between; * stands for any letters; those that the others are held against come along")
	what := flags.String("measures", "*", "`names` of measures, likewise")
	window := flags.Duration("window", time.Second, "how long each throughput or rate is measured")
	quick := flags.Bool("quick", false, "one short round with few sessions: does it work at all?")
	list := flags.Bool("list", false, "list subjects and measures, and do nothing")
	jsonFile := flags.String("json", "", "`file` to write all figures to, one JSON object a line")
	svgFile := flags.String("svg", "", "`file` to draw the figures in")
	flags.StringVar(&ftpalgProgram, "ftpalg", "", "`program` to measure as ftpalg, instead of one built from this module")
	flags.StringVar(&profileFile, "profile", "", "`file` for a profile of ftpalg's processor time over all that is measured; it costs some of that")
	flags.Parse(args)
	if profileFile != "" && ftpalgProgram != "" {
		return errors.New("-profile needs a program of its own, built from this module: leave -ftpalg out")
	}
	if flags.NArg() > 0 {
		return fmt.Errorf("unexpected argument %q", flags.Arg(0))
	}
	if *rounds < 1 {
		return fmt.Errorf("-rounds is %d; there must be one at least", *rounds)
	}
	o := options{Rounds: *rounds, Warm: *window * 3 / 10, Window: *window, Gathered: []int{1, 100, 1000, 10_000}, Progress: os.Stderr}
	if *quick {
		o.Rounds, o.Warm, o.Window, o.Gathered = 1, 20*time.Millisecond, 100*time.Millisecond, []int{1, 200}
	}
	var err, err2 error
	o.Subjects, err = choose(subjects, func(s subject) string { return s.Name }, *wanted, "subject", forwarding, kernelHelper)
	o.Measures, err2 = choose(measures, func(m measure) string { return m.Name }, *what, "measure")
	if err := errors.Join(err, err2); err != nil {
		return err
	}
	if *list {
		t := tabwriter.NewWriter(out, 0, 0, 2, ' ', 0)
		for _, s := range o.Subjects {
			fmt.Fprintf(t, "subject\t%s\t%s\n", s.Name, s.About)
		}
		for _, m := range o.Measures {
			fmt.Fprintf(t, "measure\t%s\t%s\n", m.Name, m.About)
		}
		return t.Flush()
	}
	if os.Geteuid() != 0 {
		return errors.New("network namespaces are root's alone to make; run it as root")
	}
	r, err := measureAll(ctx, o)
	if err != nil {
		return err
	}
	errs := []error{r.writeTable(out)}
	if profileFile != "" {
		errs = append(errs, writeProfile())
	}
	for _, f := range []struct {
		name  string
		write func(io.Writer) error
	}{{*jsonFile, r.writeJSON}, {*svgFile, r.writeSVG}} {
		if f.name != "" {
			errs = append(errs, writeFile(f.name, f.write))
		}
	}
	if n := len(r.Missing); n > 0 {
		errs = append(errs, fmt.Errorf("there are no figures for %d of the things to measure; the table says why", n))
	}
	return errors.Join(errs...)
}

// choose returns those of all whose names match one of some patterns, and those that must be there.
func choose[T any](all []T, name func(T) string, patterns, kind string, always ...string) ([]T, error) {
	var chosen []T
	found := map[string]bool{}
	for _, x := range all {
		wanted := slices.Contains(always, name(x))
		for pattern := range strings.SplitSeq(patterns, ",") {
			matches, err := path.Match(pattern, name(x))
			if err != nil {
				return nil, fmt.Errorf("%ss %q: %w", kind, pattern, err)
			}
			found[pattern] = found[pattern] || matches
			wanted = wanted || matches
		}
		if wanted {
			chosen = append(chosen, x)
		}
	}
	for pattern := range strings.SplitSeq(patterns, ",") {
		if !found[pattern] {
			return nil, fmt.Errorf("no %s is called %q; -list shows them", kind, pattern)
		}
	}
	return chosen, nil
}

func writeFile(name string, write func(io.Writer) error) error {
	f, err := os.Create(name)
	if err != nil {
		return err
	}
	return errors.Join(write(f), f.Close())
}
