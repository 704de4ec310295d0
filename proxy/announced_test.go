package proxy

import (
	"bytes"
	"io"
	"net/netip"
	"strings"
	"testing"
	"time"

	"ftpalg/config"
	"ftpalg/dataconn"
)

var announcements = map[string]struct {
	header string
	client string // empty: the sender itself; "no": it is refused
}{
	"v1":            {"PROXY TCP4 192.0.2.7 198.51.100.1 40000 21\r\n", "192.0.2.7:40000"},
	"v1, IPv6":      {"PROXY TCP6 2001:db8::7 2001:db8::1 40000 21\r\n", "[2001:db8::7]:40000"},
	"v1, unknown":   {"PROXY UNKNOWN\r\n", ""},
	"v2":            {"\r\n\r\n\x00\r\nQUIT\n\x21\x11\x00\x0c\xc0\x00\x02\x07\xc6\x33\x64\x01\x9c\x40\x00\x15", "192.0.2.7:40000"},
	"v2, more":      {"\r\n\r\n\x00\r\nQUIT\n\x21\x11\x00\x11\xc0\x00\x02\x07\xc6\x33\x64\x01\x9c\x40\x00\x15\x01\x00\x02ab", "192.0.2.7:40000"},
	"v2, local":     {"\r\n\r\n\x00\r\nQUIT\n\x20\x00\x00\x00", ""},
	"none":          {"USER alice\r\n", "no"},
	"v1, cut":       {"PROXY TCP4 192.0.2.7", "no"},
	"v1, endless":   {"PROXY TCP4 " + strings.Repeat("1", 200), "no"},
	"v1, no number": {"PROXY TCP4 192.0.2.300 198.51.100.1 40000 21\r\n", "no"},
	"v2, cut":       {"\r\n\r\n\x00\r\nQUIT\n\x21\x11\x00\x0c\xc0\x00", "no"},
	"v2, endless":   {"\r\n\r\n\x00\r\nQUIT\n\x21\x11\xff\xff\xc0\x00", "no"},
	"v2, short":     {"\r\n\r\n\x00\r\nQUIT\n\x21\x11\x00\x02\xc0\x00", "no"},
	"nothing":       {"", "no"},
}

// TestAnnounced: a header gives the client, whole or byte by byte, and nothing that follows it is lost.
func TestAnnounced(t *testing.T) {
	for name, test := range announcements {
		for _, piece := range []int{1000, 1} {
			t.Run(name, func(t *testing.T) {
				t.Parallel()
				s, peer := swiftPair(t)
				go func() {
					for b := []byte(test.header + "rest"); len(b) > 0; b = b[min(piece, len(b)):] {
						if test.client == "no" && len(b) <= len("rest") {
							break
						}
						peer.Write(b[:min(piece, len(b))])
						time.Sleep(time.Millisecond)
					}
					peer.CloseWrite()
				}()
				got, _, err := announced(s.TCPConn)
				if test.client == "no" {
					if err == nil {
						t.Fatalf("taken for %v", got)
					}
					return
				}
				want := dataconn.AddrPort(s.TCPConn.RemoteAddr())
				if test.client != "" {
					want = netip.MustParseAddrPort(test.client)
				}
				if err != nil || got != want {
					t.Fatalf("%v, %v; want %v", got, err, want)
				}
				if rest, err := io.ReadAll(s.TCPConn); err != nil || string(rest) != "rest" {
					t.Errorf("then %q, %v", rest, err)
				}
			})
		}
	}
}

// TestAnnounce: what a server is told gives our client again, in every mixture of families.
func TestAnnounce(t *testing.T) {
	v4, v6 := netip.MustParseAddrPort("192.0.2.7:40000"), netip.MustParseAddrPort("[2001:db8::7]:40000")
	for _, version := range []config.ProxyVersion{config.ProxyV1, config.ProxyV2} {
		for _, client := range []netip.AddrPort{v4, v6} {
			for _, server := range []string{"198.51.100.1:21", "[2001:db8::1]:21"} {
				s, peer := swiftPair(t)
				if err := announce(peer, version, client, netip.MustParseAddrPort(server)); err != nil {
					t.Fatal(err)
				}
				peer.CloseWrite()
				if got, _, err := announced(s.TCPConn); err != nil || got != client {
					t.Errorf("%s, %v to %s: %v, %v", version, client, server, got, err)
				}
			}
		}
	}
}

// FuzzAnnounced: whatever a sender says, no more is taken than a header, and a header's length does not change with what follows it.
func FuzzAnnounced(f *testing.F) {
	for _, test := range announcements {
		f.Add([]byte(test.header))
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		n := announcementLength(b)
		if n > len(b) || n < -1 {
			t.Fatalf("%d of %d bytes", n, len(b))
		}
		if more := announcementLength(append(bytes.Clone(b), "rest"...)); n > 0 && more != n {
			t.Fatalf("%d bytes, and %d with more behind them", n, more)
		}
	})
}
