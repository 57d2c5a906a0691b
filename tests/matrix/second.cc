// SPDX-License-Identifier: MIT
/* The other file with the same templates. A site in a function that throws, and in the one that catches. */
#include "templates.h"

static int thrower()
{
	if (xp_static_branch_unlikely(&key_false))
		throw 1;
	return 0;
}

int look_second(void)
{
	int thrown = 0;

	try {
		if (xp_static_branch_likely(&key_true))
			thrown = thrower();
		else
			thrown = thrower();
	} catch (int caught) {
		thrown = caught;
	}
	return all<int>() + all<char>() + look_inline() + look_calls() +
	       differ(thrown, xp_static_key_enabled(&key_false));
}
