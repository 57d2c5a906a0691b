// SPDX-License-Identifier: MIT
/* The callers: PREFIX is their prefix. C and C++. */
#include "inplace.h"

#define PASTE(a, b) a##b
#define NAME_OF(prefix, name) PASTE(prefix, name)
#define NAME(name) NAME_OF(PREFIX, name)

/* 1 site */
int NAME(_calls)(int x)
{
	return xp_static_call(change)(x) * 2;
}

/* 1 */
int NAME(_ordinary)(int x)
{
	return change(x) * 3;
}

/* 1 */
int NAME(_tail)(int x)
{
	return xp_static_call(change)(x + 5);
}

/* 9, so that some would cross a quadword */
int NAME(_many)(int x)
{
	int sum = 0;

	sum += xp_static_call(change)(x);
	sum ^= xp_static_call(change)(x ^ sum);
	sum += change(x + 1000);
	sum ^= xp_static_call(change)(x ^ sum);
	sum += xp_static_call(change)(sum);
	sum ^= xp_static_call(change)(x ^ sum);
	sum += change(x - 77777);
	sum ^= xp_static_call(change)(x ^ sum);
	return sum + xp_static_call(change)(x & sum);
}
