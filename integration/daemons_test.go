//go:build linux

package integration

import (
	"fmt"
	"os"
	"path/filepath"
	"strconv"
)

// How each server is configured: uploads, appending, renaming and restarting allowed, no TLS, no DNS, and otherwise as it
// comes.

func startVsftpd(s *server, f family) {
	empty := filepath.Join(s.lab.Dir, "empty")
	os.Mkdir(empty, 0o755)
	listen := "listen=YES\nlisten_ipv6=NO\nlisten_address="
	if f == v6 {
		listen = "listen=NO\nlisten_ipv6=YES\nlisten_address6="
	}
	s.run(f, unpacked("usr/sbin/vsftpd"), s.write(f, "conf", fmt.Sprintf(`%s%s
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
`, listen, s.Addr[f], s.Home, empty, filepath.Join(s.lab.logs(), "vsftpd-"+f.String()+".commands"))))
}

func startProftpd(s *server, f family) {
	conf := s.write(f, "conf", fmt.Sprintf(`ServerName ftpalg
ServerType standalone
DefaultAddress %s
SocketBindTight on
Port 21
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
PidFile %[4]s.pid
ScoreboardFile %[4]s.scoreboard
SystemLog %[5]s.system
ExtendedLog %[5]s.commands ALL
`, s.Addr[f], s.Home, s.write(f, "passwd", s.passwd()),
		filepath.Join(s.lab.Dir, "proftpd-"+f.String()), filepath.Join(s.lab.logs(), "proftpd-"+f.String())))
	s.run(f, unpacked("usr/sbin/proftpd"), "--nodaemon", "--config", conf)
}

func startPureftpd(s *server, f family) {
	users := s.write(f, "passwd", fmt.Sprintf("%s:%s:%d:%[3]d::%s/./::::::::::::\n", ftpUser, ftpPasswordHash, s.uid, s.Home))
	database := filepath.Join(s.lab.Dir, "pureftpd-"+f.String()+".pdb")
	s.lab.Server.must(unpacked("usr/bin/pure-pw"), "mkdb", database, "-f", users)
	s.run(f, unpacked("usr/sbin/pure-ftpd"), "--bind", s.Addr[f].String()+",21", "--login", "puredb:"+database,
		"--chrooteveryone", "--noanonymous", "--dontresolve", "--umask", "022:022",
		"--pidfile", filepath.Join(s.lab.Dir, "pureftpd-"+f.String()+".pid"))
}

func startPyftpdlib(s *server, f family) {
	script, err := filepath.Abs("testdata/server.py")
	if err != nil {
		s.lab.t.Fatal(err)
	}
	s.run(f, "/usr/bin/python3", script, s.Addr[f].String(), s.Home, strconv.Itoa(s.uid), ftpUser, ftpPassword)
}
