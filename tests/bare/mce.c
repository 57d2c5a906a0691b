// SPDX-License-Identifier: MIT
/*
 * Machine checks, injected through QEMU's monitor into each processor in turn while text is patched; their handler
 * executes the sites.
 *
 * A processor gets its next one when it has left the handler of the last: one that comes while MCG_STATUS.MCIP is set
 * shuts the machine down, and one between the clearing of MCIP and the return overwrites the frame on the interrupt
 * stack that both share. Only the processor itself, executing as usual, knows that it has left.
 */
#include "rotation.h"

static uint64_t during_commit, on_patcher; /* machine checks */
static uint64_t asked, asked_of[MACHINE_CPUS_MAX]; /* in this case; since the start, of each processor */
static uint64_t left[MACHINE_CPUS_MAX];             /* since the start, seen by each where it executes as usual */
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
	unsigned next = (unsigned)(asked % machine_nr_cpus());

	__atomic_store_n(&left[cpu], machine_counts[cpu].mces, __ATOMIC_RELEASE);
	if (cpu != 0 || __atomic_load_n(&left[next], __ATOMIC_ACQUIRE) != asked_of[next] ||
	    machine_counts_sum().mces - at_start.mces < asked)
		return;
	asked++;
	asked_of[next]++;
	command[4] = (char)('0' + next);
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
	static const struct rotation what = {.mixed = true, .enough = enough, .each_pass = inject};
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
