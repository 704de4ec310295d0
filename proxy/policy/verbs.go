package policy

import (
	"slices"

	"ftpalg/config"
	"ftpalg/control"
)

// verb is what rules need to know of one.
type verb struct {
	class control.Class
	early bool // decided only by rules that name it; see control.Request.Early
	mixed bool // not every act of it has the class
	paths bool // it may have an act with a path
}

// verbs are those of control's table.
var verbs = func() map[string]verb {
	m := map[string]verb{}
	for _, row := range control.Verbs() {
		v := verb{class: classNumbers[config.CommandClass(row.Class)], early: slices.Contains(row.Flags, "early") && row.Action != "login", paths: row.Argument == "path" || row.Argument == "text"}
		switch row.Name {
		case "STAT", "SITE", "PRET": // of the session or of a file; anything; any of those that it announces
			v.mixed = true
		case "CDUP", "XCUP":
			v.paths = true
		}
		m[row.Name] = v
	}
	return m
}()

// verbOf is a verb's row. One that nobody knows may do anything.
func verbOf(name string) verb {
	if v, ok := verbs[name]; ok {
		return v
	}
	return verb{class: control.Modify, paths: true}
}

// several are the verbs whose acts have other classes than their own, too.
var several = map[string][]control.Class{
	"STAT": {control.Access, control.List},
	"MDTM": {control.List, control.Modify},
	"RNFR": {control.Modify, control.Read},
	"RNTO": {control.Modify, control.Write},
	"SITE": {control.Access, control.Read, control.Write, control.Modify},
	"PRET": {control.Access, control.List, control.Read, control.Write, control.Modify},
}

// classesOf are the classes that acts of a verb may have, by 1 << control.Class.
func classesOf(name string) uint8 {
	cs, ok := several[name]
	if !ok {
		return 1 << verbOf(name).class
	}
	var mask uint8
	for _, c := range cs {
		mask |= 1 << c
	}
	return mask
}

// harmless verbs are always allowed.
var harmless = map[string]bool{"QUIT": true, "ABOR": true, "NOOP": true}

// modern are the verbs that RFC 775 has other names for. Whoever denies MKD means XMKD, too: a server takes either.
var modern = map[string]string{"XCWD": "CWD", "XCUP": "CDUP", "XMKD": "MKD", "XRMD": "RMD", "XPWD": "PWD"}

// names reports whether a rule's command has a verb.
func (c command) names(verb string) bool {
	return c.verb == verb || modern[verb] == c.verb && c.verb != ""
}

// plainWord reports whether a SITE's first word is one. "SITE  CHMOD", with two blanks, has none, and servers differ in what they
// make of that, and of tabs and quotes.
func plainWord(s string) bool {
	for i := range len(s) {
		if c := s[i]; !('A' <= c && c <= 'Z' || '0' <= c && c <= '9' || c == '_' || c == '-') {
			return false
		}
	}
	return s != ""
}
