package proxy

import (
	"bytes"
	"context"
	"errors"
	"log/slog"
	"net/netip"
	"os"
	"strings"
	"testing"
	"time"

	"ftpalg/config"
	"ftpalg/control"
	"ftpalg/proxy/accounts"
)

// userFile makes an htpasswd file of one account.
func userFile(t *testing.T, name, password string) string {
	t.Helper()
	line, err := accounts.Entry(name, password, 4)
	if err != nil {
		t.Fatal(err)
	}
	file := t.TempDir() + "/users"
	if err := os.WriteFile(file, []byte(line+"\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	return file
}

// One session logs in: the account is what rules and later log lines have, and whoever fails is nobody again.
func TestProxyLogin(t *testing.T) {
	var said bytes.Buffer
	log := slog.New(slog.NewTextHandler(&said, nil))
	cfg := config.Default()
	cfg.Accounts.File = config.File(userFile(t, "alice", "right"))
	cfg.Accounts.Failures = 2
	known, faults := openAccounts(cfg, accounts.NewGuard(), log)
	if len(faults) > 0 {
		t.Fatal(faults)
	}
	observer := &logger{}
	observer.log.Store(log.With("session", "1"))
	l := &proxyLogin{accounts: known, n: &network{client: netip.MustParseAddrPort("192.0.2.7:1234"), listener: &config.Listener{Mode: config.Explicit}}, log: observer, alive: t.Context()}
	if !l.Known("alice") || l.Known("bob") {
		t.Error("who is known is wrong")
	}
	if r := l.Login(t.Context(), "alice", "right"); r != nil || l.n.account == nil || l.n.account.Name != "alice" {
		t.Fatal(r, l.n.account)
	}
	observer.Observe(control.LoggedIn{User: "x"})
	if r := l.Login(t.Context(), "alice", "wrong"); r == nil || r.Code != 530 || r.End || l.n.account != nil {
		t.Error(r, l.n.account)
	}
	if r := l.Login(t.Context(), "nobody", "wrong"); r == nil || r.Code != 530 || r.Text != "Proxy login incorrect" {
		t.Error(r)
	}
	if r := l.Login(t.Context(), "alice", "right"); r == nil || r.Code != 421 || !r.End || !errors.As(r, new(*accounts.Later)) {
		t.Error(r)
	}
	text := said.String()
	for _, want := range []string{
		`level=INFO msg="logged in" session=1 account=alice user=x` + "\n",
		`level=WARN msg="proxy login failed" client=192.0.2.7 account=alice` + "\n",
		`level=WARN msg="proxy login failed" client=192.0.2.7 account=nobody` + "\n",
		`level=WARN msg="proxy logins are refused for some time" client=192.0.2.7 for=15m0s` + "\n",
	} {
		if strings.Count(text, want) != 1 {
			t.Errorf("no %q in %s", want, text)
		}
	}
	if strings.Contains(text, "right") || strings.Contains(text, "wrong") {
		t.Error("a password is in the log:", text)
	}
}

// Those who are made to wait are not in the way when sessions are cut off.
func TestProxyLoginCutOff(t *testing.T) {
	cfg := config.Default()
	cfg.Accounts.File = config.File(userFile(t, "alice", "right"))
	known, faults := openAccounts(cfg, accounts.NewGuard(), slog.New(slog.DiscardHandler))
	if len(faults) > 0 {
		t.Fatal(faults)
	}
	alive, cut := context.WithCancel(t.Context())
	defer cut()
	l := &proxyLogin{accounts: known, n: &network{client: netip.MustParseAddrPort("192.0.2.7:1234")}, alive: alive}
	for range 4 {
		l.Login(t.Context(), "alice", "")
		time.AfterFunc(10*time.Millisecond, cut)
	}
	if r := l.Login(t.Context(), "alice", "right"); r == nil || !errors.Is(r, context.Canceled) {
		t.Error(r)
	}
}

// A reload forgives nobody, and accounts of which one file is wrong are not taken over.
func TestReloadAccounts(t *testing.T) {
	cfg := config.Default()
	cfg.Listeners[0].Address = netip.MustParseAddrPort("127.0.0.1:0")
	cfg.Accounts.File = config.File(userFile(t, "alice", "right"))
	cfg.Accounts.Failures = 1
	p, err := New(cfg, slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	defer p.Close()
	current := func() *accounts.Accounts {
		for _, l := range p.listeners {
			return l.setting.Load().accounts
		}
		return nil
	}
	client := netip.MustParseAddr("192.0.2.7")
	if _, err := current().Login(t.Context(), client, "alice", "wrong"); !errors.Is(err, accounts.ErrFailed) {
		t.Fatal(err)
	}
	next := *cfg
	next.Accounts.File = config.File(userFile(t, "bob", "right"))
	if err := p.Reload(&next); err != nil {
		t.Fatal(err)
	}
	if _, err := current().Login(t.Context(), client, "bob", "right"); !errors.As(err, new(*accounts.Later)) {
		t.Error("the ban is over:", err)
	}
	wrong := next
	wrong.Accounts.File = "/none"
	if err := p.Reload(&wrong); err == nil || !strings.Contains(err.Error(), "accounts.file") {
		t.Error(err)
	}
	if !current().Known(t.Context(), "bob") {
		t.Error("the old accounts are gone")
	}
}
