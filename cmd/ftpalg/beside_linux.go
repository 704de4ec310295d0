package main

import (
	"os"
	"syscall"
)

// beside has the next process be its supervisor's child and not ours, where there is one. systemd waits for its own children alone: of
// another main process it believes that a stop need not wait for it, and kills it at once with all its sessions.
func beside() *syscall.SysProcAttr {
	if os.Getenv("NOTIFY_SOCKET") == "" {
		return nil
	}
	return &syscall.SysProcAttr{Cloneflags: syscall.CLONE_PARENT}
}
