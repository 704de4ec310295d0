package web

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strconv"
	"strings"
	"sync"
	"time"

	"ftpalg/control/wire"
)

// The FTP client of a request, as little as that takes. jlaffaye/ftp cannot be it: its uploads end as whole when their source
// breaks, which here is the client of the proxy; its downloads hold the connection until somebody asks how they ended, in words
// without a code; and it parses listings, but shows nobody the lines that it cannot.

// Line is the client's end of an FTP session.
type Line struct {
	Control *Conn                 // the control connection
	Dial    func() (*Conn, error) // makes the data connection that the session expects; it waits until that is accepted, or refused
	// Over waits until the session has ended, and returns the HTTP status that says why, for a client whose request it ended.
	Over func() int
	// Denied reports whether the last negative reply was the proxy's own and not the server's: what its rules deny is forbidden, whether
	// it is there or not.
	Denied func() bool
}

// fault is a request that fails: what its client is told.
type fault struct {
	status int
	text   string
}

func (f *fault) Error() string { return f.text }

// conversation is what a request says to its session.
type conversation struct {
	*Line
	reader *wire.Reader
	broken bool // the session is to be cut off, and a transfer with it
	mu     sync.Mutex
	data   *Conn // of the last transfer
	cut    bool
}

// begin begins a conversation, which is cut off when ctx is done.
func begin(ctx context.Context, l *Line) (c *conversation, release func() bool) {
	c = &conversation{Line: l, reader: wire.NewReader(l.Control, wire.Limits{})}
	return c, context.AfterFunc(ctx, c.cutOff)
}

// cutOff ends the session at once. A transfer that runs is broken for both sides: it is reset first, lest the end of the control
// connection come to be seen first and be taken for a client that had all.
func (c *conversation) cutOff() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.cut = true
	if c.data != nil {
		c.data.Reset()
	}
	c.Control.Close()
}

// parting is how long a server may take to say goodbye. What it was asked for has been answered.
const parting = 2 * time.Second

// end ends the session. Its server may take its time to let go of it.
func (c *conversation) end() {
	if c.broken {
		c.cutOff()
	} else {
		c.Control.SetReadDeadline(time.Now().Add(parting))
		c.ask("QUIT", "")
	}
	c.Control.Close()
	if c.data != nil {
		c.data.Reset()
	}
}

// ask says a command and returns the first reply that is final, or says that the transfer begins.
func (c *conversation) ask(verb, arg string) (wire.Reply, error) {
	if _, err := c.Control.Write(wire.NewCommand(verb, arg).Append(nil)); err != nil {
		return wire.Reply{}, err
	}
	return c.reply()
}

// reply reads a reply. Of those that say that there is more to come only those are returned that begin transfers.
func (c *conversation) reply() (wire.Reply, error) {
	for {
		r, err := c.reader.Reply()
		if err != nil || !r.Preliminary() || r.Code == 125 || r.Code == 150 {
			return r, err
		}
	}
}

// failed is what a client is told of a command that failed.
func (c *conversation) failed(verb string, r wire.Reply, err error) error {
	var f *fault
	switch {
	case errors.As(err, &f):
		return err
	case err != nil: // the session is over
		c.broken = true
		c.Control.Close()
		if status := c.Over(); status != 0 {
			return &fault{status, "The server cannot be reached, or has left"}
		}
		return &fault{http.StatusBadGateway, "The server has left"}
	case r.Code == 421: // its last word, or the session's
		c.broken = true
		c.Control.Close()
		status := http.StatusServiceUnavailable
		if s := c.Over(); s != 0 {
			status = s
		}
		return &fault{status, words(r)}
	}
	status := statusOf(verb, r.Code)
	if status == http.StatusNotFound && c.Denied() {
		status = http.StatusForbidden
	}
	return &fault{status, words(r)}
}

// words are a reply's as they may be shown.
func words(r wire.Reply) string {
	var b strings.Builder
	for _, l := range r.Lines {
		b.WriteString(printable(l))
		b.WriteByte('\n')
	}
	return strings.TrimSuffix(b.String(), "\n")
}

// printable is a line of the server's without what terminals obey.
func printable(s string) string {
	return strings.Map(func(c rune) rune {
		if c < 0x20 && c != '\t' || c >= 0x7F && c < 0xA0 {
			return '?'
		}
		return c
	}, strings.ToValidUTF8(s, "\uFFFD"))
}

// statusOf is the HTTP status for a negative reply to a verb.
func statusOf(verb string, code int) int {
	switch code {
	case 530:
		if verb == "USER" || verb == "PASS" {
			return http.StatusUnauthorized
		}
		return http.StatusForbidden
	case 532, 534, 521, 522, 553:
		return http.StatusForbidden
	case 450:
		return http.StatusServiceUnavailable
	case 452, 552:
		return http.StatusInsufficientStorage
	case 500, 501, 502, 503, 504:
		return http.StatusNotImplemented
	case 550:
		if verb == "STOR" {
			return http.StatusForbidden
		}
		return http.StatusNotFound
	}
	return http.StatusBadGateway
}

// login reads the greeting and logs in.
func (c *conversation) login(t target) error {
	verb := ""
	r, err := c.reply()
	if err == nil && r.Code == 220 {
		verb = "USER"
		r, err = c.ask(verb, t.user)
		if err == nil && r.Code == 331 {
			verb = "PASS"
			r, err = c.ask(verb, t.password)
		}
	}
	if err != nil || verb == "" || !r.Positive() {
		if err == nil && r.Code == 332 {
			r.Code = 532 // there is no account to give
		}
		return c.failed(verb, r, err)
	}
	return nil
}

// must says a command that has to succeed.
func (c *conversation) must(verb, arg string) (wire.Reply, error) {
	r, err := c.ask(verb, arg)
	if err != nil || r.Negative() {
		return r, c.failed(verb, r, err)
	}
	return r, nil
}

// open begins a transfer by a verb, from an offset of the file, and returns its data connection. The reply is that which says no,
// if the error is nil and there is no connection.
func (c *conversation) open(verb, arg string, offset int64) (*Conn, wire.Reply, error) {
	if r, err := c.must("EPSV", ""); err != nil {
		return nil, r, err
	}
	data, err := c.Dial()
	if err != nil {
		return nil, wire.Reply{}, c.failed("EPSV", wire.Reply{}, err)
	}
	c.mu.Lock()
	if c.data != nil {
		c.data.Reset()
	}
	c.data = data
	if c.cut {
		data.Reset()
	}
	c.mu.Unlock()
	if offset > 0 {
		if r, err := c.must("REST", strconv.FormatInt(offset, 10)); err != nil {
			return nil, r, err
		}
	}
	r, err := c.ask(verb, arg)
	if err != nil {
		return nil, r, c.failed(verb, r, err)
	}
	if !r.Preliminary() {
		return nil, r, nil
	}
	return data, r, nil
}

// done reads how a transfer has ended. An error means that it broke.
func (c *conversation) done(verb string) error {
	r, err := c.reply()
	if err == nil && r.Preliminary() {
		r, err = c.reply()
	}
	if err != nil || !r.Positive() {
		return c.failed(verb, r, err)
	}
	return nil
}

// size asks for a file's size: -1 if the server does not say. missing: it says that there is no such file.
func (c *conversation) size(t target) (n int64, missing bool, err error) {
	r, err := c.ask("SIZE", t.path)
	if err != nil || r.Code == 421 {
		return -1, false, c.failed("SIZE", r, err)
	}
	n = -1
	if r.Code == 213 {
		if v, err := strconv.ParseInt(r.Text(), 10, 64); err == nil && v >= 0 {
			n = v
		}
	}
	return n, r.Code == 550, nil
}

// modified asks when a file was modified; zero if the server does not say.
func (c *conversation) modified(t target) (at time.Time, err error) {
	r, err := c.ask("MDTM", t.path)
	if err != nil || r.Code == 421 {
		return at, c.failed("MDTM", r, err)
	}
	if r.Code == 213 {
		at, _ = parseTime(r.Text())
	}
	return at, nil
}

// isDir asks whether a path is a directory.
func (c *conversation) isDir(t target) (bool, error) {
	r, err := c.ask("CWD", t.path)
	if err != nil || r.Code == 421 {
		return false, c.failed("CWD", r, err)
	}
	return r.Positive(), nil
}

// maxListing bounds what a listing without end can fill: fifty thousand long lines.
const maxListing = 8 << 20 // bytes

// list lists a directory, by MLSD where the server has it. It is named by CWD, since LIST would take some names for options.
func (c *conversation) list(t target) ([]Entry, error) {
	if t.path != "" {
		if _, err := c.must("CWD", t.path); err != nil {
			return nil, err
		}
	}
	for _, verb := range []string{"MLSD", "LIST"} {
		data, r, err := c.open(verb, "", 0)
		if err != nil {
			return nil, err
		}
		if data == nil {
			if verb == "MLSD" && r.Code >= 500 && r.Code <= 504 {
				continue
			}
			if r.Positive() || verb == "LIST" && (r.Code == 450 || r.Code == 550) {
				return nil, nil // how some say that there are no files
			}
			return nil, c.failed(verb, r, nil)
		}
		text, err := io.ReadAll(io.LimitReader(data, maxListing+1))
		if len(text) > maxListing {
			c.broken = true
			return nil, &fault{http.StatusBadGateway, fmt.Sprintf("The listing has more than %d bytes", maxListing)}
		}
		data.Close()
		if broken := c.done(verb); broken != nil || err != nil {
			return nil, errors.Join(broken, err)
		}
		return parseListing(string(text), verb == "MLSD", time.Now()), nil
	}
	panic("unreachable: LIST is answered")
}
