package wire

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"runtime"
	"slices"
	"strings"
	"testing"
	"testing/iotest"
)

// replies reads all replies, and after them why there are no more.
func replies(src io.Reader, limits Limits) (all []Reply, end error) {
	r := NewReader(src, limits)
	for {
		reply, err := r.Reply()
		if err != nil {
			return all, err
		}
		all = append(all, reply)
	}
}

func TestReply(t *testing.T) {
	for _, test := range []struct {
		name, input string
		want        []Reply
	}{
		{"plain", "220 ready\r\n", []Reply{{220, []string{"220 ready"}}}},
		{"no text", "200\r\n", []Reply{{200, []string{"200"}}}},
		{"no text, a space", "200 \r\n", []Reply{{200, []string{"200 "}}}},
		{"bare LF", "220 ready\n200 ok\n", []Reply{{220, []string{"220 ready"}}, {200, []string{"200 ok"}}}},
		{"several lines", "211-Features:\r\n MDTM\r\n SIZE\r\n211 End\r\n",
			[]Reply{{211, []string{"211-Features:", " MDTM", " SIZE", "211 End"}}}},
		{"the code on each line", "220-a\r\n220-b\r\n220 c\r\n", []Reply{{220, []string{"220-a", "220-b", "220 c"}}}},
		{"other codes within", "220-a\r\n500 b\r\n230-c\r\n230 d\r\n220 e\r\n",
			[]Reply{{220, []string{"220-a", "500 b", "230-c", "230 d", "220 e"}}}},
		{"a 227 within", "200-a\r\n227 (127,0,0,1,0,80)\r\n200 b\r\n",
			[]Reply{{200, []string{"200-a", "227 (127,0,0,1,0,80)", "200 b"}}}},
		{"blank lines within", "220-a\r\n\r\n   \r\n220 b\r\n", []Reply{{220, []string{"220-a", "", "   ", "220 b"}}}},
		{"indented code within", "220-a\r\n 220 b\r\n220 c\r\n", []Reply{{220, []string{"220-a", " 220 b", "220 c"}}}},
		{"a longer number within", "220-a\r\n2200 b\r\n220 c\r\n", []Reply{{220, []string{"220-a", "2200 b", "220 c"}}}},
		{"colon behind the code within", "220-a\r\n220: b\r\n220 c\r\n", []Reply{{220, []string{"220-a", "220: b", "220 c"}}}},
		{"the last line has no text", "220-a\r\n220\r\n", []Reply{{220, []string{"220-a", "220"}}}},
		{"two at once", "150 a\r\n226 b\r\n", []Reply{{150, []string{"150 a"}}, {226, []string{"226 b"}}}},
		{"a CR within hides no reply", "200 ok\r230 in\r\n", []Reply{{200, []string{"200 ok?230 in"}}}},
		{"two CR", "200 ok\r\r\n", []Reply{{200, []string{"200 ok?"}}}},
		{"NUL", "200 a\x00b\r\n", []Reply{{200, []string{"200 a?b"}}}},
		{"CR behind the code within", "200-a\r\n200\rb\r\n200 c\r\n", []Reply{{200, []string{"200-a", "200?b", "200 c"}}}},
		{"all else passes", "257 \"\xff\xf4\x1b[m\t\xc3\xa9\"\r\n", []Reply{{257, []string{"257 \"\xff\xf4\x1b[m\t\xc3\xa9\""}}}},
		{"limits of codes", "100 a\r\n599 b\r\n", []Reply{{100, []string{"100 a"}}, {599, []string{"599 b"}}}},
	} {
		t.Run(test.name, func(t *testing.T) {
			for how, src := range map[string]io.Reader{
				"at once":      strings.NewReader(test.input),
				"byte by byte": iotest.OneByteReader(strings.NewReader(test.input)),
			} {
				got, end := replies(src, Limits{})
				if !slices.EqualFunc(got, test.want, sameReply) || end != io.EOF {
					t.Errorf("%s: %#v %v, want %#v", how, got, end, test.want)
				}
			}
		})
	}
}

func sameReply(a, b Reply) bool { return a.Code == b.Code && slices.Equal(a.Lines, b.Lines) }

// What is no FTP cannot be kept in step with.
func TestReplyNone(t *testing.T) {
	for _, input := range []string{"\r\n", "hello\r\n", "20\r\n", "099 x\r\n", "600 x\r\n", "000 x\r\n", "2000 x\r\n", "220:x\r\n",
		"220\tx\r\n", " 220 x\r\n", "22a x\r\n", "-20 x\r\n", "SSH-2.0-x\r\n", "\x16\x03\x01\n", "220\r\r\n", "220\x00\r\n", "220_x\n"} {
		_, end := replies(strings.NewReader(input), Limits{})
		var none *ReplyError
		if !errors.As(end, &none) {
			t.Errorf("%q: %v", input, end)
		} else if strings.Contains(none.Text, "x") && !strings.Contains("not an FTP reply", none.Text) {
			t.Errorf("%q is repeated in %q", input, none.Text)
		}
	}
}

func TestReplyBrokenOff(t *testing.T) {
	lost := errors.New("lost")
	for _, input := range []string{"2", "220 ready", "220 ready\r", "220-a\r\n", "220-a\r\n220 b", "220-a\r\n\r\n"} {
		if got, end := replies(strings.NewReader(input), Limits{}); len(got) > 0 || end != io.ErrUnexpectedEOF {
			t.Errorf("%q: %#v %v", input, got, end)
		}
		src := io.MultiReader(strings.NewReader(input), iotest.ErrReader(lost))
		if got, end := replies(src, Limits{}); len(got) > 0 || end != lost {
			t.Errorf("%q: %#v %v", input, got, end)
		}
	}
}

func TestReplyLimits(t *testing.T) {
	limits := Limits{ReplyLines: 4, ReplyBytes: 64}
	for _, test := range []struct {
		name, input string
		ok          bool
	}{
		{"as many lines as may be", "220-a\r\n\r\n\r\n220 b\r\n", true},
		{"one more", "220-a\r\n\r\n\r\n\r\n220 b\r\n", false},
		{"one line as long as may be", "220 " + strings.Repeat("x", 58) + "\r\n", true},
		{"one byte more", "220 " + strings.Repeat("x", 59) + "\r\n", false},
		{"one byte more, bare LF", "220 " + strings.Repeat("x", 59) + "\n", false},
		{"lines together as long as may be", "220-" + strings.Repeat("x", 20) + "\r\n220 " + strings.Repeat("x", 32) + "\r\n", true},
		{"lines together too long", "220-" + strings.Repeat("x", 20) + "\r\n220 " + strings.Repeat("x", 33) + "\r\n", false},
		{"each reply begins anew", strings.Repeat("220 "+strings.Repeat("x", 58)+"\r\n", 20), true},
	} {
		for _, src := range []io.Reader{strings.NewReader(test.input), iotest.OneByteReader(strings.NewReader(test.input))} {
			_, end := replies(src, limits)
			var exceeded *ReplyError
			if errors.As(end, &exceeded) == test.ok {
				t.Errorf("%s: %v", test.name, end)
			}
			if exceeded != nil && !strings.Contains(exceeded.Text, "limits.reply_") {
				t.Errorf("%s: %q does not say which key to change", test.name, exceeded.Text)
			}
		}
	}
}

// allocated is how many bytes f allocates.
func allocated(f func()) uint64 {
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	f()
	runtime.ReadMemStats(&after)
	return after.TotalAlloc - before.TotalAlloc
}

// A gigabyte of banner must not be kept (protocol.md (c) 16).
func TestReplyMemory(t *testing.T) {
	for name, part := range map[string]string{"a line without end": "x", "lines without end": "x\r\n", "blank lines": "\n", "CR": "\r"} {
		t.Run(name, func(t *testing.T) {
			src := &endless{part: part, left: 1 << 30}
			r := NewReader(io.MultiReader(strings.NewReader("220-"), src), Limits{})
			var err error
			grew := allocated(func() { _, err = r.Reply() })
			var exceeded *ReplyError
			if !errors.As(err, &exceeded) {
				t.Errorf("%v", err)
			}
			if grew > 1<<20 {
				t.Errorf("%d bytes were allocated", grew)
			}
			if read := 1<<30 - src.left; read > 64<<10+readSize {
				t.Errorf("%d bytes were read", read)
			}
		})
	}
}

func TestNewReply(t *testing.T) {
	if got, want := string(NewReply(211, "a", "b", "c").Append(nil)), "211-a\r\n211-b\r\n211 c\r\n"; got != want {
		t.Errorf("%q, want %q", got, want)
	}
	r := NewReply(426, "broken")
	if got, want := string(r.Append([]byte("x"))), "x426 broken\r\n"; got != want {
		t.Errorf("%q, want %q", got, want)
	}
	if r.Text() != "broken" || (Reply{}).Text() != "" || (Reply{200, []string{"200"}}).Text() != "" {
		t.Errorf("%q", r.Text())
	}
	for code, want := range map[int][3]bool{ // preliminary, positive, negative
		100: {true, false, false}, 199: {true, false, false}, 200: {false, true, false}, 299: {false, true, false},
		300: {}, 399: {}, 400: {false, false, true}, 599: {false, false, true},
	} {
		r := NewReply(code, "x")
		if got := [3]bool{r.Preliminary(), r.Positive(), r.Negative()}; got != want {
			t.Errorf("%d: %v, want %v", code, got, want)
		}
	}
}

// FuzzReply: a client is told exactly what was understood, and no peer makes a Reader keep more than its limits.
func FuzzReply(f *testing.F) {
	for _, s := range []string{"220 ready\r\n", "220-a\r\n500 b\r\n\r\n220 c\r\n", "200 ok\r230 in\x00\r\n", "200\n", "211-F\n A\n211 \n",
		"227 Entering Passive Mode (127,0,0,1,0,80)\r\n", "150 a\r\n226 b\r\n", "220-\r\n220\r\n220 x\r\n", "200 ok\r\r\n", "999 x\n"} {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, input []byte) {
		limits := Limits{ReplyLines: 8, ReplyBytes: 128}
		r := NewReader(bytes.NewReader(input), limits)
		for {
			reply, err := r.Reply()
			if err != nil {
				return
			}
			wire := reply.Append(nil)
			if len(reply.Lines) == 0 || len(reply.Lines) > limits.ReplyLines || len(wire) > limits.ReplyBytes {
				t.Fatalf("%d lines of %d bytes", len(reply.Lines), len(wire))
			}
			if reply.Code < 100 || reply.Code > 599 || !strings.HasPrefix(reply.Lines[0], fmt.Sprint(reply.Code)) {
				t.Fatalf("code %d of %q", reply.Code, reply.Lines)
			}
			for _, l := range reply.Lines {
				if strings.ContainsAny(l, "\r\n\x00") {
					t.Fatalf("%q is not one line", l)
				}
			}
			again := NewReader(bytes.NewReader(wire), limits)
			got, err := again.Reply()
			if err != nil || !sameReply(reply, got) || again.Buffered() > 0 {
				t.Fatalf("%#v is written %q and read as %#v, %v, %d bytes more", reply, wire, got, err, again.Buffered())
			}
		}
	})
}
