package audit

import (
	"bufio"
	"bytes"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"log/slog"
	"os"
	"os/exec"
	"path/filepath"
	"reflect"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/santhosh-tekuri/jsonschema/v6"
	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// schema is the published one.
func schema(t testing.TB) *jsonschema.Schema {
	t.Helper()
	doc, err := jsonschema.UnmarshalJSON(bytes.NewReader(JSONSchema))
	if err != nil {
		t.Fatal(err)
	}
	c := jsonschema.NewCompiler()
	c.AssertFormat()
	if err := c.AddResource("audit.json", doc); err != nil {
		t.Fatal(err)
	}
	s, err := c.Compile("audit.json")
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func of(n int64) *int64          { return &n }
func seconds(s float64) *float64 { return &s }

// full is an event of each kind with what it must have, and of transfers with everything.
func sample() []*Event {
	base := Event{Session: "0123456789ab", Listener: "l", Mode: "tproxy", Client: "192.0.2.1:5", ClientLocal: "[2001:db8::1]:21", ServerLocal: "192.0.2.1:5", Server: "203.0.113.9:21"}
	var all []*Event
	for _, k := range []Kind{SessionStart, ProxyLogin, Login, TLS, TransferStart, Transfer, Denial, Change, Command, SessionEnd} {
		e := new(Event)
		*e = base
		e.Event, e.Outcome, e.User, e.Account, e.Verb, e.Text, e.Path, e.Resolved = k, Success, "al", "acme", "STOR", "STOR a", "a", "/a"
		e.Direction, e.Bytes, e.Seconds, e.Carriage, e.SHA256 = "upload", of(7), seconds(0.25), "tls", strings.Repeat("0a", 32)
		e.ClientTLS, e.ServerTLS = &TLSFacts{Version: "TLS 1.3", Cipher: "c"}, &TLSFacts{Version: "TLS 1.2", Certificate: strings.Repeat("0b", 32), Verified: "chain"}
		e.Rule, e.Code, e.Reply, e.Reason, e.Offset, e.ASCII, e.From, e.ServerName = "r", 226, "Done", "goodbye", 5, true, "/b", "ftp.example.com"
		all = append(all, e)
	}
	return all
}

func open(t testing.TB, o Options) *Log {
	t.Helper()
	if o.Queue == 0 {
		o.Queue = 1000
	}
	if o.Log == nil {
		o.Log = slog.New(slog.DiscardHandler)
	}
	o.Version = "test"
	l, err := Open(o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	return l
}

// lines reads a record back: every line must be one, in order, and fit the schema.
func lines(t testing.TB, file string) []map[string]any {
	t.Helper()
	b, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	if len(b) > 0 && b[len(b)-1] != '\n' {
		t.Fatalf("the last line is no line: %q", b[max(0, len(b)-80):])
	}
	s := schema(t)
	var all []map[string]any
	for line := range bytes.Lines(b) {
		v, err := jsonschema.UnmarshalJSON(bytes.NewReader(line))
		if err != nil {
			t.Fatalf("%q: %v", line, err)
		}
		if err := s.Validate(v); err != nil {
			t.Fatalf("%s%v", line, err)
		}
		all = append(all, v.(map[string]any))
	}
	return all
}

func TestRecord(t *testing.T) {
	file := filepath.Join(t.TempDir(), "audit")
	l := open(t, Options{File: file})
	for _, e := range sample() {
		l.Record(e)
	}
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}
	all := lines(t, file)
	if len(all) != 11 || all[0]["event"] != "opened" || all[0]["version"] != "test" {
		t.Fatalf("%d lines, %v", len(all), all)
	}
	for i, v := range all {
		if fmt.Sprint(v["seq"]) != fmt.Sprint(i+1) {
			t.Errorf("line %d has seq %v", i, v["seq"])
		}
	}
	info, err := os.Stat(file)
	if err != nil || info.Mode().Perm() != 0o640 {
		t.Error(info.Mode(), err)
	}
	l.Record(&Event{Event: SessionEnd}) // after Close: lost, and no panic
}

// TestLine: a line has every field of an event, under its name.
func TestLine(t *testing.T) {
	var fill func(v reflect.Value, n int)
	fill = func(v reflect.Value, n int) {
		switch v.Kind() {
		case reflect.String:
			v.SetString(fmt.Sprint("text ", n))
		case reflect.Bool:
			v.SetBool(true)
		case reflect.Int, reflect.Int64:
			v.SetInt(int64(n))
		case reflect.Uint64:
			v.SetUint(uint64(n))
		case reflect.Float64:
			v.SetFloat(float64(n) / 7)
		case reflect.Pointer:
			v.Set(reflect.New(v.Type().Elem()))
			fill(v.Elem(), n)
		case reflect.Struct:
			if v.Type() == reflect.TypeFor[time.Time]() {
				v.Set(reflect.ValueOf(time.Unix(int64(n), 123456789).UTC()))
				return
			}
			for i := range v.NumField() {
				fill(v.Field(i), 100*n+i+1)
			}
		default:
			t.Fatalf("what is %v?", v.Type())
		}
	}
	var e, got Event
	fill(reflect.ValueOf(&e).Elem(), 1)
	line := e.appendLine(nil)
	e.UserRaw, e.TextRaw, e.PathRaw, e.ResolvedRaw, e.FromRaw = "", "", "", "", "" // the texts are UTF-8
	decoder := json.NewDecoder(bytes.NewReader(line))
	decoder.DisallowUnknownFields()
	if err := decoder.Decode(&got); err != nil {
		t.Fatalf("%s: %v", line, err)
	}
	if !reflect.DeepEqual(got, e) {
		t.Errorf("%s is not\n%+v", line, e)
	}
	if err := json.Unmarshal((&Event{}).appendLine(nil), &got); err != nil {
		t.Errorf("of an empty event: %v", err)
	}
}

// TestForgery has names that would be lines, fields or commands to a terminal.
func TestForgery(t *testing.T) {
	file := filepath.Join(t.TempDir(), "audit")
	xfer := filepath.Join(t.TempDir(), "xferlog")
	l := open(t, Options{File: file, Xferlog: xfer})
	names := []string{"a\n{\"schema\":1}", "a\r\nb", `a","event":"opened`, "\x1b[2J\x1b]0;owned\x07", "\u009b2J", "\x7f", "\u2028\u2029", "\u202egpj.exe", "caf\xe9\xff", strings.Repeat("é", 2048), "a\x00b", " ", "a b _ o r"}
	for _, n := range names {
		l.Record(&Event{Event: Transfer, Session: "0123456789ab", Listener: "l", Mode: "tproxy", Client: "192.0.2.1:5", User: n, Verb: "RETR", Direction: "download", Bytes: of(0), Seconds: seconds(0),
			Outcome: Whole, Path: n, Resolved: n, Reply: n, Rule: n, Reason: n})
	}
	l.Close()
	raw, _ := os.ReadFile(file)
	for _, r := range string(raw) {
		if r < ' ' && r != '\n' || r >= 0x7F && r <= 0x9F || r == '\u202e' || r == '\u2028' {
			t.Fatalf("%U in the record", r)
		}
	}
	all := lines(t, file)[1:]
	if len(all) != len(names) {
		t.Fatalf("%d lines for %d events", len(all), len(names))
	}
	for i, v := range all {
		got := v["path"].(string)
		if b, ok := v["path_base64"].(string); ok {
			d, _ := base64.StdEncoding.DecodeString(b)
			got = string(d)
		}
		if got != names[i] || v["event"] != "transfer" {
			t.Errorf("%q is recorded as %v", names[i], v)
		}
	}
	raw, _ = os.ReadFile(xfer)
	if n := bytes.Count(raw, []byte("\n")); n != len(names) {
		t.Errorf("%d lines in the xferlog", n)
	}
	for line := range bytes.Lines(raw) {
		if f := bytes.Fields(line); len(f) != 18 || bytes.Count(line, []byte(" ")) != 17 && f[1] != nil && len(f[2]) == 2 {
			t.Errorf("%d fields: %q", len(f), line) // fourteen, of which the time has five words
		}
	}
}

func TestXferlog(t *testing.T) {
	at := time.Date(2026, 9, 4, 8, 12, 11, 0, time.Local)
	for want, e := range map[string]Event{
		"Fri Sep  4 08:12:11 2026 1 192.0.2.7 1024 /pub/file b _ o r al ftp 0 * c\n": {Event: Transfer, Verb: "RETR", Client: "192.0.2.7:5", Bytes: of(1024), Seconds: seconds(0.7), Resolved: "/pub/file", User: "al", Outcome: Whole},
		"Fri Sep  4 08:12:11 2026 0 2001:db8::7 0 a_b b _ i a ftp ftp 0 * i\n":       {Event: Transfer, Verb: "STOR", Direction: "upload", Client: "[2001:db8::7]:5", Path: "a b", User: "ftp", Outcome: Broken},
		"Fri Sep  4 08:12:11 2026 0 192.0.2.7 3 /x a _ i r ? ftp 0 * c\n":            {Event: Transfer, Verb: "APPE", Direction: "upload", Client: "192.0.2.7:5", Bytes: of(3), Resolved: "/x", ASCII: true, Outcome: Whole},
		"Fri Sep  4 08:12:11 2026 0 192.0.2.7 0 /x b _ d r al ftp 0 * c\n":           {Event: Change, Verb: "DELE", Client: "192.0.2.7:5", Resolved: "/x", User: "al", Outcome: Success},
		"": {Event: Transfer, Verb: "LIST", Direction: "download"},
	} {
		e.Time = at
		if got := string(e.appendXferlog(nil)); got != want {
			t.Errorf("%q\n  not %q", got, want)
		}
	}
	if got := (&Event{Event: Login, Time: at}).appendXferlog(nil); got != nil {
		t.Errorf("a login is %q", got)
	}
}

// TestRotate is what logrotate does, with its signal and without.
func TestRotate(t *testing.T) {
	dir := t.TempDir()
	file := filepath.Join(dir, "audit")
	l := open(t, Options{File: file})
	l.RecordNow(sample()[0])(time.Minute)
	os.Rename(file, file+".1")
	l.RecordNow(sample()[1])(time.Minute)
	if err := l.Reopen(); err != nil {
		t.Fatal(err)
	}
	l.RecordNow(sample()[2])(time.Minute)
	if a, b := lines(t, file+".1"), lines(t, file); len(a) != 3 || len(b) != 2 || b[0]["event"] != "opened" {
		t.Errorf("%d lines, and %v", len(a), b)
	}
	// Where the new one cannot be opened the old one stays.
	os.Rename(file, file+".2")
	os.Mkdir(file, 0o755)
	if err := l.Reopen(); err == nil || !strings.Contains(err.Error(), file) {
		t.Errorf("a directory is reopened: %v", err)
	}
	l.RecordNow(sample()[3])(time.Minute)
	if a := lines(t, file+".2"); len(a) != 3 {
		t.Errorf("%d lines", len(a))
	}
	// Removed by somebody, and found out.
	os.Remove(file)
	time.Sleep(1100 * time.Millisecond)
	l.RecordNow(sample()[4])(time.Minute)
	if a := lines(t, file); len(a) != 1 {
		t.Errorf("%d lines", len(a))
	}
}

// TestHalfLine has a file whose last line was cut off with the power, and one whose last line is whole.
func TestHalfLine(t *testing.T) {
	for before, want := range map[string]string{`{"schema":1,"se`: "{\"schema\":1,\"se\n", "{}\n": "{}\n"} {
		file := filepath.Join(t.TempDir(), "audit")
		if err := os.WriteFile(file, []byte(before), 0o640); err != nil {
			t.Fatal(err)
		}
		l := open(t, Options{File: file})
		l.Close()
		b, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		rest, ok := strings.CutPrefix(string(b), want)
		if !ok || strings.Count(rest, "\n") != 1 || !json.Valid([]byte(rest)) {
			t.Errorf("%q is followed by %q", before, b)
		}
	}
}

// TestLostLast: what was lost after the last event that was written is told of all the same.
func TestLostLast(t *testing.T) {
	file := filepath.Join(t.TempDir(), "audit")
	l := open(t, Options{File: file})
	if !l.RecordNow(sample()[0])(time.Minute) {
		t.Fatal("not written")
	}
	l.mu.Lock() // as put does when it finds the queue full that the writer empties in the same moment
	l.lost, l.since = 3, time.Now().UTC()
	l.mu.Unlock()
	l.Close()
	all := lines(t, file)
	if last := all[len(all)-1]; last["event"] != "dropped" || fmt.Sprint(last["lost"]) != "3" {
		t.Errorf("the last line is %v", last)
	}
}

// TestFullDisk fills the disk under the record, and makes room again: every line is whole, and what was lost is counted in it.
func TestFullDisk(t *testing.T) {
	dir := t.TempDir()
	if out, err := exec.Command("mount", "-t", "tmpfs", "-o", "size=64k", "tmpfs", dir).CombinedOutput(); err != nil {
		if os.Getenv("FTPALG_INTEGRATION") != "" {
			t.Fatalf("%v: %s", err, out)
		}
		t.Skipf("needs root: %s", out)
	}
	defer syscall.Unmount(dir, syscall.MNT_DETACH)
	for _, mode := range []OnFull{Drop, Refuse} {
		t.Run(fmt.Sprint(mode), func(t *testing.T) {
			file := filepath.Join(dir, fmt.Sprint("audit", mode))
			ballast := filepath.Join(dir, "ballast")
			defer os.Remove(ballast)
			defer os.Remove(file)
			l := open(t, Options{File: file, Queue: 20, OnFull: mode})
			if err := os.WriteFile(ballast, make([]byte, 60<<10), 0o600); err != nil && !strings.Contains(err.Error(), "no space") {
				t.Fatal(err)
			}
			begin := time.Now()
			for range 300 {
				l.Record(sample()[5])
			}
			if took := time.Since(begin); took > 5*time.Second {
				t.Errorf("sessions waited %v", took)
			}
			for l.Admit() == nil && mode == Refuse {
				time.Sleep(10 * time.Millisecond)
			}
			if l.RecordNow(sample()[4])(50 * time.Millisecond) {
				t.Error("what cannot be written is said to be")
			}
			os.Remove(ballast)
			for !l.RecordNow(sample()[4])(time.Second) {
				if time.Since(begin) > time.Minute {
					t.Fatal("it is not written although there is room")
				}
			}
			if err := l.Admit(); err != nil {
				t.Error(err)
			}
			l.Close()
			all := lines(t, file)
			var lost, seen int64
			for _, v := range all {
				switch v["event"] {
				case "dropped":
					n, _ := v["lost"].(json.Number).Int64()
					lost += n
				case "transfer":
					seen++
				}
			}
			_, dropped := l.Stats()
			if lost == 0 || uint64(lost) != dropped || seen+lost < 300 {
				t.Errorf("%d transfers are recorded, %d lost by the record, %d by the count", seen, lost, dropped)
			}
		})
	}
}

// TestSlowReader has a pipe that nobody reads for a while.
func TestSlowReader(t *testing.T) {
	file := filepath.Join(t.TempDir(), "pipe")
	if err := syscall.Mkfifo(file, 0o600); err != nil {
		t.Fatal(err)
	}
	l := open(t, Options{File: file, Queue: 100})
	begin := time.Now()
	for range 2000 { // more than a pipe and the queue hold
		l.Record(sample()[5])
	}
	if took := time.Since(begin); took > time.Second {
		t.Errorf("sessions waited %v", took)
	}
	if _, dropped := l.Stats(); dropped == 0 {
		t.Fatal("nothing was dropped")
	}
	r, err := os.Open(file)
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	scanner := bufio.NewScanner(r)
	for n := 0; scanner.Scan(); n++ {
		var v map[string]any
		if err := json.Unmarshal(scanner.Bytes(), &v); err != nil {
			t.Fatalf("line %d: %v: %q", n, err, scanner.Bytes())
		}
		if v["event"] == "dropped" {
			return
		}
		if n%100 == 0 {
			l.Record(sample()[0])
		}
	}
	t.Fatal("the record does not say what it has lost")
}

// TestBlock has sessions wait for a record that must be complete.
func TestBlock(t *testing.T) {
	file := filepath.Join(t.TempDir(), "pipe")
	if err := syscall.Mkfifo(file, 0o600); err != nil {
		t.Fatal(err)
	}
	l := open(t, Options{File: file, Queue: 4, OnFull: Block})
	const n = 1000
	done := make(chan struct{})
	go func() {
		for range n {
			l.Record(sample()[5])
		}
		close(done)
	}()
	select {
	case <-done:
		t.Fatal("nobody waited")
	case <-time.After(200 * time.Millisecond):
	}
	r, err := os.Open(file)
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	scanner := bufio.NewScanner(r)
	for i := 0; i < n+1 && scanner.Scan(); i++ {
		if want := fmt.Sprintf(`"seq":%d,`, i+1); !bytes.Contains(scanner.Bytes(), []byte(want)) {
			t.Fatalf("no %s in %s", want, scanner.Bytes())
		}
	}
	<-done
}

// TestHurry has a process that must end though its record takes nothing.
func TestHurry(t *testing.T) {
	file := filepath.Join(t.TempDir(), "pipe")
	if err := syscall.Mkfifo(file, 0o600); err != nil {
		t.Fatal(err)
	}
	l := open(t, Options{File: file, Queue: 4, OnFull: Block})
	done := make(chan struct{})
	go func() {
		for range 2000 {
			l.Record(sample()[5])
		}
		l.RecordNow(sample()[5])(time.Hour)
		close(done)
	}()
	select {
	case <-done:
		t.Fatal("nobody waited")
	case <-time.After(200 * time.Millisecond):
	}
	l.Hurry()
	<-done
	if _, dropped := l.Stats(); dropped == 0 {
		t.Error("what was lost is not counted")
	}
}

// TestOpenFails names the file and what to do.
func TestOpenFails(t *testing.T) {
	for _, o := range []Options{{File: "/nowhere/audit"}, {File: filepath.Join(t.TempDir(), "a"), Xferlog: "/nowhere/xferlog"}, {File: t.TempDir()}} {
		o.Queue = 16
		_, err := Open(o)
		if err == nil || !strings.Contains(err.Error(), max(o.Xferlog, "")) || !strings.Contains(err.Error(), "audit: ") {
			t.Errorf("%+v: %v", o, err)
		}
	}
}

// FuzzEvent: whatever is in an event, it is one line that fits the schema and says what it was told.
func FuzzEvent(f *testing.F) {
	f.Add("a\nb", "\xff\xfe", "\u202e", 226)
	f.Add("", "", "", 0)
	s := schema(f)
	f.Fuzz(func(t *testing.T, a, b, c string, n int) {
		e := sample()[5]
		e.Path, e.User, e.Reply, e.Rule, e.Reason, e.Resolved, e.ServerName, e.Code = a, b, c, a, b, c, a, 100+(n&0x7fff)%500
		e.From, e.Text = b, c
		e.Schema, e.Seq, e.Time = Schema, 1, time.Unix(0, 0).UTC()
		line := e.appendLine(nil)
		if bytes.IndexByte(line, '\n') != len(line)-1 {
			t.Fatalf("%q is not one line", line)
		}
		v, err := jsonschema.UnmarshalJSON(bytes.NewReader(line))
		if err != nil {
			t.Fatalf("%q: %v", line, err)
		}
		if err := s.Validate(v); err != nil {
			t.Fatal(err)
		}
		for field, want := range map[string]string{"path": a, "user": b, "resolved_path": c, "from_path": b, "text": c} {
			got, _ := v.(map[string]any)[field].(string)
			if raw, ok := v.(map[string]any)[field+"_base64"].(string); ok {
				d, err := base64.StdEncoding.DecodeString(raw)
				if err != nil {
					t.Fatal(err)
				}
				got = string(d)
			}
			if got != want {
				t.Fatalf("%s: %q is recorded as %q", field, want, got)
			}
		}
	})
}

// BenchmarkRecord is what a session pays for an event.
func BenchmarkRecord(b *testing.B) {
	l := open(b, Options{File: filepath.Join(b.TempDir(), "audit"), Queue: 1 << 16, OnFull: Block})
	e := sample()[5]
	b.ReportAllocs()
	for b.Loop() {
		next := NewEvent(e.Event)
		*next = *e
		l.Record(next)
	}
}
