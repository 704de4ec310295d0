package main

import (
	"bytes"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"ftpalg/config"
	"ftpalg/proxy/accounts"
)

// TestReadme holds the README's configuration reference and its example against the program.
func TestReadme(t *testing.T) {
	text, err := os.ReadFile("../../README.md")
	if err != nil {
		t.Fatal(err)
	}
	readme := string(text)
	if want := "<!-- reference -->\n" + string(config.Reference()) + "<!-- end -->\n"; !strings.Contains(readme, want) {
		t.Error("the configuration reference is not what `ftpalg config --reference` prints")
	}

	file := filepath.Join(t.TempDir(), "firewall.yaml")
	if err := os.WriteFile(file, []byte(fenced(t, readme, "firewall.yaml")), 0o644); err != nil {
		t.Fatal(err)
	}
	for _, command := range []struct {
		args []string
		want string
	}{
		{[]string{"check", file}, "The configuration is valid: 1 listener(s).\n"},
		{[]string{"rules", "-c", file}, fenced(t, readme, "rules")},
	} {
		var stdout, stderr bytes.Buffer
		if code := run(command.args, &stdout, &stderr); code != 0 || stderr.Len() > 0 {
			t.Errorf("%q ended with %d: %s", command.args, code, &stderr)
		}
		got := stdout.String()
		if command.args[0] == "check" { // what follows is of this machine
			got = got[:min(len(got), len(command.want))]
		}
		if got != command.want {
			t.Errorf("%q prints\n%s\nbut README has\n%s", command.args, &stdout, command.want)
		}
	}
}

// TestReadmeInspection: the example of the inspection gateway is one, once its authority is there.
func TestReadmeInspection(t *testing.T) {
	text, err := os.ReadFile("../../README.md")
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	cert, key := filepath.Join(dir, "authority.crt"), filepath.Join(dir, "authority.key")
	var stdout, stderr bytes.Buffer
	if code := run([]string{"ca", "init", "--cert", cert, "--key", key}, &stdout, &stderr); code != 0 {
		t.Fatal(&stderr)
	}
	example := strings.ReplaceAll(fenced(t, string(text), "inspection.yaml"), "/etc/ftpalg/", dir+"/")
	file := filepath.Join(dir, "inspection.yaml")
	if err := os.WriteFile(file, []byte(example), 0o644); err != nil {
		t.Fatal(err)
	}
	stdout.Reset()
	if code := run([]string{"check", file}, &stdout, &stderr); code != 0 || !strings.HasPrefix(stdout.String(), "The configuration is valid: 1 listener(s).\n") {
		t.Errorf("check ended with %d: %s%s", code, &stdout, &stderr)
	}
}

// TestReadmeAccounts: the example of proxy accounts is one, once its files are there.
func TestReadmeAccounts(t *testing.T) {
	text, err := os.ReadFile("../../README.md")
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	var users strings.Builder
	for _, name := range []string{"alice", "bob"} {
		line, err := accounts.Entry(name, "x", 4)
		if err != nil {
			t.Fatal(err)
		}
		users.WriteString(line + "\n")
	}
	example := strings.ReplaceAll(fenced(t, string(text), "accounts.yaml"), "/etc/ftpalg/", dir+"/")
	for name, content := range map[string]string{"accounts": users.String(), "groups": "staff: alice carol\n", "c.yaml": example} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(content), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	var stdout, stderr bytes.Buffer
	if code := run([]string{"check", filepath.Join(dir, "c.yaml")}, &stdout, &stderr); code != 0 || stderr.Len() > 0 || !strings.HasPrefix(stdout.String(), "The configuration is valid: 1 listener(s).\n") {
		t.Errorf("check ended with %d: %s%s", code, &stdout, &stderr)
	}
}

// TestReadmePolicy checks the README's rules, and that they say what it says they do.
func TestReadmePolicy(t *testing.T) {
	text, err := os.ReadFile("../../README.md")
	if err != nil {
		t.Fatal(err)
	}
	file := filepath.Join(t.TempDir(), "ftpalg.yaml")
	if err := os.WriteFile(file, []byte(fenced(t, string(text), "policy.yaml")), 0o600); err != nil {
		t.Fatal(err)
	}
	var stdout, stderr bytes.Buffer
	if code := run([]string{"check", file}, &stdout, &stderr); code != 0 || stderr.Len() > 0 {
		t.Errorf("check ended with %d: %s%s", code, &stdout, &stderr)
	}
	_, after, ok := strings.Cut(string(text), `    $ ftpalg policy test -c ftpalg.yaml --user bob --cwd / 'RETR \INTERNAL\plan'`+"\n")
	says, _, more := strings.Cut(after, "\n\n")
	if !ok || !more {
		t.Fatal("README does not ask what rules would say")
	}
	stdout.Reset()
	code := run([]string{"policy", "test", "-c", file, "--user", "bob", "--cwd", "/", `RETR \INTERNAL\plan`}, &stdout, &stderr)
	if got := strings.TrimSuffix(stdout.String(), "\n"); code != exitDenied || got != strings.ReplaceAll(says[4:], "\n    ", "\n") {
		t.Errorf("it ends with %d and says\n%s\nnot\n%s", code, got, says)
	}
}

// fenced is the code block that follows a marker in the README.
func fenced(t *testing.T, readme, marker string) string {
	t.Helper()
	_, after, ok := strings.Cut(readme, "<!-- example: "+marker+" -->\n```")
	_, after, _ = strings.Cut(after, "\n")
	block, _, closed := strings.Cut(after, "```")
	if !ok || !closed {
		t.Fatalf("README has no example %s", marker)
	}
	return block
}
