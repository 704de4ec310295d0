package tlsmitm

import (
	"bytes"
	"crypto/rand"
	"crypto/tls"
	"errors"
	"io"
	"net"
	"testing"
	"testing/synctest"
	"time"
)

// segments is a connection whose writes can be held back, and counted. It fails when its time has come.
type segments struct {
	net.Conn
	held   []byte
	hold   bool
	writes int
	left   int // writes until it fails; 0: it never does
}

func (s *segments) Write(b []byte) (int, error) {
	if s.hold {
		s.held = append(s.held, b...)
		return len(b), nil
	}
	s.writes++
	if s.left--; s.left == 0 {
		return len(b) / 2, io.ErrShortWrite
	}
	return s.Conn.Write(b)
}

// let sends what was held back, but for the last bytes.
func (s *segments) let(butFor int) {
	n := len(s.held) - butFor
	s.SetWriteDeadline(time.Time{}) // CloseWrite leaves one that is over
	s.Conn.Write(s.held[:n])
	s.held = s.held[n:]
}

// talk is a connection of a client in a bubble, our end and its own, whose segments are for the test to make.
func talk(t *testing.T, version uint16) (near *Conn, far *tls.Conn, fromUs, fromClient *segments) {
	l := newLab(t)
	ours, theirs := pipe()
	fromUs, fromClient = &segments{Conn: ours}, &segments{Conn: theirs}
	far = tls.Client(fromClient, of(version, l.client()))
	done := make(chan error)
	go func() { done <- far.Handshake() }()
	s := l.session("1")
	near, err := s.ToClient(t.Context(), fromUs)
	if err := errors.Join(err, <-done); err != nil {
		t.Fatal(err)
	}
	near.tolerant = false
	t.Cleanup(func() {
		ours.Close()
		theirs.Close()
	})
	return near, far, fromUs, fromClient
}

// TestReadSeveral: a Read with room for it takes what is there, and waits for no more.
func TestReadSeveral(t *testing.T) {
	for name, test := range map[string]struct {
		end  func(far *tls.Conn, s *segments)
		want error
	}{
		"close_notify": {func(far *tls.Conn, s *segments) { far.CloseWrite(); s.let(0) }, io.EOF},
		"FIN": {func(_ *tls.Conn, s *segments) {
			s.let(0)
			s.Conn.(interface{ CloseWrite() error }).CloseWrite()
		}, io.ErrUnexpectedEOF},
	} {
		for version, number := range versions {
			t.Run(version+"/"+name, func(t *testing.T) {
				synctest.Test(t, func(t *testing.T) {
					near, far, _, s := talk(t, number)
					s.hold = true
					var sent []byte
					for size := range 5 { // whole records, and one without its end
						b := bytes.Repeat([]byte{byte(size)}, 1000*(size+1))
						sent = append(sent, b...)
						far.Write(b)
					}
					const last = 5000
					s.let(3)
					room := make([]byte, several)
					n, err := near.Read(room)
					if err != nil || !bytes.Equal(room[:n], sent[:len(sent)-last]) {
						t.Fatalf("read %d bytes of %d that are there, %v", n, len(sent)-last, err)
					}
					test.end(far, s)
					n, err = near.Read(room)
					if !bytes.Equal(room[:n], sent[len(sent)-last:]) {
						t.Errorf("read %d bytes of %d, %v", n, last, err)
					}
					if err == nil {
						n, err = near.Read(room)
					} else {
						n = 0
					}
					if n != 0 || !errors.Is(err, test.want) {
						t.Errorf("at the end read %d bytes, %v", n, err)
					}
					if near.below.store != nil {
						t.Error("it keeps room for bytes that are not there")
					}
				})
			})
		}
	}
}

// TestReadSmall: what a Read has read ahead another one with less room gets.
func TestReadSmall(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		near, far, _, s := talk(t, tls.VersionTLS13)
		sent := make([]byte, 2*several)
		rand.Read(sent)
		s.hold = true
		far.Write(sent)
		go s.let(0) // there is not room for all in the pipe
		got := make([]byte, len(sent))
		for n := 0; n < len(got); {
			room := got[n:min(len(got), n+several)]
			if n > 0 {
				room = room[:min(len(room), 1000)]
			}
			k, err := near.Read(room)
			if err != nil {
				t.Fatal(err)
			}
			n += k
		}
		if !bytes.Equal(got, sent) {
			t.Error("it does not get what was sent")
		}
	})
}

// TestWriteSeveral: what is written goes out in few pieces, and those that went whole are counted.
func TestWriteSeveral(t *testing.T) {
	sent := make([]byte, 3*several+1000)
	rand.Read(sent)
	for version, number := range versions {
		t.Run(version, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				near, far, s, _ := talk(t, number)
				s.writes = 0
				got := make([]byte, len(sent))
				read := make(chan error)
				go func() {
					_, err := io.ReadFull(far, got)
					read <- err
				}()
				n, err := near.Write(sent)
				if err := errors.Join(err, <-read); n != len(sent) || err != nil || !bytes.Equal(got, sent) {
					t.Errorf("wrote %d bytes of %d, %v", n, len(sent), err)
				}
				if s.writes != 4 {
					t.Errorf("in %d pieces", s.writes)
				}
				s.left = 2 // it has no deadline, so it goes on
				go io.Copy(io.Discard, far)
				if n, err := near.Write(sent); n != several || !errors.Is(err, io.ErrShortWrite) {
					t.Errorf("when the second piece of a write breaks, %d bytes are written, and %v", n, err)
				}
			})
		})
	}
}
