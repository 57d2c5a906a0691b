// SPDX-License-Identifier: MIT
/* Uses the module's functions, and has sites of its own. */
#include <crosspatch/crosspatch.h>
import module_of_sites;

static XP_DEFINE_STATIC_KEY_FALSE(own);

int main()
{
	if (xp_module_error())
		return 1;
	if (look() != 3100 || look_inline() != 3000 || look_template(1L) != 1)
		return 2;
	if (change() || xp_static_branch_enable(&own))
		return 3;
	if (look() != 4215 || look_inline() != 4002 || look_template(1L) != 3)
		return 4;
	return !xp_static_branch_likely(&own);
}
