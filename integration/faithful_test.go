//go:build linux

package integration

import (
	"fmt"
	"io"
	"net"
	"net/netip"
	"regexp"
	"strings"
	"testing"
)

// A transparent gateway is none that either side could notice: these tests compare bytes and addresses on both sides.

// exactly fails the test unless the next bytes that this end hears are these.
func (k *talk) exactly(who, want string) {
	k.t.Helper()
	got := make([]byte, len(want))
	n, err := io.ReadFull(k.r, got)
	if err != nil || string(got) != want {
		k.t.Fatalf("%s heard %q (%v) instead of %q", who, got[:n], err, want)
	}
}

// raw hears a line with its end.
func (k *talk) raw() string {
	k.t.Helper()
	l, err := k.r.ReadString('\n')
	if err != nil {
		k.t.Fatalf("%v after %q", err, l)
	}
	return l
}

// Commands and replies as peers in the field spell them, and odder ones. Lines end in CR LF, in whatever else bytes are kept.
var oddCommands = []string{
	"NOOP", "noop", "nOoP ", "PWD", "XPWD  ", "CWD  two  spaces ", "cwd\x20\x20", "MKD tab\there", "SIZE caf\xc3\xa9", "DELE \xe9\x80\xfe latin",
	"DELE doubled\xff\xff", "DELE bare\xffhere", "RNFR ..\\//\"quoted\"", "MDTM 20260101000000 name", "OPTS UTF8 ON", "opts mlst Type;Size;",
	"XYZZY what is this", "xYzZy", "SITE CHMOD 777 %n%s", "site \x01\x02\x7f", "TYPE A N", "type i", "STRU F", "MODE S", "REST 00012",
	"ALLO 5 R 6", "STAT ", "STAT -la /", "HELP sITE", "MLST ;,:*?", "CLNT \xf0\x9f\x90\xa7", "HOST Ftp.Example.ORG", "ACCT x y ",
	"SIZE " + strings.Repeat("long/", 700),
}

var oddReplies = []string{
	"200 ok\r\n", "200\r\n", "200 \r\n", "200   spaces  \r\n", "250 \xe9\xff\xfe\x01\x7f\r\n", "257 \"with \"\"quotes\"\"\" %s%n\r\n",
	"200-\r\n\r\n200 \r\n", "211-one\r\n two\r\n 211 not yet\r\n212 nor this\r\n2111\r\n\tx\r\n211-nor this\r\n211 end\r\n",
	"550 No such file\r\n", "502-\r\n502 not here\r\n", "450 try later (198,51,100,2,1,2)\r\n", "350 |||5|\r\n",
	"125 soon\r\n250 now\r\n", "250-" + strings.Repeat("long ", 500) + "\r\n250 x\r\n",
}

const faithfulConfig = "listeners: [{mode: %s, source: client}]\nlog: {level: debug}\n"

func TestFaithful(t *testing.T) {
	for _, mode := range []string{"tproxy", "redirect"} {
		t.Run(mode, func(t *testing.T) {
			l := newLab(t)
			g := l.startGateway(fmt.Sprintf(faithfulConfig, mode))
			for _, f := range families {
				t.Run(f.String(), func(t *testing.T) {
					p := newPuppet(t, l, port(serverAddress, f, 21))
					k := l.Client.call(t, p.at)
					s := p.admit(k, "alice")
					if got := s.RemoteAddr().(*net.TCPAddr).AddrPort().Addr(); got != clientAddress[f].Addr() {
						t.Errorf("the server is called from %v", got)
					}
					if got := k.RemoteAddr().String(); got != p.at.String() {
						t.Errorf("the client is connected to %v", got)
					}
					for i, command := range oddCommands {
						reply := oddReplies[i%len(oddReplies)]
						k.send(command + "\r\n")
						s.exactly("the server", command+"\r\n")
						s.send(reply)
						k.exactly("the client", reply)
					}
					for _, reply := range oddReplies {
						k.send("NOOP\r\n")
						s.exactly("the server", "NOOP\r\n")
						s.send(reply)
						k.exactly("the client", reply)
					}
					k.send("fEAT\r\n")
					s.exactly("the server", "fEAT\r\n")
					s.send("211-Extensions supported: \r\n AUTH TLS\r\n  EPRT\r\n MDTM \r\n pbsz\r\n PROT\r\n X-\xe9\r\n211 End \r\n")
					k.exactly("the client", "211-Extensions supported: \r\n  EPRT\r\n MDTM \r\n X-\xe9\r\n211 End \r\n")
					k.send("AUTH TLS\r\n")
					k.hear("5")
					l.everyWay(t, f, k, s, p)
					k.send("quit\r\n")
					s.exactly("the server", "quit\r\n") // and nothing before it
					s.send("221 see  you \r\n")
					k.exactly("the client", "221 see  you \r\n")
					if said := k.ended(); said != "" {
						t.Errorf("the client heard %q after the goodbye", said)
					}
					if said := s.ended(); said != "" {
						t.Errorf("the server heard %q after the goodbye", said)
					}
				})
			}
			g.Stop()
			g.checkClean()
		})
	}
}

// everyWay moves a file by each of the data verbs of a family, and looks at who calls whom and what is said of it. The
// client has logged in at the puppet's end s by way of a transparent gateway.
func (l *lab) everyWay(t *testing.T, f family, k, s *talk, p *puppet) {
	t.Helper()
	client, server := clientAddress[f].Addr(), p.at.Addr()
	commas := func(a netip.AddrPort) string {
		return fmt.Sprintf("%s,%d,%d", strings.ReplaceAll(a.Addr().String(), ".", ","), a.Port()>>8, a.Port()&255)
	}
	for _, verb := range verbs[f] {
		spelled := verb[:1] + strings.ToLower(verb[1:])
		if verb == "PASV" || verb == "EPSV" {
			data := l.Server.listen(t, netip.AddrPortFrom(server, 0))
			at := data.Addr().(*net.TCPAddr).AddrPort()
			before, numbers, after := "229 Come \xe9 in (", fmt.Sprintf("|||%d|", at.Port()), ") |||7| \r\n"
			if verb == "PASV" {
				before, numbers, after = "227 =Come \xe9 in (", commas(at), "), do. \r\n"
			}
			k.send(spelled + "\r\n")
			s.exactly("the server", spelled+"\r\n")
			s.send(before + numbers + after)
			reply := k.raw()
			told := netip.AddrPortFrom(server, passivePort(t, reply))
			want := before + strings.NewReplacer(commas(at), commas(told), numbers, fmt.Sprintf("|||%d|", told.Port())).Replace(numbers) + after
			if reply != want {
				t.Errorf("the client heard %q instead of %q", reply, want)
			}
			c := l.Client.callFrom(t, netip.AddrPortFrom(client, 0), told)
			moveFile(t, k, s, func() net.Conn { return c }, func() net.Conn {
				d := accepted(t, data)()
				if from := d.RemoteAddr().(*net.TCPAddr).AddrPort().Addr(); from != client {
					t.Errorf("%s: the server is called from %v", verb, from)
				}
				return d
			})
			continue
		}
		mine := l.Client.listen(t, netip.AddrPortFrom(client, 0))
		at := mine.Addr().(*net.TCPAddr).AddrPort()
		extended := func(a netip.AddrPort) string { return fmt.Sprintf("|%d|%s|%d|", f+1, a.Addr(), a.Port()) }
		format, pattern := extended, `^Eprt \|[12]\|([^|]+)\|(\d+)\|\r\n$`
		if verb == "PORT" {
			format, pattern = commas, `^Port (\d+,\d+,\d+,\d+),(\d+),(\d+)\r\n$`
		}
		k.send(spelled + " " + format(at) + "\r\n")
		line := s.raw()
		m := regexp.MustCompile(pattern).FindStringSubmatch(line)
		if m == nil {
			t.Fatalf("the server heard %q", line)
		}
		var high, low uint16
		fmt.Sscan(m[len(m)-1], &low)
		if verb == "PORT" {
			fmt.Sscan(m[2], &high)
		}
		told := netip.AddrPortFrom(netip.MustParseAddr(strings.ReplaceAll(m[1], ",", ".")), high<<8+low)
		if told.Addr() != client {
			t.Errorf("%s: the server is told of %v", verb, told)
		}
		s.send("200 so be it \r\n")
		k.exactly("the client", "200 so be it \r\n")
		called := accepted(t, mine)
		moveFile(t, k, s, func() net.Conn {
			c := called()
			if from := c.RemoteAddr().String(); from != netip.AddrPortFrom(server, 20).String() {
				t.Errorf("%s: the client is called from %s", verb, from)
			}
			return c
		}, func() net.Conn { return l.Server.callFrom(t, netip.AddrPortFrom(server, 20), told) })
	}
}
