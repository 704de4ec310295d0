#!/bin/bash
# Installs the FTP clients and servers, and the directory, that the integration tests talk to, on Debian 12.
#
#   integration/install.sh [DIR]
#
# Clients and tools become ordinary packages. The servers vsftpd, ProFTPD and Pure-FTPd conflict with one another as
# packages, so they are unpacked into DIR instead, as are slapd and fail2ban; no service is started and nothing of theirs
# is configured. DIR/root and DIR/booted are systems of their own, for ftpalg's package. The tests look for them in
# $FTPALG_TEST_PEERS, or else in the default of DIR. Running it again when all is there does nothing.
set -euo pipefail

dir=${1:-${FTPALG_TEST_PEERS:-${XDG_CACHE_HOME:-/var/cache}/ftpalg-peers}}

clients=(curl lftp tnftp wget ncftp python3 perl chromium-headless-shell filezilla xvfb)
# gcc is for Go's race detector.
tools=(ca-certificates conntrack gcc iproute2 libc6-dev nftables openssl procps strace systemd util-linux)
# What packages and images are made of, and judged by; debootstrap makes the systems that one is installed in.
packaging=(apparmor buildah debootstrap dpkg-dev lintian logrotate man-db mandoc)
# mod-crypto is ProFTPD's TLS; haproxy is no server, but stands before and behind the gateway; prometheus watches it.
servers=(vsftpd proftpd-core proftpd-mod-crypto pure-ftpd slapd fail2ban haproxy prometheus)
# Systems that ftpalg's own package is installed in: a bare one, and one that boots.
declare -A systems=(
	[root]=systemd-standalone-sysusers,systemd-standalone-tmpfiles
	[booted]=systemd,systemd-sysv,procps
)
# TLS for Net::FTP and for pyftpdlib.
secure=(libio-socket-ssl-perl python3-openssl)
# Debian's own Python must be the one that imports pyftpdlib: /usr/bin/python3.
packages=("${clients[@]}" "${tools[@]}" "${packaging[@]}" "${secure[@]}" python3-pyftpdlib)

present() {
	local package
	for package in "${packages[@]}"; do
		[[ $(dpkg-query -W -f '${db:Status-Status}' "$package" 2>/dev/null) == installed ]] || return 1
	done
	for package in "${servers[@]}" "${!systems[@]}"; do
		[[ -e $dir/.$package ]] || return 1
	done
}

# mirror prints where apt has Debian itself from, and that release's name.
mirror() {
	apt-get indextargets --format '$(ORIGIN) $(COMPONENT) $(CODENAME) $(REPO_URI)' 'Created-By: Packages' |
		(. /etc/os-release && awk -v release="$VERSION_CODENAME" '$1 == "Debian" && $2 == "main" && $3 == release { print $3, $4; exit }')
}

# libraries DEB prints the shared libraries and PAM modules that a package depends on, and none of the services.
libraries() {
	dpkg-deb -f "$1" Depends | tr ',' '\n' | sed 's/([^)]*)//g; s/|.*//; s/ //g' | grep '^lib' | grep -v '^libjs-'
}

if present; then
	echo "The test peers are already installed, the servers in $dir."
	exit
fi
if ((EUID != 0)); then
	echo "install.sh: must be run as root" >&2
	exit 1
fi

export DEBIAN_FRONTEND=noninteractive
apt-get update -q
apt-get install -qy --no-install-recommends "${packages[@]}"

mkdir -p "$dir"
scratch=$(mktemp -d)
trap 'rm -rf "$scratch"' EXIT
chmod 755 "$scratch" # apt downloads as its own user
chown _apt "$scratch" 2>/dev/null || true
for package in "${servers[@]}"; do
	(cd "$scratch" && apt-get download -q "$package")
	deb=("$scratch/${package}"_*.deb)
	# shellcheck disable=SC2046
	apt-get install -qy --no-install-recommends $(libraries "${deb[0]}")
	dpkg-deb -x "${deb[0]}" "$dir"
	dpkg-deb -f "${deb[0]}" Version >"$dir/.$package"
done

for system in "${!systems[@]}"; do
	[[ -e $dir/.$system ]] && continue
	rm -rf "${dir:?}/$system"
	read -r release uri < <(mirror)
	debootstrap --variant=minbase --include="${systems[$system]}" "$release" "$dir/$system" "$uri"
	rm -rf "$dir/$system"/var/cache/apt/archives/*.deb "$dir/$system"/var/lib/apt/lists/*
	echo "$release" >"$dir/.$system"
done
echo "The test peers are installed, the servers in $dir."
