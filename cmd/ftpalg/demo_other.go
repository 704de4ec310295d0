//go:build !linux

package main

import (
	"context"
	"runtime"
	"syscall"
)

// transparent cannot be shown here.
func (d *demo) transparent(context.Context) (*account, error) {
	return nil, &unfit{
		why:  "this is " + runtime.GOOS + ", and the transparent mode takes Linux",
		mend: "On Linux and as root this command shows the transparent mode, where neither client nor server knows of ftpalg.",
	}
}

// demoProcess is how children are started.
func demoProcess() *syscall.SysProcAttr { return nil }
