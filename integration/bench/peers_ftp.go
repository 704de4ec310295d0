//go:build linux

package main

import (
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"runtime"
)

// ftpPeers are proxies that know FTP.
var ftpPeers = []subject{
	{Name: "squid", About: "Squid's ftp_port, intercepting by TPROXY, always passive with the server", Start: startSquid},
	{Name: "mod-proxy", About: "ProFTPD's mod_proxy as a gateway", Start: func(f *firewall) (*way, error) { return startModProxy(f, false) }},
	{Name: "mod-proxy-tls", About: "the same, ending TLS on both sides", Start: func(f *firewall) (*way, error) { return startModProxy(f, true) }},
	{Name: "suse", About: "SUSE's ftp-proxy as a gateway", Start: startSUSE},
}

// startSquid starts Squid with a worker for each processor, intercepting control connections by TPROXY. For data connections it
// tells clients the server's address with a port of the firewall's, and needs them redirected. In active mode it calls the
// client, and uses passive mode with the server all the same.
//
// A second worker moved eight streams a fifth to a half faster than one alone on two processors, for the same processor time.
// read_ahead_gap (to 512 KiB), memory_pools_limit and debug_options made no difference.
func startSquid(f *firewall) (*way, error) {
	p, err := newPeer(f, "squid")
	if err != nil {
		return nil, err
	}
	const port = 3121
	err = p.Nft(fmt.Sprintf(`
		table inet squid {
			chain control {
				type filter hook prerouting priority mangle
				meta l4proto tcp socket transparent 1 meta mark set 1 accept
				iifname %s tcp dport %d tproxy ip to :%d meta mark set 1 accept
			}
			chain data {
				type nat hook prerouting priority dstnat
				iifname %[1]s tcp dport 1024-65535 redirect
			}
		}`, clientSide, ftpPort, port))
	if err == nil {
		err = p.Run("ip", "rule", "add", "fwmark", "1", "lookup", "100")
	}
	if err == nil {
		err = p.Run("ip", "route", "add", "local", "default", "dev", "lo", "table", "100")
	}
	if err != nil {
		return nil, err
	}
	state, err := p.scratch("state")
	if err != nil {
		return nil, err
	}
	config, err := p.File("squid.conf", fmt.Sprintf(`
workers %d
ftp_port %d tproxy
http_port 127.0.0.1:3128
http_access allow all
cache deny all
cache_mem 0
access_log none
cache_store_log none
client_db off
netdb_filename none
digest_generation off
pinger_enable off
dns_nameservers 127.0.0.1
visible_hostname firewall
cache_effective_user nobody
cache_effective_group nogroup
cache_log %s/cache.log
coredump_dir %[3]s
pid_filename %[3]s/pid
mime_table %s
icon_directory %s
error_directory %s
error_log_languages off
unlinkd_program %s
`, runtime.NumCPU(), port, state, p.file("usr/share/squid/mime.conf"), p.file("usr/share/squid/icons"),
		p.file("usr/share/squid-langpack/templates"), p.file("usr/lib/squid/unlinkd")))
	if err != nil {
		return nil, err
	}
	// Workers meet in a directory that is compiled in, and by names in shared memory that every Squid uses.
	started, err := p.Start("squid", p.Command("/bin/sh", "-c", `mount -t tmpfs run /run && mkdir -m 777 /run/squid &&
		mount -t tmpfs shm /dev/shm && exec "$@"`, "sh", p.file("usr/sbin/squid"), "--foreground", "-d", "1", "-f", config))
	if err != nil {
		return nil, err
	}
	return &way{Version: p.version(), Control: p.Server, Plain: true, Processes: []*process{started},
		Cannot: map[string]string{"tls-*": "it refuses AUTH"}}, p.AwaitGreeting(started, p.Server)
}

// startModProxy starts ProFTPD with mod_proxy as a reverse proxy, which forks for every session.
//
// SocketOptions, which also sets the size of what is copied at a time, is left as it comes: 256 KiB took a fifth to a third off the
// processor time of plain streams, added a tenth to a session's, and 250 KiB to the memory of an idle one.
// ProxyReverseConnectPolicy has nothing to choose from here, but the default, RoundRobin, reads and writes a database for it, and
// with dozens of clients at once refused sessions since that was locked. ProxyTLSOptions NoSessionCache and NoSessionTickets,
// TLSSessionTickets, ScoreboardScrub, UseEncoding and the like made no difference.
func startModProxy(f *firewall, secured bool) (*way, error) {
	p, err := newPeer(f, "proftpd-mod-proxy")
	if err != nil {
		return nil, err
	}
	// mod_proxy writes into a database for every session; in memory that is cheapest.
	tables := filepath.Join(p.Dir, "tables")
	if err := os.Mkdir(tables, 0o755); err != nil {
		return nil, err
	}
	control := netip.AddrPortFrom(p.ClientSide, ftpPort)
	// mod_proxy needs mod_tls loaded, or it finds no OpenSSL; and UseIPv6 off, or it calls IPv4 servers from IPv6 sockets.
	conf := fmt.Sprintf(`
ModulePath %s
LoadModule mod_tls.c
LoadModule mod_proxy.c
ServerName bench
ServerType standalone
UseIPv6 off
DefaultAddress %s
SocketBindTight on
Port %d
User nobody
Group nogroup
MaxInstances none
TCPBacklog 255
RequireValidShell off
UseReverseDNS off
AllowOverwrite on
AllowStoreRestart on
DelayEngine off
WtmpLog off
TransferLog none
SystemLog none
PidFile %s/pid
ScoreboardFile none
ProxyEngine on
ProxyRole reverse
ProxyReverseConnectPolicy Random
ProxyReverseServers ftp://%s
ProxyTables %[4]s
ProxyLog none
`, p.file("usr/lib/proftpd"), control.Addr(), control.Port(), tables, p.Server)
	if secured {
		conf += fmt.Sprintf(`
TLSEngine on
TLSRequired on
TLSProtocol TLSv1.3
TLSOptions NoSessionReuseRequired
TLSECCertificateFile %s
TLSECCertificateKeyFile %s
TLSLog none
ProxyTLSEngine on
ProxyTLSProtocol TLSv1.3
ProxyTLSCACertificateFile %s
`, p.Cert, p.Key, p.Authority)
	} else {
		conf += "ProxyTLSEngine off\n"
	}
	config, err := p.File("proftpd.conf", conf)
	if err != nil {
		return nil, err
	}
	if err := os.Chmod(config, 0o600); err != nil {
		return nil, err
	}
	command := p.Command("/bin/sh", "-c", `mount -t tmpfs -o mode=755,uid=65534 tables "$0" && exec "$@"`,
		tables, p.file("usr/sbin/proftpd"), "--nodaemon", "--config", config)
	// Otherwise every session reads all authorities of the system: 33 ms of processor time with TLS, instead of 10.
	command.Env = append(command.Env, "SSL_CERT_FILE="+p.Authority, "SSL_CERT_DIR="+tables)
	started, err := p.Start("proftpd", command)
	if err != nil {
		return nil, err
	}
	cannot := map[string]string{"tls-*": "mod-proxy-tls does it"}
	if secured {
		cannot = map[string]string{"plain-*": "mod-proxy does it"}
	}
	return &way{Version: p.version(), Control: control, Plain: !secured, TLS: secured, Processes: []*process{started}, Cannot: cannot,
		Sessions: 1000, // each is a process of about a megabyte, of two and more with TLS
	}, p.AwaitGreeting(started, control)
}

// startSUSE starts SUSE's ftp-proxy, which forks for every session. Without MaxRecvBufSize it copies at a time what has arrived,
// which is cheapest: half of what it costs with 64 KiB. It has no setting against the delay of Nagle's algorithm, from which its
// small transfers suffer: 40 ms each.
func startSUSE(f *firewall) (*way, error) {
	p, err := newPeer(f, "ftp-proxy")
	if err != nil {
		return nil, err
	}
	logs, err := p.scratch("logs")
	if err != nil {
		return nil, err
	}
	control := netip.AddrPortFrom(p.ClientSide, ftpPort)
	config, err := p.File("ftp-proxy.conf", fmt.Sprintf(`
[-Global-]
ServerType standalone
Listen %s
Port %d
User nobody
Group nogroup
DestinationAddress %s
DestinationPort %d
DestinationTransferMode client
MaxClients 512
ForkLimit 1000000
LogDestination %s/log
LogLevel ERR
TCPWrapper no
`, control.Addr(), control.Port(), p.Server.Addr(), p.Server.Port(), logs))
	if err != nil {
		return nil, err
	}
	started, err := p.Start("ftp-proxy", p.Command(p.file("usr/sbin/ftp-proxy"), "-n", "-d", "-f", config))
	if err != nil {
		return nil, err
	}
	return &way{Version: p.version(), Control: control, Plain: true, OldVerbs: true, Processes: []*process{started},
		Sessions: 480, // it refuses more than 512 whatever MaxClients says; the others are for what comes and goes besides
		Cannot:   map[string]string{"tls-*": "it knows no TLS"}}, p.AwaitGreeting(started, control)
}
