// SPDX-License-Identifier: MIT
/*
 * A gate is declared before it is asked for.
 *
 * gcc: undeclared
 * clang: undeclared
 * g++: was not declared in this scope
 * clang++: undeclared identifier
 */
#include <crosspatch/crosspatch.h>

#ifdef RIGHT
XP_DECLARE_GATE(int, add, (int a, int b));
#endif

int f(void);
int f(void)
{
	return xp_gate_available(add);
}
