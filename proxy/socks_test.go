package proxy

import (
	"errors"
	"io"
	"net"
	"strings"
	"testing"
	"time"
)

// TestSOCKS: what clients ask for, and what they are told.
func TestSOCKS(t *testing.T) {
	const hello = "\x05\x01\x00"
	for name, test := range map[string]struct {
		says, hears string
		want        string // empty: an error
		must        bool   // clients log in
	}{
		"IPv4":           {hello + "\x05\x01\x00\x01\xc0\x00\x02\x01\x00\x15", "\x05\x00", "192.0.2.1:21", false},
		"IPv6":           {hello + "\x05\x01\x00\x04\x20\x01\x0d\xb8" + strings.Repeat("\x00", 11) + "\x01\x00\x15", "\x05\x00", "[2001:db8::1]:21", false},
		"mapped":         {hello + "\x05\x01\x00\x04" + strings.Repeat("\x00", 10) + "\xff\xff\xc0\x00\x02\x01\x00\x15", "\x05\x00", "192.0.2.1:21", false},
		"name":           {hello + "\x05\x01\x00\x03\x05a.tld\x00\x15", "\x05\x00", "a.tld:21", false},
		"two methods":    {"\x05\x02\x02\x00\x05\x01\x00\x03\x01a\x00\x15", "\x05\x00", "a:21", false},
		"no method":      {"\x05\x01\x03", "\x05\xff", "", false},
		"none at all":    {"\x05\x00", "\x05\xff", "", false},
		"BIND":           {hello + "\x05\x02\x00\x03\x01a\x00\x15", "\x05\x00", "", false},
		"UDP":            {hello + "\x05\x03\x00\x03\x01a\x00\x15", "\x05\x00", "", false},
		"version":        {hello + "\x04\x01\x00\x03\x01a\x00\x15", "\x05\x00", "", false},
		"address":        {hello + "\x05\x01\x00\x02\x01a\x00\x15", "\x05\x00", "", false},
		"cut":            {hello + "\x05\x01\x00\x03\xffa", "\x05\x00", "", false},
		"password":       {"\x05\x02\x00\x02\x01\x05alice\x06secret\x05\x01\x00\x03\x01a\x00\x15", "\x05\x02\x01\x00", "a:21", true},
		"wrong password": {"\x05\x01\x02\x01\x05alice\x05wrong\x05\x01\x00\x03\x01a\x00\x15", "\x05\x02\x01\x01", "", true},
		"no password":    {"\x05\x01\x00", "\x05\xff", "", true},
		"empty password": {"\x05\x01\x02\x01\x05alice\x00", "\x05\x02\x01\x01", "", true},
		"needless":       {"\x05\x01\x02\x01\x05alice\x06secret\x05\x01\x00\x03\x01a\x00\x15", "\x05\x02\x01\x00", "a:21", false},
		"half a name":    {"\x05\x01\x02\x01\x05al", "\x05\x02", "", true},
		"other exchange": {"\x05\x01\x02\x05\x05alice\x06secret", "\x05\x02", "", true},
	} {
		t.Run(name, func(t *testing.T) {
			near, far := net.Pipe()
			heard := make(chan string, 1)
			go func() {
				go func() {
					io.WriteString(far, test.says)
					time.Sleep(10 * time.Millisecond)
					far.Close()
				}()
				b, _ := io.ReadAll(far)
				heard <- string(b)
			}()
			w, err := socksRequest(near, test.must, func(name, password string) error {
				if name != "alice" || password != "secret" {
					return errors.New("no")
				}
				return nil
			})
			near.Close()
			if got := <-heard; got != test.hears {
				t.Errorf("heard %q", got)
			}
			if test.want == "" {
				if err == nil {
					t.Errorf("taken for %v", w)
				}
			} else if err != nil || w.String() != test.want {
				t.Errorf("%v, %v", w, err)
			}
		})
	}
}
