// SPDX-License-Identifier: MIT
/*
 * A key is not a condition by itself: the load that keys avoid must be asked for by name.
 *
 * gcc: used struct type value where scalar is required
 * clang: requires expression of scalar type
 * g++: could not convert 'key' from 'xp_static_key_false' to 'bool'
 * clang++: not contextually convertible to 'bool'
 */
#include <crosspatch/crosspatch.h>

XP_DEFINE_STATIC_KEY_FALSE(key);

int f(void);
int f(void)
{
#ifdef RIGHT
	if (xp_static_key_enabled(&key))
#else
	if (key)
#endif
		return 1;
	return 0;
}
