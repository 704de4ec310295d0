//go:build linux

package integration

import (
	"bytes"
	"os"
	"os/exec"
	"path/filepath"
	"testing"
)

// TestManualPages: the formatters of two systems have nothing to say against any page.
func TestManualPages(t *testing.T) {
	need(t, "man", "mandoc")
	dir := t.TempDir()
	if said, err := exec.Command(ftpalgProgram(t), "manual", "--date", "2026-11-23", dir).CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, said)
	}
	pages, err := filepath.Glob(filepath.Join(dir, "*.[58]"))
	if err != nil || len(pages) < 15 {
		t.Fatalf("%d pages: %v", len(pages), err)
	}
	for _, page := range pages {
		// The settings are lintian's.
		man := exec.Command("man", "--warnings", "-E", "UTF-8", "-l", "-Tutf8", "-Z", page)
		man.Env = append(os.Environ(), "LC_ALL=C.UTF-8", "MANROFFSEQ=", "MANWIDTH=80")
		var complaints bytes.Buffer
		man.Stderr = &complaints // the other output is the page
		if err := man.Run(); err != nil || complaints.Len() > 0 {
			t.Errorf("man of %s: %v: %s", filepath.Base(page), err, &complaints)
		}
		if said, err := exec.Command("mandoc", "-T", "lint", "-W", "warning", page).CombinedOutput(); err != nil || len(said) > 0 {
			t.Errorf("mandoc of %s: %v: %s", filepath.Base(page), err, said)
		}
	}
}
