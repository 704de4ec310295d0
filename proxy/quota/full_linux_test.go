package quota

import (
	"bytes"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
)

// A full disk stops nobody, is logged once, and what was counted meanwhile is written when there is room, from Open on.
func TestFullDisk(t *testing.T) {
	dir := t.TempDir()
	if err := syscall.Mount("tmpfs", dir, "tmpfs", 0, "size=1m"); err != nil {
		if os.Getenv("FTPALG_INTEGRATION") == "1" {
			t.Fatal(err)
		}
		t.Skip(err)
	}
	defer syscall.Unmount(dir, syscall.MNT_DETACH)
	ballast, name := filepath.Join(dir, "ballast"), filepath.Join(dir, "state")
	if err := os.WriteFile(ballast, make([]byte, 2<<20), 0o600); err == nil {
		t.Fatal("the disk is not full")
	}
	var said bytes.Buffer
	s := newStore(name, slog.New(slog.NewTextHandler(&said, nil)))
	if err := s.load(); err != nil {
		t.Fatal(err)
	}
	h := enter(t, s, daily, here)
	if over := move(h, 10); over != nil {
		t.Error(over)
	}
	if s.save() == nil || strings.Count(said.String(), "\n") != 1 || !strings.Contains(said.String(), name) {
		t.Errorf("the log has %q", said.String())
	}
	if move(h, 1) == nil {
		t.Error("nothing is counted while the disk is full")
	}
	if err := os.Remove(ballast); err != nil {
		t.Fatal(err)
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	if s, err := Open(name, quiet); err != nil {
		t.Error(err)
	} else {
		if move(enter(t, s, daily, here), 1) == nil {
			t.Error("what was counted while the disk was full is lost")
		}
		s.Close()
	}
}
