//go:build linux

package integration

import (
	"bufio"
	"crypto/sha256"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"strings"
	"testing"
	"time"
)

// attackServe serves whoever comes to a puppet, with TLS, until the puppet's listener is closed. It tells the digest of what it
// was sent.
func (f *attackField) attackServe(p *puppet, content []byte) {
	p.l.SetDeadline(time.Time{})
	for {
		c, err := p.l.Accept()
		if err != nil {
			return
		}
		go f.serveOne(c, content)
	}
}

func (f *attackField) serveOne(c net.Conn, content []byte) {
	defer c.Close()
	c.SetDeadline(time.Now().Add(hang))
	r := bufio.NewReader(c)
	say := func(format string, args ...any) { fmt.Fprintf(c, format+"\r\n", args...) }
	say("220 crowded")
	var data net.Listener
	for {
		line, err := r.ReadString('\n')
		if err != nil {
			return
		}
		switch verb, _, _ := strings.Cut(strings.TrimSpace(line), " "); verb {
		case "AUTH":
			say("234 go ahead")
			secure := tls.Server(c, f.serverTLS)
			if secure.Handshake() != nil {
				return
			}
			c, r = secure, bufio.NewReader(secure)
		case "USER":
			say("331 go on")
		case "PASS":
			say("230 in")
		case "PBSZ", "PROT":
			say("200 ok")
		case "EPSV":
			if data, err = f.Server.Listen(f.t.Context(), netip.AddrPortFrom(f.explicit.at.Addr(), 0)); err != nil {
				say("425 %v", err)
				continue
			}
			say("229 ok (|||%d|)", data.Addr().(*net.TCPAddr).Port)
		case "RETR", "STOR":
			say("150 here")
			digest, err := f.serveData(data, verb, content)
			if err != nil {
				say("426 %v", err)
				continue
			}
			say("226 %x", digest)
		case "QUIT":
			say("221 bye")
			return
		default:
			say("500 what")
		}
	}
}

// serveData carries out a transfer and returns the digest of what was sent.
func (f *attackField) serveData(data net.Listener, verb string, content []byte) (digest []byte, err error) {
	defer data.Close()
	c, err := data.Accept()
	if err != nil {
		return nil, err
	}
	defer c.Close()
	c.SetDeadline(time.Now().Add(hang))
	secure, hash := tls.Server(c, f.serverTLS), sha256.New()
	if verb == "RETR" {
		_, err = io.MultiWriter(secure, hash).Write(content)
	} else {
		_, err = io.Copy(hash, secure)
	}
	return hash.Sum(nil), errors.Join(err, secure.Close())
}

// attackMember is one client of a crowd with TLS.
type attackMember struct {
	*member
	f      *attackField
	config *tls.Config
}

// attackJoin logs in over TLS.
func (f *attackField) attackJoin(id int) (*attackMember, error) {
	c, err := f.Client.Dial(f.t.Context(), f.explicit.at)
	if err != nil {
		return nil, err
	}
	c.SetDeadline(time.Now().Add(hang))
	m := &attackMember{&member{id, c, bufio.NewReader(c)}, f, f.clientTLS()}
	if _, err := m.hear("220"); err != nil {
		return nil, err
	}
	if _, err := m.ask("AUTH TLS", "234"); err != nil {
		return nil, err
	}
	secure := tls.Client(c, m.config)
	if err := secure.Handshake(); err != nil {
		return nil, err
	}
	m.Conn, m.r = secure, bufio.NewReader(secure)
	for _, line := range [][2]string{{"USER alice", "331"}, {"PASS " + ftpPassword, "230"}, {"PBSZ 0", "200"}, {"PROT P", "200"}} {
		if _, err := m.ask(line[0], line[1]); err != nil {
			return nil, err
		}
	}
	return m, nil
}

// work moves a file each way and says goodbye.
func (m *attackMember) work(want []byte) error {
	defer m.Close()
	for _, verb := range []string{"RETR", "STOR"} {
		if err := m.moves(verb, want); err != nil {
			return fmt.Errorf("%s: %w", verb, err)
		}
	}
	_, err := m.ask("QUIT", "221")
	return err
}

// moves moves one file, and compares both sides' digests of it.
func (m *attackMember) moves(verb string, want []byte) error {
	reply, err := m.ask("EPSV", "229")
	if err != nil {
		return err
	}
	at, err := portNamed(reply)
	if err != nil {
		return err
	}
	c, err := m.f.Client.Dial(m.f.t.Context(), netip.AddrPortFrom(m.f.explicit.at.Addr(), at))
	if err != nil {
		return err
	}
	defer c.Close()
	c.SetDeadline(time.Now().Add(hang))
	if _, err := m.ask(verb+" file", "150"); err != nil {
		return err
	}
	secure, hash := tls.Client(c, m.config), sha256.New()
	if verb == "RETR" {
		_, err = io.Copy(hash, secure)
	} else {
		own := crowdContent(m.id, 100<<10+m.id)
		_, err = io.MultiWriter(secure, hash).Write(own)
	}
	if err = errors.Join(err, secure.Close()); err != nil {
		return err
	}
	if !secure.ConnectionState().DidResume {
		return errors.New("the data connection has not resumed the session")
	}
	digest := hash.Sum(nil)
	if verb == "RETR" && string(digest) != string(want) {
		return errors.New("other bytes have arrived")
	}
	if reply, err = m.hear("226"); err == nil && strings.TrimSpace(reply) != fmt.Sprintf("226 %x", digest) {
		err = fmt.Errorf("%s: the server has other bytes than %x", reply, digest)
	}
	return err
}

// Many sessions with TLS at once, and then many that never get that far.
func TestAttackTLSFlood(t *testing.T) {
	const clients, flood, admitted = 200, 500, 100
	f := newAttackField(t, attackTLSConfig)
	content := crowdContent(0, 100<<10)
	want := sha256.Sum256(content)
	go f.attackServe(f.explicit, content)
	knock := f.knock(f.explicit.at)

	members := make([]*attackMember, clients)
	err := together(clients, 20, func(i int) (err error) {
		members[i], err = f.attackJoin(i)
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	if n := f.gateway.descriptors() - f.files; n != 2*clients {
		t.Errorf("%d files are open for %d sessions", n, clients)
	}
	begun := time.Now()
	if err := together(clients, clients, func(i int) error { return members[i].work(want[:]) }); err != nil {
		t.Fatal(err)
	}
	t.Logf("%d transfers at once in %v", 2*clients, time.Since(begun))
	f.gateway.settled(f.files, knock)
	if n := strings.Count(f.gateway.log(), "outcome=whole"); n != 2*clients {
		t.Errorf("the log has %d whole transfers, not %d", n, 2*clients)
	}
	if line := f.gateway.logged("outcome=broken"); line != "" {
		t.Errorf("not all is well: %s", line)
	}

	// Whoever stalls in its handshake has what its address may have, and no more.
	limits := fmt.Sprintf("limits: {sessions_per_client: %d}\ntimeouts: {tls_handshake: 1h}\n", admitted)
	f.gateway.reload(f.head + attackTLSConfig + limits)
	hello := attackHello(t, f.clientTLS())
	var stalled []net.Conn
	for range flood {
		c := f.Client.callFrom(t, thiefAddress, f.implicit.at)
		c.Write(hello[:len(hello)/2]) // fails where it has been refused already
		stalled = append(stalled, c)
	}
	const refused = `rule="limits.sessions_per_client 100"`
	f.gateway.until("the rest of the flood has been refused", func() bool {
		return strings.Count(f.gateway.log(), refused) == flood-admitted
	})
	if n := f.gateway.descriptors() - f.files; n != 2*admitted {
		t.Errorf("%d files are open for %d handshakes", n, admitted)
	}
	m, err := f.attackJoin(0)
	if err == nil {
		err = m.work(want[:])
	}
	if err != nil {
		t.Errorf("an honest client among them: %v", err)
	}
	for _, c := range stalled {
		c.Close()
	}
	f.gateway.settled(f.files, knock)
	f.gateway.goroutines(t)
	f.gateway.Stop()
	f.gateway.checkClean()
}
