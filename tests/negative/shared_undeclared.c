// SPDX-License-Identifier: MIT
/*
 * A shared key's handle comes with its declaration; the definition alone is of no use here.
 *
 * gcc: 'key' undeclared
 * clang: use of undeclared identifier 'key'
 * g++: 'key' was not declared
 * clang++: use of undeclared identifier 'key'
 */
#include <crosspatch/crosspatch.h>

#ifdef RIGHT
XP_DECLARE_STATIC_KEY_SHARED_FALSE(key);
#endif
XP_DEFINE_STATIC_KEY_SHARED_FALSE(key);

int f(void);
int f(void)
{
	return xp_static_branch_unlikely(&key);
}
