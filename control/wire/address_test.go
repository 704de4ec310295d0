package wire

import (
	"errors"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"
)

func TestHostPort(t *testing.T) {
	for arg, want := range map[string]string{
		"192,0,2,1,195,90":         "192.0.2.1:50010",
		"192, 0, 2, 1, 195, 90":    "192.0.2.1:50010",
		"0,0,0,0,0,1":              "0.0.0.0:1",
		"255,255,255,255,255,255":  "255.255.255.255:65535",
		"001,002,003,004,004,000":  "1.2.3.4:1024", // decimal, whatever the zeros
		"":                         "",
		"192,0,2,1,195":            "",
		"192,0,2,1,195,90,1":       "",
		"192,0,2,1,195,90 ":        "",
		" 192,0,2,1,195,90":        "",
		"192 ,0,2,1,195,90":        "",
		"192,0,2,1,0,0":            "",
		"256,0,2,1,195,90":         "",
		"192,0,2,1,195,256":        "",
		"192,0,2,1,195,0090":       "",
		"192,0,2,1,-1,90":          "",
		"192,0,2,1,+1,90":          "",
		"192,0,2,0x1,195,90":       "",
		"192,0,,1,195,90":          "",
		"192.0.2.1,195,90":         "",
		"(192,0,2,1,195,90)":       "",
		"192,0,2,1,195,9\xd9\xa0":  "", // an Arabic digit
		"4294967488,0,2,1,195,90":  "",
		"192,0,2,1,195,90\t":       "",
		"192,0,2,1,195,90,":        "",
		"|1|192.0.2.1|50010|":      "",
		"192,0,2,1,195,90 RETR x":  "",
		"99999999999999999999,0,2": "",
	} {
		got, err := ParseHostPort(arg)
		if (err == nil) != (want != "") || err == nil && got.String() != want {
			t.Errorf("%q is %v, %v; want %q", arg, got, err, want)
		}
	}
	for ap, want := range map[string]string{
		"192.0.2.1:50010":          "192,0,2,1,195,90",
		"[::ffff:192.0.2.1]:50010": "192,0,2,1,195,90",
		"[2001:db8::1]:50010":      "0,0,0,0,195,90",
		"255.255.255.255:65535":    "255,255,255,255,255,255",
	} {
		if got := FormatHostPort(netip.MustParseAddrPort(ap)); got != want {
			t.Errorf("%v is written %s, want %s", ap, got, want)
		}
	}
}

func TestExtended(t *testing.T) {
	for arg, want := range map[string]string{
		"|1|192.0.2.1|50010|":            "192.0.2.1:50010",
		"|2|2001:db8::1|50010|":          "[2001:db8::1]:50010",
		"|2|2001:DB8:0:0:0:0:0:1|65535|": "[2001:db8::1]:65535",
		"!1!192.0.2.1!1!":                "192.0.2.1:1",
		"~1~192.0.2.1~1~":                "192.0.2.1:1",
		"a1a192.0.2.1a1a":                "192.0.2.1:1", // RFC 2428 §2 allows any printable byte
		"|2|::ffff:192.0.2.1|50010|":     "192.0.2.1:50010",
		"|1|192.0.2.1|00080|":            "192.0.2.1:80",
		"":                               "",
		"|":                              "",
		"||||":                           "",
		"|1|192.0.2.1|50010":             "",
		"|1|192.0.2.1|50010|x":           "",
		"|1|192.0.2.1|50010||":           "",
		"||192.0.2.1|50010|":             "",
		"|1||50010|":                     "",
		"|1|192.0.2.1||":                 "",
		"|1|192.0.2.1|0|":                "",
		"|1|192.0.2.1|65536|":            "",
		"|1|192.0.2.1|050010|":           "",
		"|1|192.0.2.1|+80|":              "",
		"|1|192.0.2.1| 80|":              "",
		"|1|192.0.2.1|0x50|":             "",
		"|1|192.0.2|80|":                 "",
		"|1|192.0.02.1|80|":              "", // netip refuses octal look-alikes
		"|1|2001:db8::1|80|":             "",
		"|2|192.0.2.1|80|":               "",
		"|1|::ffff:192.0.2.1|80|":        "",
		"|2|fe80::1%eth0|80|":            "",
		"|1|192.0.2.1%eth0|80|":          "",
		"|2|[2001:db8::1]|80|":           "",
		"|1|ftp.example.com|80|":         "",
		" 1 192.0.2.1 80 ":               "",
		"\x001\x00192.0.2.1\x0080\x00":   "",
		"\xff1\xff192.0.2.1\xff80\xff":   "",
		"1|1|192.0.2.1|80|":              "",
		"|1|192.0.2.1!80!":               "",
	} {
		got, err := ParseExtended(arg)
		if (err == nil) != (want != "") || err == nil && got.String() != want {
			t.Errorf("%q is %v, %v; want %q", arg, got, err, want)
		}
		if errors.Is(err, ErrFamily) {
			t.Errorf("%q: %v", arg, err)
		}
	}
	// RFC 2428 §2: a family that is not known is answered 522.
	for _, arg := range []string{"|3|x|80|", "|0|192.0.2.1|80|", "|01|192.0.2.1|80|", "|IPv6|2001:db8::1|80|", "|1 |192.0.2.1|80|"} {
		if _, err := ParseExtended(arg); !errors.Is(err, ErrFamily) {
			t.Errorf("%q: %v", arg, err)
		}
	}
	for ap, want := range map[string]string{
		"192.0.2.1:50010":               "|1|192.0.2.1|50010|",
		"[::ffff:192.0.2.1]:50010":      "|1|192.0.2.1|50010|",
		"[2001:db8:0:0:0:0:0:1]:1024":   "|2|2001:db8::1|1024|",
		"[FD02:0:0:0:0:0:0:0001]:65535": "|2|fd02::1|65535|", // RFC 5952: pyftpdlib compares strings
	} {
		if got := FormatExtended(netip.MustParseAddrPort(ap)); got != want {
			t.Errorf("%s is written %s, want %s", ap, got, want)
		}
	}
}

func TestFamilyOf(t *testing.T) {
	for a, want := range map[string]Family{"192.0.2.1": IPv4, "::ffff:192.0.2.1": IPv4, "2001:db8::1": IPv6, "::1": IPv6} {
		if got := FamilyOf(netip.MustParseAddr(a)); got != want {
			t.Errorf("%s: %d", a, got)
		}
	}
}

// TestPassive has the forms of 227 and 229 that servers are known to write, and what WithPassive makes of them: nothing
// but the address changes.
func TestPassive(t *testing.T) {
	to := netip.MustParseAddrPort("198.51.100.7:40001") // 156,65
	for _, test := range []struct{ reply, at, with string }{
		{"227 Entering Passive Mode (203,0,113,9,200,10).", "203.0.113.9:51210", "227 Entering Passive Mode (198,51,100,7,156,65)."},
		{"227 Entering Passive Mode (203,0,113,9,200,10)", "203.0.113.9:51210", "227 Entering Passive Mode (198,51,100,7,156,65)"},
		{"227 Entering Passive Mode 203,0,113,9,200,10", "203.0.113.9:51210", "227 Entering Passive Mode 198,51,100,7,156,65"},
		{"227 =203,0,113,9,200,10", "203.0.113.9:51210", "227 =198,51,100,7,156,65"},
		{"227 203,0,113,9,200,10", "203.0.113.9:51210", "227 198,51,100,7,156,65"},
		{"227 Mode (203, 0, 113, 9, 200, 10)", "203.0.113.9:51210", "227 Mode (198,51,100,7,156,65)"},
		{"227 v2 of 3,0 (203,0,113,9,200,10)", "203.0.113.9:51210", "227 v2 of 3,0 (198,51,100,7,156,65)"},
		{"227 (0,0,0,0,0,21)", "0.0.0.0:21", "227 (198,51,100,7,0,21)"},
		{"227 [203,0,113,9,200,10] (1,2,3,4,5,6)", "203.0.113.9:51210", "227 [198,51,100,7,156,65] (1,2,3,4,5,6)"},
		{"227 1,2,3,4,5,6,7,8", "1.2.3.4:1286", "227 198,51,100,7,156,65,7,8"},
		{"227-Entering\n227 (203,0,113,9,200,10)", "203.0.113.9:51210", "227-Entering\n227 (198,51,100,7,156,65)"},
		{"227-Entering\n203,0,113,9,200,10\n227 ok", "203.0.113.9:51210", "227-Entering\n198,51,100,7,156,65\n227 ok"},
		{"227-a\n227 (203,0,113,9,200,10) \xff\x1b", "203.0.113.9:51210", "227-a\n227 (198,51,100,7,156,65) \xff\x1b"},
		{"227", "", ""},
		{"227 Entering Passive Mode", "", ""},
		{"227 (203,0,113,9,200)", "", ""},
		{"227 (203,0,113,9,0,0)", "", ""},
		{"227 (203,0,113,9,0,0) (203,0,113,9,200,10)", "", ""}, // clients take the first
		{"227 (203,0,113,256,200,10)", "", ""},
		{"227 (203,0,113,9,200,1000)", "", ""},
		{"227 (203.0.113.9:51210)", "", ""},
		{"227 (|||51210|)", "", ""},
		{"228 (203,0,113,9,200,10)", "", ""},
		{"200 227 (203,0,113,9,200,10)", "", ""},

		{"229 Entering Extended Passive Mode (|||51210|)", ":51210", "229 Entering Extended Passive Mode (|||40001|)"},
		{"229 Entering Extended Passive Mode (|||51210|).", ":51210", "229 Entering Extended Passive Mode (|||40001|)."},
		{"229 ok (!!!51210!)", ":51210", "229 ok (!!!40001!)"},
		{"229 ok ($$$51210$) (extra)", ":51210", "229 ok ($$$40001$) (extra)"},
		{"229 ok (|1|203.0.113.9|51210|)", ":51210", "229 ok (|||40001|)"},
		{"229 ok (|2|2001:db8::1|51210|)", ":51210", "229 ok (|||40001|)"},
		{"229 ok |||51210|", ":51210", "229 ok |||40001|"},
		{"229 ok |||51210|.", ":51210", "229 ok |||40001|."},
		{"229 (see below) (|||51210|)", ":51210", "229 (see below) (|||40001|)"},
		{"229 a|b (|||51210|)", ":51210", "229 a|b (|||40001|)"},
		{"229 |||7| (|||51210|)", ":51210", "229 |||7| (|||40001|)"},
		{"229 |||7| (!|!!51210!)", ":51210", "229 |||7| (!!!40001!)"},
		{"229-Entering\n229 (|||51210|)", ":51210", "229-Entering\n229 (|||40001|)"},
		{"229 ok (||||51210|)", ":51210", "229 ok (||||40001|)"},
		{"229 (|||51210|", ":51210", "229 (|||40001|"},
		{"229", "", ""},
		{"229 ok", "", ""},
		{"229 ok ()", "", ""},
		{"229 ok (", "", ""},
		{"229 ok )(", "", ""},
		{"229 ok (|||0|)", "", ""},
		{"229 ok (|||65536|)", "", ""},
		{"229 ok (||51210|)", "", ""},
		{"229 ok (|||51210)", "", ""},
		{"229 ok (55551210 5)", "", ""}, // a digit delimits nothing
		{"229 ok (203,0,113,9,200,10)", "", ""},
	} {
		r := replyOf(test.reply)
		before := slices.Clone(r.Lines)
		at, err := r.Passive()
		switch {
		case test.at == "":
			if !errors.Is(err, ErrNoAddress) {
				t.Errorf("%q: %v, %v", test.reply, at, err)
			}
			if got := r.WithPassive(to); !sameReply(got, r) {
				t.Errorf("%q, which has no address, becomes %q", test.reply, got.Lines)
			}
			continue
		case strings.HasPrefix(test.at, ":"):
			if err != nil || at.Addr().IsValid() || ":"+portOf(at) != test.at {
				t.Errorf("%q: %v, %v", test.reply, at, err)
			}
		case err != nil || at.String() != test.at:
			t.Errorf("%q: %v, %v", test.reply, at, err)
		}
		want := to
		if strings.Contains(test.with, "7,0,21") { // the case of a port below 256
			want = netip.AddrPortFrom(to.Addr(), 21)
		}
		got := r.WithPassive(want)
		if !sameReply(got, replyOf(test.with)) {
			t.Errorf("%q becomes %q, want %q", test.reply, strings.Join(got.Lines, "\n"), test.with)
		}
		if !slices.Equal(r.Lines, before) {
			t.Errorf("%q was changed in place", test.reply)
		}
	}
	// A 227 has no place for an IPv6 address: the server's stays, the port changes.
	got := replyOf("227 ok (203,0,113,9,200,10)").WithPassive(netip.MustParseAddrPort("[2001:db8::1]:40001"))
	if want := "227 ok (203,0,113,9,156,65)"; got.Lines[0] != want {
		t.Errorf("%q, want %q", got.Lines[0], want)
	}
}

// replyOf makes a reply of lines separated by "\n".
func replyOf(text string) Reply {
	lines := strings.Split(text, "\n")
	code, _ := splitCode([]byte(lines[0]))
	return Reply{Code: code, Lines: lines}
}

func portOf(ap netip.AddrPort) string {
	_, port, _ := strings.Cut(netip.AddrPortFrom(netip.IPv4Unspecified(), ap.Port()).String(), ":")
	return port
}

// A server must not keep us busy with one reply: these took time in the square or the cube of their length.
func TestPassiveTakesLittleTime(t *testing.T) {
	const n = 64 << 10
	for _, text := range []string{
		"227 " + strings.Repeat("1,", n), "227 " + strings.Repeat("1,2,3,4,5,", n/10), "227 1," + strings.Repeat(" ", n),
		"227 " + strings.Repeat("999,", n/4), "229 " + strings.Repeat("|", n), "229 " + strings.Repeat("(", n) + ")",
		"229 " + strings.Repeat("(", n), "229 " + strings.Repeat("(|", n/2) + ")", "229 " + strings.Repeat("|||7", n/4) + ")",
		"229 " + strings.Repeat("(|||7", n/5) + ")", "229 " + strings.Repeat("()", n/2),
	} {
		r := replyOf(text)
		begin := time.Now()
		grew := allocated(func() { r.Passive() })
		// Time depends on the machine; what was allocated tells the same.
		if grew > 64<<20 {
			t.Errorf("%.20q…: %d MiB in %v", text, grew>>20, time.Since(begin))
		}
	}
}

// TestPassiveHides has a server whose words make a reader find another port than the one that we put in place of its own: it
// would have its clients dial what nobody checked. Only such words are lost.
func TestPassiveHides(t *testing.T) {
	to := netip.MustParseAddrPort("198.51.100.7:40001")
	for text, want := range map[string]string{
		"229 (!!|!||1|!1!)": "229 Entering Extended Passive Mode (|||40001|)",
		"229 (!!|||1|!x!)":  "229 (!!|||40001|!x!)",
	} {
		got := replyOf(text).WithPassive(to)
		if s := strings.Join(got.Lines, "\n"); s != want {
			t.Errorf("%q becomes %q, not %q", text, s, want)
		}
		if at, err := got.Passive(); err != nil || at.Port() != to.Port() {
			t.Errorf("%q is read as %v, %v", got.Lines, at, err)
		}
	}
}

func FuzzHostPort(f *testing.F) {
	f.Add("192,0,2,1,195,90")
	f.Add("192, 0,2,1,4,0")
	f.Add("0,0,0,0,0,0")
	f.Fuzz(func(t *testing.T, arg string) {
		ap, err := ParseHostPort(arg)
		if err != nil {
			return
		}
		if !ap.IsValid() || !ap.Addr().Is4() || ap.Port() == 0 {
			t.Fatalf("%q is %v", arg, ap)
		}
		again, err := ParseHostPort(FormatHostPort(ap))
		if err != nil || again != ap {
			t.Fatalf("%q is %v, and written and read %v, %v", arg, ap, again, err)
		}
	})
}

func FuzzExtended(f *testing.F) {
	f.Add("|1|192.0.2.1|50010|")
	f.Add("!2!2001:DB8::1!1024!")
	f.Add("|2|::ffff:192.0.2.1|50010|")
	f.Add("|3|x|1|")
	f.Fuzz(func(t *testing.T, arg string) {
		ap, err := ParseExtended(arg)
		if err != nil {
			return
		}
		if !ap.IsValid() || ap.Addr().Zone() != "" || ap.Addr().Is4In6() || ap.Port() == 0 {
			t.Fatalf("%q is %v", arg, ap)
		}
		again, err := ParseExtended(FormatExtended(ap))
		if err != nil || again != ap {
			t.Fatalf("%q is %v, and written and read %v, %v", arg, ap, again, err)
		}
	})
}

// FuzzPassive: where we find an address, a client that looks as we do finds ours instead, and every other byte stays.
func FuzzPassive(f *testing.F) {
	for _, text := range []string{"227 Entering Passive Mode (203,0,113,9,200,10).", "227 =203, 0,113,9,200,10", "227-a\n227 1,2,3,4,5,6,7",
		"227 (0,0,0,0,0,0,5)", "229 (!!|!||1|!1!)", "229 ok (|||51210|)", "229 |||7| (!|!!5!)", "229 ok |1|203.0.113.9|51210| x", "229-(\n229 ((|||5|)"} {
		f.Add(text, uint16(40001))
	}
	f.Fuzz(func(t *testing.T, text string, port uint16) {
		r := replyOf(text)
		at, err := r.Passive()
		if err != nil || port == 0 {
			return
		}
		if r.Code != 227 && r.Code != 229 || at.Port() == 0 {
			t.Fatalf("%q: %v", text, at)
		}
		to := netip.AddrPortFrom(netip.AddrFrom4([4]byte{198, 51, 100, 7}), port)
		with := r.WithPassive(to)
		got, err := with.Passive()
		if err != nil || got.Port() != port || r.Code == 227 && got != to {
			t.Fatalf("%q becomes %q, which is read as %v, %v", text, with.Lines, got, err)
		}
		if sameReply(with, NewPassive(r.Code, to)) {
			return // words that would hide our port are not kept: TestPassiveHides
		}
		if with.Code != r.Code || len(with.Lines) != len(r.Lines) {
			t.Fatalf("%q becomes %q", text, with.Lines)
		}
		changed := 0
		for i, l := range with.Lines {
			if l == r.Lines[i] {
				continue
			}
			changed++
			// What is before and behind the change must be all of the line but an address.
			same := 0
			for same < len(l) && same < len(r.Lines[i]) && l[same] == r.Lines[i][same] {
				same++
			}
			end := 0
			for end < len(l)-same && end < len(r.Lines[i])-same && l[len(l)-1-end] == r.Lines[i][len(r.Lines[i])-1-end] {
				end++
			}
			if put := l[same : len(l)-end]; strings.Trim(put, "0123456789,"+put[:min(1, len(put))]) != "" {
				t.Fatalf("%q becomes %q", text, with.Lines)
			}
		}
		if changed > 1 {
			t.Fatalf("%q becomes %q: %d lines changed", text, with.Lines, changed)
		}
		if again := with.WithPassive(to); !sameReply(again, with) {
			t.Fatalf("%q becomes %q, and then %q", text, with.Lines, again.Lines)
		}
	})
}
