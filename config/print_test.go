package config

import (
	"bytes"
	"reflect"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

func TestExampleIsDefault(t *testing.T) {
	if d := cmp.Diff(Default(), load(t, string(Example()), Options{}), byValue); d != "" {
		t.Error(d)
	}
}

// TestExampleHasEveryKey: as a key if it is in no list that is empty by default, and as a key in a comment otherwise.
func TestExampleHasEveryKey(t *testing.T) {
	for _, key := range allKeys() {
		pattern := `(?m)^ *(- )?` + key[strings.LastIndex(key, ".")+1:] + `:`
		for _, list := range []string{"destinations[].", "policy.rules[].", "policy.quotas[]."} {
			if name, ok := strings.CutPrefix(key, list); ok {
				pattern = `(?m)^ *# ` + regexp.QuoteMeta(name) + `:`
			}
		}
		if !regexp.MustCompile(pattern).Match(Example()) {
			t.Errorf("no %s in the example", key)
		}
	}
}

// TestExampleSamples takes the comment signs from the samples: what people do with an example must load.
func TestExampleSamples(t *testing.T) {
	text := string(Example())
	for _, list := range []string{"destinations", "rules", "quotas"} {
		text = strings.Replace(text, list+": []", list+":", 1)
	}
	text = regexp.MustCompile(`(?m)^( +)# (- .*|  .*)$`).ReplaceAllString(text, "$1$2")
	c := load(t, text, Options{})
	var got []Mode
	for _, l := range c.Listeners {
		got = append(got, l.Mode)
	}
	if want := []Mode{Explicit, TPROXY, Redirect, Gateway}; !slices.Equal(got, want) {
		t.Errorf("modes %v, want %v", got, want)
	}
	want := &Config{Destinations: sampleDestinations()}
	want.complete()
	if d := cmp.Diff(want.Destinations, c.Destinations, byValue); d != "" {
		t.Error(d)
	}
	if d := cmp.Diff(sampleRules(), c.Policy.Rules, byValue); d != "" || len(c.Policy.Quotas) != 1 {
		t.Error(d, c.Policy.Quotas)
	}
}

func TestExampleFitsAScreen(t *testing.T) {
	for line := range bytes.Lines(Example()) {
		if n := len([]rune(string(line))) - 1; n > 110 || bytes.HasSuffix(line, []byte(" \n")) || bytes.Contains(line, []byte("\t")) {
			t.Errorf("%d characters, or a blank at its end, or a tab: %s", n, line)
		}
	}
}

func TestEveryKeyHasAMeaning(t *testing.T) {
	var got []string
	for _, m := range meanings {
		got = append(got, m.key)
		if m.text == "" || strings.Contains(m.text, "\n") {
			t.Errorf("%s: its meaning must be one paragraph", m.key)
		}
		if strings.HasPrefix(m.key, "limits.") && !strings.Contains(m.text, "Stops ") {
			t.Errorf("%s: its meaning does not say what it stops", m.key)
		}
	}
	if d := cmp.Diff(allKeys(), got); d != "" {
		t.Error("keys and meanings, in their order:", d)
	}
}

// TestMeaningsNameEveryWord: a key that takes one of some words must say which.
func TestMeaningsNameEveryWord(t *testing.T) {
	for key, words := range map[string][]string{
		"listeners[].mode":                        {string(TPROXY), string(Redirect), string(Explicit), string(Gateway)},
		"listeners[].source":                      {string(SourceClient), string(SourceOwn)},
		"listeners[].server_data":                 {string(DataSame), string(DataPassive), string(DataActive)},
		"listeners[].data_path":                   {string(PathAuto), string(PathKernel), string(PathSplice)},
		"listeners[].unknown_commands":            {string(UnknownRelay), string(UnknownRefuse)},
		"listeners[].login":                       strings.Split(list(logins), ", "),
		"listeners[].tls":                         strings.Split(list(tlsModes), ", "),
		"listeners[].session_reuse":               {string(ReuseOff), string(ReuseLog), string(ReuseRequire)},
		"destinations[].allow":                    strings.Split(list(keywords), ", "),
		"destinations[].tls.verify":               {string(VerifyStrict), string(VerifyUntrustedCA), string(VerifyOff)},
		"destinations[].tls.min_version":          strings.Split(list(tlsVersions), ", "),
		"destinations[].tls.max_version":          strings.Split(list(tlsVersions), ", "),
		"destinations[].tls.curves":               strings.Split(list(curves), ", "),
		"destinations[].tls.missing_close_notify": {string(CloseBroken), string(CloseWhole)},
		"log.format":                              {"text", "json"},
		"log.level":                               {"debug", "info", "warn", "error"},
	} {
		for _, word := range words {
			if !strings.Contains(meaningOf(key).text, word) {
				t.Errorf("the meaning of %s does not name %s", key, word)
			}
		}
	}
}

func TestReference(t *testing.T) {
	text := string(Reference())
	if n := strings.Count(text, "\n"); n != 2+len(allKeys()) {
		t.Errorf("%d lines for %d keys", n, len(allKeys()))
	}
	for line := range strings.Lines(text) {
		if n := strings.Count(line, "|") - strings.Count(line, `\|`); n != 4 {
			t.Errorf("%d cells: %s", n-1, line)
		}
	}
	for _, want := range []string{
		"| `listeners[].address` | tproxy, redirect, gateway: `[::]:2121`; explicit: `127.0.0.1:2121` | ",
		"| `listeners[].source` | tproxy: `client`; redirect, explicit, gateway: `own` | ",
		"| `listeners[].data_ports` | tproxy, explicit, gateway: any; redirect: `50000-50999` | ",
		"| `listeners[].server_data` | `same` | ",
		"| `listeners[].implicit` | `false` | ",
		"| `listeners[].implicit_ports` | tproxy, redirect: `[990]`; explicit, gateway: none | ",
		"| `listeners[].intercept.clients` | any | ",
		"| `destinations[].tls` |  | ",
		"| `destinations[].tls.verify` | `strict` | ",
		"| `destinations[].tls.min_version` | `1.2` | ",
		"| `destinations[].tls.client_cert` | none | ",
		"| `listeners[].intercept` |  | ",
		"| `mark` | `0x0f7a0001` | ",
		"| `timeouts.login` | `2m` | ",
		"| `limits.reply_bytes` | `64KiB` | ",
		"| `timeouts` |  | ",
	} {
		if !strings.Contains(text, "\n"+want) {
			t.Errorf("no line begins with %s", want)
		}
	}
}

func TestTexts(t *testing.T) {
	type row struct {
		text string // as given
		want any
		back string // as written; empty: as given
	}
	for _, r := range []row{
		{"90s", 90 * time.Second, "1m30s"},
		{"120s", 2 * time.Minute, "2m"},
		{"60m", time.Hour, "1h"},
		{"1h1s", time.Hour + time.Second, "1h0m1s"},
		{"10s", 10 * time.Second, ""},
		{"20m", 20 * time.Minute, ""},
		{"100h", 100 * time.Hour, ""},
		{"1500ms", 1500 * time.Millisecond, "1.5s"},
		{"0s", time.Duration(0), ""},
		{"0x0f7a0001", Mark(0x0f7a0001), ""},
		{"0xff", Mark(255), "0x000000ff"},
		{"4294967295", Mark(1<<32 - 1), "0xffffffff"},
		{"0", Mark(0), "0x00000000"},
		{"", PortRange{}, ""},
		{"21", PortRange{21, 21}, ""},
		{"21-21", PortRange{21, 21}, "21"},
		{"1-65535", PortRange{1, 65535}, ""},
		{"1 - 2", PortRange{1, 2}, "1-2"},
		{"0B", Size(0), ""},
		{"4096B", Size(4096), "4KiB"},
		{"64KiB", Size(65536), ""},
		{"10MB", Size(10e6), "10000000B"},
		{"1kB", Size(1000), "1000B"},
		{"2 GiB", Size(2 << 30), "2GiB"},
		{"1536MiB", Size(1536 << 20), ""},
		{"8589934591GiB", Size(8589934591 << 30), ""},
		{"link-local", Target{Keyword: TargetLinkLocal}, ""},
		{"*", Target{Host: "*"}, ""},
		{"FTP.Example.COM.", Target{Host: "ftp.example.com"}, "ftp.example.com"},
		{"self.", Target{Host: "self"}, ""},
		{"ftp*", Target{Host: "ftp*"}, ""},
		{"true", true, ""},
		{"false", false, ""},
		{"sha256:" + digits64, Pin{0x01, 0x23, 0x45, 0x67, 0x89, 31: 0xff}, ""},
		{"sha256:" + strings.ToUpper(digits64), Pin{0x01, 0x23, 0x45, 0x67, 0x89, 31: 0xff}, "sha256:" + digits64},
	} {
		got, err := parse(r.text, reflect.TypeOf(r.want))
		if err != nil || got != r.want {
			t.Errorf("%q: got %v (%v), want %v", r.text, got, err, r.want)
			continue
		}
		want := r.back
		if want == "" {
			want = r.text
		}
		if back := format(reflect.ValueOf(got)); back != want {
			t.Errorf("%q: written as %q, want %q", r.text, back, want)
		}
	}
}

func TestPortRangeContains(t *testing.T) {
	r := PortRange{20, 21}
	for port, want := range map[uint16]bool{19: false, 20: true, 21: true, 22: false} {
		if r.Contains(port) != want {
			t.Errorf("%v contains %d: %v", r, port, !want)
		}
	}
	if !(PortRange{}).Contains(0) || !(PortRange{}).Contains(65535) {
		t.Error("the zero range must contain every port")
	}
}

func TestNearest(t *testing.T) {
	known := []string{"level", "format", "ports", "data_setup"}
	for word, want := range map[string]string{
		"levle": "level", "LEVEL": "level", "port": "ports", "data-setup": "data_setup", "dataSetup": "data_setup",
		"zebra": "", "": "", "x": "", strings.Repeat("level", 100): "",
	} {
		if got := nearest(word, known); got != want {
			t.Errorf("%q: got %q, want %q", word, got, want)
		}
	}
}

// TestFlow: quotes are where YAML would have another type without them, and only there.
func TestFlow(t *testing.T) {
	for want, value := range map[string]any{
		"true": true, `"true"`: "true", `"1.2"`: TLS12, "990": PortRange{990, 990}, "[21]": []PortRange{{21, 21}},
	} {
		if got := flow(reflect.ValueOf(value)); got != want {
			t.Errorf("%v: got %s, want %s", value, got, want)
		}
	}
}
