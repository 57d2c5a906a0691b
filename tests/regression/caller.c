// SPDX-License-Identifier: MIT
/* Loaded by calls.c: a shared object with a call of its own. */
#include <crosspatch/static_call.h>

int caller_own(int x);
int caller_set(int (*target)(int));
int caller_call(int x);

int caller_own(int x)
{
	return x + 7;
}

XP_DEFINE_STATIC_CALL_NULL(call_out, caller_own);

int caller_set(int (*target)(int))
{
	return xp_static_call_update(call_out, target);
}

int caller_call(int x)
{
	return xp_static_call(call_out)(x);
}
