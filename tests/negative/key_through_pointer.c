// SPDX-License-Identifier: MIT
/*
 * A site names its key in the instruction stream: it has to be a constant address, not the value of a variable.
 *
 * gcc: static storage
 * clang: static storage
 * g++: static storage
 * clang++: static storage
 */
#include <crosspatch/crosspatch.h>

XP_DEFINE_STATIC_KEY_FALSE(key);

int f(struct xp_static_key_false *pointer);
int f(struct xp_static_key_false *pointer)
{
#ifdef RIGHT
	(void)pointer;
	return xp_static_branch_unlikely(&key);
#else
	return xp_static_branch_unlikely(pointer);
#endif
}
