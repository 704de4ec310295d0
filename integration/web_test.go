//go:build linux

package integration

import (
	"bytes"
	"crypto/sha256"
	"encoding/json"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"net/http"
	"net/netip"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// webAsk says a request to the proxy, on a connection that may have had others, and returns the head of the response.
func webAsk(k *talk, method, target, header string, body io.Reader) *http.Response {
	k.t.Helper()
	k.send(method + " " + target + " HTTP/1.1\r\nHost: example.com\r\n" + header + "\r\n")
	if body != nil {
		go io.Copy(k, body) // an error of it is one of the response's
	}
	r, err := http.ReadResponse(k.r, &http.Request{Method: method})
	if err != nil {
		k.t.Fatalf("%s %s: %v", method, target, err)
	}
	return r
}

// webSays is webAsk for responses that must have a status, and come to their end. It returns the body.
func webSays(k *talk, status int, method, target, header string, body io.Reader) (string, *http.Response) {
	k.t.Helper()
	r := webAsk(k, method, target, header, body)
	b, err := io.ReadAll(r.Body)
	if err != nil {
		k.t.Fatalf("%s %s: %v after %d bytes", method, target, err, len(b))
	}
	if r.StatusCode != status {
		k.t.Fatalf("%s %s: %s instead of %d: %.300s", method, target, r.Status, status, b)
	}
	return string(b), r
}

// TestHTTPFiles: what requests do with every server's files, on one connection.
func TestHTTPFiles(t *testing.T) {
	l := newLab(t)
	servers := startServers(t, l)
	g := l.startGateway(tunnelProxy)
	for _, s := range servers {
		t.Run(s.Name, func(t *testing.T) {
			if s.missing != "" {
				lack(t, s.missing)
			}
			base := fmt.Sprintf("ftp://%s:%s@%s/", ftpUser, ftpPassword, s.AddrPort(v4))
			k := l.Client.call(t, proxyAt(v4))
			for _, size := range []int64{0, 1, 1<<20 + 3, 64 << 20} {
				name := fmt.Sprintf("size%d.bin", size)
				content := func() io.Reader { return io.LimitReader(rand.NewChaCha8([32]byte{byte(size)}), size) }
				sum := sha256.New()
				io.Copy(sum, content())
				webSays(k, 201, "PUT", base+name, fmt.Sprintf("Content-Length: %d\r\n", size), content())
				r := webAsk(k, "GET", base+name, "", nil)
				got := sha256.New()
				n, err := io.Copy(got, r.Body)
				if err != nil || r.StatusCode != 200 || n != size || r.ContentLength != size || !bytes.Equal(got.Sum(nil), sum.Sum(nil)) {
					t.Errorf("GET %s: %s, %d bytes of %d (Content-Length %d), %v", name, r.Status, n, size, r.ContentLength, err)
				}
				if when, err := http.ParseTime(r.Header.Get("Last-Modified")); err != nil || time.Since(when).Abs() > 26*time.Hour {
					t.Errorf("Last-Modified: %q", r.Header.Get("Last-Modified"))
				}
				if _, r := webSays(k, 200, "HEAD", base+name, "", nil); r.ContentLength != size {
					t.Errorf("HEAD %s: Content-Length %d", name, r.ContentLength)
				}
			}
			// Chunked, and only when the proxy has asked for it.
			k.send("PUT " + base + "digits HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\nExpect: 100-continue\r\n\r\n")
			if got := k.line(); got != "HTTP/1.1 100 Continue" {
				t.Fatalf("heard %q", got)
			}
			k.line()
			k.send("4\r\n0123\r\n6\r\n456789\r\n0\r\n\r\n")
			if r, err := http.ReadResponse(k.r, nil); err != nil || r.StatusCode != 201 {
				t.Fatalf("%v, %v", r, err)
			}
			k.ended()
			k = l.Client.call(t, proxyAt(v4))
			for asked, want := range map[string]string{"0-0": "0", "3-5": "345", "7-": "789", "-2": "89", "0-99": "0123456789", "-99": "0123456789"} {
				got, r := webSays(k, 206, "GET", base+"digits", "Range: bytes="+asked+"\r\n", nil)
				if got != want || !strings.HasSuffix(r.Header.Get("Content-Range"), "/10") {
					t.Errorf("range %s: %q, Content-Range %q", asked, got, r.Header.Get("Content-Range"))
				}
				if r.Close {
					k = l.Client.call(t, proxyAt(v4))
				}
			}
			for _, whole := range []string{"Range: bytes=1-2,4-5\r\n", "Range: bytes=5-4\r\n", "Range: lines=1-2\r\n", "Range: bytes=1-2\r\nIf-Range: \"x\"\r\n"} {
				if got, _ := webSays(k, 200, "GET", base+"digits", whole, nil); got != "0123456789" {
					t.Errorf("%q: %q", whole, got)
				}
			}
			if _, r := webSays(k, 416, "GET", base+"digits", "Range: bytes=10-\r\n", nil); r.Header.Get("Content-Range") != "bytes */10" {
				t.Errorf("Content-Range: %q", r.Header.Get("Content-Range"))
			}
			if got, r := webSays(k, 200, "GET", base+"digits;type=a", "", nil); got != "0123456789" || r.ContentLength >= 0 {
				t.Errorf("type=a: %q, Content-Length %d", got, r.ContentLength)
			}

			odd := []string{"ä ö%20?x#;type=i", `q"'<b>&amp;`, "$(id)`-rf", "日本語.txt"}
			if s.Name != "pureftpd" { // which takes leading spaces away
				odd = append(odd, " lead")
			}
			for _, name := range odd {
				webSays(k, 201, "PUT", base+url.PathEscape(name), "Content-Length: 5\r\n", strings.NewReader("hello"))
				if got, _ := webSays(k, 200, "GET", base+url.PathEscape(name), "", nil); got != "hello" {
					t.Errorf("%q has %q", name, got)
				}
			}
			text, _ := webSays(k, 200, "GET", base, "Accept: application/json\r\n", nil)
			var listed []struct{ Name string }
			if err := json.Unmarshal([]byte(text), &listed); err != nil {
				t.Fatalf("%v: %s", err, text)
			}
			names := map[string]bool{}
			for _, e := range listed {
				names[e.Name] = true
			}
			page, r := webSays(k, 200, "GET", base+"?sort=-size", "", nil)
			if !strings.HasPrefix(r.Header.Get("Content-Security-Policy"), "default-src 'none'") || strings.Contains(page, "<b>") {
				t.Errorf("the page: %v %s", r.Header, page)
			}
			for _, name := range odd {
				if !names[name] {
					t.Errorf("%q is not in %s", name, text)
				}
				if !strings.Contains(page, `href="`+strings.NewReplacer("&", "&amp;", "'", "&#39;").Replace(url.PathEscape(name))+`"`) {
					t.Errorf("no link to %q in %s", name, page)
				}
				webSays(k, 204, "DELETE", base+url.PathEscape(name), "", nil)
			}
			webSays(k, 404, "GET", base+url.PathEscape(odd[0]), "", nil)
			webSays(k, 404, "HEAD", base+url.PathEscape(odd[0]), "", nil)
			webSays(k, 404, "DELETE", base+url.PathEscape(odd[0]), "", nil)

			if err := os.Mkdir(filepath.Join(s.Home, "a dir"), 0o777); err != nil {
				t.Fatal(err)
			}
			os.Chmod(filepath.Join(s.Home, "a dir"), 0o777)
			for _, method := range []string{"GET", "HEAD"} {
				if _, r := webSays(k, 301, method, base+"a%20dir", "", nil); r.Header.Get("Location") != "/a%20dir/" {
					t.Errorf("%s: Location: %q", method, r.Header.Get("Location"))
				}
			}
			webSays(k, 201, "PUT", base+"a%20dir/in", "Content-Length: 2\r\n", strings.NewReader("in"))
			if page, _ := webSays(k, 200, "GET", base+"a%20dir/", "", nil); !strings.Contains(page, `href="in"`) || !strings.Contains(page, `href="/">Parent`) {
				t.Errorf("the page: %s", page)
			}
			if _, r := webSays(k, 401, "GET", strings.Replace(base, ftpPassword, "wrong", 1)+"digits", "", nil); !strings.HasPrefix(r.Header.Get("WWW-Authenticate"), "Basic ") {
				t.Errorf("WWW-Authenticate: %q", r.Header.Get("WWW-Authenticate"))
			}
		})
	}
	g.Stop()
	g.checkClean()
	if strings.Contains(g.log(), ftpPassword) {
		t.Error("the password is in the log")
	}
}

// webScript is a puppet's part in a request: what it is told, and answers. What is not in it gets 500, and the login is as usual.
func webScript(p *puppet, script map[string]string) *talk {
	p.t.Helper()
	k := p.accept("220 puppet")
	for {
		line := k.line()
		verb, _, _ := strings.Cut(line, " ")
		switch reply, known := script[verb]; {
		case verb == "USER":
			k.say("331 go on")
		case verb == "PASS":
			k.say("230 in")
		case verb == "TYPE":
			k.say("200 ok")
		case known && reply == "": // the rest is the test's
			return k
		case known:
			k.say("%s", reply)
		case verb == "QUIT":
			k.say("221 bye")
			k.ended()
			return nil
		default:
			k.say("500 what")
		}
	}
}

// webPuppet is webScript for one download or upload, until the data connection is there and 150 is said.
func webPuppet(p *puppet, verb string, script map[string]string) (*talk, *net.TCPConn) {
	p.t.Helper()
	data := p.lab.Server.listen(p.t, netip.AddrPortFrom(p.at.Addr(), 0))
	full := map[string]string{"EPSV": fmt.Sprintf("229 ok (|||%d|)", data.Addr().(*net.TCPAddr).Port), verb: ""}
	for k, v := range script {
		full[k] = v
	}
	k := webScript(p, full)
	k.say("150 here")
	data.SetDeadline(time.Now().Add(hang))
	c, err := data.Accept()
	if err != nil {
		p.t.Fatal(err)
	}
	c.SetDeadline(time.Now().Add(hang))
	return k, c.(*net.TCPConn)
}

// TestHTTPBroken: a transfer that breaks reaches neither side as whole.
func TestHTTPBroken(t *testing.T) {
	need(t, "curl")
	l := newLab(t)
	g := l.startGateway(tunnelProxy)
	p := newPuppet(t, l, port(serverAddress, v4, 21))
	file := func(name string) string { return fmt.Sprintf("ftp://u:p@%v/%s", p.at, name) }
	part := make([]byte, 100_000)

	endings := map[string]func(k *talk, c *net.TCPConn){
		"server killed": func(k *talk, c *net.TCPConn) { k.Close(); c.Close() },
		"reset":         func(k *talk, c *net.TCPConn) { c.SetLinger(0); c.Close(); k.say("226 I say it is whole") },
		"426":           func(k *talk, c *net.TCPConn) { c.Close(); k.say("426 broken off") },
		"451":           func(k *talk, c *net.TCPConn) { c.Close(); k.say("451 the disk") },
	}
	for ending, end := range endings {
		for _, size := range []string{"500 what", "213 100000", "213 200000"} {
			for _, version := range []string{"1.1", "1.0"} {
				t.Run("download/"+ending+"/"+size+"/"+version, func(t *testing.T) {
					k := l.Client.call(t, proxyAt(v4))
					k.send("GET " + file("f") + " HTTP/" + version + "\r\nHost: x\r\n\r\n")
					s, c := webPuppet(p, "RETR", map[string]string{"SIZE": size})
					defer s.Close()
					c.Write(part)
					end(s, c)
					r, err := http.ReadResponse(k.r, nil)
					if err != nil {
						return // before anything was said of it
					}
					if n, err := io.Copy(io.Discard, r.Body); r.StatusCode == 200 && err == nil {
						t.Errorf("%d bytes came as whole", n)
					}
				})
			}
			t.Run("download/"+ending+"/"+size+"/curl", func(t *testing.T) {
				curl := l.Client.Command(t.Context(), "curl", "-sSf", "-m", "60", "-o", "/dev/null", "-x", "http://"+proxyAt(v4).String(), file("f"))
				var said bytes.Buffer
				curl.Stderr = &said
				if err := curl.Start(); err != nil {
					t.Fatal(err)
				}
				s, c := webPuppet(p, "RETR", map[string]string{"SIZE": size})
				defer s.Close()
				c.Write(part)
				end(s, c)
				err := curl.Wait()
				if code := curl.ProcessState.ExitCode(); code != 18 && code != 56 && code != 22 {
					t.Errorf("%v: %s", err, said.String())
				}
			})
		}
	}
	t.Run("download/nothing came", func(t *testing.T) {
		k := l.Client.call(t, proxyAt(v4))
		k.send("GET " + file("f") + " HTTP/1.1\r\nHost: x\r\n\r\n")
		s, c := webPuppet(p, "RETR", nil)
		defer s.Close()
		c.Close()
		s.say("451 the disk")
		if r, err := http.ReadResponse(k.r, nil); err != nil || r.StatusCode != 502 {
			t.Errorf("%v, %v", r, err)
		}
	})
	t.Run("download/client gone", func(t *testing.T) {
		k := l.Client.call(t, proxyAt(v4))
		k.send("GET " + file("gone") + " HTTP/1.1\r\nHost: x\r\n\r\n")
		s, c := webPuppet(p, "RETR", nil)
		c.Write(part)
		k.Close()
		mustReset(t, "the server", c)
		s.ended()
		g.await("msg=transfer", "path=gone", "outcome=broken")
	})
	t.Run("upload/client gone", func(t *testing.T) {
		for name, head := range map[string]string{"length": "Content-Length: 200000\r\n", "chunked": "Transfer-Encoding: chunked\r\n"} {
			k := l.Client.call(t, proxyAt(v4))
			k.send("PUT " + file("half-"+name) + " HTTP/1.1\r\nHost: x\r\n" + head + "\r\n")
			if name == "chunked" {
				k.send("186a0\r\n")
			}
			k.Write(part)
			s, c := webPuppet(p, "STOR", nil)
			defer s.Close()
			if _, err := io.ReadFull(c, make([]byte, len(part)/2)); err != nil {
				t.Fatal(err)
			}
			k.Close()
			mustReset(t, "the server", c)
			g.await("msg=transfer", "path=half-"+name, "outcome=broken")
		}
	})
	t.Run("upload/refused", func(t *testing.T) {
		for reply, status := range map[string]int{"550 no": 403, "553 no": 403, "452 full": 507, "552 quota": 507, "532 account": 403} {
			done := make(chan struct{})
			go func() {
				defer close(done)
				webScript(p, map[string]string{"EPSV": "229 ok (|||40000|)", "STOR": reply})
			}()
			text, _ := webSays(l.Client.call(t, proxyAt(v4)), status, "PUT", file("f"), "Content-Length: 1\r\n", strings.NewReader("x"))
			if !strings.Contains(text, reply) {
				t.Errorf("the words: %q", text)
			}
			<-done
		}
	})
	t.Run("upload/disk full", func(t *testing.T) {
		k := l.Client.call(t, proxyAt(v4))
		k.send("PUT " + file("f") + " HTTP/1.1\r\nHost: x\r\nContent-Length: 200000\r\n\r\n")
		k.Write(part)
		s, c := webPuppet(p, "STOR", nil)
		defer s.Close()
		c.Close()
		s.say("452 full")
		k.Write(part)
		if r, err := http.ReadResponse(k.r, nil); err != nil || r.StatusCode != 507 {
			t.Errorf("%v, %v", r, err)
		}
	})
	g.Stop()
	g.checkClean()
}

// TestHTTPAttacks: what a hostile client or server may try.
func TestHTTPAttacks(t *testing.T) {
	l := newLab(t)
	g := l.startGateway("listeners: [{mode: explicit, address: '[::]:2121'}, {mode: explicit, address: '[::]:2122', protocols: [ftp]}, " +
		"{mode: explicit, address: '[::]:2123', protocols: [http]}]\nlog: {level: debug}\ntimeouts: {login: 1s}\n")
	p := newPuppet(t, l, port(serverAddress, v4, 21))
	nobody := func(t *testing.T) {
		t.Helper()
		p.l.SetDeadline(time.Now().Add(100 * time.Millisecond))
		if c, err := p.l.Accept(); err == nil {
			c.Close()
			t.Error("the server was called")
		}
	}
	call := func(t *testing.T) *talk { return l.Client.call(t, proxyAt(v4)) }

	t.Run("commands in URLs", func(t *testing.T) {
		for _, u := range []string{"ftp://%v/x%%0D%%0ADELE%%20y", "ftp://%v/x%%0ADELE%%20y", "ftp://%v/x%%00", "ftp://%v/x%%FF%%F2DELE%%20y",
			"ftp://u%%0D%%0ASITE:p@%v/x", "ftp://u:p%%0ASITE@%v/x", "ftp://u:p%%FF%%F4%%FF%%F2SITE@%v/"} {
			webSays(call(t), 400, "GET", fmt.Sprintf(u, p.at), "", nil)
		}
		nobody(t)
	})
	t.Run("smuggled requests", func(t *testing.T) {
		hidden := fmt.Sprintf("DELETE ftp://%v/precious HTTP/1.1\r\nHost: x\r\n\r\n", p.at)
		for _, head := range []string{
			"GET ftp://%v/x HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\n\r\n",
			"DELETE ftp://%v/x HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\n\r\n",
			"GET ftp://%v/x HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
			"POST ftp://%v/x HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
			"GET ftp://%v/x HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: xchunked\r\nContent-Length: %d\r\n\r\n",
			"GET ftp://%v/x HTTP/1.1\r\nHost: x\r\nContent-Length: 0\r\nContent-Length: %[2]d\r\n\r\n",
		} {
			k := call(t)
			k.send(fmt.Sprintf(head, p.at, len(hidden)) + hidden)
			r, err := http.ReadResponse(k.r, nil)
			if err != nil || r.StatusCode < 400 {
				t.Fatalf("%q: %v, %v", head, r, err)
			}
			if rest := k.ended(); strings.Count(rest, "HTTP/1.1") > 0 {
				t.Errorf("%q had a second answer: %s", head, rest)
			}
		}
		nobody(t)
	})
	t.Run("not for it", func(t *testing.T) {
		webSays(call(t), 400, "GET", "/", "", nil)
		webSays(call(t), 501, "GET", "http://192.0.2.1/", "", nil)
		webSays(call(t), 400, "GET", "file:///etc/passwd", "", nil)
		webSays(call(t), 405, "POST", fmt.Sprintf("ftp://%v/x", p.at), "Content-Length: 0\r\n", nil)
		webSays(call(t), 411, "PUT", fmt.Sprintf("ftp://%v/x", p.at), "", nil)
		for _, to := range []string{"127.0.0.1", "[::1]", "169.254.169.254", "192.0.2.1:2121", "198.51.100.2:22", "[::ffff:127.0.0.1]"} {
			webSays(call(t), 403, "GET", "ftp://"+to+"/x", "", nil)
		}
		for _, to := range []string{"127.0.0.1:21", "198.51.100.2:22", "198.51.100.2:40000", "198.51.100.2:80"} {
			webSays(call(t), 403, "CONNECT", to, "", nil)
		}
		webSays(call(t), 502, "GET", "ftp://198.51.100.2:2999/x", "", nil)
		nobody(t)
	})
	t.Run("eager tunnel", func(t *testing.T) {
		k := call(t)
		k.send(fmt.Sprintf("CONNECT %v HTTP/1.1\r\nHost: x\r\n\r\nUSER alice\r\n", p.at))
		if got := k.line(); !strings.HasPrefix(got, "HTTP/1.1 400") {
			t.Errorf("heard %q", got)
		}
		nobody(t)
	})
	t.Run("slow and huge heads", func(t *testing.T) {
		k := call(t)
		k.send("GET ftp://")
		begun := time.Now()
		k.ended()
		if took := time.Since(begun); took > 10*time.Second {
			t.Errorf("it took %v", took)
		}
		k = call(t)
		go io.WriteString(k, "GET ftp://h/ HTTP/1.1\r\nHost: x\r\nX: "+strings.Repeat("x", 1<<20))
		if got := k.line(); !strings.HasPrefix(got, "HTTP/1.1 431") {
			t.Errorf("heard %q", got)
		}
		nobody(t)
	})
	t.Run("protocols", func(t *testing.T) {
		at := proxyAt(v4)
		k := l.Client.call(t, netip.AddrPortFrom(at.Addr(), 2122))
		k.send("GET ftp://x/ HTTP/1.1\r\n\r\n")
		k.hear("220")
		k.hear("500")
		l.Client.call(t, netip.AddrPortFrom(at.Addr(), 2123)).hear("421")
		webSays(l.Client.call(t, netip.AddrPortFrom(at.Addr(), 2123)), 400, "GET", "/", "", nil)
	})
	t.Run("hostile listing", func(t *testing.T) {
		names := []string{`<script>alert(1)</script>`, `"><img src=x onerror=alert(1)>`, "javascript:alert(1)", "../../etc", "/etc/passwd", "a%0d%0ab", "\x1b[2Jx"}
		k := call(t)
		k.send(fmt.Sprintf("GET ftp://%v/d/ HTTP/1.1\r\nHost: x\r\n\r\n", p.at))
		s, c := webPuppet(p, "MLSD", map[string]string{"CWD": "250 ok"})
		for _, name := range names {
			fmt.Fprintf(c, "type=file;size=1; %s\r\n", name)
		}
		fmt.Fprintf(c, "<script>not a line</script>\r\n")
		c.Close()
		s.say("226 ok")
		s.expect("QUIT", "221 bye")
		r, err := http.ReadResponse(k.r, nil)
		if err != nil {
			t.Fatal(err)
		}
		b, _ := io.ReadAll(r.Body)
		page := string(b)
		for _, bad := range []string{"<script", "<img", `href="javascript:`, `href="..`, `href="/d/..`, "\x1b", `href="/etc`, "%0d%0a"} {
			if strings.Contains(page, bad) && bad != "%0d%0a" || bad == "%0d%0a" && !strings.Contains(page, "a%250d%250ab") {
				t.Errorf("%q: %s", bad, page)
			}
		}
		if !strings.Contains(page, "&lt;script&gt;not a line") {
			t.Errorf("what could not be read is not shown: %s", page)
		}
		if r.Header.Get("X-Content-Type-Options") != "nosniff" || !strings.Contains(r.Header.Get("Content-Security-Policy"), "default-src 'none'") {
			t.Errorf("head: %v", r.Header)
		}
	})
	t.Run("hostile words", func(t *testing.T) {
		done := make(chan struct{})
		go func() {
			defer close(done)
			webScript(p, map[string]string{"DELE": "550-<script>\r\n\x1b[2J\r\n550 no"})
		}()
		text, r := webSays(call(t), 404, "DELETE", fmt.Sprintf("ftp://%v/x", p.at), "", nil)
		<-done
		if strings.Contains(text, "\x1b") || !strings.HasPrefix(r.Header.Get("Content-Type"), "text/plain") || r.Header.Get("X-Content-Type-Options") != "nosniff" {
			t.Errorf("%v %q", r.Header, text)
		}
	})
	g.Stop()
	g.checkClean()
}

// TestHTTPDrain: a shutdown ends idle connections at once, and lets a download finish.
func TestHTTPDrain(t *testing.T) {
	l := newLab(t)
	g := l.startGateway(tunnelProxy)
	p := newPuppet(t, l, port(serverAddress, v4, 21))
	idle := l.Client.call(t, proxyAt(v4))
	webSays(idle, 400, "GET", "/", "", nil)
	k := l.Client.call(t, proxyAt(v4))
	k.send(fmt.Sprintf("GET ftp://%v/f HTTP/1.1\r\nHost: x\r\n\r\n", p.at))
	s, c := webPuppet(p, "RETR", nil)
	c.Write([]byte("first "))
	stopped := make(chan struct{})
	go func() {
		defer close(stopped)
		g.Stop()
	}()
	idle.ended()
	c.Write([]byte("second"))
	c.Close()
	s.say("226 done")
	r, err := http.ReadResponse(k.r, nil)
	if err != nil {
		t.Fatal(err)
	}
	if b, err := io.ReadAll(r.Body); err != nil || string(b) != "first second" {
		t.Errorf("%q, %v", b, err)
	}
	<-stopped
	g.checkClean()
}

// pythonGet has urllib download a file. It writes a login in a URL into the Host header, which is not one then.
const pythonGet = `import base64, sys, urllib.request as u
login = base64.b64encode(sys.argv[3].encode()).decode()
open(sys.argv[2], "wb").write(u.urlopen(u.Request(sys.argv[1], headers={"Authorization": "Basic " + login})).read())`

// TestHTTPClients: other clients, by their own settings.
func TestHTTPClients(t *testing.T) {
	need(t, "wget", "lftp", "tnftp", "python3")
	l := newLab(t)
	servers := startServers(t, l)
	g := l.startGateway(tunnelProxy)
	content := make([]byte, 1<<20+3)
	rand.NewChaCha8([32]byte{9}).Read(content)
	proxy := "http://" + proxyAt(v4).String()
	for _, s := range servers {
		if s.missing != "" {
			lack(t, s.missing)
		}
		if err := os.WriteFile(filepath.Join(s.Home, "file ä.bin"), content, 0o644); err != nil {
			t.Fatal(err)
		}
		os.Chown(filepath.Join(s.Home, "file ä.bin"), s.uid, s.uid)
		at := s.AddrPort(v4).String()
		login := fmt.Sprintf("ftp://%s:%s@%s/", ftpUser, ftpPassword, at)
		file := login + "file%20%C3%A4.bin"
		for name, args := range map[string][]string{
			"wget":           {"wget", "-q", "-O", "OUT", file},
			"python":         {"/usr/bin/python3", "-c", pythonGet, "ftp://" + at + "/file%20%C3%A4.bin", "OUT", ftpUser + ":" + ftpPassword},
			"tnftp":          {"tnftp", "-o", "OUT", file},
			"lftp, requests": {"lftp", "--norc", "-c", "set ftp:proxy " + proxy + "; set ftp:use-hftp yes; get '" + file + "' -o OUT"},
			"apt":            {"/usr/lib/apt/apt-helper", "-o", "Dir::Bin::Methods::ftp=ftp", "-o", "Acquire::ftp::Proxy=" + proxy, "download-file", file, "OUT"},
			"lftp, tunnel":   {"lftp", "--norc", "-c", "set ftp:proxy " + proxy + "; set ftp:use-hftp no; get '" + file + "' -o OUT"},
		} {
			t.Run(name+"/"+s.Name, func(t *testing.T) {
				out := filepath.Join(t.TempDir(), "out")
				var given []string
				for _, a := range args[1:] {
					given = append(given, strings.Replace(a, "OUT", out, 1))
				}
				command := l.Client.Command(t.Context(), args[0], given...)
				command.Env = append(command.Env, "ftp_proxy="+proxy)
				said, err := command.CombinedOutput()
				got, _ := os.ReadFile(out)
				if err != nil || !bytes.Equal(got, content) {
					t.Errorf("%v, %d bytes: %s", err, len(got), said)
				}
			})
		}
		t.Run("lftp lists/"+s.Name, func(t *testing.T) {
			said, err := l.Client.Command(t.Context(), "lftp", "--norc", "-c", "set ftp:proxy "+proxy+"; set ftp:use-hftp yes; open '"+login+"'; cls").CombinedOutput()
			if err != nil || !strings.Contains(string(said), "file ä.bin") {
				t.Errorf("%v: %s", err, said)
			}
		})
	}
	g.Stop()
	g.checkClean()
}
