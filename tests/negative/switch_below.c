// SPDX-License-Identifier: MIT
/*
 * The same in a batch.
 *
 * gcc: the static switch has no such choice
 * clang: the static switch has no such choice
 * g++: the static switch has no such choice
 * clang++: the static switch has no such choice
 */
#include <crosspatch/crosspatch.h>

XP_DEFINE_STATIC_SWITCH(three, 3, 0);

int f(struct xp_batch *batch);
int f(struct xp_batch *batch)
{
#ifdef RIGHT
	return xp_batch_add_switch(batch, &three, 0);
#else
	return xp_batch_add_switch(batch, &three, -1);
#endif
}
