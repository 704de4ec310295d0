package control

import (
	slash "path"
	"strings"
	"unicode/utf8"

	"ftpalg/control/wire"
)

// What a command does to which path is not as plain as its argument looks. Servers differ in what they make of one, and whoever
// wants to get around a rule looks for a spelling that the rule's reader and the server read differently. So a command has all
// the acts that some server may take it for, and a Policy judges each of them.

// reading is what it takes to read arguments: where the session is, and what it has begun.
type reading struct {
	cwd  string // absolute and clean; empty: unknown
	from Path   // of the RNFR or SITE CPFR before; NoPath: none
	acts []Act
}

// add adds an act, if it is not there already.
func (r *reading) add(c Class, p Path) {
	a := Act{c, p}
	for _, b := range r.acts {
		if a == b {
			return
		}
	}
	r.acts = append(r.acts, a)
}

// file adds what a command does to the file or directory that an argument names, in each way to read that.
func (r *reading) file(c Class, arg string, e Extent) {
	p := r.resolve(arg)
	if p.Extent == OnePath {
		p.Extent = e
	}
	r.add(c, p)
	l := r.loosely(arg)
	if l.Extent == OnePath {
		l.Extent = e
	}
	r.add(c, l)
	if ambiguous(arg) {
		r.add(c, Path{Extent: Unknown})
	}
}

// resolve reads an argument as a server does that follows the letter (RFC 959 §2.2, and the path names of POSIX).
func (r *reading) resolve(arg string) Path {
	switch {
	case strings.HasPrefix(arg, "~"):
		return Path{Extent: Unknown} // somebody's home directory
	case strings.HasPrefix(arg, "/"):
	case r.cwd == "":
		return Path{Extent: Unknown}
	default:
		arg = r.cwd + "/" + arg
	}
	return Path{Text: slash.Clean(arg), Extent: OnePath} // no ".." leads out of "/"
}

// loosely reads an argument as other servers do, Windows' foremost: \ is /, parts have no blanks and dots at their ends, what
// follows a colon is a stream of the file; and quotes around the whole are not part of it.
func (r *reading) loosely(arg string) Path {
	unknown := Path{Extent: Unknown, Loose: true}
	arg = strings.Trim(arg, " \t\v\f")
	if len(arg) >= 2 && arg[0] == '"' && arg[len(arg)-1] == '"' {
		arg = strings.Trim(arg[1:len(arg)-1], " \t\v\f")
	}
	parts := strings.Split(strings.ReplaceAll(arg, `\`, "/"), "/")
	for i, p := range parts {
		if p == "" || p == "." || p == ".." {
			continue
		}
		p, _, stream := strings.Cut(p, ":")
		if stream && len(p) <= 1 {
			return unknown // C: and its like
		}
		parts[i] = strings.TrimRight(p, " .")
		if parts[i] == "" || short(parts[i]) {
			return unknown // "..." has meant "../.."
		}
	}
	p := r.resolve(strings.Join(parts, "/"))
	p.Loose = true
	return p
}

// short reports a name that may be Windows' other one for a file, of eight characters at most: SECRET~1 is secret-plans.
func short(name string) bool {
	base, _, _ := strings.Cut(name, ".")
	i := strings.LastIndexByte(base, '~')
	return i >= 0 && len(base) <= 8 && i+1 < len(base) && strings.Trim(base[i+1:], "0123456789") == ""
}

// ambiguous reports an argument of which nobody but the server can tell what it names: "link/.." is wherever the link leads,
// and up from there; and an overlong form of UTF-8 may be read as the character that it hides, "../" foremost (CVE-2000-0884).
func ambiguous(arg string) bool {
	named := false
	for p := range strings.SplitSeq(strings.ReplaceAll(arg, `\`, "/"), "/") {
		switch p {
		case "", ".":
		case "..":
			if named {
				return true
			}
		default:
			named = true
		}
	}
	if utf8.ValidString(arg) {
		return false
	}
	for i := 0; i+1 < len(arg); i++ {
		if b, next := arg[i], arg[i+1]; (b == 0xC0 || b == 0xC1 || b == 0xE0 && next < 0xA0 || b == 0xF0 && next < 0x90) && next&0xC0 == 0x80 {
			return true
		}
	}
	return false
}

// list adds what LIST, NLST, STAT and their younger kin do: their argument may have options, and be a pattern.
func (r *reading) list(arg string) {
	r.names(arg, OnePath)
	extent := OnePath
	rest := arg
	for strings.HasPrefix(strings.TrimLeft(rest, " "), "-") {
		var option string
		option, rest, _ = strings.Cut(strings.TrimLeft(rest, " "), " ")
		if strings.Contains(option, "R") {
			extent = Tree // and all below
		}
	}
	if rest != arg {
		r.names(rest, extent)
	}
}

// names adds the listing of what an argument of LIST names, which may be a pattern.
func (r *reading) names(arg string, e Extent) {
	if !strings.ContainsAny(arg, "*?[{") {
		r.file(List, strings.TrimLeft(arg, " "), e)
		return
	}
	if strings.Contains(arg, "{") || e == Tree {
		r.add(List, Path{Extent: Unknown})
	}
	// A pattern is one of names, and matches no "..".
	r.file(List, strings.TrimLeft(arg, " "), Glob)
}

// site adds what a SITE does. What is not known may do anything.
func (r *reading) site(arg string) {
	sub, rest, _ := strings.Cut(arg, " ")
	rest = strings.TrimLeft(rest, " ")
	switch strings.ToUpper(sub) {
	case "HELP":
		r.add(Access, Path{})
	case "IDLE", "UMASK", "WHO", "NOOP", "ZONE":
		r.add(Modify, Path{})
	case "CHMOD", "CHGRP", "CHOWN": // MODE PATH
		if _, file, ok := strings.Cut(rest, " "); ok {
			r.file(Modify, strings.TrimLeft(file, " "), OnePath)
			return
		}
		r.add(Modify, Path{Extent: Unknown})
	case "MKDIR", "RMDIR":
		r.file(Modify, rest, OnePath)
	case "CPFR": // mod_copy (CVE-2015-3306): what is copied is read, with all that is below
		r.file(Read, rest, Tree)
	case "CPTO":
		r.file(Write, rest, Tree)
		r.file(Modify, rest, Tree)
	default:
		r.add(Modify, Path{Extent: Unknown})
	}
}

// stamped adds what a command does whose argument is a time, or facts, and a path behind the first blank (draft-somers-ftp-mfxx).
func (r *reading) stamped(arg string) {
	if _, file, ok := strings.Cut(arg, " "); ok {
		r.file(Modify, file, OnePath)
		return
	}
	r.add(Modify, Path{Extent: Unknown})
}

// sum adds what commands do that ask for a file's digest: the path may be in quotes, with numbers behind it.
func (r *reading) sum(arg string) {
	r.file(Read, arg, OnePath)
	if name, _, ok := strings.Cut(strings.TrimPrefix(arg, `"`), `"`); ok && strings.HasPrefix(arg, `"`) {
		r.file(Read, name, OnePath)
	}
	for {
		cut := strings.TrimRight(strings.TrimRight(strings.TrimRight(arg, " "), "0123456789"), " ")
		if cut == arg || cut == "" || !strings.HasPrefix(arg[len(cut):], " ") {
			return
		}
		arg = cut
		r.file(Read, arg, OnePath)
	}
}

// actsOf is what a command may do.
func (r *reading) actsOf(cmd wire.Command) []Act {
	v, known := verbs[cmd.Verb]
	arg := cmd.Arg
	switch cmd.Verb {
	case "LIST", "NLST", "MLSD", "MLST": // ftpserverlib knows options of MLSD
		r.list(arg)
	case "STAT":
		if arg == "" {
			r.add(Access, Path{}) // of the session
		} else {
			r.list(arg)
		}
	case "CDUP", "XCUP":
		r.file(Access, "..", OnePath)
	case "STOU":
		if arg != "" {
			r.file(Write, arg, OnePath)
		}
		r.file(Write, slash.Dir(arg)+"/*", Glob) // the server chooses the name
	case "RNFR":
		// Whoever moves a thing takes it, from where rules protect it to where they do not.
		r.file(Modify, arg, Tree)
		r.file(Read, arg, Tree)
	case "RNTO":
		r.file(Modify, arg, Tree)
		r.file(Write, arg, Tree)
		if r.from.Extent != NoPath {
			r.add(Modify, r.from)
		}
	case "MDTM":
		r.file(List, arg, OnePath)
		if stamp, file, ok := strings.Cut(arg, " "); ok && strings.Trim(stamp, "0123456789.") == "" {
			r.file(Modify, file, OnePath) // some set the time so
		}
	case "MFMT", "MFCT", "MFF":
		r.stamped(arg)
	case "XCRC", "XMD5", "MD5", "XSHA", "XSHA1", "XSHA256", "XSHA512", "HASH":
		r.sum(arg)
	case "SITE":
		r.site(arg)
	case "PRET":
		verb, rest, _ := strings.Cut(arg, " ")
		inner := wire.NewCommand(strings.ToUpper(verb), rest)
		if _, ok := verbs[inner.Verb]; ok && inner.Verb != "PRET" {
			return r.actsOf(inner)
		}
		r.add(v.class, Path{})
	case "SMNT":
		r.add(Access, Path{Extent: Unknown})
	default:
		switch {
		case !known:
			r.add(Modify, Path{Extent: Unknown})
		case v.argument == path:
			r.file(v.class, arg, OnePath)
		default:
			r.add(v.class, Path{})
		}
	}
	return r.acts
}

// directoryOf is the directory that a server's reply tells of: 257 to PWD, and what many say to CWD and CDUP. It is empty if
// there is none, or more than one can be read into it.
func directoryOf(code int, text string) string {
	if _, dir, ok := strings.Cut(text, "urrent directory is /"); ok { // Pure-FTPd
		if strings.ContainsRune(text, '"') {
			return ""
		}
		return slash.Clean("/" + dir)
	}
	begin := strings.IndexByte(text, '"')
	if begin < 0 || code == 257 && begin > 0 {
		return ""
	}
	dir, rest, ok := unquote(text[begin:])
	if !ok || !strings.HasPrefix(dir, "/") || strings.ContainsRune(rest, '"') || rest != "" && rest[0] != ' ' && rest[0] != '.' {
		return ""
	}
	return slash.Clean(dir)
}

// unquote takes a quoted string off the beginning; a quote in it is doubled (RFC 959, Appendix II).
func unquote(s string) (in, rest string, ok bool) {
	var b strings.Builder
	for i := 1; i < len(s); i++ {
		switch {
		case s[i] != '"':
			b.WriteByte(s[i])
		case i+1 < len(s) && s[i+1] == '"':
			b.WriteByte('"')
			i++
		default:
			return b.String(), s[i+1:], true
		}
	}
	return "", "", false
}
