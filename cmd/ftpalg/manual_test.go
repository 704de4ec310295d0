package main

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"ftpalg/config"
)

// TestManual: every command and every flag has a page, every key of the configuration is in its own, and the text of no page is taken
// for an order to the formatter.
func TestManual(t *testing.T) {
	dir := t.TempDir()
	var said strings.Builder
	if code := run([]string{"manual", "--date", "2026-11-23", dir}, &said, &said); code != 0 || said.Len() > 0 {
		t.Fatalf("it ends with %d: %s", code, said.String())
	}
	read := func(name string) string {
		text, err := os.ReadFile(filepath.Join(dir, name))
		if err != nil {
			t.Fatal(err)
		}
		return string(text)
	}
	var visit func(*cobra.Command)
	visit = func(c *cobra.Command) {
		if c.Hidden {
			if _, err := os.Stat(filepath.Join(dir, strings.ReplaceAll(c.CommandPath(), " ", "-")+".8")); err == nil {
				t.Errorf("%s is hidden and has a page", c.CommandPath())
			}
			return
		}
		page := read(strings.ReplaceAll(c.CommandPath(), " ", "-") + ".8")
		c.Flags().VisitAll(func(f *pflag.Flag) {
			if want := `\fB` + strings.ReplaceAll("--"+f.Name, "-", `\-`) + `\fR`; !f.Hidden && !strings.Contains(page, want) {
				t.Errorf("%s: its page has no %s", c.CommandPath(), want)
			}
		})
		for _, below := range c.Commands() {
			visit(below)
		}
	}
	visit(newRoot())
	keys := read("ftpalg.yaml.5")
	for _, k := range config.Keys() {
		if want := "\n.TP\n" + bold(k.Name); !strings.Contains(keys, want) {
			t.Errorf("ftpalg.yaml.5 has no %s", want)
		}
	}
	for _, example := range []string{"ftps-only.yaml", "upload-drop-box.yaml"} {
		if !strings.Contains(keys, ".SS "+escape(example)) {
			t.Errorf("ftpalg.yaml.5 has no example %s", example)
		}
	}
	signals := read("ftpalg.8")
	for _, want := range []string{"SIGTERM", "SIGHUP", "SIGUSR1", "2026-11-23", ".SH EXIT STATUS", ".SH FILES"} {
		if !strings.Contains(signals, want) {
			t.Errorf("ftpalg.8 has no %s", want)
		}
	}
}

// TestManualEscapes: what a key's meaning may have in it is shown, and orders nothing.
func TestManualEscapes(t *testing.T) {
	for text, want := range map[string]string{
		".so /etc/shadow":  `\&.so /etc/shadow`,
		"'br":              `\[aq]br`,
		`\fBa\n`:           `\[rs]fBa\[rs]n`,
		"-c, a~b^c`d\"":    `\-c, a\[ti]b\[ha]c\[ga]d\[dq]`,
		"one … and – more": `one \[u2026] and \[u2013] more`,
	} {
		if got := escape(text); got != want {
			t.Errorf("%q becomes %q, not %q", text, got, want)
		}
	}
}
