#!/bin/sh
# SPDX-License-Identifier: MIT
# Where a compiler puts the code that is executed while a key is on: out of the way, in the order of the sites, and without
# making the function need more stack. Usage: layout.sh ROOT. Prints TAP.
set -eu
root=$1
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
cd "$work"

cat >layout.c <<'END'
#include <crosspatch/crosspatch.h>

XP_DEFINE_STATIC_KEY_FALSE(off);
XP_DEFINE_STATIC_KEY_TRUE(on);
#ifdef __cplusplus
extern "C" {
#endif
extern int sink;
void slow(int x);
void slow_long(long x);
int many(int x);
int square(int x);
long sums(long a, long b, long c);

/* The argument of slow() says which site it is; no other instruction has such an operand. */
#define SITE(n)                                                                                                        \
	if (n & 1 ? xp_static_branch_unlikely(&off) : !xp_static_branch_likely(&on))                                   \
		slow(0x40 + n);                                                                                        \
	sink = sink * (2 * n + 3) ^ x;

int many(int x)
{
	SITE(1) SITE(2) SITE(3) SITE(4) SITE(5) SITE(6) SITE(7) SITE(8)
	SITE(9) SITE(10) SITE(11) SITE(12) SITE(13) SITE(14) SITE(15)
	return x;
}

int square(int x)
{
	if (xp_static_branch_unlikely(&off))
		slow(x);
	return x * x;
}

/* Values live across the calls, in more registers than one. */
long sums(long a, long b, long c)
{
	long sum = 0;

	if (xp_static_branch_unlikely(&off))
		slow_long(c);
	sum += c * 3 ^ a;
	if (xp_static_branch_unlikely(&off))
		slow_long(b);
	return sum + (b * 3 ^ a);
}
#ifdef __cplusplus
}
#endif
END

# The instructions of a function, a line each.
# shellcheck disable=SC2016 # awk's fields
code() { objdump -d --no-show-raw-insn layout.o | awk -v name="<$1>:" '$2 == name { on = 1; next } /^$/ { on = 0 } on'; }
# The numbers of the sites of many() in the order in which their code stands.
order() { code many | grep -o '[$]0x4[1-9a-f]\>' | sed 's/.*0x4//' | tr -d '\n'; }
# Whether a function makes room on the stack, or uses such room, but for what it pushes, while its keys are off.
stack() { code "$1" | sed '/ret/q' | grep -E 'sub +\$.*,%[er]sp|\(%[er]sp'; }

nr=0
result() {
	nr=$((nr + 1))
	if [ "$1" -eq 0 ]; then
		echo "ok $nr - $2"
	else
		echo "not ok $nr - $2"
		sed 's/^/# /' out
	fi
}
skip() {
	nr=$((nr + 1))
	echo "ok $nr - $1 # SKIP $2"
}
compile() { "$@" -O2 -Wall -Werror -I "$include" -c -o layout.o layout.c >out 2>&1; }
in_order() { [ "$(order | tee out)" = 123456789abcdef ]; }
no_stack() { ! { stack square || stack sums; } >out; }

for cc in gcc-11 gcc-12 g++-11 g++-12 clang-14 clang-16 clang-19 clang++-14 clang++-16 clang++-19; do
	case $cc in *++*) language='c++' ;; *) language=c ;; esac
	include=$root/include
	if ! command -v "$cc" >/dev/null || ! command -v objdump >/dev/null; then
		skip "$cc" "no $cc, or no objdump"
		continue
	fi
	for level in -O2 -O3; do
		compile "$cc" -x $language $level
		result "$?" "$cc $level: compiles"
		in_order && status=0 || status=1
		result "$status" "$cc $level: the code behind the sites is in their order"
		no_stack && status=0 || status=1
		result "$status" "$cc $level: no room on the stack"
	done
	# The other way round: what these checks find if the headers do not say it.
	case $cc in clang*) continue ;; esac
	cp -r "$root/include" plain
	include=plain
	sed -i 's/define XP__COLD_LABEL .*/define XP__COLD_LABEL/' plain/crosspatch/arch/x86.h
	compile "$cc" -x $language
	in_order && status=1 || status=0
	result "$status" "$cc: out of order where the label is not cold"
	cp "$root/include/crosspatch/arch/x86.h" plain/crosspatch/arch
	sed -i 's/__builtin_expect_with_probability(condition, value, .*)/__builtin_expect(condition, value)/' \
		plain/crosspatch/static_key.h
	compile "$cc" -x $language
	no_stack && status=1 || status=0
	result "$status" "$cc: room on the stack where the probability is another"
	rm -rf plain
done
echo "1..$nr"
