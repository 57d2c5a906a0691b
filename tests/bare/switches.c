// SPDX-License-Identifier: MIT
/* Static switches: every processor but one executes them while that one goes round through the choices. */
#include "xp_torture.h"

#include <crosspatch/static_switch.h>

enum { CHOICES = 3 };

XP_DEFINE_STATIC_SWITCH(choice, CHOICES, 0);

static uint32_t epoch; /* each commit is one; the state is the choice */
static unsigned wrong;

static __attribute__((noinline)) unsigned chosen(void)
{
	switch (xp_static_switch(&choice)) {
	case 0:
		return 0;
	case 1:
		return 1;
	default:
		return 2;
	}
}

static uint64_t execute(void *context, uint64_t *random)
{
	uint32_t before = xp_epoch_read(&epoch);
	unsigned found = chosen();
	uint32_t after = xp_epoch_read(&epoch);

	(void)context;
	(void)random;
	if (!xp_epoch_allows(before, after, CHOICES, found))
		__atomic_add_fetch(&wrong, 1, __ATOMIC_RELAXED);
	return 1;
}

static int patch(void *context, uint64_t *random, struct xp_diag *diag)
{
	int to = (int)((xp_epoch_state(epoch) + 1) % CHOICES);
	int error;

	(void)context;
	(void)random;
	(void)diag;
	xp_epoch_begin(&epoch);
	error = xp_static_switch_set(&choice, to);
	if (!error)
		xp_epoch_end(&epoch);
	if (!error && (int)chosen() != to)
		__atomic_add_fetch(&wrong, 1, __ATOMIC_RELAXED);
	return error;
}

static void run(enum xp_policy policy)
{
	struct xp_torture torture = {
		.execute = execute,
		.patch = patch,
		.nr_threads = 3,
		.traps = policy == XP_POLICY_BREAKPOINT ? XP_TRAPS_SOME : XP_TRAPS_ANY,
	};

	if (!xp_torture_set(policy, XP_WRITER_AUTO, XP_SYNC_AUTO))
		return;
	xp_torture_run(&torture);
	CHECK_EQ(wrong, 0);
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
	run(XP_POLICY_QUIESCE);
}

XP_TORTURE_MAIN()
