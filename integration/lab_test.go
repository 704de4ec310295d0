//go:build linux

package integration

import (
	"context"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"regexp"
	"strconv"
	"sync/atomic"
	"testing"
	"time"
)

// A family is an IP version: an index into pairs of addresses, and a part of a test's name.
type family int

const (
	v4 family = iota
	v6
)

var families = []family{v4, v6}

func (f family) String() string { return [...]string{"v4", "v6"}[f] }

// The addresses of the lab. All labs have the same ones, since they cannot see each other.
var (
	clientAddress = [2]netip.Prefix{netip.MustParsePrefix("192.0.2.2/24"), netip.MustParsePrefix("fd00:c::2/64")}
	clientGateway = [2]netip.Prefix{netip.MustParsePrefix("192.0.2.1/24"), netip.MustParsePrefix("fd00:c::1/64")}
	serverGateway = [2]netip.Prefix{netip.MustParsePrefix("198.51.100.1/24"), netip.MustParsePrefix("fd00:5::1/64")}
	// The server namespace's own address, from which nothing should ever come: each server has another.
	serverAddress = [2]netip.Prefix{netip.MustParsePrefix("198.51.100.2/24"), netip.MustParsePrefix("fd00:5::2/64")}
)

// A lab is three network namespaces in a row: client, firewall, server. The firewall routes between the other two. It lets
// everything pass until DropForward.
type lab struct {
	Client, Firewall, Server *namespace

	// Dir is a scratch directory that every user may enter, since servers run as several.
	Dir string

	// pureTLS is what Pure-FTPd demands of TLS, by family (its --tls): 1 nothing, 2 that logins have it, 3 that data has it too.
	pureTLS [2]string

	t *testing.T
}

// labs counts the labs of this process, for their names.
var labs atomic.Int32

// The firewall's interfaces.
const (
	clientSide = "client"
	serverSide = "server"
)

// newLab builds a lab that lives as long as t. When t fails, what the programs started in it have said is logged and kept
// with t's artifacts.
func newLab(t *testing.T) *lab {
	t.Helper()
	need(t, "ip")
	removeStale()

	name := fmt.Sprintf("ftpalg-%d-%d", os.Getpid(), labs.Add(1))
	l := &lab{t: t, Dir: filepath.Join(os.TempDir(), name)}
	for _, dir := range []string{l.Dir, l.logs()} {
		if err := os.Mkdir(dir, 0o755); err != nil {
			t.Fatal(err)
		}
	}
	t.Cleanup(func() { os.RemoveAll(l.Dir) })
	t.Cleanup(l.keepLogs)

	l.Client = l.newNamespace(name + "-client")
	l.Firewall = l.newNamespace(name + "-firewall")
	l.Server = l.newNamespace(name + "-server")
	l.join(l.Client, clientAddress, clientSide, clientGateway)
	l.join(l.Server, serverAddress, serverSide, serverGateway)
	l.Firewall.sysctl("net/ipv4/ip_forward", "1")
	l.Firewall.sysctl("net/ipv6/conf/all/forwarding", "1")
	for _, f := range families {
		l.awaitPath(f)
	}
	return l
}

// awaitPath returns when connections get through: new interfaces take their time, in IPv6 above all.
func (l *lab) awaitPath(f family) {
	l.t.Helper()
	ctx, cancel := context.WithTimeout(l.t.Context(), hang)
	defer cancel()
	listener, err := l.Server.Listen(ctx, netip.AddrPortFrom(serverAddress[f].Addr(), 0))
	if err != nil {
		l.t.Fatal(err)
	}
	defer listener.Close()
	at := netip.MustParseAddrPort(listener.Addr().String())
	for {
		attempt, cancel := context.WithTimeout(ctx, 100*time.Millisecond)
		conn, err := l.Client.Dial(attempt, at)
		cancel()
		if err == nil {
			conn.Close()
			return
		}
		if ctx.Err() != nil {
			l.t.Fatalf("no path from client to server over %s: %v", f, err)
		}
	}
}

// join connects a namespace to the firewall, which becomes its way to everywhere.
func (l *lab) join(n *namespace, address [2]netip.Prefix, side string, gateway [2]netip.Prefix) {
	l.t.Helper()
	l.Firewall.ip("link", "add", side, "type", "veth", "peer", "name", "eth0", "netns", n.Name)
	for f := range families {
		n.AddAddress("eth0", address[f])
		l.Firewall.AddAddress(side, gateway[f])
	}
	n.ip("link", "set", "eth0", "up")
	l.Firewall.ip("link", "set", side, "up")
	for f := range families {
		n.ip("route", "add", "default", "via", gateway[f].Addr().String())
	}
}

// DropForward makes the firewall forward nothing more. What still arrives on the other side has gone through a program on
// the firewall, or a rule that came before.
func (l *lab) DropForward() {
	l.t.Helper()
	need(l.t, "nft")
	l.Firewall.must("nft", "add table inet lab; add chain inet lab forward { type filter hook forward priority 0; policy drop; }")
}

// ForwardRelated is DropForward, but for what belongs to connections that were let in, as every stateful firewall has it.
func (l *lab) ForwardRelated() {
	l.t.Helper()
	l.DropForward()
	l.Firewall.must("nft", "add rule inet lab forward ct state established,related accept")
}

func (l *lab) logs() string { return filepath.Join(l.Dir, "logs") }

// keepLogs shows the end of every log of a failed test, and keeps the whole.
func (l *lab) keepLogs() {
	if !l.t.Failed() {
		return
	}
	files, _ := filepath.Glob(filepath.Join(l.logs(), "*"))
	for _, file := range files {
		keep(l.t, filepath.Base(file), readAll(file))
	}
}

// keep saves text among t's artifacts and logs its end.
func keep(t *testing.T, name string, text []byte) {
	const end = 4000 // bytes; enough to see what happened last
	os.WriteFile(filepath.Join(t.ArtifactDir(), name), text, 0o644)
	if len(text) == 0 {
		return
	}
	if len(text) > end {
		text = append([]byte("[…]"), text[len(text)-end:]...)
	}
	t.Logf("%s:\n%s", name, text)
}

func readAll(file string) []byte {
	text, err := os.ReadFile(file)
	if err != nil {
		return []byte(err.Error())
	}
	return text
}

// removeStale removes what labs of dead processes have left.
func removeStale() {
	ours := regexp.MustCompile(`^ftpalg-(\d+)-\d+(-[a-z]+)?$`)
	for _, dir := range []string{namespaces, os.TempDir()} {
		entries, _ := os.ReadDir(dir)
		for _, entry := range entries {
			match := ours.FindStringSubmatch(entry.Name())
			if match == nil {
				continue
			}
			pid, err := strconv.Atoi(match[1])
			if err != nil || alive(pid) {
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
