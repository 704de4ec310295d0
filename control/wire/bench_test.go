package wire

import (
	"net/netip"
	"testing"
)

// echo is a peer that says one message for each Read, always the same.
type echo string

func (e echo) Read(p []byte) (int, error) { return copy(p, e), nil }

// lines and answers are what the benchmarks read, as real peers write them.
var (
	lines = map[string]string{
		"short":  "NOOP\r\n",
		"path":   "RETR /pub/some/where/over/the/rainbow.tar.gz\r\n",
		"telnet": "\xff\xf4\xff\xf2ABOR\r\n",
	}
	answers = map[string]string{
		"short":    "226 Transfer complete.\r\n",
		"features": "211-Features:\r\n EPRT\r\n EPSV\r\n MDTM\r\n PASV\r\n REST STREAM\r\n SIZE\r\n TVFS\r\n UTF8\r\n211 End\r\n",
		"227":      "227 Entering Passive Mode (203,0,113,9,195,80).\r\n",
		"229":      "229 Entering Extended Passive Mode (|||50000|)\r\n",
	}
	elsewhere = netip.MustParseAddrPort("192.0.2.254:40001")
)

func BenchmarkCommand(b *testing.B) {
	for name, line := range lines {
		b.Run(name, func(b *testing.B) {
			b.ReportAllocs()
			r := NewReader(echo(line), Limits{})
			for b.Loop() {
				if _, err := r.Command(); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}

func BenchmarkCommandAppend(b *testing.B) {
	c := NewCommand("RETR", "/pub/some/where/over/the/rainbow.tar.gz")
	var out []byte
	b.ReportAllocs()
	for b.Loop() {
		out = c.Append(out[:0])
	}
}

func BenchmarkReply(b *testing.B) {
	for name, text := range answers {
		b.Run(name, func(b *testing.B) {
			b.ReportAllocs()
			r := NewReader(echo(text), Limits{})
			for b.Loop() {
				if _, err := r.Reply(); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}

func BenchmarkReplyAppend(b *testing.B) {
	r, _ := NewReader(echo(answers["features"]), Limits{}).Reply()
	var out []byte
	b.ReportAllocs()
	for b.Loop() {
		out = r.Append(out[:0])
	}
}

// BenchmarkPassive finds the port in a reply and writes another, as every passive transfer has it done.
func BenchmarkPassive(b *testing.B) {
	for _, code := range []string{"227", "229"} {
		b.Run(code, func(b *testing.B) {
			r, _ := NewReader(echo(answers[code]), Limits{}).Reply()
			var out []byte
			b.ReportAllocs()
			for b.Loop() {
				if _, err := r.Passive(); err != nil {
					b.Fatal(err)
				}
				out = r.WithPassive(elsewhere).Append(out[:0])
			}
		})
	}
}

// BenchmarkPort reads and writes the arguments of PORT and EPRT.
func BenchmarkPort(b *testing.B) {
	b.Run("PORT", func(b *testing.B) {
		b.ReportAllocs()
		for b.Loop() {
			if _, err := ParseHostPort("192,0,2,9,195,80"); err != nil {
				b.Fatal(err)
			}
			FormatHostPort(elsewhere)
		}
	})
	b.Run("EPRT", func(b *testing.B) {
		b.ReportAllocs()
		for b.Loop() {
			if _, err := ParseExtended("|1|192.0.2.9|50000|"); err != nil {
				b.Fatal(err)
			}
			FormatExtended(elsewhere)
		}
	})
}

// TestAllocations holds what the codec allocates for a message in the steady state: what it returns.
func TestAllocations(t *testing.T) {
	for name, test := range map[string]struct {
		do   func() error
		most float64
	}{
		"command": {reads((*Reader).Command, lines["path"]), 1},  // its text
		"reply":   {reads((*Reader).Reply, answers["short"]), 2}, // its text, and the list of its lines
		"227":     {moves(answers["227"]), 4},                    // the address, the line, the list, and what it takes to find them
		"229":     {moves(answers["229"]), 5},
	} {
		t.Run(name, func(t *testing.T) {
			got := testing.AllocsPerRun(100, func() {
				if err := test.do(); err != nil {
					t.Fatal(err)
				}
			})
			if got > test.most {
				t.Errorf("%v allocations, want %v at most", got, test.most)
			}
		})
	}
}

// reads has a Reader read the same message each time.
func reads[T any](read func(*Reader) (T, error), message string) func() error {
	r := NewReader(echo(message), Limits{})
	return func() error {
		_, err := read(r)
		return err
	}
}

// moves writes another address into a reply and appends it.
func moves(message string) func() error {
	r, _ := NewReader(echo(message), Limits{}).Reply()
	var out []byte
	return func() error {
		out = r.WithPassive(elsewhere).Append(out[:0])
		_, err := r.Passive()
		return err
	}
}
