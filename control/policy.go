package control

import (
	"net"

	"ftpalg/dataconn"
)

// Policy rules on commands. Its methods are called from the goroutine of Session.Run, which waits for them.
type Policy interface {
	// Admit rules on a command before the server hears of it.
	Admit(*Request) Ruling
	// Watches reports whether a transfer of the session may have to be seen or slowed. It is asked when a transfer is armed,
	// which is before its file is known: the kernel must not carry it then.
	Watches() bool
}

// Request is a command that asks to be admitted. It is the Policy's for as long as Admit runs.
type Request struct {
	Verb  string // in upper case
	Sub   string // the first word of a SITE, in upper case
	Class Class  // of the verb; what the command does to which path is in Acts
	// Early commands negotiate before anybody has logged in. USER, PASS and ACCT are not among them.
	Early bool
	User  string // who has logged in, or wants to; empty: nobody has said so
	// Moves: the command moves a file or a listing, in the direction that is given.
	Moves     bool
	Direction dataconn.Direction
	Size      int64   // of the file that is to move, bytes, as SIZE or ALLO have told it; -1: nobody has
	Offset    int64   // by REST, bytes; where the first byte that moves belongs
	Secured   [2]bool // by side: the control connection has TLS
	Private   [2]bool // by side: data connections have it
	// Acts are what the command would do, in every way in which a server may read it; never empty. It may ask the server for
	// the working directory, if Session.AskDirectory allows that, and need not be called where no rule speaks of paths.
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
