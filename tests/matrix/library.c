// SPDX-License-Identifier: MIT
/* Sites of a shared object, or of the program itself: its own key and those of all. */
#include "keys.h"

static XP_DEFINE_STATIC_KEY_FALSE(own);

int look_library(void)
{
	return look_inline() + differ(xp_static_branch_unlikely(&own), xp_static_key_enabled(&own)) +
	       differ(xp_static_branch_likely(&common_false), xp_static_key_enabled(&common_false));
}

int switch_library(int on)
{
	return on ? xp_static_branch_enable(&own) : xp_static_branch_disable(&own);
}
