package tlsmitm

import (
	"crypto/tls"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"slices"
	"sync"
	"time"
)

// A file that comes by TLS 1.3 and goes by TLS 1.3 needs no more room than its records have: each is opened in its place, seen, and
// sealed there for the other side, and many are read and written at once. crypto/tls copies each byte four times for that. So once it
// has shaken hands, the records of data connections are read and written here (RFC 8446 §§5, 6); all that decides who the peer is
// remains crypto/tls's.

// Sizes of records, in bytes (RFC 8446 §5).
const (
	headerLen     = 5
	maxPlaintext  = 16 << 10
	maxCiphertext = maxPlaintext + 256
	tagLen        = 16
	trailerLen    = 1 + tagLen // the type of what is sealed, which is sealed with it, and the tag
)

// recordType is the type of a record (RFC 8446 §5.1), and messageType that of a message of the handshake (§4).
type (
	recordType  byte
	messageType byte
)

const (
	alertRecord       recordType  = 21
	handshakeRecord   recordType  = 22
	applicationRecord recordType  = 23
	newSessionTicket  messageType = 4
	keyUpdate         messageType = 24
)

// Alerts that are given or looked for (RFC 8446 §6).
const (
	closeNotify       tls.AlertError = 0
	unexpectedMessage tls.AlertError = 10
	badRecordMAC      tls.AlertError = 20
	recordOverflow    tls.AlertError = 22
	internalError     tls.AlertError = 80
	userCanceled      tls.AlertError = 90
)

// maxUseless is how many empty records and messages may follow one another without a byte of a file between them, and maxMessage how many
// bytes a message may have. They stop a peer that keeps us busy with nothing; crypto/tls has the same.
const (
	maxUseless = 16
	maxMessage = 64 << 10
)

// alertTime bounds how long a peer is told of a fault: it may not be reading.
const alertTime = time.Second

// Records is a data connection of TLS 1.3. One goroutine may use it at a time, but for Close and what sets deadlines.
type Records struct {
	net.Conn // below
	in, out  half
	server   bool // we are the TLS server
	tolerant bool // an end without close_notify is one
	facts    Facts

	tail    []byte // has been received, and is less than a record
	err     error  // of all further reading
	useless int    // in a row
	message message
	closed  bool // nothing more is written

	room  *[]byte  // what Read has not given yet is in it; nil: nothing is
	spans [][2]int // of room
}

// message is how much has come of a message of the handshake, which may be in several records.
type message struct {
	header [4]byte
	has    int // bytes of header
	left   int // bytes of what follows it
}

// newRecords goes on where crypto/tls has shaken hands and has read nothing more. received is what came after that, and sent how many
// records we have sealed since with the key that out is of.
func newRecords(c *tls.Conn, below net.Conn, in, out []byte, received []byte, sent int, server, tolerant bool) (*Records, error) {
	state := c.ConnectionState()
	suite := suites[state.CipherSuite]
	r := &Records{Conn: below, tail: slices.Clone(received), server: server, tolerant: tolerant, facts: factsOf(state)}
	var err error
	if r.in, err = newHalf(suite, in); err != nil {
		return nil, err
	}
	if r.out, err = newHalf(suite, out); err != nil {
		return nil, err
	}
	r.out.seq = uint64(sent)
	return r, nil
}

// Facts are those of the handshake.
func (r *Records) Facts() Facts { return r.facts }

// NetConn returns the connection below, as Conn's does.
func (r *Records) NetConn() net.Conn { return r.Conn }

// Open reads into a room, of 17 KiB at least, and waits for the first record only. It returns where in the room the file's bytes are, in
// place of what is in spans: each with as many bytes of its own before and after it as Seal needs there. At the end the error is io.EOF
// if the peer has said that it is one, and wraps io.ErrUnexpectedEOF if the connection just ended. No span comes with an error. One that
// is but of a deadline has cost nothing.
func (r *Records) Open(room []byte, spans [][2]int) ([][2]int, error) {
	spans = spans[:0]
	end := copy(room, r.tail)
	r.tail = r.tail[:0]
	for {
		var begin int
		spans, begin = r.openAll(room[:end], spans)
		if len(spans) > 0 || r.err != nil {
			r.tail = append(r.tail, room[begin:end]...)
			if len(spans) > 0 {
				return spans, nil // the error is for the next one
			}
			return spans, r.err
		}
		end = copy(room, room[begin:end])
		n, err := r.Conn.Read(room[end:])
		end += n
		if n == 0 && err != nil {
			r.tail = append(r.tail, room[:end]...)
			return spans, r.judged(err)
		}
	}
}

// judged is an error of reading with a truncation told from an end. It is kept, unless it is but that the time was over: after a reset
// the kernel tells of an end.
func (r *Records) judged(err error) error {
	switch {
	case errors.Is(err, os.ErrDeadlineExceeded):
		return err
	case err == io.EOF && len(r.tail) > 0:
		err = io.ErrUnexpectedEOF
	case err == io.EOF && !r.tolerant:
		err = errTruncated
	}
	r.err = err
	return err
}

// openAll opens the records that are there in full, up to the first fault or end, which is r.err then. It returns where it stopped.
func (r *Records) openAll(b []byte, spans [][2]int) ([][2]int, int) {
	begin := 0
	for r.err == nil {
		record := b[begin:]
		if len(record) < headerLen {
			break
		}
		n := int(binary.BigEndian.Uint16(record[3:]))
		if fault := r.fits(recordType(record[0]), n); fault != nil {
			r.err = fault
			break
		}
		if len(record) < headerLen+n {
			break
		}
		record = record[:headerLen+n]
		switch kind, size, err := r.open(record); {
		case err != nil:
			r.err = err
		case kind != applicationRecord:
			r.err = r.control(kind, record[headerLen:headerLen+size])
		case r.message != (message{}):
			r.err = r.fault(unexpectedMessage, "a message of the handshake is interrupted") // RFC 8446 §5.1
		case size == 0:
			r.err = r.waste()
		default:
			r.useless = 0
			spans = append(spans, [2]int{begin + headerLen, begin + headerLen + size})
		}
		begin += headerLen + n
	}
	return spans, begin
}

// waste counts what was of no use.
func (r *Records) waste() error {
	if r.useless++; r.useless > maxUseless {
		return r.fault(unexpectedMessage, "too much that has nothing in it")
	}
	return nil
}

// fits is a fault of a record's header, or nil.
func (r *Records) fits(kind recordType, n int) error {
	switch {
	case kind != applicationRecord: // all are sealed by now, and say so (RFC 8446 §5.2)
		return r.fault(unexpectedMessage, "a record that is not sealed")
	case n > maxCiphertext:
		return r.fault(recordOverflow, "a record that is too long")
	case n < trailerLen:
		return r.fault(badRecordMAC, "a record that is too short")
	}
	return nil
}

// open opens a record in its place (RFC 8446 §5.2) and returns of what type it is, and how many bytes it has behind its header.
func (r *Records) open(record []byte) (recordType, int, error) {
	header, body := record[:headerLen], record[headerLen:]
	plain, err := r.in.aead.Open(body[:0], r.in.next(), body, header)
	if err != nil {
		return 0, 0, r.fault(badRecordMAC, "a record that was changed on its way, or is not the next")
	}
	if len(plain) > maxPlaintext+1 {
		return 0, 0, r.fault(recordOverflow, "a record that is too long")
	}
	n := len(plain)
	for n > 0 && plain[n-1] == 0 { // padding
		n--
	}
	if n == 0 {
		return 0, 0, r.fault(unexpectedMessage, "a record without a type")
	}
	return recordType(plain[n-1]), n - 1, nil
}

// control takes what is no part of the file. It returns io.EOF for the end of it.
func (r *Records) control(kind recordType, b []byte) error {
	switch kind {
	case handshakeRecord:
		return r.messages(b)
	case alertRecord:
		switch {
		case len(b) != 2 || r.message != (message{}):
			return r.fault(unexpectedMessage, "an alert that is none")
		case tls.AlertError(b[1]) == closeNotify:
			return io.EOF
		case tls.AlertError(b[1]) == userCanceled: // RFC 8446 §6.1; close_notify follows
			return r.waste()
		}
		return &net.OpError{Op: "remote error", Err: tls.AlertError(b[1])}
	}
	return r.fault(unexpectedMessage, fmt.Sprintf("a record of type %d", kind))
}

// messages takes what a peer may say when the handshake is over (RFC 8446 §4.6): tickets, of which those of the control connection
// will do, and that it goes on to its next key.
func (r *Records) messages(b []byte) error {
	if len(b) == 0 {
		return r.fault(unexpectedMessage, "an empty part of a message")
	}
	for m := &r.message; len(b) > 0; {
		if m.has < len(m.header) {
			n := copy(m.header[m.has:], b)
			m.has, b = m.has+n, b[n:]
			if m.has < len(m.header) {
				return nil
			}
			m.left = int(m.header[1])<<16 | int(m.header[2])<<8 | int(m.header[3])
			switch kind := messageType(m.header[0]); {
			case kind == newSessionTicket && !r.server && m.left <= maxMessage:
			case kind == keyUpdate && m.left == 1:
			default:
				return r.fault(unexpectedMessage, fmt.Sprintf("message %d of %d bytes", kind, m.left))
			}
		}
		n := min(m.left, len(b))
		said := b[:n]
		m.left, b = m.left-n, b[n:]
		if m.left > 0 {
			return nil
		}
		updates := messageType(m.header[0]) == keyUpdate && n == 1
		*m = message{}
		if err := r.waste(); err != nil {
			return err
		}
		if updates {
			if len(b) > 0 || said[0] > 1 { // what follows must have the next key
				return r.fault(unexpectedMessage, "no proper KeyUpdate")
			}
			if err := r.updated(said[0] == 1); err != nil {
				return err
			}
		}
	}
	return nil
}

// updated goes on to the peer's next key, and to ours if it asks for that (RFC 8446 §4.6.3).
func (r *Records) updated(asked bool) error {
	if asked {
		r.Conn.SetWriteDeadline(time.Now().Add(alertTime))
		if err := r.renew(); err != nil {
			return err
		}
	}
	return r.in.update()
}

// renew goes on to our next key, and says so.
func (r *Records) renew() error {
	if err := r.say(handshakeRecord, byte(keyUpdate), 0, 0, 1, 0); err != nil {
		return err
	}
	return r.out.update()
}

// fault tells the peer that what it has sent is none of TLS, and returns that as an error. Whether the peer hears it does not matter.
func (r *Records) fault(alert tls.AlertError, text string) error {
	r.Conn.SetWriteDeadline(time.Now().Add(alertTime))
	r.say(alertRecord, 2, byte(alert))
	r.closed = true
	return fmt.Errorf("%w: %s", alert, text)
}

// say writes a record of its own.
func (r *Records) say(kind recordType, b ...byte) error {
	if r.closed {
		return errClosed
	}
	record := make([]byte, headerLen, headerLen+len(b)+trailerLen)
	record = append(record, b...)
	record = record[:cap(record)]
	r.seal(kind, record)
	_, err := r.Conn.Write(record)
	return err
}

// seal seals a record in its place, with header and trailer that are to be filled.
func (r *Records) seal(kind recordType, record []byte) {
	body := record[headerLen:]
	header := record[:headerLen]
	header[0], header[1], header[2] = byte(applicationRecord), 3, 3
	binary.BigEndian.PutUint16(header[3:], uint16(len(body)))
	body[len(body)-trailerLen] = byte(kind)
	r.out.aead.Seal(body[:0], r.out.next(), body[:len(body)-tagLen], header)
}

// errClosed is from writing after the end.
var errClosed = errors.New("TLS was ended on this side")

// Seal seals what is in spans of a room as records, each in its place, and writes them, those that stand without a gap at once. Before
// each span there must be 5 bytes that belong to it, and behind it 17; it has 16 KiB at most. n counts the bytes of records that were
// written in full; after an error there can be no more.
func (r *Records) Seal(room []byte, spans [][2]int) (n int, err error) {
	if r.closed {
		return 0, errClosed
	}
	for len(spans) > 0 {
		if r.out.seq >= r.out.most {
			if err := r.renew(); err != nil {
				return n, err
			}
		}
		begin, end, k := spans[0][0]-headerLen, spans[0][0]-headerLen, 0
		for ; k < len(spans) && spans[k][0]-headerLen == end && r.out.seq < r.out.most; k++ {
			end = spans[k][1] + trailerLen
			r.seal(applicationRecord, room[spans[k][0]-headerLen:end])
		}
		written, err := r.Conn.Write(room[begin:end])
		for _, s := range spans[:k] {
			if s[1]+trailerLen <= begin+written {
				n += s[1] - s[0]
			}
		}
		if err != nil {
			r.closed = true // half a record may be on its way
			return n, err
		}
		spans = spans[k:]
	}
	return n, nil
}

// CloseWrite says close_notify, in the time that SetWriteDeadline has given, and leaves the connection below open. No write can follow.
func (r *Records) CloseWrite() error {
	err := r.say(alertRecord, 1, byte(closeNotify))
	r.closed = true
	return err
}

// rooms are for those who have no room of their own where records can be opened and sealed. They hold a few.
var rooms = sync.Pool{New: func() any { return newRoom(several + several/record*(headerLen+trailerLen)) }}

// Read implements net.Conn. Its errors are those of Open.
func (r *Records) Read(p []byte) (int, error) {
	if len(p) == 0 {
		return 0, nil
	}
	if len(r.spans) == 0 {
		if r.room == nil {
			r.room = rooms.Get().(*[]byte)
		}
		var err error
		if r.spans, err = r.Open(*r.room, r.spans); err != nil {
			r.yield()
			return 0, err
		}
	}
	n := 0
	for n < len(p) && len(r.spans) > 0 {
		s := &r.spans[0]
		k := copy(p[n:], (*r.room)[s[0]:s[1]])
		n += k
		if s[0] += k; s[0] == s[1] {
			r.spans = r.spans[1:]
		}
	}
	r.yield()
	return n, nil
}

// yield gives the room back, if all that was in it has been had.
func (r *Records) yield() {
	if len(r.spans) == 0 {
		rooms.Put(r.room)
		r.room, r.spans = nil, nil
	}
}

// Write implements net.Conn. n counts the bytes of records that were written in full.
func (r *Records) Write(p []byte) (n int, err error) {
	room := rooms.Get().(*[]byte)
	defer rooms.Put(room)
	var spans [several / record][2]int
	for n < len(p) && err == nil {
		k, filled, at := 0, 0, headerLen
		for ; k < len(spans) && n+filled < len(p); k++ {
			size := copy((*room)[at:at+maxPlaintext], p[n+filled:])
			spans[k] = [2]int{at, at + size}
			filled += size
			at += size + trailerLen + headerLen
		}
		var sent int
		sent, err = r.Seal(*room, spans[:k])
		n += sent
	}
	return n, err
}
