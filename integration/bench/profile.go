//go:build linux

package main

import (
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
)

// profileFile is where the profile of ftpalg's processor time is written, if anywhere: what `go build` optimises it by, as
// cmd/ftpalg/default.pgo.
var profileFile string

// profiled is a source file that is laid over the program while it is built: it has the program write what it does to files, a
// few seconds in each, as it is not told when it will be ended.
const profiled = `package main

import (
	"fmt"
	"os"
	"runtime/pprof"
	"time"
)

func init() {
	go func() {
		for n := 0; ; n++ {
			name := fmt.Sprintf("%s/%%d-%%d", os.Getpid(), n)
			f, err := os.Create(name)
			if err != nil || pprof.StartCPUProfile(f) != nil {
				return
			}
			time.Sleep(3 * time.Second)
			pprof.StopCPUProfile()
			f.Close()
			os.Rename(name, name+".pprof")
		}
	}()
}
`

// profileDir is the directory for those files.
var profileDir string

// overlaid returns the arguments by which the program is built to profile itself, with its files in a directory.
func overlaid(dir string) ([]string, error) {
	source, overlay := filepath.Join(dir, "profiled.go"), filepath.Join(dir, "overlay.json")
	if err := os.WriteFile(source, fmt.Appendf(nil, profiled, dir), 0o644); err != nil {
		return nil, err
	}
	at, err := filepath.Abs("cmd/ftpalg/profiled.go")
	if err != nil {
		return nil, err
	}
	text, err := json.Marshal(map[string]map[string]string{"Replace": {at: source}})
	if err != nil {
		return nil, err
	}
	if err := os.WriteFile(overlay, text, 0o644); err != nil {
		return nil, err
	}
	profileDir = dir
	return []string{"-overlay", overlay}, nil
}

// writeProfile merges what was written into one file.
func writeProfile() error {
	parts, err := filepath.Glob(filepath.Join(profileDir, "*.pprof"))
	if err != nil {
		return err
	}
	if len(parts) == 0 {
		return fmt.Errorf("no profile of ftpalg was written: measure some of its ways, for some seconds")
	}
	return run("go", append([]string{"tool", "pprof", "-proto", "-output", profileFile}, parts...)...)
}
