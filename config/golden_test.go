package config

import (
	"flag"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

var update = flag.Bool("update", false, "rewrite what is expected in testdata")

// TestFaults runs the cases of testdata/*.txt. A case begins with === and its name. Lines that begin with $ set the
// scene: "$ env NAME=VALUE", "$ flag KEY=VALUE", "$ no file". The rest up to ~~~ is the file, and what follows are its
// faults or else its warnings, or "none".
func TestFaults(t *testing.T) {
	paths, err := filepath.Glob("testdata/*.txt")
	if err != nil || len(paths) == 0 {
		t.Fatal("no cases", err)
	}
	for _, path := range paths {
		t.Run(strings.TrimSuffix(filepath.Base(path), ".txt"), func(t *testing.T) {
			text, err := os.ReadFile(path)
			if err != nil {
				t.Fatal(err)
			}
			var rewritten []string
			for c := range strings.SplitSeq(strings.TrimPrefix(string(text), "=== "), "\n=== ") {
				name, body, _ := strings.Cut(c, "\n")
				input, want, _ := strings.Cut(body, "~~~\n")
				want = strings.TrimSpace(want) + "\n"
				got := faultsOf(input)
				rewritten = append(rewritten, "=== "+name+"\n"+input+"~~~\n"+got)
				t.Run(name, func(t *testing.T) {
					if !*update && got != want {
						t.Errorf("input:\n%s\ngot:\n%s\nwant:\n%s", input, got, want)
					}
				})
			}
			if *update {
				if err := os.WriteFile(path, []byte(strings.Join(rewritten, "\n")), 0o644); err != nil {
					t.Fatal(err)
				}
			}
		})
	}
}

// faultsOf loads a case's input.
func faultsOf(input string) string {
	o, path := Options{Flags: map[string]string{}}, "ftpalg.yaml"
	var file strings.Builder
	for line := range strings.Lines(input) {
		scene, isScene := strings.CutPrefix(strings.TrimSuffix(line, "\n"), "$ ")
		word, setting, _ := strings.Cut(scene, " ")
		switch {
		case !isScene:
			file.WriteString(line)
		case scene == "no file":
			path = ""
		case word == "env":
			o.Environ = append(o.Environ, setting)
		case word == "flag":
			key, value, _ := strings.Cut(setting, "=")
			o.Flags[key] = value
		}
	}
	l := newLoader(path, o.Environ)
	if path != "" {
		l.document([]byte(file.String()))
	}
	l.environment(o.Environ)
	l.flags(o.Flags)
	_, warnings, err := l.config(nil)
	switch {
	case err != nil:
		return err.Error() + "\n"
	case len(warnings) > 0:
		return "warning: " + strings.ReplaceAll(warnings.Error(), "\n", "\nwarning: ") + "\n"
	}
	return "none\n"
}
