package control

import "slices"

// action is what a session does with a command.
type action int

const (
	relay    action = iota // the server's to answer
	login                  // USER, PASS, ACCT
	restart                // REIN: back to before login
	secure                 // AUTH: where TLS begins
	protect                // PBSZ, PROT, CCC: what TLS protects
	passive                // PASV, EPSV
	active                 // PORT, EPRT
	download               // data from the server to the client
	upload                 // data from the client to the server
	abort                  // ABOR
	features               // FEAT, whose answer we edit
	quit                   // QUIT
	refuse                 // never the server's business
)

var actionNames = [...]string{"relay", "login", "restart", "secure", "protect", "passive", "active", "download", "upload", "abort", "features", "quit", "refuse"}

func (a action) String() string { return actionNames[a] }

// Class is what rules speak of instead of verbs.
type Class int

// The classes of commands.
const (
	Access Class = iota // logging in, negotiating, moving about
	List                // seeing names
	Read                // taking files
	Write               // leaving files
	Modify              // changing what is there
)

var classNames = [...]string{"access", "list", "read", "write", "modify"}

func (c Class) String() string { return classNames[c] }

// argument is the kind of a command's argument.
type argument int

const (
	none argument = iota
	word
	path
	text
	secret // appears in no log, event or error
)

var argumentNames = [...]string{"none", "word", "path", "text", "secret"}

func (a argument) String() string { return argumentNames[a] }

// flags of a verb.
type flags int

const (
	early   flags = 1 << iota // may be answered before a server is known or a user logged in
	data                      // spends the armed transfer
	urgent                    // may be sent while a transfer runs
	foreign                   // a word of another protocol: it ends the session
)

// verb is what the table knows of a command.
type verb struct {
	action   action
	class    Class
	argument argument
	flags    flags
	defined  string
}

// verbs is the vocabulary of the control connection. It is data, so it can be printed, tested and read as a whole.
var verbs = map[string]verb{
	"USER": {login, Access, word, early, "RFC 959 §4.1.1"},
	"PASS": {login, Access, secret, early, "RFC 959 §4.1.1"},
	"ACCT": {login, Access, secret, early, "RFC 959 §4.1.1"},
	"REIN": {restart, Access, none, early, "RFC 959 §4.1.1"},
	"QUIT": {quit, Access, none, early | urgent, "RFC 959 §4.1.1"},
	"CWD":  {relay, Access, path, 0, "RFC 959 §4.1.1"},
	"CDUP": {relay, Access, none, 0, "RFC 959 §4.1.1"},
	"SMNT": {relay, Access, path, 0, "RFC 959 §4.1.1"},
	"XCWD": {relay, Access, path, 0, "RFC 775"},
	"XCUP": {relay, Access, none, 0, "RFC 775"},

	"PORT": {active, Access, word, 0, "RFC 959 §4.1.2"},
	"PASV": {passive, Access, none, 0, "RFC 959 §4.1.2"},
	"EPRT": {active, Access, word, 0, "RFC 2428 §2"},
	"EPSV": {passive, Access, word, 0, "RFC 2428 §3"},
	"LPRT": {refuse, Access, word, 0, "RFC 1639"},
	"LPSV": {refuse, Access, none, 0, "RFC 1639"},
	"CPSV": {refuse, Access, none, 0, "FXP over TLS"},
	"SSCN": {refuse, Access, word, 0, "FXP over TLS"},
	"TYPE": {relay, Access, word, 0, "RFC 959 §4.1.2"},
	"STRU": {relay, Access, word, 0, "RFC 959 §4.1.2"},
	"MODE": {relay, Access, word, 0, "RFC 959 §4.1.2"},
	"PRET": {relay, Access, text, 0, "drftpd"},

	"RETR": {download, Read, path, data, "RFC 959 §4.1.3"},
	"STOR": {upload, Write, path, data, "RFC 959 §4.1.3"},
	"STOU": {upload, Write, path, data, "RFC 959 §4.1.3"},
	"APPE": {upload, Write, path, data, "RFC 959 §4.1.3"},
	"LIST": {download, List, path, data, "RFC 959 §4.1.3"},
	"NLST": {download, List, path, data, "RFC 959 §4.1.3"},
	"MLSD": {download, List, path, data, "RFC 3659 §7"},
	"MLST": {relay, List, path, 0, "RFC 3659 §7"},
	"ALLO": {relay, Write, word, 0, "RFC 959 §4.1.3"},
	"REST": {relay, Access, word, 0, "RFC 3659 §5"},
	"RNFR": {relay, Modify, path, 0, "RFC 959 §4.1.3"},
	"RNTO": {relay, Modify, path, 0, "RFC 959 §4.1.3"},
	"ABOR": {abort, Access, none, urgent, "RFC 959 §4.1.3"},
	"DELE": {relay, Modify, path, 0, "RFC 959 §4.1.3"},
	"RMD":  {relay, Modify, path, 0, "RFC 959 §4.1.3"},
	"MKD":  {relay, Modify, path, 0, "RFC 959 §4.1.3"},
	"PWD":  {relay, Access, none, 0, "RFC 959 §4.1.3"},
	"XRMD": {relay, Modify, path, 0, "RFC 775"},
	"XMKD": {relay, Modify, path, 0, "RFC 775"},
	"XPWD": {relay, Access, none, 0, "RFC 775"},
	"SITE": {relay, Modify, text, 0, "RFC 959 §4.1.3"},
	"SIZE": {relay, List, path, 0, "RFC 3659 §4"},
	"MDTM": {relay, List, path, 0, "RFC 3659 §3"},
	"MFMT": {relay, Modify, text, 0, "draft-somers-ftp-mfxx"},
	"MFCT": {relay, Modify, text, 0, "draft-somers-ftp-mfxx"},
	"MFF":  {relay, Modify, text, 0, "draft-somers-ftp-mfxx"},
	"AVBL": {relay, List, path, 0, "draft-peterson-streamlined-ftp-command-extensions"},
	"HASH": {relay, Read, path, 0, "draft-bryan-ftpext-hash"},
	"XCRC": {relay, Read, text, 0, "in the field"},
	"XMD5": {relay, Read, text, 0, "in the field"},
	"MD5":  {relay, Read, text, 0, "draft-twine-ftpmd5"},
	"XSHA": {relay, Read, text, 0, "in the field"},

	"XSHA1":   {relay, Read, text, 0, "in the field"},
	"XSHA256": {relay, Read, text, 0, "in the field"},
	"XSHA512": {relay, Read, text, 0, "in the field"},

	"SYST": {relay, Access, none, early, "RFC 959 §4.1.3"},
	"STAT": {relay, List, path, urgent, "RFC 959 §4.1.3"},
	"HELP": {relay, Access, word, early, "RFC 959 §4.1.3"},
	"NOOP": {relay, Access, none, early | urgent, "RFC 959 §4.1.3"},
	"FEAT": {features, Access, none, early, "RFC 2389 §3"},
	"OPTS": {relay, Access, text, early, "RFC 2389 §4"},
	"LANG": {relay, Access, word, early, "RFC 2640 §4"},
	"HOST": {relay, Access, word, early, "RFC 7151"},
	"CLNT": {relay, Access, text, early, "in the field"},
	"CSID": {relay, Access, text, early, "in the field"},
	"ACCL": {relay, Access, text, 0, "in the field"},

	"AUTH": {secure, Access, word, early, "RFC 4217 §4"},
	"PBSZ": {protect, Access, word, early, "RFC 4217 §8"},
	"PROT": {protect, Access, word, early, "RFC 4217 §9"},
	"CCC":  {protect, Access, none, early, "RFC 4217 §6"},
	"ADAT": {refuse, Access, secret, early, "RFC 2228 §3"},
	"MIC":  {refuse, Access, secret, early, "RFC 2228 §3"},
	"CONF": {refuse, Access, secret, early, "RFC 2228 §3"},
	"ENC":  {refuse, Access, secret, early, "RFC 2228 §3"},

	// Words that open other protocols. A browser or a NAT slipstreaming page that is made to talk to port 21 says
	// these, and then whatever its author likes on the lines that follow.
	"GET":      {refuse, Access, secret, early | foreign, "HTTP"},
	"HEAD":     {refuse, Access, secret, early | foreign, "HTTP"},
	"POST":     {refuse, Access, secret, early | foreign, "HTTP"},
	"PUT":      {refuse, Access, secret, early | foreign, "HTTP"},
	"DELETE":   {refuse, Access, secret, early | foreign, "HTTP"},
	"OPTIONS":  {refuse, Access, secret, early | foreign, "HTTP"},
	"PATCH":    {refuse, Access, secret, early | foreign, "HTTP"},
	"TRACE":    {refuse, Access, secret, early | foreign, "HTTP"},
	"CONNECT":  {refuse, Access, secret, early | foreign, "HTTP"},
	"PRI":      {refuse, Access, secret, early | foreign, "HTTP/2"},
	"EHLO":     {refuse, Access, secret, early | foreign, "SMTP"},
	"HELO":     {refuse, Access, secret, early | foreign, "SMTP"},
	"REGISTER": {refuse, Access, secret, early | foreign, "SIP"},
	"INVITE":   {refuse, Access, secret, early | foreign, "SIP"},
}

// classOf is the class of a verb. One that is not in the table may change anything.
func classOf(verb string) Class {
	if v, known := verbs[verb]; known {
		return v.class
	}
	return Modify
}

// Verb is a row of the command table, for printing.
type Verb struct {
	Name, Action, Class, Argument string
	Flags                         []string
	Defined                       string // where: an RFC's section, mostly
}

// Verbs returns the command table in alphabetical order.
func Verbs() []Verb {
	var rows []Verb
	for name, v := range verbs {
		row := Verb{Name: name, Action: v.action.String(), Class: v.class.String(), Argument: v.argument.String(), Defined: v.defined}
		for i, f := range []string{"early", "data", "urgent", "foreign"} {
			if v.flags&(1<<i) != 0 {
				row.Flags = append(row.Flags, f)
			}
		}
		rows = append(rows, row)
	}
	slices.SortFunc(rows, func(a, b Verb) int {
		if a.Name < b.Name {
			return -1
		}
		return 1
	})
	return rows
}
