package web

import (
	"errors"
	"net"
	"net/http"
	"net/url"
	"strings"
)

// target is what an ftp URL names, RFC 1738 §3.2.
type target struct {
	server         string // host:port
	user, password string
	path           string // as commands name it: relative to the login directory unless it begins with a slash; empty: that itself
	dir            bool   // it is to be listed
	ascii          bool   // ;type=a
	sort           string // of a directory's page
	last           string // the last segment of the path
}

// errForbiddenByte is a name that would be more than one to a server: another command behind CR LF, or behind Telnet's controls
// (RFC 854), of which Data Mark would make it forget the verb before it (request splitting).
var errForbiddenByte = errors.New("The URL has CR, LF, NUL or a Telnet control in it")

// targetOf reads the target of a request. The error is for its client.
func targetOf(r *http.Request) (t target, err error) {
	u := r.URL
	if u.Hostname() == "" {
		return t, errors.New("The URL names no server")
	}
	port := u.Port()
	if port == "" {
		port = "21"
	}
	t.server = net.JoinHostPort(u.Hostname(), port)
	t.user, t.password = credentials(r)

	escaped := strings.TrimPrefix(u.EscapedPath(), "/")
	kind := ""
	if i := strings.LastIndex(escaped, ";"); i >= 0 && strings.HasPrefix(strings.ToLower(escaped[i:]), ";type=") && len(escaped) == i+len(";type=")+1 {
		kind = strings.ToLower(escaped[len(escaped)-1:])
		escaped = escaped[:i]
	}
	if escaped == "" || strings.HasSuffix(escaped, "/") {
		t.dir, t.sort = true, u.Query().Get("sort")
	} else if u.RawQuery != "" || u.ForceQuery {
		escaped += "?" + u.RawQuery // ftp URLs have no query: it is a part of the name
	}
	switch kind {
	case "", "i":
	case "a":
		t.ascii = true
	case "d":
		t.dir = true
	default:
		return t, errors.New("The URL's type is none of a, i and d")
	}
	if t.path, err = url.PathUnescape(strings.TrimSuffix(escaped, "/")); err != nil {
		return t, errors.New("The URL has a % without two hexadecimal digits")
	}
	if escaped == "/" { // ftp://host//
		t.path = "/"
	}
	t.last = t.path[strings.LastIndexByte(t.path, '/')+1:]
	for _, s := range []string{t.path, t.user, t.password} {
		if splits(s) {
			return t, errForbiddenByte
		}
	}
	return t, nil
}

// splits reports whether a server might take a command with such an argument for two.
func splits(s string) bool {
	for i := range len(s) {
		switch {
		case s[i] == '\r', s[i] == '\n', s[i] == 0:
			return true
		case s[i] == 0xFF && i+1 < len(s) && s[i+1] >= 0xF0 && s[i+1] != 0xFF:
			return true
		}
	}
	return false
}

// The account of who names none.
const (
	anonymous         = "anonymous"
	anonymousPassword = "ftpalg@"
)

// credentials are those of the URL, or of the Authorization header where the URL has no password, or else those of anybody.
func credentials(r *http.Request) (user, password string) {
	if r.URL.User != nil {
		if password, ok := r.URL.User.Password(); ok {
			return r.URL.User.Username(), password
		}
	}
	if user, password, ok := r.BasicAuth(); ok {
		return user, password
	}
	if r.URL.User != nil && r.URL.User.Username() != "" {
		return r.URL.User.Username(), ""
	}
	return anonymous, anonymousPassword
}
