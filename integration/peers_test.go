//go:build linux

package integration

import (
	"os"
	"os/exec"
	"runtime"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

// TestPeers logs the versions of everything that the other tests talk to.
func TestPeers(t *testing.T) {
	var name unix.Utsname
	if err := unix.Uname(&name); err == nil {
		t.Logf("%s %s", unix.ByteSliceToString(name.Sysname[:]), unix.ByteSliceToString(name.Release[:]))
	}
	for _, peer := range []string{"vsftpd", "proftpd-core", "proftpd-mod-crypto", "pure-ftpd", "haproxy", "slapd", "fail2ban"} {
		version, err := os.ReadFile(unpacked("." + peer))
		if err != nil {
			t.Logf("%s: none", peer)
			continue
		}
		t.Logf("%s %s", peer, strings.TrimSpace(string(version)))
	}
	for _, peer := range []string{
		"python3-pyftpdlib", "curl", "lftp", "tnftp", "wget", "ncftp", "python3", "python3-openssl", "perl", "libio-socket-ssl-perl", "chromium-headless-shell", "filezilla", "apt",
		"nftables", "iproute2", "conntrack",
	} {
		version, err := exec.Command("dpkg-query", "-W", peer).Output()
		if err != nil {
			t.Logf("%s: none", peer)
			continue
		}
		t.Log(strings.ReplaceAll(strings.TrimSpace(string(version)), "\t", " "))
	}
	t.Log(runtime.Version())
	modules, err := os.ReadFile("../go.mod")
	if err != nil {
		t.Fatal(err)
	}
	for line := range strings.Lines(string(modules)) {
		for _, module := range []string{"github.com/jlaffaye/ftp", "github.com/fclairamb/ftpserverlib"} {
			if strings.Contains(line, module) {
				t.Log(strings.TrimSpace(line))
			}
		}
	}
}
