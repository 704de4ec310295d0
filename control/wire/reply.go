package wire

import "strings"

// Reply is one reply of a server (RFC 959 §4.2), of one line or several. Its lines are kept whole, code included,
// because a client must see what the server wrote: some speak of "220-" where others indent.
type Reply struct {
	Code  int      // 100 to 599
	Lines []string // at least one; without line ends; never with CR, LF or NUL
}

// NewReply makes a reply of our own: the text's lines, at least one, each with the code before it.
func NewReply(code int, lines ...string) Reply {
	r := Reply{Code: code, Lines: make([]string, len(lines))}
	for i, l := range lines {
		sep := "-"
		if i == len(lines)-1 {
			sep = " "
		}
		r.Lines[i] = string(appendCode(nil, code)) + sep + l
	}
	return r
}

func appendCode(b []byte, code int) []byte {
	return append(b, byte('0'+code/100%10), byte('0'+code/10%10), byte('0'+code%10))
}

// Preliminary reports whether another reply to the same command follows (1yz, RFC 959 §4.2.1).
func (r Reply) Preliminary() bool { return r.Code/100 == 1 }

// Positive reports a 2yz reply: the command was done.
func (r Reply) Positive() bool { return r.Code/100 == 2 }

// Negative reports a 4yz or 5yz reply: the command was not done.
func (r Reply) Negative() bool { return r.Code/100 >= 4 }

// Text is the last line without its code: what a person would quote.
func (r Reply) Text() string {
	if len(r.Lines) == 0 {
		return ""
	}
	l := r.Lines[len(r.Lines)-1]
	return strings.TrimSpace(l[min(len(l), 3):])
}

// Append appends the reply's wire form, each line ending CR LF, to b.
func (r Reply) Append(b []byte) []byte {
	for _, l := range r.Lines {
		b = append(b, l...)
		b = append(b, '\r', '\n')
	}
	return b
}

// collector gathers the lines of a reply.
type collector struct {
	limits Limits
	reply  Reply
	bytes  int
}

// add takes one line without its LF and reports whether the reply is complete.
func (c *collector) add(line []byte) (bool, error) {
	if n := len(line); n > 0 && line[n-1] == '\r' {
		line = line[:n-1]
	}
	c.bytes += len(line) + 2
	if c.bytes > c.limits.ReplyBytes {
		return false, replyErrorf("reply of more than %d bytes (limits.reply_bytes)", c.limits.ReplyBytes)
	}
	if len(c.reply.Lines) >= c.limits.ReplyLines {
		return false, replyErrorf("reply of more than %d lines (limits.reply_lines)", c.limits.ReplyLines)
	}
	code, sep := splitCode(line)
	if len(c.reply.Lines) == 0 {
		if code == 0 {
			return false, replyErrorf("not an FTP reply")
		}
		c.reply.Code = code
	}
	c.reply.Lines = append(c.reply.Lines, clean(line))
	if len(c.reply.Lines) == 1 {
		return sep != '-', nil
	}
	// RFC 959 §4.2: the last line begins with the same code and a space; lines between may begin with anything.
	return code == c.reply.Code && sep == ' ', nil
}

// splitCode returns a line's code, 0 if it has none, and the byte behind it, ' ' at the line's end.
func splitCode(line []byte) (code int, sep byte) {
	if len(line) < 3 {
		return 0, 0
	}
	for _, d := range line[:3] {
		if d < '0' || d > '9' {
			return 0, 0
		}
		code = code*10 + int(d-'0')
	}
	sep = ' '
	if len(line) > 3 {
		sep = line[3]
	}
	if code < 100 || code > 599 || sep != ' ' && sep != '-' {
		return 0, 0
	}
	return code, sep
}

// clean takes CR and NUL out of a reply line: a client that ends lines at CR would hear a reply that the server hid
// inside another (reply splitting). Everything else passes: it is the server's text, not ours.
func clean(line []byte) string {
	s := string(line)
	if strings.ContainsAny(s, "\r\x00") {
		s = strings.NewReplacer("\r", "?", "\x00", "?").Replace(s)
	}
	return s
}
