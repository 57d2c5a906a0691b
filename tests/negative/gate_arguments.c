// SPDX-License-Identifier: MIT
/*
 * The call of a gate is checked like a call of a function of its type.
 *
 * gcc: too few arguments to function
 * clang: too few arguments to function call
 * g++: too few arguments to function
 * clang++: too few arguments to function call|no matching function
 */
#include <crosspatch/crosspatch.h>

XP_DECLARE_GATE(int, add, (int a, int b));

int f(void);
int f(void)
{
#ifdef RIGHT
	return xp_gate(add)(1, 2);
#else
	return xp_gate(add)(1);
#endif
}
