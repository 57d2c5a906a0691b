// SPDX-License-Identifier: MIT
/* One of two files with the same templates; the keys of C++, defined. */
#include "templates.h"

XP_DEFINE_STATIC_KEY_FALSE(key_cxx);
XP_DEFINE_STATIC_KEY_ARRAY_TRUE(keys_cxx, 2);

XP_DEFINE_STATIC_CALL(call_cxx, first_target);

namespace
{
XP_DEFINE_STATIC_KEY_TRUE(key_anonymous);
}

int look_first(void)
{
	return all<int>() + all<long>() + look_inline() + look_calls() +
	       differ(xp_static_branch_likely(&key_anonymous), xp_static_key_enabled(&key_anonymous));
}
