package firewall

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"runtime"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// lab is three network namespaces in a row, with addresses in both families: client - firewall - server. The
// firewall forwards, but drops by default, and lets in only what String advises. The server runs a real server on
// ports 21, 2021 and 2121 that says "server".
type lab struct {
	t                        *testing.T
	client, firewall, server namespace
}

// places are the addresses of a lab in one family.
type places struct{ client, inner, outer, server netip.Addr }

func bothFamilies() map[string]places {
	a := netip.MustParseAddr
	return map[string]places{
		"v4": {a("10.1.0.2"), a("10.1.0.1"), a("10.2.0.1"), a("10.2.0.2")},
		"v6": {a("fd01::2"), a("fd01::1"), a("fd02::1"), a("fd02::2")},
	}
}

// namespace is a network namespace without a name. It lasts while the file is open, or anything is in it.
type namespace struct{ file *os.File }

// newNamespace makes a namespace and enters it. IPv6 addresses in it are of use at once: an interface whose own, of its link, is not yet
// cannot ask who has another, so that for two seconds there would be no way for packets that are passed on.
func newNamespace(t *testing.T) namespace {
	enterNamespace(t)
	for _, conf := range []string{"all", "default"} {
		if err := os.WriteFile("/proc/sys/net/ipv6/conf/"+conf+"/accept_dad", []byte("0"), 0); err != nil {
			t.Fatal(err)
		}
	}
	file, err := os.Open(fmt.Sprintf("/proc/self/task/%d/ns/net", unix.Gettid()))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { file.Close() })
	return namespace{file}
}

// newLab makes a lab. The calling goroutine is then in the firewall, on a thread of its own.
func newLab(t *testing.T) *lab {
	l := &lab{t: t, client: newNamespace(t), server: newNamespace(t), firewall: newNamespace(t)}
	link := func(name string, peer namespace) {
		pair := &netlink.Veth{LinkAttrs: netlink.LinkAttrs{Name: name}, PeerName: "eth0", PeerNamespace: netlink.NsFd(peer.file.Fd())}
		if err := netlink.LinkAdd(pair); err != nil {
			t.Fatal(err)
		}
	}
	link("inner", l.client)
	link("outer", l.server)
	sh(t, `
		ip addr add 10.1.0.1/24 dev inner; ip addr add fd01::1/64 dev inner; ip link set inner up
		ip addr add 10.2.0.1/24 dev outer; ip addr add fd02::1/64 dev outer; ip link set outer up
		echo 1 >/proc/sys/net/ipv4/ip_forward
		echo 1 >/proc/sys/net/ipv6/conf/all/forwarding
		for i in all inner outer; do echo 1 >/proc/sys/net/ipv4/conf/$i/rp_filter; done
		nft 'table inet filter {
			chain forward { type filter hook forward priority 0; policy drop; tcp dport 2121 accept; ct state established accept; }
			chain input {
				type filter hook input priority 0; policy drop;
				ct state established accept
				icmpv6 type { nd-neighbor-solicit, nd-neighbor-advert } accept
				meta mark 0x67 accept
				ct status dnat accept
				ip daddr 10.1.0.1 tcp dport 21 accept comment "its own service"
				ip6 daddr fd01::1 tcp dport 21 accept comment "its own service"
			}
		}'`)
	l.in(l.client, func() {
		sh(t, `
			ip addr add 10.1.0.2/24 dev eth0; ip addr add fd01::2/64 dev eth0; ip link set eth0 up
			ip route add default via 10.1.0.1; ip route add default via fd01::1`)
	})
	l.in(l.server, func() {
		sh(t, `
			ip addr add 10.2.0.2/24 dev eth0; ip addr add fd02::2/64 dev eth0; ip link set eth0 up
			ip route add default via 10.2.0.1; ip route add default via fd02::1`)
		for _, port := range []string{"21", "2121", "2021"} {
			l.greet("server", l.listen("[::]:"+port, nil))
		}
	})
	return l
}

// run runs a subtest for each family, each in the firewall on a thread of its own.
func (l *lab) run(test func(*lab, places)) {
	for name, at := range bothFamilies() {
		l.t.Run(name, func(t *testing.T) {
			runtime.LockOSThread() // and never unlocked, so that the thread ends
			sub := *l
			sub.t = t
			sub.in(l.firewall, func() { test(&sub, at) })
		})
	}
}

// in calls f in a namespace, then goes back into the firewall.
func (l *lab) in(n namespace, f func()) {
	l.t.Helper()
	enter := func(n namespace) {
		if err := unix.Setns(int(n.file.Fd()), unix.CLONE_NEWNET); err != nil {
			l.t.Fatal(err)
		}
	}
	enter(n)
	defer enter(l.firewall)
	f()
}

// plan is a plan with one listener that takes port 21.
func (l *lab) plan(kind Kind, address string) Plan {
	return Plan{Mark: 0x66, DivertMark: 0x67, RouteTable: 102, Intercepts: []Intercept{{
		Name: "lab", Kind: kind, Address: netip.MustParseAddrPort(address), Ports: []PortRange{{21, 21}},
		DataPorts: PortRange{50000, 50009},
	}}}
}

// patience is how long a test waits for what a packet that was lost would have brought. No success depends on it.
const patience = 20 * time.Second

// option is a setting of a socket before it is used.
type option func(fd int) error

// transparentSocket lets a socket use addresses that are not this machine's.
func transparentSocket(fd int) error {
	// Setting it for IPv4 sets it for both, if the socket can do both.
	err := unix.SetsockoptInt(fd, unix.SOL_IP, unix.IP_TRANSPARENT, 1)
	if err != nil {
		err = unix.SetsockoptInt(fd, unix.SOL_IPV6, unix.IPV6_TRANSPARENT, 1)
	}
	return err
}

func socketMark(mark int) option {
	return func(fd int) error { return unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_MARK, mark) }
}

func sendBuffer(bytes int) option {
	return func(fd int) error { return unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_SNDBUFFORCE, bytes) }
}

// control applies options, in the form that package net asks for.
func control(options []option) func(network, address string, c syscall.RawConn) error {
	return func(_, _ string, c syscall.RawConn) error {
		var errs []error
		err := c.Control(func(fd uintptr) {
			for _, set := range options {
				if set != nil {
					errs = append(errs, set(int(fd)))
				}
			}
		})
		return errors.Join(append(errs, err)...)
	}
}

// listen listens in the current namespace, until the test ends.
func (l *lab) listen(address string, options ...option) *net.TCPListener {
	l.t.Helper()
	config := net.ListenConfig{Control: control(options)}
	listener, err := config.Listen(context.Background(), "tcp", address)
	if err != nil {
		l.t.Fatal(err)
	}
	l.t.Cleanup(func() { listener.Close() })
	return listener.(*net.TCPListener)
}

// greet answers every connection with a line: who it is, the server's address as the connection has it, and the
// client's address without port. The goroutine ends with the listener.
func (l *lab) greet(who string, listener *net.TCPListener) {
	var done sync.WaitGroup
	done.Go(func() {
		for {
			c, err := listener.AcceptTCP()
			if err != nil {
				return
			}
			to := c.LocalAddr().(*net.TCPAddr).AddrPort()
			if original, err := originalDestination(c); err == nil {
				to = original
			}
			from := c.RemoteAddr().(*net.TCPAddr).AddrPort().Addr().Unmap()
			fmt.Fprintf(c, "%s at %s for %s\n", who, netip.AddrPortFrom(to.Addr().Unmap(), to.Port()), from)
			c.Close()
		}
	})
	l.t.Cleanup(func() { listener.Close(); done.Wait() })
}

// originalDestination is where a connection went before NAT. It is an error if there was none.
func originalDestination(c *net.TCPConn) (netip.AddrPort, error) {
	raw, err := c.SyscallConn()
	if err != nil {
		return netip.AddrPort{}, err
	}
	var to netip.AddrPort
	controlErr := raw.Control(func(fd uintptr) {
		if c.LocalAddr().(*net.TCPAddr).IP.To4() != nil {
			var mreq *unix.IPv6Mreq // of the right size for a sockaddr_in
			if mreq, err = unix.GetsockoptIPv6Mreq(int(fd), unix.SOL_IP, 80); err == nil {
				b := mreq.Multiaddr
				to = netip.AddrPortFrom(netip.AddrFrom4([4]byte(b[4:8])), uint16(b[2])<<8|uint16(b[3]))
			}
			return
		}
		var info *unix.IPv6MTUInfo // begins with a sockaddr_in6
		if info, err = unix.GetsockoptIPv6MTUInfo(int(fd), unix.SOL_IPV6, 80); err == nil {
			port := info.Addr.Port
			to = netip.AddrPortFrom(netip.AddrFrom16(info.Addr.Addr), port<<8|port>>8)
		}
	})
	return to, errors.Join(err, controlErr)
}

// dial connects from the current namespace. from is the source address; the zero Addr is any.
func (l *lab) dial(from netip.Addr, to netip.AddrPort, options ...option) (net.Conn, error) {
	dialer := net.Dialer{Control: control(options), Timeout: patience}
	if from.IsValid() {
		dialer.LocalAddr = net.TCPAddrFromAddrPort(netip.AddrPortFrom(from, 0))
	}
	return dialer.Dial("tcp", to.String())
}

// hears dials a port from an address in the current namespace, and fails the test unless it is greeted by who.
func (l *lab) hears(who string, from, to netip.Addr, port uint16, options ...option) {
	l.t.Helper()
	server := netip.AddrPortFrom(to, port)
	c, err := l.dial(from, server, options...)
	if err != nil {
		l.t.Errorf("dial %s at %s: %v", who, server, err)
		return
	}
	defer c.Close()
	c.SetDeadline(time.Now().Add(patience))
	line, err := bufio.NewReader(c).ReadString('\n')
	if want := fmt.Sprintf("%s at %s for %s\n", who, server, from); line != want {
		l.t.Errorf("heard %q, %v; want %q", line, err, want)
	}
}

// asUser calls f on this thread with another user's id for what it creates, so that its sockets are that user's.
func asUser(uid int, f func()) {
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	unix.RawSyscall(unix.SYS_SETFSUID, uintptr(uid), 0, 0)
	defer unix.RawSyscall(unix.SYS_SETFSUID, 0, 0, 0)
	f()
}
