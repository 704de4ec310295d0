//go:build linux

package integration

import (
	"context"
	"crypto/tls"
	"errors"
	"log/slog"
	"net"
	"net/netip"
	"os"
	"strconv"
	"syscall"

	ftpserver "github.com/fclairamb/ftpserverlib"
	"github.com/spf13/afero"
)

func startFtpserverlib(d door) {
	d.start(d.lab.Server.role(context.Background(), "ftpserverlib", d.arguments()...))
}

// serveFtpserverlib is a role of the test program: an FTP server on ftpserverlib. Its arguments are those of door.arguments.
func serveFtpserverlib(args []string) error {
	at, err := netip.ParseAddrPort(args[0])
	if err != nil {
		return err
	}
	listener, err := net.Listen("tcp", at.String())
	if err != nil {
		return err
	}
	d := &driver{files: afero.NewBasePathFs(afero.NewOsFs(), args[1])}
	if len(args) > 3 {
		pair, err := tls.LoadX509KeyPair(args[3], args[3])
		if err != nil {
			return err
		}
		d.tls = &tls.Config{Certificates: []tls.Certificate{pair}}
	}
	d.settings = &ftpserver.Settings{
		Listener:                listener,
		ActiveTransferPortNon20: true, // it is not root any more
	}
	if at.Port() == ports[true] {
		d.settings.Listener = tls.NewListener(listener, d.tls)
		d.settings.TLSRequired = ftpserver.ImplicitEncryption
	}
	uid, err := strconv.Atoi(args[2])
	if err != nil {
		return err
	}
	if err := errors.Join(syscall.Setgroups(nil), syscall.Setgid(uid), syscall.Setuid(uid)); err != nil {
		return err
	}
	server := ftpserver.NewFtpServer(d)
	server.Logger = slog.New(slog.NewTextHandler(os.Stderr, &slog.HandlerOptions{Level: slog.LevelDebug}))
	return server.ListenAndServe()
}

// driver is what ftpserverlib asks for users and their files.
type driver struct {
	settings *ftpserver.Settings
	tls      *tls.Config // nil: it has no TLS
	files    afero.Fs
}

func (d *driver) GetSettings() (*ftpserver.Settings, error) { return d.settings, nil }

func (d *driver) GetTLSConfig() (*tls.Config, error) {
	if d.tls == nil {
		return nil, errors.New("no TLS")
	}
	return d.tls, nil
}

func (d *driver) ClientConnected(ftpserver.ClientContext) (string, error) { return "ftpserverlib", nil }
func (d *driver) ClientDisconnected(ftpserver.ClientContext)              {}

func (d *driver) AuthUser(_ ftpserver.ClientContext, user, password string) (ftpserver.ClientDriver, error) {
	if user != ftpUser || password != ftpPassword {
		return nil, errors.New("wrong user or password")
	}
	return d.files, nil
}
