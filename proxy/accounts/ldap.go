package accounts

import (
	"context"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"net"
	"net/url"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/go-ldap/ldap/v3"
)

// LDAP says how a directory (RFC 4511) knows accounts: by a bind as UserDN, or as whom Filter finds.
type LDAP struct {
	// URL is ldaps://host[:port], or ldap://host[:port], where StartTLS (RFC 4511 §4.14) comes before all else. Passwords
	// cross no network in plain text.
	URL string
	// Roots are the authorities of the directory's certificate. Nil: the system's.
	Roots *x509.CertPool
	// UserDN is whom to bind as, with {name} for the account's name. Empty: Base and Filter find the account.
	UserDN string
	Base   string
	Filter string // with {name}
	// BindDN and BindPasswordFile are who searches. Empty: anybody may.
	BindDN           string
	BindPasswordFile string
	// GroupBase and GroupFilter, with {name} and {dn}, find the groups of an account, whose names are their cn. It must be
	// in one at least. Empty: accounts have the groups of Options.Groups, and need none.
	GroupBase   string
	GroupFilter string
	Timeout     time.Duration // for all that one login asks, positive
}

// maxConns is how many connections to the directory there are at once: those who guess must not fill it.
const maxConns = 16

// maxGroups is how many groups of an account are read.
const maxGroups = 1000

// directory is a source.
type directory struct {
	LDAP
	tls      *tls.Config
	files    *files // its groups; nil: none
	password string // BindDN's
	conns    chan struct{}

	mu   sync.Mutex
	knew map[string]knowledge // what known has found
}

// knowledge is whether there is an account, as of a time.
type knowledge struct {
	yes bool
	at  time.Time
}

// What known has found is believed for a minute, so that logins do not all search twice. It is bounded, as those who say
// USER can say any name.
const (
	knownFor = time.Minute
	maxKnew  = 4096
)

// newDirectory reads the files that the options name. The directory itself is asked when somebody logs in.
func newDirectory(l LDAP, o Options) (*directory, []Fault) {
	d := &directory{LDAP: l, conns: make(chan struct{}, maxConns), knew: map[string]knowledge{}}
	var faults []Fault
	u, err := url.Parse(l.URL)
	if err != nil || u.Hostname() == "" {
		return nil, []Fault{{"ldap.url", "is no URL; write ldaps://HOST or ldap://HOST"}}
	}
	d.tls = &tls.Config{ServerName: u.Hostname(), RootCAs: l.Roots, MinVersion: tls.VersionTLS12}
	for _, f := range []struct{ key, filter string }{{"ldap.filter", l.Filter}, {"ldap.group_filter", l.GroupFilter}} {
		if f.filter == "" {
			continue
		}
		if _, err := ldap.CompileFilter(fill(f.filter, ldap.EscapeFilter, "name", "dn")); err != nil {
			faults = append(faults, Fault{f.key, fmt.Sprintf("%q is no filter (RFC 4515): %v", f.filter, bareLDAP(err))})
		}
	}
	for _, f := range []struct{ key, dn string }{{"ldap.user_dn", l.UserDN}, {"ldap.base", l.Base}, {"ldap.bind_dn", l.BindDN}, {"ldap.group_base", l.GroupBase}} {
		if _, err := ldap.ParseDN(fill(f.dn, ldap.EscapeDN, "name", "")); err != nil {
			faults = append(faults, Fault{f.key, fmt.Sprintf("%q is no DN (RFC 4514): %v", f.dn, err)})
		}
	}
	if l.BindPasswordFile != "" {
		text, _, err := content(l.BindPasswordFile)
		d.password = strings.TrimRight(string(text), "\r\n")
		if err == nil && d.password == "" {
			err = errors.New("is empty; write the password of ldap.bind_dn into it")
		}
		if err != nil {
			faults = append(faults, Fault{"ldap.bind_password_file", fmt.Sprintf("%s: %v", l.BindPasswordFile, err)})
		}
	}
	if o.Groups != "" {
		o.File = ""
		var found []Fault
		d.files, found = openFiles(o)
		faults = append(faults, found...)
	}
	if len(faults) > 0 {
		return nil, faults
	}
	return d, nil
}

func bareLDAP(err error) error {
	if e, ok := errors.AsType[*ldap.Error](err); ok && e.Err != nil {
		return e.Err
	}
	return err
}

// fill puts a name and a DN, escaped, into a template. What is put in is not looked at again: a name may be {dn}.
func fill(template string, escape func(string) string, name, dn string) string {
	return strings.NewReplacer("{name}", escape(name), "{dn}", escape(dn)).Replace(template)
}

// ascii reports whether a name has nothing but printable ASCII. A directory takes many other names for one account
// (RFC 4518), and each would be a chance to guess, and a way around a rule.
func ascii(name string) bool {
	return !strings.ContainsFunc(name, func(c rune) bool { return c <= ' ' || c > '~' })
}

// verify binds as the account. Names are in lower case from here on, as a directory knows no difference and rules do.
func (d *directory) verify(ctx context.Context, name, password string) (*Account, error) {
	if !ascii(name) {
		return nil, ErrFailed
	}
	name = strings.ToLower(name)
	a := &Account{Name: name}
	err := d.converse(ctx, func(c *ldap.Conn) error {
		dn, err := d.find(c, name)
		if err != nil {
			return err
		}
		nobody := dn == ""
		if nobody {
			// Nobody is bound as, too, so that it takes as long.
			dn = fill("cn={name},"+d.Base, ldap.EscapeDN, rand.Text(), "")
		}
		if err := c.Bind(dn, password); err != nil || nobody {
			return verdict(err)
		}
		a.Groups, err = d.groupsOf(c, name, dn)
		return err
	})
	if err != nil {
		return nil, err
	}
	return a, nil
}

// verdict is what a directory says to a bind with a password.
func verdict(err error) error {
	// The password is wrong, the account is locked or expired, or nobody can log in as it.
	if err == nil || ldap.IsErrorAnyOf(err, ldap.LDAPResultInvalidCredentials, ldap.LDAPResultNoSuchObject, ldap.LDAPResultConstraintViolation,
		ldap.LDAPResultInappropriateAuthentication, ldap.LDAPResultUnwillingToPerform, ldap.LDAPResultInsufficientAccessRights) {
		return ErrFailed
	}
	return err
}

// find is the DN of a name, empty if there is none.
func (d *directory) find(c *ldap.Conn, name string) (string, error) {
	if d.UserDN != "" {
		return fill(d.UserDN, ldap.EscapeDN, name, ""), nil
	}
	if err := d.bind(c); err != nil {
		return "", err
	}
	r, err := d.search(c, d.Base, fill(d.Filter, ldap.EscapeFilter, name, ""), 2)
	if ldap.IsErrorWithCode(err, ldap.LDAPResultSizeLimitExceeded) || err == nil && len(r.Entries) > 1 {
		return "", fmt.Errorf("accounts.ldap.filter finds more than one entry for %q", name)
	}
	if err != nil || len(r.Entries) == 0 {
		return "", err
	}
	return r.Entries[0].DN, nil
}

// bind binds as who searches.
func (d *directory) bind(c *ldap.Conn) error {
	if d.BindDN == "" {
		return nil
	}
	if err := c.Bind(d.BindDN, d.password); err != nil {
		return fmt.Errorf("bind as %s: %w", d.BindDN, err)
	}
	return nil
}

func (d *directory) search(c *ldap.Conn, base, filter string, most int) (*ldap.SearchResult, error) {
	return c.Search(ldap.NewSearchRequest(base, ldap.ScopeWholeSubtree, ldap.NeverDerefAliases, most, max(1, int(d.Timeout.Seconds())), false,
		filter, []string{"cn"}, nil))
}

// groupsOf are the groups of an account that has logged in on the connection.
func (d *directory) groupsOf(c *ldap.Conn, name, dn string) (groups []string, err error) {
	if d.files != nil {
		groups = append(groups, d.files.now().members[name]...)
	}
	if d.GroupFilter != "" {
		if err := d.bind(c); err != nil {
			return nil, err
		}
		r, err := d.search(c, d.GroupBase, fill(d.GroupFilter, ldap.EscapeFilter, name, dn), maxGroups)
		if err != nil {
			return nil, err
		}
		if len(r.Entries) == 0 {
			return nil, ErrFailed
		}
		for _, e := range r.Entries {
			groups = append(groups, e.GetAttributeValues("cn")...)
		}
	}
	slices.Sort(groups)
	return slices.Compact(groups), nil
}

// known searches for the account. Where names make DNs nothing can be known without a password: the answer is no.
func (d *directory) known(ctx context.Context, name string) bool {
	if d.UserDN != "" || !ascii(name) {
		return false
	}
	name = strings.ToLower(name)
	d.mu.Lock()
	k, ok := d.knew[name]
	d.mu.Unlock()
	if ok && time.Since(k.at) < knownFor {
		return k.yes
	}
	yes := false
	err := d.converse(ctx, func(c *ldap.Conn) error {
		dn, err := d.find(c, name)
		yes = dn != ""
		return err
	})
	if err != nil {
		return true
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	if len(d.knew) >= maxKnew {
		clear(d.knew)
	}
	d.knew[name] = knowledge{yes, time.Now()}
	return yes
}

// converse has a conversation with the directory, over TLS. Its errors are ErrFailed, the context's, or have
// ErrUnavailable in them.
func (d *directory) converse(ctx context.Context, say func(*ldap.Conn) error) error {
	limited, cancel := context.WithTimeout(ctx, d.Timeout)
	defer cancel()
	err := d.connected(limited, say)
	by, bounded := ctx.Deadline()
	switch {
	case err == nil, errors.Is(err, ErrFailed):
		return err
	case ctx.Err() != nil:
		return ctx.Err()
	case bounded && !time.Now().Before(by): // sockets may see it before the context does
		return context.DeadlineExceeded
	}
	return fmt.Errorf("%w: %s: %w", ErrUnavailable, d.URL, err)
}

func (d *directory) connected(ctx context.Context, say func(*ldap.Conn) error) error {
	select {
	case d.conns <- struct{}{}:
		defer func() { <-d.conns }()
	case <-ctx.Done():
		return ctx.Err()
	}
	by, _ := ctx.Deadline()
	c, err := ldap.DialURL(d.URL, ldap.DialWithTLSDialer(d.tls, &net.Dialer{Deadline: by}))
	if err != nil {
		return err
	}
	defer c.Close()
	defer context.AfterFunc(ctx, func() { c.Close() })()
	c.SetTimeout(time.Until(by))
	if strings.HasPrefix(d.URL, "ldap:") {
		if err := c.StartTLS(d.tls); err != nil {
			return err
		}
	}
	return say(c)
}
