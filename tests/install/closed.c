// SPDX-License-Identifier: MIT
/* A plugin with the static library inside, which is closed: closes.c. It asks for traps, and for a thread of the library's. */
#include <crosspatch/crosspatch.h>

XP_DEFINE_STATIC_KEY_FALSE(a_key);
XP_DEFINE_STATIC_KEY_DEFERRED_FALSE(slow_key, 50);

int work(void);
int work(void)
{
	int error = xp_set_policy(XP_POLICY_BREAKPOINT);

	if (!error)
		error = xp_static_branch_enable(&a_key);
	if (!error && !xp_static_branch_unlikely(&a_key))
		error = 1;
	if (!error)
		error = xp_static_branch_disable(&a_key);
	if (!error)
		error = xp_static_branch_inc(&slow_key.key);
	if (!error)
		xp_static_branch_slow_dec_deferred(&slow_key);
	return error;
}
