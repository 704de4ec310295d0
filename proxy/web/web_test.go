package web

import (
	"errors"
	"io"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"os"
	"strings"
	"syscall"
	"testing"
	"time"
)

var now = time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)

// TestListing: the formats of servers that there are.
func TestListing(t *testing.T) {
	day := func(y, m, d, h, min int) time.Time { return time.Date(y, time.Month(m), d, h, min, 0, 0, time.UTC) }
	for line, want := range map[string]Entry{
		"-rw-r--r--    1 0        0             102 Nov 22  2025 a b.txt":       {Name: "a b.txt", Size: 102, Modified: day(2025, 11, 22, 0, 0)},        // vsftpd
		"-rw-r--r--   1 alice    users         102 Feb  3 04:05  lead":          {Name: " lead", Size: 102, Modified: day(2026, 2, 3, 4, 5)},            // ProFTPD
		"drwxr-xr-x    2 1000       users            4096 Dec 24 04:05 d":       {Name: "d", Dir: true, Size: -1, Modified: day(2025, 12, 24, 4, 5)},    // Pure-FTPd
		"lrwxrwxrwx    1 0        0               3 Jan  1 00:00 l -> ../d":     {Name: "l", Link: true, Size: -1, Modified: day(2026, 1, 1, 0, 0)},     // any
		"-rwxrwxrwx   1 owner    group         102 Jan  1  2020 x":              {Name: "x", Size: 102, Modified: day(2020, 1, 1, 0, 0)},                // IIS
		"-rw-r--r-- 1 alice 102 Jan 1 2020 y":                                   {Name: "y", Size: 102, Modified: day(2020, 1, 1, 0, 0)},                // no group
		"02-23-25  10:24PM       <DIR>          d e":                            {Name: "d e", Dir: true, Size: -1, Modified: day(2025, 2, 23, 22, 24)}, // IIS
		"02-23-2025  10:24AM                 1234 f":                            {Name: "f", Size: 1234, Modified: day(2025, 2, 23, 10, 24)},
		"-rw-r--r--    1 0        0             102 Nov 22  2025 ../etc/passwd": {Size: -1},
		"nonsense": {Size: -1},
	} {
		want.Line = line
		got := parseListing(line+"\r\n", false, now)
		if len(got) != 1 || got[0] != want {
			t.Errorf("%q:\n%+v, not\n%+v", line, got, want)
		}
	}
	got := parseListing("Type=cdir; .\r\nType=dir;Modify=20250223102400.123; d\r\ntype=file;size=7; a; b\r\nsize=7\r\ntype=file; a/b\r\n", true, now)
	if len(got) != 4 || !got[0].Dir || got[0].Modified != day(2025, 2, 23, 10, 24) || got[1].Name != "a; b" || got[1].Size != 7 || got[2].Name != "" || got[3].Name != "" {
		t.Errorf("%+v", got)
	}
}

// FuzzListing: whatever a server lists, names are names, and a page leads nowhere but into the directory, and has no markup of theirs.
func FuzzListing(f *testing.F) {
	f.Add("-rw-r--r-- 1 a b 1 Jan 1 2020 <b>\r\n02-23-05 10:24AM <DIR> \"x\r\nx", false)
	f.Add("type=file; ..\r\ntype=dir;size=99999999999999999999; javascript:x", true)
	f.Fuzz(func(t *testing.T, text string, facts bool) {
		entries := parseListing(text, facts, now)
		for _, e := range entries {
			if strings.ContainsAny(e.Name, "/\r\n\x00") || e.Name == "." || e.Name == ".." {
				t.Fatalf("%q is a name", e.Name)
			}
			if l := link(inside("d", e.Name), e.Dir); e.Name != "" && (!strings.HasPrefix(l, "/d/") || strings.ContainsAny(l, "<>\"'\r\n?#;")) && !strings.Contains(l, "'") {
				t.Fatalf("%q is a link", l)
			}
		}
		w := httptest.NewRecorder()
		showPage(w, httptest.NewRequest("GET", "ftp://h/d/", nil), target{path: "d"}, entries)
		if n := strings.Count(w.Body.String(), "<a "); n != 4+named(entries) {
			t.Fatalf("%d links for %d entries: %s", n, len(entries), w.Body)
		}
	})
}

func named(entries []Entry) (n int) {
	for _, e := range entries {
		if e.Name != "" {
			n++
		}
	}
	return n
}

// TestTarget: what URLs name, and which are refused.
func TestTarget(t *testing.T) {
	for url, want := range map[string]target{
		"ftp://h/a/b":                 {path: "a/b", last: "b"},
		"ftp://h":                     {dir: true},
		"ftp://h/a%20b/":              {path: "a b", dir: true, last: "a b"},
		"ftp://h/%2Fetc/motd":         {path: "/etc/motd", last: "motd"},
		"ftp://h//etc/motd":           {path: "/etc/motd", last: "motd"},
		"ftp://h//":                   {path: "/", dir: true},
		"ftp://h/a;type=A":            {path: "a", last: "a", ascii: true},
		"ftp://h/d;type=d":            {path: "d", last: "d", dir: true},
		"ftp://h/d/;type=i":           {path: "d", last: "d", dir: true},
		"ftp://h/a?b=c":               {path: "a?b=c", last: "a?b=c"},
		"ftp://h/a?":                  {path: "a?", last: "a?"},
		"ftp://h/d/?sort=size":        {path: "d", last: "d", dir: true, sort: "size"},
		"ftp://u%40x:p%3A@[::1]:99/a": {server: "[::1]:99", user: "u@x", password: "p:", path: "a", last: "a"},
		"ftp://h/%FF%FFa%FF":          {path: "\xff\xffa\xff", last: "\xff\xffa\xff"},
	} {
		if want.server == "" {
			want.server, want.user, want.password = "h:21", anonymous, anonymousPassword
		}
		if got, err := targetOf(httptest.NewRequest("GET", url, nil)); err != nil || got != want {
			t.Errorf("%s:\n%+v, %v, not\n%+v", url, got, err, want)
		}
	}
	for _, url := range []string{"ftp://h/%0A", "ftp://h/a%0Db", "ftp://h/%00", "ftp://h/%FF%F2DELE", "ftp://u%0A:p@h/", "ftp://h/a;type=x", "ftp:///a"} {
		if got, err := targetOf(httptest.NewRequest("GET", url, nil)); err == nil {
			t.Errorf("%s: %+v", url, got)
		}
	}
}

// TestPipe: an end is told from a reset, and nobody waits beyond a deadline.
func TestPipe(t *testing.T) {
	a, b := Pipe(netip.MustParseAddrPort("192.0.2.1:1"), netip.MustParseAddrPort("192.0.2.2:2"))
	go func() {
		a.Write(make([]byte, 3*window))
		a.CloseWrite()
	}()
	if n, err := io.Copy(io.Discard, b); n != 3*window || err != nil {
		t.Errorf("%d bytes, %v", n, err)
	}
	b.SetReadDeadline(time.Now().Add(-time.Second))
	a.SetReadDeadline(time.Now().Add(time.Millisecond))
	if _, err := a.Read(make([]byte, 1)); !errors.Is(err, os.ErrDeadlineExceeded) {
		t.Errorf("read: %v", err)
	}
	b.SetWriteDeadline(time.Now().Add(10 * time.Millisecond))
	if n, err := b.Write(make([]byte, 2*window)); n != window || !errors.Is(err, os.ErrDeadlineExceeded) {
		t.Errorf("write: %d, %v", n, err)
	}
	b.Reset()
	a.SetReadDeadline(time.Time{})
	if _, err := a.Read(make([]byte, 1)); !errors.Is(err, syscall.ECONNRESET) {
		t.Errorf("read after a reset: %v", err)
	}
	if _, err := a.Write([]byte("x")); err == nil {
		t.Error("write after a reset")
	}
}

// TestRange: what ranges are of a file.
func TestRange(t *testing.T) {
	for spec, want := range map[string]span{"bytes=0-0": {0, 1, true}, "bytes=3-": {3, 7, true}, "bytes=-3": {7, 3, true}, "bytes=-99": {0, 10, true},
		"bytes=2-99": {2, 8, true}, "bytes=0-1,3-4": {0, 10, false}, "bytes=5-4": {0, 10, false}, "bytes=-": {0, 10, false}, "bytes=+1-2": {0, 10, false},
		"bytes=1-99999999999999999999": {0, 10, false}} {
		r := httptest.NewRequest("GET", "ftp://h/a", nil)
		r.Header.Set("Range", spec)
		if got, err := rangeOf(r, 10); err != nil || got != want {
			t.Errorf("%s: %+v, %v, not %+v", spec, got, err, want)
		}
	}
	for _, spec := range []string{"bytes=10-", "bytes=-0"} {
		r := httptest.NewRequest(http.MethodGet, "ftp://h/a", nil)
		r.Header.Set("Range", spec)
		if got, err := rangeOf(r, 10); err != errRange {
			t.Errorf("%s: %+v, %v", spec, got, err)
		}
	}
}
