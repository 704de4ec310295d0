#!/bin/bash
# Makes the Debian package, for the machine's own architecture, and prints its path.
#
#   cmd/package/deb.sh [-v VERSION] [DIR]      into DIR, or else where it is called
#
# The version is git's (tag v1.2.3, or what came after it), unless it is given. It needs Go, git, dpkg-deb and gzip, and no root.
# The same sources, Go and version make the same package to the byte.
set -euo pipefail
umask 022

here=$(cd "$(dirname "$0")" && pwd)
top=$(cd "$here/../.." && pwd)
version=
while getopts v: option; do
	case $option in
	v) version=$OPTARG ;;
	*) sed -n 's/^#   //p' "$0" >&2; exit 2 ;;
	esac
done
shift $((OPTIND - 1))
into=$(cd "${1:-.}" && pwd)
cd "$top"

# gitVersion is what git knows, as dpkg compares it: 1.2.3, then 1.2.3+5.gabc; before the first tag, by day.
gitVersion() {
	local described
	if described=$(git describe --tags --match 'v[0-9]*' 2>/dev/null); then
		sed 's/^v//; s/-\([0-9]*\)-g/+\1.g/' <<<"$described"
	else
		git log -1 --date=format:%Y%m%d --format='0.0.0+git%cd.%h'
	fi
}
version=${version:-$(gitVersion)}
SOURCE_DATE_EPOCH=${SOURCE_DATE_EPOCH:-$(git log -1 --format=%ct)}
export SOURCE_DATE_EPOCH
arch=$(dpkg --print-architecture)
# Who makes a package answers for it: $DEBFULLNAME and $DEBEMAIL, as with Debian's own tools, or else git's last author.
maintainer="${DEBFULLNAME:-$(git log -1 --format=%an)} <${DEBEMAIL:-$(git log -1 --format=%ae)}>"

stage=$(mktemp -d)
trap 'rm -rf "$stage"' EXIT
root=$stage/root
doc=$root/usr/share/doc/ftpalg

# put MODE FILE DIR puts a file into a directory of the package.
put() { install -D -m "$1" -t "$root$3" "$2"; }

# compress FILE... as Debian wants its documents.
compress() { gzip -9n "$@"; }

mkdir -p "$root/usr/sbin"
CGO_ENABLED=0 go build -trimpath -ldflags "-s -w -X ftpalg/proxy.stamped=$version" -o "$root/usr/sbin/ftpalg" ./cmd/ftpalg
program=$root/usr/sbin/ftpalg

# The configuration, and what other services have of it.
put 0640 cmd/package/ftpalg.yaml /etc/ftpalg
put 0644 config/logrotate/ftpalg /etc/logrotate.d
put 0644 config/fail2ban/ftpalg.conf /etc/fail2ban/filter.d
put 0644 config/apparmor/usr.sbin.ftpalg /etc/apparmor.d

# The service. A unit that calls itself an example is one.
while read -r file; do
	where=/usr/lib/systemd/system
	if head -1 "config/systemd/$file" | grep -q '^# An example'; then
		where=/usr/share/doc/ftpalg/examples/systemd
	fi
	put 0644 "config/systemd/$file" "$where/$(dirname "$file")"
done < <(cd config/systemd && find . -type f -printf '%P\n')
for folder in sysusers.d tmpfiles.d; do
	put 0644 config/$folder/ftpalg.conf /usr/lib/$folder
done

# Manual pages and completions, as the program knows itself.
mkdir -p "$stage/pages"
"$program" manual --date "$(date -u -d "@$SOURCE_DATE_EPOCH" +%F)" "$stage/pages"
compress "$stage"/pages/*
for page in "$stage"/pages/*; do
	section=${page%.gz}
	put 0644 "$page" "/usr/share/man/man${section##*.}"
done
for shell in bash:bash-completion/completions/ftpalg zsh:zsh/vendor-completions/_ftpalg fish:fish/vendor_completions.d/ftpalg.fish; do
	file=$root/usr/share/${shell#*:}
	mkdir -p "$(dirname "$file")"
	"$program" completion "${shell%%:*}" >"$file"
done

# Documents.
put 0644 README.md /usr/share/doc/ftpalg
put 0644 .github/CHANGELOG.md /usr/share/doc/ftpalg
for file in config/examples/*; do put 0644 "$file" /usr/share/doc/ftpalg/examples; done
if [[ -d config/grafana ]]; then
	while read -r file; do
		put 0644 "config/grafana/$file" "/usr/share/doc/ftpalg/examples/grafana/$(dirname "$file")"
	done < <(cd config/grafana && find . -type f -printf '%P\n')
fi
compress "$doc/README.md" "$doc/CHANGELOG.md"
cat >"$doc/changelog" <<END
ftpalg ($version) stable; urgency=medium

  * Made of the project's own sources; what is new is in CHANGELOG.md.gz.

 -- $maintainer  $(LC_ALL=C date -u -R -d "@$SOURCE_DATE_EPOCH")
END
compress "$doc/changelog"
cmd/package/notice.sh >"$doc/copyright"
install -D -m 0644 cmd/package/debian/lintian-overrides "$root/usr/share/lintian/overrides/ftpalg"

# What dpkg has to know.
install -d "$root/DEBIAN"
for script in postinst prerm postrm; do install -m 0755 "cmd/package/debian/$script" "$root/DEBIAN"; done
(cd "$root" && find etc -type f -printf '/%p\n' | sort) >"$root/DEBIAN/conffiles"
(cd "$root" && find usr -type f -print0 | sort -z | xargs -0 md5sum) >"$root/DEBIAN/md5sums"
cat >"$root/DEBIAN/control" <<END
Package: ftpalg
Version: $version
Architecture: $arch
Maintainer: $maintainer
Installed-Size: $(du -k -s --apparent-size --exclude=DEBIAN "$root" | cut -f1)
Depends: systemd | systemd-standalone-sysusers, systemd | systemd-standalone-tmpfiles
Recommends: ca-certificates, logrotate
Suggests: apparmor, fail2ban, nftables
Section: net
Priority: optional
Description: transparent application-layer gateway for FTP and FTPS
 FTP opens a second connection for every file and listing, on a port agreed
 inside the first; a firewall that forwards FTP must follow that conversation,
 and is blind once it is encrypted. ftpalg ends the control connection, TLS and
 all, makes its own to the server, rewrites what both sides agree on about data
 connections, and carries the data across, so that client and server each
 believe that they talk to the other.
 .
 It takes connections by nftables TPROXY or REDIRECT, as an explicit proxy for
 FTP, HTTP and SOCKS5 clients, or as a gateway in front of one server, and holds
 them to rules about commands, paths, users and amounts.
END

# Everything is as old as the sources, so that it does not matter when it was made.
find "$root" -newermt "@$SOURCE_DATE_EPOCH" -print0 | xargs -0r touch --no-dereference --date="@$SOURCE_DATE_EPOCH"
deb=$into/ftpalg_${version}_$arch.deb
dpkg-deb --root-owner-group --build "$root" "$deb" >/dev/null
echo "$deb"
