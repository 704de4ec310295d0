//go:build linux

package integration

import (
	"context"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"
)

// TestHTTPRendered: a browser shows the page of a directory whose files have the names of an attacker, and nothing of them runs or
// is loaded. Browsers do not speak FTP by a proxy any more, so the page is given to this one as the proxy has given it to us.
func TestHTTPRendered(t *testing.T) {
	need(t, "curl", "chromium-headless-shell")
	l := newLab(t)
	s := startServer(t, l, nil)
	names := []string{`<script>fetch('ran-1')<&script>`, `"><img src=ran-2 onerror=fetch('ran-3')>`, `<svg onload=fetch('ran-4')>`, "plain & simple.txt", "größe.bin"}
	for _, name := range names {
		if err := os.WriteFile(filepath.Join(s.Home, name), []byte("x"), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	l.startGateway(tunnelProxy)
	dir := t.TempDir()
	head, body := filepath.Join(dir, "head"), filepath.Join(dir, "body")
	if said, err := l.Client.Command(t.Context(), "curl", "-fsS", "-m", "20", "-D", head, "-o", body, "-x", "http://"+proxyAt(v4).String(),
		fmt.Sprintf("ftp://%s:%s@%s/", ftpUser, ftpPassword, s.AddrPort(v4))).CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, said)
	}
	page, err := os.ReadFile(body)
	if err != nil {
		t.Fatal(err)
	}
	dom, loaded, refused := render(t, headerOf(t, head), page)
	if len(loaded) > 0 {
		t.Errorf("the page has loaded %v", loaded)
	}
	if refused != "" {
		t.Errorf("its own policy refuses what the page is made of: %s", refused)
	}
	for _, name := range names {
		escaped := strings.NewReplacer("&", "&amp;", "<", "&lt;", ">", "&gt;").Replace(name)
		if !strings.Contains(dom, ">"+escaped+"</a>") {
			t.Errorf("%s is not shown: %s", name, dom)
		}
	}
	// The browser would have run it.
	naive := "<!DOCTYPE html><meta charset=utf-8><p>" + strings.ReplaceAll(strings.Join(names, "<p>"), "<&script>", "</script>")
	if _, loaded, _ := render(t, http.Header{"Content-Type": {"text/html"}}, []byte(naive)); !slices.Contains(loaded, "/ran-1") || !slices.Contains(loaded, "/ran-4") {
		t.Errorf("a naive page has loaded %v alone", loaded)
	}
}

// headerOf reads the fields of a response's head from a file.
func headerOf(t *testing.T, file string) http.Header {
	t.Helper()
	text, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	h := http.Header{}
	for line := range strings.Lines(string(text)) {
		if name, value, ok := strings.Cut(strings.TrimSpace(line), ": "); ok && name != "Content-Length" {
			h.Add(name, value)
		}
	}
	return h
}

// browse has a browser, which command starts, look at an address. It returns what the page has become, and the lines of what the browser
// has to say with word in them.
func browse(t *testing.T, command func(context.Context, string, ...string) *exec.Cmd, url, word string, more ...string) (dom, said string) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	args := append([]string{"--no-sandbox", "--disable-gpu", "--user-data-dir=" + t.TempDir(), "--enable-logging=stderr", "--v=0", "--dump-dom"}, more...)
	c := command(ctx, "chromium-headless-shell", append(args, url)...)
	var stderr strings.Builder
	c.Stderr = &stderr
	out, err := c.Output()
	if err != nil {
		t.Fatalf("the browser: %v: %s", err, stderr.String())
	}
	for line := range strings.Lines(stderr.String()) {
		if strings.Contains(line, word) {
			said += line
		}
	}
	return string(out), said
}

// render has a browser render a page, and returns what it has become, what else was asked for, and what the browser says it has
// refused by the page's policy.
func render(t *testing.T, header http.Header, page []byte) (dom string, loaded []string, refused string) {
	t.Helper()
	var mu sync.Mutex
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/" {
			for name, values := range header {
				w.Header()[name] = values
			}
			w.Write(page)
			return
		}
		mu.Lock()
		defer mu.Unlock()
		if r.URL.Path != "/favicon.ico" {
			loaded = append(loaded, r.URL.Path)
		}
		io.WriteString(w, "x")
	}))
	defer server.Close()
	dom, refused = browse(t, exec.CommandContext, server.URL+"/", "Content Security Policy", "--virtual-time-budget=2000")
	mu.Lock()
	defer mu.Unlock()
	return dom, loaded, refused
}
