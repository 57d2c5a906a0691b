// SPDX-License-Identifier: MIT
/*
 * struct xp_static_key does not say whether it starts on, so no instruction can be chosen.
 *
 * gcc: 'struct xp_static_key' has no member named 'xp__initially'
 * clang: no member named 'xp__initially' in 'struct xp_static_key'
 * g++: 'struct xp_static_key' has no member named 'xp__initially'
 * clang++: no member named 'xp__initially' in 'xp_static_key'
 */
#include <crosspatch/crosspatch.h>

XP_DEFINE_STATIC_KEY_FALSE(key);

int f(void);
int f(void)
{
#ifdef RIGHT
	return xp_static_branch_unlikely(&key);
#else
	return xp_static_branch_unlikely(&key.key);
#endif
}
