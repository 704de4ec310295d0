package admin

import (
	"fmt"
	"io"
	"log/slog"
	"math"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"regexp"
	"strconv"
	"strings"
	"testing"
	"time"

	"ftpalg/config"
	"ftpalg/control"
)

// pretended is a gateway that does nothing.
type pretended struct {
	live  *Live
	ready error
}

func (p *pretended) Live() *Live  { return p.live }
func (p *pretended) Ready() error { return p.ready }
func (p *pretended) Addresses() []netip.AddrPort {
	return []netip.AddrPort{netip.MustParseAddrPort("192.0.2.1:21")}
}
func (p *pretended) Pending() int                           { return 0 }
func (p *pretended) Audited() (written, lost uint64)        { return 0, 0 }
func (p *pretended) Firewall() (missing int, mended uint64) { return 0, 0 }
func (p *pretended) Rules() []Rule                          { return nil }
func (p *pretended) Configuration() []byte {
	return []byte("listeners: [</pre><script>bad()</script>]\n")
}

// testPage is a page that nobody listens for.
func testPage() (*status, *Live) {
	live := NewLive()
	s := New(&pretended{live: live}, Orders{Level: new(slog.LevelVar)}, "1.2.3", slog.New(slog.DiscardHandler))
	return &status{of: s, seen: map[string]progress{}}, live
}

const testAddress = "127.0.0.1:9722"

// ask asks the page for something, with fields of a request's head.
func ask(p *status, method, path string, fields map[string]string) *http.Response {
	r := httptest.NewRequest(method, "http://"+testAddress+path, nil)
	for name, value := range fields {
		r.Header.Set(name, value)
	}
	if h := fields["Host"]; h != "" {
		r.Host = h
	}
	w := httptest.NewRecorder()
	p.guard(testAddress).ServeHTTP(w, r)
	return w.Result()
}

// Pages of others have it from nobody's browser: not under a name of theirs, and not by a script.
func TestStatusGuard(t *testing.T) {
	p, _ := testPage()
	for _, q := range []struct {
		method, path string
		fields       map[string]string
		code         int
	}{
		{"GET", "/", nil, 200},
		{"HEAD", "/", nil, 200},
		{"GET", "/page.css", nil, 200},
		{"GET", "/page.js", nil, 200},
		{"GET", "/", map[string]string{"Host": "localhost:9722"}, 200},
		{"GET", "/", map[string]string{"Host": "LocalHost:9722"}, 200},
		{"GET", "/", map[string]string{"Host": "evil.example:9722"}, 421}, // DNS rebinding
		{"GET", "/", map[string]string{"Host": "127.0.0.1.evil.example:9722"}, 421},
		{"GET", "/", map[string]string{"Host": "127.0.0.1"}, 421},
		{"GET", "/", map[string]string{"Host": "127.0.0.1:80"}, 421},
		{"GET", "/", map[string]string{"Sec-Fetch-Site": "cross-site", "Sec-Fetch-Mode": "no-cors"}, 403},
		{"GET", "/", map[string]string{"Sec-Fetch-Site": "same-site", "Sec-Fetch-Mode": "cors"}, 403}, // another port of this machine
		{"GET", "/page.js", map[string]string{"Sec-Fetch-Site": "cross-site", "Sec-Fetch-Mode": "no-cors"}, 403},
		{"GET", "/", map[string]string{"Sec-Fetch-Site": "same-origin", "Sec-Fetch-Mode": "cors"}, 200},
		{"GET", "/", map[string]string{"Sec-Fetch-Site": "cross-site", "Sec-Fetch-Mode": "navigate"}, 200}, // a link: it does not see what it opens
		{"POST", "/", nil, 405},
		{"DELETE", "/", nil, 405},
		{"GET", "/v1/sessions", nil, 404},
		{"GET", "/metrics", nil, 404},
		{"GET", "/status/page.html", nil, 404},
	} {
		a := ask(p, q.method, q.path, q.fields)
		if a.StatusCode != q.code {
			t.Errorf("%s %s %v: %d, not %d", q.method, q.path, q.fields, a.StatusCode, q.code)
		}
		for name, want := range map[string]string{"X-Content-Type-Options": "nosniff", "Cache-Control": "no-store", "Cross-Origin-Resource-Policy": "same-origin", "Referrer-Policy": "no-referrer"} {
			if got := a.Header.Get(name); got != want {
				t.Errorf("%s %s: %s is %q", q.method, q.path, name, got)
			}
		}
		csp := a.Header.Get("Content-Security-Policy")
		if !strings.HasPrefix(csp, "default-src 'none';") || strings.Contains(csp, "unsafe") || !strings.Contains(csp, "frame-ancestors 'none'") {
			t.Errorf("%s %s: Content-Security-Policy is %q", q.method, q.path, csp)
		}
		if a.Header.Get("Access-Control-Allow-Origin") != "" {
			t.Errorf("%s %s: others may read it", q.method, q.path)
		}
	}
}

// body is a page as text.
func body(t *testing.T, p *status, path string) string {
	t.Helper()
	a := ask(p, "GET", path, nil)
	b, err := io.ReadAll(a.Body)
	if err != nil || a.StatusCode != 200 {
		t.Fatal(a.Status, err)
	}
	return string(b)
}

// What clients and servers choose is text on the page, and as much of it as anybody reads; however many they are.
func TestStatusEscapes(t *testing.T) {
	p, live := testPage()
	const crowd = 3 * mostRows
	for i := range crowd {
		e := live.Enter(fmt.Sprintf("s%04d", i), "lan", "tproxy", netip.MustParseAddrPort("192.0.2.7:1"), "", func() {})
		e.Observe(control.Started{Server: netip.MustParseAddrPort("203.0.113.9:21"), Name: "<img src=x onerror=bad()>"})
		e.Observe(control.LoggedIn{User: "<script>bad()</script>" + strings.Repeat("ü", 4096)})
	}
	page := body(t, p, "/")
	for _, wrong := range []string{"<script>bad", "<img", "</pre><script"} {
		if strings.Contains(page, wrong) {
			t.Errorf("%q is in the page", wrong)
		}
	}
	if !strings.Contains(page, "&lt;script&gt;bad()") || !strings.Contains(page, fmt.Sprintf("The first %d of %d sessions", mostRows, crowd)) {
		t.Error("names are not shown, or not how many there are")
	}
	if n := strings.Count(page, "<tr><td>"); n != mostRows {
		t.Errorf("%d sessions are shown", n)
	}
	if len(page) > 1<<20 {
		t.Errorf("the page has %d bytes", len(page))
	}
}

// Each order is what its link says, and the link of the order that is in force turns it round.
func TestStatusSorts(t *testing.T) {
	p, live := testPage()
	for i, user := range []string{"b", "c", "a"} {
		e := live.Enter(fmt.Sprint(i), "lan", "tproxy", netip.MustParseAddrPort("192.0.2.7:1"), "", func() {})
		e.Observe(control.LoggedIn{User: user})
	}
	users := func(sort string) (order string) {
		v, err := p.look(sort)
		if err != nil {
			t.Fatal(err)
		}
		for _, r := range v.Live {
			order += r.User
		}
		return order
	}
	// All are as fast: then it is the order of their numbers, turned round.
	for sort, want := range map[string]string{"user": "abc", "-user": "cba", "rate": "bca", "-rate": "acb", "": "acb", "no-such": "acb"} {
		if got := users(sort); got != want {
			t.Errorf("by %q: %s, not %s", sort, got, want)
		}
	}
	page := body(t, p, "/?sort=user")
	if !strings.Contains(page, `aria-sort="ascending"><a href="?sort=-user#sessions">`) || strings.Count(page, "aria-sort") != 1 {
		t.Error("the column that sorts does not say so")
	}
}

// The history is of an hour, whatever came before, and a plot has what is in it.
func TestStatusHistory(t *testing.T) {
	var h history
	for i := range 3 * samples {
		h.add(sample{sessions: float64(i), moved: [2]float64{float64(i) * 1e6, 0}})
		if all := h.all(); len(all) != min(i+1, samples) || all[len(all)-1].sessions != float64(i) || all[0].sessions != float64(max(0, i+1-samples)) {
			t.Fatalf("after %d samples: %d, from %v to %v", i+1, len(all), all[0], all[len(all)-1])
		}
	}
	ps := plots(h.all())
	if want := "Now 100 kB/s down and 0 B/s up; the most was 100 kB/s and 0 B/s."; ps[0].Summary != want {
		t.Errorf("%q", ps[0].Summary)
	}
	points := strings.Fields(ps[1].Lines[0].Points)
	if len(points) != samples || points[0] != "0.0,69.6" || points[samples-1] != "720.0,30.0" {
		t.Errorf("%d points, from %s to %s", len(points), points[0], points[len(points)-1])
	}
	for _, p := range plots(nil) { // and none are none
		if p.Lines[0].Points != "" {
			t.Errorf("%+v", p)
		}
	}
}

// Amounts have three digits at the most, and the unit that suits them.
func TestStatusAmounts(t *testing.T) {
	for n, want := range map[float64]string{0: "0 B", 999: "999 B", 1000: "1.0 kB", 99_949: "99.9 kB", 123_456: "123 kB", 999_499: "999 kB", 999_500: "1.0 MB", 5.5e12: "5.5 TB", 1e18: "1000 PB"} {
		if got := amount(n); got != want {
			t.Errorf("%v is %s, not %s", n, got, want)
		}
	}
}

// A page says what is wrong, and that it is wrong.
func TestStatusWorries(t *testing.T) {
	p, live := testPage()
	p.of.gateway.(*pretended).ready = fmt.Errorf("draining")
	live.Metrics().Reloaded(false, fmt.Errorf("ftpalg.yaml:3: <b>nonsense</b>"))
	page := body(t, p, "/")
	for _, want := range []string{`class="bad"`, "Not serving", "draining", "ftpalg.yaml:3: &lt;b&gt;nonsense"} {
		if !strings.Contains(page, want) {
			t.Errorf("not on the page: %s", want)
		}
	}
}

// Colours can be told from what they are on (WCAG 2.2, 1.4.3 and 1.4.11), in the light and in the dark.
func TestStatusContrast(t *testing.T) {
	css, err := statusFiles.ReadFile("status/page.css")
	if err != nil {
		t.Fatal(err)
	}
	parts := strings.SplitN(string(css), "@media (prefers-color-scheme: dark)", 2)
	light, dark := map[string]string{}, map[string]string{}
	variable := regexp.MustCompile(`--([a-z-]+): (#[0-9a-f]{6})`)
	for i, colours := range []map[string]string{light, dark} {
		for _, m := range variable.FindAllStringSubmatch(parts[i], -1) {
			colours[m[1]] = m[2]
		}
	}
	luminance := func(colour string) float64 {
		var sum float64
		for i, weight := range []float64{.2126, .7152, .0722} {
			n, err := strconv.ParseUint(colour[1+2*i:3+2*i], 16, 8)
			if err != nil {
				t.Fatal(err)
			}
			c := float64(n) / 255
			if c <= .04045 {
				c /= 12.92
			} else {
				c = math.Pow((c+.055)/1.055, 2.4)
			}
			sum += weight * c
		}
		return sum
	}
	for scheme, c := range map[string]map[string]string{"light": light, "dark": dark} {
		for _, pair := range []struct {
			over, on string
			least    float64
		}{
			{"text", "ground", 4.5}, {"text", "raised", 4.5}, {"quiet", "ground", 4.5}, {"quiet", "raised", 4.5}, {"link", "raised", 4.5}, {"link", "ground", 4.5},
			{"good", "good-ground", 4.5}, {"bad", "bad-ground", 4.5}, {"bad", "ground", 4.5}, {"down", "raised", 3}, {"up", "raised", 3}, {"moving", "raised", 3},
		} {
			a, b := c[pair.over], c[pair.on]
			if a == "" || b == "" {
				t.Fatalf("%s: there is no %s or %s", scheme, pair.over, pair.on)
			}
			x, y := luminance(a), luminance(b)
			if ratio := (max(x, y) + .05) / (min(x, y) + .05); ratio < pair.least {
				t.Errorf("%s: %s on %s has a contrast of %.2f, not %v", scheme, pair.over, pair.on, ratio, pair.least)
			}
		}
	}
}

// A page that moves to another address, or goes, leaves nothing behind.
func TestStatusAdopt(t *testing.T) {
	s := New(&pretended{live: NewLive()}, Orders{Level: new(slog.LevelVar)}, "1.2.3", slog.New(slog.DiscardHandler))
	at := netip.MustParseAddrPort("127.0.0.1:29722")
	answers := func(a netip.AddrPort) bool {
		c := &http.Client{Timeout: 5 * time.Second, Transport: &http.Transport{DisableKeepAlives: true}}
		r, err := c.Get("http://" + a.String() + "/")
		if err != nil {
			return false
		}
		defer r.Body.Close()
		return r.StatusCode == 200
	}
	other := netip.MustParseAddrPort("127.0.0.1:29723")
	for _, a := range []netip.AddrPort{at, other, {}, at} {
		if err := s.Adopt(&config.Config{Status: config.Status{Address: a}}); err != nil {
			t.Fatal(err)
		}
		if answers(at) != (a == at) || answers(other) != (a == other) {
			t.Errorf("at %v it is not there, or is elsewhere too", a)
		}
	}
	s.Close()
	if answers(at) {
		t.Error("it answers after Close")
	}
}
