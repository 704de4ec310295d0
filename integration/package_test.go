//go:build linux

package integration

import (
	"context"
	"io/fs"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"ftpalg/proxy/audit"
)

// buildDeb makes the package in a version of its own, and returns its path.
func buildDeb(t *testing.T, version, dir string) string {
	t.Helper()
	build := exec.Command("../cmd/package/deb.sh", "-v", version, dir)
	build.Env = append(os.Environ(), "DEBFULLNAME=ftpalg's tests", "DEBEMAIL=tests@ftpalg.example.net")
	build.Stderr = os.Stderr
	path, err := build.Output()
	if err != nil {
		t.Fatal("deb.sh:", err)
	}
	return strings.TrimSpace(string(path))
}

// TestPackageLint: lintian has nothing to say, and the same sources make the same package.
func TestPackageLint(t *testing.T) {
	need(t, "dpkg-deb", "lintian", "apparmor_parser")
	deb, again := buildDeb(t, "1.0.0", t.TempDir()), buildDeb(t, "1.0.0", t.TempDir())
	if string(readAll(deb)) != string(readAll(again)) {
		t.Error("the same package made twice is two")
	}
	said, err := exec.Command("lintian", "--allow-root", "--fail-on", "error,warning", "--tag-display-limit", "0", deb).CombinedOutput()
	if err != nil || len(said) > 0 {
		t.Errorf("lintian: %v: %s", err, said)
	}
	// The kernel need not know of profiles for their language to be checked: -Q loads nothing, -K keeps nothing.
	if said, err := exec.Command("apparmor_parser", "-Q", "-K", "../config/apparmor/usr.sbin.ftpalg").CombinedOutput(); err != nil {
		t.Errorf("apparmor_parser: %v: %s", err, said)
	}
}

// changed makes a package of another, with another configuration and logrotate rule.
func changed(t *testing.T, deb, dir string) string {
	t.Helper()
	tree := filepath.Join(t.TempDir(), "tree")
	must := func(args ...string) {
		t.Helper()
		if said, err := exec.Command("dpkg-deb", args...).CombinedOutput(); err != nil {
			t.Fatalf("dpkg-deb: %v: %s", err, said)
		}
	}
	must("-R", deb, tree)
	for _, conffile := range []string{"etc/ftpalg/ftpalg.yaml", "etc/logrotate.d/ftpalg"} {
		file, err := os.OpenFile(filepath.Join(tree, conffile), os.O_APPEND|os.O_WRONLY, 0)
		if err == nil {
			_, err = file.WriteString("# changed\n")
			file.Close()
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	path := filepath.Join(dir, "changed.deb")
	must("--root-owner-group", "--build", tree, path)
	return path
}

// An installation is a system of its own, in the network of a lab's firewall.
type installation struct {
	*lab
	root    string
	systemd *daemon // nil: it is not booted
	init    int     // its first process, as we see it; 0: there is none
}

// newInstallation copies a system that install.sh makes: root, which is bare, or booted, which has systemd.
func newInstallation(t *testing.T, system string) *installation {
	t.Helper()
	need(t, "dpkg-deb", "chroot")
	from := unpackedSystem(t, system)
	i := &installation{lab: newLab(t)}
	i.root = filepath.Join(i.Dir, "root")
	if said, err := exec.Command("cp", "-a", from, i.root).CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, said)
	}
	return i
}

// unpackedSystem is where install.sh has made a system.
func unpackedSystem(t *testing.T, system string) string {
	t.Helper()
	if _, err := os.Stat(unpacked("." + system)); err != nil {
		lack(t, "the system "+system+" (see install.sh)")
	}
	return unpacked(system)
}

// command is a program in the system. Where that is not booted, /proc is there for as long as it runs: ip gives it mounts of its own.
func (i *installation) command(ctx context.Context, program string, args ...string) *exec.Cmd {
	outer := []string{"sh", "-ec", `mount -t proc proc "$0/proc"; exec chroot "$0" "$@"`, i.root}
	if i.init != 0 {
		outer = []string{"nsenter", "--target=" + strconv.Itoa(i.init), "--mount", "--uts", "--ipc", "--net", "--pid", "--cgroup", "--"}
	}
	c := i.Firewall.Command(ctx, outer[0], append(append(outer[1:], program), args...)...)
	c.Env = append(c.Env, "PATH=/usr/sbin:/usr/bin:/sbin:/bin", "DEBIAN_FRONTEND=noninteractive")
	return c
}

// run runs a program in the system, which has to succeed, and returns what it said.
func (i *installation) run(program string, args ...string) string {
	i.t.Helper()
	ctx, cancel := context.WithTimeout(i.t.Context(), hang)
	defer cancel()
	said, err := i.command(ctx, program, args...).CombinedOutput()
	if err != nil {
		i.t.Fatalf("%s %s: %v\n%s", program, strings.Join(args, " "), err, said)
	}
	return string(said)
}

// dpkg does what is to be done with packages as unattended upgrades do: an administrator's changes win.
func (i *installation) dpkg(args ...string) string {
	i.t.Helper()
	return i.run("dpkg", append([]string{"--force-confdef", "--force-confold"}, args...)...)
}

// give copies a package into the system, and returns its path there.
func (i *installation) give(deb string) string {
	i.t.Helper()
	inside := "/" + filepath.Base(deb)
	if err := os.WriteFile(i.root+inside, readAll(deb), 0o644); err != nil {
		i.t.Fatal(err)
	}
	return inside
}

// paths are all there is in the system, but for what dpkg and its like write about themselves.
func (i *installation) paths() []string {
	i.t.Helper()
	books := regexp.MustCompile(`^/(proc|dev|var/lib/dpkg|var/cache|var/lib/systemd|var/log/dpkg\.log|etc/g?(passwd|group|shadow)-|[^/]*\.deb)(/|$)`)
	var all []string
	err := filepath.WalkDir(i.root, func(path string, _ fs.DirEntry, err error) error {
		if inside := strings.TrimPrefix(path, i.root); !books.MatchString(inside) {
			all = append(all, inside)
		}
		return err
	})
	if err != nil {
		i.t.Fatal(err)
	}
	return all
}

// mode is what stat says of a file's owner and mode.
func (i *installation) mode(path string) string {
	return strings.TrimSpace(i.run("stat", "-c", "%U:%G %a", path))
}

// serve starts the service as its unit would: the same command line, user and capabilities.
func (i *installation) serve(name string) *gateway {
	i.t.Helper()
	unit := string(readAll(i.root + "/usr/lib/systemd/system/ftpalg.service"))
	says := func(key string) string {
		_, after, ok := strings.Cut(unit, "\n"+key+"=")
		value, _, _ := strings.Cut(after, "\n")
		if !ok {
			i.t.Fatalf("the unit has no %s", key)
		}
		return value
	}
	caps := "-all"
	for _, c := range strings.Fields(says("AmbientCapabilities")) {
		caps += ",+" + strings.ToLower(strings.TrimPrefix(c, "CAP_"))
	}
	user := says("User")
	g := &gateway{config: i.root + "/etc/ftpalg/ftpalg.yaml", lab: i.lab}
	g.daemon = i.Firewall.Start(name, i.command(context.Background(), "setpriv", append([]string{"--reuid=" + user, "--regid=" + user, "--init-groups",
		"--inh-caps=" + caps, "--ambient-caps=" + caps, "--bounding-set=" + caps, "--no-new-privs"}, strings.Fields(says("ExecStart"))...)...))
	g.await("msg=listening")
	return g
}

// readmeFirewall is README from its firewall from nothing on: the configuration, with the lab's interface, and the commands that put it to
// work.
func readmeFirewall(t *testing.T) (chapter, configuration string, commands []string) {
	t.Helper()
	_, chapter, _ = strings.Cut(string(readAll("../README.md")), "### A firewall from nothing")
	_, block, _ := strings.Cut(chapter, "```yaml\n")
	block, rest, _ := strings.Cut(block, "```")
	_, rest, _ = strings.Cut(rest, "as root:\n\n")
	rest, _, ok := strings.Cut(rest, "\n\n")
	if !ok {
		t.Fatal("README has another form")
	}
	for line := range strings.Lines(rest) {
		commands = append(commands, strings.TrimSpace(line))
	}
	return chapter, strings.ReplaceAll(block, "lan0", clientSide), commands
}

// TestPackage: the package is installed in a bare system and runs as it is delivered; is configured, and carries files; is upgraded
// without touching what an administrator has changed; is removed, and purged, and leaves what was not its own.
func TestPackage(t *testing.T) {
	debs := t.TempDir()
	first := buildDeb(t, "1.0.0", debs)
	second := changed(t, buildDeb(t, "1.1.0", debs), debs)
	i := newInstallation(t, "root")
	s := startServer(t, i.lab, nil)
	before := i.paths()

	// Installed.
	i.dpkg("-i", i.give(first))
	if said := i.run("dpkg", "--verify", "ftpalg"); said != "" {
		t.Errorf("dpkg finds changed: %s", said)
	}
	for path, want := range map[string]string{
		"/etc/ftpalg": "root:ftpalg 750", "/etc/ftpalg/ftpalg.yaml": "root:ftpalg 640", "/usr/sbin/ftpalg": "root:root 755",
		"/var/log/ftpalg": "ftpalg:ftpalg 750", "/var/lib/ftpalg": "ftpalg:ftpalg 700",
	} {
		if got := i.mode(path); got != want {
			t.Errorf("%s is %s, not %s", path, got, want)
		}
	}
	if _, err := os.Lstat(i.root + "/etc/systemd/system/multi-user.target.wants/ftpalg.service"); err != nil {
		t.Error("the service is not enabled:", err)
	}
	if _, err := os.Lstat(i.root + "/etc/systemd/system/sockets.target.wants"); err == nil {
		t.Error("a socket is enabled, without anybody's wish")
	}
	if said := i.run("ftpalg", "version"); !strings.HasPrefix(said, "ftpalg 1.0.0 (go") {
		t.Errorf("the version is %s", said)
	}
	i.run("bash", "-n", "/usr/share/bash-completion/completions/ftpalg")
	for _, file := range []string{dashboardFile, alertsFile} {
		if got := readAll(i.root + "/usr/share/doc/ftpalg/examples/grafana/" + filepath.Base(file)); len(got) == 0 || string(got) != string(readAll(file)) {
			t.Errorf("the package's %s has %d bytes", filepath.Base(file), len(got))
		}
	}

	// As it is delivered, it runs, and is there for nobody else.
	g := i.serve("as-delivered")
	if line := g.await("msg=listening"); strings.Count(g.log(), "msg=listening") != 1 || !strings.Contains(line, "address=127.0.0.1:2121") {
		t.Errorf("it listens elsewhere: %s", line)
	}
	for _, f := range families {
		ctx, cancel := context.WithTimeout(t.Context(), 2*time.Second)
		if c, err := i.Client.Dial(ctx, port(clientGateway, f, 2121)); err == nil {
			t.Errorf("a stranger gets through to %v", c.RemoteAddr())
			c.Close()
		}
		cancel()
	}
	// Root sees what it does at once, group ftpalg sees it too, and nobody else; of them root alone orders.
	g.await("msg=administration")
	i.run("ftpalg", "loglevel", "info")
	for _, who := range []struct{ user, group, command, says string }{
		{"root", "root", "sessions", "WHAT MOVES"}, {"nobody", "ftpalg", "stats", "serving"},
		{"nobody", "ftpalg", "drain", "admin.writers"}, {"nobody", "nogroup", "stats", "closed to this user"},
	} {
		said, _ := i.command(t.Context(), "setpriv", "--reuid="+who.user, "--regid="+who.group, "--clear-groups", "ftpalg", who.command).CombinedOutput()
		if !strings.Contains(string(said), who.says) {
			t.Errorf("%s of group %s is told by ftpalg %s: %.300s", who.user, who.group, who.command, said)
		}
	}
	g.Stop()
	g.checkClean()

	// Configured as a firewall, it carries files.
	chapter, configuration, _ := readmeFirewall(t)
	configuration += modest
	for name, text := range map[string]string{"ftpalg.yaml": configuration, "authority.key": "a key"} {
		if err := os.WriteFile(filepath.Join(i.root, "etc/ftpalg", name), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	i.run("ftpalg", "check", "/etc/ftpalg/ftpalg.yaml")
	i.DropForward()
	if err := os.WriteFile(filepath.Join(s.Home, "file"), []byte("hello"), 0o644); err != nil {
		t.Fatal(err)
	}
	at := s.AddrPort(v4)
	carries := func(k *talk) {
		t.Helper()
		if reply, content := i.fetch(t, k, at, "RETR file"); reply[:3] != "226" || content != "hello" {
			t.Errorf("RETR has %s, %q", reply, content)
		}
	}
	old := i.serve("old")
	k := i.logIn(t, at)
	carries(k)
	for _, c := range []struct{ command, says string }{
		{"ftpalg sessions", "idle"}, {"ftpalg stats", "transfers_total{"}, {"tail -n 1 /var/log/ftpalg/audit.jsonl", `"path":"`},
	} {
		if !strings.Contains(chapter, "\n    "+c.command+"\n") {
			t.Errorf("README does not have %s", c.command)
		}
		if said := i.run("sh", "-c", c.command); !strings.Contains(said, c.says) {
			t.Errorf("%s: %.300s", c.command, said)
		}
	}
	if all := i.scrape(t, netip.MustParseAddrPort("127.0.0.1:9721")); count(all, "ftpalg_transfers_total", `outcome="whole"`) != 1 {
		t.Error("the metrics do not have that transfer")
	}

	// Upgraded: without systemd nobody tells the service of it, and it goes on.
	i.dpkg("-i", i.give(second))
	carries(k)
	k.ask("QUIT", "221")
	old.Stop()
	old.checkClean()
	if got := string(readAll(i.root + "/etc/ftpalg/ftpalg.yaml")); got != configuration {
		t.Errorf("the configuration has become %s", got)
	}
	if got := i.mode("/etc/ftpalg/ftpalg.yaml"); got != "root:ftpalg 640" {
		t.Errorf("the configuration has become %s", got)
	}
	if !strings.Contains(string(readAll(i.root+"/etc/ftpalg/ftpalg.yaml.dpkg-dist")), "# changed") {
		t.Error("the new package's configuration is not beside it")
	}
	if !strings.Contains(string(readAll(i.root+"/etc/logrotate.d/ftpalg")), "# changed") {
		t.Error("what nobody has changed is not the new package's")
	}
	if said := i.run("ftpalg", "version"); !strings.HasPrefix(said, "ftpalg 1.1.0 (go") {
		t.Errorf("the version is %s", said)
	}
	upgraded := i.serve("upgraded")
	k = i.logIn(t, at)
	carries(k)
	k.ask("QUIT", "221")
	upgraded.Stop()
	upgraded.checkClean()
	if events := of(readAudit(t, i.root+"/var/log/ftpalg/audit.jsonl"), audit.Transfer); len(events) != 3 {
		t.Errorf("%d transfers are recorded", len(events))
	}
	if got := i.mode("/var/log/ftpalg/audit.jsonl"); !strings.HasPrefix(got, "ftpalg:ftpalg 6") {
		t.Errorf("the audit is %s", got)
	}

	// Removed: what was made remains; what was done to the kernel does not.
	i.dpkg("-r", "ftpalg")
	for _, path := range []string{"/etc/ftpalg/ftpalg.yaml", "/etc/ftpalg/authority.key", "/var/log/ftpalg/audit.jsonl", "/var/lib/ftpalg"} {
		if _, err := os.Stat(i.root + path); err != nil {
			t.Error("removed too:", err)
		}
	}
	if tables := i.Firewall.must("nft", "list", "tables"); strings.Contains(tables, "ftpalg") {
		t.Errorf("the rules are still there: %s", tables)
	}

	// Purged: what was not the package's is left, and nothing else.
	if said := i.dpkg("-P", "ftpalg"); !strings.Contains(said, "/etc/ftpalg was not the package's") {
		t.Errorf("it does not tell what it leaves: %s", said)
	}
	left := slices.DeleteFunc(i.paths(), func(path string) bool { return slices.Contains(before, path) })
	if want := []string{"/etc/ftpalg", "/etc/ftpalg/authority.key"}; !slices.Equal(slices.Sorted(slices.Values(left)), want) {
		t.Errorf("%q is left", left)
	}
}
