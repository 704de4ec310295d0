package audit

import (
	"strconv"
	"strings"
	"time"
)

// appendXferlog appends the event's line of xferlog(5), if it has one: transfers of files do, and DELE. The form is what wu-ftpd's
// readers expect: fourteen fields between blanks, so names have none, nor anything else that is not printable ASCII.
func (e *Event) appendXferlog(b []byte) []byte {
	direction := byte('o')
	switch {
	case e.Event == Change && e.Verb == "DELE":
		direction = 'd'
	case e.Event != Transfer:
		return b
	case e.Verb == "RETR":
	case e.Direction == "upload":
		direction = 'i'
	default:
		return b // a listing
	}
	kind, access, status := byte('b'), byte('r'), byte('i')
	if e.ASCII {
		kind = 'a'
	}
	if u := strings.ToLower(e.User); u == "anonymous" || u == "ftp" {
		access = 'a'
	}
	if e.Outcome == Whole || e.Outcome == Success {
		status = 'c'
	}
	host, _, ok := strings.Cut(strings.TrimPrefix(e.Client, "["), "]:")
	if !ok {
		host = host[:max(strings.LastIndexByte(host, ':'), 0)]
	}
	path := e.Resolved
	if path == "" {
		path = e.Path
	}
	var bytes int64
	if e.Bytes != nil {
		bytes = *e.Bytes
	}
	seconds := 0
	if e.Seconds != nil {
		seconds = int(*e.Seconds + 0.5)
	}
	b = append(e.Time.Local().AppendFormat(b, time.ANSIC), ' ')
	b = append(strconv.AppendInt(b, int64(seconds), 10), ' ')
	b = append(appendField(b, host), ' ')
	b = append(strconv.AppendInt(b, bytes, 10), ' ')
	b = append(appendField(b, path), ' ')
	b = append(b, kind, ' ', '_', ' ', direction, ' ', access, ' ')
	b = append(appendField(b, e.User), " ftp 0 * "...)
	return append(b, status, '\n')
}

// appendField appends a text with _ for each byte that a field cannot have.
func appendField(b []byte, s string) []byte {
	if s == "" {
		return append(b, '?')
	}
	for i := range len(s) {
		if s[i] <= ' ' || s[i] >= 0x7F {
			b = append(b, '_')
		} else {
			b = append(b, s[i])
		}
	}
	return b
}
