package main

import (
	"cmp"
	"encoding/json"
	"fmt"
	"io"
	"slices"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"

	"ftpalg/proxy/admin"
)

// defaultSocket is where the commands of an administrator look if nothing tells them.
const defaultSocket = "/run/ftpalg/admin.sock"

// administration are the commands that speak to a running gateway.
func administration(o *options) []*cobra.Command {
	return []*cobra.Command{newSessions(o), newKill(o), newDrain(o), newReload(o), newStats(o), newLogLevel(o)}
}

// asks makes a command one that speaks to the running gateway.
func asks(o *options, c *cobra.Command, do func(cmd *cobra.Command, gateway *admin.Client, args []string) error) *cobra.Command {
	var socket string
	c.Flags().StringVar(&socket, "socket", "", "`path` of the gateway's admin.socket; that of the configuration, or "+defaultSocket+", by default")
	c.RunE = func(cmd *cobra.Command, args []string) error {
		path := socket
		if path == "" && o.config != "" {
			cfg, err := o.load(io.Discard, nil)
			if err != nil {
				return err
			}
			if path = string(cfg.Admin.Socket); path == "" {
				return fail(fmt.Errorf("%s: admin.socket is not set, so the gateway hears no administrator", o.config))
			}
		}
		return fail(do(cmd, admin.NewClient(cmp.Or(path, defaultSocket)), args))
	}
	return c
}

func newSessions(o *options) *cobra.Command {
	var asJSON, watch bool
	c := asks(o, &cobra.Command{
		Use: "sessions [ID]", Short: "Show the sessions of the running gateway",
		Long: `Sessions lists who is connected to whom, and what moves. With an ID it shows one session and its last commands.
Downloads are from servers to clients. With --watch the list is shown anew every two seconds, with rates, until Ctrl-C.`,
		Args: cobra.MaximumNArgs(1),
	}, func(cmd *cobra.Command, gateway *admin.Client, args []string) error {
		out := cmd.OutOrStdout()
		if len(args) == 1 {
			s, err := gateway.Session(cmd.Context(), args[0])
			if err != nil {
				return err
			}
			if asJSON {
				return writeJSON(out, s)
			}
			writeSession(out, s)
			return nil
		}
		before := map[string]admin.Session{}
		for at := time.Now(); ; {
			ss, err := gateway.Sessions(cmd.Context())
			if err != nil {
				return err
			}
			if asJSON {
				return writeJSON(out, ss)
			}
			now := time.Now()
			if watch {
				io.WriteString(out, "\x1b[H\x1b[2J") // ECMA-48: home, and erase the display
				fmt.Fprintf(out, "%s, %d sessions\n", now.Format(time.TimeOnly), len(ss))
			}
			writeSessions(out, ss, before, now.Sub(at))
			if !watch {
				return nil
			}
			at = now
			clear(before)
			for _, s := range ss {
				before[s.ID] = s
			}
			select {
			case <-time.After(2 * time.Second):
			case <-cmd.Context().Done():
				return nil
			}
		}
	})
	c.Flags().BoolVar(&asJSON, "json", false, "print JSON")
	c.Flags().BoolVarP(&watch, "watch", "w", false, "show the list again and again, with rates")
	c.MarkFlagsMutuallyExclusive("json", "watch")
	return c
}

func newKill(o *options) *cobra.Command {
	return asks(o, &cobra.Command{
		Use: "kill ID...", Short: "End sessions of the running gateway, and what moves in them", Args: cobra.MinimumNArgs(1),
	}, func(cmd *cobra.Command, gateway *admin.Client, args []string) error {
		for _, id := range args {
			if err := gateway.Kill(cmd.Context(), id); err != nil {
				return fmt.Errorf("%s: %w", id, err)
			}
		}
		return nil
	})
}

func newDrain(o *options) *cobra.Command {
	return asks(o, &cobra.Command{
		Use: "drain", Short: "Have the running gateway take no more sessions, and end when its transfers have", Args: cobra.NoArgs,
		Long: "Drain is SIGTERM by another way: no more sessions are taken, transfers have timeouts.drain to finish, and the process ends.",
	}, func(cmd *cobra.Command, gateway *admin.Client, _ []string) error { return gateway.Drain(cmd.Context()) })
}

func newReload(o *options) *cobra.Command {
	return asks(o, &cobra.Command{
		Use: "reload", Short: "Have the running gateway read its configuration again, and say what is wrong with it", Args: cobra.NoArgs,
		Long: "Reload is SIGHUP with an answer: if the configuration is wrong the old one stays in force, the faults are printed, and the exit code is 1.",
	}, func(cmd *cobra.Command, gateway *admin.Client, _ []string) error {
		return gateway.Reload(cmd.Context())
	})
}

func newLogLevel(o *options) *cobra.Command {
	return asks(o, &cobra.Command{
		Use: "loglevel LEVEL", Short: "Set the level of the running gateway's log, until it reloads", Args: cobra.ExactArgs(1),
		ValidArgs: []string{"debug", "info", "warn", "error"},
	}, func(cmd *cobra.Command, gateway *admin.Client, args []string) error {
		return gateway.SetLevel(cmd.Context(), args[0])
	})
}

func newStats(o *options) *cobra.Command {
	var asJSON bool
	c := asks(o, &cobra.Command{
		Use: "stats", Short: "Show how the running gateway is, and what it has counted", Args: cobra.NoArgs,
	}, func(cmd *cobra.Command, gateway *admin.Client, _ []string) error {
		s, err := gateway.Stats(cmd.Context())
		if err != nil {
			return err
		}
		if asJSON {
			return writeJSON(cmd.OutOrStdout(), s)
		}
		writeStats(cmd.OutOrStdout(), s)
		return nil
	})
	c.Flags().BoolVar(&asJSON, "json", false, "print JSON")
	return c
}

func writeJSON(w io.Writer, v any) error {
	e := json.NewEncoder(w)
	e.SetIndent("", "  ")
	return e.Encode(v)
}

// writeSessions writes a table. before are the sessions some time ago, for rates; those that were not there have none.
func writeSessions(out io.Writer, ss []admin.Session, before map[string]admin.Session, passed time.Duration) {
	w := tabwriter.NewWriter(out, 0, 0, 2, ' ', 0)
	fmt.Fprintln(w, "ID\tLISTENER\tCLIENT\tSERVER\tUSER\tAGE\tSTATE\tDOWN\tUP\tRATE\tWHAT MOVES")
	for _, s := range ss {
		what, rate := "", ""
		if b, ok := before[s.ID]; ok && passed > 0 {
			if moved := s.Downloaded + s.Uploaded - b.Downloaded - b.Uploaded; moved > 0 {
				rate = size(int64(float64(moved)/passed.Seconds())) + "/s"
			}
		}
		if t := s.Transfer; t != nil {
			what = t.Verb
			if t.Path != "" {
				what += " " + printable(t.Path)
			}
			if t.Carriage != "" {
				what += " by " + t.Carriage
			}
		}
		fmt.Fprintf(w, "%s\t%s\t%s\t%s\t%s\t%s\t%s\t%s\t%s\t%s\t%s\n", s.ID, s.Listener, s.Client, whose(s), printable(s.User),
			time.Since(s.Since).Round(time.Second), s.State, size(s.Downloaded), size(s.Uploaded), rate, what)
	}
	w.Flush()
}

// whose is the server of a session, with its name where it has one.
func whose(s admin.Session) string {
	if s.ServerName != "" {
		return s.ServerName + " (" + s.Server + ")"
	}
	return s.Server
}

func writeSession(out io.Writer, s admin.Session) {
	w := tabwriter.NewWriter(out, 0, 0, 2, ' ', 0)
	row := func(name, value string) {
		if value != "" {
			fmt.Fprintf(w, "%s\t%s\n", name, value)
		}
	}
	row("session", s.ID)
	row("listener", s.Listener+" ("+s.Mode+")")
	row("state", string(s.State))
	row("client", s.Client)
	row("client's TLS", s.ClientTLS)
	row("server", whose(s))
	row("server's TLS", s.ServerTLS)
	row("account", printable(s.Account))
	row("user", printable(s.User))
	row("since", s.Since.Format(time.RFC3339))
	row("last command", s.LastSpoke.Format(time.RFC3339))
	row("downloaded", fmt.Sprint(s.Downloaded))
	row("uploaded", fmt.Sprint(s.Uploaded))
	row("transfers", fmt.Sprint(s.Files))
	if t := s.Transfer; t != nil {
		row("moves", fmt.Sprintf("%s %s: %d bytes %s in %s", t.Verb, printable(t.Path), t.Bytes, cmp.Or("by "+t.Carriage, "not yet"), time.Since(t.Since).Round(time.Millisecond)))
	}
	for i, c := range s.Commands {
		name := ""
		if i == 0 {
			name = "commands"
		}
		fmt.Fprintf(w, "%s\t%s  %d  %s\n", name, c.Time.Format(time.TimeOnly), c.Code, printable(c.Text))
	}
	w.Flush()
}

func writeStats(out io.Writer, s admin.Stats) {
	state := "serving"
	if !s.Serving {
		state = "not serving: " + s.NotServing
	}
	fmt.Fprintf(out, "ftpalg %s, process %d, %s\n", s.Version, s.PID, state)
	fmt.Fprintf(out, "started %s ago; configuration read %s ago; log level %s\n", time.Since(s.Started).Round(time.Second), time.Since(s.Configured).Round(time.Second), s.Level)
	if s.ConfigError != "" {
		fmt.Fprintf(out, "the configuration on disk is wrong, and not in force:\n  %s\n", strings.ReplaceAll(s.ConfigError, "\n", "\n  "))
	}
	w := tabwriter.NewWriter(out, 0, 0, 2, ' ', 0)
	names := make([]string, 0, len(s.Counts))
	for name := range s.Counts {
		names = append(names, name)
	}
	slices.Sort(names)
	for _, name := range names {
		fmt.Fprintf(w, "%s\t%.12g\n", name, s.Counts[name])
	}
	w.Flush()
}

// size is a number of bytes for people.
func size(n int64) string {
	const units = "KMGTPE"
	if n < 1000 {
		return fmt.Sprintf("%d B", n)
	}
	f, unit := float64(n), 0
	for f /= 1000; f >= 999.95; f /= 1000 {
		unit++
	}
	return fmt.Sprintf("%.1f %cB", f, units[unit])
}

// printable has a name that a client has made up without what would move the cursor of whoever reads it, or pass for more lines.
func printable(s string) string {
	q := fmt.Sprintf("%+q", s)
	if q = q[1 : len(q)-1]; q == s {
		return s
	}
	return fmt.Sprintf("%q", s)
}
