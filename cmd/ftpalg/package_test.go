package main

import (
	"bytes"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"ftpalg/config"
)

// TestPackagedConfiguration: what the package's configuration opens is for this machine alone, and each of its suggestions works
// when its comment signs are taken away.
func TestPackagedConfiguration(t *testing.T) {
	const path = "../package/ftpalg.yaml"
	c, warnings, err := config.Load(path, config.Options{})
	if err != nil || len(warnings) > 0 {
		t.Fatal(err, warnings)
	}
	for _, l := range c.Listeners {
		if !l.Address.Addr().IsLoopback() {
			t.Errorf("%s listens on %s", l.Name, l.Address)
		}
	}
	if c.Admin.Socket != defaultSocket || len(c.Admin.Writers) > 0 || c.Metrics.Address.IsValid() || c.Status.Address.IsValid() {
		t.Errorf("administrators: %+v, metrics: %+v", c.Admin, c.Metrics)
	}
	text, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	suggestions := regexp.MustCompile(`(?m)(^#[a-z]+:( [a-z]+)?\n|^#  .*\n)+`).FindAllString(string(text), -1)
	if len(suggestions) != 7 {
		t.Fatalf("%d suggestions", len(suggestions))
	}
	dir := t.TempDir()
	var stdout, stderr bytes.Buffer
	if code := run([]string{"ca", "init", "--cert", filepath.Join(dir, "authority.crt"), "--key", filepath.Join(dir, "authority.key")}, &stdout, &stderr); code != 0 {
		t.Fatal(&stderr)
	}
	for i, s := range suggestions {
		file := filepath.Join(dir, string(rune('a'+i))+".yaml")
		s = regexp.MustCompile(`(?m)^#`).ReplaceAllString(s, "")
		s = strings.NewReplacer("/etc/ftpalg", dir, "/var/log/ftpalg", dir).Replace(s)
		if err := os.WriteFile(file, []byte(s), 0o600); err != nil {
			t.Fatal(err)
		}
		stderr.Reset()
		if code := run([]string{"check", file}, &stdout, &stderr); code != 0 {
			t.Errorf("check ends with %d: %s\n%s", code, &stderr, s)
		}
	}
}
