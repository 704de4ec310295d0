package main

import (
	"cmp"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"ftpalg/config"
	"ftpalg/proxy"
)

// newManual is for who builds a package, and hidden from everybody else.
func newManual() *cobra.Command {
	var date string
	c := &cobra.Command{
		Use: "manual DIR", Short: "Write the manual pages into a directory", Args: cobra.ExactArgs(1), Hidden: true,
		RunE: func(cmd *cobra.Command, args []string) error {
			for name, text := range manual(cmd.Root(), date) {
				if err := os.WriteFile(filepath.Join(args[0], name), []byte(text), 0o644); err != nil {
					return fail(err)
				}
			}
			return nil
		},
	}
	c.Flags().StringVar(&date, "date", "", "`day` of the pages, as 2026-11-23; none by itself, so that the same sources have the same pages")
	return c
}

// exitCodes are what the program's exit codes mean.
var exitCodes = []struct {
	code  int
	means string
}{
	{0, "It is done; of a running gateway: it was told to stop, and has."},
	{exitFailure, "It could not be done: a port is taken, a privilege is missing, a file cannot be written."},
	{exitUsage, "The command line is wrong."},
	{exitDenied, "Of ftpalg policy test alone: something is denied."},
	{exitConfig, "The configuration is wrong. Each fault is said with its file, line and key. The unit does not start it again."},
}

// files are where things are after an installation from a package.
var files = []struct{ path, has string }{
	{"/etc/ftpalg/ftpalg.yaml", "The configuration of the service. It is for root to write and for ftpalg to read."},
	{"/var/lib/ftpalg", "What ftpalg keeps: counts of quotas, if policy.state says so."},
	{"/var/log/ftpalg", "The audit, if audit.file or audit.xferlog say so. logrotate(8) keeps 30 days of it. The log itself goes to " +
		"standard error, so to the journal."},
	{"/usr/share/doc/ftpalg/examples", "Configurations to begin with, and a filter for fail2ban."},
}

// manual has the text of every page by the name of its file.
func manual(root *cobra.Command, date string) map[string]string {
	pages := map[string]string{"ftpalg.yaml.5": keysPage(root, date)}
	var visit func(*cobra.Command)
	visit = func(c *cobra.Command) {
		pages[pageOf(c)+".8"] = commandPage(c, date)
		for _, below := range commandsBelow(c) {
			visit(below)
		}
	}
	visit(root)
	return pages
}

// pageOf is the name of a command's page: ftpalg-policy-test.
func pageOf(c *cobra.Command) string { return strings.ReplaceAll(c.CommandPath(), " ", "-") }

// commandsBelow are the commands of a command that people are shown.
func commandsBelow(c *cobra.Command) []*cobra.Command {
	return slices.DeleteFunc(slices.Clone(c.Commands()), func(c *cobra.Command) bool { return !c.IsAvailableCommand() || c.Name() == "help" })
}

// commandPage is the page of a command; that of the program itself has what holds for all of them.
func commandPage(c *cobra.Command, date string) string {
	p := newPage(pageOf(c), "8", date)
	p.section("NAME")
	p.text(pageOf(c) + " - " + lower(c.Short))
	p.section("SYNOPSIS")
	name, rest, _ := strings.Cut(c.UseLine()+" ", c.CommandPath()+" ")
	if rest = strings.TrimSpace(rest); !c.HasParent() {
		rest = "COMMAND [flags] [argument …]"
	}
	p.line(bold(name+c.CommandPath()) + " " + escape(rest))
	p.section("DESCRIPTION")
	p.prose(cmp.Or(c.Long, c.Short+"."))
	if below := commandsBelow(c); len(below) > 0 {
		p.section("COMMANDS")
		for _, b := range below {
			p.item(bold(pageOf(b))+"(8)", b.Short+".")
		}
	}
	p.section("OPTIONS")
	list := func(f *pflag.Flag) {
		if f.Hidden {
			return
		}
		head := bold("--" + f.Name)
		if f.Shorthand != "" {
			head = bold("-"+f.Shorthand) + ", " + head
		}
		value, usage := pflag.UnquoteUsage(f)
		if value != "" {
			head += " " + italic(value)
		}
		// As cobra's own help has it: what is nothing by itself is not mentioned.
		if !slices.Contains([]string{"", "-1", "false", "[]"}, f.DefValue) {
			usage += " (" + f.DefValue + " by itself)"
		}
		p.item(head, usage+".")
	}
	c.NonInheritedFlags().VisitAll(list)
	c.InheritedFlags().VisitAll(list)
	if c.Example != "" {
		p.section("EXAMPLES")
		p.prose(c.Example)
	}
	also := []string{"ftpalg(8)"}
	if c.HasParent() {
		for above := c.Parent(); above.HasParent(); above = above.Parent() {
			also = append(also, pageOf(above)+"(8)")
		}
	} else {
		also = nil
		p.section("SIGNALS")
		p.signals(c)
		p.section("ENVIRONMENT")
		p.item(bold("FTPALG_")+italic("KEY"), "Sets a key of the configuration that is in no list: FTPALG_LOG_LEVEL sets log.level. Flags come "+
			"before the environment, which comes before the file. A variable of that kind that sets nothing is a fault.")
		p.item(bold("CREDENTIALS_DIRECTORY"), "Where a file is that the configuration calls credential:NAME; systemd sets it.")
		p.section("EXAMPLES")
		p.prose("A firewall hands all FTP to ftpalg: the configuration is checked, what the kernel must be told is put in force, and " +
			"the gateway runs.\n\n  ftpalg check /etc/ftpalg/ftpalg.yaml\n  ftpalg rules --apply -c /etc/ftpalg/ftpalg.yaml\n  ftpalg run -c /etc/ftpalg/ftpalg.yaml\n\n" +
			"Without a configuration it is an explicit proxy for this machine alone, which logs in where its client says.\n\n" +
			"  ftpalg run\n  ftp_proxy=http://127.0.0.1:2121 wget ftp://ftp.example.com/README")
	}
	p.section("EXIT STATUS")
	for _, e := range exitCodes {
		if e.code != exitDenied || !c.HasParent() || c.CommandPath() == "ftpalg policy test" {
			p.item(bold(strconv.Itoa(e.code)), e.means)
		}
	}
	if !c.HasParent() {
		p.files()
	}
	p.section("SEE ALSO")
	p.line(references(append(also, "ftpalg.yaml(5)", "nft(8)")))
	return p.String()
}

// keysPage is that of the configuration file.
func keysPage(root *cobra.Command, date string) string {
	p := newPage("ftpalg.yaml", "5", date)
	p.section("NAME")
	p.text("ftpalg.yaml - configuration of ftpalg")
	p.section("SYNOPSIS")
	p.line(bold("/etc/ftpalg/ftpalg.yaml"))
	p.section("DESCRIPTION")
	p.prose(`The file is YAML in UTF-8, of 1 MiB at most, without anchors, aliases and tags. Every key can be left out and has its default then. An unknown key, or one that is given twice, is a fault, and a configuration with a fault is not used: ftpalg does not start with it, and a running one keeps what it has. ftpalg check says everything that is wrong, by line and key.

Elements of lists are written as key[] below. A list of single values can also be text with commas. Paths that are not absolute begin at the directory of the file. ftpalg config --defaults prints the file with every key at its default, each explained.`)
	p.section("KEYS")
	for _, k := range config.Keys() {
		if !strings.ContainsAny(k.Name, ".[") {
			p.line(".SS " + escape(k.Name))
		}
		head := bold(k.Name)
		if k.Default != "" {
			head += " (" + literals(k.Default) + ")"
		}
		p.item(head, k.Meaning)
	}
	p.section("EXAMPLES")
	p.prose("These are among the examples that the package has.")
	examples := config.Examples()
	paths, err := fs.Glob(examples, "examples/*.yaml")
	if err != nil {
		panic("config: " + err.Error()) // the pattern is a constant
	}
	for _, path := range paths {
		text, err := examples.ReadFile(path)
		if err != nil {
			panic("config: " + err.Error()) // it is part of the program
		}
		p.line(".SS " + escape(filepath.Base(path)))
		says := ""
		rest := string(text)
		for strings.HasPrefix(rest, "# ") {
			var line string
			line, rest, _ = strings.Cut(rest, "\n")
			says += line[2:] + " "
		}
		p.text(says)
		p.line(".PP")
		p.literal(rest)
	}
	p.section("SIGNALS")
	p.signals(root)
	p.files()
	p.section("SEE ALSO")
	p.line(references([]string{"ftpalg(8)", "ftpalg-check(8)", "ftpalg-config(8)", "ftpalg-rules(8)", "nft(8)"}))
	return p.String()
}

// page is a page under way, in the language of man(7).
type page struct{ strings.Builder }

func newPage(name, section, date string) *page {
	p := new(page)
	p.line(`.\" Made by ftpalg manual. Changes belong into the program.`)
	volume := map[string]string{"5": "File Formats", "8": "System Administration"}[section]
	p.line(fmt.Sprintf(".TH %s %s %s %s %s", quote(strings.ToUpper(name)), section, `"`+date+`"`, quote("ftpalg "+proxy.Version()), quote(volume)))
	p.line(".nh\n.ad l") // keys and flags are no words to divide
	return p
}

func (p *page) line(s string)       { p.WriteString(s + "\n") }
func (p *page) section(name string) { p.line(".SH " + escape(name)) }

// text writes one paragraph's words.
func (p *page) text(s string) { p.line(escape(strings.Join(strings.Fields(s), " "))) }

// item is something and what there is to say of it. The head is of man(7) already.
func (p *page) item(head, says string) {
	p.line(".TP\n" + head)
	p.text(says)
}

// literal writes lines as they are.
func (p *page) literal(s string) {
	p.line(".RS 4\n.nf")
	for line := range strings.Lines(strings.Trim(s, "\n")) {
		p.line(escape(strings.ReplaceAll(strings.TrimRight(line, "\n"), "\t", "    ")))
	}
	p.line(".fi\n.RE")
}

// listed is a line of a list within a command's text.
var listed = regexp.MustCompile(`^([^:]+): +(.+)$`)

// list is what a paragraph's lines say of what, if each does and they are in two columns. What is indented belongs to the line above.
func list(paragraph string) (items [][]string) {
	for line := range strings.Lines(paragraph) {
		if last := len(items) - 1; last >= 0 && strings.HasPrefix(line, " ") {
			items[last][1] += " " + strings.TrimSpace(line)
			continue
		}
		item := listed.FindStringSubmatch(strings.TrimRight(line, "\n"))
		if item == nil {
			return nil
		}
		items = append(items, item[1:])
	}
	if !strings.Contains(paragraph, ":  ") {
		return nil
	}
	return items
}

// prose writes what a command says of itself: paragraphs, lists in two columns, and what is indented, as it is.
func (p *page) prose(s string) {
	for i, paragraph := range strings.Split(strings.Trim(s, "\n"), "\n\n") {
		switch items := list(paragraph); {
		case items != nil:
			for _, item := range items {
				p.item(bold(item[0]), item[1])
			}
		case i > 0:
			p.line(".PP")
			fallthrough
		default:
			p.paragraph(paragraph)
		}
	}
}

// paragraph writes lines as they are if they are indented, and words else.
func (p *page) paragraph(s string) {
	if strings.HasPrefix(s, " ") || strings.HasPrefix(s, "\t") {
		p.literal(outdent(s))
	} else {
		p.text(s)
	}
}

// outdent takes away what all lines begin with.
func outdent(paragraph string) string {
	indent := paragraph[:len(paragraph)-len(strings.TrimLeft(paragraph, " \t"))]
	return strings.ReplaceAll("\n"+paragraph, "\n"+indent, "\n")
}

// signals writes what ftpalg run says of its signals.
func (p *page) signals(root *cobra.Command) {
	run, _, err := root.Find([]string{"run"})
	if err != nil {
		panic(err) // it is a command of ours
	}
	for paragraph := range strings.SplitSeq(run.Long, "\n\n") {
		for _, item := range list(paragraph) {
			p.item(bold(item[0]), item[1])
		}
	}
}

func (p *page) files() {
	p.section("FILES")
	for _, f := range files {
		p.item(italic(f.path), f.has)
	}
}

// references are pages to see also: ftpalg(8).
func references(pages []string) string {
	slices.SortStableFunc(pages, func(a, b string) int { // by section, as man-pages(7) has it
		return cmp.Compare(a[strings.Index(a, "("):], b[strings.Index(b, "("):])
	})
	for i, name := range pages {
		name, section, _ := strings.Cut(name, "(")
		pages[i] = bold(name) + "(" + section
	}
	return strings.Join(pages, ",\n")
}

func bold(s string) string   { return `\fB` + escape(s) + `\fR` }
func italic(s string) string { return `\fI` + escape(s) + `\fR` }
func quote(s string) string  { return `"` + escape(s) + `"` }

// literals is a text in which grave accents mark what is literal.
func literals(s string) string {
	var b strings.Builder
	for i, part := range strings.Split(s, "`") {
		if i%2 == 1 {
			part = bold(part)
		} else {
			part = escape(part)
		}
		b.WriteString(part)
	}
	return b.String()
}

// signs are characters that roff would take for something else, or show as something else.
var signs = map[rune]string{'\\': `\[rs]`, '-': `\-`, '\'': `\[aq]`, '`': `\[ga]`, '^': `\[ha]`, '~': `\[ti]`, '"': `\[dq]`}

// escape is a text as roff must be given it, so that it is no more than a text.
func escape(s string) string {
	var b strings.Builder
	if strings.HasPrefix(s, ".") {
		b.WriteString(`\&`)
	}
	for _, r := range s {
		switch sign, ok := signs[r]; {
		case ok:
			b.WriteString(sign)
		case r > '~':
			fmt.Fprintf(&b, `\[u%04X]`, r)
		default:
			b.WriteRune(r)
		}
	}
	return b.String()
}

func lower(s string) string { return strings.ToLower(s[:1]) + s[1:] }
