//go:build linux

package integration

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"
)

// TestLocalUsers intercepts what starts on the firewall itself, by the user who starts it. The users are root, who ftpalg runs
// as too and whose own connections must not come back to it, and another.
func TestLocalUsers(t *testing.T) {
	need(t, "curl", "setpriv")
	const user = "1234"
	for _, mode := range []string{"tproxy", "redirect"} {
		t.Run(mode, func(t *testing.T) {
			l := newLab(t)
			servers := startServers(t, l)
			g := l.startGateway(fmt.Sprintf("listeners: [{mode: %s, intercept: {local_uids: [0, %s]}}]\nlimits: {sessions_per_client: 1000}\n", mode, user))
			scratch := filepath.Join(l.Dir, "scratch")
			if err := os.Mkdir(scratch, 0o777); err != nil {
				t.Fatal(err)
			}
			os.Chmod(scratch, 0o777)
			content := crowdContent(9, 3<<20)
			up := filepath.Join(scratch, "up.bin")
			if err := os.WriteFile(up, content, 0o644); err != nil {
				t.Fatal(err)
			}
			transfers := 0
			for _, s := range servers {
				if s.missing != "" {
					continue
				}
				for _, f := range families {
					for _, verb := range verbs[f] {
						for _, uid := range []string{"0", user} {
							what := fmt.Sprintf("%s-%v-%s-%s", s.Name, f, verb, uid)
							url := fmt.Sprintf("ftp://%s:%s@%s/%s", ftpUser, ftpPassword, s.AddrPort(f), what)
							args := []string{"--reuid", uid, "--clear-groups", "curl", "--disable", "-sS"}
							if verb == "PORT" || verb == "EPRT" {
								args = append(args, "--ftp-port", "-")
							}
							if verb == "PORT" || verb == "PASV" {
								args = append(args, "--disable-eprt", "--disable-epsv")
							}
							down := filepath.Join(scratch, what)
							l.Firewall.must("setpriv", append(args, "-T", up, url, "--next", "-sS", "-o", down, url)...)
							transfers++
							for _, file := range []string{down, filepath.Join(s.Home, what)} {
								if got, err := os.ReadFile(file); err != nil || !bytes.Equal(got, content) {
									t.Errorf("%s: %d bytes of %d, %v", file, len(got), len(content), err)
								}
							}
						}
					}
				}
			}
			for _, verb := range []string{"STOR", "RETR"} {
				if n := strings.Count(g.log(), "verb="+verb+" "); n < transfers {
					t.Errorf("ftpalg has seen %d times %s, of %d", n, verb, transfers)
				}
			}
			for _, bad := range []string{"this proxy itself", "stranger", "outcome=broken"} {
				if line := g.logged(bad); line != "" {
					t.Error(line)
				}
			}
			// Others are left alone.
			g.until("sessions have ended", func() bool {
				return strings.Count(g.log(), "session ended") == strings.Count(g.log(), "session started")
			})
			before := strings.Count(g.log(), "session started")
			l.Firewall.must("setpriv", "--reuid", "4321", "--clear-groups", "curl", "--disable", "-sS",
				fmt.Sprintf("ftp://%s:%s@%s/", ftpUser, ftpPassword, servers[len(servers)-1].AddrPort(v4)))
			if strings.Count(g.log(), "session started") > before {
				t.Error("another user's session was intercepted")
			}
			g.Stop()
			g.checkClean()
		})
	}
}

// TestLocalMarks intercepts what starts on the firewall with a mark.
func TestLocalMarks(t *testing.T) {
	const mark = 0x77
	for _, mode := range []string{"tproxy", "redirect"} {
		t.Run(mode, func(t *testing.T) {
			l := newLab(t)
			g := l.startGateway(fmt.Sprintf("listeners: [{mode: %s, intercept: {local_marks: [%d]}}]\n", mode, mark))
			for _, f := range families {
				p := newPuppet(t, l, port(serverAddress, f, 21))
				own := serverGateway[f].Addr()
				k := newTalk(t, l.Firewall.callMarked(t, mark, p.at))
				s := p.admit(k, "alice")
				g.await("session started", "client="+k.LocalAddr().String(), "server="+p.at.String())
				if s.RemoteAddr().String() == k.LocalAddr().String() {
					t.Errorf("the server was reached without the gateway")
				}

				// Passive, up. A program that closes what it has filled leaves the kernel much to send.
				data := l.Server.listen(t, netip.AddrPortFrom(p.at.Addr(), 0))
				k.say("EPSV")
				s.expect("EPSV", fmt.Sprintf("229 ok (|||%d|)", data.Addr().(*net.TCPAddr).Port))
				c := l.Firewall.callMarked(t, mark, netip.AddrPortFrom(p.at.Addr(), passivePort(t, k.hear("229"))))
				k.say("STOR x")
				s.expect("STOR x", "150 here")
				k.hear("150")
				content := crowdContent(5, 3<<20)
				d := accepted(t, data)()
				sent := make(chan error, 1)
				go func() {
					_, err := c.Write(content)
					c.Close()
					sent <- err
				}()
				got, err := io.ReadAll(d)
				if err != nil || !bytes.Equal(got, content) {
					t.Errorf("%d of %d bytes arrived, %v", len(got), len(content), err)
				}
				if err := <-sent; err != nil {
					t.Error(err)
				}
				d.Close()
				s.say("226 done")
				k.hear("226")

				// Active, down.
				mine := l.Firewall.listenMarked(t, mark, netip.AddrPortFrom(own, 0))
				k.say("EPRT |%d|%s|%d|", f+1, own, mine.Addr().(*net.TCPAddr).Port)
				told := extendedPort(t, s.line())
				s.say("200 ok")
				k.hear("200")
				moveFile(t, k, s, accepted(t, mine), func() net.Conn {
					return l.Server.callFrom(t, netip.AddrPortFrom(p.at.Addr(), 20), told)
				})

				// Without the mark.
				k = l.Firewall.call(t, p.at)
				s = p.admit(k, "alice")
				if s.RemoteAddr().String() != k.LocalAddr().String() {
					t.Errorf("what has no mark was intercepted")
				}
			}
			g.Stop()
			g.checkClean()
		})
	}
}

// marked sets a mark on a socket that is being made.
func marked(mark int) func(string, string, syscall.RawConn) error {
	return func(_, _ string, raw syscall.RawConn) (err error) {
		if e := raw.Control(func(fd uintptr) { err = unix.SetsockoptInt(int(fd), unix.SOL_SOCKET, unix.SO_MARK, mark) }); e != nil {
			return e
		}
		return err
	}
}

func (n *namespace) callMarked(t *testing.T, mark int, to netip.AddrPort) (conn net.Conn) {
	t.Helper()
	err := n.Do(func() (err error) {
		conn, err = (&net.Dialer{Timeout: hang, Control: marked(mark)}).Dial("tcp", to.String())
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close() })
	return conn
}

func (n *namespace) listenMarked(t *testing.T, mark int, at netip.AddrPort) (l *net.TCPListener) {
	t.Helper()
	err := n.Do(func() error {
		some, err := (&net.ListenConfig{Control: marked(mark)}).Listen(context.Background(), "tcp", at.String())
		if err == nil {
			l = some.(*net.TCPListener)
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	return l
}
