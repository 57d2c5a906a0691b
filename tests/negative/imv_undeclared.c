// SPDX-License-Identifier: MIT
/*
 * A variable is no immediate value.
 *
 * gcc: 'xp__imv_type_of_value' undeclared|unknown type name
 * clang: undeclared identifier 'xp__imv_type_of_value'
 * g++: 'xp__imv_type_of_value' does not name a type
 * clang++: unknown type name 'xp__imv_type_of_value'|undeclared identifier 'xp__imv_type_of_value'
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
