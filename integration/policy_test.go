//go:build linux

package integration

import (
	"bytes"
	"crypto/sha256"
	"encoding/json"
	"fmt"
	"io"
	"net"
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
	data, reply := l.start(t, k, at, command)
	if reply[0] != '1' {
		return reply, ""
	}
	b, _ := io.ReadAll(data)
	data.Close()
	return k.reply(), string(b)
}

// fetchAnew has a session of its own fetch a file called file, and fails the test if the final reply has another code.
func (l *lab) fetchAnew(t *testing.T, at netip.AddrPort, code string) {
	t.Helper()
	k := l.logIn(t, at)
	defer k.Close()
	if reply, _ := l.fetch(t, k, at, "RETR file"); reply[:3] != code {
		t.Errorf("%q, not %s", reply, code)
	}
}

// start says a command that has a data connection, and returns that and the first reply.
func (l *lab) start(t *testing.T, k *talk, at netip.AddrPort, command string) (data net.Conn, reply string) {
	t.Helper()
	k.say("EPSV")
	data, err := l.Client.Dial(t.Context(), netip.AddrPortFrom(at.Addr(), passivePort(t, k.hear("229"))))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { data.Close() })
	data.SetDeadline(time.Now().Add(hang))
	k.say("%s", command)
	if reply = k.reply(); reply[0] != '1' {
		data.Close()
	}
	return data, reply
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

// TestExamples runs each of the ready configurations in front of a real server, with its addresses in place of theirs: what it is for
// works, and what it is against does not. What must not be there afterwards is looked for on disk.
func TestExamples(t *testing.T) {
	for name, test := range map[string]struct {
		user   string
		may    []string
		mayNot []string
		absent []string
	}{
		"read-only-mirror": {
			user: "anonymous", may: []string{"RETR file", "LIST /", "SIZE file", "CWD incoming"},
			mayNot: []string{"STOR x", "APPE file", "DELE file", "MKD d", "RMD incoming", "RNFR file", "SITE CHMOD 777 file", "XDEL file", "STOU"}, absent: []string{"x", "d"},
		},
		"upload-drop-box": {
			user: "dropbox", may: []string{"STOR /incoming/x", "CWD /incoming"},
			mayNot: []string{"RETR /incoming/seen", "LIST /incoming", "NLST", "MLSD /incoming", "STOR /y", "APPE /incoming/seen", "REST 5", "DELE /incoming/seen", "RNFR /incoming/seen",
				"SIZE /incoming/seen", "STAT /incoming", "MKD /incoming/d", "STOR /incoming/../y", "STOR /incoming/a/b"}, absent: []string{"y", "incoming/d"},
		},
		"office-hours": {user: ftpUser, may: []string{"RETR file", "LIST"}},
		"block-executables": {
			user: ftpUser, may: []string{"RETR file", "STOR x.txt", "RNFR x.txt", "RNTO y.txt"},
			mayNot: []string{"STOR x.exe", "STOR X.EXE", "STOR x.exe.", "STOR x.exe::$DATA", "RETR tool.exe", "RNFR tool.exe", "STOR ./a/../x.exe"}, absent: []string{"x.exe", "X.EXE", "x.exe."},
		},
		"per-partner": {user: "acme", may: []string{"CWD /partners/acme", "RETR /partners/acme/file", "STOR /partners/acme/x"}, mayNot: []string{"RETR /partners/bolt/file", "LIST /partners", "RETR /file"}},
		"ftps-only":   {mayNot: []string{"USER " + ftpUser}},
	} {
		t.Run(name, func(t *testing.T) {
			text, err := os.ReadFile(filepath.Join("..", "config", "examples", name+".yaml"))
			if err != nil {
				t.Fatal(err)
			}
			l := newLab(t)
			s := startServer(t, l, nil)
			for _, file := range []string{"file", "incoming/seen", "tool.exe", "partners/acme/file", "partners/bolt/file"} {
				s.give(t, file, []byte("content"))
			}
			at := s.AddrPort(v4)
			own := l.newAuthority("own")
			// The server knows one user, so that is whom the example's are.
			config := strings.NewReplacer("  - mode:", "  - data_path: splice\n    mode:",
				"192.0.2.10:21", at.String(), "192.0.2.10", at.Addr().String(), `"[::]:21"`, `"[::]:2121"`, "/var/lib/ftpalg/quotas", filepath.Join(l.Dir, "quotas"),
				"/etc/ftpalg/ca.pem", own.CertFile, "/etc/ftpalg/ca.key", own.KeyFile, "[anonymous, ftp]", ftpUser, "users: dropbox", "users: "+ftpUser, "users: acme", "users: "+ftpUser,
				"198.51.100.0/24", clientAddress[v4].Addr().String()).Replace(string(text))
			if strings.Contains(config, "mode: gateway") {
				at = netip.AddrPortFrom(clientGateway[v4].Addr(), 2121)
			}
			g := l.startGateway(config)
			k := l.Client.call(t, at)
			k.hear("220")
			if test.user != "" {
				k.ask("USER "+ftpUser, "331")
				k.ask("PASS "+ftpPassword, "230")
				k.ask("TYPE I", "200")
			}
			do := func(command string) string {
				switch verb, _, _ := strings.Cut(command, " "); verb {
				case "RETR", "LIST", "NLST", "MLSD":
					reply, _ := l.fetch(t, k, at, command)
					return reply
				case "STOR", "APPE", "STOU":
					return l.send(t, k, at, command, []byte("content"), true)
				}
				k.say("%s", command)
				return k.reply()
			}
			for _, command := range test.may {
				if reply := do(command); reply[0] > '3' {
					t.Errorf("%s: %s", command, reply)
				}
			}
			for _, command := range test.mayNot {
				before := strings.Count(g.log(), "msg=refused")
				if reply := do(command); reply[0] != '5' || strings.Count(g.log(), "msg=refused") == before {
					t.Errorf("%s: %s", command, reply)
				}
			}
			for _, file := range test.absent {
				if _, err := os.Stat(filepath.Join(s.Home, file)); err == nil {
					t.Errorf("%s is there", file)
				}
			}
			g.Stop()
			g.checkClean()
		})
	}
}

// TestPolicyReload: rules of a reload are in force for a session that runs, from its next command on, and a transfer that runs goes on.
func TestPolicyReload(t *testing.T) {
	l := newLab(t)
	s := startServer(t, l, nil)
	content := bytes.Repeat([]byte("0123456789abcdef"), 1<<20)
	s.give(t, "file", content)
	const before, after = "listeners: [{mode: tproxy}]\n", "listeners: [{mode: tproxy}]\npolicy: {rules: [{name: no-more, action: deny, classes: [read, write]}, {name: quiet, action: deny, commands: [SIZE, MDTM]}]}\n"
	g := l.startGateway(before)
	at := s.AddrPort(v4)
	k := l.logIn(t, at)
	k.ask("TYPE I", "200")
	data := l.begin(t, k, at, "RETR file")
	g.reload(after)
	if got, err := io.ReadAll(data); err != nil || !bytes.Equal(got, content) {
		t.Errorf("%d bytes of a transfer that ran, %v", len(got), err)
	}
	data.Close()
	k.hear("226")
	if reply, got := l.fetch(t, k, at, "RETR file"); reply != "550 Denied by policy (no-more)" || got != "" {
		t.Errorf("%s, %d bytes", reply, len(got))
	}
	k.say("FEAT")
	for line := k.line(); !strings.HasPrefix(line, "211 "); line = k.line() {
		if strings.Contains(line, "SIZE") || strings.Contains(line, "MDTM") {
			t.Errorf("FEAT tells of %q", line)
		}
	}
	g.reload(before)
	if reply, got := l.fetch(t, k, at, "RETR file"); reply[:3] != "226" || got != string(content) {
		t.Errorf("%s, %d bytes", reply, len(got))
	}
	g.await("msg=rule", "rule=no-more", "decided=1")
	g.Stop()
	g.checkClean()
}

// TestPolicySize: what is larger than a rule has it is refused before, where that is known, and broken off where it shows; a client
// that lies about it (ALLO) has no more of it. What was broken off looks whole to nobody.
func TestPolicySize(t *testing.T) {
	l := newLab(t)
	s := startServer(t, l, nil)
	const limit = 1 << 20
	s.give(t, "small", make([]byte, limit))
	s.give(t, "large", make([]byte, 8*limit))
	record := filepath.Join(l.Dir, "audit.jsonl")
	g := l.startGateway(fmt.Sprintf("listeners: [{mode: tproxy}]\npolicy: {rules: [{name: large, action: deny, larger_than: 1MiB}]}\naudit: {file: %s}\n", record))
	at := s.AddrPort(v4)
	k := l.logIn(t, at)
	k.ask("TYPE I", "200")
	if reply, got := l.fetch(t, k, at, "RETR small"); reply[:3] != "226" || len(got) != limit {
		t.Errorf("%s, %d bytes", reply, len(got))
	}
	if reply, got := l.fetch(t, k, at, "RETR large"); reply != "552 Denied by policy (large)" || len(got) > limit {
		t.Errorf("%s, %d bytes", reply, len(got))
	}
	k.ask("SIZE large", "213")
	if reply, got := l.fetch(t, k, at, "RETR large"); reply != "552 Denied by policy (large)" || got != "" {
		t.Errorf("%s, %d bytes", reply, len(got))
	}
	k.ask("REST 7500000", "350")
	if reply, _ := l.fetch(t, k, at, "RETR large"); reply[:3] != "552" {
		t.Errorf("the end of it: %s", reply)
	}
	k.ask("REST 0", "350") // the server has not heard of that RETR
	for i, said := range []string{"ALLO 5", "NOOP"} {
		k.say("%s", said)
		k.reply()
		data := l.begin(t, k, at, fmt.Sprintf("STOR up%d", i))
		for range 8 { // it may be broken off meanwhile
			if _, err := data.Write(make([]byte, limit)); err != nil {
				break
			}
		}
		data.Close()
		if reply := k.reply(); reply != "552 Denied by policy (large)" {
			t.Errorf("after %s: %s", said, reply)
		}
		if info, err := os.Stat(filepath.Join(s.Home, fmt.Sprintf("up%d", i))); err == nil && info.Size() > limit {
			t.Errorf("the server has %d bytes", info.Size())
		}
	}
	k.ask("ALLO 2000000", "202")
	if reply, _ := l.fetch(t, k, at, "STOR up2"); reply != "552 Denied by policy (large)" {
		t.Errorf("said to be large: %s", reply)
	}
	g.Stop()
	g.checkClean()
	whole := 0
	for _, e := range of(readAudit(t, record), audit.Transfer) {
		if e.Outcome == audit.Whole {
			whole++
		}
	}
	if whole != 1 {
		t.Errorf("%d transfers are recorded as whole", whole)
	}
}

// TestPolicyRate: a transfer with a rate takes longer than one without in the same run, by about what the rate says, and two that
// share one as long as one after the other.
func TestPolicyRate(t *testing.T) {
	l := newLab(t)
	s := startServer(t, l, nil)
	const size = 4 << 20
	for _, name := range []string{"free", "slow", "shared"} {
		s.give(t, name, make([]byte, size))
	}
	g := l.startGateway(`
listeners: [{mode: tproxy}]
policy:
  rules:
    - {name: slow, action: allow, commands: [RETR, STOR], paths: ["**/slow*"], rate: 4MB/s}
    - {name: shared, action: allow, commands: [RETR, STOR], paths: ["**/shared*"], shared_rate: 8MB/s}
`)
	at := s.AddrPort(v4)
	get := func(k *talk, name string) time.Duration {
		begun := time.Now()
		if reply, got := l.fetch(t, k, at, "RETR "+name); reply[:3] != "226" || len(got) != size {
			t.Errorf("%s: %s, %d bytes", name, reply, len(got))
		}
		return time.Since(begun)
	}
	put := func(k *talk, name string) time.Duration {
		begun := time.Now()
		if reply := l.send(t, k, at, "STOR "+name, make([]byte, size), true); reply[:3] != "226" {
			t.Errorf("%s: %s", name, reply)
		}
		return time.Since(begun)
	}
	k := l.logIn(t, at)
	k.ask("TYPE I", "200")
	for _, way := range []struct {
		name string
		do   func(*talk, string) time.Duration
	}{{"download", get}, {"upload", put}} {
		free := min(way.do(k, "free"), way.do(k, "free"))
		slow, shared := way.do(k, "slow"), way.do(k, "shared")
		t.Logf("%s: %v free, %v with 4 MB/s, %v with 8 MB/s", way.name, free, slow, shared)
		// A second and half of one, less what may come at once.
		if slow < 700*time.Millisecond || shared < 350*time.Millisecond || slow < 2*free {
			t.Errorf("%s: %v free, %v with 4 MB/s, %v with 8 MB/s", way.name, free, slow, shared)
		}
	}
	others := []*talk{l.logIn(t, at), l.logIn(t, at)}
	done := make(chan time.Duration, len(others))
	begun := time.Now()
	for _, k := range others {
		k.ask("TYPE I", "200")
		go func() { done <- get(k, "shared") }()
	}
	for range others {
		<-done
	}
	if both := time.Since(begun); both < 800*time.Millisecond {
		t.Errorf("two transfers that share 8 MB/s took %v", both)
	}
	g.Stop()
	g.checkClean()
}
