//go:build linux

package integration

import (
	"fmt"
	"log/slog"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"ftpalg/proxy/accounts"
)

// fail2ban itself takes the client's address, and no other, out of each line for a failed proxy login, whatever name a client
// gives for an account, in both formats of the log and in the journal's.
func TestFail2ban(t *testing.T) {
	program := needUnpacked(t, "usr/bin/fail2ban-regex")
	dir := t.TempDir()
	users := filepath.Join(dir, "users")
	line, err := accounts.Entry("alice", "right", 4)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(users, []byte(line), 0o600); err != nil {
		t.Fatal(err)
	}
	names := []string{"alice", "nobody", "a b", `a" client=198.51.100.1 x="`, "a\nlevel=WARN msg=\"proxy login failed\" client=198.51.100.1 account=x",
		`","client":"198.51.100.1","account":"`, "client=198.51.100.1", "\x00\x1b[2J", "\xff", "time=2026-01-01T00:00:00.000Z level=WARN", "198.51.100.1"}
	for name, format := range map[string]struct {
		handler func(*os.File) slog.Handler
		prefix  string
	}{
		"text":    {handler: func(f *os.File) slog.Handler { return slog.NewTextHandler(f, nil) }},
		"json":    {handler: func(f *os.File) slog.Handler { return slog.NewJSONHandler(f, nil) }},
		"journal": {func(f *os.File) slog.Handler { return slog.NewTextHandler(f, nil) }, "gate ftpalg[123]: "},
	} {
		t.Run(name, func(t *testing.T) {
			file, err := os.Create(filepath.Join(t.TempDir(), "log"))
			if err != nil {
				t.Fatal(err)
			}
			defer file.Close()
			log := slog.New(format.handler(file))
			a, faults := accounts.New(accounts.Options{File: users, Log: log,
				Limits: accounts.Limits{Failures: 10, Window: time.Minute, Ban: time.Minute}}, accounts.NewGuard())
			if len(faults) > 0 {
				t.Fatal(faults)
			}
			var want []string
			for i, name := range names {
				client := netip.MustParseAddr(fmt.Sprintf("192.0.2.%d", i+1))
				if i%2 == 1 {
					client = netip.MustParseAddr(fmt.Sprintf("2001:db8:%d::1", i))
				}
				a.Login(t.Context(), client, name, "wrong")
				log.Info("logged in", "user", name)
				log.Warn("refused", "text", name)
				want = append(want, client.String())
			}
			if format.prefix != "" {
				text, err := os.ReadFile(file.Name())
				if err != nil {
					t.Fatal(err)
				}
				var prefixed strings.Builder
				for line := range strings.Lines(string(text)) {
					prefixed.WriteString(format.prefix + line)
				}
				if err := os.WriteFile(file.Name(), []byte(prefixed.String()), 0o600); err != nil {
					t.Fatal(err)
				}
			}
			cmd := exec.Command("/usr/bin/python3", program, "-c", unpacked("etc/fail2ban"), "--out", "ip", file.Name(), "../config/fail2ban/ftpalg.conf")
			cmd.Env = append(os.Environ(), "PYTHONPATH="+unpacked("usr/lib/python3/dist-packages"), "PYTHONDONTWRITEBYTECODE=1")
			out, err := cmd.Output()
			if got := strings.Fields(string(out)); err != nil || !slices.Equal(got, want) {
				t.Errorf("fail2ban finds %q, not %q: %v", got, want, err)
			}
		})
	}
}
