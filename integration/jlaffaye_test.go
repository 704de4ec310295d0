//go:build linux

package integration

import (
	"bufio"
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"net"
	"net/textproto"
	"net/url"
	"os"
	"strings"
	"time"

	"github.com/jlaffaye/ftp"
)

// goClient works through a job with jlaffaye/ftp.
type goClient struct {
	conn    *ftp.ServerConn
	options []ftp.DialOption
	tls     *tls.Config // nil: none
	args    []string    // of job.arguments
}

// runJlaffaye is a role of the test program: its arguments are those of job.arguments, the steps come on standard input.
func runJlaffaye(args []string) error {
	if len(args) != 6 && len(args) != 10 {
		return errors.New("usage: HOST PORT USER PASSWORD VERB DIRECTORY [explicit|implicit P MAX CA]")
	}
	c := &goClient{args: args, options: []ftp.DialOption{
		ftp.DialWithContext(context.Background()),
		ftp.DialWithTimeout(time.Minute),
		ftp.DialWithDebugOutput(os.Stderr),
		ftp.DialWithDisabledEPSV(args[4] == "PASV"),
	}}
	if len(args) > 6 {
		if err := c.secure(args[0], args[8], args[9]); err != nil {
			return err
		}
	}
	var err error
	if c.conn, err = c.login(ftp.DialWithDisabledMLSD(true)); err != nil {
		return err
	}
	lines := bufio.NewScanner(os.Stdin)
	for lines.Scan() {
		words := strings.Split(lines.Text(), " ")
		for i, word := range words {
			if words[i], err = url.PathUnescape(word); err != nil {
				return err
			}
		}
		if len(words) != 4 {
			return fmt.Errorf("step with %d words", len(words))
		}
		if err := c.do(step{op: words[0], remote: words[1], local: words[2], to: words[3]}); err != nil {
			return fmt.Errorf("%s: %w", lines.Text(), err)
		}
	}
	return errors.Join(lines.Err(), c.conn.Quit())
}

// secure makes sessions use TLS.
func (c *goClient) secure(host, highest, ca string) error {
	text, err := os.ReadFile(ca)
	if err != nil {
		return err
	}
	c.tls = &tls.Config{RootCAs: x509.NewCertPool(), ServerName: host}
	if !c.tls.RootCAs.AppendCertsFromPEM(text) {
		return fmt.Errorf("no certificate in %s", ca)
	}
	if highest == "1.2" {
		c.tls.MaxVersion = tls.VersionTLS12
	}
	return nil
}

// login starts a session in the job's directory.
func (c *goClient) login(more ...ftp.DialOption) (*ftp.ServerConn, error) {
	if c.tls != nil {
		config := c.tls.Clone()
		config.ClientSessionCache = tls.NewLRUClientSessionCache(0) // data connections resume their own session's
		if c.args[6] == "implicit" {
			more = append(more, ftp.DialWithTLS(config))
		} else {
			more = append(more, ftp.DialWithExplicitTLS(config))
		}
	}
	conn, err := ftp.Dial(net.JoinHostPort(c.args[0], c.args[1]), append(more, c.options...)...)
	if err != nil {
		return nil, err
	}
	if err := conn.Login(c.args[2], c.args[3]); err != nil {
		return nil, err
	}
	return conn, conn.ChangeDir(c.args[5])
}

func (c *goClient) do(s step) error {
	switch s.op {
	case "get":
		return c.get(s, 0)
	case "reget":
		info, err := os.Stat(s.local)
		if err != nil {
			return err
		}
		return c.get(s, info.Size())
	case "put":
		return withFile(s.local, func(file *os.File) error { return c.conn.Stor(s.remote, file) })
	case "append":
		return withFile(s.local, func(file *os.File) error { return c.conn.Append(s.remote, file) })
	case "reput":
		return withFile(s.local, func(file *os.File) error {
			if _, err := file.Seek(half, io.SeekStart); err != nil {
				return err
			}
			return c.conn.StorFrom(s.remote, file, half)
		})
	case "rename":
		return c.conn.Rename(s.remote, s.to)
	case "delete":
		return c.conn.Delete(s.remote)
	case "mkdir":
		return c.conn.MakeDir(s.remote)
	case "rmdir":
		return c.conn.RemoveDir(s.remote)
	case "list":
		return listNames(c.conn, s)
	case "nlst":
		names, err := c.conn.NameList("")
		return errors.Join(err, os.WriteFile(s.local, []byte(strings.Join(names, "\n")), 0o644))
	case "mlsd": // if the server has it; only a new session can change one's mind
		conn, err := c.login()
		if err != nil {
			return err
		}
		return errors.Join(listNames(conn, s), conn.Quit())
	case "hangup":
		return c.hangUp(s)
	}
	return fmt.Errorf("jlaffaye/ftp cannot %s", s.op)
}

func (c *goClient) get(s step, offset int64) error {
	file, err := os.OpenFile(s.local, os.O_CREATE|os.O_WRONLY|os.O_APPEND, 0o644)
	if err != nil {
		return err
	}
	defer file.Close()
	response, err := c.conn.RetrFrom(s.remote, uint64(offset))
	if err != nil {
		return err
	}
	_, err = io.Copy(file, response)
	return errors.Join(err, response.Close())
}

// hangUp closes a download's data connection in the middle. The reply may then be a negative one.
func (c *goClient) hangUp(s step) error {
	response, err := c.conn.Retr(s.remote)
	if err != nil {
		return err
	}
	if _, err := io.CopyN(io.Discard, response, 100_000); err != nil {
		return err
	}
	var reply *textproto.Error
	if err := response.Close(); err != nil && !errors.As(err, &reply) {
		return err
	}
	return nil
}

// listNames lists the directory, and writes the names down.
func listNames(conn *ftp.ServerConn, s step) error {
	entries, err := conn.List("")
	if err != nil {
		return err
	}
	var names strings.Builder
	for _, entry := range entries {
		fmt.Fprintln(&names, entry.Name)
	}
	return os.WriteFile(s.local, []byte(names.String()), 0o644)
}

func withFile(path string, do func(*os.File) error) error {
	file, err := os.Open(path)
	if err != nil {
		return err
	}
	defer file.Close()
	return do(file)
}
