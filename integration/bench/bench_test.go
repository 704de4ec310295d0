//go:build linux

package main

import (
	"bytes"
	"encoding/json"
	"encoding/xml"
	"errors"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

func TestMain(m *testing.M) {
	if playRole() {
		return
	}
	code := m.Run()
	for _, f := range atExit {
		f()
	}
	os.Exit(code)
}

// TestBench sends the ways that need nothing but this module through measures of each kind, as small as can be, and looks
// whether the output is what readers and other programs rely on. What the figures are is not its business.
func TestBench(t *testing.T) {
	if os.Geteuid() != 0 {
		if os.Getenv("FTPALG_INTEGRATION") == "1" {
			t.Fatal("not available: root")
		}
		t.Skip("not available: root")
	}
	dir := t.TempDir()
	jsonFile, svgFile := filepath.Join(dir, "figures.json"), filepath.Join(dir, "figures.svg")
	var table bytes.Buffer
	names := []string{"plain-retr-1", "plain-active-stor-8", "plain-mtu-retr-8", "tls-stor-1", "tls-active-retr-8",
		"plain-sessions-16", "plain-small", "plain-noop", "plain-presence", "tls-sessions-16", "tls-small", "tls-noop", "tls-presence"}
	err := bench(t.Context(), []string{"-quick", "-subjects", "ftpalg-tproxy-splice,ftpalg-tproxy-tls", "-measures", strings.Join(names, ","),
		"-json", jsonFile, "-svg", svgFile}, &table)
	t.Logf("%s", table.String())
	if err != nil {
		t.Fatal(err)
	}

	figures, err := os.ReadFile(jsonFile)
	if err != nil {
		t.Fatal(err)
	}
	kinds := map[string]int{}
	seen := map[string]bool{} // measures of subjects
	for d := json.NewDecoder(bytes.NewReader(figures)); ; {
		var f figure // its fields are all others' too
		if err := d.Decode(&f); errors.Is(err, io.EOF) {
			break
		} else if err != nil {
			t.Fatal(err)
		}
		kinds[f.Kind]++
		if f.Kind != "figure" {
			continue
		}
		seen[f.Measure+" of "+f.Subject] = true
		x := slices.IndexFunc(metrics, func(x metric) bool { return x.Name == f.Metric })
		if x < 0 {
			t.Errorf("unknown metric %q", f.Metric)
			continue
		}
		if len(f.Ratios) == 0 {
			t.Errorf("%s of %s with %d present: %s has no ratio", f.Measure, f.Subject, f.Present, f.Metric)
		}
		if len(f.Samples) != 1 || f.Min > f.Median || f.Median > f.Max {
			t.Errorf("%s of %s: %s of one round is %v, from %v to %v", f.Measure, f.Subject, f.Metric, f.Samples, f.Min, f.Max)
		}
		if !metrics[x].Quiet && !strings.Contains(table.String(), f.Metric) {
			t.Errorf("the table has nothing of %s", f.Metric)
		}
	}
	if kinds["machine"] != 1 || kinds["subject"] != 4 || kinds["failed"] != 0 {
		t.Errorf("there are such lines: %v", kinds)
	}
	for _, name := range names {
		able := []string{forwarding, "ftpalg-tproxy-tls"}
		if strings.HasPrefix(name, "plain") {
			able = []string{forwarding, kernelHelper, "ftpalg-tproxy-splice"}
		}
		for _, s := range able {
			if !seen[name+" of "+s] {
				t.Errorf("no figure of %s of %s", name, s)
			}
		}
	}

	svg, err := os.ReadFile(svgFile)
	if err != nil {
		t.Fatal(err)
	}
	named := 0
	for d := xml.NewDecoder(bytes.NewReader(svg)); ; {
		token, err := d.Token()
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			t.Fatal(err)
		}
		if text, ok := token.(xml.CharData); ok && string(text) == "ftpalg-tproxy-splice" {
			named++
		}
	}
	// In one panel of each metric of each of the measures that the plot has: download, download of MTU-sized packets, small
	// files, NOOP, memory.
	if named != 7 {
		t.Errorf("the plot names ftpalg-tproxy-splice %d times", named)
	}
}

// What is chosen by pattern, and what is not there.
func TestChoose(t *testing.T) {
	all := []string{"forwarding", "one-a", "one-b", "two"}
	self := func(s string) string { return s }
	for patterns, want := range map[string][]string{
		"*":         all,
		"one-*":     {"forwarding", "one-a", "one-b"},
		"two,one-b": {"forwarding", "one-b", "two"},
	} {
		got, err := choose(all, self, patterns, "thing", "forwarding")
		if err != nil || !slices.Equal(got, want) {
			t.Errorf("%s chooses %v, %v", patterns, got, err)
		}
	}
	for _, patterns := range []string{"three", "one-a,", "[", ""} {
		if got, err := choose(all, self, patterns, "thing"); err == nil {
			t.Errorf("%q chooses %v", patterns, got)
		}
	}
}
