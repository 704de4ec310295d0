package accounts

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"hash/maphash"
	"io"
	"io/fs"
	"log/slog"
	"os"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"
)

// table is what the files said when they were read last.
type table struct {
	entries map[string]*entry // by name
	order   []*entry
	groups  map[string]bool
	members map[string][]string // the groups of a name, sorted
}

// entry is one line of the htpasswd file.
type entry struct {
	name string
	hash hash
}

// files are the htpasswd file, if there is one, and the group file, if there is one.
type files struct {
	users, groups string
	log           *slog.Logger
	table         atomic.Pointer[table]

	mu     sync.Mutex
	looked time.Time
	seen   [2]os.FileInfo // of the files as they were read last, well or not; nil: they could not be
}

// lookAgain is how long the files are taken to be as they were: a stat for each guess is more than they are worth.
const lookAgain = time.Second

// maxFile is the size of the largest file that is read, in bytes: a hundred thousand accounts. What has more is the
// wrong file.
const maxFile = 16 << 20

// openFiles reads the files of Options, or says what is wrong with them.
func openFiles(o Options) (*files, []Fault) {
	f := &files{users: o.File, groups: o.Groups, log: o.Log, looked: time.Now()}
	t, faults := f.read()
	if len(faults) > 0 {
		return nil, faults
	}
	f.table.Store(t)
	return f, nil
}

// now is the table in force, read again if the files have changed. If they are wrong now, or gone, as they are for a
// moment when somebody saves them, it is the old one, and the log says so, once.
func (f *files) now() *table {
	f.mu.Lock()
	defer f.mu.Unlock()
	if time.Since(f.looked) < lookAgain {
		return f.table.Load()
	}
	f.looked = time.Now()
	if same(f.users, f.seen[0]) && same(f.groups, f.seen[1]) {
		return f.table.Load()
	}
	t, faults := f.read()
	if len(faults) > 0 {
		f.log.Error("proxy accounts are not read again; the old ones stay in force", "error", texts(faults))
		return f.table.Load()
	}
	f.table.Store(t)
	f.log.Info("proxy accounts read again", "accounts", len(t.entries), "groups", len(t.groups))
	return t
}

func texts(faults []Fault) string {
	var s []string
	for _, f := range faults {
		s = append(s, f.Text)
	}
	return strings.Join(s, "; ")
}

// same reports whether a file is as it was when it had that information.
func same(path string, was os.FileInfo) bool {
	if path == "" {
		return true
	}
	is, err := os.Stat(path)
	if err != nil || was == nil {
		return err != nil && was == nil
	}
	return os.SameFile(is, was) && is.Size() == was.Size() && is.ModTime().Equal(was.ModTime())
}

// read reads both files.
func (f *files) read() (*table, []Fault) {
	t := &table{entries: map[string]*entry{}, groups: map[string]bool{}, members: map[string][]string{}}
	var faults []Fault
	f.seen = [2]os.FileInfo{}
	for i, from := range []struct {
		key, path string
		take      func(*table, string) error
		empty     func() bool
	}{
		{"file", f.users, (*table).user, func() bool { return len(t.entries) == 0 }},
		{"groups", f.groups, (*table).group, func() bool { return len(t.groups) == 0 }},
	} {
		if from.path == "" {
			continue
		}
		text, info, err := content(from.path)
		f.seen[i] = info
		if err != nil {
			faults = append(faults, Fault{from.key, fmt.Sprintf("%s: %v", from.path, err)})
			continue
		}
		found := t.lines(text, from.take)
		for _, e := range found {
			faults = append(faults, Fault{from.key, fmt.Sprintf("%s:%v", from.path, e)})
		}
		if len(found) == 0 && from.empty() {
			// Editors empty a file before they write it. Who wants nobody in removes the key, or everybody's hash.
			faults = append(faults, Fault{from.key, from.path + ": is empty; write one entry at least"})
		}
	}
	for name, groups := range t.members {
		slices.Sort(groups)
		t.members[name] = slices.Compact(groups)
	}
	return t, faults
}

// content reads a file, and what it was like before that.
func content(path string) ([]byte, os.FileInfo, error) {
	f, err := os.Open(path)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return nil, nil, errors.New("no such file")
	case errors.Is(err, fs.ErrPermission):
		return nil, nil, fmt.Errorf("permission denied to user id %d; let it read the file", os.Geteuid())
	case err != nil:
		return nil, nil, err
	}
	defer f.Close()
	info, err := f.Stat()
	switch {
	case err != nil:
		return nil, nil, err
	case !info.Mode().IsRegular():
		return nil, info, errors.New("is no file")
	case info.Mode().Perm()&0o007 != 0:
		// Hashes can be guessed at leisure by who has them, and replaced by who can write them.
		return nil, info, fmt.Errorf("everybody can read or write it (mode %#o): chmod 640 %s", info.Mode().Perm(), path)
	}
	text, err := io.ReadAll(io.LimitReader(f, maxFile+1))
	if err == nil && len(text) > maxFile {
		err = errors.New("has more than 16 MiB; is it the right file?")
	}
	return text, info, err
}

// maxFaults is how many lines of a file are said to be wrong: with more it is the wrong file.
const maxFaults = 10

// lines takes the lines of a file, without comments, and says which are wrong, as "3: why".
func (t *table) lines(text []byte, take func(*table, string) error) (faults []error) {
	n := 0
	for line := range bytes.Lines(text) {
		n++
		s := strings.TrimRight(string(line), "\r\n")
		if strings.TrimSpace(s) == "" || strings.HasPrefix(s, "#") {
			continue
		}
		if err := take(t, s); err != nil {
			if faults = append(faults, fmt.Errorf("%d: %w", n, err)); len(faults) == maxFaults {
				return faults
			}
		}
	}
	return faults
}

// user takes a line of the htpasswd file.
func (t *table) user(line string) error {
	name, text, ok := strings.Cut(line, ":")
	if !ok {
		return errors.New("has no colon; write NAME:HASH") // and what stands here may be a password
	}
	if fault := nameFault(name); fault != "" {
		return errors.New(fault)
	}
	if t.entries[name] != nil {
		return fmt.Errorf("has %q once more; names must be unique", name)
	}
	h, err := parseHash(text)
	if err != nil {
		return fmt.Errorf("%q %w", name, err)
	}
	e := &entry{name, h}
	t.entries[name], t.order = e, append(t.order, e)
	return nil
}

// group takes a line of the group file. A group may have several.
func (t *table) group(line string) error {
	group, names, ok := strings.Cut(line, ":")
	if !ok {
		return errors.New("has no colon; write GROUP: NAME NAME")
	}
	group = strings.TrimSpace(group)
	if fault := nameFault(group); fault != "" {
		return errors.New(fault)
	}
	t.groups[group] = true
	for name := range strings.FieldsSeq(names) {
		if nameFault(name) != "" {
			return fmt.Errorf("has %q, which is no account's name", name)
		}
		t.members[name] = append(t.members[name], group)
	}
	return nil
}

// hashed are the accounts of an htpasswd file. It is a source.
type hashed struct {
	files *files
	guard *Guard
}

func (h *hashed) known(_ context.Context, name string) bool {
	return h.files.now().entries[name] != nil
}

// verify takes as long for a name that there is not as for one that there is. Accounts may have hashes of different cost, so
// a name that is none's has the cost of one that is some's, always the same one: else whoever measures could tell.
func (h *hashed) verify(ctx context.Context, name, password string) (*Account, error) {
	t := h.files.now()
	e := t.entries[name]
	exists := e != nil
	if !exists {
		e = t.order[maphash.String(h.guard.seed, name)%uint64(len(t.order))]
	}
	// Whoever has many addresses could keep all processors busy with hashes: they have a part of them.
	select {
	case h.guard.hashing <- struct{}{}:
	case <-ctx.Done():
		return nil, ctx.Err()
	}
	matches := e.hash.matches(password)
	<-h.guard.hashing
	if !matches || !exists {
		return nil, ErrFailed
	}
	return &Account{Name: name, Groups: t.members[name]}, nil
}
