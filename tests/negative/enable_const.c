// SPDX-License-Identifier: MIT
/*
 * A key that is const cannot be switched.
 *
 * gcc: discards 'const' qualifier
 * clang: discards qualifiers
 * g++: invalid conversion from 'const xp_static_key\*'
 * clang++: no matching function for call to 'xp_static_key_enable'
 */
#include <crosspatch/crosspatch.h>

#ifdef RIGHT
#define MAYBE_CONST
#else
#define MAYBE_CONST const
#endif

int f(MAYBE_CONST struct xp_static_key_false *key);
int f(MAYBE_CONST struct xp_static_key_false *key)
{
	return xp_static_branch_enable(key);
}
