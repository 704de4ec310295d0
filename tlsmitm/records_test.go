package tlsmitm

import (
	"bytes"
	"crypto/rand"
	"crypto/tls"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"
)

func unhex(t testing.TB, s string) []byte {
	b, err := hex.DecodeString(strings.Map(func(r rune) rune {
		if r == ' ' || r == '\n' || r == '\t' {
			return -1
		}
		return r
	}, s))
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// TestRecordVectors: keys and a record are those of RFC 8448 §3.
func TestRecordVectors(t *testing.T) {
	h, err := newHalf(suites[tls.TLS_AES_128_GCM_SHA256], unhex(t,
		"9e40646ce79a7f9dc05af8889bce6552875afa0b06df0087f792ebb7c17504a5"))
	if err != nil {
		t.Fatal(err)
	}
	key, err := h.expand(h.secret, "key", h.keyLen)
	if err != nil || !bytes.Equal(key, unhex(t, "17422dda596ed5d9acd890e3c63f5051")) {
		t.Errorf("the key is %x, %v", key, err)
	}
	if !bytes.Equal(h.iv[:], unhex(t, "5b78923dee08579033e523d9")) {
		t.Errorf("the IV is %x", h.iv)
	}
	room := make([]byte, headerLen+50+trailerLen)
	for i := range 50 {
		room[headerLen+i] = byte(i)
	}
	r := &Records{out: h}
	r.seal(applicationRecord, room)
	if want := unhex(t, `17 03 03 00 43 a2 3f 70 54 b6 2c 94 d0 af fa fe 82 28 ba 55 cb ef ac ea 42 f9 14 aa 66 bc ab 3f
		2b 98 19 a8 a5 b4 6b 39 5b d5 4a 9a 20 44 1e 2b 62 97 4e 1f 5a 62 92 a2 97 70 14 bd 1e 3d ea e6 3a ee bb 21 69 49 15 e4`); !bytes.Equal(room, want) {
		t.Errorf("the record is %x", room)
	}
}

// forger is a peer that can send whatever it likes: it has the keys, which only an honest peer and a client or server that was taken
// over have, but keeps to no rule.
type forger struct {
	t   testing.TB
	to  net.Conn
	out half
	in  *Records // what it hears
}

// forge joins a forger and Records, in a bubble. server: the forger is the client.
func forge(t testing.TB, id uint16, server bool) (*Records, *forger) {
	near, far := pipe()
	there, back := make([]byte, suites[id].hashLen), make([]byte, suites[id].hashLen)
	rand.Read(there)
	rand.Read(back)
	must := func(h half, err error) half {
		if err != nil {
			t.Fatal(err)
		}
		return h
	}
	r := &Records{Conn: near, server: server, in: must(newHalf(suites[id], there)), out: must(newHalf(suites[id], back))}
	f := &forger{t, far, must(newHalf(suites[id], there)), &Records{Conn: far, in: must(newHalf(suites[id], back))}}
	t.Cleanup(func() {
		near.Close()
		far.Close()
	})
	return r, f
}

// record is one with a type of the forger's choice, and so much padding.
func (f *forger) record(kind recordType, b []byte, padding int) []byte {
	record := append(make([]byte, headerLen), b...)
	record = append(record, byte(kind))
	record = append(record, make([]byte, padding+tagLen)...)
	n := len(record) - headerLen
	copy(record, []byte{byte(applicationRecord), 3, 3, byte(n >> 8), byte(n)})
	body := record[headerLen:]
	f.out.aead.Seal(body[:0], f.out.next(), body[:len(body)-tagLen], record[:headerLen])
	return record
}

func (f *forger) file(text string) []byte { return f.record(applicationRecord, []byte(text), 0) }

func (f *forger) end() []byte { return f.record(alertRecord, []byte{1, 0}, 0) }

// message is one of the handshake.
func messageOf(kind messageType, b ...byte) []byte {
	return append([]byte{byte(kind), byte(len(b) >> 16), byte(len(b) >> 8), byte(len(b))}, b...)
}

// renewed is a KeyUpdate, and the forger's own going on to the next key.
func (f *forger) renewed(request byte) []byte {
	record := f.record(handshakeRecord, messageOf(keyUpdate, request), 0)
	if err := f.out.update(); err != nil {
		f.t.Fatal(err)
	}
	return record
}

// TestRecordsTake: what a peer may say, it may say, and how it says it does not matter. What it must not say ends the connection,
// and it is told why.
func TestRecordsTake(t *testing.T) {
	ticket := messageOf(newSessionTicket, make([]byte, 300)...)
	flipped := func(record []byte, at int) []byte {
		record[at] ^= 1
		return record
	}
	const ok = tls.AlertError(255)
	for name, test := range map[string]struct {
		say    func(f *forger) [][]byte
		server bool           // we are the server
		file   string         // what we read
		alert  tls.AlertError // that the peer is told; ok: none, and the file has an end
	}{
		"a file":  {say: func(f *forger) [][]byte { return [][]byte{f.file("abc"), f.file("de"), f.end()} }, file: "abcde", alert: ok},
		"no file": {say: func(f *forger) [][]byte { return [][]byte{f.end()} }, alert: ok},
		"padding": {say: func(f *forger) [][]byte {
			return [][]byte{f.record(applicationRecord, []byte("a\x00"), 700), f.file("b"), f.end()}
		}, file: "a\x00b", alert: ok},
		"the largest record": {say: func(f *forger) [][]byte { return [][]byte{f.file(strings.Repeat("x", maxPlaintext)), f.end()} }, file: strings.Repeat("x", maxPlaintext), alert: ok},
		"the largest padding": {say: func(f *forger) [][]byte {
			return [][]byte{f.record(applicationRecord, []byte("a"), maxPlaintext-1), f.end()}
		}, file: "a", alert: ok},
		"too much padding": {say: func(f *forger) [][]byte {
			return [][]byte{f.file("a"), f.record(applicationRecord, []byte("b"), maxPlaintext), f.end()}
		}, file: "a", alert: recordOverflow},
		"too much":       {say: func(f *forger) [][]byte { return [][]byte{f.file(strings.Repeat("x", maxPlaintext+1))} }, alert: recordOverflow},
		"far too much":   {say: func(f *forger) [][]byte { return [][]byte{f.file(strings.Repeat("x", maxCiphertext))} }, alert: recordOverflow},
		"too little":     {say: func(f *forger) [][]byte { return [][]byte{{23, 3, 3, 0, 16}, make([]byte, 16)} }, alert: badRecordMAC},
		"no type":        {say: func(f *forger) [][]byte { return [][]byte{f.record(0, nil, 5)} }, alert: unexpectedMessage},
		"a strange type": {say: func(f *forger) [][]byte { return [][]byte{f.record(24, []byte("a"), 0)} }, alert: unexpectedMessage},
		"ChangeCipherSpec, sealed": {say: func(f *forger) [][]byte {
			return [][]byte{f.record(20, []byte{1}, 0)}
		}, alert: unexpectedMessage},
		"ChangeCipherSpec":      {say: func(f *forger) [][]byte { return [][]byte{f.file("a"), {20, 3, 3, 0, 1, 1}, f.end()} }, file: "a", alert: unexpectedMessage},
		"an alert from outside": {say: func(f *forger) [][]byte { return [][]byte{f.file("a"), {21, 3, 3, 0, 2, 1, 0}} }, file: "a", alert: unexpectedMessage},
		"a changed byte":        {say: func(f *forger) [][]byte { return [][]byte{f.file("a"), flipped(f.file("bc"), 6)} }, file: "a", alert: badRecordMAC},
		"a changed tag":         {say: func(f *forger) [][]byte { return [][]byte{flipped(f.end(), headerLen+5)} }, alert: badRecordMAC},
		"a changed version":     {say: func(f *forger) [][]byte { return [][]byte{flipped(f.file("a"), 2)} }, alert: badRecordMAC},
		"a record left out":     {say: func(f *forger) [][]byte { a := f.file("a"); f.file("b"); return [][]byte{a, f.file("c")} }, file: "a", alert: badRecordMAC},
		"a record twice":        {say: func(f *forger) [][]byte { a := f.file("a"); return [][]byte{a, a} }, file: "a", alert: badRecordMAC},
		"records in disorder":   {say: func(f *forger) [][]byte { a, b := f.file("a"), f.file("b"); return [][]byte{b, a} }, alert: badRecordMAC},
		"an end that was said by others": {say: func(f *forger) [][]byte {
			return [][]byte{f.file("a"), append([]byte{23, 3, 3, 0, 19}, make([]byte, 19)...)}
		}, file: "a", alert: badRecordMAC},
		"an alert of one byte": {say: func(f *forger) [][]byte { return [][]byte{f.record(alertRecord, []byte{1}, 0)} }, alert: unexpectedMessage},
		"an alert of three":    {say: func(f *forger) [][]byte { return [][]byte{f.record(alertRecord, []byte{1, 0, 0}, 0)} }, alert: unexpectedMessage},
		"an empty alert":       {say: func(f *forger) [][]byte { return [][]byte{f.record(alertRecord, nil, 0)} }, alert: unexpectedMessage},
		"user_canceled":        {say: func(f *forger) [][]byte { return [][]byte{f.record(alertRecord, []byte{1, 90}, 0), f.end()} }, alert: ok},
		"some empty records":   {say: func(f *forger) [][]byte { return append(empty(f, maxUseless), f.file("a"), f.end()) }, file: "a", alert: ok},
		"many empty records":   {say: func(f *forger) [][]byte { return append(empty(f, maxUseless+1), f.file("a"), f.end()) }, alert: unexpectedMessage},
		"empty records at times": {say: func(f *forger) [][]byte {
			return slices.Concat(empty(f, 9), [][]byte{f.file("a")}, empty(f, 9), [][]byte{f.end()})
		}, file: "a", alert: ok},
		"a ticket": {say: func(f *forger) [][]byte { return [][]byte{f.record(handshakeRecord, ticket, 0), f.file("a"), f.end()} }, file: "a", alert: ok},
		"tickets in one record": {say: func(f *forger) [][]byte {
			return [][]byte{f.record(handshakeRecord, slices.Concat(ticket, ticket), 0), f.file("a"), f.end()}
		}, file: "a", alert: ok},
		"a ticket in parts": {say: func(f *forger) [][]byte {
			return [][]byte{f.record(handshakeRecord, ticket[:1], 0), f.record(handshakeRecord, ticket[1:4], 0),
				f.record(handshakeRecord, ticket[4:100], 0), f.record(handshakeRecord, ticket[100:], 0), f.file("a"), f.end()}
		}, file: "a", alert: ok},
		"an empty ticket": {say: func(f *forger) [][]byte {
			return [][]byte{f.record(handshakeRecord, messageOf(newSessionTicket), 0), f.file("a"), f.end()}
		}, file: "a", alert: ok},
		"a ticket that is interrupted": {say: func(f *forger) [][]byte {
			return [][]byte{f.record(handshakeRecord, ticket[:100], 0), f.file("a"), f.record(handshakeRecord, ticket[100:], 0), f.end()}
		}, alert: unexpectedMessage},
		"a ticket that ends in the midst": {say: func(f *forger) [][]byte {
			return [][]byte{f.record(handshakeRecord, ticket[:100], 0), f.end()}
		}, alert: unexpectedMessage},
		"too many tickets": {say: func(f *forger) [][]byte {
			var all [][]byte
			for range maxUseless + 1 {
				all = append(all, f.record(handshakeRecord, ticket, 0))
			}
			return append(all, f.file("a"), f.end())
		}, alert: unexpectedMessage},
		"a ticket by a client": {say: func(f *forger) [][]byte { return [][]byte{f.record(handshakeRecord, ticket, 0)} }, server: true, alert: unexpectedMessage},
		"an empty message":     {say: func(f *forger) [][]byte { return [][]byte{f.record(handshakeRecord, nil, 0)} }, alert: unexpectedMessage},
		"another message": {say: func(f *forger) [][]byte {
			return [][]byte{f.record(handshakeRecord, messageOf(13, make([]byte, 20)...), 0)} // CertificateRequest
		}, alert: unexpectedMessage},
		"a new key": {say: func(f *forger) [][]byte { return [][]byte{f.file("a"), f.renewed(0), f.file("b"), f.end()} }, file: "ab", alert: ok},
		"new keys": {say: func(f *forger) [][]byte {
			return [][]byte{f.file("a"), f.renewed(0), f.renewed(0), f.file("b"), f.end()}
		}, server: true, file: "ab", alert: ok},
		"the old key": {say: func(f *forger) [][]byte {
			old := f.out
			all := [][]byte{f.renewed(0)}
			f.out = old
			f.out.next()
			return append(all, f.file("a"))
		}, alert: badRecordMAC},
		"no such new key": {say: func(f *forger) [][]byte { return [][]byte{f.renewed(2)} }, alert: unexpectedMessage},
		"a long new key":  {say: func(f *forger) [][]byte { return [][]byte{f.record(handshakeRecord, messageOf(keyUpdate, 0, 0), 0)} }, alert: unexpectedMessage},
		"a new key in parts": {say: func(f *forger) [][]byte {
			m := messageOf(keyUpdate, 0)
			first := f.record(handshakeRecord, m[:4], 0)
			second := f.record(handshakeRecord, m[4:], 0)
			f.out.update()
			return [][]byte{first, second, f.file("a"), f.end()}
		}, file: "a", alert: ok},
		"a new key with something behind it": {say: func(f *forger) [][]byte {
			return [][]byte{f.record(handshakeRecord, slices.Concat(messageOf(keyUpdate, 0), ticket), 0)}
		}, alert: unexpectedMessage},
	} {
		for id := range suites {
			for _, size := range []int{1, 7, 1000, 1 << 20} { // bytes that come at once
				t.Run(fmt.Sprintf("%s/%s/%d", name, tls.CipherSuiteName(id), size), func(t *testing.T) {
					synctest.Test(t, func(t *testing.T) {
						r, f := forge(t, id, test.server)
						said := slices.Concat(test.say(f)...)
						go func() {
							for part := range slices.Chunk(said, size) {
								f.to.Write(part)
								if size < len(said) {
									synctest.Wait()
								}
							}
						}()
						got, err := io.ReadAll(struct{ io.Reader }{r})
						if string(got) != test.file {
							t.Errorf("read %d bytes, %.40q", len(got), got)
						}
						if test.alert == ok {
							if err != nil {
								t.Errorf("and then %v", err)
							}
							return
						}
						if again := func() error { _, err := r.Read(make([]byte, 1)); return err }(); err == nil || again != err {
							t.Errorf("and then %v, and again %v", err, again)
						}
						if !errors.Is(err, test.alert) {
							t.Errorf("%v, want %v", err, test.alert)
						}
						if _, err := f.in.Read(make([]byte, 1)); !errors.Is(err, test.alert) {
							t.Errorf("the peer hears %v, want %v", err, test.alert)
						}
						if _, err := r.Write([]byte("a")); err == nil {
							t.Error("it can be written to")
						}
					})
				})
			}
		}
	}
}

func empty(f *forger, n int) (all [][]byte) {
	for range n {
		all = append(all, f.record(applicationRecord, nil, 0))
	}
	return all
}

// TestRecordsAlert: what the peer says of a fault is the error.
func TestRecordsAlert(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r, f := forge(t, tls.TLS_AES_128_GCM_SHA256, false)
		f.to.Write(f.record(alertRecord, []byte{2, byte(internalError)}, 0))
		if _, err := r.Read(make([]byte, 1)); !errors.Is(err, internalError) || err.Error() != "remote error: tls: internal error" {
			t.Errorf("%v", err)
		}
	})
}

// TestRecordsAsked: a peer that asks for a new key of ours gets it, before anything that follows.
func TestRecordsAsked(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r, f := forge(t, tls.TLS_AES_256_GCM_SHA384, true)
		r.Write([]byte("a"))
		f.to.Write(slices.Concat(f.renewed(1), f.file("b")))
		got := make([]byte, 1)
		if _, err := r.Read(got); err != nil || got[0] != 'b' {
			t.Fatalf("%q, %v", got, err)
		}
		if r.out.seq != 0 || bytes.Equal(r.out.secret, f.in.in.secret) {
			t.Error("we have the old key")
		}
		r.Write([]byte("c"))
		both := make([]byte, 2)
		if _, err := io.ReadFull(f.in, both); err != nil || string(both) != "ac" {
			t.Errorf("%q, %v", both, err)
		}
		if !bytes.Equal(r.out.secret, f.in.in.secret) {
			t.Error("the peer has another key")
		}
	})
}

// TestRecordsTime: a read whose time is over in the midst of a record loses nothing of it.
func TestRecordsTime(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r, f := forge(t, tls.TLS_AES_128_GCM_SHA256, false)
		record := f.file("abc")
		for _, part := range [][]byte{record[:3], record[3:9], record[9:]} {
			if n, err := read(r, time.Second); n != 0 || !errors.Is(err, os.ErrDeadlineExceeded) {
				t.Errorf("%d bytes, %v", n, err)
			}
			f.to.Write(part)
		}
		if n, err := read(r, time.Second); n != 3 || err != nil {
			t.Errorf("%d bytes, %v", n, err)
		}
		if r.room != nil {
			t.Error("it keeps room for bytes that are not there")
		}
	})
}

func read(c net.Conn, d time.Duration) (int, error) {
	c.SetReadDeadline(time.Now().Add(d))
	return c.Read(make([]byte, 100))
}

// spread is spans of a room with what is to be sealed, in records of some size with gaps between some of them.
func spread(room, b []byte, size int, gap func(n int) int) [][2]int {
	var spans [][2]int
	at := 0
	for part := range slices.Chunk(b, size) {
		at += headerLen + gap(len(spans))
		spans = append(spans, [2]int{at, at + copy(room[at:], part)})
		at += len(part) + trailerLen
	}
	return spans
}

// TestSeal: what is sealed in its place arrives, with gaps in it and without, and past the end of a key; those that stand together are one
// write.
func TestSeal(t *testing.T) {
	for name, test := range map[string]struct {
		gap    func(int) int
		most   uint64
		writes int
	}{
		"together": {func(int) int { return 0 }, maxSealed, 1},
		"gaps":     {func(n int) int { return n % 2 * 30 }, maxSealed, 4},
		"keys":     {func(int) int { return 0 }, 3, 3 + 2},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				near, far, s, _ := talk13(t)
				near.out.most = test.most
				sent := make([]byte, 7*1000-10)
				rand.Read(sent)
				room := make([]byte, 10_000)
				s.writes = 0
				n, err := near.Seal(room, spread(room, sent, 1000, test.gap))
				if n != len(sent) || err != nil {
					t.Errorf("%d bytes, %v", n, err)
				}
				if s.writes != test.writes {
					t.Errorf("by %d writes", s.writes)
				}
				near.CloseWrite()
				if got, err := io.ReadAll(far); err != nil || !bytes.Equal(got, sent) {
					t.Errorf("the peer got %d bytes, %v", len(got), err)
				}
				if _, err := near.Seal(room, [][2]int{{5, 6}}); err != errClosed {
					t.Errorf("after the end: %v", err)
				}
			})
		})
	}
}

// TestSealBroken: what has been written in full is counted, of one write as well, and nothing follows half a record.
func TestSealBroken(t *testing.T) {
	for name, test := range map[string]struct{ gap, left int }{"apart": {1, 2}, "together": {0, 1}} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				near, _, s, _ := talk13(t)
				room, sent := make([]byte, 5000), make([]byte, 3000)
				s.left = test.left
				n, err := near.Seal(room, spread(room, sent, 1000, func(int) int { return test.gap }))
				if n != 1000 || !errors.Is(err, io.ErrShortWrite) {
					t.Errorf("%d bytes, %v", n, err)
				}
				if err := near.CloseWrite(); err != errClosed {
					t.Errorf("and its end: %v", err)
				}
			})
		})
	}
}

// talk13 is talk for a data connection.
func talk13(t *testing.T) (near *Records, far *tls.Conn, fromUs, fromServer *segments) {
	l := newLab(t)
	server := of(tls.VersionTLS13, l.server(example()))
	s := l.session("1")
	control, theirs := pipe()
	shake := func(c *tls.Conn) chan error {
		done := make(chan error)
		go func() { done <- c.Handshake() }()
		return done
	}
	greeter := tls.Server(theirs, server)
	done := shake(greeter)
	v, err := s.ToServer(t.Context(), control)
	if err := errors.Join(err, <-done); err != nil {
		t.Fatal(err)
	}
	greet(t, greeter, v)

	a, b := pipe()
	fromUs, fromServer = &segments{Conn: a}, &segments{Conn: b}
	far = tls.Server(fromServer, server)
	done = shake(far)
	d, err := s.ServerData(t.Context(), fromUs)
	if err := errors.Join(err, <-done); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		for _, c := range []net.Conn{control, theirs, a, b} {
			c.Close()
		}
	})
	return d.(*Records), far, fromUs, fromServer
}

// TestRewrap: what one peer sends goes to the other, opened and sealed in one place, whatever the sizes of records, reads and rooms.
func TestRewrap(t *testing.T) {
	l := newLab(t)
	server := l.server(example())
	s := l.session("1")
	client := of(tls.VersionTLS13, l.client())
	mustIntercept(t, s, client, server)
	for _, upload := range []bool{false, true} {
		for _, size := range []int{1, 100, 16 << 10, 100_000, 3_000_000} {
			for _, room := range []int{17 << 10, 4 * (16<<10 + 22), 1 << 20} {
				t.Run(fmt.Sprint(upload, size, room), func(t *testing.T) {
					c, cp, err := clientData(t, s, client, false)
					v, vp, err2 := serverData(t, s, server)
					if err := errors.Join(err, err2); err != nil {
						t.Fatal(err)
					}
					from, to, fromPeer, toPeer := v.(*Records), c.(*Records), vp, cp
					if upload {
						from, to, fromPeer, toPeer = to, from, cp, vp
					}
					sent := make([]byte, size)
					rand.Read(sent)
					go func() {
						for part := range slices.Chunk(sent, max(1, size/3)) {
							fromPeer.Write(part)
						}
						fromPeer.CloseWrite()
					}()
					done := make(chan error)
					go func() { done <- rewrap(from, to, make([]byte, room)) }()
					got, err := io.ReadAll(toPeer)
					if err := errors.Join(err, <-done); err != nil || !bytes.Equal(got, sent) {
						t.Errorf("%d bytes of %d, %v", len(got), size, err)
					}
				})
			}
		}
	}
}

// rewrap carries a file from one to the other.
func rewrap(from, to *Records, room []byte) error {
	var spans [][2]int
	for {
		var err error
		switch spans, err = from.Open(room, spans); {
		case err == io.EOF:
			return to.CloseWrite()
		case err != nil:
			return err
		}
		if _, err := to.Seal(room, spans); err != nil {
			return err
		}
	}
}

// eager is a connection whose first writes go through, in pieces, and whose others are held back.
type eager struct {
	net.Conn
	size    int // of pieces
	through int // writes
	held    []byte
}

func (e *eager) Write(b []byte) (int, error) {
	e.held = append(e.held, b...)
	if e.through--; e.through >= 0 {
		e.let()
	}
	return len(b), nil
}

func (e *eager) let() {
	for piece := range slices.Chunk(e.held, e.size) {
		e.Conn.Write(piece)
		synctest.Wait()
	}
	e.held = nil
}

// TestEager: a peer that sends a file behind its last word of the handshake, in one segment or in many, loses nothing of it.
func TestEager(t *testing.T) {
	for version, number := range versions {
		for _, size := range []int{1, 2, 5, 1 << 20} {
			t.Run(fmt.Sprint(version, size), func(t *testing.T) {
				synctest.Test(t, func(t *testing.T) {
					l := newLab(t)
					s := l.session("1")
					a, b := pipe()
					client := of(number, l.client())
					control := tls.Client(b, client)
					go control.Handshake()
					if _, err := s.ToClient(t.Context(), a); err != nil {
						t.Fatal(err)
					}
					synctest.Wait() // a ticket

					near, far := pipe()
					below := &eager{Conn: far, size: size, through: 1} // its hello
					if number == tls.VersionTLS12 {
						below.through = 100 // there the server has the last word
					}
					sent, said := []byte("a file"), make(chan struct{})
					go func() {
						defer close(said)
						c := tls.Client(below, client)
						c.Write(sent)
						c.CloseWrite()
						far.SetWriteDeadline(time.Time{}) // CloseWrite leaves one that is over
						below.let()
					}()
					d, err := s.ClientData(t.Context(), near, false)
					if err != nil {
						t.Fatal(err)
					}
					if _, ok := d.(*Records); ok != (number == tls.VersionTLS13) {
						t.Errorf("it is a %T", d)
					}
					if got, err := io.ReadAll(struct{ io.Reader }{d}); string(got) != string(sent) || err != nil {
						t.Errorf("%q, %v", got, err)
					}
					<-said
					for _, c := range []net.Conn{a, b, near, far} {
						c.Close()
					}
				})
			})
		}
	}
}
