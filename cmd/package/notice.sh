#!/bin/bash
# Prints whose code is in the program and by which licences: what its package must tell. Texts that every Debian system has are named.
set -euo pipefail
cd "$(dirname "$0")/../.."

common=/usr/share/common-licenses/Apache-2.0
gpl=/usr/share/common-licenses/GPL-2

# licence PATH VERSION DIR prints the texts that a module, or Go, comes with.
licence() {
	local file found=
	printf '\n%s\n%s %s\n\n' "$(printf '%.0s-' {1..100})" "$1" "$2"
	while read -r file; do
		found=1
		if head -5 "$file" | grep -q 'Apache License'; then
			printf 'Licensed under the Apache License, Version 2.0; its text is in %s.\n' $common
		elif grep -q '^Full text of gpl-2.0.txt:$' "$file"; then # one of two to choose from, and not our choice
			sed '/^Full text of gpl-2.0.txt:$/,$d' "$file" | sed '$d'
			printf 'Here the BSD 3-clause licence is chosen. The text of the other is in %s.\n' $gpl
		else
			cat "$file"
			echo
		fi
	done < <(find "$3" -maxdepth 1 -type f \( -iname 'licen[cs]e*' -o -iname 'copying*' -o -iname 'notice*' \) ! -name '*.go' | sort)
	if [[ -z $found ]]; then
		echo "notice.sh: $1 has no licence" >&2
		return 1
	fi
}

cat <<END
ftpalg is a transparent application-layer gateway for FTP and FTPS.

Copyright The ftpalg maintainers

Licensed under the Apache License, Version 2.0; on Debian systems its text is in
$common.

The program is one file, and has in it the Go standard library and the modules below, each under the licence that follows
its name.
END
licence Go "$(go env GOVERSION)" "$(go env GOROOT)"
modules=$(CGO_ENABLED=0 go list -deps -f '{{with .Module}}{{if not .Main}}{{.Path}} {{.Version}} {{.Dir}}{{end}}{{end}}' ./cmd/ftpalg | sort -u)
while read -r path version dir; do
	licence "$path" "$version" "$dir"
done <<<"$modules"
