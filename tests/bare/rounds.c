// SPDX-License-Identifier: MIT
/*
 * As rotate.c, with memory for a few sites: each commit of the key, and of the gate, takes several rounds while all execute.
 * Old or new at each site until the last round has ended, new after it.
 */
#define ROTATION_FAULTS 3
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

	return everybody_patched() && now.faults > at_start.faults &&
	       (xp_policy() == XP_POLICY_QUIESCE || now.traps > at_start.traps);
}

/* From the first case on; what the engine keeps for good it has by then. */
static void little_memory(void)
{
	static bool squeezed;

	if (squeezed)
		return;
	squeezed = true;
	CHECK(poke_sites_make(&poke_text, pokes, NULL));
	mixed_batch = xp_batch_new();
	REQUIRE(mixed_batch);
	CHECK_EQ(rounds_of_one_commit(), 1);
	REQUIRE_EQ(xp__bare_lock(), 0);
	squeeze();
	xp__bare_unlock();
}

static void run(enum xp_policy policy)
{
	static const struct rotation what = {.gates = true, .enough = enough};

	little_memory();
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

/* Each site of the gate, whatever the cases before left it as. */
XP_TEST(all_gates_are_bound)
{
	typedef unsigned function(unsigned);
	struct xp_stats before, after;
	int error;

	little_memory();
	CHECK_EQ(xp_set_policy(XP_POLICY_AUTO), 0);
	error = xp_gate_withdraw("rotated_gate");
	CHECK(error == 0 || error == -XP_E_NO_PROVIDER);
	CHECK_EQ(xp_gate_provide("rotated_gate", gate_second), 0);
	xp_stats_read(&before);
	CHECK_EQ(xp_gate_bind_all(), 0);
	xp_stats_read(&after);
	XP_TEST_NOTE("%llu sites in %llu rounds", (unsigned long long)(after.sites - before.sites),
		     (unsigned long long)(after.commits - before.commits));
	CHECK(after.sites - before.sites >= NR_FAULTS * MAX_CASES);
	CHECK(after.commits - before.commits > 2);
	for (unsigned i = 0; i < NR_FAULTS * MAX_CASES; i++) {
		CHECK_EQ(gate_callers[32 * i + 8], 0x2e);
		CHECK_EQ(((function *)(uintptr_t)(gate_callers + 32 * i))(7), 9);
	}
}

XP_TORTURE_MAIN()
