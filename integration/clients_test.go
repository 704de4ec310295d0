//go:build linux

package integration

import (
	"bytes"
	"context"
	"fmt"
	"net/url"
	"os/exec"
	"path/filepath"
	"strings"
)

// A client is an FTP client program, and how to make it work through a job.
type client struct {
	name   string
	needs  []string // programs
	forTLS string   // a file that it needs for TLS besides, if any

	// run does a job, in as few sessions as the client can, and returns its own account of them, commands included.
	run func(ctx context.Context, j *job) (said []byte, err error)
}

var clients = []client{
	{name: "curl", needs: []string{"curl"}, run: runCurl},
	{name: "lftp", needs: []string{"lftp"}, run: runLftp},
	{name: "tnftp", needs: []string{"tnftp"}, run: runTnftp},
	{name: "wget", needs: []string{"wget"}, run: runWget},
	{name: "ncftp", needs: []string{"ncftp", "ncftpput", "ncftpls"}, run: runNcftp},
	{name: "ftplib", needs: []string{"/usr/bin/python3"}, run: runFtplib},
	{name: "netftp", needs: []string{"perl"}, forTLS: "/usr/share/perl5/IO/Socket/SSL.pm", run: runNetFTP},
	{name: "jlaffaye", run: runJlaffayeRole},
}

// active says whether the server is to connect to the client.
func (j *job) active() bool { return j.verb == "PORT" || j.verb == "EPRT" }

// extended says whether the data verb is one of RFC 2428.
func (j *job) extended() bool { return j.verb == "EPRT" || j.verb == "EPSV" }

// command is a program of the client's, at home in the scratch directory.
func (j *job) command(ctx context.Context, program string, args ...string) *exec.Cmd {
	return j.at(j.in.Command(ctx, program, args...))
}

func (j *job) at(command *exec.Cmd) *exec.Cmd {
	command.Dir = j.scratch
	command.Env = append(command.Env, "HOME="+j.scratch)
	return command
}

// scheme is that of URLs, to clients that take ftp to be explicit TLS, too.
func (j *job) scheme() string {
	if j.tls != nil && j.tls.Implicit {
		return "ftps"
	}
	return "ftp"
}

// host is what clients connect to.
func (j *job) host() string {
	if j.name != "" {
		return fmt.Sprintf("%s:%d", j.name, j.addr.Port())
	}
	return j.addr.String()
}

// urlOfUser is the URL of where the user arrives. A user name may have a colon in it, if it is an explicit proxy's.
func (j *job) urlOfUser() string {
	return j.scheme() + "://" + escape(j.user) + ":" + escape(j.password) + "@" + j.host()
}

// path is the path of something in the job's directory, as it is in URLs.
func (j *job) path(name string) string { return "/" + escape(j.dir) + "/" + escape(name) }

// escape is URL-escaping of everything but letters, digits, dots and slashes: also of bytes that are not UTF-8.
func escape(name string) string {
	return strings.ReplaceAll(strings.ReplaceAll(url.QueryEscape(name), "+", "%20"), "%2F", "/")
}

// script makes the steps into lines of text.
func (j *job) script(line func(step) string) *strings.Reader {
	var text strings.Builder
	for _, s := range j.steps {
		text.WriteString(line(s))
		text.WriteByte('\n')
	}
	return strings.NewReader(text.String())
}

// generic is a step as the tests' own scripts read it: the operation, and then the escaped names that it has.
func generic(s step) string {
	words := []string{s.op}
	for _, name := range []string{s.remote, s.local, s.to} {
		words = append(words, escape(name))
	}
	return strings.Join(words, " ")
}

func unknown(client string, s step) string {
	panic(fmt.Sprintf("%s cannot %s: missing in limits", client, s.op))
}

// runCurl has curl do everything with one configuration, and so, as it happens, in one session.
func runCurl(ctx context.Context, j *job) ([]byte, error) {
	var config strings.Builder
	set := func(option, value string) { fmt.Fprintf(&config, "%s = %s\n", option, quoted(value)) }
	flag := func(option string) { fmt.Fprintln(&config, option) }
	for i, s := range j.steps {
		if i > 0 {
			flag("next")
		}
		flag("verbose")
		flag("silent")
		flag("show-error")
		if j.active() {
			set("ftp-port", "-")
		}
		if j.name != "" {
			set("resolve", fmt.Sprintf("%s:%d:%s", j.name, j.addr.Port(), j.addr.Addr()))
		}
		if j.tls != nil {
			set("cacert", j.tls.CA)
			if j.tls.Clear {
				flag("ftp-ssl-control")
			} else {
				flag("ssl-reqd")
			}
			if j.tls.Max != "" {
				set("tls-max", j.tls.Max)
			}
		}
		if !j.extended() {
			flag("disable-epsv")
			flag("disable-eprt")
		}
		whole := func(name string) string { return "/" + j.dir + "/" + name } // sent wherever the session is by then
		quote := func(commands ...string) {
			for _, command := range commands {
				set("quote", command)
			}
			flag("head") // no transfer
			set("output", "/dev/null")
			set("url", j.urlOfUser())
		}
		transfer := func(direction string) {
			set(direction, s.local)
			set("url", j.urlOfUser()+j.path(s.remote))
		}
		switch s.op {
		case "get":
			transfer("output")
		case "put":
			transfer("upload-file")
		case "reget":
			set("continue-at", "-")
			transfer("output")
		case "append":
			flag("append")
			transfer("upload-file")
		case "list", "nlst", "mlsd":
			set("output", s.local)
			set("url", j.urlOfUser()+j.path(""))
			set("request", strings.ToUpper(s.op))
		case "rename":
			quote("RNFR "+whole(s.remote), "RNTO "+whole(s.to))
		case "delete":
			quote("DELE " + whole(s.remote))
		case "mkdir":
			quote("MKD " + whole(s.remote))
		case "rmdir":
			quote("RMD " + whole(s.remote))
		default:
			unknown("curl", s)
		}
	}
	command := j.command(ctx, "curl", "--disable", "--fail-early", "--config", "-")
	command.Stdin = strings.NewReader(config.String())
	return command.CombinedOutput()
}

// quoted is a string in double quotes, as most clients read it.
func quoted(s string) string {
	return `"` + strings.NewReplacer(`\`, `\\`, `"`, `\"`).Replace(s) + `"`
}

// runLftp has lftp run a script, in one session.
func runLftp(ctx context.Context, j *job) ([]byte, error) {
	var head strings.Builder
	settings := []string{
		"cmd:fail-exit yes", "net:max-retries 1", "net:timeout 60", "xfer:clobber yes", "xfer:log no",
		"ftp:use-mlsd no",
		fmt.Sprintf("ftp:passive-mode %t", !j.active()), fmt.Sprintf("ftp:prefer-epsv %t", j.extended()),
	}
	if j.tls == nil {
		settings = append(settings, "ftp:ssl-allow no")
	} else {
		settings = append(settings,
			"ftp:ssl-allow yes", "ftp:ssl-force yes", "ssl:verify-certificate yes", "ssl:ca-file "+j.tls.CA,
			fmt.Sprintf("ftp:ssl-protect-data %t", !j.tls.Clear), fmt.Sprintf("ftp:ssl-protect-list %t", !j.tls.Clear))
		if j.tls.Max == "1.2" {
			settings = append(settings, "ssl:priority NORMAL:-VERS-TLS1.3")
		}
	}
	for _, setting := range settings {
		fmt.Fprintln(&head, "set", setting)
	}
	fmt.Fprintf(&head, "debug 9\nopen -u %s,%s %s://%s\ncd %s\n",
		quoted(j.user), quoted(j.password), j.scheme(), j.addr, quoted(j.dir))
	steps := j.script(func(s step) string {
		remote, local := quoted(s.remote), quoted(s.local)
		switch s.op {
		case "get":
			return "get " + remote + " -o " + local
		case "put":
			return "put " + local + " -o " + remote
		case "reget":
			return "get -c " + remote + " -o " + local
		case "reput":
			return "put -c " + local + " -o " + remote
		case "rename":
			return "mv " + remote + " " + quoted(s.to)
		case "delete":
			return "rm " + remote
		case "mkdir", "rmdir":
			return s.op + " " + remote
		case "list":
			return "ls > " + local
		case "nlst":
			return "nlist > " + local
		case "mlsd":
			return "set ftp:use-mlsd yes\ncls -1 > " + local + "\nset ftp:use-mlsd no"
		case "mirror-up":
			return "mirror -R " + local + " " + remote
		case "mirror-down":
			return "mirror " + remote + " " + local
		}
		return unknown("lftp", s)
	})
	command := j.command(ctx, "lftp", "--norc", "-f", "/dev/stdin")
	var script bytes.Buffer
	script.WriteString(head.String())
	script.ReadFrom(steps)
	command.Stdin = &script
	return command.CombinedOutput()
}

// runTnftp has tnftp read its commands from standard input. It does not tell whether they succeeded: the files do.
func runTnftp(ctx context.Context, j *job) ([]byte, error) {
	head := fmt.Sprintf("open %s %d\nuser %s %s\nbinary\nepsv4 %s\npassive %s\ncd %s\n", j.addr.Addr(), j.addr.Port(),
		quoted(j.user), quoted(j.password), onOff(j.extended()), onOff(!j.active()), quoted(j.dir))
	steps := j.script(func(s step) string {
		remote, local := quoted(s.remote), quoted(s.local)
		switch s.op {
		case "get", "reget":
			return s.op + " " + remote + " " + local
		case "put", "append":
			return s.op + " " + local + " " + remote
		case "reput":
			return fmt.Sprintf("restart %d\nput %s %s", half, local, remote)
		case "rename":
			return "rename " + remote + " " + quoted(s.to)
		case "delete", "mkdir", "rmdir":
			return s.op + " " + remote
		case "list":
			return "ls . " + local
		case "nlst":
			return "nlist . " + local
		case "mlsd":
			return "mlsd . " + local
		}
		return unknown("tnftp", s)
	})
	command := j.command(ctx, "tnftp", "-d", "-i", "-n", "-v")
	var script bytes.Buffer
	script.WriteString(head)
	script.ReadFrom(steps)
	command.Stdin = &script
	return command.CombinedOutput()
}

func onOff(on bool) string {
	if on {
		return "on"
	}
	return "off"
}

// generics runs one of the tests' own scripts or roles.
func (j *job) generics(command *exec.Cmd) ([]byte, error) {
	command.Stdin = j.script(generic)
	return command.CombinedOutput()
}

// arguments are those of the tests' own scripts and roles: those of TLS only if there is to be any.
func (j *job) arguments() []string {
	args := []string{j.addr.Addr().String(), fmt.Sprint(j.addr.Port()), j.user, j.password, j.verb, j.dir}
	if j.tls != nil {
		how := "explicit"
		if j.tls.Implicit {
			how = "implicit"
		}
		args = append(args, how, j.tls.level(), j.tls.Max, j.tls.CA)
	}
	return args
}

func runFtplib(ctx context.Context, j *job) ([]byte, error) {
	return j.runScript(ctx, "/usr/bin/python3", "client.py")
}

func runNetFTP(ctx context.Context, j *job) ([]byte, error) {
	return j.runScript(ctx, "perl", "client.pl")
}

func (j *job) runScript(ctx context.Context, interpreter, script string) ([]byte, error) {
	path, err := filepath.Abs(filepath.Join("testdata", script))
	if err != nil {
		return nil, err
	}
	return j.generics(j.command(ctx, interpreter, append([]string{path}, j.arguments()...)...))
}

func runJlaffayeRole(ctx context.Context, j *job) ([]byte, error) {
	return j.generics(j.at(j.in.role(ctx, "jlaffaye", j.arguments()...)))
}
