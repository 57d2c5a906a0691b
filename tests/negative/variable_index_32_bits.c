// SPDX-License-Identifier: MIT
/*
 * The same in 32-bit position-independent code, where no constraint asks.
 *
 * flags: -m32
 * gcc: initializer element is not constant
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
