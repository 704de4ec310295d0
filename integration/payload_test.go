//go:build linux

package integration

import (
	"crypto/sha256"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"path/filepath"
)

// A payload is the files that clients and servers exchange.
type payload struct {
	dir     string
	digests map[string]string // by name
}

// payload makes the files of a payload.
func (l *lab) payload() *payload {
	l.t.Helper()
	dir, err := os.MkdirTemp(l.Dir, "payload")
	if err == nil {
		err = os.Chmod(dir, 0o755)
	}
	if err == nil {
		err = os.Mkdir(filepath.Join(dir, "many"), 0o755)
	}
	if err != nil {
		l.t.Fatal(err)
	}
	random := rand.NewChaCha8([32]byte{1}) // always the same; not compressible, and with all bytes in it
	huge := make([]byte, 16<<20)
	random.Read(huge)
	mega := huge[1<<20 : 2<<20]
	files := map[string][]byte{
		"zero.bin": nil, "one.bin": {0xFF}, "mega.bin": mega, "huge.bin": huge,
		"half.bin": mega[:half], "rest.bin": mega[half:],
	}
	for i := range many {
		files[fmt.Sprintf("many/%03d", i)] = huge[i*1000 : i*1000+i*7]
	}
	p := &payload{dir: dir, digests: map[string]string{}}
	for name, content := range files {
		path := filepath.Join(dir, name)
		if err := os.WriteFile(path, content, 0o644); err != nil {
			l.t.Fatal(err)
		}
		p.digests[name] = digest(path)
	}
	return p
}

// half is where transfers of mega.bin are resumed. It is about its half, and odd.
const half = 500_001

// digestsOf are the digests of files whose contents are named after the payload's.
func (p *payload) digestsOf(files map[string]string) map[string]string {
	digests := map[string]string{}
	for name, content := range files {
		if content == listing {
			digests[name] = listing
		} else {
			digests[name] = p.digests[content]
		}
	}
	return digests
}

// digest is a file's size and SHA-256.
func digest(path string) string {
	file, err := os.Open(path)
	if err != nil {
		return err.Error()
	}
	defer file.Close()
	hash := sha256.New()
	size, err := io.Copy(hash, file)
	if err != nil {
		return err.Error()
	}
	return fmt.Sprintf("%d bytes, %x", size, hash.Sum(nil))
}
