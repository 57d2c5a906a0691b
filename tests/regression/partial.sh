#!/bin/sh
# SPDX-License-Identifier: MIT
# Parts of a program that were linked beforehand, with what is hidden made local: each has a module and a constructor of its
# own, and all modules have the same tables. Usage: partial.sh ROOT LIBDIR, where libcrosspatch.so is. Prints TAP.
set -eu
root=$1 libs=$2
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
cd "$work"

echo 1..1
command -v objcopy >/dev/null || {
	echo "ok 1 - partial # SKIP no objcopy"
	exit 0
}
cat >part.c <<'END'
#include <crosspatch/crosspatch.h>

XP_DEFINE_STATIC_KEY_FALSE(key);
XP_DEFINE_IMV(int, value, 5);

__attribute__((visibility("default"))) int NAME(int on);
__attribute__((noinline)) static int look(void)
{
	return (xp_static_branch_unlikely(&key) ? 100 : 0) + xp_imv_read(value);
}

/* Switches its own and looks. */
int NAME(int on)
{
	int error = on ? xp_static_branch_enable(&key) : xp_static_branch_disable(&key);

	if (!error)
		error = xp_imv_set(value, 5 + on);
	return error ? error : look();
}
END
cat >main.c <<'END'
#include <crosspatch/crosspatch.h>
#include <stdio.h>

int one(int on);
int two(int on);
XP_DEFINE_STATIC_KEY_FALSE(third);

__attribute__((noinline)) static int look(void)
{
	return xp_static_branch_unlikely(&third);
}

int main(void)
{
	int a = one(1), b = two(1), c = one(0), d = two(0);
	int error = xp_static_branch_enable(&third);

	printf("%d %d %d %d, %d %d, %d\n", a, b, c, d, error, look(), xp_module_error());
	return 0;
}
END
for name in one two; do
	${CC:-cc} -O2 -fPIC -DNAME=$name -I"$root/include" -c part.c -o $name.o
	ld -r -o $name-part.o $name.o
	objcopy --localize-hidden $name-part.o
done
${CC:-cc} -O2 -fPIC -I"$root/include" -c main.c
${CC:-cc} -pie -o program main.o one-part.o two-part.o -L"$libs" -lcrosspatch -Wl,-rpath,"$libs"
found=$(./program)
if [ "$found" = "106 106 5 5, 0 1, 0" ]; then
	echo "ok 1 - partial"
else
	echo "# $found"
	echo "not ok 1 - partial"
	exit 1
fi
