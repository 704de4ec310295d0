package confine

import (
	"errors"
	"fmt"
	"os"
	"os/user"
	"runtime"
	"strconv"
	"syscall"

	"github.com/landlock-lsm/go-landlock/landlock"
	"golang.org/x/sys/unix"
)

// kept are the capabilities that the gateway has a use for: transparent sockets, marks, conntrack and nftables; ports below 1024; resets
// in another's name for transfers that are cut.
var kept = capabilities(unix.CAP_NET_ADMIN, unix.CAP_NET_BIND_SERVICE, unix.CAP_NET_RAW)

func capabilities(numbers ...int) (set uint64) {
	for _, n := range numbers {
		set |= 1 << n
	}
	return set
}

// permitted is what this thread may do.
func permitted() (uint64, error) {
	h, data := unix.CapUserHeader{Version: unix.LINUX_CAPABILITY_VERSION_3}, [2]unix.CapUserData{}
	if err := unix.Capget(&h, &data[0]); err != nil {
		return 0, fmt.Errorf("capget: %w", err)
	}
	return uint64(data[0].Permitted) | uint64(data[1].Permitted)<<32, nil
}

// Due reports whether the process has more than it keeps: it has root's name or capabilities, or another user. An ordinary process, and
// one that systemd's unit has confined, has not.
func (c Confinement) Due() (bool, error) {
	uid, _, err := c.identity()
	if err != nil {
		return false, err
	}
	has, err := permitted()
	if err != nil {
		return false, err
	}
	if uid != os.Geteuid() || has&^kept != 0 {
		return true, nil
	}
	bound, err := unix.PrctlRetInt(unix.PR_GET_NO_NEW_PRIVS, 0, 0, 0, 0)
	return uid == 0 && bound == 0, err
}

// identity is whom the process is to run as.
func (c Confinement) identity() (uid, gid int, err error) {
	if c.User == "" {
		return os.Geteuid(), os.Getegid(), nil
	}
	u, err := user.Lookup(c.User)
	if _, is := strconv.Atoi(c.User); err != nil && is == nil {
		u, err = user.LookupId(c.User)
	}
	if err != nil {
		return 0, 0, fmt.Errorf("no user %s on this machine: %w", c.User, err)
	}
	if uid, err = strconv.Atoi(u.Uid); err == nil {
		gid, err = strconv.Atoi(u.Gid)
	}
	return uid, gid, err
}

// Enter gives up what is not kept, and starts the program again in this process: with the same arguments, environment and descriptors.
// Only so is it sure that nothing of what was given up is left in any thread. It returns only if that fails, with what did; then the
// process may have less already, and must end.
func (c Confinement) Enter() error {
	uid, gid, err := c.identity()
	if err != nil {
		return err
	}
	has, err := permitted()
	if err != nil {
		return err
	}
	// From here on it matters which thread it is: that which starts the program again.
	runtime.LockOSThread()
	if err := c.writeNowhereElse(); err != nil {
		return err
	}
	if err := unix.Prctl(unix.PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0); err != nil { // where there is no landlock
		return fmt.Errorf("no_new_privs: %w", err)
	}
	if has&capabilities(unix.CAP_SETPCAP) != 0 { // else no program can get more than we have, by no_new_privs
		for n := 0; n <= 63; n++ {
			in, err := unix.PrctlRetInt(unix.PR_CAPBSET_READ, uintptr(n), 0, 0, 0)
			if err != nil {
				break // the kernel has no more
			}
			if in == 1 && kept&capabilities(n) == 0 {
				if err := unix.Prctl(unix.PR_CAPBSET_DROP, uintptr(n), 0, 0, 0); err != nil {
					return fmt.Errorf("take capability %d away from programs: %w", n, err)
				}
			}
		}
	}
	if uid != os.Geteuid() {
		if err := become(uid, gid); err != nil {
			return fmt.Errorf("become user %s: %w; start as root, or as that user", c.User, err)
		}
	}
	if err := keep(has&kept, uid != 0); err != nil {
		return err
	}
	return fmt.Errorf("start again: %w", syscall.Exec("/proc/self/exe", os.Args, os.Environ()))
}

// writeNowhereElse has the kernel refuse all writing but to what is writable, if it is able to.
func (c Confinement) writeNowhereElse() error {
	const file = unix.LANDLOCK_ACCESS_FS_WRITE_FILE | unix.LANDLOCK_ACCESS_FS_TRUNCATE
	const all = file | unix.LANDLOCK_ACCESS_FS_REMOVE_DIR | unix.LANDLOCK_ACCESS_FS_REMOVE_FILE | unix.LANDLOCK_ACCESS_FS_MAKE_CHAR |
		unix.LANDLOCK_ACCESS_FS_MAKE_DIR | unix.LANDLOCK_ACCESS_FS_MAKE_REG | unix.LANDLOCK_ACCESS_FS_MAKE_SOCK |
		unix.LANDLOCK_ACCESS_FS_MAKE_FIFO | unix.LANDLOCK_ACCESS_FS_MAKE_BLOCK | unix.LANDLOCK_ACCESS_FS_MAKE_SYM
	rules := []landlock.Rule{landlock.PathAccess(file, "/dev/null").IgnoreIfMissing()}
	for _, path := range c.Writable {
		rights := landlock.AccessFSSet(file)
		switch at, err := os.Stat(path); {
		case err != nil:
			continue
		case at.IsDir():
			rights = all
		}
		rules = append(rules, landlock.PathAccess(rights, path).IgnoreIfMissing())
	}
	config, err := landlock.NewConfig(landlock.AccessFSSet(all))
	if err == nil {
		err = config.BestEffort().RestrictPaths(rules...)
	}
	if err != nil {
		return fmt.Errorf("landlock: %w", err)
	}
	return nil
}

// become changes the user, and keeps what is permitted to this thread.
func become(uid, gid int) error {
	if err := unix.Prctl(unix.PR_SET_KEEPCAPS, 1, 0, 0, 0); err != nil {
		return err
	}
	groups, err := groupsOf(uid, gid)
	if err != nil {
		return err
	}
	if err := syscall.Setgroups(groups); err != nil {
		return err
	}
	if err := syscall.Setresgid(gid, gid, gid); err != nil {
		return err
	}
	return syscall.Setresuid(uid, uid, uid)
}

// groupsOf are a user's groups.
func groupsOf(uid, gid int) ([]int, error) {
	groups := []int{gid}
	u, err := user.LookupId(strconv.Itoa(uid))
	if err != nil {
		return nil, err
	}
	more, err := u.GroupIds()
	if err != nil {
		return nil, err
	}
	for _, id := range more {
		n, err := strconv.Atoi(id)
		if err != nil {
			return nil, err
		}
		if n != gid {
			groups = append(groups, n)
		}
	}
	return groups, nil
}

// keep leaves this thread a set of capabilities, which a program that it starts has too; with ambient also if it is not root's.
func keep(set uint64, ambient bool) error {
	h := unix.CapUserHeader{Version: unix.LINUX_CAPABILITY_VERSION_3}
	var data [2]unix.CapUserData
	for i := range data {
		part := uint32(set >> (32 * i))
		data[i] = unix.CapUserData{Effective: part, Permitted: part, Inheritable: part}
	}
	if err := unix.Capset(&h, &data[0]); err != nil {
		return fmt.Errorf("capset: %w", err)
	}
	for n := range 64 {
		if !ambient || set&capabilities(n) == 0 {
			continue
		}
		if err := unix.Prctl(unix.PR_CAP_AMBIENT, unix.PR_CAP_AMBIENT_RAISE, uintptr(n), 0, 0); err != nil && !errors.Is(err, unix.EINVAL) {
			return fmt.Errorf("keep capability %d: %w", n, err)
		}
	}
	return nil
}
