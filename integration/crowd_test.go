//go:build linux

package integration

import (
	"bufio"
	"bytes"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"
)

// A crowd is many clients in one process of the client namespace. It is a role of the test program, since a process of its
// own has file descriptors and goroutines of its own.

// crowdHosts is the number of addresses that a crowd comes from.
const crowdHosts = 10

// crowdHost is one of the crowd's addresses.
func crowdHost(i int) netip.Addr {
	return netip.AddrFrom4([4]byte{192, 0, 2, byte(100 + i%crowdHosts)})
}

// addCrowd gives the client namespace the crowd's addresses.
func (l *lab) addCrowd() {
	for i := range crowdHosts {
		l.Client.AddAddress("eth0", netip.PrefixFrom(crowdHost(i), 24))
	}
}

// startCrowdServer gives the client namespace the crowd's addresses and the server namespace a server with the crowd's file,
// which runs as nobody. It returns where that listens, and its home.
func (l *lab) startCrowdServer(t *testing.T) (at netip.AddrPort, home string) {
	t.Helper()
	l.addCrowd()
	at, home = port(serverAddress, v4, 21), filepath.Join(l.Dir, "home")
	seedCrowd(t, home)
	l.Server.Start("ftpserverlib", l.Server.role(context.Background(), "ftpserverlib", at.String(), home, "65534"))
	return at, home
}

// startBusyCrowd starts clients that transfer.
func (l *lab) startBusyCrowd(name string, at netip.AddrPort, clients, rounds int, home string) *daemon {
	return l.Client.Start(name, l.Client.role(context.Background(), "crowd", "busy", at.String(),
		strconv.Itoa(clients), strconv.Itoa(rounds), home))
}

// crowdFile is what the crowd downloads: its name at the server, and its content.
const crowdFile = "down.bin"

func crowdContent(seed, size int) []byte {
	b := make([]byte, size)
	rand.NewChaCha8([32]byte{byte(seed), byte(seed >> 8)}).Read(b)
	return b
}

// seedCrowd puts the crowd's file into the home of a server that runs as nobody.
func seedCrowd(t *testing.T, home string) {
	t.Helper()
	err := os.Mkdir(home, 0o755)
	if err == nil {
		err = os.Chown(home, 65534, 65534)
	}
	if err == nil {
		err = os.WriteFile(filepath.Join(home, crowdFile), crowdContent(0, 300<<10), 0o644)
	}
	if err != nil {
		t.Fatal(err)
	}
}

// A member is one client of a crowd.
type member struct {
	id int
	net.Conn
	r *bufio.Reader
}

// runCrowd is a role of the test program. Its arguments are what to do ("busy" or "idle"), the server, the number of
// clients, and for busy ones the number of rounds of transfers and the server's home. What it says on standard output
// are stages that the test waits for.
func runCrowd(args []string) error {
	var size, rounds int
	home := ""
	switch {
	case len(args) == 3 && args[0] == "idle":
	case len(args) == 5 && args[0] == "busy":
		var err error
		if rounds, err = strconv.Atoi(args[3]); err != nil {
			return err
		}
		home = args[4]
	default:
		return errors.New("usage: idle SERVER CLIENTS | busy SERVER CLIENTS ROUNDS HOME")
	}
	size, err := strconv.Atoi(args[2])
	if err != nil {
		return err
	}
	members := make([]*member, size)
	// Not all at once: that would be a test of how many connections may wait to be accepted.
	err = together(size, 50, func(i int) error {
		m, err := join(i, args[1])
		members[i] = m
		return err
	})
	if err != nil {
		return err
	}
	fmt.Printf("all %d are in\n", size)
	if args[0] == "idle" {
		return hearGoodbyes(members)
	}
	want, err := os.ReadFile(filepath.Join(home, crowdFile))
	if err != nil {
		return err
	}
	return together(size, size, func(i int) error { return members[i].work(rounds, home, sha256.Sum256(want)) })
}

// together calls do for all numbers below n, some at a time, and returns the first errors.
func together(n, atOnce int, do func(i int) error) error {
	numbers := make(chan int)
	var wg sync.WaitGroup
	var mu sync.Mutex
	var failed []error
	for range atOnce {
		wg.Go(func() {
			for i := range numbers {
				if err := do(i); err != nil {
					mu.Lock()
					failed = append(failed, fmt.Errorf("client %d: %w", i, err))
					mu.Unlock()
				}
			}
		})
	}
	for i := range n {
		numbers <- i
	}
	close(numbers)
	wg.Wait()
	if len(failed) > 10 {
		return fmt.Errorf("%d errors, of which the first are: %w", len(failed), errors.Join(failed[:10]...))
	}
	return errors.Join(failed...)
}

// join logs in.
func join(id int, server string) (*member, error) {
	d := net.Dialer{LocalAddr: &net.TCPAddr{IP: crowdHost(id).AsSlice()}, Timeout: hang}
	c, err := d.Dial("tcp", server)
	if err != nil {
		return nil, err
	}
	c.SetDeadline(time.Now().Add(2 * hang)) // who is idle is so for a while
	m := &member{id, c, bufio.NewReaderSize(c, 256)}
	if _, err := m.hear("220"); err != nil {
		return nil, err
	}
	for _, line := range [][2]string{{"USER " + ftpUser, "331"}, {"PASS " + ftpPassword, "230"}, {"TYPE I", "200"}} {
		if _, err := m.ask(line[0], line[1]); err != nil {
			return nil, err
		}
	}
	return m, nil
}

func (m *member) ask(line, code string) (string, error) {
	if _, err := io.WriteString(m, line+"\r\n"); err != nil {
		return "", fmt.Errorf("%s: %w", line, err)
	}
	reply, err := m.hear(code)
	if err != nil {
		err = fmt.Errorf("%s: %w", line, err)
	}
	return reply, err
}

func (m *member) hear(code string) (string, error) {
	for {
		line, err := m.r.ReadString('\n')
		if err != nil {
			return line, fmt.Errorf("after %q: %w", line, err)
		}
		if len(line) < 4 || line[3] == '-' || line[0] == ' ' {
			continue
		}
		if !strings.HasPrefix(line, code) {
			return line, fmt.Errorf("heard %q instead of %s", line, code)
		}
		return line, nil
	}
}

// work transfers files, each time in another way, and says goodbye.
func (m *member) work(rounds int, home string, want [sha256.Size]byte) error {
	defer m.Close()
	verbs := []string{"EPSV", "PASV", "PORT", "EPRT"}
	for round := range rounds {
		verb := verbs[(m.id+round/2)%len(verbs)]
		var err error
		if (m.id+round)%2 == 0 {
			err = m.download(verb, want)
		} else {
			err = m.upload(verb, home, round)
		}
		if err != nil {
			return fmt.Errorf("round %d, %s: %w", round, verb, err)
		}
		m.SetDeadline(time.Now().Add(hang))
	}
	_, err := m.ask("QUIT", "221")
	return err
}

func (m *member) download(verb string, want [sha256.Size]byte) error {
	c, err := m.transfer(verb, "RETR "+crowdFile)
	if err != nil {
		return err
	}
	hash := sha256.New()
	n, err := io.Copy(hash, c)
	c.Close()
	if err != nil {
		return err
	}
	if !bytes.Equal(hash.Sum(nil), want[:]) {
		return fmt.Errorf("downloaded %d bytes of another content", n)
	}
	_, err = m.hear("226")
	return err
}

func (m *member) upload(verb, home string, round int) error {
	name := fmt.Sprintf("up-%d-%d", m.id, round)
	content := crowdContent(m.id+1, 200<<10+m.id)
	c, err := m.transfer(verb, "STOR "+name)
	if err != nil {
		return err
	}
	_, err = c.Write(content)
	c.Close()
	if err != nil {
		return err
	}
	if _, err := m.hear("226"); err != nil {
		return err
	}
	got, err := os.ReadFile(filepath.Join(home, name))
	if err != nil {
		return err
	}
	if !bytes.Equal(got, content) {
		return fmt.Errorf("%d of %d bytes have arrived, or others", len(got), len(content))
	}
	return os.Remove(filepath.Join(home, name))
}

// transfer makes a data connection and says a command that uses it.
func (m *member) transfer(verb, command string) (net.Conn, error) {
	own := m.LocalAddr().(*net.TCPAddr)
	if verb == "EPSV" || verb == "PASV" {
		reply, err := m.ask(verb, "22")
		if err != nil {
			return nil, err
		}
		at, err := portNamed(reply)
		if err != nil {
			return nil, err
		}
		to := *m.RemoteAddr().(*net.TCPAddr)
		to.Port = int(at)
		d := net.Dialer{LocalAddr: &net.TCPAddr{IP: own.IP}, Timeout: hang}
		c, err := d.Dial("tcp", to.String())
		if err != nil {
			return nil, err
		}
		c.SetDeadline(time.Now().Add(hang))
		if _, err := m.ask(command, "150"); err != nil {
			c.Close()
			return nil, err
		}
		return c, nil
	}
	l, err := net.ListenTCP("tcp", &net.TCPAddr{IP: own.IP})
	if err != nil {
		return nil, err
	}
	defer l.Close()
	l.SetDeadline(time.Now().Add(hang))
	at := l.Addr().(*net.TCPAddr).AddrPort()
	line := fmt.Sprintf("EPRT |1|%s|%d|", at.Addr().Unmap(), at.Port())
	if verb == "PORT" {
		line = fmt.Sprintf("PORT %s,%d,%d", strings.ReplaceAll(at.Addr().Unmap().String(), ".", ","), at.Port()>>8, at.Port()&255)
	}
	if _, err := m.ask(line, "200"); err != nil {
		return nil, err
	}
	if _, err := m.ask(command, "150"); err != nil {
		return nil, err
	}
	c, err := l.Accept()
	if err != nil {
		return nil, err
	}
	c.SetDeadline(time.Now().Add(hang))
	return c, nil
}

// hearGoodbyes waits until everybody has been told 421 and then hung up on. Nobody waits in a goroutine of his own: what
// was said to one waits in his socket while the others are listened to.
func hearGoodbyes(members []*member) error {
	return together(len(members), 1, func(i int) error {
		m := members[i]
		defer m.Close()
		m.SetDeadline(time.Now().Add(hang))
		if _, err := m.hear("421"); err != nil {
			return err
		}
		if rest, err := io.ReadAll(m.r); err != nil || len(rest) > 0 {
			return fmt.Errorf("then heard %q, %v", rest, err)
		}
		return nil
	})
}
