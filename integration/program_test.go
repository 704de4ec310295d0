//go:build linux

package integration

import (
	"fmt"
	"path"
)

// A feature is something that not every client and server can do.
type feature string

const (
	canUpload   feature = "upload"
	canDownload feature = "download"
	canResume   feature = "resume"   // REST and RETR
	canReupload feature = "reupload" // REST and STOR
	canAppend   feature = "append"   // APPE
	canRename   feature = "rename"
	canRemove   feature = "remove"
	canMkdir    feature = "mkdir"
	canList     feature = "list" // LIST
	canNlst     feature = "nlst" // NLST
	canMlsd     feature = "mlsd" // MLSD
	canSpaces   feature = "spaces in names"
	canUTF8     feature = "UTF-8 in names"
	canIAC      feature = "0xFF in names" // Telnet's IAC, to be sent twice (RFC 854); not all do
	canAbort    feature = "abort"         // ABOR during a download
	canHangUp   feature = "hangup"        // the data connection closed by the client during a download
	canMirror   feature = "mirror"        // many small files
)

// A step is one thing for a client to do. Remote paths are relative to the job's directory, local ones absolute.
type step struct {
	op            string
	remote, local string
	to            string // rename's new name
}

// A program is what a client is to do in one session, and what should come of it.
type program struct {
	steps []step

	// seeds are the files that the client finds in its directory on the server, remote and local the ones that should be
	// there at the end; each with its content, which is a file of payload, or listing.
	seeds, remote, local map[string]string

	scratch string // local directory
	can     func(feature) bool
}

// samples are files of payload.
var samples = []string{"zero.bin", "one.bin", "mega.bin", "huge.bin"}

// oddNames are unusual, but legal.
var oddNames = []struct {
	feature
	name string
}{
	{canSpaces, " with  spaces .bin"},
	{canUTF8, "grüße-漢字.bin"},
	{canIAC, "iac-\xff-\xff\xff.bin"},
}

// listing stands for the content of a listing: it must mention the samples.
const listing = "a listing"

// newProgram is what a client does that can do some things. Local files are in payload, and go to scratch.
func newProgram(payload, scratch string, can func(feature) bool) *program {
	p := &program{
		scratch: scratch, can: can,
		seeds: map[string]string{}, remote: map[string]string{}, local: map[string]string{},
	}
	for _, sample := range samples {
		p.seed(sample, sample)
	}
	p.list()
	for _, sample := range samples {
		p.get(canDownload, sample, sample)
		p.put(canUpload, path.Join(payload, sample), "up-"+sample)
	}
	if can(canResume) {
		p.do(step{op: "reget", remote: "mega.bin", local: p.give("resumed.bin", "mega.bin")})
	}
	if can(canReupload) {
		p.put(canReupload, path.Join(payload, "half.bin"), "resumed.bin")
		p.do(step{op: "reput", local: path.Join(payload, "mega.bin"), remote: "resumed.bin"})
		p.remote["resumed.bin"] = "mega.bin"
	}
	if can(canAppend) {
		p.put(canAppend, path.Join(payload, "half.bin"), "grown.bin")
		p.do(step{op: "append", local: path.Join(payload, "rest.bin"), remote: "grown.bin"})
		p.remote["grown.bin"] = "mega.bin"
	}
	if can(canRename) {
		p.put(canRename, path.Join(payload, "one.bin"), "before.bin")
		p.do(step{op: "rename", remote: "before.bin", to: "after.bin"})
		p.remote["after.bin"] = p.remote["before.bin"]
		delete(p.remote, "before.bin")
	}
	if can(canRemove) {
		p.put(canRemove, path.Join(payload, "one.bin"), "doomed.bin")
		p.do(step{op: "delete", remote: "doomed.bin"})
		delete(p.remote, "doomed.bin")
	}
	if can(canMkdir) {
		p.do(step{op: "mkdir", remote: "sub"})
		p.put(canMkdir, path.Join(payload, "one.bin"), "sub/inner.bin")
		p.get(canMkdir, "sub/inner.bin", "inner.bin")
		p.do(step{op: "mkdir", remote: "empty"})
		p.do(step{op: "rmdir", remote: "empty"})
	}
	for _, n := range oddNames {
		if can(n.feature) {
			p.seed(n.name, "one.bin")
			p.get(n.feature, n.name, fmt.Sprintf("%x.bin", n.name))
			p.put(n.feature, path.Join(payload, "one.bin"), "up-"+n.name)
		}
	}
	for _, interruption := range []feature{canHangUp, canAbort} {
		if can(interruption) {
			p.do(step{op: string(interruption), remote: "huge.bin"})
			p.get(interruption, "mega.bin", "after-"+string(interruption)+".bin")
		}
	}
	if can(canMirror) {
		p.mirror(payload)
	}
	return p
}

func (p *program) do(s step) { p.steps = append(p.steps, s) }

// give is the local path of a file that should come to be.
func (p *program) give(name, content string) string {
	p.local[name] = content
	return path.Join(p.scratch, name)
}

// seed puts a file on the server before the client comes.
func (p *program) seed(name, content string) {
	p.seeds[name], p.remote[name] = content, content
}

// get downloads a file for the sake of a feature.
func (p *program) get(why feature, remote, name string) {
	if p.can(why) && p.can(canDownload) {
		p.do(step{op: "get", remote: remote, local: p.give(name, p.remote[remote])})
	}
}

// put uploads a file for the sake of a feature.
func (p *program) put(why feature, local, remote string) {
	if p.can(why) && p.can(canUpload) {
		p.do(step{op: "put", local: local, remote: remote})
		p.remote[remote] = path.Base(local)
	}
}

func (p *program) list() {
	for _, kind := range []feature{canList, canNlst, canMlsd} {
		if p.can(kind) {
			p.do(step{op: string(kind), remote: ".", local: p.give(string(kind)+".txt", listing)})
		}
	}
}

// many is the number of files that are mirrored.
const many = 200

func (p *program) mirror(payload string) {
	p.do(step{op: "mirror-up", local: path.Join(payload, "many"), remote: "many"})
	p.do(step{op: "mirror-down", remote: "many", local: path.Join(p.scratch, "many")})
	for i := range many {
		name := fmt.Sprintf("many/%03d", i)
		p.remote[name], p.local[name] = name, name
	}
}
