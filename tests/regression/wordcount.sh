#!/bin/sh
# SPDX-License-Identifier: MIT
# examples/wordcount against wc: the same totals, whatever the bytes, while the counting code is being changed.
# Usage: wordcount.sh WORDCOUNT. Prints TAP.
set -u

wordcount=$(realpath -- "$1") || exit 1
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
		sed 's/^/# /' "$dir/out" "$dir/err" 2>/dev/null
	fi
}

run() {
	"$wordcount" -s 0.1 -r 1 "$@" >"$dir/out" 2>"$dir/err" </dev/null
}

words() {
	sed -n 's/^words: \([0-9][0-9]*\)$/\1/p' "$dir/out"
}

# same PATH… - as wc says, by the command that wordcount itself prints.
same() {
	run "$@" || return 1
	command=$(sed -n 's/^compare with: //p' "$dir/out")
	expected=$(eval "$command")
	echo "wc: $expected" >>"$dir/out"
	[ "$(words)" = "${expected%% *}" ]
}

# status N TEXT PATH… - exit status N, and TEXT among the messages.
status() {
	wanted=$1
	text=$2
	shift 2
	run "$@"
	got=$?
	echo "status $got, wanted $wanted: $text" >>"$dir/out"
	[ "$got" -eq "$wanted" ] && cat "$dir/out" "$dir/err" | grep -q -- "$text"
}

if [ "$(printf '\001' | wc -w)" -ne 0 ]; then
	echo "1..0 # SKIP this wc counts words of unprintable bytes; coreutils 9.1's does not"
	exit 77
fi

# ---- every byte alone; every pair of bytes, one first byte to a file ----
mkdir "$dir/bytes" "$dir/pairs" "$dir/random" "$dir/odd"
all=
i=0
while [ $i -lt 256 ]; do
	all="$all $(printf '\\0%03o' $i)"
	i=$((i + 1))
done
i=0
for first in $all; do
	printf '%b' "$first" >"$dir/bytes/$i"
	for second in $all; do
		printf '%b\nx%bx\n' "$first$second" "$first$second"
	done >"$dir/pairs/$i"
	i=$((i + 1))
done
[ "$(cat "$dir"/bytes/* | wc -c) $(cat "$dir"/pairs/* | wc -c)" = "256 524288" ]
report "the files of bytes and pairs are as meant"
same "$dir/bytes"
report "single bytes"
same "$dir/pairs"
report "pairs of bytes"
for i in 0 11 32 65 127 133 160 194 255; do
	same "$dir/pairs/$i"
	report "pairs that begin with byte $i"
done

# ---- random bytes, several chunks long ----
seed=1
while [ $seed -le 8 ]; do
	awk -v seed=$seed 'BEGIN {
		for (i = 0; i < 150001; i++) {
			seed = (seed * 1103515245 + 12345) % 2147483648
			printf "%c", int(seed / 65536) % 256
		}
	}' >"$dir/random/$seed"
	same "$dir/random/$seed"
	report "random bytes, seed $seed"
	seed=$((seed + 1))
done
same "$dir/random" "$dir/bytes" "$dir/random/1"
report "several arguments, one of them twice"
same /bin/sh "$wordcount"
report "executables"

# ---- words across chunks of 64 KiB ----
awk 'BEGIN { for (i = 0; i < 30000; i++) printf "seven77 " }' >"$dir/odd/aligned"
awk 'BEGIN { for (i = 0; i < 40000; i++) printf "abcde"; print ""; for (i = 0; i < 70000; i++) printf "%c", 1; print "x" }' \
	>"$dir/odd/long"
printf 'na\303\257ve \342\200\224 \342\200\224x \302\240 \302\205a\302\205b\n' >"$dir/odd/utf8"
printf 'no newline at the end' >"$dir/odd/tail"
: >"$dir/odd/empty"
printf 'quoted words' >"$dir/odd/it's a
name"
mkfifo "$dir/odd/fifo"
ln -s nowhere "$dir/odd/dangling"
ln -s .. "$dir/odd/loop"
same "$dir/odd"
report "a directory with an empty file, a pipe, links and an odd name"
ln -s odd "$dir/link"
same "$dir/link"
report "a link to a directory, named, is followed"
(cd "$dir/odd" && cp tail ./-tail && same -- -tail)
report "a name that begins with a dash"

# ---- nothing, and errors ----
status 0 '^words: 0$' "$dir/odd/empty"
report "an empty file"
status 0 'neither a file nor a directory' "$dir/odd/fifo"
report "a pipe is skipped"
status 2 "$dir/none: No such file" "$dir/none"
report "a file that is not there"
status 2 '^usage:' -x
report "an unknown option"
status 2 "not 'many'" -t many
report "a bad number"
if [ "$(id -u)" -ne 0 ]; then
	cp "$dir/odd/tail" "$dir/odd/secret"
	chmod 0 "$dir/odd/secret"
	status 2 'Permission denied' "$dir/odd/secret"
	report "an unreadable file, named"
	status 0 'secret: Permission denied, skipped' "$dir/odd"
	report "an unreadable file, found"
else
	nr=$((nr + 1))
	echo "ok $nr - an unreadable file # SKIP root reads everything"
fi

# ---- the other ways to switch ----
for policy in breakpoint quiesce; do
	CROSSPATCH_POLICY=$policy same "$dir/random/1" -t 3
	report "policy $policy, three workers"
done
CROSSPATCH_POLICY=early status 1 'needs a single-threaded process' "$dir/random/1"
report "policy early is refused"
CROSSPATCH_WRITER=mprotect CROSSPATCH_SYNC=signal same "$dir/random/1"
report "mprotect and signals"
echo "1..$nr"
