//go:build linux

package integration

import (
	"bufio"
	"context"
	"crypto/tls"
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

// A server is one FTP server program at work in a lab, at an address of its own in each family. All its doors lead to the
// same directory.
type server struct {
	Name string
	Home string // where ftpUser arrives
	Addr [2]netip.Addr

	missing     string // what it lacks to be started
	uid         int    // the owner of the files
	lab         *lab
	root        *authority // has signed the certificate; nil: it has no TLS
	certificate string     // the file of certificate and key
}

// AddrPort is where the server listens for clients that begin in the clear.
func (s *server) AddrPort(f family) netip.AddrPort { return door{server: s, family: f}.addrPort() }

// A door is where a server takes connections, in a process of its own: port 21 of an address, or port 990, where TLS is
// implicit.
type door struct {
	*server
	family   family
	implicit bool
}

// ports are those of doors without implicit TLS and with it.
var ports = map[bool]uint16{false: 21, true: 990}

func (d door) addrPort() netip.AddrPort {
	return netip.AddrPortFrom(d.Addr[d.family], ports[d.implicit])
}

// String names the door in names of files.
func (d door) String() string {
	if d.implicit {
		return d.Name + "-" + d.family.String() + "-implicit"
	}
	return d.Name + "-" + d.family.String()
}

// A serverKind knows how to start one server program.
type serverKind struct {
	name    string
	program string
	start   func(door)

	forTLS   string // a file that it needs for TLS besides, if any
	implicit bool   // whether it can do implicit TLS
	rsa      bool   // its certificate has an RSA key; otherwise ECDSA
}

var serverKinds = []serverKind{
	{
		name: "vsftpd", program: unpacked("usr/sbin/vsftpd"), start: startVsftpd,
		implicit: true, rsa: true,
	},
	{
		name: "proftpd", program: unpacked("usr/sbin/proftpd"), start: startProftpd,
		forTLS: unpacked("usr/lib/proftpd/mod_tls.so"), implicit: true,
	},
	{name: "pureftpd", program: unpacked("usr/sbin/pure-ftpd"), start: startPureftpd},
	{
		name: "pyftpdlib", program: "/usr/lib/python3/dist-packages/pyftpdlib/__init__.py", start: startPyftpdlib,
		forTLS: "/usr/lib/python3/dist-packages/OpenSSL/__init__.py", implicit: true, rsa: true,
	},
	{name: "ftpserverlib", program: os.Args[0], start: startFtpserverlib, implicit: true},
}

// startServers starts all servers there are in the lab's server namespace, and returns when they answer. The others are in
// the list too, for runMatrix to skip.
func startServers(t *testing.T, l *lab) []*server {
	t.Helper()
	return startServersWith(t, l, nil, serverKinds)
}

// startServer starts the first server there is a kind of, for tests that need no more. The test is over if it is missing.
func startServer(t *testing.T, l *lab, root *authority) *server {
	t.Helper()
	s := startServersWith(t, l, root, serverKinds[:1])[0]
	if s.missing != "" {
		lack(t, s.missing)
	}
	return s
}

// startTLSServers is startServers with certificates that an authority signs. On port 21 clients may use TLS, and need not;
// on port 990 it is implicit, where the server can do that.
func startTLSServers(t *testing.T, l *lab, root *authority) []*server {
	t.Helper()
	if l.pureTLS == [2]string{} {
		l.pureTLS = [2]string{v4: "1", v6: "2"}
	}
	return startServersWith(t, l, root, serverKinds)
}

func startServersWith(t *testing.T, l *lab, root *authority, kinds []serverKind) []*server {
	t.Helper()
	l.Server.addUsers()
	var servers []*server
	var doors []door
	for i, kind := range kinds {
		s := &server{Name: kind.name, Home: filepath.Join(l.Dir, kind.name), uid: firstUID + i, lab: l, root: root}
		servers = append(servers, s)
		_, err := os.Stat(kind.program)
		if err == nil && root != nil && kind.forTLS != "" {
			_, err = os.Stat(kind.forTLS)
		}
		if err != nil {
			s.missing = fmt.Sprintf("%s (see install.sh): %v", kind.name, err)
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
		if root != nil {
			s.certificate = root.issue(s.Name, kind.rsa, s.Addr[:]...)
		}
		for _, f := range families {
			doors = append(doors, door{server: s, family: f})
			if root != nil && kind.implicit {
				doors = append(doors, door{server: s, family: f, implicit: true})
			}
		}
		for _, d := range doors {
			if d.server == s {
				kind.start(d)
			}
		}
	}
	for _, d := range doors {
		d.await(t)
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
func (d door) await(t *testing.T) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), hang)
	defer cancel()
	for {
		greeting, err := d.greeting(ctx)
		if strings.HasPrefix(greeting, "220") {
			return
		}
		if ctx.Err() != nil {
			t.Fatalf("%s does not answer: %q, %v", d, greeting, err)
		}
		time.Sleep(10 * time.Millisecond) // between two attempts
	}
}

func (d door) greeting(ctx context.Context) (string, error) {
	conn, err := d.lab.Client.Dial(ctx, d.addrPort())
	if err != nil {
		return "", err
	}
	defer conn.Close()
	deadline, _ := ctx.Deadline()
	conn.SetDeadline(deadline)
	if d.implicit {
		conn = tls.Client(conn, &tls.Config{RootCAs: d.root.roots(), ServerName: d.Addr[d.family].String()})
	}
	return bufio.NewReader(conn).ReadString('\n')
}

// run starts the door's program.
func (d door) run(program string, args ...string) {
	d.start(d.lab.Server.Command(context.Background(), program, args...))
}

func (d door) start(command *exec.Cmd) { d.lab.Server.Start(d.String(), command) }

// write writes a file of the door's configuration and returns its path.
func (d door) write(name, text string) string {
	path := filepath.Join(d.lab.Dir, fmt.Sprintf("%s.%s", d, name))
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		d.lab.t.Fatal(err)
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
