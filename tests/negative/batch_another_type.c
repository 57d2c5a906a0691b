// SPDX-License-Identifier: MIT
/*
 * Nor in a batch.
 *
 * gcc: not a function of the type of this static call
 * clang: not a function of the type of this static call
 * g++: invalid 'static_cast' from type
 * clang++: static_cast from .* is not allowed
 */
#include <crosspatch/crosspatch.h>

static void note(const char *text)
{
	(void)text;
}

XP_DEFINE_STATIC_CALL_NULL(call, note);

int f(struct xp_batch *batch, void *pointer);
int f(struct xp_batch *batch, void *pointer)
{
#ifdef RIGHT
	(void)pointer;
	return xp_batch_add_call(batch, call, note);
#else
	return xp_batch_add_call(batch, call, pointer);
#endif
}
