package main

import (
	"crypto/rand"
	"crypto/sha256"
	"crypto/tls"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"time"

	"github.com/jlaffaye/ftp"
	"github.com/spf13/cobra"
)

// clientJob is what the client is told on standard input.
type clientJob struct {
	Server string // whom to call
	User   string
	Verb   string // how to ask for data connections: EPSV or PASV
	File   string // the name for the upload
	Bytes  int64  // and its size
	// Trust is a PEM file of the authorities to trust, for a session over TLS. Empty: one without.
	Trust string
}

// clientReport is what the client tells on standard output when it is done.
type clientReport struct {
	Lines  []demoLine // of the control connection, in order
	Links  []demoLink // the control connection, then the data connections, in order
	TLS    []demoTLS  // of the same
	Listed []string   // the names in the listing
	// Sent and Received are the upload and the download.
	Sent, Received struct {
		Bytes  int64
		SHA256 string
	}
	Error string // what went wrong; empty: nothing
}

func newDemoClient() *cobra.Command {
	return &cobra.Command{
		Use: "client", Hidden: true, Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			var c demoClient
			if err := json.NewDecoder(os.Stdin).Decode(&c.job); err != nil {
				return fail(fmt.Errorf("read the job from standard input: %w", err))
			}
			if err := c.run(); err != nil {
				c.report.Error = err.Error()
			}
			return fail(json.NewEncoder(cmd.OutOrStdout()).Encode(c.report))
		},
	}
}

// demoClient is the FTP client of the demo: jlaffaye/ftp, and an ear on its connections.
type demoClient struct {
	job     clientJob
	report  clientReport
	control net.Conn
	tls     *tls.Config // nil: without
}

// clientPatience is how long the client waits for a connection and for a goodbye.
const clientPatience = 30 * time.Second

// run is one session: log in, list, upload, download, quit.
func (c *demoClient) run() error {
	options := []ftp.DialOption{
		ftp.DialWithDialFunc(c.dial),
		ftp.DialWithDisabledEPSV(c.job.Verb == "PASV"),
		ftp.DialWithTrustPasvIP(true), // it goes where the 227 says: that is what is to be shown
	}
	if c.job.Trust != "" {
		pem, err := os.ReadFile(c.job.Trust)
		if err == nil {
			c.tls, err = trusting(pem, c.job.Server, func(t demoTLS) { c.report.TLS = append(c.report.TLS, t) })
		}
		if err != nil {
			return fmt.Errorf("read whom to trust: %w", err)
		}
		options = append(options, ftp.DialWithExplicitTLS(c.tls))
	}
	conn, err := ftp.Dial(c.job.Server, options...)
	if err != nil {
		return fmt.Errorf("connect to %s: %w", c.job.Server, err)
	}
	if err := conn.Login(c.job.User, demoPassword); err != nil {
		return fmt.Errorf("log in as %s: %w", c.job.User, err)
	}
	entries, err := conn.List("")
	if err != nil {
		return fmt.Errorf("list: %w", err)
	}
	for _, e := range entries {
		c.report.Listed = append(c.report.Listed, e.Name)
	}
	if err := c.upload(conn); err != nil {
		return fmt.Errorf("upload %s: %w", c.job.File, err)
	}
	if err := c.download(conn); err != nil {
		return fmt.Errorf("download %s: %w", c.job.File, err)
	}
	if err := c.quit(conn); err != nil {
		return fmt.Errorf("quit: %w", err)
	}
	return nil
}

// quit says QUIT and, without TLS, hears the answer, for which jlaffaye/ftp does not wait.
func (c *demoClient) quit(conn *ftp.ServerConn) error {
	if c.tls != nil {
		return conn.Quit() // nobody else can speak on this connection any more
	}
	defer c.control.Close()
	c.control.SetDeadline(time.Now().Add(clientPatience))
	if _, err := io.WriteString(c.control, "QUIT\r\n"); err != nil {
		return err
	}
	_, err := io.Copy(io.Discard, c.control)
	return err
}

// dial is how the client makes connections; the first is the control connection.
func (c *demoClient) dial(network, address string) (net.Conn, error) {
	conn, err := net.DialTimeout(network, address, clientPatience)
	if err != nil {
		return nil, err
	}
	c.report.Links = append(c.report.Links, linkOf(conn))
	switch first := len(c.report.Links) == 1; {
	case !first && c.tls != nil:
		// The handshake waits for the first byte: servers begin theirs after the command.
		return tls.Client(conn, c.tls), nil
	case !first:
		return conn, nil
	}
	c.control = tap(conn, "<", ">", func(l demoLine) { c.report.Lines = append(c.report.Lines, l) })
	return c.control, nil
}

// upload sends random bytes.
func (c *demoClient) upload(conn *ftp.ServerConn) error {
	sum := sha256.New()
	if err := conn.Stor(c.job.File, io.TeeReader(io.LimitReader(rand.Reader, c.job.Bytes), sum)); err != nil {
		return err
	}
	c.report.Sent.Bytes, c.report.Sent.SHA256 = c.job.Bytes, hex.EncodeToString(sum.Sum(nil))
	return nil
}

// download gets them back.
func (c *demoClient) download(conn *ftp.ServerConn) error {
	file, err := conn.Retr(c.job.File)
	if err != nil {
		return err
	}
	sum := sha256.New()
	n, err := io.Copy(sum, file)
	if err := errors.Join(err, file.Close()); err != nil {
		return err
	}
	c.report.Received.Bytes, c.report.Received.SHA256 = n, hex.EncodeToString(sum.Sum(nil))
	return nil
}
