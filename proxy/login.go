package proxy

import (
	"context"
	"errors"
	"fmt"
	"log/slog"

	"ftpalg/config"
	"ftpalg/control"
	"ftpalg/proxy/accounts"
	"ftpalg/tlsmitm"
)

// Check says what is wrong with the files that a configuration names and with its rules, and warns of rules that are of no use. It is
// for config.Options.Check.
func Check(cfg *config.Config) (faults, warnings config.Faults) {
	known, unknown := openAccounts(cfg, nil, nil)
	g, wrong := newRegime(cfg, known)
	if g != nil {
		warnings = g.set.Unreachable()
	}
	return append(append(CheckTLS(cfg), unknown...), wrong...), warnings
}

// openAccounts reads the accounts of a configuration, nil if it has none, or says what is wrong with them.
func openAccounts(cfg *config.Config, guard *accounts.Guard, log *slog.Logger) (a *accounts.Accounts, faults config.Faults) {
	c := &cfg.Accounts
	if !c.Given() {
		return nil, nil
	}
	o := accounts.Options{
		File: string(c.File), Groups: string(c.Groups), Log: log,
		Limits: accounts.Limits{Failures: c.Failures, Window: c.Window, Ban: c.Ban},
	}
	if l := &c.LDAP; l.URL != "" {
		o.LDAP = &accounts.LDAP{URL: l.URL, UserDN: l.UserDN, Base: l.Base, Filter: l.Filter, BindDN: l.BindDN,
			BindPasswordFile: string(l.BindPasswordFile), GroupBase: l.GroupBase, GroupFilter: l.GroupFilter, Timeout: l.Timeout}
		if l.GroupBase == "" {
			o.LDAP.GroupBase = l.Base
		}
		if l.CA != "" {
			var err error
			if o.LDAP.Roots, err = tlsmitm.LoadRoots(string(l.CA)); err != nil {
				faults = append(faults, config.Fault{Key: "accounts.ldap.ca", Text: err.Error()})
			}
		}
	}
	a, found := accounts.New(o, guard)
	for _, f := range found {
		faults = append(faults, config.Fault{Key: "accounts." + f.Key, Text: f.Text})
	}
	if len(faults) > 0 {
		return nil, faults
	}
	for i, d := range cfg.Destinations {
		faults = append(faults, missing(fmt.Sprintf("destinations[%d]", i), d.Accounts, d.Groups, cfg, a)...)
	}
	return a, faults
}

// missing says which accounts and groups a rule speaks of that there are not: one that denies them would deny nobody.
func missing(key string, accounts, groups []config.Account, cfg *config.Config, a *accounts.Accounts) (faults config.Faults) {
	names, unknown := a.Missing(asStrings(accounts), asStrings(groups))
	for _, n := range names {
		faults = append(faults, config.Fault{Key: key + ".accounts", Text: fmt.Sprintf("%q is no account in %s", n, cfg.Accounts.File)})
	}
	for _, g := range unknown {
		text := fmt.Sprintf("%q is no group in %s", g, cfg.Accounts.Groups)
		if cfg.Accounts.Groups == "" {
			text = fmt.Sprintf("%q is no group: write accounts.groups", g)
		}
		faults = append(faults, config.Fault{Key: key + ".groups", Text: text})
	}
	return faults
}

// proxyLogin logs one session in to the proxy. It is control.Accounts.
type proxyLogin struct {
	accounts *accounts.Accounts
	p        *Proxy
	n        *network
	log      *logger
	alive    context.Context // done when sessions are cut off
}

// Known implements control.Accounts.
func (l *proxyLogin) Known(name string) bool { return l.accounts.Known(l.alive, name) }

// Login implements control.Accounts. Whoever fails is nobody again.
func (l *proxyLogin) Login(ctx context.Context, name, password string) *control.Refusal {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	defer context.AfterFunc(l.alive, cancel)()
	l.n.account = nil
	a, err := l.accounts.Login(ctx, l.n.client.Addr(), name, password)
	if err != nil {
		return loginRefusal(err)
	}
	l.n.account = a
	l.log.identify(a.Name)
	if l.n.listener.ProxyLogin {
		// The server was connected before; whether this account may go there shows now.
		if rule, r := l.p.destined(l.n.cfg, l.n.listener, l.n.client.Addr(), a, l.n.place); r != nil {
			r.Code, r.End = 421, true
			return r
		} else if rule != l.n.rule {
			l.log.log.Load().Warn("another rule allows the account's server than it was connected by; the TLS of the first one holds", "rule", fmt.Sprintf("destinations[%d]", rule))
		}
	}
	return nil
}

// loginRefusal is what a client is told of a proxy login that failed: not whether there is the account.
func loginRefusal(err error) *control.Refusal {
	r := &control.Refusal{Code: 530, Text: "Proxy login incorrect", Rule: "accounts", Err: err}
	switch {
	case errors.Is(err, accounts.ErrFailed):
	case errors.As(err, new(*accounts.Later)):
		r.Code, r.End, r.Text = 421, true, "Too many failed proxy logins, try again later"
	default:
		r.Text = "Proxy accounts cannot be looked up, try again later"
	}
	return r
}
