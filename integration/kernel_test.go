//go:build linux

package integration

import (
	"context"
	"fmt"
	"io"
	"net"
	"net/netip"
	"os"
	"strings"
	"syscall"
	"testing"
	"time"
)

// Transfers that the kernel carries, on a firewall that forwards only what is established or related.

// kernelModes are ways to ftpalg. dial is where a client connects to; user is alice's name there.
var kernelModes = []struct {
	name, listener string
	dial           func(family) netip.AddrPort
	user           func(family) string
	seesServer     bool // the client sees the server's address in data connections
	seesClient     bool // and the server the client's
}{
	{name: "tproxy", listener: "mode: tproxy", seesServer: true, seesClient: true},
	{name: "tproxy-own", listener: "mode: tproxy, source: own", seesServer: true},
	{name: "redirect", listener: "mode: redirect", seesServer: true},
	{name: "redirect-client", listener: "mode: redirect, source: client", seesServer: true, seesClient: true},
	{name: "gateway", listener: "mode: gateway, server: '198.51.100.2:21'", dial: ftpalgItself},
	{name: "gateway-client", listener: "mode: gateway, source: client, server: '198.51.100.2:21'", dial: ftpalgItself, seesClient: true},
	{
		name: "explicit", listener: "mode: explicit, address: '[::]:2121'", dial: ftpalgItself,
		user: func(f family) string {
			return map[family]string{v4: "alice@198.51.100.2", v6: "alice@[fd00:5::2]"}[f]
		},
	},
}

func ftpalgItself(f family) netip.AddrPort { return netip.AddrPortFrom(clientGateway[f].Addr(), 2121) }

// kernelConfig is a configuration of one listener that lets the kernel carry.
func kernelConfig(listener string) string {
	return "listeners: [{" + listener + ", data_path: kernel}]\nlog: {level: debug}\n"
}

// session logs in at a puppet.
func (l *lab) session(t *testing.T, p *puppet, to netip.AddrPort, user string) *transfers {
	t.Helper()
	x := &transfers{client: l.Client.call(t, to)}
	x.server = p.admit(x.client, user)
	return x
}

// arm has the two agree on a data connection, and returns what makes it: the caller's end, and where the other listens.
func (l *lab) arm(t *testing.T, x *transfers, verb string) (caller *namespace, to netip.AddrPort, callee *net.TCPListener) {
	t.Helper()
	server, client := x.server.LocalAddr().(*net.TCPAddr).AddrPort().Addr().Unmap(), x.client.LocalAddr().(*net.TCPAddr).AddrPort().Addr().Unmap()
	if verb == "PASV" || verb == "EPSV" {
		callee = l.Server.listen(t, netip.AddrPortFrom(server, 0))
		at := callee.Addr().(*net.TCPAddr).AddrPort()
		answer := fmt.Sprintf("229 ok (|||%d|)", at.Port())
		if verb == "PASV" {
			answer = fmt.Sprintf("227 ok (%s)", hostPort(at))
		}
		x.client.say("%s", verb)
		x.server.expect(verb, answer)
		dialed := x.client.RemoteAddr().(*net.TCPAddr).AddrPort().Addr().Unmap()
		return l.Client, netip.AddrPortFrom(dialed, passivePort(t, x.client.hear(answer[:3]))), callee
	}
	callee = l.Client.listen(t, netip.AddrPortFrom(client, 0))
	at := callee.Addr().(*net.TCPAddr).AddrPort()
	argument := hostPort(at)
	if verb == "EPRT" {
		argument = extended(at)
	}
	x.client.say("%s %s", verb, argument)
	heard, ok := strings.CutPrefix(x.server.line(), verb+" ")
	if !ok {
		t.Fatalf("the server heard %q instead of %s", heard, verb)
	}
	x.server.say("200 ok")
	x.client.hear("200")
	return l.Server, parsePort(t, heard), callee
}

func hostPort(a netip.AddrPort) string {
	return fmt.Sprintf("%s,%d,%d", strings.ReplaceAll(a.Addr().Unmap().String(), ".", ","), a.Port()>>8, a.Port()&255)
}

func extended(a netip.AddrPort) string {
	if a.Addr().Unmap().Is4() {
		return fmt.Sprintf("|1|%s|%d|", a.Addr().Unmap(), a.Port())
	}
	return fmt.Sprintf("|2|%s|%d|", a.Addr(), a.Port())
}

// parsePort reads an argument of PORT or EPRT.
func parsePort(t *testing.T, s string) netip.AddrPort {
	t.Helper()
	if parts := strings.Split(s, "|"); len(parts) == 5 {
		s = net.JoinHostPort(parts[2], parts[3])
	} else {
		var h [4]byte
		var hi, lo uint16
		if _, err := fmt.Sscanf(s, "%d,%d,%d,%d,%d,%d", &h[0], &h[1], &h[2], &h[3], &hi, &lo); err != nil {
			t.Fatalf("%q: %v", s, err)
		}
		return netip.AddrPortFrom(netip.AddrFrom4(h), hi<<8|lo)
	}
	a, err := netip.ParseAddrPort(s)
	if err != nil {
		t.Fatal(err)
	}
	return a
}

// connect makes an armed data connection, from the caller's own address.
func (l *lab) connect(t *testing.T, x *transfers, caller *namespace, to netip.AddrPort, callee *net.TCPListener) {
	t.Helper()
	from := x.client.LocalAddr()
	if caller == l.Server {
		from = x.server.LocalAddr()
	}
	c := caller.callFrom(t, netip.AddrPortFrom(from.(*net.TCPAddr).AddrPort().Addr().Unmap(), 0), to)
	d := accepted(t, callee)()
	if x.clientData, x.serverData = c, d; caller == l.Server {
		x.clientData, x.serverData = d, c
	}
}

// refused checks that no connection comes about, within a time in which one would.
func (n *namespace) refused(t *testing.T, to netip.AddrPort) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 400*time.Millisecond)
	defer cancel()
	if c, err := n.Dial(ctx, to); err == nil {
		c.Close()
		t.Errorf("%v -> %v is let through", c.LocalAddr(), to)
	}
}

// noPinholes checks that the kernel holds nothing of ours that would let anything in, and soon nothing of ours at all.
func (l *lab) noPinholes(t *testing.T) {
	t.Helper()
	if left := l.Firewall.must("conntrack", "-L", "expect"); strings.Contains(left, "proto=6") {
		t.Errorf("expectations are left:\n%s", left)
	}
	left := ""
	for end := time.Now().Add(2 * time.Second); time.Now().Before(end); time.Sleep(20 * time.Millisecond) {
		if left = l.Firewall.must("nft", "list", "table", "inet", "ftpalg"); !strings.Contains(left, "elements") {
			return
		}
	}
	t.Errorf("translations are left:\n%s", left)
}

// TestKernelPath: in every mode, with every verb and in both families the kernel carries, exactly one connection is let in,
// each end sees the addresses that it should, and the log has every byte.
func TestKernelPath(t *testing.T) {
	need(t, "nft", "conntrack")
	for _, mode := range kernelModes {
		t.Run(mode.name, func(t *testing.T) {
			t.Parallel()
			l := newLab(t)
			g := l.startGateway(kernelConfig(mode.listener))
			for _, f := range families {
				if f == v6 && strings.HasPrefix(mode.name, "gateway") {
					continue // it has one server
				}
				p := newPuppet(t, l, port(serverAddress, f, 21))
				to, user := p.at, "alice"
				if mode.dial != nil {
					to = mode.dial(f)
				}
				if mode.user != nil {
					user = mode.user(f)
				}
				for _, verb := range verbs[f] {
					t.Run(fmt.Sprintf("%v/%s", f, verb), func(t *testing.T) {
						x := l.session(t, p, to, user)
						for i, size := range []int64{0, 1, 1<<20 + 3} {
							for _, way := range []string{"RETR", "STOR"} {
								name := fmt.Sprintf("%s-%v-%s-%d-%s", mode.name, f, verb, i, way)
								caller, at, callee := l.arm(t, x, verb)
								l.connect(t, x, caller, at, callee)
								x.carry(t, way, name, size)
								line := g.await("msg=transfer", "path="+name)
								for _, words := range []string{"carried=kernel", "outcome=whole", fmt.Sprintf("bytes=%d ", size)} {
									if !strings.Contains(line, words) {
										t.Errorf("the log has not %s: %s", words, line)
									}
								}
								if seen := peer(x.clientData) == serverAddress[f].Addr(); seen != mode.seesServer {
									t.Errorf("%s: the client sees data from %v", verb, peer(x.clientData))
								}
								if seen := peer(x.serverData) == clientAddress[f].Addr(); seen != mode.seesClient {
									t.Errorf("%s: the server sees data from %v", verb, peer(x.serverData))
								}
								if i == 0 {
									caller.refused(t, at) // it was for one
								}
							}
						}
						l.noPinholes(t)
						x.client.part(x.server)
					})
				}
			}
			g.Stop()
			g.checkClean()
		})
	}
}

// peer is the address that a connection's other end seems to have.
func peer(c net.Conn) netip.Addr { return c.RemoteAddr().(*net.TCPAddr).AddrPort().Addr().Unmap() }

// carry performs a transfer of zeros over its connected data connection.
func (x *transfers) carry(t *testing.T, verb, name string, size int64) {
	t.Helper()
	x.client.say("%s %s", verb, name)
	x.server.expect(verb+" "+name, "150 here")
	x.client.hear("150")
	from, to := x.serverData, x.clientData
	if verb == "STOR" {
		from, to = to, from
	}
	sent := make(chan error, 1)
	go func() {
		_, err := io.CopyN(from, zeros{}, size)
		from.Close()
		if verb == "RETR" { // whose end may come with the server's word only
			x.server.say("226 done")
		}
		sent <- err
	}()
	n, err := drain(to)
	to.Close()
	if n != size || err != nil {
		t.Errorf("%s: %d of %d bytes, %v", name, n, size, err)
	}
	if err := <-sent; err != nil {
		t.Error(err)
	}
	if verb == "STOR" {
		x.server.say("226 done")
	}
	x.client.hear("226")
}

const kernelTproxy = "listeners: [{mode: tproxy, data_path: kernel}]\nlog: {level: debug}\n"

// A pinhole is for its peer alone, for one connection, and for as long as data connections may take.
func TestAttackPinhole(t *testing.T) {
	need(t, "nft", "conntrack")
	l := newLab(t)
	g := l.startGateway(kernelTproxy + "timeouts: {data_setup: 1s}\n")
	p := newPuppet(t, l, port(serverAddress, v4, 21))
	x := l.session(t, p, p.at, "alice")
	thief := netip.MustParsePrefix("192.0.2.66/24")
	l.Client.AddAddress("eth0", thief)

	t.Run("theft", func(t *testing.T) {
		caller, at, callee := l.arm(t, x, "EPSV")
		ctx, cancel := context.WithTimeout(t.Context(), 400*time.Millisecond)
		defer cancel()
		err := l.Client.Do(func() error {
			d := net.Dialer{LocalAddr: &net.TCPAddr{IP: thief.Addr().AsSlice()}}
			c, err := d.DialContext(ctx, "tcp", at.String())
			if err == nil {
				c.Close()
			}
			return err
		})
		if err == nil {
			t.Error("a stranger was let through")
		}
		l.connect(t, x, caller, at, callee)
		x.carry(t, "RETR", "mine", 100)
		g.await("path=mine", "carried=kernel", "bytes=100")
	})
	t.Run("expiry", func(t *testing.T) {
		caller, at, _ := l.arm(t, x, "EPSV")
		if !strings.Contains(l.Firewall.must("conntrack", "-L", "expect"), "proto=6") {
			t.Error("there is no pinhole, so this shows nothing")
		}
		g.until("the pinhole is gone", func() bool { return !strings.Contains(l.Firewall.must("conntrack", "-L", "expect"), "proto=6") })
		caller.refused(t, at)
	})
	t.Run("expired and renewed", func(t *testing.T) {
		caller, at, callee := l.arm(t, x, "EPSV")
		g.until("the pinhole is gone", func() bool { return !strings.Contains(l.Firewall.must("conntrack", "-L", "expect"), "proto=6") })
		x.client.say("RETR late")
		x.server.expect("RETR late", "150 here")
		x.client.hear("150")
		l.connect(t, x, caller, at, callee)
		x.serverData.Close()
		if n, err := drain(x.clientData); n != 0 || err != nil {
			t.Errorf("%d bytes, %v", n, err)
		}
		x.clientData.Close()
		x.server.say("226 done")
		x.client.hear("226")
		g.await("path=late", "carried=kernel")
	})
	t.Run("refused command", func(t *testing.T) {
		// A server that says no and keeps the connection would have a tunnel that nobody sees.
		caller, at, callee := l.arm(t, x, "EPSV")
		l.connect(t, x, caller, at, callee)
		x.client.say("RETR secret")
		x.server.expect("RETR secret", "550 no")
		x.client.hear("550")
		mustReset(t, "the client", x.clientData)
		mustReset(t, "the server", x.serverData)
	})
	t.Run("refused active", func(t *testing.T) {
		callee := l.Client.listen(t, port(clientAddress, v4, 0))
		at := callee.Addr().(*net.TCPAddr).AddrPort()
		x.client.say("EPRT %s", extended(at))
		x.server.expect("EPRT "+extended(at), "500 no")
		x.client.hear("500")
		l.Server.refused(t, at)
		l.noPinholes(t)
	})
	t.Run("after the end", func(t *testing.T) {
		// The client keeps its side open, as a way back for what nobody counts.
		caller, at, callee := l.arm(t, x, "EPSV")
		l.connect(t, x, caller, at, callee)
		x.client.say("RETR half")
		x.server.expect("RETR half", "150 here")
		x.client.hear("150")
		x.serverData.(*net.TCPConn).CloseWrite()
		x.server.say("226 done")
		x.client.hear("226")
		g.until("the kernel lets no more through", func() bool {
			_, err := x.clientData.Write([]byte("on and on"))
			return err != nil
		})
	})
	t.Run("the kernel's helper reads along", func(t *testing.T) {
		// What would open a pinhole if nf_conntrack_ftp saw it.
		x.client.say("NOOP")
		x.server.expect("NOOP", "200-\r\n227 Entering Passive Mode (198,51,100,2,200,200)\r\n200 done")
		for x.client.line() != "200 done" {
		}
		l.noPinholes(t)
	})
	x.client.part(x.server)
	g.Stop()
	g.checkClean()
}

// A transfer that the kernel carries is broken as thoroughly as one of ours.
func TestKernelBroken(t *testing.T) {
	need(t, "nft", "conntrack")
	l := newLab(t)
	g := l.startGateway(kernelTproxy + "timeouts: {data_idle: 2s}\n")
	p := newPuppet(t, l, port(serverAddress, v4, 21))
	for _, verb := range []string{"RETR", "STOR"} {
		both := func(t *testing.T, x *transfers) {
			mustReset(t, "the client", x.clientData)
			mustReset(t, "the server", x.serverData)
		}
		t.Run(verb+"/client gone", func(t *testing.T) {
			x := begin(t, l, p, verb)
			x.client.Close()
			both(t, x)
			x.server.ended()
		})
		t.Run(verb+"/server gone", func(t *testing.T) {
			x := begin(t, l, p, verb)
			x.server.Close()
			both(t, x)
			x.client.hear("426")
			x.client.ended()
		})
		t.Run(verb+"/one end's reset", func(t *testing.T) {
			x := begin(t, l, p, verb)
			x.clientData.(*net.TCPConn).SetLinger(0)
			x.clientData.Close()
			mustReset(t, "the server", x.serverData)
			x.server.say("226 I take it as whole")
			x.client.hear("426")
		})
		t.Run(verb+"/no byte moves", func(t *testing.T) {
			x := begin(t, l, p, verb)
			both(t, x)
			x.server.say("226 I take it as whole")
			x.client.hear("426")
			g.await("outcome=broken", "no byte moved", "carried=kernel")
		})
		t.Run(verb+"/the server's no", func(t *testing.T) {
			x := begin(t, l, p, verb)
			x.server.say("451 disk full")
			x.client.hear("451")
			both(t, x)
		})
	}
	l.noPinholes(t)
	g.Signal(syscall.SIGTERM)
	<-g.ended
	g.checkClean()

	for _, verb := range []string{"RETR", "STOR"} {
		t.Run(verb+"/stopped at once", func(t *testing.T) {
			g := l.startGatewayAs(kernelTproxy, l.Firewall.Command)
			x := begin(t, l, p, verb)
			before := strings.Count(g.log(), "draining") // the log may be one with the last one's
			g.Signal(syscall.SIGTERM)
			g.until("it drains", func() bool { return strings.Count(g.log(), "draining") > before })
			g.Signal(syscall.SIGTERM)
			mustReset(t, "the client", x.clientData)
			mustReset(t, "the server", x.serverData)
			<-g.ended
		})
		t.Run(verb+"/drained", func(t *testing.T) {
			g := l.startGatewayAs(kernelTproxy+"timeouts: {drain: 1s}\n", l.Firewall.Command)
			x := begin(t, l, p, verb)
			g.Signal(syscall.SIGTERM)
			mustReset(t, "the client", x.clientData)
			mustReset(t, "the server", x.serverData)
			x.client.hear("421")
			<-g.ended
		})
	}
}

// The sender's host forgets the connection as soon as all is acknowledged, since it has no room for those that wait to be forgotten, and
// answers what comes later with a reset. Nothing is lost by that, and nothing is said to be.
func TestKernelForgotten(t *testing.T) {
	need(t, "nft", "conntrack")
	l := newLab(t)
	for _, n := range []*namespace{l.Client, l.Server} {
		n.sysctl("net/ipv4/tcp_max_tw_buckets", "0")
	}
	g := l.startGateway(kernelTproxy)
	p := newPuppet(t, l, port(serverAddress, v4, 21))
	for _, verb := range []string{"RETR", "STOR"} {
		x := begin(t, l, p, verb)
		from, to := x.serverData, x.clientData
		if verb == "STOR" {
			from, to = to, from
		}
		if _, err := from.Write([]byte("all of it")); err != nil {
			t.Fatal(err)
		}
		to.(*net.TCPConn).SetKeepAliveConfig(net.KeepAliveConfig{Enable: true, Idle: time.Second})
		from.Close()
		forgotten := func() bool {
			said, err := l.Firewall.Command(t.Context(), "conntrack", "-L", "-p", "tcp", "--state", "CLOSE").Output()
			return err == nil && strings.Contains(string(said), fmt.Sprintf("port=%d ", to.RemoteAddr().(*net.TCPAddr).Port))
		}
		g.until("the sender's host answers with a reset", forgotten)
		to.Close()
		x.server.say("226 done")
		x.client.hear("226")
	}
	g.Stop()
	g.checkClean()
}

// A firewall that does not let in what is related: the connection comes to us in place of the kernel, and so does the next.
func TestKernelBlocked(t *testing.T) {
	need(t, "nft", "conntrack")
	for _, mode := range kernelModes {
		t.Run(mode.name, func(t *testing.T) {
			t.Parallel()
			l := newLab(t)
			g := l.startGateway(strings.Replace(kernelConfig(mode.listener), "kernel", "auto", 1))
			p := newPuppet(t, l, port(serverAddress, v4, 21))
			to, user := p.at, "alice"
			if mode.dial != nil {
				to = mode.dial(v4)
			}
			if mode.user != nil {
				user = mode.user(v4)
			}
			for n, verb := range []string{"EPSV", "EPSV", "EPRT"} {
				x := l.session(t, p, to, user)
				if verb == "EPRT" { // forget that it was blocked
					g.reload(strings.Replace(kernelConfig(mode.listener), "kernel", "auto", 1))
					x = l.session(t, p, to, user)
				}
				caller, at, callee := l.arm(t, x, verb)
				name := fmt.Sprintf("file-%d", n)
				from := x.client.LocalAddr()
				if caller == l.Server {
					from = x.server.LocalAddr()
				}
				// The two ends connect in their own time: our leg to the callee follows the caller's to us.
				called := accepted(t, callee)
				c := caller.callFrom(t, netip.AddrPortFrom(from.(*net.TCPAddr).AddrPort().Addr().Unmap(), 0), at)
				d := called()
				if x.clientData, x.serverData = c, d; caller == l.Server {
					x.clientData, x.serverData = d, c
				}
				x.carry(t, "RETR", name, 100_000)
				g.await("path="+name, "carried=splice", "bytes=100000", "outcome=whole")
				x.client.part(x.server)
			}
			if n := strings.Count(g.log(), "did not get through"); n != 2 {
				t.Errorf("the log warns %d times of a blocked connection, not once for each reload", n)
			}
			g.Stop()
			g.checkClean()
		})
	}
}

// What a run that was killed leaves is taken away by the next.
func TestKernelKilled(t *testing.T) {
	need(t, "nft", "conntrack")
	l := newLab(t)
	g := l.startGateway(kernelConfig("mode: gateway, server: '198.51.100.2:21'"))
	p := newPuppet(t, l, port(serverAddress, v4, 21))
	x := l.session(t, p, ftpalgItself(v4), "alice")
	caller, at, _ := l.arm(t, x, "EPSV")
	g.Signal(syscall.SIGKILL)
	<-g.ended
	x.server.ended()
	if !strings.Contains(l.Firewall.must("conntrack", "-L", "expect"), "proto=6") {
		t.Error("it left nothing, so this shows nothing")
	}
	// Not with its rules applied anew, which would be another way to be rid of what is in them.
	program := ftpalgProgram(t)
	again := l.Firewall.Start("again", l.Firewall.Command(context.Background(), program, "run", "--config", g.config))
	(&gateway{daemon: again, lab: l}).await("msg=listening")
	l.noPinholes(t)
	caller.refused(t, at)
	again.Stop()
}

// Somebody takes the rules away, and in that moment a data connection begins: it is found afterwards, as long as it lives.
func TestKernelUnseen(t *testing.T) {
	need(t, "nft", "conntrack")
	for _, listener := range []string{"mode: tproxy", "mode: gateway, server: '198.51.100.2:21'"} {
		l := newLab(t)
		g := l.startGateway(kernelConfig(listener))
		p := newPuppet(t, l, port(serverAddress, v4, 21))
		to := p.at
		if strings.Contains(listener, "gateway") {
			to = ftpalgItself(v4)
		}
		for verb, way := range map[string]string{"EPSV": "RETR", "EPRT": "STOR"} {
			x := l.session(t, p, to, "alice")
			caller, at, callee := l.arm(t, x, verb)
			// Translations stay: without them nothing would get through.
			l.Firewall.must("nft", "flush chain inet ftpalg pinhole_passing")
			l.connect(t, x, caller, at, callee)
			l.Firewall.must(ftpalgProgram(t), "rules", "--apply", "--config", g.config)
			time.Sleep(2 * time.Second) // it is looked for four times a second
			x.carry(t, way, way, 50000)
			g.await("path="+way, "carried=kernel", "bytes=50000 ", "outcome=whole")
			x.client.part(x.server)
		}
		g.Stop()
		g.checkClean()
	}
}

// The rules are there and something else is not: what is to be said of it.
func TestKernelLacking(t *testing.T) {
	need(t, "nft", "conntrack")
	for _, lack := range []struct{ name, do, says string }{
		{"rules", "nft delete table inet ftpalg; nft add table inet ftpalg", "ftpalg rules --apply"},
		{"accounting", "sysctl -qw net.netfilter.nf_conntrack_acct=0", "sysctl -w net/netfilter/nf_conntrack_acct=1"},
	} {
		t.Run(lack.name, func(t *testing.T) {
			l := newLab(t)
			l.startGateway(kernelTproxy).Stop()
			l.Firewall.must("sh", "-c", lack.do)
			program := ftpalgProgram(t)
			config := l.Dir + "/ftpalg.yaml"
			d := l.Firewall.Start("again", l.Firewall.Command(context.Background(), program, "run", "--config", config))
			g := &gateway{daemon: d, lab: l}
			g.await("msg=listening")
			g.await("level=WARN", "the kernel cannot carry data connections", lack.says)
			g.Stop()
		})
	}
	t.Run("log group", func(t *testing.T) {
		l := newLab(t)
		first := l.startGateway(kernelTproxy)
		config := l.Dir + "/second.yaml"
		text := strings.Replace(kernelTproxy, "mode: tproxy", "mode: tproxy, address: '[::]:2122'", 1)
		if err := os.WriteFile(config, []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
		second := &gateway{daemon: l.Firewall.Start("second", l.Firewall.Command(context.Background(), ftpalgProgram(t), "run", "--config", config)), lab: l}
		second.await("level=WARN", "log group 3990", "choose another log_group")
		second.Stop()
		first.Stop()
	})
}

// More than 4 GiB are counted as exactly, though TCP's numbers come round.
func TestKernelHuge(t *testing.T) {
	need(t, "nft", "conntrack")
	const size = 1<<32 + 5
	l := newLab(t)
	g := l.startGateway(kernelTproxy)
	p := newPuppet(t, l, port(serverAddress, v4, 21))
	x := l.session(t, p, p.at, "alice")
	caller, at, callee := l.arm(t, x, "EPSV")
	l.connect(t, x, caller, at, callee)
	for _, c := range []net.Conn{x.client, x.server, x.clientData, x.serverData} {
		c.SetDeadline(time.Now().Add(5 * time.Minute))
	}
	x.carry(t, "RETR", "huge", size)
	g.await("path=huge", "carried=kernel", fmt.Sprintf("bytes=%d ", int64(size)))
}

// TestNoTimeWait: a transparent proxy's sockets in TIME_WAIT have the addresses of client and server, and the kernel drops what
// it should forward between the same two ports. None may be left, so that what comes next gets through at once.
func TestNoTimeWait(t *testing.T) {
	need(t, "nft", "ss")
	l := newLab(t)
	g := l.startGateway("listeners: [{mode: tproxy, data_path: splice}]\nlog: {level: debug}\n")
	p := newPuppet(t, l, port(serverAddress, v4, 21))
	var tuples [][2]netip.AddrPort // caller's end, callee's
	for _, verb := range []string{"EPSV", "EPRT"} {
		for _, way := range []string{"RETR", "STOR"} {
			x := l.session(t, p, p.at, "alice")
			caller, at, callee := l.arm(t, x, verb)
			called := accepted(t, callee)
			var c net.Conn
			if caller == l.Client {
				c = caller.callFrom(t, port(clientAddress, v4, 0), at)
			} else {
				c = caller.callFrom(t, port(serverAddress, v4, 0), at)
			}
			d := called()
			callee.Close()
			if x.clientData, x.serverData = c, d; caller == l.Server {
				x.clientData, x.serverData = d, c
			}
			for _, c := range []net.Conn{c, d} {
				tuples = append(tuples, [2]netip.AddrPort{c.LocalAddr().(*net.TCPAddr).AddrPort(), c.RemoteAddr().(*net.TCPAddr).AddrPort()})
			}
			x.carry(t, way, "file", 1000)
			tuples = append(tuples, [2]netip.AddrPort{x.client.LocalAddr().(*net.TCPAddr).AddrPort(), p.at})
			x.client.part(x.server)
			x.server.Close()
			x.client.ended()
			x.client.Close()
		}
	}
	waiting := func() string { return l.Firewall.must("ss", "-Htn", "state", "time-wait") }
	// By itself the kernel holds them for a minute.
	for end := time.Now().Add(20 * time.Second); waiting() != "" && time.Now().Before(end); time.Sleep(100 * time.Millisecond) {
	}
	if left := waiting(); left != "" {
		t.Errorf("in TIME_WAIT:\n%s", left)
	}
	g.Stop()
	g.checkClean()
	l.Firewall.must("nft", "delete table inet ftpalg; delete table inet lab")
	for _, tuple := range tuples {
		if tuple[0].Addr().Unmap() != clientAddress[v4].Addr() {
			continue // it is the server's own end
		}
		if tuple[1].Port() != p.at.Port() {
			l.Server.listen(t, netip.AddrPortFrom(tuple[1].Addr().Unmap(), tuple[1].Port()))
		}
		l.Client.callFrom(t, netip.AddrPortFrom(tuple[0].Addr().Unmap(), tuple[0].Port()), netip.AddrPortFrom(tuple[1].Addr().Unmap(), tuple[1].Port())).Close()
	}
}

// A firewall that masquerades: the server knows none but the firewall, in data connections as in the control connection.
func TestKernelMasquerade(t *testing.T) {
	need(t, "nft", "conntrack")
	for _, source := range []string{"client", "own"} {
		t.Run(source, func(t *testing.T) {
			l := newLab(t)
			l.Firewall.must("nft", "add table inet hidden; add chain inet hidden leaving { type nat hook postrouting priority 100; }; "+
				"add rule inet hidden leaving oifname "+serverSide+" masquerade")
			g := l.startGateway(kernelConfig("mode: tproxy, source: " + source))
			p := newPuppet(t, l, port(serverAddress, v4, 21))
			x := l.session(t, p, p.at, "alice")
			if from := peer(x.server); from != serverGateway[v4].Addr() {
				t.Fatalf("the server is called by %v, so nothing is masqueraded", from)
			}
			verbs := []string{"EPSV", "PASV"}
			if source == "own" { // with the client's own address the server would have to reach what is hidden
				verbs = append(verbs, "EPRT", "PORT")
			}
			for _, verb := range verbs {
				caller, at, callee := l.arm(t, x, verb)
				l.connect(t, x, caller, at, callee)
				x.carry(t, "RETR", verb, 5000)
				g.await("path="+verb, "carried=kernel", "bytes=5000", "outcome=whole")
				if from := peer(x.serverData); from != serverGateway[v4].Addr() {
					t.Errorf("%s: the server's data comes from %v", verb, from)
				}
			}
			x.client.part(x.server)
			g.Stop()
			g.checkClean()
		})
	}
}
