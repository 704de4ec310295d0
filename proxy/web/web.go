// Package web answers the requests of clients that take ftpalg for an HTTP proxy (ftp_proxy=http://…): GET, HEAD, PUT and DELETE of
// ftp URLs (RFC 1738 §3.2) become FTP sessions, one for each request. It holds no sessions itself: whoever uses it gives it
// the client's end of one, in memory.
package web

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"mime"
	"net/http"
	"path"
	"strconv"
	"strings"
	"time"
)

// Front is an http.Handler for the requests of one client but CONNECT.
type Front struct {
	// Open begins a session with a server, host:port. An error may be a *Status.
	Open func(ctx context.Context, server string) (*Line, error)
	// LoggedIn hears that a server let the client in. It may be called several times.
	LoggedIn func()
	// Abort makes the end of the client's connection a reset: in HTTP/1.0 an end is that of the file.
	Abort func()
	// Stall is how long the client may take to read or write something. It must be positive.
	Stall time.Duration
}

// Status is an error that a client is told by an HTTP status. Its text reflects nothing the client said.
type Status struct {
	Code int
	Text string
}

func (s *Status) Error() string { return s.Text }

// methods are those of requests for ftp URLs.
const methods = "GET, HEAD, PUT, DELETE"

// ServeHTTP implements http.Handler.
func (f *Front) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	// What a client does not take or send in time is not waited for; the connection is closed then.
	clock := http.NewResponseController(w)
	clock.SetWriteDeadline(time.Now().Add(f.Stall))
	defer func() { clock.SetWriteDeadline(time.Now().Add(f.Stall)) }()
	w.Header().Set("X-Content-Type-Options", "nosniff")
	if len(r.TransferEncoding) > 0 {
		// Whoever is before us may have taken the length of this request for another (request smuggling), so it is the last.
		w.Header().Set("Connection", "close")
	}
	if r.URL.Host == "" {
		say(w, http.StatusBadRequest, "This is a proxy for FTP, not a web server. Name it in your client's setting for an FTP proxy: ftp_proxy=http://"+
			"this address, and ask for an ftp:// URL.")
		return
	}
	if r.URL.Scheme != "ftp" {
		say(w, http.StatusNotImplemented, "This proxy is for ftp:// URLs, and for nothing else.")
		return
	}
	t, err := targetOf(r)
	if err != nil {
		say(w, http.StatusBadRequest, err.Error())
		return
	}
	serve := f.get
	switch r.Method {
	case http.MethodGet, http.MethodHead:
	case http.MethodPut:
		serve = f.put
		if r.ContentLength == 0 && r.Header.Get("Content-Length") == "" {
			say(w, http.StatusLengthRequired, "How long is the file? Send Content-Length, or use chunked coding.")
			return
		}
	case http.MethodDelete:
		serve = f.remove
	default:
		w.Header().Set("Allow", methods)
		w.Header().Set("Connection", "close")
		say(w, http.StatusMethodNotAllowed, "What can be done with an ftp:// URL is "+methods+".")
		return
	}
	if r.Method != http.MethodPut && r.ContentLength != 0 {
		// Nobody needs one, and behind a proxy that reads it otherwise it would be another request.
		w.Header().Set("Connection", "close")
		say(w, http.StatusBadRequest, "A "+r.Method+" has no body.")
		return
	}
	f.perform(w, r, t, serve)
}

// perform holds the session of a request. serve returns what the client is to be told, nil if it has been, and panics with
// http.ErrAbortHandler if it has been told half.
func (f *Front) perform(w http.ResponseWriter, r *http.Request, t target, serve func(http.ResponseWriter, *http.Request, *conversation, target) error) {
	line, err := f.Open(r.Context(), t.server)
	if err != nil {
		var s *Status
		if !errors.As(err, &s) {
			s = &Status{http.StatusBadGateway, "The server cannot be reached"}
		}
		say(w, s.Code, s.Text)
		return
	}
	c, release := begin(r.Context(), line)
	answered := false
	defer func() {
		if !answered { // serve has panicked
			f.Abort()
			c.broken = true
		}
		c.end()
		release()
	}()
	err = c.login(t)
	if err == nil {
		f.LoggedIn()
		err = serve(w, r, c, t)
	}
	answered = true
	var fail *fault
	switch {
	case err == nil:
		http.NewResponseController(w).Flush() // the client need not wait for the goodbye
	case errors.As(err, &fail):
		if fail.status == http.StatusUnauthorized {
			w.Header().Set("WWW-Authenticate", `Basic realm="FTP server", charset="UTF-8"`)
		}
		say(w, fail.status, fail.text)
	default:
		c.broken = true
		say(w, http.StatusBadGateway, "The transfer broke")
	}
}

// say answers with a line of text.
func say(w http.ResponseWriter, status int, text string) {
	for _, h := range []string{"Content-Length", "Last-Modified", "Accept-Ranges", "Content-Range"} {
		if h != "Content-Range" || status != http.StatusRequestedRangeNotSatisfiable {
			w.Header().Del(h)
		}
	}
	w.Header().Set("Content-Type", "text/plain; charset=utf-8")
	text = fmt.Sprintf("%d %s\n\n%s\n", status, http.StatusText(status), text)
	w.Header().Set("Content-Length", strconv.Itoa(len(text)))
	w.WriteHeader(status)
	io.WriteString(w, text)
	http.NewResponseController(w).Flush() // the client need not wait for the server's goodbye
}

// get answers GET and HEAD.
func (f *Front) get(w http.ResponseWriter, r *http.Request, c *conversation, t target) error {
	if t.dir {
		entries, err := c.list(t)
		if err == nil {
			showListing(w, r, t, entries)
		}
		return err
	}
	size, missing := int64(-1), false
	if t.ascii {
		if _, err := c.must("TYPE", "A"); err != nil { // whose size is nobody's guess
			return err
		}
	} else {
		_, err := c.must("TYPE", "I")
		if err == nil {
			size, missing, err = c.size(t)
		}
		if err != nil {
			return err
		}
	}
	modified, err := c.modified(t)
	if err != nil {
		return err
	}
	h := w.Header()
	if !modified.IsZero() {
		h.Set("Last-Modified", modified.UTC().Format(http.TimeFormat))
	}
	h.Set("Content-Type", cmp.Or(mime.TypeByExtension(path.Ext(t.last)), "application/octet-stream"))
	if r.Method == http.MethodHead {
		return f.head(w, c, t, size, missing || modified.IsZero())
	}
	part, err := rangeOf(r, size)
	if err != nil {
		h.Set("Content-Range", "bytes */"+strconv.FormatInt(size, 10))
		return &fault{http.StatusRequestedRangeNotSatisfiable, err.Error()}
	}
	data, reply, err := c.open("RETR", t.path, part.from)
	var noREST *fault
	if part.from > 0 && errors.As(err, &noREST) && noREST.status == http.StatusNotImplemented {
		part = span{length: size} // the server cannot begin in the middle
		data, reply, err = c.open("RETR", t.path, 0)
	}
	if err != nil {
		return err
	}
	if data == nil {
		if reply.Code == 550 {
			if dir, err := c.isDir(t); dir || err != nil {
				return redirect(w, t, err)
			}
		}
		return c.failed("RETR", reply, nil)
	}
	err = f.download(w, c, data, part, size)
	var none *fault
	if errors.As(err, &none) && none.status == http.StatusNotFound {
		// Some say so after 150 only (ftpserverlib).
		if dir, e := c.isDir(t); dir || e != nil {
			return redirect(w, t, e)
		}
	}
	return err
}

// head answers HEAD of a file of which SIZE and MDTM have told what they do; uncertain: nothing that says that it exists.
func (f *Front) head(w http.ResponseWriter, c *conversation, t target, size int64, uncertain bool) error {
	if size < 0 && uncertain {
		if dir, err := c.isDir(t); dir || err != nil {
			return redirect(w, t, err)
		}
		return &fault{http.StatusNotFound, "No such file, or the server does not tell"}
	}
	if size >= 0 {
		w.Header().Set("Content-Length", strconv.FormatInt(size, 10))
		w.Header().Set("Accept-Ranges", "bytes")
	}
	w.WriteHeader(http.StatusOK)
	return nil
}

// redirect sends the client to a directory's own URL, relative to which its files are.
func redirect(w http.ResponseWriter, t target, err error) error {
	if err != nil {
		return err
	}
	w.Header().Set("Location", link(t.path, true))
	say(w, http.StatusMovedPermanently, "This is a directory.")
	return nil
}

// copied is how many bytes are read at once.
const copied = 32 << 10

// download gives the client a file. Nothing is answered before the first byte, so that what fails at once has a status; and the
// last byte is kept until the server has confirmed the transfer: one that breaks must not look whole, and with a
// Content-Length it would be whole with its last byte.
func (f *Front) download(w http.ResponseWriter, c *conversation, data *Conn, part span, size int64) error {
	clock := http.NewResponseController(w)
	buf := make([]byte, copied+1)
	begun, held, sent := false, 0, int64(0)
	prefix := part.part && part.from+part.length < size // the server sends more than is wanted
	for {
		n, err := data.Read(buf[held:])
		n += held
		switch {
		case err == io.EOF:
			data.Close() // the session waits for it
			if err := c.done("RETR"); err != nil {
				return broken(err, begun)
			}
			if part.length >= 0 && sent+int64(n) != part.length {
				return broken(&fault{http.StatusBadGateway, "The file is not as long as the server has said"}, begun)
			}
			if !begun {
				f.announce(w, part, size)
			}
			clock.SetWriteDeadline(time.Now().Add(f.Stall))
			if _, err := w.Write(buf[:n]); err != nil {
				panic(http.ErrAbortHandler)
			}
			return nil
		case err != nil:
			if err := c.done("RETR"); err != nil { // in the server's words
				return broken(err, begun)
			}
			return broken(err, begun)
		}
		last := prefix && sent+int64(n) >= part.length
		give := n - 1
		if last {
			give = int(part.length - sent)
		} else if part.length >= 0 && sent+int64(n) > part.length {
			c.broken = true
			return broken(&fault{http.StatusBadGateway, "The file is longer than the server has said"}, begun)
		}
		if !begun {
			f.announce(w, part, size)
			begun = true
		}
		clock.SetWriteDeadline(time.Now().Add(f.Stall))
		if _, err := w.Write(buf[:give]); err != nil {
			panic(http.ErrAbortHandler)
		}
		if last {
			c.broken = true
			clock.Flush()
			c.cutOff() // nobody wants the rest
			return nil
		}
		sent += int64(give)
		buf[0], held = buf[n-1], 1
		if part.length < 0 {
			clock.Flush() // who knows when more comes
		}
	}
}

// announce writes the head of a download's response.
func (f *Front) announce(w http.ResponseWriter, part span, size int64) {
	h := w.Header()
	if size >= 0 {
		h.Set("Accept-Ranges", "bytes")
		h.Set("Content-Length", strconv.FormatInt(part.length, 10))
	}
	if !part.part {
		w.WriteHeader(http.StatusOK)
		return
	}
	h.Set("Content-Range", fmt.Sprintf("bytes %d-%d/%d", part.from, part.from+part.length-1, size))
	w.WriteHeader(http.StatusPartialContent)
}

// broken ends a download that broke. One that the client has begun to hear of ends its connection: no other end of a response
// tells it.
func broken(err error, begun bool) error {
	if begun {
		panic(http.ErrAbortHandler)
	}
	return err
}

// put answers PUT.
func (f *Front) put(w http.ResponseWriter, r *http.Request, c *conversation, t target) error {
	if t.dir || t.path == "" {
		return &fault{http.StatusBadRequest, "A file has a name that does not end in a slash"}
	}
	kind := "I"
	if t.ascii {
		kind = "A"
	}
	if _, err := c.must("TYPE", kind); err != nil {
		return err
	}
	data, reply, err := c.open("STOR", t.path, 0)
	if err != nil {
		return err
	}
	if data == nil {
		return c.failed("STOR", reply, nil)
	}
	clock := http.NewResponseController(w)
	buf := make([]byte, copied)
	for {
		clock.SetReadDeadline(time.Now().Add(f.Stall))
		clock.SetWriteDeadline(time.Now().Add(f.Stall)) // for 100 Continue
		n, err := r.Body.Read(buf)
		if n > 0 {
			if _, err := data.Write(buf[:n]); err != nil {
				if err := c.done("STOR"); err != nil {
					return err
				}
				return errors.New("the server took no more, and said that it has all")
			}
		}
		if err == io.EOF {
			break
		}
		if err != nil {
			// Half a file must not look whole to the server: the connection is reset, and so is the server's then.
			data.Reset()
			panic(http.ErrAbortHandler)
		}
	}
	data.CloseWrite()
	if err := c.done("STOR"); err != nil {
		return err
	}
	w.WriteHeader(http.StatusCreated)
	return nil
}

// remove answers DELETE.
func (f *Front) remove(w http.ResponseWriter, r *http.Request, c *conversation, t target) error {
	verb := "DELE"
	if t.dir {
		verb = "RMD"
	}
	if strings.Trim(t.path, "/") == "" {
		return &fault{http.StatusForbidden, "The login directory and the root stay"}
	}
	if _, err := c.must(verb, t.path); err != nil {
		return err
	}
	w.WriteHeader(http.StatusNoContent)
	return nil
}
