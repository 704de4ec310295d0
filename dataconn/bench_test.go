package dataconn

import (
	"bufio"
	"cmp"
	"context"
	"crypto/tls"
	"fmt"
	"io"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"ftpalg/tlsmitm"
)

// relaysVariable has the address of a server, for the process that BenchmarkCarry measures.
const relaysVariable = "FTPALG_TEST_RELAYS"

// BenchmarkCarry carries downloads under TLS over loopback through a process of its own, whose processor time is known. In turn with
// them go the same bytes through the naive relay, io.Copy between two connections of crypto/tls, and through none, both ends being this
// process. It reports
//
//	s/GiB        processor time of the relaying process for a GiB, user and system
//	x-naive-s    that, to the naive relay's
//	x-direct     throughput, to that with no relay
//	x-naive      throughput, to the naive relay's
//
// as medians of the rounds. One round is too few to say much: -benchtime 10x.
func BenchmarkCarry(b *testing.B) {
	for _, streams := range []int{1, 8} {
		b.Run(fmt.Sprintf("tls-%d", streams), func(b *testing.B) { benchmarkCarry(b, streams) })
	}
}

// ways are through what the bytes go. A process has each of its relays begun by a word.
var ways = []string{"direct", "naive", "ours"}

// share is what goes through in each turn, in bytes.
const share = 256 << 20

func benchmarkCarry(b *testing.B, streams int) {
	p := newPair(b)
	r := startRelays(b, p)
	seconds, processor := map[string][]float64{}, map[string][]float64{}
	b.SetBytes(share)
	b.ReportAllocs()
	for b.Loop() {
		for _, way := range ways {
			before, begun := r.used(b), time.Now()
			var all sync.WaitGroup
			for range streams {
				at := p.server.Addr().String()
				if way != "direct" {
					at = r.tell(b, way)
				}
				all.Go(func() { p.download(b, at, share/int64(streams)) })
			}
			all.Wait()
			seconds[way] = append(seconds[way], time.Since(begun).Seconds())
			processor[way] = append(processor[way], (r.used(b)-before).Seconds()*(1<<30)/share)
		}
	}
	b.ReportMetric(median(processor["ours"]), "s/GiB")
	b.ReportMetric(median(processor["ours"])/median(processor["naive"]), "x-naive-s")
	b.ReportMetric(median(seconds["direct"])/median(seconds["ours"]), "x-direct")
	b.ReportMetric(median(seconds["naive"])/median(seconds["ours"]), "x-naive")
}

func median(v []float64) float64 {
	slices.Sort(v)
	return v[len(v)/2]
}

// pair is both peers of the transfers.
type pair struct {
	server  net.Listener
	configs [2]*tls.Config // by Side
	sizes   chan int64     // of the downloads that the server is yet to serve
	bytes   []byte         // what files are made of
}

func newPair(b *testing.B) *pair {
	l, err := loopback{}.Listen(b.Context(), Server, 0)
	if err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() { l.Close() })
	return &pair{server: l, bytes: make([]byte, 256<<10), configs: [2]*tls.Config{
		{InsecureSkipVerify: true, MinVersion: tls.VersionTLS13},
		{Certificates: []tls.Certificate{*certificate()}, DynamicRecordSizingDisabled: true},
	}}
}

// download has one file downloaded.
func (p *pair) download(b *testing.B, at string, size int64) {
	served := make(chan error, 1)
	go func() {
		c, err := p.server.Accept()
		if err == nil {
			err = p.serve(c.(*net.TCPConn), size)
		}
		served <- err
	}()
	c, err := net.Dial("tcp", at)
	if err != nil {
		b.Error(err)
		return
	}
	n, err := io.CopyBuffer(struct{ io.Writer }{io.Discard}, struct{ io.Reader }{tls.Client(c, p.configs[Client])}, make([]byte, len(p.bytes)))
	c.Close()
	if err := cmp.Or(err, <-served); err != nil || n != size {
		b.Errorf("%d bytes of %d, %v", n, size, err)
	}
}

func (p *pair) serve(c *net.TCPConn, size int64) error {
	defer c.Close()
	to := tls.Server(c, p.configs[Server])
	if err := to.Handshake(); err != nil {
		return err
	}
	for size > 0 {
		n, err := to.Write(p.bytes[:min(size, int64(len(p.bytes)))])
		if size -= int64(n); err != nil {
			return err
		}
	}
	if err := cmp.Or(to.CloseWrite(), c.CloseWrite()); err != nil {
		return err
	}
	_, err := io.Copy(io.Discard, c)
	return err
}

// relaying is the process that relays.
type relaying struct {
	to   io.Writer
	from *bufio.Reader
}

// startRelays starts it. Before all else it has TLS with both peers, as with their control connections.
func startRelays(b *testing.B, p *pair) *relaying {
	self, err := os.Executable()
	if err != nil {
		b.Fatal(err)
	}
	cmd := exec.Command(self)
	cmd.Env = append(os.Environ(), relaysVariable+"="+p.server.Addr().String())
	cmd.Stderr = os.Stderr
	to, err := cmd.StdinPipe()
	if err != nil {
		b.Fatal(err)
	}
	from, err := cmd.StdoutPipe()
	if err != nil {
		b.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() {
		to.Close()
		if err := cmd.Wait(); err != nil {
			b.Error(err)
		}
	})
	r := &relaying{to: to, from: bufio.NewReader(from)}
	p.download(b, r.line(b), 0)
	return r
}

func (r *relaying) line(b *testing.B) string {
	line, err := r.from.ReadString('\n')
	if err != nil {
		b.Fatal(err)
	}
	return strings.TrimSuffix(line, "\n")
}

// tell has the process begin a relay, and returns where its client is awaited.
func (r *relaying) tell(b *testing.B, way string) string {
	fmt.Fprintln(r.to, way)
	return r.line(b)
}

// used is the processor time that the process has used.
func (r *relaying) used(b *testing.B) time.Duration {
	d, err := time.ParseDuration(r.tell(b, "used"))
	if err != nil {
		b.Fatal(err)
	}
	return d
}

// relayForBenchmark is that process, for a server. It does what it is told on its input.
func relayForBenchmark(server string) error {
	to := netip.MustParseAddrPort(server)
	ctx := context.Background()
	s := tlsmitm.New(tlsmitm.Options{}).Session(tlsmitm.SessionOptions{ID: "1", Certificate: certificate()})
	s.Meet(tlsmitm.ServerOptions{Verify: tlsmitm.Off})
	listen := func() (net.Listener, error) {
		l, err := loopback{}.Listen(ctx, Client, 0)
		if err == nil {
			fmt.Println(l.Addr())
		}
		return l, err
	}
	l, err := listen()
	if err != nil {
		return err
	}
	client, dialed, err := meet(l, to)
	if err != nil {
		return err
	}
	c, v, err := s.Intercept(ctx, client, dialed)
	if err != nil {
		return err
	}
	io.Copy(c, v)
	c.Close()
	v.Close()

	told := bufio.NewScanner(os.Stdin)
	for told.Scan() {
		switch told.Text() {
		case "used":
			var u syscall.Rusage
			if err := syscall.Getrusage(syscall.RUSAGE_SELF, &u); err != nil {
				return err
			}
			fmt.Println(time.Duration(u.Utime.Nano() + u.Stime.Nano()))
		case "ours":
			l, err := listen()
			if err != nil {
				return err
			}
			go carryForBenchmark(l, to, [2]Secure{
				func(ctx context.Context, c net.Conn) (Stream, error) { return s.ClientData(ctx, c, false) },
				func(ctx context.Context, c net.Conn) (Stream, error) { return s.ServerData(ctx, c) },
			})
		case "naive":
			l, err := listen()
			if err != nil {
				return err
			}
			go carryNaively(l, to)
		}
	}
	return told.Err()
}

// carryForBenchmark is one transfer. What goes wrong with it, its peers see.
func carryForBenchmark(l net.Listener, to netip.AddrPort, secure [2]Secure) {
	t := Arm(context.Background(), Options{
		Network: loopback{}, Client: Leg{Listener: l, Peer: localhost}, Server: Leg{Address: to},
		Setup: time.Minute, Idle: time.Minute, Linger: time.Minute,
	})
	t.Begin(Download, secure, nil)
	t.Release()
	if <-t.Copied(); t.Err() == nil {
		t.Commit()
	}
	<-t.Closed()
}

// carryNaively is what everybody would write first.
func carryNaively(l net.Listener, to netip.AddrPort) {
	client, server, err := meet(l, to)
	if err != nil {
		return
	}
	defer client.Close()
	defer server.Close()
	src := tls.Client(server, &tls.Config{InsecureSkipVerify: true})
	dst := tls.Server(client, &tls.Config{Certificates: []tls.Certificate{*certificate()}})
	if _, err := io.Copy(dst, src); err != nil {
		return
	}
	dst.CloseWrite()
	client.(halfCloser).CloseWrite()
	io.Copy(io.Discard, client)
}

// meet takes one client, and calls the server.
func meet(l net.Listener, to netip.AddrPort) (client, server net.Conn, err error) {
	defer l.Close()
	if client, err = l.Accept(); err == nil {
		server, err = net.Dial("tcp", to.String())
	}
	return client, server, err
}
