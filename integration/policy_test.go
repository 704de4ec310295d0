//go:build linux

package integration

import (
	"bytes"
	"crypto/sha256"
	"encoding/json"
	"fmt"
	"io"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/santhosh-tekuri/jsonschema/v6"

	"ftpalg/proxy/audit"
)

// logIn logs in to a server by way of a gateway between.
func (l *lab) logIn(t *testing.T, at netip.AddrPort) *talk {
	t.Helper()
	k := l.Client.call(t, at)
	k.hear("220")
	k.ask("USER "+ftpUser, "331")
	k.ask("PASS "+ftpPassword, "230")
	return k
}

// fetch says a command that has an answer on a data connection, and returns the final reply and what came.
func (l *lab) fetch(t *testing.T, k *talk, at netip.AddrPort, command string) (reply, content string) {
	t.Helper()
	k.say("EPSV")
	data, err := l.Client.Dial(t.Context(), netip.AddrPortFrom(at.Addr(), passivePort(t, k.hear("229"))))
	if err != nil {
		t.Fatal(err)
	}
	defer data.Close()
	data.SetDeadline(time.Now().Add(hang))
	k.say("%s", command)
	if reply = k.reply(); reply[0] != '1' {
		return reply, ""
	}
	b, _ := io.ReadAll(data)
	data.Close()
	return k.reply(), string(b)
}

// reply hears a reply, whatever it is, and returns its last line.
func (k *talk) reply() string {
	k.t.Helper()
	for {
		if l := k.line(); len(l) > 3 && l[3] == ' ' && l[0] >= '1' && l[0] <= '5' {
			return l
		}
	}
}

// readAudit reads the audit of a gateway. Every line must fit the schema.
func readAudit(t *testing.T, file string) []audit.Event {
	t.Helper()
	doc, err := jsonschema.UnmarshalJSON(bytes.NewReader(audit.JSONSchema))
	if err != nil {
		t.Fatal(err)
	}
	c := jsonschema.NewCompiler()
	c.AssertFormat()
	if err := c.AddResource("audit.json", doc); err != nil {
		t.Fatal(err)
	}
	schema, err := c.Compile("audit.json")
	if err != nil {
		t.Fatal(err)
	}
	b, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	var events []audit.Event
	for line := range bytes.Lines(b) {
		v, err := jsonschema.UnmarshalJSON(bytes.NewReader(line))
		if err != nil {
			t.Fatalf("%q: %v", line, err)
		}
		if err := schema.Validate(v); err != nil {
			t.Errorf("%s%v", line, err)
		}
		var e audit.Event
		if err := json.Unmarshal(line, &e); err != nil {
			t.Fatal(err)
		}
		events = append(events, e)
	}
	return events
}

// TestHTTPPolicy: what rules deny is forbidden to HTTP clients, whether it is there or not; what is not there is not found; and a
// digest is that of the file.
func TestHTTPPolicy(t *testing.T) {
	l := newLab(t)
	s := startServer(t, l, nil)
	record := filepath.Join(l.Dir, "audit.jsonl")
	g := l.startGateway(tunnelProxy + fmt.Sprintf(`
policy:
  rules:
    - {name: hidden, action: deny, paths: "**/secret/**"}
    - {name: sums, action: allow, classes: [read, write], digest: true, rate: 50MB/s}
audit: {file: %s}
`, record))
	base := fmt.Sprintf("ftp://%s:%s@%s/", ftpUser, ftpPassword, s.AddrPort(v4))
	k := l.Client.call(t, proxyAt(v4))
	webSays(k, 201, "PUT", base+"file", "Content-Length: 5\r\n", strings.NewReader("hello"))
	if text, _ := webSays(k, 200, "GET", base+"file", "", nil); text != "hello" {
		t.Errorf("%q", text)
	}
	webSays(k, 404, "GET", base+"nothing", "", nil)
	for _, method := range []string{"GET", "DELETE"} {
		if text, _ := webSays(k, 403, method, base+"secret/file", "", nil); !strings.Contains(text, "hidden") {
			t.Errorf("%s: %s", method, text)
		}
	}
	webSays(k, 404, "GET", base+"nothing", "", nil)
	webSays(k, 403, "PUT", base+"secret/file", "Content-Length: 1\r\n", strings.NewReader("x"))
	k.Close()
	g.Stop()
	g.checkClean()
	sums := 0
	for _, e := range readAudit(t, record) {
		if e.SHA256 != "" {
			sums++
			if e.SHA256 != fmt.Sprintf("%x", sha256.Sum256([]byte("hello"))) || e.Outcome != audit.Whole || e.Rule != "sums" {
				t.Errorf("%+v", e)
			}
		}
		if strings.Contains(fmt.Sprintf("%+v", e), ftpPassword) {
			t.Errorf("the password is in %+v", e)
		}
	}
	if sums != 2 {
		t.Errorf("%d digests", sums)
	}
}
