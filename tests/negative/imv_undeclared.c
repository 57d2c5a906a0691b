// SPDX-License-Identifier: MIT
/*
 * A variable is no immediate value.
 *
 * gcc: 'xp__imv_type_of_value' undeclared|unknown type name
 * clang: undeclared identifier 'xp__imv_type_of_value'
 * g++: no matching function for call to 'xp__imv_type_of
 * clang++: no matching function for call to 'xp__imv_type_of'
 */
#include <crosspatch/crosspatch.h>

#ifdef RIGHT
XP_DEFINE_IMV(int, value, 1);
#else
int value = 1;
#endif

int f(void);
int f(void)
{
	return xp_imv_read(value);
}
