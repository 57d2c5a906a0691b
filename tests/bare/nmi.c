// SPDX-License-Identifier: MIT
/*
 * A storm of NMIs: every processor that executes sends one to every processor, the patcher and itself included, and the
 * handler executes the sites that are being patched, calls, values and gates included, by the same rule.
 */
#include "rotation.h"

static uint64_t during_commit, on_patcher, skipped; /* NMIs */
static struct machine_counts at_start;

static void on_nmi(struct xp_bare_frame *frame)
{
	static unsigned next;
	unsigned cpu = machine_cpu(), first = __atomic_fetch_add(&next, 3, __ATOMIC_RELAXED), wrong = 0;

	(void)frame;
	if (xp_bare_parked()) {
		__atomic_add_fetch(&skipped, 1, __ATOMIC_RELAXED);
		return;
	}
	if (committing()) {
		__atomic_add_fetch(&during_commit, 1, __ATOMIC_RELAXED);
		if (has_turn(cpu))
			__atomic_add_fetch(&on_patcher, 1, __ATOMIC_RELAXED);
	}
	for (unsigned i = 0; i < 16; i++) {
		unsigned site = (first + i) % XP_NR_SITES;
		uint32_t before = xp_epoch_read(&xp_sites_epoch);
		bool on = xp_sites[site]();
		uint32_t after = xp_epoch_read(&xp_sites_epoch);

		wrong += !xp_epoch_allows(before, after, 2, on);
		wrong += !poke_site_execute(&pokes[(first + i) % NR_POKES], i & 1);
	}
	wrong += mixed_execute() + gate_execute();
	if (wrong)
		__atomic_add_fetch(&xp_sites_wrong, wrong, __ATOMIC_RELAXED);
}

static void storm(unsigned cpu)
{
	(void)cpu;
	for (unsigned i = 0; i < machine_nr_cpus(); i++)
		machine_send_nmi(i);
}

/* Time for an NMI to come at the moments that matter. */
static void linger(int point)
{
	(void)point;
	for (unsigned i = 0; i < 200; i++)
		__builtin_ia32_pause();
}

static bool enough(void)
{
	struct machine_counts now = machine_counts_sum();

	if (xp_policy() == XP_POLICY_QUIESCE)
		return everybody_patched() && __atomic_load_n(&skipped, __ATOMIC_RELAXED);
	return everybody_patched() && __atomic_load_n(&during_commit, __ATOMIC_RELAXED) &&
	       __atomic_load_n(&on_patcher, __ATOMIC_RELAXED) && now.traps_in_nmi > at_start.traps_in_nmi &&
	       now.nmis_in_trap > at_start.nmis_in_trap && now.faults > at_start.faults;
}

static void run(enum xp_policy policy)
{
	static const struct rotation what = {.mixed = true, .gates = true, .enough = enough, .each_pass = storm};
	struct machine_counts now;

	during_commit = on_patcher = skipped = 0;
	at_start = machine_counts_sum();
	machine_on_nmi = on_nmi;
	machine_on_inject = linger;
	rotation_run(&what, policy);
	machine_on_inject = NULL;
	machine_on_nmi = NULL;
	now = machine_counts_sum();
	XP_TEST_NOTE("NMIs %llu: during a commit %llu, on the patcher %llu, inside a trap %llu, while parked %llu",
		     (unsigned long long)(now.nmis - at_start.nmis), (unsigned long long)during_commit,
		     (unsigned long long)on_patcher, (unsigned long long)(now.nmis_in_trap - at_start.nmis_in_trap),
		     (unsigned long long)skipped);
	XP_TEST_NOTE("traps inside an NMI %llu, inside a trap %llu",
		     (unsigned long long)(now.traps_in_nmi - at_start.traps_in_nmi),
		     (unsigned long long)(now.traps_in_trap - at_start.traps_in_trap));
	XP_TEST_NOTE("sites of gates that faulted %llu, in NMIs %llu",
		     (unsigned long long)(now.faults - at_start.faults - now.faults_off + at_start.faults_off),
		     (unsigned long long)(now.faults_off - at_start.faults_off));
	CHECK_EQ(now.nested_nmis, 0);
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
