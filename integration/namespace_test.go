//go:build linux

package integration

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/vishvananda/netns"
)

const (
	namespaces = "/run/netns" // where ip keeps the namespaces it has named
	overlays   = "/etc/netns" // DIR/NAME/FILE appears as /etc/FILE to what ip runs in namespace NAME
	hang       = 2 * time.Minute
)

// A namespace is a network namespace with a name of its own.
type namespace struct {
	Name string

	lab *lab
}

// newNamespace makes an empty namespace that ends with the test, together with all processes in it.
func (l *lab) newNamespace(name string) *namespace {
	l.t.Helper()
	if said, err := exec.Command("ip", "netns", "add", name).CombinedOutput(); err != nil {
		lack(l.t, fmt.Sprintf("network namespaces (%s)", strings.TrimSpace(string(said))))
	}
	l.t.Cleanup(func() { removeNamespace(name) })
	n := &namespace{Name: name, lab: l}

	// Nothing in a lab may ask a name server or the host's user database.
	n.overlay("nsswitch.conf", "passwd: files\ngroup: files\nshadow: files\nhosts: files\n")

	// The kernel's and Debian's defaults, whatever the host's are; but addresses are of use at once.
	for _, conf := range []string{"all", "default"} {
		n.sysctl("net/ipv4/conf/"+conf+"/rp_filter", "0")
		n.sysctl("net/ipv6/conf/"+conf+"/disable_ipv6", "0")
		n.sysctl("net/ipv6/conf/"+conf+"/accept_dad", "0")
	}
	n.ip("link", "set", "lo", "up")
	return n
}

// removeNamespace ends all processes in a namespace and removes it.
func removeNamespace(name string) {
	for range 100 {
		pids, err := exec.Command("ip", "netns", "pids", name).Output()
		if err != nil || len(pids) == 0 {
			break
		}
		for _, field := range strings.Fields(string(pids)) {
			if pid, err := strconv.Atoi(field); err == nil && pid != os.Getpid() {
				syscall.Kill(pid, syscall.SIGKILL)
			}
		}
		time.Sleep(10 * time.Millisecond) // until the kernel has ended them
	}
	exec.Command("ip", "netns", "del", name).Run()
	os.RemoveAll(filepath.Join(overlays, name))
}

// overlay makes a file of /etc look different to the programs in the namespace. The file must exist in the real /etc.
func (n *namespace) overlay(file, text string) {
	n.lab.t.Helper()
	path := filepath.Join(overlays, n.Name, file)
	err := os.MkdirAll(filepath.Dir(path), 0o755)
	if err == nil {
		err = os.WriteFile(path, []byte(text), 0o644)
	}
	if err != nil {
		n.lab.t.Fatal(err)
	}
}

// AddAddress gives an interface of the namespace an address that can be used at once.
func (n *namespace) AddAddress(device string, address netip.Prefix) {
	n.lab.t.Helper()
	args := []string{"address", "add", address.String(), "dev", device}
	if address.Addr().Is6() {
		args = append(args, "nodad")
	}
	n.ip(args...)
}

func (n *namespace) ip(args ...string) {
	n.lab.t.Helper()
	family := "-4"
	if strings.Contains(strings.Join(args, " "), "::") {
		family = "-6"
	}
	args = append([]string{"-n", n.Name, family}, args...)
	if said, err := exec.Command("ip", args...).CombinedOutput(); err != nil {
		n.lab.t.Fatalf("ip %s: %v\n%s", strings.Join(args, " "), err, said)
	}
}

func (n *namespace) sysctl(key, value string) {
	n.lab.t.Helper()
	err := n.Do(func() error { return os.WriteFile("/proc/sys/"+key, []byte(value), 0) })
	if err != nil {
		n.lab.t.Fatal(err)
	}
}

// must runs a program that has to succeed, and returns what it said.
func (n *namespace) must(program string, args ...string) string {
	n.lab.t.Helper()
	ctx, cancel := context.WithTimeout(n.lab.t.Context(), hang)
	defer cancel()
	said, err := n.Command(ctx, program, args...).CombinedOutput()
	if err != nil {
		n.lab.t.Fatalf("%s %s: %v\n%s", program, strings.Join(args, " "), err, said)
	}
	return string(said)
}

// Command is exec.CommandContext for a program in the namespace. Its environment is clean: no proxies, no user's settings.
func (n *namespace) Command(ctx context.Context, program string, args ...string) *exec.Cmd {
	command := exec.CommandContext(ctx, "ip", append([]string{"netns", "exec", n.Name, program}, args...)...)
	command.Dir = n.lab.Dir
	command.Env = []string{"PATH=" + os.Getenv("PATH"), "HOME=" + n.lab.Dir, "LC_ALL=C.UTF-8", "TERM=dumb"}
	if dir, ok := os.LookupEnv("GOCOVERDIR"); ok {
		command.Env = append(command.Env, "GOCOVERDIR="+dir)
	}
	command.WaitDelay = 5 * time.Second // for its children to let go of its output
	return command
}

// Do calls a function on a thread that is in the namespace: sockets that it opens itself belong there, and stay there.
func (n *namespace) Do(do func() error) error {
	done := make(chan error)
	go func() {
		runtime.LockOSThread() // for ever: the thread ends with this goroutine, so nobody else gets into the namespace
		done <- func() error {
			handle, err := netns.GetFromName(n.Name)
			if err != nil {
				return fmt.Errorf("namespace %s: %w", n.Name, err)
			}
			defer handle.Close()
			if err := netns.Set(handle); err != nil {
				return fmt.Errorf("namespace %s: %w", n.Name, err)
			}
			return do()
		}()
	}()
	return <-done
}

// Dial connects from the namespace to an address.
func (n *namespace) Dial(ctx context.Context, address netip.AddrPort) (conn net.Conn, err error) {
	err = n.Do(func() error {
		conn, err = new(net.Dialer).DialContext(ctx, "tcp", address.String())
		return err
	})
	return conn, err
}

// Listen listens on an address in the namespace.
func (n *namespace) Listen(ctx context.Context, address netip.AddrPort) (listener net.Listener, err error) {
	err = n.Do(func() error {
		listener, err = new(net.ListenConfig).Listen(ctx, "tcp", address.String())
		return err
	})
	return listener, err
}

// A daemon is a program that runs until it is stopped.
type daemon struct {
	Log string // the file that its output goes to

	t       *testing.T
	process *os.Process
	ended   chan struct{} // closed when it has ended; then err is why
	err     error
	stop    sync.Once
}

// Start starts a daemon that is stopped at the end of the test. Its output goes to a log called name.
func (n *namespace) Start(name string, command *exec.Cmd) *daemon {
	t := n.lab.t
	t.Helper()
	d := &daemon{t: t, Log: filepath.Join(n.lab.logs(), name+".log"), ended: make(chan struct{})}
	log, err := os.OpenFile(d.Log, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o666)
	if err != nil {
		t.Fatal(err)
	}
	defer log.Close()
	command.Stdout, command.Stderr = log, log
	if err := command.Start(); err != nil {
		t.Fatalf("%s: %v", name, err)
	}
	d.process = command.Process
	go d.wait(command)
	t.Cleanup(func() { d.Stop() })
	return d
}

func (d *daemon) wait(command *exec.Cmd) {
	d.err = command.Wait()
	close(d.ended)
}

// until waits for something that will happen unless something is wrong.
func (d *daemon) until(what string, done func() bool) {
	d.t.Helper()
	for deadline := time.Now().Add(hang); !done(); time.Sleep(5 * time.Millisecond) {
		select {
		case <-d.ended:
			d.t.Fatalf("%s: ended (%v) before %s", filepath.Base(d.Log), d.err, what)
		default:
		}
		if time.Now().After(deadline) {
			d.t.Fatalf("not in %v: %s", hang, what)
		}
	}
}

// Signal sends the daemon a signal.
func (d *daemon) Signal(signal os.Signal) {
	d.t.Helper()
	if err := d.process.Signal(signal); err != nil && !errors.Is(err, os.ErrProcessDone) {
		d.t.Error(err)
	}
}

// Stop asks the daemon to end, makes it end if it does not in time, and returns how it ended, as Cmd.Wait does.
func (d *daemon) Stop() error {
	d.stop.Do(func() {
		d.Signal(syscall.SIGTERM)
		select {
		case <-d.ended:
		case <-time.After(hang / 4):
			d.t.Errorf("%s: still running after SIGTERM", filepath.Base(d.Log))
			d.process.Kill()
			<-d.ended
		}
	})
	<-d.ended
	return d.err
}

// alive says whether there is a process with this id that has not ended, though nobody may have waited for it.
func alive(pid int) bool {
	_, state, _ := strings.Cut(string(readAll(fmt.Sprintf("/proc/%d/stat", pid))), ") ")
	return state != "" && state[0] != 'Z'
}
