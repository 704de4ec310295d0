//go:build linux

package main

import (
	_ "embed"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
)

// peerSubjects are other people's proxies, from Debian's packages. Each is set up as its manual says, with what makes it
// faster for FTP: nothing is logged or cached, no names are looked up, and no limit is lower than it can be. Settings that
// were tried and left as they come, because they made no difference or a worse one, are named beside each configuration.
var peerSubjects = slices.Concat(ftpPeers, relayPeers)

//go:embed install.sh
var installPeers string

// peersDir is where the peers are unpacked; see install.sh.
func peersDir() string {
	if dir := os.Getenv("FTPALG_BENCH_PEERS"); dir != "" {
		return dir
	}
	cache := os.Getenv("XDG_CACHE_HOME")
	if cache == "" {
		cache = "/var/cache"
	}
	return filepath.Join(cache, "ftpalg-bench-peers")
}

// unpackPeers unpacks the peers unless they are there.
var unpackPeers = sync.OnceValue(func() error {
	return run("bash", "-c", installPeers, "install.sh", peersDir())
})

// A peer is an unpacked package on a firewall where nothing is forwarded: what arrives has gone through the peer's program.
type peer struct {
	*firewall
	pkg string
}

func newPeer(f *firewall, pkg string) (*peer, error) {
	if err := unpackPeers(); err != nil {
		return nil, err
	}
	return &peer{f, pkg}, f.Nft(fmt.Sprintf(statefulRules, ""))
}

// file is the path of one of the files that install.sh has unpacked, from whichever package.
func (p *peer) file(path string) string { return filepath.Join(peersDir(), path) }

// version is the package's.
func (p *peer) version() string {
	version, err := os.ReadFile(p.file("." + p.pkg))
	if err != nil {
		return p.pkg
	}
	return p.pkg + " " + strings.TrimSpace(string(version))
}

// nobody is the user as whom a peer works that does not want to be root. Debian has it everywhere by this number.
const nobody = 65534

// scratch makes a directory in Dir that nobody may write to.
func (p *peer) scratch(name string) (string, error) {
	dir := filepath.Join(p.Dir, name)
	if err := os.Mkdir(dir, 0o755); err != nil {
		return "", err
	}
	return dir, os.Chown(dir, nobody, nobody)
}
