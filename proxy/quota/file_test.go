package quota

import (
	"bytes"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"
	"time"

	"ftpalg/config"
)

var daily = config.Quota{Name: "q", Per: config.PerUser, Bytes: 10, Window: 24 * time.Hour}

// Counts are there after Close, and after a kill if they were written; a second process is told what to do; a broken file is put aside.
func TestFile(t *testing.T) {
	name := filepath.Join(t.TempDir(), "state")
	s, err := Open(name, quiet)
	if err != nil {
		t.Fatal(err)
	}
	move(enter(t, s, daily, here), 10)
	if info, err := os.Stat(name); err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("%v %v", info, err)
	}
	if _, err := Open(name, quiet); err == nil || !strings.HasPrefix(err.Error(), name) || !strings.Contains(err.Error(), "another process") {
		t.Errorf("opened twice: %v", err)
	}
	whole, err := os.ReadFile(name)
	if err != nil {
		t.Fatal(err)
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	for _, test := range []struct {
		name    string
		content []byte // nil: as Close left it
		kept    bool
	}{
		{"closed", nil, true}, {"killed", whole, true}, {"cut", whole[:6000], false}, {"zeroed", make([]byte, len(whole)), false},
		{"random", bytes.Repeat([]byte("broken "), 9000), false}, {"empty", []byte{}, false},
	} {
		if test.content != nil {
			if err := os.WriteFile(name, test.content, 0o600); err != nil {
				t.Fatal(err)
			}
		}
		s, err := Open(name, quiet)
		if err != nil {
			t.Fatalf("%s: %v", test.name, err)
		}
		if over := move(enter(t, s, daily, here), 1); (over != nil) != test.kept {
			t.Errorf("%s: %v", test.name, over)
		}
		if err := s.Close(); err != nil {
			t.Errorf("%s: %v", test.name, err)
		}
	}
	if aside, _ := filepath.Glob(name + ".broken-*"); len(aside) != 3 {
		t.Errorf("put aside: %v", aside)
	}
}

// No value makes decode panic, and what it takes is written and read as the same.
func FuzzValue(f *testing.F) {
	f.Add((&counter{width: 1000, slots: []slot{{-5, 1, 0}, {7, 0, 2}}}).value())
	f.Add([]byte{format, 0, 0})
	f.Fuzz(func(t *testing.T, b []byte) {
		width, slots, err := decode(b)
		if err != nil {
			return
		}
		c := &counter{width: width, slots: slots}
		if w, s, err := decode(c.value()); err != nil || w != width || !reflect.DeepEqual(s, slots) {
			t.Fatalf("%d %v, then %d %v: %v", width, slots, w, s, err)
		}
		c.resize(3, time.Now().UnixMilli())
	})
}
