//go:build linux

package integration

import (
	"fmt"
	"os"
	"path/filepath"
	"strconv"
)

// How each server is configured: uploads, appending, renaming and restarting allowed, no DNS, and otherwise as it comes. That
// means, of TLS: vsftpd and ProFTPD demand that data connections resume the control connection's session, the others do not.

func startVsftpd(d door) {
	empty := filepath.Join(d.lab.Dir, "empty")
	os.Mkdir(empty, 0o755)
	listen := "listen=YES\nlisten_ipv6=NO\nlisten_address="
	if d.family == v6 {
		listen = "listen=NO\nlisten_ipv6=YES\nlisten_address6="
	}
	conf := fmt.Sprintf(`%s%s
listen_port=%d
background=NO
seccomp_sandbox=NO
isolate_network=NO
anonymous_enable=NO
local_enable=YES
local_root=%s
local_umask=022
chroot_local_user=YES
allow_writeable_chroot=YES
secure_chroot_dir=%s
write_enable=YES
connect_from_port_20=YES
pam_service_name=vsftpd
log_ftp_protocol=YES
xferlog_enable=YES
vsftpd_log_file=%s
`, listen, d.Addr[d.family], ports[d.implicit], d.Home, empty, filepath.Join(d.lab.logs(), d.String()+".commands"))
	if d.certificate != "" {
		conf += fmt.Sprintf(`ssl_enable=YES
implicit_ssl=%s
force_local_logins_ssl=NO
force_local_data_ssl=NO
require_ssl_reuse=YES
debug_ssl=YES
rsa_cert_file=%s
`, map[bool]string{false: "NO", true: "YES"}[d.implicit], d.certificate)
	}
	d.run(unpacked("usr/sbin/vsftpd"), d.write("conf", conf))
}

func startProftpd(d door) {
	conf := ""
	if d.certificate != "" {
		conf = fmt.Sprintf(`ModulePath %s
LoadModule mod_tls.c
TLSEngine on
TLSRequired off
TLSECCertificateFile %s
TLSECCertificateKeyFile %[2]s
TLSLog %s
`, unpacked("usr/lib/proftpd"), d.certificate, filepath.Join(d.lab.logs(), d.String()+".tls"))
		if d.implicit {
			conf += "TLSOptions UseImplicitSSL\n"
		}
	}
	conf += fmt.Sprintf(`ServerName ftpalg
ServerType standalone
DefaultAddress %s
SocketBindTight on
Port %d
User nobody
Group nogroup
DefaultRoot %s
AuthOrder mod_auth_file.c
AuthUserFile %s
RequireValidShell off
UseFtpUsers off
UseReverseDNS off
AllowOverwrite on
AllowRetrieveRestart on
AllowStoreRestart on
DelayEngine off
WtmpLog off
TransferLog none
PidFile %[5]s.pid
ScoreboardFile %[5]s.scoreboard
SystemLog %[6]s.system
ExtendedLog %[6]s.commands ALL
`, d.Addr[d.family], ports[d.implicit], d.Home, d.write("passwd", d.passwd()),
		filepath.Join(d.lab.Dir, d.String()), filepath.Join(d.lab.logs(), d.String()))
	d.run(unpacked("usr/sbin/proftpd"), "--nodaemon", "--config", d.write("conf", conf))
}

func startPureftpd(d door) {
	users := d.write("passwd", fmt.Sprintf("%s:%s:%d:%[3]d::%s/./::::::::::::\n", ftpUser, ftpPasswordHash, d.uid, d.Home))
	database := filepath.Join(d.lab.Dir, d.String()+".pdb")
	d.lab.Server.must(unpacked("usr/bin/pure-pw"), "mkdb", database, "-f", users)
	args := []string{
		"--bind", d.Addr[d.family].String() + ",21", "--login", "puredb:" + database,
		"--chrooteveryone", "--noanonymous", "--dontresolve", "--umask", "022:022",
		"--pidfile", filepath.Join(d.lab.Dir, d.String()+".pid"),
	}
	if d.certificate != "" {
		args = append(args, "--tls", d.lab.pureTLS[d.family], "--certfile", d.certificate)
	}
	d.run(unpacked("usr/sbin/pure-ftpd"), args...)
}

func startPyftpdlib(d door) {
	script, err := filepath.Abs("testdata/server.py")
	if err != nil {
		d.lab.t.Fatal(err)
	}
	d.run("/usr/bin/python3", append([]string{script, ftpUser, ftpPassword}, d.arguments()...)...)
}

// arguments are those of the tests' own servers: address, directory, user id, and the certificate if there is one.
func (d door) arguments() []string {
	args := []string{d.addrPort().String(), d.Home, strconv.Itoa(d.uid)}
	if d.certificate != "" {
		args = append(args, d.certificate)
	}
	return args
}
