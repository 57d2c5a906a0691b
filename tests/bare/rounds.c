// SPDX-License-Identifier: MIT
/*
 * As rotate.c, with memory for a few of the key's sites: each of its commits takes several rounds while all execute. Old
 * or new at each site until the last round has ended, new after it.
 */
#include "rotation.h"

#include "core/commit.h"
#include "port/bare/port.h"

enum { LEFT = 1152 }; /* bytes */

static struct machine_counts at_start;

/* Takes all memory but a little, for good. */
static void squeeze(void)
{
	size_t size = machine_bare.size;
	void *left;

	xp__commit_await();
	xp__commit_trim();
	left = xp__bare_alloc(LEFT);
	while (size >= 64) {
		if (xp__bare_alloc(size) == NULL)
			size /= 2;
	}
	xp__bare_release(left, LEFT);
}

static uint64_t rounds_of_one_commit(void)
{
	struct xp_stats before, after;
	uint64_t random = 0;

	xp_stats_read(&before);
	commit_key(&random);
	xp_stats_read(&after);
	CHECK_EQ(after.sites - before.sites, XP_NR_SITES);
	return after.commits - before.commits;
}

static bool enough(void)
{
	struct machine_counts now = machine_counts_sum();

	return everybody_patched() && (xp_policy() == XP_POLICY_QUIESCE || now.traps > at_start.traps);
}

static void run(enum xp_policy policy)
{
	static const struct rotation what = {.enough = enough};
	static bool squeezed;

	if (!squeezed) {
		CHECK(poke_sites_make(&poke_text, pokes, NULL));
		mixed_batch = xp_batch_new();
		CHECK_EQ(rounds_of_one_commit(), 1);
		REQUIRE_EQ(xp__bare_lock(), 0);
		squeeze();
		xp__bare_unlock();
		squeezed = true;
	}
	CHECK_EQ(xp_set_policy(policy), 0);
	XP_TEST_NOTE("%llu rounds", (unsigned long long)rounds_of_one_commit());
	CHECK(rounds_of_one_commit() > 2);
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
	run(XP_POLICY_QUIESCE);
}

XP_TORTURE_MAIN()
