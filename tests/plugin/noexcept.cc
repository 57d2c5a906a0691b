// SPDX-License-Identifier: MIT
/* Functions in groups and in sections of their own, and none with anything that wants a local symbol. */
#include "calls.h"

/* 1 for each type */
template <typename T> NOINLINE T twice(T x)
{
	return (T)(2 * three((int)x));
}

/* 1, behind a static function: the local symbol of the section is not at its beginning */
__attribute__((section(".text.both"))) int first(int x)
{
	return x + 1;
}
__attribute__((section(".text.both"))) static NOINLINE int second(int x)
{
	return xp_trampoline_one(x) + 2;
}

/* 1 */
int uses(int x)
{
	return twice(x) + (int)twice(2.5) + second(x) + first(x) + renamed(x);
}
