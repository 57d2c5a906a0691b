// SPDX-License-Identifier: MIT
/*
 * A key lives at file scope: an automatic one has no constant address.
 *
 * gcc: static storage
 * clang: static storage
 * g++: static storage
 * clang++: static storage
 */
#include <crosspatch/crosspatch.h>

#ifdef RIGHT
XP_DEFINE_STATIC_KEY_FALSE(key);
#endif

int f(void);
int f(void)
{
#ifndef RIGHT
	XP_DEFINE_STATIC_KEY_FALSE(key);
#endif
	return xp_static_branch_unlikely(&key);
}
