//go:build linux

package main

import (
	"os"
	"path"
	"path/filepath"
	"slices"
	"testing"
	"time"
)

// TestPeers has every peer do what it can do, a little of each kind: files come through whole, sessions and many at once work,
// and what is left out has a reason.
func TestPeers(t *testing.T) {
	lack := t.Skip
	if os.Getenv("FTPALG_INTEGRATION") == "1" {
		lack = t.Fatal
	}
	if os.Geteuid() != 0 {
		lack("not available: root")
	}
	if _, err := os.Stat(filepath.Join(peersDir(), ".stunnel4")); err != nil { // the last that install.sh unpacks
		lack("not available: the benchmark's peers (see install.sh):", err)
	}
	names := []string{"plain-retr-8", "plain-stor-1", "plain-active-retr-1", "plain-active-stor-8", "plain-sessions-64", "plain-small",
		"plain-presence", "tls-retr-1", "tls-stor-8", "tls-active-stor-1", "tls-sessions-16", "tls-small", "tls-presence"}
	o := options{Rounds: 1, Warm: 200 * time.Millisecond, Window: 300 * time.Millisecond, Gathered: []int{1, 40}, Progress: t.Output()}
	for _, m := range measures {
		if slices.Contains(names, m.Name) {
			o.Measures = append(o.Measures, m)
		}
	}
	o.Subjects = peerSubjects
	r, err := measureAll(t.Context(), o)
	if err != nil {
		t.Fatal(err)
	}
	for _, m := range r.Missing {
		t.Errorf("%s of %s: %s", m.Measure, m.Subject, m.Why)
	}
	for _, s := range r.Subjects {
		t.Log(s.Name, s.Version)
	}
	did := map[string]bool{}
	for k := range r.samples {
		did[k.measure+" of "+k.subject] = true
	}
	for _, s := range peerSubjects {
		for _, name := range names {
			excused := slices.ContainsFunc(r.LeftOut, func(m missing) bool {
				matches, err := path.Match(m.Measure, name)
				return err == nil && matches && m.Subject == s.Name && m.Why != ""
			})
			if did[name+" of "+s.Name] == excused {
				t.Errorf("%s of %s: left out with a reason is %v, and so is done", name, s.Name, excused)
			}
		}
	}
}
