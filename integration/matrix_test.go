//go:build linux

package integration

import (
	"context"
	"fmt"
	"io/fs"
	"maps"
	"net/netip"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// A target is a way for clients to reach servers: what is between them, and how a client gets through it.
type target struct {
	Name string // in names of subtests

	// Dial is where a client connects to in order to reach a server. nil means the server itself.
	Dial func(*server, family) netip.AddrPort

	// Login is the user name that it gives. nil means ftpUser.
	Login func(*server, family) string

	// Clients are those that take part. nil means all.
	Clients names

	// Families and Verbs are those that take part. nil means all.
	Families []family
	Verbs    names

	// TLS is how sessions are protected. nil means not at all.
	TLS *protection

	// Direct says that there is no gateway: client and server must know each other's TLS.
	Direct bool
}

// A job is one session of a client with a server.
type job struct {
	in             *namespace
	addr           netip.AddrPort // to connect to
	name           string         // what the client calls that address, if not empty
	tls            *protection
	user, password string
	verb           string // PORT, PASV, EPRT or EPSV: the only one to use
	dir            string // on the server; the client's names are relative to it
	scratch        string // a directory of the client's own: its home and the place for its files
	steps          []step
}

// verbs are the ways to arrange for a data connection that a family has.
var verbs = [2][]string{v4: {"PASV", "EPSV", "PORT", "EPRT"}, v6: {"EPSV", "EPRT"}}

// runMatrix lets every client work on every server, in all the ways that both know, and compares what is then on the disks
// of both. Subtests are named client/server/target/verb/family.
func runMatrix(t *testing.T, l *lab, servers []*server, via target) {
	samples := l.payload()
	for _, c := range clients {
		if !via.Clients.include(c.name) {
			continue
		}
		for _, s := range servers {
			for _, f := range families {
				for _, verb := range verbs[f] {
					if via.Families != nil && !slices.Contains(via.Families, f) || !via.Verbs.include(verb) {
						continue
					}
					pair := pairing{c.name, s.Name, verb, f, via}
					if !pair.can(works) {
						continue
					}
					name := fmt.Sprintf("%s/%s/%s/%s/%s", c.name, s.Name, via.Name, strings.ToLower(verb), f)
					t.Run(name, func(t *testing.T) {
						t.Parallel()
						need(t, c.needs...)
						if via.TLS != nil {
							c.needTLS(t)
						}
						if s.missing != "" {
							lack(t, s.missing)
						}
						runJob(t, l, c, s, f, verb, via, samples)
					})
				}
			}
		}
	}
	t.Cleanup(func() {
		for _, s := range servers {
			if s.missing == "" && !t.Failed() {
				compare(t, s.Name+" in the end", s.Home, map[string]string{})
			}
		}
	})
}

func runJob(t *testing.T, l *lab, c client, s *server, f family, verb string, via target, files *payload) {
	pair := pairing{c.name, s.Name, verb, f, via}
	dir := fmt.Sprintf("%s-%s-%s-%s", c.name, via.Name, strings.ToLower(verb), f)
	scratch := filepath.Join(l.Dir, "client-"+s.Name+"-"+dir)
	home := filepath.Join(s.Home, dir)
	p := newProgram(files.dir, filepath.Join(scratch, "got"), func(feature feature) bool { return pair.can(feature) })
	defer os.RemoveAll(scratch)
	defer os.RemoveAll(home)
	p.prepare(t, files.dir, home, s.uid)

	j := &job{
		in: l.Client, addr: door{s, f, implicit(via)}.addrPort(), tls: via.TLS,
		user: ftpUser, password: ftpPassword, verb: verb, dir: dir, scratch: scratch, steps: p.steps,
	}
	if via.Dial != nil {
		j.addr = via.Dial(s, f)
	}
	if via.TLS != nil && via.TLS.Named {
		j.name = hostName(s.Name)
	}
	if via.Login != nil {
		j.user = via.Login(s, f)
	}
	ctx, cancel := context.WithTimeout(t.Context(), hang)
	defer cancel()
	said, err := c.run(ctx, j)
	if err != nil {
		t.Errorf("%s: %v", c.name, err)
	}
	if used := verbsIn(said); !slices.Equal(used, []string{verb}) {
		t.Errorf("%s used %q for its data connections instead of %s", c.name, used, verb)
	}
	if via.TLS != nil && !strings.Contains(string(said), "PROT "+via.TLS.level()) {
		t.Errorf("%s does not say PROT %s", c.name, via.TLS.level())
	}
	compare(t, c.name, p.scratch, files.digestsOf(p.local))
	compare(t, s.Name, home, files.digestsOf(p.remote))
	if t.Failed() {
		keep(t, "client.log", said)
	}
}

// prepare puts in place what the client and the server should find.
func (p *program) prepare(t *testing.T, payload, home string, uid int) {
	t.Helper()
	for _, dir := range []string{p.scratch, home} {
		if err := os.MkdirAll(dir, 0o755); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.Chown(home, uid, uid); err != nil {
		t.Fatal(err)
	}
	for name, content := range p.seeds {
		if err := os.Link(filepath.Join(payload, content), filepath.Join(home, name)); err != nil {
			t.Fatal(err)
		}
	}
	for _, s := range p.steps {
		if s.op == "reget" {
			half, err := os.ReadFile(filepath.Join(payload, "half.bin"))
			if err == nil {
				err = os.WriteFile(s.local, half, 0o644)
			}
			if err != nil {
				t.Fatal(err)
			}
		}
	}
}

// saysCommand finds the data verbs among the commands in a client's account of a session, in any of the clients' styles.
var saysCommand = regexp.MustCompile(`(?m)^(?:> |---> |--> |\*cmd\* '|.*>>> |(?:.* )?Cmd: +|)(PORT|PASV|EPRT|EPSV|LPRT|LPSV)(?:[ '\r]|$)`)

// verbsIn is the set of data verbs that a client has used.
func verbsIn(said []byte) []string {
	used := map[string]bool{}
	for _, match := range saysCommand.FindAllSubmatch(said, -1) {
		used[string(match[1])] = true
	}
	return slices.Sorted(maps.Keys(used))
}

// compare compares the files in a directory with the digests of those that should be there.
func compare(t *testing.T, whose, dir string, want map[string]string) {
	t.Helper()
	got := map[string]string{}
	err := filepath.WalkDir(dir, func(path string, entry fs.DirEntry, err error) error {
		if err != nil || path == dir {
			return err
		}
		name, _ := filepath.Rel(dir, path)
		switch {
		case want[name] == listing:
			got[name] = listed(path)
		case entry.Type().IsRegular():
			got[name] = digest(path)
		case !entry.IsDir() || !hasChild(want, name):
			got[name] = entry.Type().String()
		}
		return nil
	})
	if err != nil {
		t.Error(err)
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("the files of %s (- wanted, + found):\n%s", whose, diff)
	}
}

func hasChild(files map[string]string, dir string) bool {
	for name := range files {
		if strings.HasPrefix(name, dir+"/") {
			return true
		}
	}
	return false
}

// listed returns listing if a file has a line for each of the samples.
func listed(path string) string {
	text, err := os.ReadFile(path)
	if err != nil {
		return err.Error()
	}
	for _, sample := range samples {
		if !regexp.MustCompile(`(?m)(^|[ /])` + regexp.QuoteMeta(sample) + `\r?$`).Match(text) {
			return fmt.Sprintf("%s is not in it:\n%s", sample, text)
		}
	}
	return listing
}
