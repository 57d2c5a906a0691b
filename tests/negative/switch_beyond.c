// SPDX-License-Identifier: MIT
/*
 * A choice that is a constant is one that the switch has.
 *
 * gcc: the static switch has no such choice
 * clang: the static switch has no such choice
 * g++: the static switch has no such choice
 * clang++: the static switch has no such choice
 */
#include <crosspatch/crosspatch.h>

XP_DEFINE_STATIC_SWITCH(three, 3, 0);

int f(int choice, struct xp_batch *batch);
int f(int choice, struct xp_batch *batch)
{
	int error = xp_static_switch_set(&three, choice) + xp_batch_add_switch(batch, &three, choice);

#ifdef RIGHT
	return error + xp_static_switch_set(&three, 2);
#else
	return error + xp_static_switch_set(&three, 3);
#endif
}
