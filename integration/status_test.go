//go:build linux

package integration

import (
	"fmt"
	"html/template"
	"net/netip"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"
)

// The status page in a browser, while clients are connected whose names and files are markup: all of it is text, the policy of the page
// is never offended, what comes while somebody looks is there without reloading, and without scripts it says the same.
func TestStatusPage(t *testing.T) {
	need(t, "chromium-headless-shell", "curl")
	l := newLab(t)
	address := netip.MustParseAddrPort("127.0.0.1:9722")
	p := newPuppet(t, l, port(serverAddress, v4, 21))
	g := l.startGateway(fmt.Sprintf("listeners: [{mode: tproxy}]\nstatus: {address: '%v'}\npolicy: {rules: [{name: keep, action: deny, commands: [DELE]}]}\n", address))
	url := fmt.Sprintf("http://%v/", address)
	const user = `<img src=/x onerror="document.title='ran'">`
	x := l.session(t, p, p.at, user)
	x.client.ask("DELE x", "502")
	caller, to, callee := l.arm(t, x, "EPSV")
	l.connect(t, x, caller, to, callee)
	const file = `</td><script>document.title='ran'</script>&amp;.zip`
	x.client.send("RETR " + file + "\r\n")
	x.server.expect("RETR "+file, "150 go")
	x.client.hear("150")
	go func() { // some 4 MB/s, as long as anybody takes it
		for b := make([]byte, 200_000); ; time.Sleep(50 * time.Millisecond) {
			if _, err := x.serverData.Write(b); err != nil {
				return
			}
		}
	}()
	go func() {
		for b := make([]byte, 1<<20); ; {
			if _, err := x.clientData.Read(b); err != nil {
				return
			}
		}
	}()
	check := func(dom, how string, text func(string) string) {
		t.Helper()
		for _, want := range []string{"<td>" + text(user) + "</td>", text("RETR "), text(file) + "</td>", ">splice<", ">keep</th>", "<strong>Serving</strong>", "listeners:"} {
			if !strings.Contains(dom, want) {
				t.Errorf("%s: not on the page: %s", how, want)
			}
		}
		if strings.Contains(dom, "<title>ran") {
			t.Errorf("%s: a name was run", how)
		}
		rate := regexp.MustCompile(`<td class="number">([0-9.]+) ([kMG]?B)/s</td>`).FindStringSubmatch(dom)
		if rate == nil || rate[2] != "MB" {
			t.Errorf("%s: some megabytes a second are shown as %v", how, rate)
		}
	}
	g.until("it moves", func() bool { return strings.Contains(l.page(t, url), "MB/s") })
	dom, complaints := browse(t, l.Firewall.Command, url, "CONSOLE", "--virtual-time-budget=1000")
	check(dom, "with scripts", strings.NewReplacer("&", "&amp;", "<", "&lt;", ">", "&gt;").Replace)
	if complaints != "" {
		t.Errorf("the browser complains: %s", complaints)
	}
	check(l.page(t, url), "without scripts", template.HTMLEscapeString)

	// Somebody comes while the page is open, for a thousand of its refreshments, which take no longer than they must.
	shown := make(chan string, 1)
	go func() {
		dom, _ := browse(t, l.Firewall.Command, url, "CONSOLE", "--virtual-time-budget=2000000")
		shown <- dom
	}()
	time.Sleep(4 * time.Second)
	late := l.session(t, p, p.at, "latecomer")
	if dom := <-shown; !strings.Contains(dom, "<td>latecomer</td>") || !strings.Contains(dom, "2 sessions") {
		t.Error("who comes while somebody looks is not shown")
	}
	late.client.part(late.server)

	// The order is chosen without scripts as well; and under another name there is nothing.
	if page := l.page(t, url+"?sort=user"); !strings.Contains(page, `aria-sort="ascending"`) {
		t.Error("it does not sort")
	}
	out := l.Firewall.must("curl", "-si", "-H", "Host: rebound.example:9722", url)
	if !strings.HasPrefix(out, "HTTP/1.1 421 ") || strings.Contains(out, "session") {
		t.Errorf("under another name it says: %.200s", out)
	}
	if c, err := l.Client.Dial(t.Context(), port(clientGateway, v4, 9722)); err == nil {
		c.Close()
		t.Error("it is there for others than this machine")
	}
	x.clientData.Close()
	g.Stop()
	g.checkClean()
}

// page is the status page as a program gets it.
func (l *lab) page(t *testing.T, url string) string {
	t.Helper()
	to := filepath.Join(t.TempDir(), "page")
	l.Firewall.must("curl", "-sS", "-m", "20", "-o", to, url)
	b, err := os.ReadFile(to)
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}
