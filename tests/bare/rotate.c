// SPDX-License-Identifier: MIT
/* Four processors execute, each patches in its turn, under each policy that there is with more than one. */
#include "rotation.h"

static struct machine_counts at_start;

static bool enough(void)
{
	struct machine_counts now = machine_counts_sum();

	/* Under quiesce no processor traps. */
	return everybody_patched() && (xp_policy() == XP_POLICY_QUIESCE || now.traps > at_start.traps);
}

static void run(enum xp_policy policy)
{
	static const struct rotation what = {.mixed = true, .gates = true, .enough = enough};

	at_start = machine_counts_sum();
	rotation_run(&what, policy);
}

XP_TEST(auto_policy)
{
	run(XP_POLICY_AUTO);
}

XP_TEST(breakpoint)
{
	run(XP_POLICY_BREAKPOINT);
}

XP_TEST(quiesce)
{
	struct machine_counts before = machine_counts_sum();

	run(XP_POLICY_QUIESCE);
	CHECK_EQ(machine_counts_sum().traps, before.traps);
}

XP_TORTURE_MAIN()
