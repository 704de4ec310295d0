package wire

import (
	"bytes"
	"io"
)

// Reader reads commands from a client or replies from a server. It reads ahead no further than one buffer, and is for
// one goroutine at a time.
type Reader struct {
	src    io.Reader
	limits Limits
	buf    []byte // buf[:len] is unread input
	store  []byte // what buf is a part of
	parser parser // of the command that is being read
}

// readSize is what one read asks for: longer than nearly every command and reply. Idle sessions hold it.
const readSize = 256

// NewReader returns a Reader of src, which it does not own.
func NewReader(src io.Reader, limits Limits) *Reader {
	return &Reader{src: src, limits: limits.withDefaults()}
}

// Buffered is the number of bytes that were read and not yet returned. Where TLS is to start it must be 0: anything
// else was injected before the handshake (CVE-2011-0411 and its family).
func (r *Reader) Buffered() int { return len(r.buf) }

// Take returns what Buffered counts, which the Reader forgets.
func (r *Reader) Take() []byte {
	b := r.buf
	r.buf, r.store = nil, nil
	if len(b) == 0 {
		return nil // and not what holds on to the store
	}
	return b
}

// fill makes buf non-empty. A source that ends in the middle of a message is an unexpected end: half a command is none.
func (r *Reader) fill(begun bool) error {
	if len(r.buf) > 0 {
		return nil
	}
	if r.store == nil {
		r.store = make([]byte, readSize)
	}
	n, err := r.src.Read(r.store)
	r.buf = r.store[:n]
	if n > 0 {
		return nil
	}
	switch {
	case err == nil:
		return io.ErrNoProgress
	case err == io.EOF && begun:
		return io.ErrUnexpectedEOF
	}
	return err
}

// Command reads one command. A *SyntaxError leaves the Reader at the next line, but one that is Binary comes as soon as
// it is seen, since another protocol may never send a line end: nothing should be read after it. Any other error is the
// source's, with io.ErrUnexpectedEOF for a line that broke off: half a command is never one. The command's Refusals are
// set even where the error is a *SyntaxError.
func (r *Reader) Command() (c Command, err error) {
	// Sessions wait here: a frame that is any larger has the stack of each of them doubled.
	r.parser.begin(r.limits.Line)
	for begun := false; ; begun = true {
		if err := r.fill(begun); err != nil {
			return c, err
		}
		n, done := r.parser.feed(r.buf)
		r.buf = r.buf[n:]
		if done {
			err = r.parser.end(&c)
			return c, err
		}
	}
}

// Reply reads one reply, all its lines. A *ReplyError means that the server is not speaking FTP or says too much; any
// other error is the source's, with io.ErrUnexpectedEOF for a reply that broke off.
func (r *Reader) Reply() (Reply, error) {
	c := collector{limits: r.limits}
	var line []byte
	begun := false
	for {
		if err := r.fill(begun); err != nil {
			return Reply{}, err
		}
		begun = true
		part, rest, ended := bytes.Cut(r.buf, []byte{'\n'})
		if len(line)+len(part) > r.limits.ReplyBytes {
			return Reply{}, replyErrorf("reply of more than %d bytes (limits.reply_bytes)", r.limits.ReplyBytes)
		}
		if !ended {
			line = append(line, part...)
			r.buf = nil
			continue
		}
		r.buf = rest
		if line != nil {
			line = append(line, part...)
			part = line
		}
		done, err := c.add(part)
		if err != nil {
			return Reply{}, err
		}
		if done {
			return c.reply, nil
		}
		line = nil
	}
}
