package control

import (
	"fmt"

	"ftpalg/control/wire"
)

// Refusal is our own negative reply, as an error: whoever says no returns one, and one place writes it.
type Refusal struct {
	Code int    // 4yz or 5yz
	Text string // what the client is told; one line; reflects nothing the client said
	Rule string // the rule that decided, for the log; may be empty
	End  bool   // the session ends after the reply
	Err  error  // the cause, for the log; may be nil
}

func (r *Refusal) Error() string {
	s := fmt.Sprintf("%d %s", r.Code, r.Text)
	if r.Rule != "" {
		s += " (" + r.Rule + ")"
	}
	if r.Err != nil {
		s += ": " + r.Err.Error()
	}
	return s
}

func (r *Refusal) Unwrap() error { return r.Err }

func (r *Refusal) reply() wire.Reply { return wire.NewReply(r.Code, r.Text) }

// refusal makes a Refusal after which the session goes on.
func refusal(code int, text string) *Refusal { return &Refusal{Code: code, Text: text} }

// ending makes the Refusal that ends a session: 421, RFC 959 §4.2.2.
func ending(text string, err error) *Refusal {
	return &Refusal{Code: 421, Text: text, End: true, Err: err}
}
