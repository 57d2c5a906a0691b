// SPDX-License-Identifier: MIT
/*
 * What is set is of the value's type, or converts to it.
 *
 * gcc: from incompatible pointer type
 * clang: incompatible pointer types
 * g++: invalid conversion|cannot convert
 * clang++: cannot initialize a variable
 */
#include <crosspatch/crosspatch.h>

XP_DEFINE_IMV(const char *, value, 0);
int number;

int f(void);
int f(void)
{
#ifdef RIGHT
	return xp_imv_set(value, "text");
#else
	return xp_imv_set(value, &number);
#endif
}
