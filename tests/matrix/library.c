// SPDX-License-Identifier: MIT
/* Sites of a shared object, or of the program itself: its own key and those of all. */
#include "keys.h"

static XP_DEFINE_STATIC_KEY_FALSE(own);

int look_library(void)
{
	return look_inline() + differ(xp_static_branch_unlikely(&own), xp_static_key_enabled(&own)) +
	       differ(xp_static_branch_likely(&common_false), xp_static_key_enabled(&common_false));
}

static int library_target(int x, double y, struct amounts z)
{
	return 300 + x + (int)y + (int)z.real + z.whole;
}

XP_DEFINE_STATIC_CALL(own_call, library_target);

int update_library(int none)
{
	int error = xp_static_call_update(own_call, NULL);

	error = error ? error : -(CALL(own_call) != 0);
	error = error ? error : xp_static_call_update(own_call, library_target);
	error = error ? error : -(CALL(own_call) != 309);
	if (error)
		return error;
	return none ? xp_static_call_update(common_call, NULL) : xp_static_call_update(common_call, library_target);
}

int switch_library(int on)
{
	return on ? xp_static_branch_enable(&own) : xp_static_branch_disable(&own);
}
