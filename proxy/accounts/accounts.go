// Package accounts says who may use the proxy: it checks names and passwords against an htpasswd file or an LDAP
// directory, and slows down and turns away those who guess. It knows nothing of FTP, HTTP or SOCKS, which all ask it.
//
// Its adversaries are those who guess passwords, from one address or from many, who want to know which accounts there are,
// who want to keep our processors busy with hashes, and who choose names so that the log says what did not happen.
package accounts

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/netip"
	"slices"
	"strings"
	"time"
)

// Account is somebody who has logged in to the proxy. It is not changed any more: a reload is for later logins.
type Account struct {
	Name   string
	Groups []string // sorted, without doubles; empty: none
}

// In reports whether the account is one of the names, or in one of the groups. Nobody, nil, is not.
func (a *Account) In(names, groups []string) bool {
	return a != nil && (slices.Contains(names, a.Name) ||
		slices.ContainsFunc(groups, func(g string) bool { return slices.Contains(a.Groups, g) }))
}

// Why a login fails. Login's errors are one of these, *Later, or the context's.
var (
	// ErrFailed: there is no such account, or the password is not its own. Which, is not said.
	ErrFailed = errors.New("wrong account or password")
	// ErrUnavailable: nobody could be asked. It is in the error, with the cause.
	ErrUnavailable = errors.New("accounts cannot be looked up")
	// ErrNeeded is for those who refuse because nobody has logged in, so that whoever can ask for a login does.
	ErrNeeded = errors.New("a proxy login is needed")
)

// Later is the error of a login that was not tried because of those that failed before.
type Later struct{ Until time.Time }

func (l *Later) Error() string {
	return "too many failed logins; not before " + l.Until.Format(time.TimeOnly)
}

// Options say where accounts are and how guessers are met. Either File or LDAP is set.
type Options struct {
	// File is in the format of Apache's htpasswd, name:hash, with bcrypt and SHA-crypt alone. It is read again when it
	// has changed.
	File string
	// Groups is in the format of Apache's group file, group: name name. Empty: there are no groups but the directory's.
	Groups string
	LDAP   *LDAP // nil: none
	Limits Limits
	// Log hears of failures, one line each, and of files that are wrong. It must be there for New.
	Log *slog.Logger
}

// Fault is what is wrong with a file that Options name. Its text begins with the file and, where there is one, the line.
type Fault struct {
	Key  string // file, groups, ldap.ca, …
	Text string
}

// Longest that is looked at, in bytes: SHA-crypt's time grows with the password's, and a log line with the name.
const (
	maxName     = 128
	maxPassword = 512
)

// source is where accounts are. An error of verify is ErrFailed or has ErrUnavailable in it.
type source interface {
	verify(ctx context.Context, name, password string) (*Account, error)
	known(ctx context.Context, name string) bool
}

// Accounts are those of one configuration. All methods may be called from any goroutine.
type Accounts struct {
	source source
	guard  *Guard
	limits Limits
	log    *slog.Logger
}

// New reads what Options name, or says all that is wrong with it. The guard is shared with earlier and later ones, so that
// a reload of the configuration forgives nobody.
func New(o Options, guard *Guard) (*Accounts, []Fault) {
	a := &Accounts{guard: guard, limits: o.Limits, log: o.Log}
	if o.LDAP != nil {
		d, faults := newDirectory(*o.LDAP, o)
		if len(faults) > 0 {
			return nil, faults
		}
		a.source = d
		return a, nil
	}
	f, faults := openFiles(o)
	if len(faults) > 0 {
		return nil, faults
	}
	a.source = &hashed{files: f, guard: guard}
	return a, nil
}

// Missing says which of some names and groups there are not, of those that a configuration speaks of. What only a
// directory knows is taken to be there.
func (a *Accounts) Missing(names, groups []string) (noNames, noGroups []string) {
	s, ok := a.source.(*hashed)
	if !ok {
		return nil, nil
	}
	t := s.files.table.Load()
	for _, n := range names {
		if t.entries[n] == nil {
			noNames = append(noNames, n)
		}
	}
	for _, g := range groups {
		if !t.groups[g] {
			noGroups = append(noGroups, g)
		}
	}
	return noNames, noGroups
}

// Known reports whether there is an account of the name. It is for telling what a client means by USER name@host, and never
// for answers: those would tell which accounts there are. When a directory cannot be asked, the answer is yes: it is
// better that a login fails than that the proxy's password goes to a server.
func (a *Accounts) Known(ctx context.Context, name string) bool {
	return plausible(name) && a.source.known(ctx, name)
}

// Login checks a name and a password that a client, by its address, has given. It waits first if it must, because of
// earlier failures; ctx ends that. A failure is one line in the log, with the client first: nothing that the client
// chose comes before it, so that no name can stand for another address.
func (a *Accounts) Login(ctx context.Context, client netip.Addr, name, password string) (*Account, error) {
	client = client.Unmap().WithZone("")
	try, err := a.guard.begin(ctx, a.limits, client, name)
	if err != nil {
		return nil, err
	}
	account, err := a.check(ctx, name, password)
	banned := try.end(err)
	if errors.Is(err, ErrFailed) {
		a.log.Warn("proxy login failed", "client", client, "account", strings.ToValidUTF8(name[:min(len(name), maxName)], "?"))
	}
	if banned {
		a.log.Warn("proxy logins are refused for some time", "client", client, "for", a.limits.Ban.String())
	}
	return account, err
}

func (a *Accounts) check(ctx context.Context, name, password string) (*Account, error) {
	// An LDAP bind without a password succeeds, and proves nothing (RFC 4513 §5.1.2).
	if !plausible(name) || password == "" || len(password) > maxPassword {
		return nil, ErrFailed
	}
	account, err := a.source.verify(ctx, name, password)
	if errors.Is(err, ErrUnavailable) {
		a.log.Error("proxy accounts cannot be looked up", "error", err)
	}
	return account, err
}

// plausible reports whether an account can have the name. Blanks and control characters have no place in logins, and a
// colon ends a name in the file.
func plausible(name string) bool { return nameFault(name) == "" }

// nameFault says why a name is none; empty: it is one.
func nameFault(name string) string {
	switch {
	case name == "":
		return "has no name before the colon"
	case len(name) > maxName:
		return fmt.Sprintf("has a name of more than %d bytes", maxName)
	case strings.ContainsFunc(name, func(c rune) bool { return c <= ' ' || c == 0x7F || c == ':' || c == '\uFFFD' }):
		return "has a name with blanks, colons or control characters, or that is not UTF-8"
	}
	return ""
}
