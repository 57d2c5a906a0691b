// SPDX-License-Identifier: MIT
/*
 * Keys and raw pokes while writer and handlers are delayed at random (xp_delays.h). Every point must have been
 * passed, and traps must have come late: but not where the sync is a signal, for a thread that is in its trap handler when it answers
 * it runs on at once, and is seldom overtaken by the rest of the commit.
 */
#define XP_SITES_KEY sites_key
#include "xp_delays.h"
#include "xp_pokes.h"
#include "xp_sites.h"

static struct poke_site pokes[NR_POKES];
static unsigned wrong, next;

static uint64_t execute_pokes(void *context, uint64_t *random)
{
	unsigned nr_wrong = poke_sites_execute(pokes, random);

	(void)context;
	if (nr_wrong)
		__atomic_add_fetch(&wrong, nr_wrong, __ATOMIC_RELAXED);
	return NR_POKES;
}

static int patch_pokes(void *context, uint64_t *random, struct xp_diag *diag)
{
	struct poke_site *site = &pokes[next++ % NR_POKES];
	struct xp_poke poke = poke_site_step(site, xp_epoch_state(*site->epoch));
	int error;

	(void)context;
	(void)random;
	xp_epoch_begin(site->epoch);
	error = xp_text_poke(&poke, diag);
	if (!error)
		xp_epoch_end(site->epoch);
	return error;
}

static bool trapped(void)
{
	return xp_delays_all(XP__POINT_TRAP_FOUND);
}

static bool trapped_late(void)
{
	return xp_delays_all(XP__POINT_TRAP_MISSED);
}

static void run(const struct xp_torture *torture)
{
	const uint64_t *passed = xp_delays_passed;
	struct xp_stats before, after;

	memset(xp_delays_passed, 0, sizeof(xp_delays_passed));
	xp_stats_read(&before);
	xp__inject = xp_delay_here;
	xp_torture_run(torture);
	xp__inject = NULL;
	xp_stats_read(&after);
	XP_TEST_NOTE("points: published %llu, stored %llu, synced %llu, retired %llu, in the handler %llu %llu %llu",
		     (unsigned long long)passed[0], (unsigned long long)passed[1], (unsigned long long)passed[2],
		     (unsigned long long)passed[3], (unsigned long long)passed[4], (unsigned long long)passed[5],
		     (unsigned long long)passed[6]);
	CHECK(passed[XP__POINT_STORED] > 0 && passed[XP__POINT_SYNCED] > 0);
	CHECK(torture->enough == NULL || torture->enough());
	if (torture->enough == trapped_late)
		CHECK(after.late_traps > before.late_traps);
	CHECK_EQ(__atomic_load_n(&wrong, __ATOMIC_RELAXED), 0);
	xp_sites_check_right();
}

static void run_keys(enum xp_policy policy, enum xp_writer writer, enum xp_sync sync)
{
	bool traps = policy == XP_POLICY_BREAKPOINT;
	struct xp_torture torture = {
		.execute = xp_sites_execute,
		.patch = xp_sites_toggle,
		.nr_threads = 3,
		.traps = traps ? XP_TRAPS_SOME : XP_TRAPS_NONE,
		.enough = !traps ? NULL : sync == XP_SYNC_SIGNAL ? trapped : trapped_late,
	};

	if (xp_torture_set(policy, writer, sync))
		run(&torture);
}

static void run_pokes(enum xp_policy policy, enum xp_writer writer)
{
	struct xp_torture torture = {
		.execute = execute_pokes,
		.patch = patch_pokes,
		.nr_threads = 3,
		.traps = XP_TRAPS_SOME,
		.enough = trapped_late,
	};
	struct xp_text text;

	if (!xp_torture_set(policy, writer, XP_SYNC_MEMBARRIER))
		return;
	REQUIRE(poke_sites_make(&text, pokes, NULL));
	run(&torture);
	xp_text_free(&text);
}

XP_TEST(keys_auto)
{
	run_keys(XP_POLICY_AUTO, XP_WRITER_PROCMEM, XP_SYNC_MEMBARRIER);
}

XP_TEST(keys_breakpoint)
{
	run_keys(XP_POLICY_BREAKPOINT, XP_WRITER_PROCMEM, XP_SYNC_MEMBARRIER);
}

XP_TEST(keys_breakpoint_signal)
{
	run_keys(XP_POLICY_BREAKPOINT, XP_WRITER_PROCMEM, XP_SYNC_SIGNAL);
}

XP_TEST(pokes_auto_mprotect)
{
	run_pokes(XP_POLICY_AUTO, XP_WRITER_MPROTECT);
}

XP_TEST(keys_breakpoint_pkey)
{
	run_keys(XP_POLICY_BREAKPOINT, XP_WRITER_PKEY, XP_SYNC_MEMBARRIER);
}

XP_TEST(pokes_auto_pkey)
{
	run_pokes(XP_POLICY_AUTO, XP_WRITER_PKEY);
}

XP_TEST(pokes_breakpoint)
{
	run_pokes(XP_POLICY_BREAKPOINT, XP_WRITER_PROCMEM);
}

XP_TORTURE_MAIN()
