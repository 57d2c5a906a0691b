// SPDX-License-Identifier: MIT
/*
 * What runs without a provider has the gate's type.
 *
 * gcc: not a function of the type of this gate
 * clang: not a function of the type of this gate
 * g++: invalid 'static_cast' from type
 * clang++: static_cast from .* is not allowed|address of overloaded function
 */
#include <crosspatch/crosspatch.h>

#ifdef RIGHT
static int none(int a, int b)
#else
static long none(long a, int b)
#endif
{
	return a - b;
}

XP_DECLARE_GATE_FALLBACK(int, add, (int a, int b), none);

int f(void);
int f(void)
{
	return xp_gate(add)(1, 2);
}
