package tlsmitm

import (
	"bytes"
	"crypto/tls"
	"encoding/binary"
	"io"
	"slices"
	"testing"
)

// story is what a forger says, told by some bytes: records of all kinds, honest ones mostly, and what else can happen to a connection.
func (f *forger) story(b []byte) []byte {
	var said []byte
	next := func() int { // of the story
		if len(b) == 0 {
			return 0
		}
		n := int(b[0])
		b = b[1:]
		return n
	}
	ticket := messageOf(newSessionTicket, slices.Concat([]byte{0, 0, 14, 16, 0, 0, 0, 0, 1, 0, 0, 20}, make([]byte, 20), []byte{0, 0})...)
	for len(b) > 0 {
		switch next() % 16 {
		case 0, 1, 2:
			said = append(said, f.record(applicationRecord, bytes.Repeat([]byte{byte(len(said))}, next()), next()%3)...)
		case 3:
			said = append(said, f.record(applicationRecord, bytes.Repeat([]byte{1}, min(next()*next()/3, maxPlaintext+2)), next())...)
		case 4:
			said = append(said, f.record(applicationRecord, nil, next())...)
		case 5:
			said = append(said, f.end()...)
		case 6:
			said = append(said, f.record(alertRecord, []byte{byte(next()), byte(next())}, 0)...)
		case 7:
			said = append(said, f.record(alertRecord, []byte{1, byte(userCanceled)}, 0)...)
		case 8:
			at := next() % (len(ticket) + 1)
			said = append(said, f.record(handshakeRecord, ticket[:at], 0)...)
			if next()%8 == 0 {
				return append(said, f.end()...)
			}
			said = append(said, f.record(handshakeRecord, ticket[at:], 0)...)
		case 9:
			said = append(said, f.record(handshakeRecord, bytes.Repeat(ticket, next()%4), 0)...)
		case 10:
			said = append(said, f.renewed(byte(next()%8/3))...) // 0, 1, or 2
		case 11:
			if kind := recordType(next()); kind != handshakeRecord { // see 12
				said = append(said, f.record(kind, []byte{byte(next()), byte(next())}, 0)...)
			}
		case 12:
			if kind := messageType(next()); kind != newSessionTicket { // crypto/tls reads those, and we do not
				said = append(said, f.record(handshakeRecord, messageOf(kind, byte(next())), 0)...)
			}
		case 13: // somebody on the way changes a byte
			if len(said) > 0 {
				said[(next()<<8|next())%len(said)] ^= byte(next())
			}
		case 14: // or takes the rest away
			return said[:len(said)-min(next(), len(said))]
		case 15: // or puts something there
			said = binary.BigEndian.AppendUint16(append(said, byte(applicationRecord), 3, 3), uint16(next()))
		}
	}
	return said
}

// FuzzRecords holds Records against crypto/tls: of whatever comes after a handshake they must give the same file, and for whole where it is
// held for whole. Rooms are what rooms should be.
func FuzzRecords(f *testing.F) {
	for _, seed := range []string{
		"\x00a\x00\x01b\x02\x05",                   // a file
		"\x03\xff\xff\x00\x04\x05\x00\x01\x00\x05", // padding
		"\x08\x05\x01\x00a\x00\x05", "\x0a\x00\x00a\x00\x0a\x04\x00b\x00\x05", "\x09\x03\x00a\x00\x05",
		"\x00a\x00\x0d\x00\x07\x01\x05", "\x00abc\x00\x0e\x03", "\x07\x00a\x00\x06\x02\x28", "\x0f\x20\x00a\x00",
	} {
		f.Add([]byte(seed), uint16(7), true)
		f.Add([]byte(seed), uint16(30000), false)
	}
	l := newLab(f)
	server := of(tls.VersionTLS13, l.server(example()))
	server.SessionTicketsDisabled = true
	f.Fuzz(func(t *testing.T, b []byte, size uint16, long bool) {
		near, far := pipe()
		log := &secrets{}
		config := of(tls.VersionTLS13, &tls.Config{InsecureSkipVerify: true, KeyLogWriter: log})
		below := &watched{Conn: near, steps: &steps{}}
		theirs := tls.Server(far, server)
		go theirs.Handshake()
		c := tls.Client(below, config)
		if err := c.Handshake(); err != nil {
			t.Fatal(err)
		}
		below.walk()
		oracle := newConn(c, below, false)
		near2, far2 := pipe()
		r, err := newRecords(c, near2, log.server, log.client, nil, 0, false, false)
		if err != nil {
			t.Fatal(err)
		}
		out, err := newHalf(suites[c.ConnectionState().CipherSuite], log.server)
		if err != nil {
			t.Fatal(err)
		}
		said := (&forger{t: t, out: out}).story(b)
		go func() {
			far.Write(said)
			far.CloseWrite()
		}()
		go func() {
			for part := range slices.Chunk(said, max(1, int(size))) {
				far2.Write(part)
			}
			far2.CloseWrite()
		}()
		go io.Copy(io.Discard, far)
		go io.Copy(io.Discard, far2)
		defer func() { near.Close(); near2.Close(); far.Close(); far2.Close() }()
		want, wantErr := io.ReadAll(struct{ io.Reader }{oracle})
		room := make([]byte, 17<<10)
		if long {
			room = make([]byte, 200<<10)
		}
		got, err := readSpans(t, r, room)
		if !bytes.Equal(got, want) || (err == nil) != (wantErr == nil) {
			t.Errorf("%d bytes and %v, where crypto/tls has %d and %v", len(got), err, len(want), wantErr)
		}
	})
}

// readSpans reads all, and looks where it is.
func readSpans(t *testing.T, r *Records, room []byte) (all []byte, err error) {
	var spans [][2]int
	for {
		if spans, err = r.Open(room, spans); err == io.EOF {
			return all, nil
		} else if err != nil {
			return all, err
		}
		if len(spans) == 0 {
			t.Fatal("neither bytes nor an error")
		}
		end := 0
		for _, s := range spans {
			if s[0]-headerLen < end || s[1] <= s[0] || s[1]+trailerLen > len(room) {
				t.Fatalf("span %v behind %d in a room of %d", s, end, len(room))
			}
			all = append(all, room[s[0]:s[1]]...)
			end = s[1] + trailerLen
		}
	}
}
