// SPDX-License-Identifier: MIT
/*
 * A deferred key's sites take its .key.
 *
 * gcc: has no member named 'xp__initially'
 * clang: no member named 'xp__initially'
 * g++: has no member named 'xp__initially'
 * clang++: no member named 'xp__initially'
 */
#include <crosspatch/crosspatch.h>

XP_DEFINE_STATIC_KEY_DEFERRED_FALSE(key, 10);

int f(void);
int f(void)
{
#ifdef RIGHT
	return xp_static_branch_unlikely(&key.key);
#else
	return xp_static_branch_unlikely(&key);
#endif
}
