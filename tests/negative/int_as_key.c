// SPDX-License-Identifier: MIT
/*
 * A flag is not a key.
 *
 * gcc: request for member 'key' in something not a structure
 * clang: member reference base type 'int' is not a structure
 * g++: request for member 'key' in .*non-class type 'int'
 * clang++: member reference base type 'int' is not a structure
 */
#include <crosspatch/crosspatch.h>

#ifdef RIGHT
static XP_DEFINE_STATIC_KEY_FALSE(flag);
#else
static int flag;
#endif

int f(void);
int f(void)
{
	return xp_static_branch_unlikely(&flag);
}
