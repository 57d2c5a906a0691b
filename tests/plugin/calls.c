// SPDX-License-Identifier: MIT
/* Calls of all kinds; how many of them are sites stands beside. Not inlined: the count is that of the source. */
#include "calls.h"

_Thread_local int local;

/* 1 site */
NOINLINE int plain(int x)
{
	return xp_trampoline_one(x) + 1;
}

/* 1, and a tail call from -O2 on */
NOINLINE int tail(int x)
{
	return xp_trampoline_one(x + 1);
}

/* 2: clang's second is a conditional jump, which is no site */
NOINLINE int conditional_tail(int x)
{
	if (x > 5)
		return 0;
	if (x == 3)
		return xp_trampoline_one(1);
	return three(2);
}

/* 2 */
NOINLINE int loop(int n, void *p)
{
	int sum = 0;

	for (int i = 0; i < n; i++)
		if (xp_trampoline_two(p, "a string", 1.0, i, (long long)n))
			sum += renamed(i);
	return sum;
}

/* 0 */
NOINLINE int none(int x)
{
	int (*volatile pointer)(int) = xp_trampoline_one;

	local = x;
	return pointer(x) + ordinary(x) + xp_trampoline_elsewhere(x);
}

/* 1, in the part that is seldom executed */
extern void fatal(int) __attribute__((cold, noreturn));
NOINLINE int cold(int x)
{
	if (__builtin_expect(x == 77, 0))
		fatal(three(x));
	return x;
}
