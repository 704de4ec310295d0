//go:build linux

package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"runtime"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/vishvananda/netns"
)

const (
	patience   = time.Minute  // for whatever takes milliseconds, unless something is wrong
	namespaces = "/run/netns" // where ip keeps the namespaces it has named
)

// Ports of the server, and the interfaces that every firewall has.
const (
	ftpPort    = 21
	relayPort  = 9443
	clientSide = "client"
	serverSide = "server"
)

// serverName is the name in the server's certificate, and what TLS clients ask for.
const serverName = "ftp.bench.example"

// A lab is a client's and a server's network namespace, and between them as many firewalls as there are subjects, each with
// networks of its own on both sides: so all of them are there at once, and none sees another's rules or connections.
type lab struct {
	// Dir is a scratch directory that every user may enter.
	Dir string
	// PEM files of the server's certificate (for serverName and all addresses of the server), its key, and who signed it.
	Cert, Key, Authority string

	name           string
	client, server string // namespaces
	ctx            context.Context
	starts         chan func() // to starter

	mu    sync.Mutex
	used  int // firewalls so far
	later []func()
}

// newLab makes a lab without firewalls. What runs in it ends with ctx. Close it even on error.
func newLab(ctx context.Context) (*lab, error) {
	removeStale()
	l := &lab{name: fmt.Sprintf("ftpalg-bench-%d", os.Getpid()), ctx: ctx, starts: make(chan func())}
	go l.starter()
	l.Dir = filepath.Join(os.TempDir(), l.name)
	if err := os.Mkdir(l.Dir, 0o755); err != nil {
		return l, err
	}
	l.defers(func() { os.RemoveAll(l.Dir) })
	if err := l.makeCertificates(); err != nil {
		return l, fmt.Errorf("make certificates: %w", err)
	}
	var err error
	if l.client, err = l.newNamespace("client"); err != nil {
		return l, err
	}
	if l.server, err = l.newNamespace("server"); err != nil {
		return l, err
	}
	for _, end := range []string{l.client, l.server} {
		// The search for a free port takes milliseconds once a quarter of all are in TIME_WAIT, after so many connections as
		// the ends have in seconds. Without most of these the ends cost the same from beginning to end. Firewalls keep theirs:
		// what a proxy pays for them is its own.
		err = errors.Join(err, sysctl(end, "net/ipv4/tcp_max_tw_buckets", "1024"))
	}
	return l, err
}

func (l *lab) defers(f func()) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.later = append(l.later, f)
}

// Close ends all processes of the lab and removes it.
func (l *lab) Close() {
	for i := len(l.later) - 1; i >= 0; i-- {
		l.later[i]()
	}
	close(l.starts)
}

// starter starts processes, which are to end with the thread that started them: so that is one that stays.
func (l *lab) starter() {
	runtime.LockOSThread()
	for start := range l.starts {
		start()
	}
}

func (l *lab) newNamespace(role string) (string, error) {
	name := l.name + "-" + role
	if err := run("ip", "netns", "add", name); err != nil {
		return "", err
	}
	l.defers(func() { removeNamespace(name) })
	return name, errors.Join(
		run("ip", "-n", name, "link", "set", "lo", "up"),
		// The kernel's own defaults, whatever the host's are; and room for more connections than there are default ports, the
		// same for everybody: a listener's port is not among them.
		sysctl(name, "net/ipv4/conf/all/rp_filter", "0"), sysctl(name, "net/ipv4/conf/default/rp_filter", "0"),
		sysctl(name, "net/ipv4/ip_local_port_range", "10240 65535"),
		sysctl(name, "net/ipv4/tcp_tw_reuse", "1"),
		sysctl(name, "net/ipv4/tcp_max_syn_backlog", "8192"),
		sysctl(name, "net/core/somaxconn", "8192"),
	)
}

// clientHosts is the number of addresses that clients come from, since one has not ports enough.
const clientHosts = 8

// A firewall is a namespace that routes between the client and the server. Its interfaces are called clientSide and
// serverSide.
type firewall struct {
	// Name is that of the network namespace.
	Name string
	// Dir is a scratch directory that every user may enter.
	Dir string
	// Clients are the addresses that clients come from, in the network ClientNet.
	Clients   []netip.Addr
	ClientNet netip.Prefix
	// ClientSide and ServerSide are the firewall's own addresses.
	ClientSide, ServerSide netip.Addr
	// Server is the server's FTP port, and Relay its port for bare TLS.
	Server, Relay netip.AddrPort

	*lab
	link string // the name of the ends' interfaces in their namespaces
}

// newFirewall makes a firewall. The networks are of the range for benchmarks (RFC 2544, appendix C.2.2).
func (l *lab) newFirewall(subject string) (*firewall, error) {
	l.mu.Lock()
	i := l.used
	l.used++
	l.mu.Unlock()
	if i > 255 {
		return nil, errors.New("there are no addresses for more than 256 firewalls; take fewer rounds")
	}
	at := func(second, last byte) netip.Addr { return netip.AddrFrom4([4]byte{198, second, byte(i), last}) }
	f := &firewall{lab: l, link: fmt.Sprintf("fw%d", i),
		ClientNet: netip.PrefixFrom(at(18, 0), 24), ClientSide: at(18, 1), ServerSide: at(19, 1),
		Server: netip.AddrPortFrom(at(19, 2), ftpPort), Relay: netip.AddrPortFrom(at(19, 2), relayPort)}
	for h := range byte(clientHosts) {
		f.Clients = append(f.Clients, at(18, 10+h))
	}
	f.Dir = filepath.Join(l.Dir, fmt.Sprintf("%d-%s", i, subject))
	err := os.Mkdir(f.Dir, 0o755)
	if err == nil {
		f.Name, err = l.newNamespace(fmt.Sprintf("%d-%s", i, subject))
	}
	if err != nil {
		return nil, err
	}
	for _, end := range []struct {
		namespace, side string
		gateway         netip.Addr
		own             []netip.Addr
		far             netip.Prefix
	}{
		{l.client, clientSide, f.ClientSide, f.Clients, netip.PrefixFrom(at(19, 0), 24)},
		{l.server, serverSide, f.ServerSide, []netip.Addr{f.Server.Addr()}, f.ClientNet},
	} {
		err = errors.Join(err,
			run("ip", "-n", f.Name, "link", "add", end.side, "type", "veth", "peer", "name", f.link, "netns", end.namespace),
			run("ip", "-n", f.Name, "address", "add", end.gateway.String()+"/24", "dev", end.side))
		for _, a := range end.own {
			err = errors.Join(err, run("ip", "-n", end.namespace, "address", "add", a.String()+"/24", "dev", f.link))
		}
		err = errors.Join(err,
			run("ip", "-n", f.Name, "link", "set", end.side, "up"),
			run("ip", "-n", end.namespace, "link", "set", f.link, "up"),
			run("ip", "-n", end.namespace, "route", "add", end.far.String(), "via", end.gateway.String()))
	}
	return f, errors.Join(err, sysctl(f.Name, "net/ipv4/ip_forward", "1"))
}

// remove ends what runs on the firewall and removes it.
func (f *firewall) remove() { removeNamespace(f.Name) }

// Run runs a program on the firewall that ends by itself. An error has what it said.
func (f *firewall) Run(program string, args ...string) error {
	return run("ip", append([]string{"netns", "exec", f.Name, program}, args...)...)
}

// Nft applies nft's rules to the firewall.
func (f *firewall) Nft(rules string) error {
	file, err := f.File("rules.nft", rules)
	if err != nil {
		return err
	}
	return f.Run("nft", "-f", file)
}

// File writes a file that everybody may read to Dir, and returns its path.
func (f *firewall) File(name, content string) (string, error) {
	path := filepath.Join(f.Dir, name)
	return path, os.WriteFile(path, []byte(content), 0o644)
}

// Command is a program for Start, which runs in Dir and in the foreground. Its environment is clean; add to it.
func (f *firewall) Command(program string, args ...string) *exec.Cmd {
	return f.command(f.Name, f.Dir, program, args...)
}

// Start starts a program that goes on until the firewall is removed. Its standard output and error go to the file NAME.log in
// Dir, unless the command has its own.
func (f *firewall) Start(name string, command *exec.Cmd) (*process, error) {
	return f.start(filepath.Join(f.Dir, name+".log"), command)
}

// AwaitPort returns when somebody listens on an address of the firewall, or with the process's last words if it ends before.
func (f *firewall) AwaitPort(p *process, at netip.AddrPort) error {
	return p.await(fmt.Sprintf("somebody listens on %v", at), func() bool {
		conn, err := f.dial(at)
		if err == nil {
			conn.Close()
		}
		return err == nil
	})
}

// dial connects from the firewall.
func (f *firewall) dial(at netip.AddrPort) (conn net.Conn, err error) {
	err = inNamespace(f.Name, func() error {
		conn, err = net.DialTimeout("tcp", at.String(), patience)
		return err
	})
	return conn, err
}

// AwaitGreeting returns when a client that connects to an address is greeted with 220, or with the process's last words if it
// ends before.
func (f *firewall) AwaitGreeting(p *process, at netip.AddrPort) error {
	return p.await(fmt.Sprintf("clients are greeted at %v", at), func() bool {
		greeting := make([]byte, 4)
		err := inNamespace(f.client, func() error {
			conn, err := net.DialTimeout("tcp", at.String(), time.Second)
			if err != nil {
				return err
			}
			defer conn.Close()
			conn.SetDeadline(time.Now().Add(time.Second))
			_, err = io.ReadFull(conn, greeting)
			return err
		})
		return err == nil && string(greeting) == "220 "
	})
}

// command is a program for start, in a namespace.
func (l *lab) command(namespace, dir, program string, args ...string) *exec.Cmd {
	command := exec.CommandContext(l.ctx, "ip", append([]string{"netns", "exec", namespace, program}, args...)...)
	command.Dir = dir
	command.Env = []string{"PATH=" + os.Getenv("PATH"), "HOME=" + dir, "LC_ALL=C.UTF-8"}
	// If we are killed, nothing stays behind. ip becomes the program, which keeps the wish.
	command.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	return command
}

// A process is a program that runs until it is ended.
type process struct {
	Pid int
	// Log is the file that its output goes to.
	Log string

	ended chan struct{} // closed when it has; then err is how
	err   error
}

func (l *lab) start(log string, command *exec.Cmd) (*process, error) {
	p := &process{Log: log, ended: make(chan struct{})}
	file, err := os.Create(log)
	if err != nil {
		return nil, err
	}
	defer file.Close()
	if command.Stdout == nil {
		command.Stdout = file
	}
	if command.Stderr == nil {
		command.Stderr = file
	}
	started := make(chan error)
	l.starts <- func() { started <- command.Start() }
	if err := <-started; err != nil {
		return nil, err
	}
	p.Pid = command.Process.Pid
	go p.wait(command)
	l.defers(p.kill)
	return p, nil
}

func (p *process) wait(command *exec.Cmd) {
	p.err = command.Wait()
	close(p.ended)
}

func (p *process) kill() {
	select {
	case <-p.ended:
	default:
		syscall.Kill(p.Pid, syscall.SIGKILL)
		<-p.ended
	}
}

// Await returns when the process's log has some words, or with its last words if it ends before.
func (p *process) Await(words string) error {
	return p.await(fmt.Sprintf("its log has %q", words), func() bool {
		said, _ := os.ReadFile(p.Log)
		return strings.Contains(string(said), words)
	})
}

func (p *process) await(what string, done func() bool) error {
	for deadline := time.Now().Add(patience); !done(); time.Sleep(5 * time.Millisecond) {
		select {
		case <-p.ended:
			return fmt.Errorf("it ended (%v) before %s: %s", p.err, what, p.lastWords())
		default:
		}
		if time.Now().After(deadline) {
			return fmt.Errorf("not in %v: %s: %s", patience, what, p.lastWords())
		}
	}
	return nil
}

// lastWords is the end of the log.
func (p *process) lastWords() string {
	const end = 1000 // bytes
	said, _ := os.ReadFile(p.Log)
	return strings.TrimSpace(string(said[max(0, len(said)-end):]))
}

// run runs a program that ends by itself. An error has what it said.
func run(program string, args ...string) error {
	command := exec.Command(program, args...)
	if said, err := command.CombinedOutput(); err != nil {
		return fmt.Errorf("%s: %w: %s", strings.Join(command.Args, " "), err, strings.TrimSpace(string(said)))
	}
	return nil
}

func sysctl(namespace, key, value string) error {
	return inNamespace(namespace, func() error { return os.WriteFile("/proc/sys/"+key, []byte(value), 0) })
}

// inNamespace calls a function on a thread that is in a namespace: sockets that it opens itself belong there, and stay there.
func inNamespace(name string, do func() error) error {
	done := make(chan error)
	go func() {
		runtime.LockOSThread() // for ever: the thread ends with this goroutine, so nobody else gets into the namespace
		done <- func() error {
			handle, err := netns.GetFromName(name)
			if err != nil {
				return fmt.Errorf("namespace %s: %w", name, err)
			}
			defer handle.Close()
			if err := netns.Set(handle); err != nil {
				return fmt.Errorf("namespace %s: %w", name, err)
			}
			return do()
		}()
	}()
	return <-done
}

// removeNamespace ends all processes in a namespace and removes it.
func removeNamespace(name string) {
	for range 500 {
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
	run("ip", "netns", "del", name)
}

// removeStale removes what labs of dead processes have left.
func removeStale() {
	ours := regexp.MustCompile(`^ftpalg-bench-(\d+)(-.*)?$`)
	for _, dir := range []string{namespaces, os.TempDir()} {
		entries, _ := os.ReadDir(dir)
		for _, entry := range entries {
			match := ours.FindStringSubmatch(entry.Name())
			if match == nil {
				continue
			}
			if pid, err := strconv.Atoi(match[1]); err != nil || !errors.Is(syscall.Kill(pid, 0), syscall.ESRCH) {
				continue
			}
			if dir == namespaces {
				removeNamespace(entry.Name())
			} else {
				os.RemoveAll(filepath.Join(dir, entry.Name()))
			}
		}
	}
}
