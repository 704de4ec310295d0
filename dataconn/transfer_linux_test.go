package dataconn

import (
	"bufio"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
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

// descriptors is how many files this process has open, once the pipes of splice that nobody uses have been collected.
func descriptors(t *testing.T) int {
	t.Helper()
	runtime.GC()
	runtime.GC()
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
	// Finalizers run when they like.
	for after := descriptors(t); after > before; after = descriptors(t) {
		if deadline, ok := t.Deadline(); ok && time.Until(deadline) < 10*time.Second {
			t.Fatalf("%d descriptors before, %d after", before, after)
		}
		time.Sleep(10 * time.Millisecond)
	}
}

// splicedVariable has the addresses of a transfer's two peers, for the process that TestSplice watches.
const splicedVariable = "FTPALG_TEST_SPLICED"

// carryForSplice carries one download between two peers of another process.
func carryForSplice(legs string) error {
	client, server, _ := strings.Cut(legs, " ")
	tr := Arm(context.Background(), Options{
		Network: loopback{}, Client: Leg{Address: netip.MustParseAddrPort(client)}, Server: Leg{Address: netip.MustParseAddrPort(server)},
		Setup: time.Minute, Idle: time.Minute, Linger: time.Minute,
	})
	tr.Begin(Download, [2]Secure{}, nil)
	tr.Release()
	<-tr.Copied()
	if err := tr.Err(); err != nil {
		tr.Reset()
		return err
	}
	if tr.Carried() != Spliced {
		return errors.New("it says that it was not spliced")
	}
	tr.Commit()
	<-tr.Closed()
	return tr.Delivered()
}

// TestSplice has strace watch a transfer: the kernel must carry the bytes, and they must never pass through the process.
func TestSplice(t *testing.T) {
	strace, err := exec.LookPath("strace")
	if err != nil {
		lack(t, "strace")
	}
	const size = 32 << 20
	l := newLab(t, false, false)
	log := filepath.Join(t.TempDir(), "strace")
	// All calls by which bytes pass between a process and a socket.
	cmd := exec.Command(strace, "-f", "-qq", "-e", "signal=none",
		"-e", "trace=splice,sendfile,read,write,readv,writev,recvfrom,sendto,recvmsg,sendmsg,pread64,pwrite64", "-o", log, self(t))
	cmd.Env = append(os.Environ(), splicedVariable+"="+l.opts.Client.Address.String()+" "+l.opts.Server.Address.String())
	var stderr strings.Builder
	cmd.Stderr = &stderr
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	exited := make(chan error, 1)
	go func() {
		exited <- cmd.Wait()
		for _, p := range l.peers { // in case it never called
			p.Close()
		}
	}()
	server, err := l.peers[Server].Accept()
	if err != nil {
		lackOrFail(t, stderr.String())
	}
	defer server.Close()
	client, err := l.peers[Client].Accept()
	if err != nil {
		t.Fatalf("%v: %s", err, stderr.String())
	}
	defer client.Close()
	got := sha256.New()
	ended, readErr := read(client, got)
	want := sha256.New()
	if _, err := io.Copy(struct{ io.Writer }{server}, io.TeeReader(io.LimitReader(rand.NewChaCha8([32]byte{2}), size), want)); err != nil {
		t.Fatal(err)
	}
	server.Close()
	<-ended
	client.Close()
	if err := <-exited; err != nil {
		t.Fatalf("%v: %s", err, stderr.String())
	}
	if *readErr != nil || string(got.Sum(nil)) != string(want.Sum(nil)) {
		t.Errorf("the receiver got something else, or saw %v", *readErr)
	}

	moved, calls := movedBy(t, log)
	t.Logf("%v bytes moved by %v calls", moved, calls)
	if calls["splice"] == 0 || moved["splice"] != 2*size { // into the pipe, and out of it
		t.Errorf("splice moved %d bytes in %d calls, want %d", moved["splice"], calls["splice"], 2*size)
	}
	for call, n := range moved {
		if call != "splice" && n > size/100 {
			t.Errorf("%s moved %d bytes", call, n)
		}
	}
}

// movedBy sums up what each system call returned, and how many of them did something.
func movedBy(t *testing.T, log string) (moved, calls map[string]int) {
	t.Helper()
	f, err := os.Open(log)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	moved, calls = map[string]int{}, map[string]int{}
	line := regexp.MustCompile(`^\d+ +(?:<\.\.\. )?(\w+)(?:\(| resumed>).*= (\d+)`)
	s := bufio.NewScanner(f)
	s.Buffer(nil, 1<<20)
	for s.Scan() {
		if m := line.FindStringSubmatch(s.Text()); m != nil {
			n, _ := strconv.Atoi(m[2])
			moved[m[1]] += n
			calls[m[1]]++
		}
	}
	return moved, calls
}

func self(t *testing.T) string {
	t.Helper()
	path, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	return path
}

// lack skips a test that lacks something, or fails it if FTPALG_INTEGRATION=1 says that nothing may be lacking.
func lack(t *testing.T, what string) {
	t.Helper()
	if os.Getenv("FTPALG_INTEGRATION") == "1" {
		t.Fatalf("not available: %s", what)
	}
	t.Skipf("not available: %s", what)
}

// lackOrFail tells a strace that may not trace (a container without ptrace) from a transfer that failed.
func lackOrFail(t *testing.T, stderr string) {
	t.Helper()
	if strings.Contains(stderr, "ptrace") {
		lack(t, "ptrace: "+stderr)
	}
	t.Fatal(stderr)
}

// A process that is killed leaves no file behind that looks whole: its connections end in resets, by themselves.
func TestKilled(t *testing.T) {
	l := newLab(t, false, false)
	cmd := exec.Command(self(t))
	cmd.Env = append(os.Environ(), splicedVariable+"="+l.opts.Client.Address.String()+" "+l.opts.Server.Address.String())
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
