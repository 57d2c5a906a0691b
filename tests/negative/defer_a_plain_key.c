// SPDX-License-Identifier: MIT
/*
 * A key without a delay has no deferred decrement.
 *
 * gcc: has no member named 'deferred'
 * clang: no member named 'deferred'
 * g++: has no member named 'deferred'
 * clang++: no member named 'deferred'
 */
#include <crosspatch/crosspatch.h>

#ifdef RIGHT
XP_DEFINE_STATIC_KEY_DEFERRED_FALSE(key, 10);
#else
XP_DEFINE_STATIC_KEY_FALSE(key);
#endif

int f(void);
int f(void)
{
	return xp_static_branch_slow_dec_deferred(&key);
}
