package main

import (
	"crypto/sha256"
	"crypto/tls"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"hash"
	"io"
	"log/slog"
	"net"
	"os"
	"path"
	"sync"

	ftpserver "github.com/fclairamb/ftpserverlib"
	"github.com/spf13/afero"
	"github.com/spf13/cobra"
)

// The demo's user.
const (
	demoUser     = "demo"
	demoPassword = "open-sesame"
)

// demoFiles are there from the start.
var demoFiles = map[string]string{
	"/welcome.txt":     "This file lives in the memory of the demo's FTP server.\nWhoever reads it elsewhere has it from ftpalg.\n",
	"/pub/rfc959.txt":  "FILE TRANSFER PROTOCOL (FTP). J. Postel, J. Reynolds, October 1985.\n",
	"/pub/rfc2428.txt": "FTP Extensions for IPv6 and NATs. M. Allman, S. Ostermann, C. Metz, September 1998.\n",
}

// serverJob is what the server is told on standard input.
type serverJob struct {
	Listen    []string
	Cert, Key string // PEM files, for clients that want TLS
}

// What the server tells on standard output, one JSON object a line.
type serverEvent struct {
	Event string   // one of those below
	Link  demoLink // of listening: Own alone
	Line  demoLine
	File  storedFile
	TLS   demoTLS
}

// The events of the server.
const (
	eventListening = "listening" // on one of the addresses
	eventCalled    = "called"    // a control connection came
	eventSaid      = "said"      // a line passed on it
	eventConnected = "connected" // a passive data connection came
	eventSecured   = "secured"   // TLS has begun on one of the two
	eventStored    = "stored"    // a file was uploaded
	eventLeft      = "left"      // a control connection is over
)

// storedFile is an upload as the server received it.
type storedFile struct {
	Name   string
	Bytes  int64
	SHA256 string
}

func newDemoServer() *cobra.Command {
	return &cobra.Command{
		Use: "server", Hidden: true, Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			s := &demoServer{out: json.NewEncoder(cmd.OutOrStdout())}
			return fail(s.run(os.Stdin, cmd.ErrOrStderr()))
		},
	}
}

// demoServer is the FTP server of the demo: ftpserverlib on a file system in memory, and an ear on its connections.
type demoServer struct {
	files afero.Fs
	tls   *tls.Config // one, for its tickets are good for no other

	mu  sync.Mutex // guards out: connections have a goroutine each
	out *json.Encoder
}

// run serves until in ends, which it does with the demo.
func (s *demoServer) run(in io.Reader, errs io.Writer) error {
	var job serverJob
	if err := json.NewDecoder(in).Decode(&job); err != nil {
		return fmt.Errorf("read the job from standard input: %w", err)
	}
	pair, err := tls.LoadX509KeyPair(job.Cert, job.Key)
	if err != nil {
		return err
	}
	s.tls = &tls.Config{
		Certificates: []tls.Certificate{pair},
		VerifyConnection: func(c tls.ConnectionState) error {
			s.tell(serverEvent{Event: eventSecured, TLS: tlsOf(c)})
			return nil
		},
	}
	s.files = afero.NewMemMapFs()
	for name, content := range demoFiles {
		if err := s.files.MkdirAll(path.Dir(name), 0o755); err != nil {
			return err
		}
		if err := afero.WriteFile(s.files, name, []byte(content), 0o644); err != nil {
			return err
		}
	}
	var servers sync.WaitGroup
	defer servers.Wait()
	for _, at := range job.Listen {
		l, err := net.Listen("tcp", at)
		if err != nil {
			return err
		}
		defer l.Close()
		server := ftpserver.NewFtpServer(&demoDriver{demoServer: s, listener: l})
		server.Logger = slog.New(slog.NewTextHandler(errs, nil))
		if err := server.Listen(); err != nil {
			return err
		}
		servers.Go(func() { server.Serve() })
		s.tell(serverEvent{Event: eventListening, Link: demoLink{Own: unmapped(l.Addr())}})
	}
	io.Copy(io.Discard, in)
	return nil
}

func (s *demoServer) tell(e serverEvent) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.out.Encode(e)
}

// demoDriver is what ftpserverlib asks for everything: ftpserver.MainDriver, for one listener.
type demoDriver struct {
	*demoServer
	listener net.Listener
}

func (d *demoDriver) GetSettings() (*ftpserver.Settings, error) {
	return &ftpserver.Settings{
		Listener: &earListener{d.listener, d.call},
		// Active data connections come from port 20 (RFC 959 §3.2) where the server has port 21: there it has namespace
		// and privilege for it.
		ActiveTransferPortNon20: unmapped(d.listener.Addr()).Port() != 21,
	}, nil
}

func (d *demoDriver) ClientConnected(ftpserver.ClientContext) (string, error) {
	return "The demo's FTP server", nil
}

func (d *demoDriver) ClientDisconnected(ftpserver.ClientContext) {
	d.tell(serverEvent{Event: eventLeft})
}
func (d *demoDriver) GetTLSConfig() (*tls.Config, error) { return d.tls, nil }

func (d *demoDriver) AuthUser(_ ftpserver.ClientContext, user, password string) (ftpserver.ClientDriver, error) {
	if user != demoUser || password != demoPassword {
		return nil, errors.New("no such user, or not this password")
	}
	return &demoHome{d.files, d.demoServer}, nil
}

// WrapPassiveListener implements ftpserver.MainDriverExtensionPassiveWrapper.
func (d *demoDriver) WrapPassiveListener(l net.Listener) (net.Listener, error) {
	return &earListener{l, d.connect}, nil
}

// call is told of control connections.
func (d *demoDriver) call(c net.Conn) net.Conn {
	d.tell(serverEvent{Event: eventCalled, Link: linkOf(c)})
	return tap(c, ">", "<", func(l demoLine) { d.tell(serverEvent{Event: eventSaid, Line: l}) })
}

// connect is told of data connections.
func (d *demoDriver) connect(c net.Conn) net.Conn {
	d.tell(serverEvent{Event: eventConnected, Link: linkOf(c)})
	return c
}

// earListener shows connections to somebody as they come.
type earListener struct {
	net.Listener
	show func(net.Conn) net.Conn
}

// Accept implements net.Listener.
func (l *earListener) Accept() (net.Conn, error) {
	c, err := l.Listener.Accept()
	if err != nil {
		return nil, err
	}
	return l.show(c), nil
}

// demoHome is the files as one user sees them.
type demoHome struct {
	afero.Fs
	server *demoServer
}

// GetHandle implements ftpserver.ClientDriverExtentionFileTransfer.
func (h *demoHome) GetHandle(name string, flags int, _ int64) (ftpserver.FileTransfer, error) {
	f, err := h.OpenFile(name, flags, 0o644)
	if err != nil || flags&os.O_WRONLY == 0 {
		return f, err
	}
	return &demoUpload{File: f, server: h.server, sum: sha256.New()}, nil
}

// demoUpload is a file that is being written, and told of when it is whole.
type demoUpload struct {
	afero.File
	server *demoServer
	bytes  int64
	sum    hash.Hash
}

// Write implements io.Writer.
func (u *demoUpload) Write(b []byte) (int, error) {
	n, err := u.File.Write(b)
	u.bytes += int64(n)
	u.sum.Write(b[:n])
	return n, err
}

// Close implements io.Closer.
func (u *demoUpload) Close() error {
	u.server.tell(serverEvent{Event: eventStored, File: storedFile{u.Name(), u.bytes, hex.EncodeToString(u.sum.Sum(nil))}})
	return u.File.Close()
}
