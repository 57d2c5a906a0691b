// SPDX-License-Identifier: MIT
/* Loaded by calls.c and threads.c: a shared object with a call and a value of its own. */
#include <crosspatch/imv.h>
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

/* Of several bytes, and not 0: its registration changes a site. */
XP_DEFINE_IMV_STATIC(int, own_value, 0x12345678);

int caller_value(void);

int caller_value(void)
{
	return xp_imv_read(own_value);
}
