#!/bin/sh
# SPDX-License-Identifier: MIT
# crosspatch verify as a program: exit status, messages, what it prints for a counterexample, and doc/matrix.md.
# Usage: verify.sh CROSSPATCH. Prints TAP. Set XP_REGENERATE=1 to write the expected files anew.
set -u

crosspatch=$(realpath -- "$1") || exit 1
here=$(CDPATH='' cd -- "$(dirname -- "$0")" && pwd)
root=$here/../..
dir=$(mktemp -d) || exit 1
trap 'rm -rf "$dir"' EXIT
trap 'exit 1' HUP INT TERM
nr=0
export LC_ALL=C

# report NAME - the last command's status as a test result; shows $dir/out and $dir/err if it failed.
report() {
	status=$?
	nr=$((nr + 1))
	if [ "$status" -eq 0 ]; then
		echo "ok $nr - $1"
	else
		echo "not ok $nr - $1"
		head -n 40 "$dir/out" "$dir/err" 2>/dev/null | sed 's/^/# /'
	fi
}

# verify STATUS ARGUMENT… - whether it exits so.
verify() {
	expected=$1
	shift
	(cd "$root/plans" && "$crosspatch" verify "$@") >"$dir/out" 2>"$dir/err" </dev/null
	status=$?
	[ "$status" -eq "$expected" ] && return 0
	echo "exit status $status" >>"$dir/err"
	return 1
}

says() {
	grep -qF -- "$1" "$dir/err" "$dir/out"
}

silent() {
	[ ! -s "$dir/$1" ]
}

# golden FILE - whether standard output is what it was when it was read.
golden() {
	[ "${XP_REGENERATE-}" ] && cp "$dir/out" "$1"
	diff -u "$1" "$dir/out" >"$dir/err"
}

verify 0 --help && says 'Usage: crosspatch verify' && silent err
report help
"$crosspatch" >"$dir/out" 2>"$dir/err"
[ $? -eq 2 ] && silent out && says 'Usage: crosspatch COMMAND'
report 'no command'
"$crosspatch" prove >"$dir/out" 2>"$dir/err"
[ $? -eq 2 ] && says 'there is no command "prove"'
report 'unknown command'
"$crosspatch" --version >"$dir/out" 2>"$dir/err" && grep -q '^crosspatch [0-9]' "$dir/out"
report version

verify 2 && says 'FILE: "" is missing'
report 'no file'
verify 2 --frobnicate && silent out
report 'unknown option'
verify 2 --model sparc s4-breakpoint.plan && says '"sparc" is none of byte, amd,'
report 'unknown model'
verify 2 --granule 3 s4-breakpoint.plan && says '--granule: "3" is none of 1, 2,' &&
	verify 2 --granule 128 s4-breakpoint.plan && verify 2 --granule 8x s4-breakpoint.plan
report 'wrong granule'
verify 2 --order sometimes s4-breakpoint.plan && says 'program or any is expected' &&
	verify 2 --reread maybe s4-breakpoint.plan && says 'yes or no is expected'
report 'wrong flags'
verify 2 --address 64 s4-breakpoint.plan && says '--address: "64" is not a number in range'
report 'wrong address'
verify 2 --all s4-breakpoint.plan && verify 2 --all --address 1 && verify 2 --markdown s4-breakpoint.plan &&
	verify 2 --model all --reread yes s4-breakpoint.plan
report 'what does not go together'
verify 2 nothing.plan && says 'nothing.plan: No such file'
report 'no such file'
verify 2 . && silent out
report 'a directory'

printf 'plan x\nstate 90\nstate 9g\n' >"$dir/bad.plan"
verify 2 "$dir/bad.plan" && says "$dir/bad.plan:3:7: a byte or a symbol is expected" && silent out
report 'malformed file: line and column'
verify 2 s4-breakpoint.plan "$dir/bad.plan"
report 'a malformed file outweighs a counterexample'
printf 'plan x\nstate 90\nstate 91\n' >"$dir/good.plan"
verify 0 "$dir/good.plan" && silent err && says 'x: amd: proven at every address'
report 'a proof'
(cd "$root" && "$crosspatch" verify - <"$dir/good.plan") >"$dir/out" 2>"$dir/err" && says 'x: amd: proven'
report 'standard input'
verify 0 --address 3 --model byte "$dir/good.plan" && says 'x: byte: proven at address 3'
report 'one address'

verify 1 --model line64 --address 58 s8-published.plan && golden "$here/verify/s8-line64-58.golden"
report 'counterexamples of S8 across a line'
verify 1 --model amd --address 0 s8-published.plan && golden "$here/verify/s8-amd-0.golden"
report 'counterexamples of S8 across a quadword'
verify 1 --model byte s4-breakpoint.plan && golden "$here/verify/s4-byte.golden"
report 'counterexamples of S4'
verify 1 --json --model byte --address 7 s4-breakpoint.plan && golden "$here/verify/s4-byte-7.json"
report 'the same as JSON'
verify 1 --model amd --ascending yes s4-breakpoint.plan && says 'S4, no middle sync: custom: proven at every address'
report 'ascending blocks need no middle sync'
verify 1 --granule 64 --model amd s8-published.plan && cp "$dir/out" "$dir/a" &&
	verify 1 --model amd --granule 64 s8-published.plan && cmp -s "$dir/a" "$dir/out" &&
	verify 1 --model line64 s8-published.plan && grep proven "$dir/out" | sed 's/line64/custom/' >"$dir/b" &&
	grep proven "$dir/a" | cmp -s - "$dir/b"
report 'parameters that make a named model agree with it'

if command -v python3 >/dev/null 2>&1; then
	verify 1 --model all --json s3-shortjmp.plan s8-published.plan &&
		python3 -c 'import json, sys
results = json.load(sys.stdin)["results"]
assert len(results) == 5 * (5 + 10), len(results)
for r in results:
    assert r["first"]["proven"] == (len(r["proven_at"]) == 64)' <"$dir/out" 2>>"$dir/err"
	report 'JSON parses'
else
	echo "ok $((nr += 1)) - JSON parses # SKIP no python3"
fi

start=$(date +%s)
verify 0 --all --markdown --quiet && silent err && [ $(($(date +%s) - start)) -lt 60 ] && golden "$root/doc/matrix.md"
report 'doc/matrix.md is what --all says, in less than a minute'
verify 0 --all --model byte && says 'verify: ' && grep -q 'kinds of sites' "$dir/err" && says 'chooses no plan'
report 'progress on standard error'
(cd "$root" && "$crosspatch" verify --help) >/dev/full 2>"$dir/err"
[ $? -eq 3 ] 2>/dev/null
report 'a full device is noticed'
echo "1..$nr"
