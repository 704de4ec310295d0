//go:build linux

package integration

import (
	"bufio"
	"context"
	"fmt"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"
)

// The user that every server knows.
const (
	ftpUser     = "ftpuser"
	ftpPassword = "secret-7"
	// ftpPassword as crypt(3) has it
	ftpPasswordHash = "$6$ftpalg$wb2kZYDSG2YkEBhz31joXEVasIzg5lb.qCFP4FOfLa9cgupfuoQ.7pkTO6dX3RV5UhiL2Ce6Yka9KDO8xfrnr1"
)

// A server is one FTP server program at work in a lab, on port 21 of an address of its own in each family. Each family is
// served by its own process; both serve the same directory.
type server struct {
	Name string
	Home string // where ftpUser arrives
	Addr [2]netip.Addr

	missing string // what it lacks to be started
	uid     int    // the owner of the files
	lab     *lab
}

// AddrPort is where the server listens.
func (s *server) AddrPort(f family) netip.AddrPort { return netip.AddrPortFrom(s.Addr[f], 21) }

// A serverKind knows how to start one server program.
type serverKind struct {
	name    string
	program string
	start   func(s *server, f family)
}

var serverKinds = []serverKind{
	{"vsftpd", unpacked("usr/sbin/vsftpd"), startVsftpd},
	{"proftpd", unpacked("usr/sbin/proftpd"), startProftpd},
	{"pureftpd", unpacked("usr/sbin/pure-ftpd"), startPureftpd},
	{"pyftpdlib", "/usr/lib/python3/dist-packages/pyftpdlib/__init__.py", startPyftpdlib},
	{"ftpserverlib", os.Args[0], startFtpserverlib},
}

// startServers starts all servers there are in the lab's server namespace, and returns when they answer. The others are in
// the list too, for runMatrix to skip.
func startServers(t *testing.T, l *lab) []*server {
	t.Helper()
	l.Server.addUsers()
	var servers []*server
	for i, kind := range serverKinds {
		s := &server{Name: kind.name, Home: filepath.Join(l.Dir, kind.name), uid: firstUID + i, lab: l}
		servers = append(servers, s)
		if _, err := os.Stat(kind.program); err != nil {
			s.missing = kind.name + " (see install.sh)"
			continue
		}
		if err := os.Mkdir(s.Home, 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.Chown(s.Home, s.uid, s.uid); err != nil {
			t.Fatal(err)
		}
		for f, address := range serverAddress {
			s.Addr[f] = nth(address.Addr(), i)
			l.Server.AddAddress("eth0", netip.PrefixFrom(s.Addr[f], address.Bits()))
			s.useOwnAddress(family(f), i)
		}
		kind.start(s, v4)
		kind.start(s, v6)
	}
	for _, s := range servers {
		for _, f := range families {
			if s.missing == "" {
				s.await(t, f)
			}
		}
	}
	return servers
}

// nth is the address of server number i, where base is the address of its namespace.
func nth(base netip.Addr, i int) netip.Addr {
	bytes := base.AsSlice()
	bytes[len(bytes)-1] = byte(0x10 + i)
	address, _ := netip.AddrFromSlice(bytes)
	return address
}

// useOwnAddress makes connections that the server's user opens come from the server's address, even if the server does not
// say so. That is so with ftpserverlib in active mode: it lets the kernel choose.
func (s *server) useOwnAddress(f family, i int) {
	s.lab.t.Helper()
	uid, table := fmt.Sprintf("%d-%d", s.uid, s.uid), strconv.Itoa(100+i)
	protocol := [...]string{"-4", "-6"}[f]
	for _, args := range [][]string{
		{"rule", "add", "uidrange", uid, "lookup", table},
		{"route", "add", "default", "via", serverGateway[f].Addr().String(), "dev", "eth0", "src", s.Addr[f].String(), "table", table},
	} {
		s.lab.Server.must("ip", append([]string{protocol}, args...)...)
	}
}

// await returns when the server has greeted a client.
func (s *server) await(t *testing.T, f family) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), hang)
	defer cancel()
	for {
		greeting, err := s.greeting(ctx, f)
		if strings.HasPrefix(greeting, "220") {
			return
		}
		if ctx.Err() != nil {
			t.Fatalf("%s does not answer over %s: %q, %v", s.Name, f, greeting, err)
		}
		time.Sleep(10 * time.Millisecond) // between two attempts
	}
}

func (s *server) greeting(ctx context.Context, f family) (string, error) {
	conn, err := s.lab.Client.Dial(ctx, s.AddrPort(f))
	if err != nil {
		return "", err
	}
	defer conn.Close()
	deadline, _ := ctx.Deadline()
	conn.SetDeadline(deadline)
	return bufio.NewReader(conn).ReadString('\n')
}

// run starts a program of the server for one family.
func (s *server) run(f family, program string, args ...string) {
	s.start(f, s.lab.Server.Command(context.Background(), program, args...))
}

func (s *server) start(f family, command *exec.Cmd) {
	s.lab.Server.Start(s.Name+"-"+f.String(), command)
}

// write writes a file of the server's configuration for one family and returns its path.
func (s *server) write(f family, name, text string) string {
	path := filepath.Join(s.lab.Dir, fmt.Sprintf("%s-%s.%s", s.Name, f, name))
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		s.lab.t.Fatal(err)
	}
	return path
}

// passwd is a line of a file in the format of passwd(5), in which some servers keep users of their own.
func (s *server) passwd() string {
	return fmt.Sprintf("%s:%s:%d:%d::%s:/bin/sh\n", ftpUser, ftpPasswordHash, s.uid, s.uid, s.Home)
}

// firstUID is the user id of the first server. The ids are below those of systemd's dynamic users.
const firstUID = 60500

// addUsers adds ftpUser to the users that programs in the namespace know, as vsftpd's user.
func (n *namespace) addUsers() {
	system := "root:%[1]s:0:0:root:/root:/bin/sh\nnobody:%[1]s:65534:65534:nobody:/nonexistent:/bin/sh\n"
	n.overlay("passwd", fmt.Sprintf(system, "x")+fmt.Sprintf("%s:x:%d:%[2]d::/:/bin/sh\n", ftpUser, firstUID))
	n.overlay("group", fmt.Sprintf("root:x:0:\nnogroup:x:65534:\nshadow:x:42:\n%s:x:%d:\n", ftpUser, firstUID))
	n.overlay("shadow", fmt.Sprintf("%s:%s:19000:0:99999:7:::\n", ftpUser, ftpPasswordHash))
	n.overlay("pam.d/vsftpd", "auth required pam_unix.so\naccount required pam_unix.so\n")
}
