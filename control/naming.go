package control

import (
	"net"
	"strconv"
	"strings"
)

// Logins are ways in which clients of an explicit proxy say which server they mean and, mostly, which account of the proxy's they
// have: a set of those below. No RFC knows them; they are what clients call the types of a firewall or proxy.
type Logins uint16

// The ways, by what the client says. PASS follows USER in each.
const (
	LoginUserAtHost      Logins = 1 << iota // USER user@host; or "user@host port"
	LoginProxyUser                          // USER account, and then any other way
	LoginSite                               // SITE host, USER user
	LoginOpen                               // OPEN host, USER user
	LoginJoined                             // USER user@account@host, PASS password@accountpassword
	LoginProxyUserAtHost                    // USER account@host, USER user
	LoginAcct                               // USER "user@host account", PASS password, ACCT accountpassword
	LoginColon                              // USER account:user@host or account:user%host, PASS accountpassword:password
	LoginSNI                                // the host is the name that TLS was begun with (RFC 6066 §3), USER user
	LoginHost                               // HOST host (RFC 7151), USER user
	LoginResp                               // USER user@host, PASS password, AUTH account, RESP accountpassword
)

// DefaultLogins are all but LoginResp, which takes the place of LoginProxyUserAtHost and LoginJoined where accounts are asked for:
// the beginnings cannot be told apart.
const DefaultLogins = LoginResp - 1

// naming is what the argument of USER says, read in one of the ways.
type naming struct {
	by      Logins // zero: it names no server
	user    string // the server's; empty where it is said later
	account string // the proxy's; empty where it is said elsewhere, or not at all
	server  string // as named
	// whole is what was before the server in LoginJoined: a single account, perhaps, whose name has an @. The password tells.
	whole string
}

// occasion is what USER is read by.
type occasion struct {
	logins   Logins
	accounts bool // are asked for
	after    bool // the client has logged in to the proxy by LoginProxyUser
}

func (o occasion) allows(l Logins) bool { return o.logins&l != 0 }

// read reads the argument of USER. It is not ok if that names a server in a way that is not allowed, or not yet.
//
// The last @ is where the server begins: names of users and accounts have them too. What an account is, and whether there is
// one of that name, is not asked here, so that the answer to USER cannot tell (user enumeration).
func (o occasion) read(arg string) (n naming, ok bool) {
	at := strings.LastIndexByte(arg, '@')
	if at < 0 {
		return o.readPercent(arg), true
	}
	left, server := arg[:at], arg[at+1:]
	if host, word, spaced := strings.Cut(server, " "); spaced {
		if o.allows(LoginAcct) && !(isPort(word) && o.allows(LoginUserAtHost)) {
			return naming{by: LoginAcct, user: left, account: word, server: host}, true
		}
		server = withPort(server)
	}
	colon, at := strings.IndexByte(left, ':'), strings.LastIndexByte(left, '@')
	switch {
	case colon >= 0 && !o.after && o.allows(LoginColon):
		return naming{by: LoginColon, account: left[:colon], user: left[colon+1:], server: server}, true
	case o.after && o.allows(LoginUserAtHost|LoginProxyUser), !o.accounts && o.allows(LoginUserAtHost|LoginResp):
		return naming{by: LoginUserAtHost, user: left, server: server}, true
	case o.after:
		return naming{}, false
	case o.allows(LoginResp):
		return naming{by: LoginResp, user: left, server: server}, true
	case at >= 0 && o.allows(LoginJoined):
		return naming{by: LoginJoined, user: left[:at], account: left[at+1:], server: server, whole: left}, true
	case o.allows(LoginProxyUserAtHost):
		return naming{by: LoginProxyUserAtHost, account: left, server: server}, true
	}
	return naming{}, false
}

// readPercent reads what has no @: account:user%host, or a name alone.
func (o occasion) readPercent(arg string) naming {
	colon, percent := strings.IndexByte(arg, ':'), strings.LastIndexByte(arg, '%')
	if 0 <= colon && colon < percent && !o.after && o.allows(LoginColon) {
		return naming{by: LoginColon, account: arg[:colon], user: arg[colon+1 : percent], server: arg[percent+1:]}
	}
	return naming{user: arg}
}

// lacking says what is missing of a naming, or nothing.
func (n naming) lacking() string {
	switch {
	case n.server == "":
		return "Say which server: USER user@host"
	case n.user == "" && n.by != LoginProxyUserAtHost:
		return "Say which user: USER user@host"
	case n.account == "" && n.by != LoginUserAtHost && n.by != LoginResp:
		return "Say which account of the proxy's"
	}
	return ""
}

// withPort is "host port", as NcFTP writes it, in the way of everybody else; any other text is left as it is.
func withPort(server string) string {
	host, port, spaced := strings.Cut(server, " ")
	if !spaced || !isPort(port) {
		return server
	}
	if h, ok := strings.CutPrefix(host, "["); ok {
		host = strings.TrimSuffix(h, "]")
	}
	return net.JoinHostPort(host, port)
}

func isPort(text string) bool {
	n, err := strconv.ParseUint(text, 10, 16)
	return err == nil && n > 0
}
