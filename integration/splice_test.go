//go:build linux

package integration

import (
	"context"
	"fmt"
	"io"
	"net"
	"net/netip"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"testing"
)

// TestSplice counts the bytes of the daemon's system calls: the payload of plain transfers never enters its memory.
func TestSplice(t *testing.T) {
	const size = 64 << 20
	need(t, "strace")
	l := newLab(t)
	g := l.startGateway("listeners: [{mode: tproxy}]\n")
	p := newPuppet(t, l, port(serverAddress, v4, 21))
	for _, verb := range []string{"RETR", "STOR"} {
		t.Run(verb, func(t *testing.T) {
			trace := filepath.Join(l.Dir, "trace-"+verb)
			strace := l.Firewall.Start("strace-"+verb, l.Firewall.Command(context.Background(), "strace", "-f", "-qq", "-s", "0",
				"-e", "trace=splice,read,write,readv,writev,sendto,recvfrom,sendmsg,recvmsg,sendfile,pread64,pwrite64",
				"-o", trace, "-p", strconv.Itoa(g.pid())))
			g.until("strace is attached", func() bool {
				return !strings.Contains(string(readAll(fmt.Sprintf("/proc/%d/status", g.pid()))), "TracerPid:\t0\n")
			})
			k := l.Client.call(t, p.at)
			s := p.admit(k, "alice")
			data := l.Server.listen(t, netip.AddrPortFrom(p.at.Addr(), 0))
			k.say("EPSV")
			s.expect("EPSV", fmt.Sprintf("229 ok (|||%d|)", data.Addr().(*net.TCPAddr).Port))
			c := l.Client.callFrom(t, port(clientAddress, v4, 0), netip.AddrPortFrom(p.at.Addr(), passivePort(t, k.hear("229"))))
			d := accepted(t, data)()
			k.say("%s x", verb)
			s.expect(verb+" x", "150 here")
			k.hear("150")
			from, to := d, c
			if verb == "STOR" {
				from, to = c, d
			}
			sent := make(chan error, 1)
			go func() {
				_, err := io.CopyN(from, zeros{}, size)
				from.Close()
				sent <- err
			}()
			if verb == "RETR" { // whose end comes with the server's word only
				if n, err := io.CopyN(io.Discard, to, size); err != nil {
					t.Fatalf("%d bytes, %v", n, err)
				}
				s.say("226 done")
			}
			rest, err := io.Copy(io.Discard, to)
			if verb == "STOR" {
				s.say("226 done")
				rest -= size
			}
			if err != nil || rest != 0 {
				t.Errorf("%d bytes too many, %v", rest, err)
			}
			if err := <-sent; err != nil {
				t.Error(err)
			}
			to.Close()
			k.hear("226")
			k.part(s)
			strace.Stop()

			bytes := traced(t, trace)
			spliced := bytes["splice"]
			delete(bytes, "splice")
			copied := int64(0)
			for _, n := range bytes {
				copied += n
			}
			t.Logf("of %d bytes splice carried %d, other calls %d: %v", size, spliced, copied, bytes)
			if spliced < 2*size { // into the pipe and out of it
				t.Errorf("splice carried %d bytes only", spliced)
			}
			if copied > 64<<10 {
				t.Errorf("%d bytes went through the daemon's memory", copied)
			}
			g.await("carried=splice", "verb="+verb, fmt.Sprintf("bytes=%d", size))
		})
	}
	g.Stop()
	g.checkClean()
}

// part says goodbye on both sides.
func (k *talk) part(s *talk) {
	k.t.Helper()
	k.say("QUIT")
	s.expect("QUIT", "221 bye")
	k.hear("221")
}

// traced sums up what the calls of a trace returned, by name. Calls that another thread's interrupted in the trace take two
// lines, of which the second has the result.
func traced(t *testing.T, file string) map[string]int64 {
	t.Helper()
	call := regexp.MustCompile(`^\d+ +(?:<\.\.\. )?(\w+)(?: resumed|\().* = (\d+)$`)
	sums := map[string]int64{}
	for line := range strings.Lines(string(readAll(file))) {
		if m := call.FindStringSubmatch(strings.TrimSpace(line)); m != nil {
			n, err := strconv.ParseInt(m[2], 10, 64)
			if err != nil {
				t.Fatal(err)
			}
			sums[m[1]] += n
		}
	}
	return sums
}
