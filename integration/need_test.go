//go:build linux

package integration

import (
	"os"
	"os/exec"
	"path/filepath"
	"testing"
)

// need skips the test unless it runs as root and the programs are found in PATH.
func need(t testing.TB, programs ...string) {
	t.Helper()
	if os.Geteuid() != 0 {
		lack(t, "root")
	}
	for _, program := range programs {
		if _, err := exec.LookPath(program); err != nil {
			lack(t, program+" (see install.sh)")
		}
	}
}

// lack skips a test that lacks something, or fails it if FTPALG_INTEGRATION=1 says that nothing may be lacking.
func lack(t testing.TB, what string) {
	t.Helper()
	if os.Getenv("FTPALG_INTEGRATION") == "1" {
		t.Fatalf("not available: %s", what)
	}
	t.Skipf("not available: %s", what)
}

// needUnpacked is unpacked for a test that cannot do without the file.
func needUnpacked(t testing.TB, path string) string {
	t.Helper()
	file := unpacked(path)
	if _, err := os.Stat(file); err != nil {
		lack(t, filepath.Base(path)+" (see install.sh)")
	}
	return file
}

// unpacked returns the path of a file of the servers that install.sh unpacks.
func unpacked(path string) string {
	dir := os.Getenv("FTPALG_TEST_PEERS")
	if dir == "" {
		cache := os.Getenv("XDG_CACHE_HOME")
		if cache == "" {
			cache = "/var/cache"
		}
		dir = filepath.Join(cache, "ftpalg-peers")
	}
	return filepath.Join(dir, path)
}
