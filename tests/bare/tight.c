// SPDX-License-Identifier: MIT
/*
 * As rotate.c, with no more memory than its largest commit takes, as xp_memory_needed() says: the memory of each commit is
 * that of the one before, which a trap handler may still look at.
 */
#define ROTATION_FAULTS 8
#include "rotation.h"

#include "core/reclaim.h"
#include "core/deps.h"
#include "port/bare/port.h"

enum { HELD = 64u << 10, LITTLE = 512, FOUND = 1024 }; /* bytes */

static struct machine_counts at_start;
static uint8_t *held;
static size_t given; /* of it, from the front on */

/* Takes all memory but a little, for good. */
static void squeeze(void)
{
	size_t size = machine_bare.size;

	xp__reclaim_await();
	xp__reclaim_trim();
	held = xp__bare_alloc(HELD);
	while (size >= 64) {
		if (xp__bare_alloc(size) == NULL)
			size /= 2;
	}
	xp__bare_release(held, LITTLE);
	given = LITTLE;
}

/* As much as the commit that was refused last needed, in one piece, and @more. */
static void give(size_t more)
{
	size_t needed = (xp_memory_needed() + more + 63) & ~(size_t)63;

	REQUIRE(needed > given && needed < HELD);
	REQUIRE_EQ(xp__bare_lock(), 0);
	xp__bare_release(held + given, needed - given);
	given = needed;
	xp__bare_unlock();
}

static bool enough(void)
{
	struct machine_counts now = machine_counts_sum();

	return everybody_patched() && now.faults > at_start.faults &&
	       (xp_policy() == XP_POLICY_QUIESCE || now.traps > at_start.traps);
}

static int toggle_key(void)
{
	uint64_t random = 0;
	struct xp_diag diag = {0};

	return xp_sites_toggle(NULL, &random, &diag);
}

static int provide(void)
{
	return xp_gate_provide("rotated_gate", gate_first);
}

/* What a commit of all sites of a key or of a gate needs: first there is too little, and nothing is stored. */
static void make_tight(void)
{
	struct xp_stats before, after;

	CHECK(poke_sites_make(&poke_text, pokes, NULL));
	mixed_batch = xp_batch_new();
	REQUIRE(mixed_batch);
	CHECK_EQ(toggle_key(), 0);
	/* What the engine keeps for good, it has by then: for one, the call that no record names. */
	CHECK_EQ(provide(), 0);
	CHECK_EQ(xp_gate(rotated_gate)(7), 8);
	CHECK_EQ(xp_gate_withdraw("rotated_gate"), 0);
	REQUIRE_EQ(xp__bare_lock(), 0);
	squeeze();
	xp__bare_unlock();
	xp_stats_read(&before);
	CHECK_EQ(toggle_key(), -XP__ENOMEM);
	xp_stats_read(&after);
	CHECK_EQ(after.writes, before.writes);
	give(0);
	CHECK_EQ(toggle_key(), 0);
	XP_TEST_NOTE("%zu bytes for %zu sites of a key", given, XP_NR_SITES);
	/* Calls that no record names are found while all execute, and are more sites. */
	if (provide() == -XP__ENOMEM) {
		give(FOUND);
		CHECK_EQ(provide(), 0);
	}
	XP_TEST_NOTE("%zu bytes for all sites of a gate", given);
	CHECK_EQ(xp_gate_withdraw("rotated_gate"), 0);
}

static void run(enum xp_policy policy)
{
	static const struct rotation what = {.enough = enough, .gates = true};

	if (held == NULL)
		make_tight();
	CHECK_EQ(xp_set_policy(policy), 0);
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
