// Command ftpalg is a transparent application-layer gateway for FTP.
package main

import (
	"errors"
	"fmt"
	"io"
	"os"
	"runtime"

	"github.com/spf13/cobra"

	"ftpalg/config"
	"ftpalg/proxy"
)

// Exit codes.
const (
	exitFailure = 1  // it could not be done
	exitUsage   = 2  // the command line is wrong; also Go's own, of a crash
	exitDenied  = 3  // `policy test`: something is denied
	exitConfig  = 78 // the configuration is wrong (EX_CONFIG of sysexits.h): trying again is of no use
)

func main() { os.Exit(run(os.Args[1:], os.Stdout, os.Stderr)) }

// run is the whole program but for its exit.
func run(args []string, stdout, stderr io.Writer) int {
	root := newRoot()
	root.SetArgs(args)
	root.SetOut(stdout)
	root.SetErr(stderr)
	err := root.Execute()
	var faults config.Faults
	var failure *failed
	switch {
	case err == nil:
		return 0
	case errors.As(err, &failure):
		fmt.Fprintf(stderr, "ftpalg: %v\n", failure.err)
		return exitFailure
	case errors.Is(err, errDenied):
		return exitDenied
	case errors.As(err, &faults):
		fmt.Fprintln(stderr, faults)
		return exitConfig
	default:
		fmt.Fprintf(stderr, "ftpalg: %v\nTry 'ftpalg --help'.\n", err)
	}
	return exitUsage
}

// failed is an error that is nobody's spelling: exit code 1.
type failed struct{ err error }

func (f *failed) Error() string { return f.err.Error() }

func fail(err error) error {
	if err == nil {
		return nil
	}
	return &failed{err}
}

// options are the flags that all commands have.
type options struct {
	config    string
	logLevel  string
	logFormat string
}

func newRoot() *cobra.Command {
	var o options
	root := &cobra.Command{
		Use:   "ftpalg",
		Short: "A transparent application-layer gateway for FTP",
		Long: `ftpalg stands between FTP clients and FTP servers: it takes the control connection,
makes its own to the server, rewrites what both sides agree on about data
connections, and carries the data across.`,
		SilenceUsage: true, SilenceErrors: true,
	}
	flags := root.PersistentFlags()
	flags.StringVarP(&o.config, "config", "c", "", "configuration `file`; without one: an explicit proxy on 127.0.0.1:2121")
	flags.StringVar(&o.logLevel, "log-level", "", "debug, info, warn or error")
	flags.StringVar(&o.logFormat, "log-format", "", "text or json")
	root.AddCommand(newRun(&o), newCheck(&o), newConfig(&o), newRules(&o), newPolicy(&o), newAudit(), newVerbs(), newCA(&o), newPasswd(), newDemo(), newManual(), newVersion())
	root.AddCommand(administration(&o)...)
	return root
}

// load reads the configuration and shows its warnings. check, if not nil, finds more that is wrong.
func (o *options) load(stderr io.Writer, check func(*config.Config) (faults, warnings config.Faults)) (*config.Config, error) {
	flags := map[string]string{}
	if o.logLevel != "" {
		flags["log.level"] = o.logLevel
	}
	if o.logFormat != "" {
		flags["log.format"] = o.logFormat
	}
	cfg, warnings, err := config.Load(o.config, config.Options{Environ: os.Environ(), Flags: flags, Check: check})
	if err != nil {
		return nil, err
	}
	for _, w := range warnings {
		fmt.Fprintf(stderr, "warning: %v\n", w)
	}
	return cfg, nil
}

func newVersion() *cobra.Command {
	return &cobra.Command{
		Use: "version", Short: "Print the version", Args: cobra.NoArgs,
		Run: func(cmd *cobra.Command, _ []string) {
			fmt.Fprintf(cmd.OutOrStdout(), "ftpalg %s (%s)\n", proxy.Version(), runtime.Version())
		},
	}
}
