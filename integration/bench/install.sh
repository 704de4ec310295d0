#!/bin/bash
# Unpacks the proxies that the benchmark measures beside ftpalg, on Debian 12.
#
#   integration/bench/install.sh [DIR]
#
# They are unpacked into DIR and not installed, so that no service of theirs is started or configured; only the shared
# libraries they need become ordinary packages. The benchmark looks for them in $FTPALG_BENCH_PEERS, or else in the default
# of DIR. Running it again when all is there does nothing.
set -euo pipefail

dir=${1:-${FTPALG_BENCH_PEERS:-${XDG_CACHE_HOME:-/var/cache}/ftpalg-bench-peers}}

# squid-common and squid-langpack have files that Squid does not start without; mod-crypto is ProFTPD's TLS; ftp-proxy is
# SUSE's.
peers=(squid squid-common squid-langpack proftpd-core proftpd-mod-crypto proftpd-mod-proxy ftp-proxy haproxy stunnel4)
# For the namespaces, the firewall's rules, and diversion to Squid.
tools=(ca-certificates iproute2 nftables)
programs=(usr/sbin/squid usr/sbin/proftpd usr/lib/proftpd/mod_tls.so usr/lib/proftpd/mod_proxy.so usr/sbin/ftp-proxy
	usr/sbin/haproxy usr/bin/stunnel4)

present() {
	local package
	for package in "${tools[@]}"; do
		[[ $(dpkg-query -W -f '${db:Status-Status}' "$package" 2>/dev/null) == installed ]] || return 1
	done
	for package in "${peers[@]}"; do
		[[ -e $dir/.$package ]] || return 1
	done
}

# libraries DEB prints the shared libraries and PAM modules that a package depends on, and none of the services.
libraries() {
	dpkg-deb -f "$1" Depends | tr ',' '\n' | sed 's/([^)]*)//g; s/|.*//; s/ //g' | grep '^lib' | grep -v -e '-perl$' || true
}

if present; then
	echo "The benchmark's peers are already there, in $dir."
	exit
fi
if ((EUID != 0)); then
	echo "install.sh: must be run as root" >&2
	exit 1
fi

export DEBIAN_FRONTEND=noninteractive
apt-get update -q
apt-get install -qy --no-install-recommends --no-upgrade "${tools[@]}"

mkdir -p "$dir"
scratch=$(mktemp -d)
trap 'rm -rf "$scratch"' EXIT
chmod 755 "$scratch" # apt downloads as its own user
chown _apt "$scratch" 2>/dev/null || true
needed=()
for package in "${peers[@]}"; do
	(cd "$scratch" && apt-get download -q "$package")
	deb=("$scratch/${package}"_*.deb)
	mapfile -t -O "${#needed[@]}" needed < <(libraries "${deb[0]}")
done
# What is there stays as it is: an upgrade could restart a service.
apt-get install -qy --no-install-recommends --no-upgrade "${needed[@]}"
for package in "${peers[@]}"; do
	deb=("$scratch/${package}"_*.deb)
	dpkg-deb -x "${deb[0]}" "$dir"
done
for program in "${programs[@]}"; do
	if ! linked=$(ldd "$dir/$program") || grep -q 'not found' <<<"$linked"; then
		printf 'install.sh: %s lacks libraries, or is not there:\n%s\n' "$dir/$program" "${linked:-}" >&2
		exit 1
	fi
done
for package in "${peers[@]}"; do # last, so that what is marked is complete
	deb=("$scratch/${package}"_*.deb)
	dpkg-deb -f "${deb[0]}" Version >"$dir/.$package"
done
echo "The benchmark's peers are there, in $dir."
