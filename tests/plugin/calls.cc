// SPDX-License-Identifier: MIT
/* The same of C++: functions that are in groups of their own, exceptions, destructors. */
#include "calls.h"

struct guard {
	int value;
	/* 1, in a group */
	NOINLINE ~guard()
	{
		xp_trampoline_two(this, "gone");
	}
};

/* 1 for each type, in a group */
template <typename T> NOINLINE T twice(T x)
{
	return (T)(2 * three((int)x));
}

/* 1, in a group */
inline NOINLINE int inside(int x)
{
	return xp_trampoline_one(x) ^ 1;
}

/* 2, one of them in a region of exceptions and one in the handler */
int catches(int x)
{
	guard g = {x};

	try {
		return renamed(x) + (int)twice(1.5);
	} catch (int e) {
		return xp_trampoline_one(e) + twice(x);
	}
}

/* 1 */
int nothrow(int x) noexcept
{
	return inside(x) + three(x);
}
