//go:build linux

package integration

import (
	"context"
	"crypto/tls"
	"errors"
	"log/slog"
	"net"
	"os"
	"strconv"
	"syscall"

	ftpserver "github.com/fclairamb/ftpserverlib"
	"github.com/spf13/afero"
)

func startFtpserverlib(s *server, f family) {
	s.start(f, s.lab.Server.role(context.Background(), "ftpserverlib", s.AddrPort(f).String(), s.Home, strconv.Itoa(s.uid)))
}

// serveFtpserverlib is a role of the test program: an FTP server on ftpserverlib. args are its address, its directory and the
// user it runs as.
func serveFtpserverlib(args []string) error {
	listener, err := net.Listen("tcp", args[0])
	if err != nil {
		return err
	}
	uid, err := strconv.Atoi(args[2])
	if err != nil {
		return err
	}
	if err := errors.Join(syscall.Setgroups(nil), syscall.Setgid(uid), syscall.Setuid(uid)); err != nil {
		return err
	}
	server := ftpserver.NewFtpServer(&driver{listener: listener, files: afero.NewBasePathFs(afero.NewOsFs(), args[1])})
	server.Logger = slog.New(slog.NewTextHandler(os.Stderr, &slog.HandlerOptions{Level: slog.LevelDebug}))
	return server.ListenAndServe()
}

// driver is what ftpserverlib asks for users and their files.
type driver struct {
	listener net.Listener
	files    afero.Fs
}

func (d *driver) GetSettings() (*ftpserver.Settings, error) {
	return &ftpserver.Settings{
		Listener:                d.listener,
		ActiveTransferPortNon20: true, // it is not root any more
	}, nil
}

func (d *driver) ClientConnected(ftpserver.ClientContext) (string, error) { return "ftpserverlib", nil }
func (d *driver) ClientDisconnected(ftpserver.ClientContext)              {}
func (d *driver) GetTLSConfig() (*tls.Config, error)                      { return nil, errors.New("no TLS") }

func (d *driver) AuthUser(_ ftpserver.ClientContext, user, password string) (ftpserver.ClientDriver, error) {
	if user != ftpUser || password != ftpPassword {
		return nil, errors.New("wrong user or password")
	}
	return d.files, nil
}
