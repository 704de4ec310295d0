package config

import (
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

func TestRate(t *testing.T) {
	for text, want := range map[string]Rate{"2MB/s": 2e6, "512KiB/s": 512 << 10, "1GB/s": 1e9, "1000B/s": 1000, "2MB": -1, "2/s": -1, "2": -1, "": -1, "/s": -1, "-1B/s": -1, "2MB/m": -1} {
		var r Rate
		err := r.UnmarshalText([]byte(text))
		if (err != nil) != (want < 0) || err == nil && r != want {
			t.Errorf("%q: %d, %v", text, r, err)
		}
		var again Rate
		if err == nil && (again.UnmarshalText([]byte(r.String())) != nil || again != r) {
			t.Errorf("%q: written as %q", text, r.String())
		}
	}
}

func TestWeeklyHours(t *testing.T) {
	for _, text := range []string{"", "Mon", "Mon 8:00-18:00", "Mon 08:00", "08:00-25:00", "24:00-08:00", "08:60-09:00", "mon 08:00-18:00", "Mon- 08:00-18:00", "Mon,,Tue 08:00-18:00", "Mo 08:00-18:00",
		"Mon-Fri 08:00-24:01", "Mon 08:00-+9:00"} {
		var h WeeklyHours
		if err := h.UnmarshalText([]byte(text)); err == nil {
			t.Errorf("%q is taken for %v", text, h)
		}
	}
	zurich, err := time.LoadLocation("Europe/Zurich")
	if err != nil {
		t.Fatal(err)
	}
	for _, test := range []struct{ hours, within, without string }{
		{"08:00-18:00", "2026-11-23T08:00:00 2026-11-22T17:59:59", "2026-11-23T18:00:00 2026-11-23T07:59:59"},
		{"Mon-Fri 08:00-18:00", "2026-11-23T12:00:00 2026-11-27T12:00:00", "2026-11-28T12:00:00 2026-11-22T12:00:00"},
		{"Sat-Mon 08:00-18:00", "2026-11-28T12:00:00 2026-11-29T12:00:00 2026-11-30T12:00:00", "2026-11-27T12:00:00 2026-12-01T12:00:00"},
		{"Sun 22:00-06:00", "2026-11-29T22:00:00 2026-11-30T05:59:59", "2026-11-29T05:00:00 2026-11-30T06:00:00 2026-11-30T22:00:00"},
		{"Mon,Wed 00:00-24:00", "2026-11-30T00:00:00 2026-12-02T23:59:59", "2026-12-01T00:00:00 2026-12-03T00:00:00"},
		{"Sat 20:00-20:00", "2026-11-28T20:00:00 2026-11-29T19:59:59", "2026-11-28T19:59:59 2026-11-29T20:00:00"},
		// By the clock on the wall, on days that change to summer time and from it.
		{"Sun 02:00-04:00", "2026-03-29T03:00:00 2026-10-25T02:30:00 2026-10-25T03:59:59", "2026-03-29T04:00:00 2026-10-25T04:00:00"},
	} {
		var h, again WeeklyHours
		if err := h.UnmarshalText([]byte(test.hours)); err != nil {
			t.Fatal(err)
		}
		if err := again.UnmarshalText([]byte(h.String())); err != nil || again != h {
			t.Errorf("%s is written as %q", test.hours, h)
		}
		for times, want := range map[string]bool{test.within: true, test.without: false} {
			for text := range strings.FieldsSeq(times) {
				at, err := time.ParseInLocation("2006-01-02T15:04:05", text, zurich)
				if err != nil {
					t.Fatal(err)
				}
				if h.Contains(at) != want {
					t.Errorf("%s contains %s: %v", test.hours, text, !want)
				}
			}
		}
	}
}

// TestPolicyFaults has a fault of each kind, and what is said of it.
func TestPolicyFaults(t *testing.T) {
	const head = "listeners: [{mode: gateway, server: 'ftp.example.com:21'}]\npolicy:\n  "
	for text, want := range map[string]string{
		"default: maybe":                       `policy.default: "maybe" is not one of: allow, deny`,
		"time_zone: Mars":                      `policy.time_zone: "Mars" is not known here`,
		"rules: [{name: a}]":                   "policy.rules[0].action: is missing; write one of: allow, deny",
		"rules: [{name: 'a b', action: deny}]": `policy.rules[0].name: "a b" is no name`,
		"rules: [{name: a, action: deny}, {name: a, action: deny}]":        `policy.rules[1].name: "a" is another's name too`,
		"rules: [{action: deny, listeners: x}]":                            `policy.rules[0].listeners[0]: "x" is no listener of this file`,
		"rules: [{action: deny, accounts: x}]":                             "policy.rules[0].accounts: matches nobody without accounts",
		"rules: [{action: deny, users: '[a'}]":                             `policy.rules[0].users[0]: "[a" is no name or pattern`,
		"rules: [{action: deny, commands: 'STOR x'}]":                      `policy.rules[0].commands[0]: "STOR X" is no command`,
		"rules: [{action: deny, classes: writes}]":                         `policy.rules[0].classes[0]: "writes" is not one of: access, list, read, write, modify`,
		"rules: [{action: deny, paths: a/b}]":                              `policy.rules[0].paths[0]: "a/b" is no path or pattern`,
		"rules: [{action: deny, paths: '/a[b'}]":                           `policy.rules[0].paths[0]: "/a[b" is no path or pattern`,
		"rules: [{action: deny, paths: '**.exe'}]":                         `policy.rules[0].paths[0]: "**.exe" has ** beside other characters`,
		"rules: [{action: deny, paths: ['/a/{b,**x}/c']}]":                 `policy.rules[0].paths[0]: "/a/{b,**x}/c" has ** beside other characters`,
		"rules: [{action: allow, users: []}]":                              "policy.rules[0].users: is an empty list",
		"rules: [{action: allow, clients: []}]":                            "policy.rules[0].clients: is an empty list",
		"quotas: [{name: q, sessions: 1, users: []}]":                      "policy.quotas[0].users: is an empty list",
		`rules: [{action: deny, name: "policy.\r\n230 x"}]`:                "policy.rules[0].name: ",
		"rules: [{action: deny, name: 'policy.rules[1]'}, {action: deny}]": `policy.rules[0].name: "policy.rules[1]" is no name`,
		"rules: [{action: deny, text: \"a\\u202eb\"}]":                     "policy.rules[0].text: must be one line",
		"rules: [{action: deny, direction: up}]":                           `policy.rules[0].direction: "up" is not one of: download, upload`,
		"rules: [{action: deny, client_tls: 'yes'}]":                       `policy.rules[0].client_tls: "yes" is not one of: plain, protected`,
		"rules: [{action: deny, code: 230}]":                               "policy.rules[0].code: is 230; a refusal's is 400 to 599",
		`rules: [{action: deny, text: "a\r\n230 b"}]`:                      "policy.rules[0].text: must be one line",
		"rules: [{action: allow, code: 550}]":                              "policy.rules[0].code: means nothing here: it is for rules whose action is deny",
		"rules: [{action: deny, rate: 1MB/s}]":                             "policy.rules[0].rate: means nothing here: it is for rules whose action is allow",
		"rules: [{action: allow, rate: 1MB}]":                              `policy.rules[0].rate: "1MB" is no rate`,
		"rules: [{action: allow, shared_rate: 10B/s}]":                     "policy.rules[0].shared_rate: is 10B/s; must be 1KB/s at least",
		"rules: [{action: deny, hours: 8-18}]":                             `policy.rules[0].hours[0]: "8-18" are no hours`,
		"quotas: [{name: q}]":                                              "policy.quotas[0]: bounds nothing",
		"quotas: [{name: q, sessions: 1, per: host}]":                      `policy.quotas[0].per: "host" is not one of: client, user, account, all`,
		"quotas: [{name: q, sessions: 1, per: account}]":                   "policy.quotas[0].per: counts accounts, and there are none",
		"quotas: [{name: q, bytes: 1GB, window: 10s}]":                     "policy.quotas[0].window: is 10s; must be 1m at least",
		"{}\naudit: {queue: 1}":                                            "audit.queue: is 1; must be 16 to 1048576 events",
		"{}\naudit: {on_full: wait}":                                       `audit.on_full: "wait" is not one of: drop, block, refuse`,
		"{}\naudit: {commands: true}":                                      "audit.commands: is given without audit.file",
		"{}\naudit: {file: /a, xferlog: /a}":                               "audit.xferlog: is the same file as audit.file",
	} {
		_, _, err := Load(write(t, head+text), Options{})
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s\n  says  %v\n  not   %s", text, err, want)
		}
	}
}

// TestPolicyWarnings has rules that do not do what they seem to.
func TestPolicyWarnings(t *testing.T) {
	const head = "listeners: [{mode: tproxy, data_path: kernel, intercept: {clients: [10.0.0.0/8]}}]\npolicy:\n  "
	for text, want := range map[string]string{
		"default: deny\n  rules: [{action: allow, classes: read}]":           "policy.default: denies all that no rule allows, and none allows to log in",
		"default: deny\n  rules: [{action: allow, classes: [read, access]}]": "",
		"ask_directory: false\n  rules: [{action: deny, paths: /a}]":         "policy.ask_directory: is false, and rules speak of paths",
		"quotas: [{name: q, bytes: 1GB}]":                                    "policy.quotas[0]: is forgotten at a restart",
		"quotas: [{name: q, sessions: 2}]":                                   "",
		"rules: [{action: deny, larger_than: 1GB}]":                          "listeners[0].data_path: is kernel, but rules",
	} {
		_, warnings, err := Load(write(t, head+text), Options{})
		if err != nil {
			t.Fatal(err)
		}
		said := ""
		if warnings != nil {
			said = warnings.Error()
		}
		if want == "" && said != "" || !strings.Contains(said, want) {
			t.Errorf("%s\n  warns %q\n  not   %s", text, said, want)
		}
	}
}

// TestExamples loads what is ready to be used.
func TestExamples(t *testing.T) {
	files, err := filepath.Glob("examples/*.yaml")
	if err != nil || len(files) != 6 {
		t.Fatal(files, err)
	}
	for _, file := range files {
		c, warnings, err := Load(file, Options{})
		if err != nil || warnings != nil {
			t.Errorf("%s: %v %v", file, err, warnings)
			continue
		}
		if d := cmp.Diff(c, load(t, string(c.YAML()), Options{}), byValue); d != "" {
			t.Errorf("%s, after YAML: %s", file, d)
		}
	}
}
