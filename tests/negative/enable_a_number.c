// SPDX-License-Identifier: MIT
/*
 * Only keys are enabled.
 *
 * gcc: invalid type argument of '->'
 * clang: member reference type 'int' is not a pointer
 * g++: base operand of '->' is not a pointer
 * clang++: member reference type 'int' is not a pointer
 */
#include <crosspatch/crosspatch.h>

XP_DEFINE_STATIC_KEY_FALSE(key);

int f(void);
int f(void)
{
#ifdef RIGHT
	return xp_static_branch_enable(&key);
#else
	return xp_static_branch_enable(1) + xp_static_key_enabled(&key);
#endif
}
