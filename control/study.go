package control

import (
	"errors"
	"strings"

	"ftpalg/control/wire"
	"ftpalg/dataconn"
)

// Study is a session that is only imagined: what a Policy would be asked about its commands. Make one with NewStudy. It is for
// whoever wants to know what rules do, before they are in force.
type Study struct {
	s   Session
	cmd wire.Command
}

// NewStudy begins in a directory, which is empty if it is not known, with a user who has logged in, empty if nobody has.
func NewStudy(user, cwd string) *Study {
	t := &Study{s: Session{user: user, loggedIn: user != ""}}
	t.s.standing.size = -1
	if cwd != "" {
		t.s.standing.cwd = (&reading{cwd: "/"}).resolve(cwd).Text
	}
	return t
}

// Protect says which connections have TLS, by side.
func (t *Study) Protect(control, data [2]bool) { t.s.secured, t.s.private = control, data }

// ErrNoCommand is a line that is no FTP command.
var ErrNoCommand = errors.New("is no FTP command")

// Request is what a Policy would be asked about a command, which is a line of the control connection without its end.
func (t *Study) Request(line string) (*Request, error) {
	cmd, err := wire.NewReader(strings.NewReader(line+"\r\n"), wire.Limits{}).Command()
	if err != nil {
		return nil, ErrNoCommand
	}
	t.cmd = cmd
	r := t.s.request(cmd)
	acts := t.s.read(cmd)
	r.Acts = func() []Act { return acts }
	return r, nil
}

// Answer says what the server has answered to the command that Request was given last: its final reply's code, and the text of that
// reply's last line.
func (t *Study) Answer(code int, text string) {
	s := &t.s
	switch v := verbs[t.cmd.Verb]; {
	case t.cmd.Verb == "USER":
		s.claimed = t.cmd.Arg
	case t.cmd.Verb == "AUTH" && code == 234:
		s.secured[dataconn.Client], s.secured[dataconn.Server] = true, true
	case t.cmd.Verb == "PROT" && code == 200:
		private := t.cmd.Arg == "P" || t.cmd.Arg == "p"
		s.private = [2]bool{private, private}
	case v.action == restart && code/100 == 2:
		s.user, s.loggedIn = "", false
	}
	if v := verbs[t.cmd.Verb]; v.action == login && (code == 230 || code == 232) {
		s.user, s.loggedIn = s.claimed, true
	}
	s.said = said{code, text}
	s.stand(t.cmd)
}
