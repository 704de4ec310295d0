//go:build linux

package integration

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
)

// The clients that need several sessions for a job.

// runWget downloads everything with one command, and uses others for what has to have its own options.
func runWget(ctx context.Context, j *job) ([]byte, error) {
	var said bytes.Buffer
	scheme := "ftp"
	if j.tls != nil {
		scheme = "ftps" // explicit TLS, too
	}
	url := func(name string) string { return scheme + "://" + j.addr.String() + j.path(name) }
	wget := func(urls *strings.Reader, args ...string) error {
		command := j.command(ctx, "wget", append([]string{
			"--no-config", "--debug", "--no-glob", "--tries=1", "--timeout=60", "--restrict-file-names=nocontrol",
			"--ftp-user=" + j.user, "--ftp-password=" + j.password,
		}, args...)...)
		if j.active() {
			command.Args = append(command.Args, "--no-passive-ftp")
		}
		if j.tls != nil {
			command.Args = append(command.Args, "--ca-certificate="+j.tls.CA)
			if j.tls.Implicit {
				command.Args = append(command.Args, "--ftps-implicit")
			}
			if j.tls.Clear {
				command.Args = append(command.Args, "--ftps-clear-data-connection")
			}
			if j.tls.Max == "1.2" {
				command.Args = append(command.Args, "--ciphers=NORMAL:-VERS-TLS1.3")
			}
		}
		if urls != nil {
			command.Stdin = urls
		}
		command.Stdout, command.Stderr = &said, &said
		return command.Run()
	}

	var urls strings.Builder
	var failed []error
	got := filepath.Join(j.scratch, "wget")
	for _, s := range j.steps {
		switch s.op {
		case "get": // below
			fmt.Fprintln(&urls, url(s.remote))
		case "reget":
			failed = append(failed, wget(nil, "--continue", "--output-document="+s.local, url(s.remote)))
		case "list":
			failed = append(failed,
				wget(nil, "--no-remove-listing", "--output-document=index.html", url("")),
				os.Rename(filepath.Join(j.scratch, ".listing"), s.local))
		default:
			unknown("wget", s)
		}
	}
	failed = append(failed, wget(strings.NewReader(urls.String()), "--input-file=-", "--directory-prefix="+got))
	for _, s := range j.steps {
		if s.op == "get" {
			failed = append(failed, os.Rename(filepath.Join(got, s.remote), s.local))
		}
	}
	return said.Bytes(), errors.Join(failed...)
}

// runNcftp uses the interactive program, and the separate ones for what that has no command for.
func runNcftp(ctx context.Context, j *job) ([]byte, error) {
	var said bytes.Buffer
	login := []string{"-u", j.user, "-p", j.password, "-P", strconv.Itoa(int(j.addr.Port()))}
	host := j.addr.Addr().String()
	single := func(program string, args ...string) ([]byte, error) {
		mode := "-F"
		if j.active() {
			mode = "-E"
		}
		log := filepath.Join(j.scratch, program+".log")
		command := j.command(ctx, program, append(append([]string{mode, "-t", "60", "-d", log}, login...), args...)...)
		out, err := command.Output()
		said.Write(readAll(log))
		os.Remove(log)
		return out, err
	}

	script := fmt.Sprintf("debug 1\nset passive %s\nset auto-resume yes\ncd %s\n", onOff(!j.active()), quoted(j.dir))
	var later []step
	for _, s := range j.steps {
		remote, local := quoted(s.remote), quoted(s.local)
		switch s.op {
		case "get", "reget":
			script += "get -z " + remote + " " + local
		case "put":
			script += "put -z " + local + " " + remote
		case "rename":
			script += "rename " + remote + " " + quoted(s.to)
		case "delete":
			script += "rm " + remote
		case "mkdir", "rmdir":
			script += s.op + " " + remote
		case "append", "list", "nlst", "mlsd":
			later = append(later, s)
		default:
			unknown("ncftp", s)
		}
		script += "\n"
	}
	command := j.command(ctx, "ncftp", append(login, host)...)
	command.Stdin = strings.NewReader(script)
	command.Stdout, command.Stderr = &said, &said
	failed := []error{command.Run()}

	listing := map[string]string{"list": "-l", "nlst": "-1", "mlsd": "-m"}
	for _, s := range later {
		var err error
		if s.op == "append" {
			_, err = single("ncftpput", "-A", "-C", host, s.local, j.dir+"/"+s.remote)
		} else {
			var lines []byte
			lines, err = single("ncftpls", listing[s.op], "ftp://"+host+"/"+j.dir+"/")
			err = errors.Join(err, os.WriteFile(s.local, lines, 0o644))
		}
		failed = append(failed, err)
	}
	return said.Bytes(), errors.Join(failed...)
}
