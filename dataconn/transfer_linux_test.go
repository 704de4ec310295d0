package dataconn

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"
)

// Port theft (RFC 2577 §8): whoever calls first from another address is turned away, and the peer still gets through. All
// of 127.0.0.0/8 is this machine's, on Linux.
func TestStrangers(t *testing.T) {
	for side, mode := range map[Side]int{Client: 0, Server: 1} {
		t.Run(side.String(), func(t *testing.T) {
			l := newLab(t, modes[mode].clientListens, modes[mode].serverListens)
			var mu sync.Mutex
			var strangers []string
			l.opts.Stranger = func(s Side, from netip.AddrPort) {
				mu.Lock()
				defer mu.Unlock()
				if s != side {
					t.Errorf("a stranger on the %v side", s)
				}
				strangers = append(strangers, from.Addr().String())
			}
			tr := l.arm()
			want := []string{"127.0.0.2", "127.0.0.3", "127.0.0.2"}
			for _, from := range want {
				intrude(t, from, l.legs[side].Addr().String())
			}
			client, server := l.connectBoth()
			tr.Begin(Download, [2]Secure{}, nil)
			tr.Release()
			server.Write([]byte("genuine"))
			server.Close()
			if err := l.copied(); err != nil {
				t.Fatal(err)
			}
			tr.Commit()
			if b, err := io.ReadAll(client); string(b) != "genuine" || err != nil {
				t.Errorf("%q, %v", b, err)
			}
			client.Close()
			<-tr.Closed()
			mu.Lock()
			defer mu.Unlock()
			if fmt.Sprint(strangers) != fmt.Sprint(want) {
				t.Errorf("strangers are %v, want %v", strangers, want)
			}
		})
	}
}

// intrude calls a listener from an address that it does not expect, and checks that it is turned away by a reset.
func intrude(t *testing.T, from, to string) {
	t.Helper()
	d := net.Dialer{LocalAddr: &net.TCPAddr{IP: net.ParseIP(from)}}
	c, err := d.Dial("tcp", to)
	if errors.Is(err, syscall.ECONNRESET) {
		return // it was turned away before Dial had returned
	}
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	sawReset(t, "stranger", c)
}

// A listener takes one connection: who comes second, be it the peer itself, is not served.
func TestOneConnection(t *testing.T) {
	l := newLab(t, true, false)
	l.arm()
	first := l.connect(Client)
	l.connect(Server)                                                          // now the first has been accepted
	if c, err := net.Dial("tcp", l.legs[Client].Addr().String()); err == nil { // it need not be refused: the kernel may have taken it
		sawReset(t, "second", c)
		c.Close()
	}
	if _, err := first.Write([]byte("x")); err != nil {
		t.Errorf("the first: %v", err)
	}
}

// descriptors is how many files this process has open.
func descriptors(t *testing.T) int {
	t.Helper()
	files, err := os.ReadDir("/proc/self/fd")
	if err != nil {
		t.Fatal(err)
	}
	return len(files)
}

// TestDescriptors: whatever becomes of transfers, all of their files are closed.
func TestDescriptors(t *testing.T) {
	play := func(t *testing.T) {
		for _, mode := range modes {
			for _, end := range []string{"whole", "reset", "armed only", "broken", "refused", "stranger"} {
				t.Run(mode.name+"/"+end, func(t *testing.T) {
					l := newLab(t, mode.clientListens, mode.serverListens)
					switch end {
					case "armed only":
						l.arm().Reset()
						return
					case "refused":
						for _, p := range l.peers {
							if p != nil {
								p.Close()
							}
						}
						l.arm().Reset()
						return
					case "stranger":
						for _, leg := range l.legs {
							if leg != nil {
								l.opts.Client.Peer, l.opts.Server.Peer = netip.MustParseAddr("127.9.9.9"), netip.MustParseAddr("127.9.9.9")
								l.arm()
								intrude(t, "127.0.0.1", leg.Addr().String())
								l.transfer.Reset()
								<-l.transfer.Closed()
								return
							}
						}
						return
					}
					from, to := l.begin(Download)
					from.Write(make([]byte, 1000))
					switch end {
					case "reset":
						l.transfer.Reset()
					case "broken":
						from.SetLinger(0)
						from.Close()
					default:
						from.Close()
						l.copied()
						l.transfer.Commit()
						io.Copy(io.Discard, to)
						to.Close()
					}
					<-l.transfer.Closed()
				})
			}
		}
	}
	play(t) // the first time, the runtime opens files of its own
	before := descriptors(t)
	play(t)
	if after := descriptors(t); after > before {
		t.Errorf("%d descriptors before, %d after", before, after)
	}
}

// carriedVariable has the addresses of a transfer's two peers, for the process that TestKilled kills.
const carriedVariable = "FTPALG_TEST_CARRIED"

// carryToBeKilled carries one download between two peers of another process.
func carryToBeKilled(legs string) error {
	client, server, _ := strings.Cut(legs, " ")
	tr := Arm(context.Background(), Options{
		Network: loopback{}, Client: Leg{Address: netip.MustParseAddrPort(client)}, Server: Leg{Address: netip.MustParseAddrPort(server)},
		Setup: time.Minute, Idle: time.Minute, Linger: time.Minute,
	})
	tr.Begin(Download, [2]Secure{}, nil)
	tr.Release()
	<-tr.Copied()
	return fmt.Errorf("it came to its end: %w", tr.Err())
}

func self(t *testing.T) string {
	t.Helper()
	path, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	return path
}

// A process that is killed leaves no file behind that looks whole: its connections end in resets, by themselves.
func TestKilled(t *testing.T) {
	l := newLab(t, false, false)
	cmd := exec.Command(self(t))
	cmd.Env = append(os.Environ(), carriedVariable+"="+l.opts.Client.Address.String()+" "+l.opts.Server.Address.String())
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	server := l.connect(Server)
	client := l.connect(Client)
	if _, err := server.Write([]byte("half")); err != nil {
		t.Fatal(err)
	}
	if _, err := io.ReadFull(client, make([]byte, 4)); err != nil {
		t.Fatal(err)
	}
	cmd.Process.Signal(syscall.SIGKILL)
	cmd.Wait()
	sawReset(t, "client", client)
	sawReset(t, "server", server)
}
