// SPDX-License-Identifier: MIT
/*
 * A call's target keeps the type that it was defined with.
 *
 * gcc: not a function of the type of this static call
 * clang: not a function of the type of this static call
 * g++: invalid 'static_cast' from type
 * clang++: static_cast from .* is not allowed|address of overloaded function
 */
#include <crosspatch/crosspatch.h>

static int add(int a, int b)
{
	return a + b;
}

#ifdef RIGHT
static int other(int a, int b)
#else
static long other(long a, int b)
#endif
{
	return a - b;
}

XP_DEFINE_STATIC_CALL(call, add);

int f(void);
int f(void)
{
	return xp_static_call_update(call, other);
}
