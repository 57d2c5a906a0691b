// SPDX-License-Identifier: MIT
/*
 * The call is checked like a call of the function.
 *
 * gcc: too few arguments to function
 * clang: too few arguments to function call
 * g++: too few arguments to function
 * clang++: too few arguments to function call|no matching function
 */
#include <crosspatch/crosspatch.h>

int add(int a, int b);

XP_DECLARE_STATIC_CALL(call, add);

int f(void);
int f(void)
{
#ifdef RIGHT
	return xp_static_call(call)(1, 2);
#else
	return xp_static_call(call)(1);
#endif
}
