package integration

import (
	"go/parser"
	"go/token"
	"io/fs"
	"maps"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
)

// rooms are the packages of the project, by their path in it, and what each may import of it. Imports go downwards: a room
// that is not here, or an import that is not, is an arrow that nobody has decided on (design: "Rooms").
var rooms = map[string][]string{
	"cmd/ftpalg":          {"config", "control", "proxy", "proxy/...", "tlsmitm"},
	"config":              {},
	"proxy":               {"config", "control", "control/wire", "dataconn", "tlsmitm", "proxy/..."},
	"proxy/confine":       {},
	"proxy/firewall":      {},
	"proxy/accounts":      {},
	"proxy/audit":         {},
	"proxy/admin":         {"config", "control", "dataconn", "tlsmitm"},
	"proxy/policy":        {"config", "control", "dataconn"},
	"proxy/quota":         {"config"},
	"proxy/web":           {"control/wire"}, // a session is to it what it is to its client
	"control":             {"control/wire", "dataconn", "tlsmitm"},
	"control/wire":        {},
	"dataconn":            {},
	"tlsmitm":             {},
	"integration":         {"..."}, // it has nothing but tests
	"integration/ftptest": {},
	"integration/bench":   {"tlsmitm"}, // an authority for the gateway
}

// outside are the packages of others that have one place, and that place. A place that ends in /... has all below it.
var outside = []struct {
	prefix string
	places []string
	why    string
}{
	{"github.com/spf13/viper", []string{"config"}, "the file is config's alone"},
	{"github.com/go-viper/", []string{"config"}, "the file is config's alone"},
	{"go.yaml.in/", []string{"config"}, "the file is config's alone"},
	{"github.com/spf13/cobra", []string{"cmd/ftpalg"}, "the command line is the program's alone"},
	{"github.com/go-ldap/", []string{directory}, "the directory is accounts' alone"},
	{"github.com/go-crypt/", []string{"proxy/accounts"}, "hashes of passwords are accounts' alone"},
	{"golang.org/x/crypto", []string{"proxy/accounts"}, "hashes of passwords are accounts' alone"},
	{"github.com/bmatcuk/doublestar", []string{"config", "proxy/policy"}, "rules speak of paths: config checks them, policy compares them"},
	{"github.com/expr-lang/", []string{"proxy/policy"}, "expressions are the rules' alone"},
	{"golang.org/x/text", []string{"proxy/policy"}, "names that are written in two ways are the rules' business alone"},
	{"github.com/prometheus/", []string{"proxy/admin"}, "what is counted is the administrator's business"},
	{"go.etcd.io/", []string{"proxy/quota"}, "the file of counts is quota's alone"},
	{"github.com/coreos/go-systemd", []string{"cmd/ftpalg"}, "who has started us is the program's business alone"},
	{"golang.org/x/term", []string{"cmd/ftpalg"}, "a terminal is the command line's alone"},
	{"github.com/landlock-lsm/", []string{"proxy/confine"}, "what is given up is confine's business alone"},
	{"golang.org/x/sys", []string{"proxy/...", demo, bench}, "system calls are proxy's alone"},
	{"github.com/google/nftables", []string{"proxy/firewall", demo}, "system calls are proxy's alone"},
	{"github.com/vishvananda/", []string{"proxy/firewall", demo, bench}, "system calls are proxy's alone"},
	{"github.com/mdlayher/", []string{"proxy/firewall"}, "system calls are proxy's alone"},
	{"syscall", []string{"proxy/...", "cmd/ftpalg", "integration/ftptest", bench}, "system calls are proxy's alone; signals and error numbers are not calls"},
	{"unsafe", []string{swift}, "nobody else needs it"},
	{"C", nil, "nobody needs it"},
	{"crypto/tls", []string{"tlsmitm", directory, demo, bench}, "a certificate is tlsmitm's alone, but for the directory's"},
	{"crypto/x509", []string{"tlsmitm", directory, demo, bench}, "a certificate is tlsmitm's alone, but for the directory's"},
	{"os/exec", []string{demo, bench}, "the gateway starts no programs"},
	{"github.com/jlaffaye/ftp", []string{demo}, "neither can be the data path"},
	{"github.com/fclairamb/", []string{demo}, "neither can be the data path"},
	{"github.com/spf13/afero", []string{demo}, "neither can be the data path"},
}

// swift makes system calls on a buffer's address, as no package does for it.
const swift = "proxy/swift_linux.go"

// directory is a TLS client of its own: no client or server of FTP has a part in that.
const directory = "proxy/accounts/ldap.go"

// demo is the place of what only `ftpalg demo` needs: files of the program that are named so. It builds a lab of its own.
const demo = "cmd/ftpalg/demo"

// bench builds a lab of its own too, and is client, server and judge in it. Nothing of it gets into the gateway.
const bench = "integration/bench"

// stdOnly are the rooms that import nothing but the standard library and each other as rooms says.
var stdOnly = []string{"control", "control/wire", "dataconn", "tlsmitm", "integration/ftptest"}

// TestImports reads the imports of every file that is no test, for every system, and holds them against the tables above.
func TestImports(t *testing.T) {
	const module = "ftpalg"
	root := moduleRoot(t)
	found := map[string]bool{}
	err := filepath.WalkDir(root, func(name string, d fs.DirEntry, err error) error {
		switch {
		case err != nil:
			return err
		case d.IsDir() && (d.Name() == "testdata" || name != root && strings.HasPrefix(d.Name(), ".")):
			return filepath.SkipDir
		case d.IsDir() || !strings.HasSuffix(name, ".go"):
			return nil
		}
		rel, err := filepath.Rel(root, name)
		if err != nil {
			return err
		}
		file := filepath.ToSlash(rel)
		room := path.Dir(file)
		found[room] = true
		allowed, known := rooms[room]
		if !known {
			t.Errorf("%s: the room %s is not in the table", file, room)
			return nil
		}
		if strings.HasSuffix(file, "_test.go") {
			return nil
		}
		parsed, err := parser.ParseFile(token.NewFileSet(), name, nil, parser.ImportsOnly)
		if err != nil {
			return err
		}
		for _, spec := range parsed.Imports {
			imported, err := strconv.Unquote(spec.Path.Value)
			if err != nil {
				return err
			}
			if ours, ok := strings.CutPrefix(imported, module+"/"); ok {
				if !slices.ContainsFunc(allowed, func(a string) bool { return within(ours, a) }) {
					t.Errorf("%s: imports %s; %s may import %v of us", file, ours, room, allowed)
				}
				continue
			}
			if first, _, _ := strings.Cut(imported, "/"); strings.Contains(first, ".") && slices.Contains(stdOnly, room) {
				t.Errorf("%s: imports %s; %s has the standard library alone", file, imported, room)
			}
			for _, o := range outside {
				if imported != o.prefix && !strings.HasPrefix(imported, strings.TrimSuffix(o.prefix, "/")+"/") {
					continue
				}
				if !slices.ContainsFunc(o.places, func(p string) bool { return within(room, p) || p == file || p == demo && strings.HasPrefix(file, demo) }) {
					t.Errorf("%s: imports %s: %s", file, imported, o.why)
				}
			}
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	// The table is no older than the project.
	for _, room := range slices.Sorted(maps.Keys(rooms)) {
		if !found[room] {
			t.Errorf("there is no room %s", room)
		}
	}
}

// within reports whether a room is a place: itself, or below it where it ends in /...
func within(room, place string) bool {
	if below, ok := strings.CutSuffix(place, "..."); ok {
		return below == "" || room == strings.TrimSuffix(below, "/") || strings.HasPrefix(room, below)
	}
	return room == place
}

// moduleRoot is the folder of go.mod.
func moduleRoot(t *testing.T) string {
	t.Helper()
	dir, err := os.Getwd()
	for err == nil {
		if _, e := os.Stat(filepath.Join(dir, "go.mod")); e == nil {
			return dir
		}
		if parent := filepath.Dir(dir); parent != dir {
			dir = parent
			continue
		}
		break
	}
	t.Fatalf("no go.mod above here: %v", err)
	return ""
}
