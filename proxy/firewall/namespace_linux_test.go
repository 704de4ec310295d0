package firewall

import (
	"os"
	"os/exec"
	"runtime"
	"strings"
	"testing"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// needRoot skips the test unless it may make network namespaces and has nft and ip. With FTPALG_INTEGRATION=1 it
// fails instead.
func needRoot(t *testing.T) {
	t.Helper()
	why := ""
	if os.Geteuid() != 0 {
		why = "needs root"
	}
	for _, program := range []string{"nft", "ip", "sh"} {
		if _, err := exec.LookPath(program); err != nil {
			why = err.Error()
		}
	}
	if why == "" {
		return
	}
	if os.Getenv("FTPALG_INTEGRATION") == "1" {
		t.Fatal(why)
	}
	t.Skip(why)
}

// enterNamespace puts the calling goroutine into a network namespace of its own, nameless and with lo up. Programs it
// runs and sockets it makes are in there too; goroutines it starts are not. The thread stays locked, so it ends with
// the test, and the namespace with it.
func enterNamespace(t *testing.T) {
	t.Helper()
	needRoot(t)
	runtime.LockOSThread()
	if err := unix.Unshare(unix.CLONE_NEWNET); err != nil {
		t.Fatal(err)
	}
	lo, err := netlink.LinkByName("lo")
	if err != nil {
		t.Fatal(err)
	}
	if err := netlink.LinkSetUp(lo); err != nil {
		t.Fatal(err)
	}
}

// sh runs a script in the calling thread's network namespace and returns what it prints. It may print no errors.
func sh(t *testing.T, script string) string {
	t.Helper()
	c := exec.Command("sh", "-ec", script)
	var errs strings.Builder
	c.Stderr = &errs
	out, err := c.Output()
	if err != nil || errs.Len() > 0 {
		t.Fatalf("%s: %v\n%s%s", script, err, out, errs.String())
	}
	return string(out)
}
