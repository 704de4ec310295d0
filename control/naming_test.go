package control

import (
	"regexp"
	"strconv"
	"strings"
	"sync"
	"testing"
)

// FuzzNaming compares how the argument of USER is read with patterns that say the same, one for each way of logging in.
func FuzzNaming(f *testing.F) {
	for _, arg := range []string{
		"", "bob", "@", "bob@", "@host", "bob@host", "bob@host:21", "bob@host 21", "bob@[::1] 21", "bob@::1", "bob@corp@host",
		"bob@paul@host", "bob@host paul", "bob@host 2121 paul", "bob@host ", "bob@host 0", "bob@host 65536", "paul:bob@host",
		"paul:bob%host", "paul:bob%corp@host", "a%b:c", "joe@corp:bob@host", "dom:bob@corp@host:21 paul", "my name@host",
	} {
		for _, logins := range []Logins{0, DefaultLogins, DefaultLogins | LoginResp, LoginJoined | LoginAcct} {
			f.Add(arg, uint16(logins), false, false)
			f.Add(arg, uint16(logins), true, false)
			f.Add(arg, uint16(logins), true, true)
		}
	}
	f.Fuzz(func(t *testing.T, arg string, logins uint16, accounts, after bool) {
		o := occasion{Logins(logins), accounts, after}
		got, ok := o.read(arg)
		want, wantOK := obvious(o, arg)
		if got != want || ok != wantOK {
			t.Errorf("%q, %+v: read as %+v, %t; want %+v, %t", arg, o, got, ok, want, wantOK)
		}
		if ok && got.by != 0 && got.by != LoginUserAtHost && !o.allows(got.by) {
			t.Errorf("%q: read by %b, of %b", arg, got.by, logins)
		}
		if accounts && !after && got.by == LoginUserAtHost {
			t.Errorf("%q: would go to the server without an account", arg)
		}
	})
}

// obvious is occasion.read, slowly.
func obvious(o occasion, arg string) (naming, bool) {
	if found := compiled(`(?s)^(.*)@([^@ ]*) ([0-9]+)$`).FindStringSubmatch(arg); found != nil {
		port, err := strconv.Atoi(found[3])
		if err == nil && 0 < port && port < 65536 && (o.allows(LoginUserAtHost) || !o.allows(LoginAcct)) {
			host := strings.TrimSuffix(strings.TrimPrefix(found[2], "["), "]")
			if !strings.HasPrefix(found[2], "[") {
				host = found[2]
			}
			if strings.Contains(host, ":") {
				host = "[" + host + "]"
			}
			n, ok := ways(o, found[1]+"@host")
			n.server = host + ":" + found[3]
			if !ok {
				n = naming{}
			}
			return n, ok
		}
	}
	return ways(o, arg)
}

var patterns sync.Map // compiled, by their text

func compiled(text string) *regexp.Regexp {
	if p, ok := patterns.Load(text); ok {
		return p.(*regexp.Regexp)
	}
	p := regexp.MustCompile(text)
	patterns.Store(text, p)
	return p
}

// ways reads what has no port behind a space.
func ways(o occasion, arg string) (naming, bool) {
	direct := o.after && o.allows(LoginUserAtHost|LoginProxyUser) || !o.accounts && o.allows(LoginUserAtHost|LoginResp)
	for _, way := range []struct {
		pattern string
		by      Logins
		now     bool
	}{
		{`(?P<user>.*)@(?P<server>[^@ ]*) (?P<account>[^@]*)`, LoginAcct, o.allows(LoginAcct)},
		{`(?P<account>[^:]*):(?P<user>.*)@(?P<server>[^@]*)`, LoginColon, o.allows(LoginColon) && !o.after},
		{`(?P<account>[^:@]*):(?P<user>[^@]*)%(?P<server>[^@%]*)`, LoginColon, o.allows(LoginColon) && !o.after},
		{`(?P<user>.*)@(?P<server>[^@]*)`, LoginUserAtHost, direct},
		{`(?P<user>.*)@(?P<server>[^@]*)`, LoginResp, o.allows(LoginResp) && !o.after},
		{`(?P<whole>(?P<user>.*)@(?P<account>[^@]*))@(?P<server>[^@]*)`, LoginJoined, o.allows(LoginJoined) && !o.after},
		{`(?P<account>.*)@(?P<server>[^@]*)`, LoginProxyUserAtHost, o.allows(LoginProxyUserAtHost) && !o.after},
		{`(?P<user>[^@]*)`, 0, true},
	} {
		pattern := compiled(`(?s)^` + way.pattern + `$`)
		found := pattern.FindStringSubmatch(arg)
		if found == nil || !way.now {
			continue
		}
		part := func(name string) string {
			if i := pattern.SubexpIndex(name); i >= 0 {
				return found[i]
			}
			return ""
		}
		return naming{by: way.by, user: part("user"), account: part("account"), server: part("server"), whole: part("whole")}, true
	}
	return naming{}, false
}
