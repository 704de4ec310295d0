package config

import (
	"net/url"
	"slices"
	"strings"
	"time"
)

// Accounts are where proxy accounts are, and how those who guess passwords are met. File and LDAP.URL are not both set;
// if neither is, there are no accounts.
type Accounts struct {
	File   File `yaml:"file"`   // htpasswd: bcrypt and SHA-crypt
	Groups File `yaml:"groups"` // Apache's group file; empty: no groups, but the directory's
	LDAP   LDAP `yaml:"ldap"`
	// Failures bans an address for Ban if none of its failed logins is more than Window after the one before. All are
	// positive.
	Failures int           `yaml:"failures"`
	Window   time.Duration `yaml:"window"`
	Ban      time.Duration `yaml:"ban"`
}

// LDAP is a directory (RFC 4511) that knows accounts. Zero but for Timeout: none. Either UserDN is set, or Base and Filter.
type LDAP struct {
	URL              string        `yaml:"url"`     // ldaps:, or ldap: for StartTLS
	CA               File          `yaml:"ca"`      // PEM; empty: the system's authorities
	UserDN           string        `yaml:"user_dn"` // has {name}
	Base             string        `yaml:"base"`
	Filter           string        `yaml:"filter"` // has {name}
	BindDN           string        `yaml:"bind_dn"`
	BindPasswordFile File          `yaml:"bind_password_file"` // together with BindDN
	GroupBase        string        `yaml:"group_base"`         // empty: Base
	GroupFilter      string        `yaml:"group_filter"`       // has {name} or {dn}; empty: none
	Timeout          time.Duration `yaml:"timeout"`            // for all of a login; positive
}

// Account is the name of a proxy account, or of a group of them.
type Account string

// Given reports whether there are accounts.
func (a *Accounts) Given() bool { return a.File != "" || a.LDAP.URL != "" }

func defaultAccounts() Accounts {
	// Ten failures take two and a half minutes of waiting: more than a person has patience for, who knows the password, and
	// with the ban some forty guesses an hour.
	return Accounts{LDAP: LDAP{Timeout: 10 * time.Second}, Failures: 10, Window: 15 * time.Minute, Ban: 15 * time.Minute}
}

func (k *checker) accounts(c *Config) {
	a := &c.Accounts
	const key = "accounts"
	for _, n := range []struct {
		name  string
		value int64
	}{{"failures", int64(a.Failures)}, {"window", int64(a.Window)}, {"ban", int64(a.Ban)}, {"ldap.timeout", int64(a.LDAP.Timeout)}} {
		if n.value <= 0 {
			k.fault(join(key, n.name), "must be more than zero; it cannot be switched off, but it can be large")
		}
	}
	if a.File != "" && a.LDAP.URL != "" {
		k.fault(key+".ldap.url", "is given with accounts.file; accounts come from one of them, so remove the other")
	}
	if a.Groups != "" && !a.Given() {
		k.fault(key+".groups", "is given without accounts; write accounts.file, or accounts.ldap")
	}
	k.directory(key+".ldap", &a.LDAP)
	for i := range c.Listeners {
		k.proxyLogin(element("listeners", i), &c.Listeners[i], a)
	}
	for i, d := range c.Destinations {
		k.members(element("destinations", i)+".accounts", d.Accounts, a)
		k.members(element("destinations", i)+".groups", d.Groups, a)
	}
}

// directory checks what is said of a directory, if anything is.
func (k *checker) directory(key string, l *LDAP) {
	given := *l
	given.Timeout = 0
	switch {
	case given == LDAP{}:
		return
	case l.URL == "":
		k.fault(key, "has no url; write ldaps://HOST or ldap://HOST")
	case !isDirectory(l.URL):
		k.fault(key+".url", "%s is no directory: write ldaps://HOST[:PORT] or ldap://HOST[:PORT]", quoted(l.URL))
	}
	search := l.Base != "" || l.Filter != ""
	switch {
	case l.UserDN == "" && !search:
		k.fault(key, "does not say how accounts are found; write user_dn, or base and filter")
	case l.UserDN != "" && search:
		k.fault(key+".user_dn", "is given with base or filter; write one of them: either a name makes a DN, or a search finds one")
	case l.Base == "" && search:
		k.fault(key+".filter", "is given without base; write where to search")
	case l.Filter == "" && search:
		k.fault(key+".base", "is given without filter; write how a name is found, such as (uid={name})")
	}
	for _, t := range []struct{ name, text string }{{"user_dn", l.UserDN}, {"filter", l.Filter}} {
		if t.text != "" && !strings.Contains(t.text, "{name}") {
			k.fault(join(key, t.name), "%s has no {name}, so every name would be the same account", quoted(t.text))
		}
	}
	if f := l.GroupFilter; f != "" && !strings.Contains(f, "{name}") && !strings.Contains(f, "{dn}") {
		k.fault(key+".group_filter", "%s has neither {name} nor {dn}, so everybody would be in the same groups", quoted(f))
	}
	if l.GroupFilter != "" && l.Base == "" && l.GroupBase == "" {
		k.fault(key+".group_filter", "is given without group_base; write where groups are")
	}
	switch {
	case l.BindDN != "" && l.BindPasswordFile == "":
		k.fault(key+".bind_dn", "is given without bind_password_file; a bind without a password is anybody's")
	case l.BindDN == "" && l.BindPasswordFile != "":
		k.fault(key+".bind_password_file", "is given without bind_dn; write whose password it is")
	}
}

func isDirectory(s string) bool {
	u, err := url.Parse(s)
	return err == nil && (u.Scheme == "ldap" || u.Scheme == "ldaps") && (u.Path == "" || u.Path == "/") && u.RawQuery == "" &&
		u.User == nil && u.Fragment == "" && isServer(withPort(u))
}

// withPort is the host of a URL as isServer wants it.
func withPort(u *url.URL) string {
	if u.Port() != "" {
		return u.Host
	}
	return u.Host + ":636"
}

// members checks the names of accounts or groups in a rule.
func (k *checker) members(key string, names []Account, a *Accounts) {
	if len(names) > 0 && !a.Given() {
		k.fault(key, "matches nobody without accounts; write accounts.file, or accounts.ldap")
	}
	for i, n := range names {
		switch {
		case n == "" || strings.ContainsFunc(string(n), func(c rune) bool { return c <= ' ' || c == 0x7F || c == ':' }):
			k.fault(element(key, i), "%s is no name: names are not empty, and have no blanks or colons", quoted(string(n)))
		case strings.HasSuffix(key, ".accounts") && a.LDAP.URL != "" && string(n) != strings.ToLower(string(n)):
			k.fault(element(key, i), "%s has capitals; a directory's accounts are in lower case here", quoted(string(n)))
		}
	}
}

// takesAccounts reports whether clients of a listener may log in to the proxy.
func takesAccounts(l Listener) bool { return l.Mode == Explicit || l.ProxyLogin }

// proxyLogin checks where a login to the proxy is asked for.
func (k *checker) proxyLogin(key string, l *Listener, a *Accounts) {
	switch {
	case !l.ProxyLogin:
	case l.Mode == Explicit:
		k.fault(key+".proxy_login", "is not for the mode explicit, whose clients log in anyway where there are accounts")
	case !a.Given():
		k.fault(key+".proxy_login", "is given without accounts; write accounts.file, or accounts.ldap")
	case l.TLS == TLSPass:
		k.fault(key+".proxy_login", "is given with tls: pass, of which no login is seen")
	}
}

// strangeAccounts warns of accounts that nobody will log in with.
func (k *checker) strangeAccounts(c *Config) {
	if c.Accounts.Given() && !slices.ContainsFunc(c.Listeners, takesAccounts) {
		k.warn("accounts", "nobody logs in with them: no listener is of mode explicit, or has proxy_login")
	}
}
