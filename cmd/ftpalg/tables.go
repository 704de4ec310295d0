package main

import (
	"fmt"
	"strings"
	"text/tabwriter"

	"github.com/spf13/cobra"

	"ftpalg/config"
	"ftpalg/control"
	"ftpalg/proxy"
	"ftpalg/proxy/firewall"
)

func newCheck(o *options) *cobra.Command {
	return &cobra.Command{
		Use: "check [FILE]", Short: "Validate a configuration and say all that is wrong with it",
		Long: "Check reads a configuration and prints every fault with its file, line and key. It exits with 2 if there is one.\n" +
			"Of a valid one it says who would carry each listener's plain data connections now, and why that is not the kernel.",
		Args: cobra.MaximumNArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			if len(args) == 1 {
				o.config = args[0]
			}
			cfg, err := o.load(cmd.ErrOrStderr(), proxy.Check)
			if err != nil {
				return err
			}
			fmt.Fprintf(cmd.OutOrStdout(), "The configuration is valid: %d listener(s).\n", len(cfg.Listeners))
			for _, line := range proxy.DataPaths(cfg) {
				fmt.Fprintln(cmd.OutOrStdout(), line)
			}
			return nil
		},
	}
}

func newConfig(o *options) *cobra.Command {
	var defaults, reference bool
	c := &cobra.Command{
		Use: "config", Short: "Print the effective configuration", Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			switch {
			case defaults:
				cmd.OutOrStdout().Write(config.Example())
				return nil
			case reference:
				cmd.OutOrStdout().Write(config.Reference())
				return nil
			}
			cfg, err := o.load(cmd.ErrOrStderr(), nil)
			if err != nil {
				return err
			}
			cmd.OutOrStdout().Write(cfg.YAML())
			return nil
		},
	}
	c.Flags().BoolVar(&defaults, "defaults", false, "print a commented example that equals the defaults")
	c.Flags().BoolVar(&reference, "reference", false, "print the table of all keys in Markdown")
	c.MarkFlagsMutuallyExclusive("defaults", "reference")
	return c
}

func newRules(o *options) *cobra.Command {
	var apply, remove bool
	c := &cobra.Command{
		Use: "rules", Short: "Print, apply or remove the nftables rules and policy routes of the listeners",
		Long: `Rules prints, as a shell script, what the configured listeners need of the kernel.
With --apply it is put in force, all or nothing, in a table of our own (inet ftpalg);
with --remove it is taken away. Other tables, rules and routes are left alone.`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			cfg, err := o.load(cmd.ErrOrStderr(), nil)
			if err != nil {
				return err
			}
			plan := proxy.Plan(cfg)
			switch {
			case apply:
				return fail(firewall.Apply(plan))
			case remove:
				return fail(firewall.Remove(plan))
			}
			fmt.Fprint(cmd.OutOrStdout(), plan)
			return nil
		},
	}
	c.Flags().BoolVar(&apply, "apply", false, "put them in force")
	c.Flags().BoolVar(&remove, "remove", false, "take them away")
	c.MarkFlagsMutuallyExclusive("apply", "remove")
	return c
}

func newVerbs() *cobra.Command {
	return &cobra.Command{
		Use: "verbs", Short: "Print the table of FTP commands and what is done with each", Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			w := tabwriter.NewWriter(cmd.OutOrStdout(), 0, 8, 2, ' ', 0)
			fmt.Fprintln(w, "VERB\tACTION\tCLASS\tARGUMENT\tFLAGS\tDEFINED")
			for _, v := range control.Verbs() {
				fmt.Fprintf(w, "%s\t%s\t%s\t%s\t%s\t%s\n", v.Name, v.Action, v.Class, v.Argument, strings.Join(v.Flags, ","), v.Defined)
			}
			return w.Flush()
		},
	}
}
