//go:build linux

package main

import (
	"context"
	"fmt"
	"os"
	"os/signal"
	"syscall"
)

// The program is also started by itself, in the lab, to play one of these roles. Its environment says which.
const roleVariable = "FTPALG_BENCH_ROLE"

var roles = map[string]func() error{"origin": serveOrigin}

// atExit is what a run leaves to be done at its end.
var atExit []func()

func main() {
	if role, ok := roles[os.Getenv(roleVariable)]; ok {
		if err := role(); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		return
	}
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	err := bench(ctx)
	for _, f := range atExit {
		f()
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "bench:", err)
		os.Exit(1)
	}
}

func bench(ctx context.Context) error {
	l, err := newLab(ctx)
	defer l.Close()
	if err != nil {
		return err
	}
	if err := l.startEnds(); err != nil {
		return err
	}
	for _, s := range subjects {
		f, err := l.newFirewall(s.Name)
		if err != nil {
			return err
		}
		w, err := s.Start(f)
		if err != nil {
			fmt.Println(s.Name, err)
			continue
		}
		fmt.Println(s.Name, w.Version)
	}
	return nil
}
