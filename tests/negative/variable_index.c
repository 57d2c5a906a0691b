// SPDX-License-Identifier: MIT
/*
 * An element of an array of keys is named by a constant index.
 *
 * gcc: impossible constraint in 'asm'
 * clang: invalid operand for inline asm constraint 'i'
 * g++: 'index' is not captured
 * clang++: variable 'index' cannot be implicitly captured
 */
#include <crosspatch/crosspatch.h>

XP_DEFINE_STATIC_KEY_ARRAY_FALSE(keys, 4);

int f(int index);
int f(int index)
{
#ifdef RIGHT
	(void)index;
	return xp_static_branch_likely(&keys[3]);
#else
	return xp_static_branch_likely(&keys[index]);
#endif
}
