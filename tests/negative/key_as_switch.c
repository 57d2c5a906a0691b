// SPDX-License-Identifier: MIT
/*
 * A static key is no switch.
 *
 * gcc: invalid type argument|has no member|incompatible
 * clang: indirection requires pointer|no member
 * g++: no matching function
 * clang++: no matching function
 */
#include <crosspatch/crosspatch.h>

XP_DEFINE_STATIC_KEY_FALSE(key);
XP_DEFINE_STATIC_SWITCH(three, 3, 0);

int f(void);
int f(void)
{
#ifdef RIGHT
	return xp_static_switch(&three);
#else
	return xp_static_switch(&key);
#endif
}
