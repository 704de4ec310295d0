package accounts

import (
	"bytes"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"
)

// A hash of bcrypt whose password does not matter, and those of "Hello world!" by openssl passwd and by crypt(3).
const (
	someBcrypt   = "$2y$04$RAKwVeA/V4F0F.QTeyr5huIc0QkrPJqJ3NjOjbC1pSYeugkKQRgiu"
	sha256Hello  = "$5$saltstring$5B8vYYiY.CVt1RlTTf8KbXBH3hsxY/GNooZaBBGWEc5"
	sha512Hello  = "$6$saltstring$svn8UoSVapNtMuq1ukKS4tPQd8iKwSMHWjl/O817G3uBnIFNjnQJuesI68u4OTLiBFdcbYEdFCoEOfaS35inz1"
	sha256Rounds = "$5$rounds=10000$saltstringsaltst$3xv.VbSHBb41AL9AvLeujZkZRBAwqFMz2.opqey6IcA"
)

// log is a log that tests read while it is written.
type log struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (l *log) Write(b []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.Write(b)
}

func (l *log) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.String()
}

func (l *log) logger() *slog.Logger { return slog.New(slog.NewTextHandler(l, nil)) }

func write(t testing.TB, path, text string) string {
	t.Helper()
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

func TestHashes(t *testing.T) {
	mine, err := Entry("alice", "secret", 4)
	if err != nil {
		t.Fatal(err)
	}
	_, mine, _ = strings.Cut(mine, ":")
	for _, test := range []struct{ text, password string }{
		{mine, "secret"},
		{strings.Replace(mine, "$2y$", "$2a$", 1), "secret"},
		{strings.Replace(mine, "$2y$", "$2b$", 1), "secret"},
		{sha256Hello, "Hello world!"},
		{sha512Hello, "Hello world!"},
		{sha256Rounds, "Hello world!"},
	} {
		h, err := parseHash(test.text)
		if err != nil {
			t.Errorf("%s: %v", test.text, err)
			continue
		}
		for password, want := range map[string]bool{test.password: true, test.password + "x": false, "": false, test.password[1:]: false} {
			if h.matches(password) != want {
				t.Errorf("%s: %q matches: %v", test.text, password, !want)
			}
		}
	}
}

// What is wrong with a file is said with its line, and never with what stands where a hash should: it may be a password.
func TestFileFaults(t *testing.T) {
	good := "alice:" + sha256Hello + "\n"
	for name, test := range map[string]struct{ users, groups, want string }{
		"MD5":              {good + "bob:$apr1$abcdefgh$MORESECRET\n", "", "users:2: \"bob\" has Apache's MD5 ($apr1$)"},
		"SHA-1":            {"bob:{SHA}MORESECRET\n", "", "users:1: \"bob\" has SHA-1 without salt ({SHA})"},
		"salted SHA-1":     {"bob:{SSHA}MORESECRET\n", "", "users:1: \"bob\" has SHA-1 with salt ({SSHA})"},
		"MD5-crypt":        {"bob:$1$MORESECRET\n", "", "users:1: \"bob\" has MD5-crypt ($1$)"},
		"yescrypt":         {"bob:$y$MORESECRET\n", "", "users:1: \"bob\" has yescrypt ($y$)"},
		"Argon2":           {"bob:$argon2id$MORESECRET\n", "", "users:1: \"bob\" has Argon2"},
		"another":          {"bob:$x$MORESECRET\n", "", "users:1: \"bob\" has a scheme that is not known here"},
		"plain":            {"# a comment\n\nbob:MORESECRET\n", "", "users:3: \"bob\" has a plain password or DES-crypt"},
		"nothing":          {"bob:\n", "", "users:1: \"bob\" has no hash after the colon"},
		"bcrypt, short":    {"bob:$2y$10$MORESECRET\n", "", "users:1: \"bob\" has a damaged bcrypt hash"},
		"bcrypt, dear":     {"bob:" + strings.Replace(someBcrypt, "$04$", "$31$", 1) + "\n", "", "users:1: \"bob\" has bcrypt with cost 31"},
		"SHA-crypt, short": {"bob:" + sha512Hello[:60] + "\n", "", "users:1: \"bob\" has a damaged SHA-512-crypt hash"},
		"SHA-crypt, dear":  {"bob:" + strings.Replace(sha256Rounds, "10000", "999999999", 1) + "\n", "", "users:1: \"bob\" has SHA-crypt with 999999999 rounds"},
		"SHA-crypt, cheap": {"bob:" + strings.Replace(sha256Rounds, "10000", "10", 1) + "\n", "", "users:1: \"bob\" has SHA-crypt with 10 rounds"},
		"twice":            {good + good, "", "users:2: has \"alice\" once more"},
		"no colon":         {good + "MORESECRET\n", "", "users:2: has no colon"},
		"no name":          {":" + sha256Hello + "\n", "", "users:1: has no name"},
		"a blank":          {"a b:" + sha256Hello + "\n", "", "users:1: has a name with blanks"},
		"a long name":      {strings.Repeat("a", 129) + ":" + sha256Hello + "\n", "", "users:1: has a name of more than 128 bytes"},
		"something after":  {"bob:" + sha256Hello + ":MORESECRET\n", "", "users:1: \"bob\" has a damaged SHA-256"},
		"nobody":           {"# nobody\n", "", "users: is empty"},
		"group, no colon":  {good, "staff alice\n", "groups:1: has no colon"},
		"group, no name":   {good, ": alice\n", "groups:1: has no name"},
		"group, odd name":  {good, "a b: alice\n", "groups:1: has a name with blanks"},
		"group, odd names": {good, "staff: alice:bob\n", "groups:1: has \"alice:bob\", which is no account's name"},
		"no group":         {good, "\n", "groups: is empty"},
	} {
		t.Run(name, func(t *testing.T) {
			dir := t.TempDir()
			o := Options{File: write(t, filepath.Join(dir, "users"), test.users)}
			if test.groups != "" {
				o.Groups = write(t, filepath.Join(dir, "groups"), test.groups)
			}
			_, faults := New(o, NewGuard())
			if len(faults) != 1 || !strings.HasPrefix(faults[0].Text, dir+"/"+test.want) {
				t.Errorf("%v, not %s", faults, test.want)
			}
			if strings.Contains(fmt.Sprint(faults), "MORESECRET") {
				t.Errorf("a secret is in %v", faults)
			}
		})
	}
}

func TestFileAccess(t *testing.T) {
	dir := t.TempDir()
	open := write(t, filepath.Join(dir, "open"), "alice:"+sha256Hello+"\n")
	if err := os.Chmod(open, 0o644); err != nil {
		t.Fatal(err)
	}
	large := write(t, filepath.Join(dir, "large"), "#"+strings.Repeat(" ", maxFile))
	for file, want := range map[string]string{open: "chmod 640 " + open, large: "16 MiB", dir: "is no file", dir + "/none": "no such file"} {
		if _, faults := New(Options{File: file}, NewGuard()); len(faults) != 1 || faults[0].Key != "file" || !strings.Contains(faults[0].Text, want) {
			t.Errorf("%s: %v, not %s", file, faults, want)
		}
	}
	if _, faults := New(Options{File: write(t, filepath.Join(dir, "wrong"), strings.Repeat("a\n", 1000))}, NewGuard()); len(faults) != maxFaults {
		t.Errorf("%d faults of a thousand lines", len(faults))
	}
}

func TestGroups(t *testing.T) {
	dir := t.TempDir()
	o := Options{
		File:   write(t, filepath.Join(dir, "users"), "alice:"+sha256Hello+"\r\nbob:"+sha256Hello),
		Groups: write(t, filepath.Join(dir, "groups"), "staff: alice bob\n# a comment\nadmins : alice\nstaff: alice\nnobody:\n"),
	}
	a, faults := New(o, NewGuard())
	if len(faults) > 0 {
		t.Fatal(faults)
	}
	account, err := a.source.verify(t.Context(), "alice", "Hello world!")
	if err != nil || !slices.Equal(account.Groups, []string{"admins", "staff"}) {
		t.Error(account, err)
	}
	if !account.In(nil, []string{"x", "staff"}) || !account.In([]string{"alice"}, nil) || account.In([]string{"bob"}, []string{"nobody"}) || (*Account)(nil).In([]string{""}, nil) {
		t.Error("who is in what is wrong")
	}
	names, groups := a.Missing([]string{"alice", "carol"}, []string{"nobody", "others"})
	if !slices.Equal(names, []string{"carol"}) || !slices.Equal(groups, []string{"others"}) {
		t.Error(names, groups)
	}
}

// A file that changes is read again. One that is wrong or gone leaves the accounts as they were, and is one line in the log
// however often somebody logs in.
func TestFileChanges(t *testing.T) {
	dir := t.TempDir()
	var said log
	o := Options{File: write(t, filepath.Join(dir, "users"), "alice:"+sha256Hello+"\n"), Log: said.logger()}
	a, faults := New(o, NewGuard())
	if len(faults) > 0 {
		t.Fatal(faults)
	}
	f := a.source.(*hashed).files
	// later is when the file is looked at again.
	later := func() {
		f.mu.Lock()
		defer f.mu.Unlock()
		f.looked = time.Time{}
	}
	knows := func(want string, lines int) {
		t.Helper()
		for range 3 {
			later()
			var got []string
			for _, name := range []string{"alice", "bob"} {
				if a.Known(t.Context(), name) {
					got = append(got, name)
				}
			}
			if strings.Join(got, " ") != want {
				t.Errorf("knows %v, not %s", got, want)
			}
		}
		if n := strings.Count(said.String(), "\n"); n != lines {
			t.Errorf("%d lines, not %d: %s", n, lines, said.String())
		}
	}
	knows("alice", 0)
	write(t, o.File, "bob:"+sha256Hello+"\n# changed\n")
	if a.Known(t.Context(), "bob") {
		t.Error("the file is looked at for every login")
	}
	knows("bob", 1)
	write(t, o.File, "bob:plain\n")
	knows("bob", 2)
	write(t, o.File, "")
	knows("bob", 3)
	if err := os.Remove(o.File); err != nil {
		t.Fatal(err)
	}
	knows("bob", 4)
	write(t, o.File, "alice:"+sha256Hello+"\n")
	knows("alice", 5)
	if n := strings.Count(said.String(), "level=ERROR"); n != 3 || strings.Contains(said.String(), "plain\n") {
		t.Errorf("%d errors: %s", n, said.String())
	}
}

func FuzzLines(f *testing.F) {
	for _, s := range []string{"alice:" + sha256Hello, "bob:" + someBcrypt, "staff: alice bob", "# x\n\n:\n::\na:$5$", "a:$6$rounds=5000$x$y"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		users := &table{entries: map[string]*entry{}}
		faults := users.lines([]byte(s), (*table).user)
		if len(faults) > maxFaults || len(users.order) != len(users.entries) {
			t.Errorf("%d faults, %d of %d entries", len(faults), len(users.order), len(users.entries))
		}
		for name, e := range users.entries {
			if e.name != name || e.hash == nil || !plausible(name) || strings.ContainsAny(name, "\r\n: ") {
				t.Errorf("%q is an account", name)
			}
		}
		groups := &table{groups: map[string]bool{}, members: map[string][]string{}}
		groups.lines([]byte(s), (*table).group)
		for name, in := range groups.members {
			if !plausible(name) || len(in) == 0 {
				t.Errorf("%q is in %v", name, in)
			}
		}
	})
}
