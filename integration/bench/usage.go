//go:build linux

package main

import (
	"errors"
	"fmt"
	"os"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// What processes use, as the kernel counts it. A tree is some processes with all that descend from them.

// A relative is a process of a tree.
type relative struct {
	pid    int
	buried time.Duration // processor time of its children that have ended and been waited for
}

// tick is the unit of processor time in /proc: USER_HZ is 100 everywhere. The sums that are in it are rounded, not the parts.
const tick = 10 * time.Millisecond

// tree finds some processes and what descends from them.
func tree(roots []int) ([]relative, error) {
	if len(roots) == 0 {
		return nil, nil
	}
	entries, err := os.ReadDir("/proc")
	if err != nil {
		return nil, err
	}
	parents := map[int]int{}
	buried := map[int]time.Duration{}
	for _, e := range entries {
		pid, err := strconv.Atoi(e.Name())
		if err != nil {
			continue
		}
		stat, err := os.ReadFile("/proc/" + e.Name() + "/stat")
		if err != nil {
			continue // it has ended meanwhile
		}
		// After the name, which may have anything in it: state, parent, and as 14th and 15th the children's times.
		f := strings.Fields(string(stat[strings.LastIndexByte(string(stat), ')')+1:]))
		if len(f) < 15 {
			return nil, fmt.Errorf("/proc/%d/stat has only %d fields", pid, len(f))
		}
		parent, err := strconv.Atoi(f[1])
		user, err1 := strconv.ParseInt(f[13], 10, 64)
		system, err2 := strconv.ParseInt(f[14], 10, 64)
		if err := errors.Join(err, err1, err2); err != nil {
			return nil, fmt.Errorf("/proc/%d/stat: %w", pid, err)
		}
		parents[pid], buried[pid] = parent, time.Duration(user+system)*tick
	}
	var all []relative
	for pid := range parents {
		for ancestor, steps := pid, 0; ancestor > 1 && steps < len(parents); ancestor, steps = parents[ancestor], steps+1 {
			if contains(roots, ancestor) {
				all = append(all, relative{pid, buried[pid]})
				break
			}
		}
	}
	return all, nil
}

func contains(pids []int, pid int) bool {
	for _, p := range pids {
		if p == pid {
			return true
		}
	}
	return false
}

// cpuTime is the processor time that a tree has used so far, user's and system's, to the nanosecond but for children that have
// ended. It looks twice: one that ends after the look at its parent and before that at itself is missing in the sum.
func cpuTime(roots []int) (time.Duration, error) {
	first, err := cpuTimeSeen(roots)
	if err != nil {
		return 0, err
	}
	second, err := cpuTimeSeen(roots)
	return max(first, second), err
}

func cpuTimeSeen(roots []int) (time.Duration, error) {
	all, err := tree(roots)
	if err != nil {
		return 0, err
	}
	var sum time.Duration
	for _, r := range all {
		sum += r.buried
		var t unix.Timespec
		// The clock of another process: MAKE_PROCESS_CPUCLOCK of linux/posix-timers.h, with CPUCLOCK_SCHED. It has the
		// threads that have ended.
		err := unix.ClockGettime(int32(^r.pid)<<3|2, &t)
		if errors.Is(err, unix.EINVAL) || errors.Is(err, unix.ESRCH) {
			continue // it has ended meanwhile
		}
		if err != nil {
			return 0, fmt.Errorf("processor time of process %d: %w", r.pid, err)
		}
		sum += time.Duration(t.Nano())
	}
	return sum, nil
}

// memory is the memory of a tree in bytes: what its processes have to themselves, and their share of what they have together.
// Buffers of sockets are the kernel's and not in it.
func memory(roots []int) (int64, error) {
	all, err := tree(roots)
	if err != nil {
		return 0, err
	}
	sum := int64(0)
	for _, r := range all {
		text, err := os.ReadFile(fmt.Sprintf("/proc/%d/smaps_rollup", r.pid))
		if errors.Is(err, os.ErrNotExist) || errors.Is(err, unix.ESRCH) {
			continue
		}
		if err != nil {
			return 0, err
		}
		_, rest, found := strings.Cut(string(text), "\nPss:")
		var kib int64
		if _, err := fmt.Sscan(rest, &kib); err != nil || !found {
			return 0, fmt.Errorf("/proc/%d/smaps_rollup: no Pss", r.pid)
		}
		sum += kib << 10
	}
	return sum, nil
}

// descriptors is the number of files that a tree has open.
func descriptors(roots []int) (int64, error) {
	all, err := tree(roots)
	if err != nil {
		return 0, err
	}
	sum := int64(0)
	for _, r := range all {
		files, err := os.ReadDir(fmt.Sprintf("/proc/%d/fd", r.pid))
		if err != nil && !errors.Is(err, os.ErrNotExist) {
			return 0, err
		}
		sum += int64(len(files))
	}
	return sum, nil
}

// confine lets all threads of a tree run on some processors only. New threads inherit it, so it looks until it finds no others.
func confine(roots []int, to *unix.CPUSet) error {
	seen := map[int]bool{}
	for again := true; again; {
		again = false
		all, err := tree(roots)
		if err != nil {
			return err
		}
		for _, r := range all {
			tasks, err := os.ReadDir(fmt.Sprintf("/proc/%d/task", r.pid))
			if err != nil {
				continue
			}
			for _, task := range tasks {
				tid, err := strconv.Atoi(task.Name())
				if err != nil || seen[tid] {
					continue
				}
				seen[tid], again = true, true
				if err := unix.SchedSetaffinity(tid, to); err != nil && !errors.Is(err, unix.ESRCH) {
					return fmt.Errorf("set the processors of thread %d: %w", tid, err)
				}
			}
		}
	}
	return nil
}
