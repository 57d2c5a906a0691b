// SPDX-License-Identifier: MIT
/*
 * Machine checks, injected through QEMU's monitor into each processor in turn while text is patched; their handler
 * executes the sites. One at a time: a second one on the same processor would stop it.
 */
#include "rotation.h"

static uint64_t during_commit, on_patcher; /* machine checks */
static uint64_t asked;
static struct machine_counts at_start;

static void on_mce(struct xp_bare_frame *frame)
{
	uint64_t random = 0;

	(void)frame;
	if (committing()) {
		__atomic_add_fetch(&during_commit, 1, __ATOMIC_RELAXED);
		if (has_turn(machine_cpu()))
			__atomic_add_fetch(&on_patcher, 1, __ATOMIC_RELAXED);
	}
	rotation_execute(&random);
}

/* Uncorrected, recoverable: VAL UC EN in bank 9's status; RIPV and MCIP. */
static void inject(unsigned cpu)
{
	char command[] = "mce 0 9 0xb000000000000000 0x5 0x0 0x0";

	if (cpu != 0 || machine_counts_sum().mces - at_start.mces < asked)
		return;
	command[4] = (char)('0' + asked++ % machine_nr_cpus());
	machine_monitor(command);
}

static bool enough(void)
{
	struct machine_counts now = machine_counts_sum();

	return everybody_patched() && __atomic_load_n(&during_commit, __ATOMIC_RELAXED) &&
	       __atomic_load_n(&on_patcher, __ATOMIC_RELAXED) && now.traps_in_mce > at_start.traps_in_mce;
}

static void run(enum xp_policy policy)
{
	static const struct rotation what = {.enough = enough, .each_pass = inject, .seconds = 1};
	struct machine_counts now;

	during_commit = on_patcher = asked = 0;
	at_start = machine_counts_sum();
	machine_on_mce = on_mce;
	rotation_run(&what, policy);
	/* The last one that was asked for still comes. */
	while (machine_counts_sum().mces - at_start.mces < asked)
		__builtin_ia32_pause();
	machine_on_mce = NULL;
	now = machine_counts_sum();
	XP_TEST_NOTE("machine checks %llu: during a commit %llu, on the patcher %llu, inside a trap %llu",
		     (unsigned long long)(now.mces - at_start.mces), (unsigned long long)during_commit,
		     (unsigned long long)on_patcher, (unsigned long long)(now.mces_in_trap - at_start.mces_in_trap));
	XP_TEST_NOTE("traps inside a machine check %llu",
		     (unsigned long long)(now.traps_in_mce - at_start.traps_in_mce));
}

XP_TEST(auto_policy)
{
	run(XP_POLICY_AUTO);
}

XP_TEST(breakpoint)
{
	run(XP_POLICY_BREAKPOINT);
}

XP_TORTURE_MAIN()
