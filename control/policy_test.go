package control

import (
	"fmt"
	"net"
	"slices"
	"strings"
	"testing"
	"time"

	"ftpalg/control/wire"
	"ftpalg/dataconn"
)

// judge is a Policy for tests: it denies what one of its denials names, and nothing else.
type judge struct {
	denials   []denial
	inspector func() dataconn.Inspector
	asked     []string      // what it was asked about
	known     time.Duration // how long a transfer takes to be known
}

// denial is a class or a verb, and perhaps a directory, to which all commands of the one in the other are denied.
type denial struct{ what, below string }

func (j *judge) Watches() bool { return j.inspector != nil }

func (j *judge) Paths() bool {
	return slices.ContainsFunc(j.denials, func(d denial) bool { return d.below != "" })
}

func (j *judge) Begins(e Transferring) (known func(), r *Refusal) {
	j.asked = append(j.asked, fmt.Sprintf("begins %+v", e))
	if slices.Contains(j.denials, denial{what: "BEGIN"}) {
		return nil, &Refusal{Code: 451, Text: "Not now", Rule: "BEGIN"}
	}
	if j.known == 0 {
		return nil, nil
	}
	at := time.Now().Add(j.known)
	return func() { time.Sleep(time.Until(at)) }, nil
}

func (j *judge) Enter(user string) *Refusal {
	if slices.Contains(j.denials, denial{"ENTER", user}) {
		return &Refusal{Text: "No more sessions", Rule: "ENTER"}
	}
	return nil
}

func (j *judge) Hides(verb string) bool { return slices.Contains(j.denials, denial{what: verb}) }

func (j *judge) Admit(r *Request) Ruling {
	if !j.Paths() {
		r.Acts() // as whoever wants to know classes does
	}
	j.asked = append(j.asked, fmt.Sprintf("%s %s %s user=%q size=%d offset=%d early=%v", r.Verb, r.Sub, r.Class, r.User, r.Size, r.Offset, r.Early))
	for _, d := range j.denials {
		if d.what == r.Verb && d.below == "" {
			return Ruling{Refusal: &Refusal{Code: 502, Text: "Denied", Rule: d.what}}
		}
		if d.what == "USER" && r.Verb == "USER" && r.User == d.below {
			return Ruling{Refusal: &Refusal{Code: 530, Text: "Login denied", Rule: d.what}}
		}
		if !slices.Contains(classNames[:], d.what) || d.below == "" && d.what != r.Class.String() {
			continue
		}
		if d.below == "" {
			return Ruling{Refusal: &Refusal{Code: 550, Text: "Denied", Rule: d.what}}
		}
		if r.Class == Access {
			continue // and nobody is asked for a directory
		}
		for _, a := range r.Acts() {
			if a.Class.String() == d.what && a.meets(d.below) {
				return Ruling{Refusal: &Refusal{Code: 550, Text: "Denied", Rule: d.what + " " + d.below}}
			}
		}
	}
	ruling := Ruling{Rule: "rest"}
	if j.inspector != nil {
		ruling.Inspector = j.inspector()
	}
	ruling.Pace = func(net.Conn) {}
	return ruling
}

// meets reports whether an act may concern what is in a directory.
func (a Act) meets(dir string) bool {
	text := a.Path.Text
	if a.Path.Loose {
		text, dir = strings.ToLower(text), strings.ToLower(dir)
	}
	below := func(text, dir string) bool { return text == dir || strings.HasPrefix(text, dir+"/") || dir == "/" }
	switch a.Path.Extent {
	case OnePath:
		return below(text, dir)
	case Tree:
		return below(text, dir) || below(dir, text)
	case Unknown:
		return true
	case Glob:
		fixed, _, _ := strings.Cut(text, "*")
		return below(fixed, dir) || strings.HasPrefix(dir, fixed)
	}
	return false
}

// TestActs has the readings of commands: in a known directory, /home/al.
func TestActs(t *testing.T) {
	for line, want := range map[string]string{
		"RETR x":                     "read one /home/al/x; read one~ /home/al/x",
		"RETR /x":                    "read one /x; read one~ /x",
		"RETR //x/./y//":             "read one /x/y; read one~ /x/y",
		"RETR ../bo/x":               "read one /home/bo/x; read one~ /home/bo/x",
		"RETR ../../../../etc/x":     "read one /etc/x; read one~ /etc/x",
		"RETR a/../x":                "read one /home/al/x; read one~ /home/al/x; read unknown",
		"RETR ..\\x":                 `read one /home/al/..\x; read one~ /home/x`,
		`RETR \x`:                    `read one /home/al/\x; read one~ /x`,
		"RETR x. .":                  "read one /home/al/x. .; read one~ /home/al/x",
		"RETR xy::$DATA":             "read one /home/al/xy::$DATA; read one~ /home/al/xy",
		"RETR C:/x":                  "read one /home/al/C:/x; read unknown~",
		"RETR /SECRET~1/x":           "read one /SECRET~1/x; read unknown~",
		"RETR a~12.txt":              "read one /home/al/a~12.txt; read unknown~",
		"RETR notes.txt~":            "read one /home/al/notes.txt~; read one~ /home/al/notes.txt~",
		"RETR a-long-name~1":         "read one /home/al/a-long-name~1; read one~ /home/al/a-long-name~1",
		"RETR .../x":                 "read one /home/al/.../x; read unknown~",
		`RETR "/x"`:                  `read one /home/al/"/x"; read one~ /x`,
		"RETR  /x":                   "read one /home/al/ /x; read one~ /x",
		"RETR ~/x":                   "read unknown; read unknown~",
		"RETR \xc0\xae\xc0\xae/x":    "read one /home/al/\xc0\xae\xc0\xae/x; read one~ /home/al/\xc0\xae\xc0\xae/x; read unknown",
		"RETR caf\xe9":               "read one /home/al/caf\xe9; read one~ /home/al/caf\xe9",
		"RETR":                       "read one /home/al; read one~ /home/al",
		"STOR x":                     "write one /home/al/x; write one~ /home/al/x",
		"STOU":                       "write glob /home/al/*; write glob~ /home/al/*",
		"STOU /in/x":                 "write one /in/x; write one~ /in/x; write glob /in/*; write glob~ /in/*",
		"LIST":                       "list one /home/al; list one~ /home/al",
		"LIST -la":                   "list one /home/al/-la; list one~ /home/al/-la; list one /home/al; list one~ /home/al",
		"LIST -lR /x":                "list one /home/al/-lR /x; list one~ /home/al/-lR/x; list tree /x; list tree~ /x",
		"LIST -a -R":                 "list one /home/al/-a -R; list one~ /home/al/-a -R; list tree /home/al; list tree~ /home/al",
		"NLST *.txt":                 "list glob /home/al/*.txt; list glob~ /home/al/*.txt",
		"NLST {a,b}":                 "list unknown; list glob /home/al/{a,b}; list glob~ /home/al/{a,b}",
		"NLST */../x":                "list glob /home/al/x; list glob~ /home/al/x; list unknown",
		"MLSD /x":                    "list one /x; list one~ /x",
		"STAT":                       "access none",
		"STAT /x":                    "list one /x; list one~ /x",
		"CWD /x":                     "access one /x; access one~ /x",
		"CDUP":                       "access one /home; access one~ /home",
		"RNFR x":                     "modify tree /home/al/x; modify tree~ /home/al/x; read tree /home/al/x; read tree~ /home/al/x",
		"RNTO /y":                    "modify tree /y; modify tree~ /y; write tree /y; write tree~ /y",
		"MDTM x":                     "list one /home/al/x; list one~ /home/al/x",
		"MDTM 20260101000000 x":      "list one /home/al/20260101000000 x; list one~ /home/al/20260101000000 x; modify one /home/al/x; modify one~ /home/al/x",
		"MFMT 20260101000000 x":      "modify one /home/al/x; modify one~ /home/al/x",
		"MFMT 20260101000000":        "modify unknown",
		"MFF UNIX.mode=0777; x":      "modify one /home/al/x; modify one~ /home/al/x",
		`XCRC "/x" 0 5`:              `read one /home/al/"/x" 0 5; read one~ /home/al/"/x" 0 5; read one /x; read one~ /x; read one /home/al/"/x" 0; read one~ /home/al/"/x" 0; read one /home/al/"/x"`,
		"XMD5 x 0 5":                 "read one /home/al/x 0 5; read one~ /home/al/x 0 5; read one /home/al/x 0; read one~ /home/al/x 0; read one /home/al/x; read one~ /home/al/x",
		"SITE CHMOD 777 /x":          "modify one /x; modify one~ /x",
		"SITE chmod 777 x":           "modify one /home/al/x; modify one~ /home/al/x",
		"SITE CHMOD 777":             "modify unknown",
		"SITE CPFR /x":               "read tree /x; read tree~ /x",
		"SITE CPTO /x":               "write tree /x; write tree~ /x; modify tree /x; modify tree~ /x",
		"SITE SYMLINK /etc/passwd x": "modify unknown",
		"SITE EXEC id":               "modify unknown",
		"SITE HELP":                  "access none",
		"SITE":                       "modify unknown",
		"SMNT /x":                    "access unknown",
		"PRET RETR /x":               "read one /x; read one~ /x",
		"PRET PRET RETR /x":          "access none",
		"TYPE I":                     "access none",
		"XDEL x":                     "modify unknown",
	} {
		verb, arg, _ := strings.Cut(line, " ")
		var got []string
		for _, a := range (&reading{cwd: "/home/al"}).actsOf(wire.NewCommand(verb, arg)) {
			s := a.Class.String() + " " + a.Path.Extent.String()
			if a.Path.Loose {
				s += "~"
			}
			got = append(got, strings.TrimSpace(s+" "+a.Path.Text))
		}
		if s := strings.Join(got, "; "); s != want {
			t.Errorf("%s\n may be  %s\n want    %s", line, s, want)
		}
	}
}

// TestStudy has a session imagined: what its commands are, by what the server has answered before.
func TestStudy(t *testing.T) {
	s := NewStudy("", "")
	for _, step := range []struct {
		line, want string
		code       int
		text       string
	}{
		{"AUTH TLS", "early user= access none", 234, "Go on"},
		{"USER al", "user=al secured access none", 331, "Password, please"},
		{"PASS x", "user=al secured access none", 230, "In"},
		{"RETR x", "user=al moves secured read unknown", 550, "No"},
		{"PROT P", "early user=al secured access none", 200, "P"},
		{"CWD /a", "user=al secured private access one /a", 250, "OK. Current directory is /a"},
		{"SIZE x", "user=al secured private list one /a/x", 213, "77"},
		{"REST 7", "user=al secured private access none", 350, "Go on"},
		{"RETR x", "user=al size=77 offset=7 moves secured private read one /a/x", 226, "Done"},
		{"RETR x", "user=al moves secured private read one /a/x", 226, "Done"},
		{"ALLO 99", "user=al secured private write none", 200, "OK"},
		{"STOR y", "user=al size=99 moves secured private write one /a/y", 226, "Done"},
		{"SIZE y", "user=al secured private list one /a/y", 213, "50"},
		{"APPE y", "user=al offset=50 moves secured private write one /a/y", 226, "Done"},
		{"SIZE y", "user=al secured private list one /a/y", 213, "50"},
		{"STOR y", "user=al moves secured private write one /a/y", 226, "Done"},
		{"SITE CHMOD 600 y", "user=al sub=CHMOD secured private modify one /a/y", 200, "OK"},
	} {
		r, err := s.Request(step.line)
		if err != nil {
			t.Fatalf("%s: %v", step.line, err)
		}
		got := "user=" + r.User
		for _, f := range []struct {
			is   bool
			text string
		}{{r.Sub != "", " sub=" + r.Sub}, {r.Size >= 0, fmt.Sprintf(" size=%d", r.Size)}, {r.Offset > 0, fmt.Sprintf(" offset=%d", r.Offset)}, {r.Moves, " moves"},
			{r.Secured[0], " secured"}, {r.Private[1], " private"}} {
			if f.is {
				got += f.text
			}
		}
		a := r.Acts()[0]
		got = strings.TrimSpace(got + " " + a.Class.String() + " " + a.Path.Extent.String() + " " + a.Path.Text)
		if r.Early {
			got = "early " + got
		}
		if got != step.want {
			t.Errorf("%s is %q, want %q", step.line, got, step.want)
		}
		s.Answer(step.code, step.text)
	}
	if _, err := s.Request("a\x00b"); err != ErrNoCommand {
		t.Errorf("a NUL: %v", err)
	}
}

// TestUnknownDirectory has relative paths where the directory is not known: they may be anything.
func TestUnknownDirectory(t *testing.T) {
	for line, want := range map[string]Extent{"RETR x": Unknown, "RETR /x": OnePath, "LIST": Unknown, "CDUP": Unknown, "STOU": Unknown} {
		verb, arg, _ := strings.Cut(line, " ")
		for _, a := range (&reading{}).actsOf(wire.NewCommand(verb, arg)) {
			if a.Path.Extent != want || (a.Path.Text == "") != (want == Unknown) {
				t.Errorf("%s: %+v", line, a)
			}
		}
	}
}

// TestDirectoryOf has what servers say of directories.
func TestDirectoryOf(t *testing.T) {
	for reply, want := range map[string]string{
		`257 "/a/b" is the current directory`: "/a/b",
		`257 "/a"`:                            "/a",
		`257 "/a ""b"" c" is cwd`:             `/a "b" c`,
		`257 "/a/../b"`:                       "/b",
		`257 "a" created`:                     "",
		`257 /a`:                              "",
		`257 "/a" "/b"`:                       "", // which?
		`257 "/a"b" is cwd`:                   "", // a server that does not double
		`257 "/a`:                             "",
		`257 is "/a"`:                         "",
		`250 OK. Current directory is /a/b c`: "/a/b c",
		`250 CWD successful. "/a" is current directory.`:     "/a",
		`250 "/a" is the current directory.`:                 "/a",
		`250 Directory successfully changed.`:                "",
		`250 CWD command successful`:                         "",
		`250 OK. Current directory is /x" is "/pub`:          "",
		`257 "/" is your current location`:                   "/",
		`250 "/a/" is current directory`:                     "/a",
		`250 current directory is a`:                         "",
		`250 See "README" and "/a"`:                          "",
		`250 Okay, "/b"x`:                                    "",
		`257 "/über" ist das aktuelle Verzeichnis`:           "/über",
		`250 Current directory is /a. See "/b"`:              "",
		`250 Working directory is now "/pub/linux" (remote)`: "/pub/linux",
	} {
		r := wire.Reply{Code: int(reply[2]-'0') + 250 - 250%10, Lines: []string{reply}}
		if got := directoryOf(r.Code, r.Text()); got != want {
			t.Errorf("%s: %q, want %q", reply, got, want)
		}
	}
}

// FuzzPath holds the readings of paths against a slow reader that walks from part to part: what is found is absolute and clean, and
// a reading that says less than it should would be a way around a rule.
func FuzzPath(f *testing.F) {
	for _, arg := range []string{"x", "/x/../y", "..", `..\x`, "a/b/../../c", "~al/x", " /x", "x. ./y", "C:/x", "\xc0\xae/x", "...", `"/x"`, "a:b/c"} {
		f.Add("/home/al", arg)
	}
	f.Add("", "x")
	f.Fuzz(func(t *testing.T, cwd, arg string) {
		if cwd != "" {
			cwd = "/" + strings.Join(walk("/", cwd), "/")
		}
		r := reading{cwd: cwd}
		for _, a := range r.actsOf(wire.NewCommand("RETR", arg)) {
			switch a.Path.Extent {
			case OnePath:
				if text := a.Path.Text; text[0] != '/' || text != "/"+strings.Join(walk("/", text), "/") {
					t.Fatalf("%q in %q: %q is not clean", arg, cwd, text)
				}
			case Unknown:
				if a.Path.Text != "" {
					t.Fatalf("%q in %q: %+v", arg, cwd, a)
				}
			default:
				t.Fatalf("%q in %q: %+v", arg, cwd, a)
			}
		}
		exact := r.acts[0].Path
		want := "/" + strings.Join(walk(cwd, arg), "/")
		known := !strings.HasPrefix(arg, "~") && (cwd != "" || strings.HasPrefix(arg, "/"))
		if known != (exact.Extent == OnePath) || known && exact.Text != want {
			t.Fatalf("%q in %q: %+v, want %q", arg, cwd, exact, want)
		}
		// What a Windows server would make of the same, where that is no more than another slash.
		plain := !strings.Contains(arg, "~") && !strings.ContainsAny(arg, ":\"\n\t\v\f ") && !strings.Contains(arg+"/", "./") && !strings.Contains(arg, `.\`)
		if bent := strings.ReplaceAll(arg, `\`, "/"); plain && arg != "" && arg[0] != '~' && (cwd != "" || bent[0] == '/') {
			loose := r.acts[1].Path // whose working directory is the server's own word
			if want := "/" + strings.Join(walk(cwd, bent), "/"); loose != (Path{want, OnePath, true}) {
				t.Fatalf("%q in %q: loosely %+v, want %q", arg, cwd, loose, want)
			}
		}
	})
}

// walk goes from a directory along a path and returns the names of the parts it is below then.
func walk(cwd, p string) (at []string) {
	if !strings.HasPrefix(p, "/") {
		at = walk("/", cwd)
	}
	for _, part := range strings.Split(p, "/") {
		switch part {
		case "", ".":
		case "..":
			if len(at) > 0 {
				at = at[:len(at)-1]
			}
		default:
			at = append(at, part)
		}
	}
	return at
}
