package wire

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"strings"
	"testing"
	"testing/iotest"
)

// heard is one thing that a Reader said of a client: what must not depend on how the bytes arrived.
type heard struct {
	Name, Arg   string
	Space       bool
	Interrupted bool
	Refusals    string
	Err         string // a SyntaxError's text, with its flags
}

func (h heard) String() string {
	s := fmt.Sprintf("%s %q", h.Name, h.Arg)
	if !h.Space {
		s = h.Name
	}
	if h.Err != "" {
		s = "error: " + h.Err
	}
	if h.Interrupted {
		s += " interrupted"
	}
	if h.Refusals != "" {
		s += fmt.Sprintf(" refusing %x", h.Refusals)
	}
	return s
}

// commands reads all commands, and after them why there are no more.
func commands(src io.Reader, limits Limits) (all []heard, end error) {
	r := NewReader(src, limits)
	for {
		c, err := r.Command()
		h := heard{c.Name, c.Arg, c.space, c.Interrupted, string(c.Refusals), ""}
		var syntax *SyntaxError
		switch {
		case errors.As(err, &syntax):
			h.Err = syntax.Text
			if syntax.TooLong {
				h.Err += " [too long]"
			}
			if syntax.Binary {
				h.Err += " [binary]"
			}
		case err != nil:
			return all, err
		}
		all = append(all, h)
		if syntax != nil && syntax.Binary {
			return all, nil // nothing should be read after it
		}
	}
}

func list(all []heard) string {
	var b strings.Builder
	for _, h := range all {
		fmt.Fprintln(&b, h)
	}
	return b.String()
}

func TestCommand(t *testing.T) {
	long := strings.Repeat("x", 40-len("RETR ")) // the limit below is 40
	for _, test := range []struct{ name, input, want string }{
		{"plain", "NOOP\r\n", "NOOP"},
		{"argument", "RETR a.txt\r\n", `RETR "a.txt"`},
		{"spelling kept", "rEtR A.txt\r\n", `rEtR "A.txt"`},
		{"bare LF", "NOOP\nPWD\n", "NOOP\nPWD"},
		{"spaces kept", "RETR  two  spaces \r\n", `RETR " two  spaces "`},
		{"space and no argument", "NOOP \r\n", `NOOP ""`},
		{"tab in an argument", "RETR a\tb\r\n", `RETR "a\tb"`},
		{"UTF-8", "RETR Grüße\r\n", `RETR "Grüße"`},
		{"two in one segment", "USER a\r\nPASS b\r\n", "USER \"a\"\nPASS \"b\""},
		{"longest verb", "ABCDEFGHIJKL\r\n", "ABCDEFGHIJKL"},
		{"verb too long", "ABCDEFGHIJKLM\r\n", "error: not an FTP command"},
		{"verb with digits", "MD5 x\r\n", `MD5 "x"`},
		{"verb begins with a digit", "5MD x\r\n", "error: not an FTP command"},
		{"a reply is no command", "227 Entering (1,2,3,4,5,6)\r\n", "error: not an FTP command"},
		{"space first", " NOOP\r\n", "error: not an FTP command"},
		{"tab for space", "RETR\ta\r\n", "error: not an FTP command"},
		{"empty line", "\r\nNOOP\r\n", "error: not an FTP command\nNOOP"},
		{"empty bare line", "\nNOOP\n", "error: not an FTP command\nNOOP"},
		{"punctuation in a verb", "RE.TR a\r\n", "error: not an FTP command"},
		{"high byte in a verb", "RE\xe9TR a\r\n", "error: not an FTP command"},
		{"colon", "Host: example.com\r\n", "error: not an FTP command"},

		{"bare CR", "PWD\rDELE x\r\nNOOP\r\n", "error: bare CR in a command\nNOOP"},
		{"CR CR LF", "PWD\r\r\nNOOP\r\n", "error: bare CR in a command\nNOOP"},
		{"CR at the beginning", "\rPWD\r\n", "error: bare CR in a command"},
		{"CR NUL, as Telnet writes a CR", "PWD\r\x00\r\nNOOP\r\n", "error: bare CR in a command\nNOOP"},
		{"CR and a Telnet command", "PWD\r\xff\xf1\nNOOP\r\n", "error: bare CR in a command\nNOOP"},
		{"NUL in an argument", "RETR a\x00b\r\nNOOP\r\n", "error: NUL in a command\nNOOP"},
		{"NUL at the end", "NOOP\x00\r\n", "error: NUL in a command"},
		{"NUL before LF", "NOOP\r\x00\n", "error: bare CR in a command"},

		{"ClientHello", "\x16\x03\x01\x02\x00", "error: not an FTP command [binary]"},
		{"ClientHello with a line end", "\x16\x03\x01\n\x00NOOP\r\n", "error: not an FTP command [binary]"},
		{"SSLv2 hello", "\x80\x2e\x01", "error: not an FTP command [binary]"},
		{"DEL", "\x7fNOOP\r\n", "error: not an FTP command [binary]"},
		{"ESC", "\x1b[A", "error: not an FTP command [binary]"},
		{"byte order mark", "\xef\xbb\xbfNOOP\r\n", "error: not an FTP command [binary]"},
		{"binary on the second line", "NOOP\r\n\x01", "NOOP\nerror: not an FTP command [binary]"},
		{"binary after an option", "\xff\xfd\x03\x16", "error: not an FTP command [binary] refusing fffc03"},
		{"bare 0xFF first", "\xffA\r\n", "error: not an FTP command [binary]"},
		{"binary later is no hurry", "R\x01\r\nNOOP\r\n", "error: not an FTP command\nNOOP"},

		{"as long as may be", "RETR " + long + "\r\n", `RETR "` + long + `"`},
		{"too long", "RETR " + long + "x\r\nNOOP\r\n", "error: command line too long [too long]\nNOOP"},
		{"too long, bare LF", "RETR " + long + "x\nNOOP\n", "error: command line too long [too long]\nNOOP"},
		{"much too long", "RETR " + strings.Repeat("y", 10000) + "\r\nNOOP\r\n", "error: command line too long [too long]\nNOOP"},
		{"too long beats NUL", "RETR \x00" + long + "x\r\n", "error: command line too long [too long]"},
		{"Telnet counts for nothing", "RETR " + strings.Repeat("\xff\xf1", 100) + "a\r\n", `RETR "a"`},
		{"doubled 0xFF counts twice", "RETR x" + strings.Repeat("\xff\xff", 17) + "\r\n", `RETR "x` + strings.Repeat(`\xff`, 34) + `"`},
		{"doubled 0xFF is not cut in half", "RETR " + strings.Repeat("\xff\xff", 18) + "\r\n", "error: command line too long [too long]"},

		{"IAC bare", "DELE a\xffb\r\n", `DELE "a\xffb"`},
		{"IAC bare at the end", "DELE a\xff\r\n", `DELE "a\xff"`},
		{"IAC bare at the end, bare LF", "DELE a\xff\n", `DELE "a\xff"`},
		{"IAC bare before NUL", "DELE a\xff\x00\r\n", "error: NUL in a command"},
		{"IAC bare before a bare CR", "DELE a\xff\rx\r\n", "error: bare CR in a command"},
		// A name's 0xFF stays as the client wrote it: only the server can tell what it means.
		{"IAC doubled", "DELE a\xff\xffb\r\n", `DELE "a\xff\xffb"`},
		{"IAC doubled twice", "DELE \xff\xff\xff\xff\r\n", `DELE "\xff\xff\xff\xff"`},
		{"IAC both", "DELE a\xffb\xff\xffc\r\n", `DELE "a\xffb\xff\xffc"`},
		{"IAC three times", "DELE a\xff\xff\xffb\r\n", `DELE "a\xff\xff\xffb"`},
		{"IAC doubled, then a Telnet command's code", "DELE a\xff\xff\xf2b\r\n", `DELE "a\xff\xff\xf2b"`},
		{"IAC doubled, then DM", "DELE a\xff\xff\xff\xf2NOOP\r\n", "NOOP"},
		{"IAC doubled in a verb", "DE\xff\xffLE a\r\n", "error: not an FTP command"},

		{"NOP, BRK, AO, AYT, EC, EL, GA", "N\xff\xf1O\xff\xf3O\xff\xf5P\xff\xf6\xff\xf7\xff\xf8\xff\xf9\r\n", "NOOP"},
		{"a lone SE", "NO\xff\xf0OP\r\n", "NOOP"},
		{"IP", "\xff\xf4ABOR\r\n", "ABOR interrupted"},
		{"IP and DM, as clients send them", "\xff\xf4\xff\xf2ABOR\r\n", "ABOR interrupted"},
		{"IP of one line is not the next one's", "\xff\xf4ABOR\r\nNOOP\r\n", "ABOR interrupted\nNOOP"},
		{"DM takes what came before", "RETR half of it\xff\xf4\xff\xf2ABOR\r\n", "ABOR interrupted"},
		{"DM takes faults too", "RE\rTR\x00\xff\xf2NOOP\r\n", "NOOP"},
		{"DM takes a line too long", strings.Repeat("z", 100) + "\xff\xf2NOOP\r\n", "NOOP"},
		{"DM after a whole line", "RETR a\r\n\xff\xf2ABOR\r\n", "RETR \"a\"\nABOR"},
		{"DM, then binary", "RETR\xff\xf2\x16\r\n", "error: not an FTP command [binary]"},

		{"WILL", "\xff\xfb\x01NOOP\r\n", "NOOP refusing fffe01"},
		{"WONT", "\xff\xfc\x01NOOP\r\n", "NOOP"},
		{"DO", "\xff\xfd\x03NOOP\r\n", "NOOP refusing fffc03"},
		{"DONT", "\xff\xfe\x03NOOP\r\n", "NOOP"},
		{"several, in order", "\xff\xfd\x03\xff\xfb\x05NOOP\r\n", "NOOP refusing fffc03fffe05"},
		{"within a word", "NO\xff\xfd\x03OP\r\n", "NOOP refusing fffc03"},
		{"an option that looks like LF", "\xff\xfb\nNOOP\r\n", "NOOP refusing fffe0a"},
		{"an option that looks like IAC", "\xff\xfd\xffNOOP\r\n", "NOOP refusing fffcff"},
		{"refusals stay with faults", "\xff\xfd\x03NO\x00\r\n", "error: NUL in a command refusing fffc03"},
		{"refusals survive DM", "\xff\xfd\x03x\xff\xf2NOOP\r\n", "NOOP refusing fffc03"},
		{"refusals have an end", strings.Repeat("\xff\xfd\x03", 1000) + "NOOP\r\n",
			"NOOP refusing " + strings.Repeat("fffc03", 8)},

		{"subnegotiation", "\xff\xfa\x18\x01abc\xff\xf0NOOP\r\n", "NOOP"},
		{"subnegotiation with IAC IAC", "\xff\xfa\x18\xff\xff\xff\xf0NOOP\r\n", "NOOP"},
		{"subnegotiation with CR and NUL", "\xff\xfa\x18\r\x00\xff\xf0NOOP\r\n", "NOOP"},
		{"subnegotiation without end", "\xff\xfa\x18abc\r\nNOOP\r\n", "error: Telnet subnegotiation in a command\nNOOP"},
		{"subnegotiation without end, IAC before LF", "\xff\xfa\x18abc\xff\nNOOP\r\n", "error: Telnet subnegotiation in a command\nNOOP"},
	} {
		t.Run(test.name, func(t *testing.T) {
			want := test.want + "\n"
			limits := Limits{Line: 40}
			for how, src := range map[string]io.Reader{
				"at once":          strings.NewReader(test.input),
				"byte by byte":     iotest.OneByteReader(strings.NewReader(test.input)),
				"data with an EOF": iotest.DataErrReader(strings.NewReader(test.input)),
			} {
				all, end := commands(src, limits)
				if got := list(all); got != want {
					t.Errorf("%s: heard\n%swant\n%s", how, got, want)
				}
				if end != nil && end != io.EOF {
					t.Errorf("%s: ended with %v", how, end)
				}
			}
		})
	}
}

// Half a command is never one, however it breaks off.
func TestCommandBrokenOff(t *testing.T) {
	lost := errors.New("lost")
	for _, input := range []string{"N", "NOOP", "NOOP\r", "RETR a\xff", "\xff", "\xff\xfa", "\xff\xfb", strings.Repeat("x", 5000)} {
		if all, end := commands(strings.NewReader(input), Limits{}); len(all) > 0 || end != io.ErrUnexpectedEOF {
			t.Errorf("%q: heard %v, ended with %v", input, all, end)
		}
		src := io.MultiReader(strings.NewReader(input), iotest.ErrReader(lost))
		if all, end := commands(src, Limits{}); len(all) > 0 || end != lost {
			t.Errorf("%q: heard %v, ended with %v", input, all, end)
		}
	}
	if all, end := commands(strings.NewReader(""), Limits{}); len(all) > 0 || end != io.EOF {
		t.Errorf("nothing: heard %v, ended with %v", all, end)
	}
}

// A line without end must not be kept: that is what Limits.Line is for.
func TestCommandMemory(t *testing.T) {
	for name, part := range map[string]string{
		"text":           "x",
		"doubled":        "\xff\xff",
		"options":        "\xff\xfd\x03",
		"subnegotiation": "\xff\xfa\x18x\xff\xf0",
		"bare CR":        "\r",
		"NUL":            "\x00",
	} {
		t.Run(name, func(t *testing.T) {
			src := &endless{part: part, left: 4 << 20}
			r := NewReader(io.MultiReader(strings.NewReader("RETR "), src), Limits{})
			grew := allocated(func() { r.Command() })
			if grew > 64<<10 {
				t.Errorf("%d bytes were allocated for a line without end", grew)
			}
			if src.left > 0 {
				t.Errorf("%d bytes were not read: the line had no end", src.left)
			}
		})
	}
}

// Replies of ours must not repeat what a client said (ALPACA): errors hold texts of ours alone.
func TestSyntaxErrorReflectsNothing(t *testing.T) {
	for _, input := range []string{"<script>\r\n", "<script>\x00\r\n", "\x01<script>\r\n", "a\r<script>\r\n", "RE\xff<script>\r\n"} {
		_, err := NewReader(strings.NewReader(input), Limits{}).Command()
		if err == nil || strings.Contains(err.Error(), "script") {
			t.Errorf("%q: %v", input, err)
		}
	}
}

// TestBuffered is what the start of TLS relies on: bytes that were sent before it must not go unnoticed.
func TestBuffered(t *testing.T) {
	r := NewReader(strings.NewReader("AUTH TLS\r\nUSER evil\r\n"), Limits{})
	if _, err := r.Command(); err != nil || r.Buffered() != len("USER evil\r\n") {
		t.Errorf("%v, %d bytes are buffered", err, r.Buffered())
	}
	if _, err := r.Command(); err != nil || r.Buffered() != 0 {
		t.Errorf("%v, %d bytes are buffered", err, r.Buffered())
	}
}

func TestNewCommand(t *testing.T) {
	for _, test := range []struct {
		c    Command
		wire string
	}{
		{NewCommand("PASV", ""), "PASV\r\n"},
		{NewCommand("Epsv", "1"), "Epsv 1\r\n"},
		{NewCommand("eprt", "|1|192.0.2.1|1024|").WithArg("|1|192.0.2.2|1025|"), "eprt |1|192.0.2.2|1025|\r\n"},
		{NewCommand("EPSV", "1").WithArg(""), "EPSV\r\n"},
		{parseOne(t, "user \xff\xff\xf2@host\r\n").WithArg("\xff\xff\xf2"), "user \xff\xff\xf2\r\n"},
		{parseOne(t, "user \xffa@host\r\n").WithArg("\xffa"), "user \xffa\r\n"},
		{parseOne(t, "NOOP \r\n"), "NOOP \r\n"},
	} {
		if got := string(test.c.Append(nil)); got != test.wire {
			t.Errorf("%+v is written %q, want %q", test.c, got, test.wire)
		}
		if test.c.Verb != strings.ToUpper(test.c.Name) {
			t.Errorf("verb %s of %s", test.c.Verb, test.c.Name)
		}
	}
}

func parseOne(t *testing.T, line string) Command {
	t.Helper()
	c, err := NewReader(strings.NewReader(line), Limits{}).Command()
	if err != nil {
		t.Fatal(err)
	}
	return c
}

// seeds are client bytes to begin fuzzing from.
var seeds = []string{
	"USER anonymous\r\nPASS a@b\r\n", "RETR a\xffb\r\n", "RETR a\xff\xffb\r\n", "\xff\xf4\xff\xf2ABOR\r\n",
	"\xff\xfd\x03NOOP\r\n", "\xff\xfa\x18\x01x\xff\xf0NOOP\n", "PWD\rDELE x\r\n", "RETR \x00\r\n", "\x16\x03\x01\x02",
	"PORT 192,0,2,1,195,90\r\nLIST -la\r\n", "noop \r\n \r\n", "XSHA512 \"a b\"\n", "A \xff\xffb\xffc\r\n", "RETR a\xff\r\n",
}

// FuzzCommand: what a server is told is one line and the same command, whatever the client wrote.
func FuzzCommand(f *testing.F) {
	for _, s := range seeds {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, input []byte) {
		r := NewReader(bytes.NewReader(input), Limits{Line: 64})
		for {
			c, err := r.Command()
			if len(c.Refusals) > maxRefusals {
				t.Fatalf("%d bytes of refusals", len(c.Refusals))
			}
			var syntax *SyntaxError
			if errors.As(err, &syntax) && !syntax.Binary {
				continue
			}
			if err != nil {
				return
			}
			wire := c.Append(nil)
			line, ended := bytes.CutSuffix(wire, []byte("\r\n"))
			if !ended || bytes.ContainsAny(line, "\r\n\x00") {
				t.Fatalf("%q is not one line", wire)
			}
			again := NewReader(bytes.NewReader(wire), Limits{Line: 64})
			d, err := again.Command()
			if err != nil || again.Buffered() > 0 {
				t.Fatalf("%q is not read back: %v, %d bytes more", wire, err, again.Buffered())
			}
			if d.Interrupted || len(d.Refusals) > 0 {
				t.Fatalf("%q has Telnet in it: %+v", wire, d)
			}
			if c.Verb != d.Verb || c.Name != d.Name || c.Arg != d.Arg || c.space != d.space {
				t.Fatalf("%+v is written %q and read as %+v", c, wire, d)
			}
			if got := d.Append(nil); !bytes.Equal(got, wire) {
				t.Fatalf("%q is written again as %q", wire, got)
			}
			if strings.ContainsAny(c.Arg, "\r\n\x00") || c.Verb != strings.ToUpper(c.Name) {
				t.Fatalf("%+v", c)
			}
		}
	})
}

// FuzzSegmentation: how the network cuts the bytes up means nothing, to commands and to replies.
func FuzzSegmentation(f *testing.F) {
	for i, s := range seeds {
		f.Add([]byte(s), uint8(i))
	}
	f.Add([]byte("220-a\r\n 220 b\r\n220 c\r\n"), uint8(2))
	f.Add([]byte("227 (1,2,3,4,5,6)\n229 x\r\n"), uint8(1))
	f.Fuzz(func(t *testing.T, input []byte, size uint8) {
		limits := Limits{Line: 48, ReplyLines: 6, ReplyBytes: 96}
		cut := func() io.Reader { return &segments{rest: input, next: uint(size)} }
		whole, wholeEnd := commands(bytes.NewReader(input), limits)
		got, gotEnd := commands(cut(), limits)
		if list(whole) != list(got) || fmt.Sprint(wholeEnd) != fmt.Sprint(gotEnd) {
			t.Errorf("commands at once:\n%s%v\nin segments:\n%s%v", list(whole), wholeEnd, list(got), gotEnd)
		}
		wholeReplies, wholeErr := replies(bytes.NewReader(input), limits)
		gotReplies, gotErr := replies(cut(), limits)
		if fmt.Sprintf("%#v %v", wholeReplies, wholeErr) != fmt.Sprintf("%#v %v", gotReplies, gotErr) {
			t.Errorf("replies at once:\n%#v %v\nin segments:\n%#v %v", wholeReplies, wholeErr, gotReplies, gotErr)
		}
	})
}

// segments is a source that gives its bytes in pieces of differing lengths.
type segments struct {
	rest []byte
	next uint
}

func (s *segments) Read(p []byte) (int, error) {
	if len(s.rest) == 0 {
		return 0, io.EOF
	}
	n := copy(p[:min(len(p), int(1+s.next%7))], s.rest)
	s.rest, s.next = s.rest[n:], s.next*5+3
	return n, nil
}

// endless is a source of the same again and again.
type endless struct {
	part string
	left int
	at   int
}

func (e *endless) Read(p []byte) (int, error) {
	if e.left <= 0 {
		return 0, io.EOF
	}
	n := 0
	for ; n < len(p) && e.left > 0; n++ {
		p[n] = e.part[e.at]
		e.at = (e.at + 1) % len(e.part)
		e.left--
	}
	return n, nil
}
