// SPDX-License-Identifier: MIT
/*
 * A call that may have no target has no value.
 *
 * gcc: void value not ignored as it ought to be
 * clang: initializing 'int' with an expression of incompatible type 'void'
 * g++: void value not ignored as it ought to be
 * clang++: cannot initialize a variable of type 'int' with an rvalue of type 'void'
 */
#include <crosspatch/crosspatch.h>

int add(int a, int b);

XP_DECLARE_STATIC_CALL(call, add);

int f(void);
int f(void)
{
#ifdef RIGHT
	int sum = 0;

	xp_static_call_cond(call)(1, 2);
#else
	int sum = xp_static_call_cond(call)(1, 2);
#endif
	return sum;
}
