// SPDX-License-Identifier: MIT
/*
 * Sites take the address of a key.
 *
 * gcc: invalid type argument of '->'
 * clang: is not a pointer
 * g++: base operand of '->' has non-pointer type
 * clang++: is not a pointer
 */
#include <crosspatch/crosspatch.h>

XP_DEFINE_STATIC_KEY_TRUE(key);

int f(void);
int f(void)
{
#ifdef RIGHT
	return xp_static_branch_unlikely(&key);
#else
	return xp_static_branch_unlikely(key);
#endif
}
