//go:build linux

package integration

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"net"
	"strings"
	"sync"
)

// A tiny server is for what no real one is made for: to hold ten thousand sessions in a process of few goroutines, or to be
// killed in the middle of a transfer without end. It is a role of the test program.
type tinyServer struct {
	park bool // sessions are held and not heard any more once they have logged in

	mu     sync.Mutex
	parked []net.Conn
}

// serveTiny is the role. Its arguments are an address and, optionally, "park".
func serveTiny(args []string) error {
	if len(args) == 0 {
		return errors.New("usage: ADDRESS [park]")
	}
	l, err := net.Listen("tcp", args[0])
	if err != nil {
		return err
	}
	s := &tinyServer{park: len(args) == 2 && args[1] == "park"}
	fmt.Println("listening")
	for {
		c, err := l.Accept()
		if err != nil {
			return err
		}
		go s.serve(c)
	}
}

// serve holds a conversation. It understands as much as the tests say.
func (s *tinyServer) serve(c net.Conn) {
	r := bufio.NewReaderSize(c, 256)
	say := func(line string) { io.WriteString(c, line+"\r\n") }
	say("220 tiny")
	var data net.Listener
	for {
		line, err := r.ReadString('\n')
		if err != nil {
			c.Close()
			return
		}
		switch verb, _, _ := strings.Cut(strings.TrimSpace(line), " "); verb {
		case "USER":
			say("331 go on")
		case "PASS":
			say("230 in")
		case "TYPE":
			say("200 ok")
			if s.park {
				s.mu.Lock()
				s.parked = append(s.parked, c)
				s.mu.Unlock()
				return
			}
		case "EPSV":
			if data, err = net.Listen("tcp", net.JoinHostPort(c.LocalAddr().(*net.TCPAddr).IP.String(), "0")); err != nil {
				say("425 " + err.Error())
				continue
			}
			say(fmt.Sprintf("229 ok (|||%d|)", data.Addr().(*net.TCPAddr).Port))
		case "RETR", "STOR":
			say("150 for ever")
			d, err := data.Accept()
			data.Close()
			if err != nil {
				say("425 " + err.Error())
				continue
			}
			if verb == "RETR" {
				io.Copy(d, zeros{})
			} else {
				io.Copy(io.Discard, d)
			}
			d.Close()
			say("426 over")
		default:
			say("500 too much for me")
		}
	}
}
