//go:build !linux

package main

import "syscall"

func beside() *syscall.SysProcAttr { return nil }
