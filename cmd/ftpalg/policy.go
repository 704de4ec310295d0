package main

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"net/netip"
	"os"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"ftpalg/config"
	"ftpalg/control"
	"ftpalg/proxy"
	"ftpalg/proxy/audit"
	"ftpalg/proxy/policy"
)

// errDenied is that `ftpalg policy test` has found something that is denied. It has said so.
var errDenied = errors.New("denied")

func newPolicy(o *options) *cobra.Command {
	c := &cobra.Command{
		Use: "policy", Short: "Ask what the rules would say", Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error { return cmd.Help() },
	}
	c.AddCommand(newPolicyTest(o))
	return c
}

// study is what `ftpalg policy test` is told of the session.
type study struct {
	facts                          proxy.Rehearsal
	client, server, at, transcript string
	user, cwd                      string
	size                           int64
	clientTLS, serverTLS           bool
}

func newPolicyTest(o *options) *cobra.Command {
	var t study
	c := &cobra.Command{
		Use: "test [flags] ['COMMAND ARGUMENT' …]", Short: "Print what becomes of commands, and by which rule",
		Long: `Test holds commands against the rules of the configuration, one after the other in one session, and says of each
what becomes of it, which rule decides, and why those before it do not match. Nothing is connected to.

A command has a line for each thing that it may do: a class of doing, and a path in one of the ways in which servers
read it. ~ marks the way of servers like Windows'. Any of them that is denied denies the command.

A transcript has a command of the client on each line that begins with ">", and a reply of the server on each that
begins with "<", which is how the working directory becomes known; other lines are ignored. If no line begins with
either, each is a command.

The exit code is 0 if all commands are allowed, 3 if any is denied.`,
		Example: `  ftpalg policy test -c ftpalg.yaml --client 192.0.2.7 --user alice --cwd /pub 'STOR x.exe' 'RETR ../private/a'
  ftpalg policy test -c ftpalg.yaml --user alice --transcript session.txt`,
		RunE: func(cmd *cobra.Command, args []string) error {
			cfg, err := o.load(cmd.ErrOrStderr(), proxy.Check)
			if err != nil {
				return err
			}
			return t.run(cfg, args, cmd.InOrStdin(), cmd.OutOrStdout())
		},
	}
	f := c.Flags()
	f.StringVar(&t.facts.Listener, "listener", "", "`name` of the listener; the configuration's first by itself")
	f.StringVar(&t.client, "client", "127.0.0.1", "`address` of the client")
	f.StringVar(&t.server, "server", "", "`address` of the server, IP or IP:PORT; not given, it is not known, and no rule about servers matches")
	f.StringVar(&t.facts.Host, "server-name", "", "`name` by which the server was called")
	f.StringVar(&t.user, "user", "", "FTP `user` that has logged in; nobody by itself")
	f.StringVar(&t.facts.Account, "account", "", "`account` of the proxy that has logged in")
	f.StringSliceVar(&t.facts.Groups, "group", nil, "`group` of the account; may be repeated")
	f.StringVar(&t.cwd, "cwd", "", "working `directory`; not known by itself")
	f.Int64Var(&t.size, "size", -1, "`bytes` of the file, if that is known")
	f.BoolVar(&t.clientTLS, "client-tls", false, "the client's connections have TLS, for data too")
	f.BoolVar(&t.serverTLS, "server-tls", false, "the server's connections have TLS, for data too")
	f.StringVar(&t.at, "at", "", "`time` of day and week, as 2026-11-23T08:00:00Z; now by itself")
	f.StringVar(&t.transcript, "transcript", "", "`file` with a transcript; - is standard input")
	return c
}

func (t *study) run(cfg *config.Config, commands []string, stdin io.Reader, w io.Writer) error {
	bound, now, err := t.bind(cfg)
	if err != nil {
		return err
	}
	s := control.NewStudy(t.user, t.cwd)
	s.Protect([2]bool{t.clientTLS, t.serverTLS}, [2]bool{t.clientTLS, t.serverTLS})
	denied := false
	ask := func(line string) error {
		r, err := s.Request(line)
		if err != nil {
			return fmt.Errorf("%q %w", line, err)
		}
		if r.Moves && t.size >= 0 {
			r.Size = t.size
		}
		d := bound.Decide(r, now)
		denied = denied || !d.Allow
		showRuling(w, line, d, bound.Explain(r, now))
		return nil
	}
	for _, line := range commands {
		if err := ask(line); err != nil {
			return err
		}
	}
	switch {
	case t.transcript != "":
		if err := t.follow(s, ask, stdin); err != nil {
			return err
		}
	case len(commands) == 0:
		return errors.New("say a command, in quotes, or give --transcript")
	}
	if denied {
		return errDenied
	}
	return nil
}

// bind makes the rules ready for the session that is imagined.
func (t *study) bind(cfg *config.Config) (*policy.Bound, time.Time, error) {
	now := time.Now()
	var err error
	if t.at != "" {
		if now, err = time.Parse(time.RFC3339, t.at); err != nil {
			return nil, now, fmt.Errorf("--at %q is no time: write it as 2026-11-23T08:00:00Z or 2026-11-23T08:00:00+01:00", t.at)
		}
	}
	if t.facts.Client, err = netip.ParseAddr(t.client); err != nil {
		return nil, now, fmt.Errorf("--client %q is no address", t.client)
	}
	if t.server != "" {
		if t.facts.Server, err = netip.ParseAddrPort(t.server); err != nil {
			a, err := netip.ParseAddr(t.server)
			if err != nil {
				return nil, now, fmt.Errorf("--server %q is no address: write 192.0.2.1, 192.0.2.1:21 or [2001:db8::1]:21; its name is for --server-name", t.server)
			}
			t.facts.Server = netip.AddrPortFrom(a, 21)
		}
	}
	bound, err := proxy.Rehearse(cfg, t.facts)
	return bound, now, err
}

// follow reads a transcript.
func (t *study) follow(s *control.Study, ask func(string) error, stdin io.Reader) error {
	in := stdin
	if t.transcript != "-" {
		f, err := os.Open(t.transcript)
		if err != nil {
			return fail(err)
		}
		defer f.Close()
		in = f
	}
	var lines []string
	arrows := false
	scan := bufio.NewScanner(in)
	for scan.Scan() {
		line := scan.Text()
		arrows = arrows || strings.HasPrefix(line, ">") || strings.HasPrefix(line, "<")
		lines = append(lines, line)
	}
	if err := scan.Err(); err != nil {
		return fail(err)
	}
	asked := false
	for _, line := range lines {
		text := line
		if arrows {
			text = strings.TrimLeft(line, "<> ")
		}
		switch {
		case text == "":
		case strings.HasPrefix(line, ">"), !arrows:
			asked = true
			if err := ask(text); err != nil {
				return err
			}
		case strings.HasPrefix(line, "<"):
			// The last line of a reply, as RFC 959 §4.2 has it.
			if code, err := strconv.Atoi(text[:min(3, len(text))]); err == nil && len(text) > 3 && text[3] == ' ' && code >= 200 {
				s.Answer(code, text[4:])
			}
		}
	}
	if !asked {
		// It would be taken for a session of which everything is allowed.
		return fail(fmt.Errorf("%s has no command: those of a client begin with >, or no line has an arrow", t.transcript))
	}
	return nil
}

// showRuling prints what becomes of a command.
func showRuling(w io.Writer, line string, d policy.Decision, acts []policy.Explanation) {
	by := "the default"
	if d.Rule != nil {
		by = fmt.Sprintf("%s (rule %d)", d.Rule.Name, d.Rule.Index+1)
	}
	verdict := "allowed"
	if !d.Allow {
		verdict = fmt.Sprintf("denied with %d %s", d.Refusal.Code, d.Refusal.Text)
	}
	fmt.Fprintf(w, "%s: %s, by %s\n", strconv.Quote(line), verdict, by)
	if d.Until > 0 {
		fmt.Fprintf(w, "  asked again after %d bytes\n", d.Until)
	}
	for _, e := range acts {
		p := e.Act.Path
		fmt.Fprintf(w, "  %s", e.Act.Class)
		if p.Extent != control.NoPath {
			fmt.Fprintf(w, ", %s", p.Extent)
		}
		if p.Text != "" {
			fmt.Fprintf(w, " %q", p.Text)
		}
		if p.Loose {
			fmt.Fprint(w, " ~")
		}
		fmt.Fprintf(w, ": %s\n", map[bool]string{true: "allowed", false: "denied"}[e.Allow])
		for _, step := range e.Steps {
			why := step.Why
			if why == "" {
				why = "matches"
			}
			fmt.Fprintf(w, "    %s: %s\n", step.Rule.Name, why)
		}
		if e.Text != "" {
			fmt.Fprintf(w, "    %s\n", e.Text)
		}
	}
}

func newAudit() *cobra.Command {
	c := &cobra.Command{
		Use: "audit", Short: "About the audit", Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error { return cmd.Help() },
	}
	c.AddCommand(&cobra.Command{
		Use: "schema", Short: "Print the JSON Schema of a line of the audit", Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			_, err := cmd.OutOrStdout().Write(audit.JSONSchema)
			return fail(err)
		},
	})
	return c
}
