// SPDX-License-Identifier: MIT
/*
 * A value is set by xp_imv_set().
 *
 * gcc: incompatible types when assigning
 * clang: assigning to 'struct xp_imv' from incompatible type 'int'
 * g++: no match for 'operator='
 * clang++: no viable overloaded '='
 */
#include <crosspatch/crosspatch.h>

XP_DEFINE_IMV(int, value, 1);

int f(void);
int f(void)
{
#ifdef RIGHT
	return xp_imv_set(value, 2);
#else
	value = 2;
	return 0;
#endif
}
