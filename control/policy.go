package control

import (
	"net"
	"strconv"
	"strings"

	"ftpalg/control/wire"
	"ftpalg/dataconn"
)

// Policy rules on commands. Its methods are called from the goroutine of Session.Run, which waits for them.
type Policy interface {
	// Admit rules on a command before the server hears of it.
	Admit(*Request) Ruling
	// Enter is told that the server has accepted a user, before the client is. A refusal ends the session.
	Enter(user string) *Refusal
	// Begins is told of a transfer that was admitted, before the server is. A refusal is what the client is told. known, if not nil, is
	// called before bytes move, and returns when what was on its way will be known even if all ends at once.
	Begins(Transferring) (known func(), r *Refusal)
	// Paths reports whether a rule may ask for the Acts of a request. The working directory is asked for in time then: what
	// belongs together, as REST and RETR do, is not torn apart.
	Paths() bool
	// Hides reports whether a verb is denied to everybody, so that FEAT and HELP do not tell of it.
	Hides(verb string) bool
	// Watches reports whether a transfer of the session may have to be seen or slowed. It is asked when a transfer is armed,
	// which is before its file is known: the kernel must not carry it then.
	Watches() bool
}

// Request is a command that asks to be admitted. It is the Policy's for as long as Admit runs.
type Request struct {
	Verb  string // in upper case
	Sub   string // the first word of a SITE, in upper case
	Class Class  // of the verb; what the command does to which path is in Acts
	Login bool   // it is USER, PASS or ACCT
	// Early commands negotiate before anybody has logged in. Those of a Login are not among them.
	Early bool
	User  string // who has logged in, or wants to; empty: nobody has said so
	// Moves: the command moves a file or a listing, in the direction that is given.
	Moves     bool
	Direction dataconn.Direction
	Size      int64   // of the file that is to move, bytes, as SIZE or ALLO have told it; -1: nobody has
	Offset    int64   // by REST, or for APPE by SIZE, bytes; where the first byte that moves belongs
	Secured   [2]bool // by side: the control connection has TLS
	Private   [2]bool // by side: data connections have it
	// Acts are what the command would do, in every way in which a server may read it; never empty. Where Policy.Paths says that
	// paths matter it may ask the server for the working directory, if Session.AskDirectory allows that.
	Acts func() []Act
}

// Act is one thing that a command may do. Most commands have one or two; those of which servers make different things have more.
type Act struct {
	Class Class
	Path  Path
}

// Extent says what a Path stands for.
type Extent int

// The extents of paths.
const (
	NoPath  Extent = iota // the command is about no file
	OnePath               // a file or a directory
	Tree                  // the same, and all that is below it: RNFR moves that too
	Glob                  // what a shell's pattern in it matches, as LIST has it: * ? [ ]
	Unknown               // nobody can tell: a relative path in an unknown directory, ~user, an unknown SITE
)

var extentNames = [...]string{"none", "one", "tree", "glob", "unknown"}

func (e Extent) String() string { return extentNames[e] }

// Path is a path on the server, as its clients see it (RFC 959 §2.2), made absolute and clean: it begins with a slash, and has no
// empty part, no "." and no "..". Links are not followed: nobody but the server knows of them.
type Path struct {
	Text   string // empty for NoPath and Unknown
	Extent Extent
	// Loose: the text is not as the client wrote it but as a server of another kind would take it, that of Windows foremost:
	// \ is /, the parts have no blanks and dots at their ends and no :stream. It is to be compared without regard to case.
	Loose bool
}

// Ruling is what a Policy has decided.
type Ruling struct {
	Rule    string   // that decided; empty: none
	Refusal *Refusal // nil: admitted; otherwise the client is told so, and the server hears nothing
	// What follows is for commands that move a file.
	Inspector dataconn.Inspector // sees its bytes; nil: nobody does. A *Refusal by which it stops them is what the client is told.
	Pace      func(net.Conn)     // is given the connection that the bytes leave on, before they move; nil: nothing is
}

// standing is what a session knows of what its commands are about: facts of its own, of the server's words.
type standing struct {
	cwd      string // absolute and clean; empty: the server has not told it
	from     Path   // of an RNFR or SITE CPFR that was the last command, and accepted; NoPath: none
	chained  bool   // the last command was accepted, and the next belongs to it: nothing may come between
	offset   int64  // by REST
	measured string // the argument of the last SIZE
	size     int64  // its answer, or what ALLO has claimed for any file; -1: none
	image    bool   // TYPE I, or L
}

// admit asks the Policy about a command. The error is the refusal, or that of a server which was asked for its directory.
func (s *Session) admit(cmd wire.Command) (Ruling, error) {
	if s.Policy == nil {
		return Ruling{}, nil
	}
	return s.ask(cmd)
}

// ask asks the Policy that there is.
func (s *Session) ask(cmd wire.Command) (Ruling, error) {
	if cmd.Verb == "REST" && s.Policy.Paths() {
		if err := s.locate(); err != nil {
			return Ruling{}, err
		}
	}
	r := s.request(cmd)
	var acts []Act
	var lost error
	r.Acts = func() []Act {
		if acts == nil {
			if s.Policy.Paths() {
				lost = s.locate()
			}
			acts = s.read(cmd)
		}
		return acts
	}
	ruling := s.Policy.Admit(r)
	switch {
	case lost != nil:
		return ruling, lost
	case ruling.Refusal != nil:
		return ruling, ruling.Refusal
	}
	return ruling, nil
}

// request is a command as a Policy is asked about it, but for its acts.
func (s *Session) request(cmd wire.Command) *Request {
	v := verbs[cmd.Verb]
	r := &Request{
		Verb: cmd.Verb, Class: classOf(cmd.Verb), User: s.user, Size: -1, Offset: s.standing.offset, Secured: s.secured, Private: s.private,
		Login: v.action == login, Early: v.flags&early != 0 && v.action != login,
	}
	if cmd.Verb == "SITE" {
		sub, _, _ := strings.Cut(cmd.Arg, " ")
		r.Sub = strings.ToUpper(sub)
	}
	switch {
	case cmd.Verb == "USER":
		r.User = cmd.Arg
	case r.User == "":
		r.User = s.claimed
	}
	if v.action == download || v.action == upload {
		r.Moves = true
		if v.action == upload {
			r.Direction = dataconn.Upload
		}
		switch st := s.standing; {
		case st.size < 0:
		case v.action == download && st.measured == cmd.Arg, v.action == upload && st.measured == "":
			r.Size = st.size // as SIZE says what there is, and ALLO what is to come
		case cmd.Verb == "APPE" && st.measured == cmd.Arg:
			r.Offset = st.size
		}
	}
	return r
}

// read is what a command may do, as far as is known.
func (s *Session) read(cmd wire.Command) []Act {
	return (&reading{cwd: s.standing.cwd, from: s.standing.from}).actsOf(cmd)
}

// resolved is the path that a command is about, empty if it is none or unknown, or if nobody wants to know.
func (s *Session) resolved(cmd wire.Command) string {
	v := verbs[cmd.Verb]
	switch {
	case s.Observer == nil:
		return ""
	case cmd.Verb == "SITE", v.class == List && v.argument == path: // those are not as plain
		return s.read(cmd)[0].Path.Text
	case cmd.Verb == "CDUP", cmd.Verb == "XCUP":
		cmd.Arg = ".."
	case v.argument != path:
		return ""
	}
	return (&reading{cwd: s.standing.cwd}).resolve(cmd.Arg).Text
}

// locate asks the server for its working directory, unless it is known, or cannot be asked for now, or must not be.
func (s *Session) locate() error {
	if s.standing.cwd != "" || !s.AskDirectory || !s.loggedIn || s.standing.chained {
		return nil
	}
	reply, err := s.exchange(wire.NewCommand("PWD", ""))
	if err != nil {
		return err
	}
	if reply.Code == 257 {
		s.standing.cwd = directoryOf(reply.Code, reply.Text())
	}
	return nil
}

// stand keeps what a command has changed, by the last reply that the client was given.
func (s *Session) stand(cmd wire.Command) {
	st := &s.standing
	code, text := s.said.code, s.said.text
	done, chained := code/100 == 2, st.chained
	st.chained = code == 350
	switch cmd.Verb {
	case "PWD", "XPWD":
		if code == 257 {
			st.cwd = directoryOf(code, text)
		}
	case "CWD", "XCWD", "CDUP", "XCUP":
		if done {
			st.cwd, st.measured, st.size = directoryOf(code, text), "", -1
		}
	case "RNFR", "SITE":
		if code == 350 {
			st.from = s.read(cmd)[0].Path
			return
		}
		if cmd.Verb == "SITE" && done {
			st.cwd = "" // it may do anything
		}
	case "RNTO":
		if done {
			st.cwd = "" // its name may be another
		}
	case "REST":
		if n, err := strconv.ParseInt(cmd.Arg, 10, 64); err == nil && code == 350 && n >= 0 {
			st.offset = n
			return
		}
	case "SIZE":
		if n, err := strconv.ParseInt(strings.TrimSpace(text), 10, 64); err == nil && code == 213 && n >= 0 {
			st.measured, st.size = cmd.Arg, n
		}
	case "ALLO":
		first, _, _ := strings.Cut(cmd.Arg, " ")
		if n, err := strconv.ParseInt(first, 10, 64); err == nil && done && n >= 0 {
			st.measured, st.size = "", n
		}
		st.chained = chained // some say it between REST and STOR
	case "TYPE":
		if done && cmd.Arg != "" {
			st.image = cmd.Arg[0]|0x20 == 'i' || cmd.Arg[0]|0x20 == 'l'
		}
		st.chained = chained // it may come between REST and RETR
		return
	case "MODE", "STRU", "PASV", "EPSV", "PORT", "EPRT", "NOOP", "PRET":
		st.chained = chained // they may come between REST and RETR
		return
	default:
		v, known := verbs[cmd.Verb]
		switch {
		case v.flags&data != 0:
			st.offset, st.size, st.measured = 0, -1, ""
		case v.action == login, v.action == restart, v.action == secure:
			*st = standing{size: -1}
		case !known && done, cmd.Verb == "HOST", cmd.Verb == "SMNT":
			st.cwd = "" // what it meant may mean something else now
		}
	}
	st.from = Path{}
}
