#!/bin/bash
# Installs what the tests need, on Debian 12 as root, and runs all of them: with the race detector, real clients and
# servers, and every fuzz target for a while. Anything that is missing is a failure, not a skip.
#
#   integration/test.sh [FUZZTIME]     how long each fuzz target runs, 10s by default; 0 leaves them out
set -euo pipefail
cd "$(dirname "$0")/.."
fuzztime=${1:-10s}

integration/install.sh
integration/bench/install.sh
export FTPALG_INTEGRATION=1

unformatted=$(gofmt -l .)
if [[ -n $unformatted ]]; then
	echo "gofmt would change:" $unformatted >&2
	exit 1
fi
go vet ./...
# Packages one after the other: each has all of a small machine. Without caching: the kernel and the peers may have changed.
run=(go test -race -count=1 -p 1 -timeout 70m)
"${run[@]}" $(go list ./... | grep -v '/integration$')
# Tests of the whole mostly wait for others, each in namespaces of its own: two processes have every other one each. But the machine has
# one clock, and the test that sets it comes when no other runs.
clock=TestServiceClock
listed=$(go test -list . ./integration | grep '^\(Test\|Fuzz\|Example\)')
grep -qx "$clock" <<<"$listed"
half() { grep -vx "$clock" <<<"$listed" | awk -v half="$1" 'NR % 2 == half' | paste -sd '|'; }
"${run[@]}" -run "^($(half 0))\$" ./integration &
failed=0
"${run[@]}" -run "^($(half 1))\$" ./integration || failed=1
wait $! || failed=1
((failed == 0))
"${run[@]}" -run "^$clock\$" ./integration

[[ $fuzztime == 0 ]] && exit
said=$(mktemp)
trap 'rm -f "$said"' EXIT

# fuzz PACKAGE TARGET fuzzes once more if the time ran out on a worker that was busy, which the go command takes for a failure
# ("context deadline exceeded", without an input that fails).
fuzz() {
	local try
	for try in 1 2 3; do
		go test -run '^$' -fuzz "^$2\$" -fuzztime "$fuzztime" "$1" 2>&1 | tee "$said" && return
		grep -q 'context deadline exceeded' "$said" || return 1
		! grep -q 'Failing input' "$said" || return 1
		echo "fuzzing $1 $2 again: try $try ended late"
	done
	return 1
}

found=0
while read -r package target; do
	found=$((found + 1))
	echo "fuzzing $package $target for $fuzztime"
	fuzz "$package" "$target"
done < <(go list -f '{{$p := .ImportPath}}{{range .TestGoFiles}}{{$p}} {{$.Dir}}/{{.}}{{"\n"}}{{end}}{{range .XTestGoFiles}}{{$p}} {{$.Dir}}/{{.}}{{"\n"}}{{end}}' ./... |
	while read -r package file; do
		[[ -n ${file:-} ]] && sed -n "s/^func \(Fuzz[A-Za-z0-9_]*\)(.*/\1/p" "$file" | sed "s|^|$package |"
	done)
if ((found == 0)); then
	echo "no fuzz target was found" >&2
	exit 1
fi
echo "$found fuzz targets ran."
