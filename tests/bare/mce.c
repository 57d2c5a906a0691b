// SPDX-License-Identifier: MIT
/*
 * Machine checks, injected through QEMU's monitor into each processor in turn while text is patched; their handler
 * executes the sites, and calls a gate from sites that no other processor executes: never bound, since a handler patches nothing,
 * they fault each time.
 *
 * By turns, one comes at any time; one inside a trap: asked for in the handler of a breakpoint, which waits for it; and one on
 * the patcher in the middle of a commit, which waits as well. So each of them happens, however long it takes.
 *
 * A processor gets its next one when it has left the handler of the last: one that comes while MCG_STATUS.MCIP is set
 * shuts the machine down, and one between the clearing of MCIP and the return overwrites the frame on the interrupt
 * stack that both share. Only the processor itself, executing as usual, knows that it has left.
 */
#include "rotation.h"

#include "core/inject.h"

static uint64_t during_commit, on_patcher; /* machine checks */
static uint64_t asked, asked_of[MACHINE_CPUS_MAX]; /* in this case; since the start, of each processor */
static uint64_t left[MACHINE_CPUS_MAX];             /* since the start, seen by each where it executes as usual */
static struct machine_counts at_start;

static void on_mce(struct xp_bare_frame *frame)
{
	static unsigned next;
	uint64_t random = 0;
	unsigned site = __atomic_fetch_add(&next, 1, __ATOMIC_RELAXED) % NR_FAULTS;

	(void)frame;
	if (committing()) {
		__atomic_add_fetch(&during_commit, 1, __ATOMIC_RELAXED);
		if (has_turn(machine_cpu()))
			__atomic_add_fetch(&on_patcher, 1, __ATOMIC_RELAXED);
	}
	rotation_execute(&random);
	/* Those of the last case, which there is not. */
	if (gate_call(-1) + gate_call((int)((MAX_CASES - 1) * NR_FAULTS + site)))
		__atomic_add_fetch(&xp_sites_wrong, 1, __ATOMIC_RELAXED);
}

/*
 * Asks for machine check @number, if all before it are over and no other processor has asked. Uncorrected, recoverable: VAL UC EN in
 * bank 9's status; RIPV and MCIP.
 */
static bool ask(unsigned cpu, uint64_t number)
{
	char command[] = "mce 0 9 0xb000000000000000 0x5 0x0 0x0";

	if (machine_counts_sum().mces - at_start.mces != number ||
	    __atomic_load_n(&left[cpu], __ATOMIC_ACQUIRE) != __atomic_load_n(&asked_of[cpu], __ATOMIC_RELAXED) ||
	    !__atomic_compare_exchange_n(&asked, &number, number + 1, false, __ATOMIC_ACQ_REL, __ATOMIC_RELAXED))
		return false;
	__atomic_add_fetch(&asked_of[cpu], 1, __ATOMIC_RELEASE);
	command[4] = (char)('0' + cpu);
	machine_monitor(command);
	return true;
}

static void inject(unsigned cpu)
{
	uint64_t number = __atomic_load_n(&asked, __ATOMIC_ACQUIRE);

	__atomic_store_n(&left[cpu], machine_counts[cpu].mces, __ATOMIC_RELEASE);
	if (cpu == 0 && number % 3 == 0)
		ask((unsigned)(number / 3 % machine_nr_cpus()), number);
}

static void on_point(int point)
{
	uint64_t number = __atomic_load_n(&asked, __ATOMIC_ACQUIRE);
	unsigned cpu = machine_cpu();
	bool in_trap = number % 3 == 1 && point == XP__POINT_TRAP_FOUND;
	bool in_commit = number % 3 == 2 && point == XP__POINT_SYNCED && has_turn(cpu) && committing();

	if ((in_trap || in_commit) && ask(cpu, number))
		while (*(volatile uint64_t *)&machine_counts[cpu].mces != asked_of[cpu])
			__builtin_ia32_pause();
}

static bool enough(void)
{
	struct machine_counts now = machine_counts_sum();

	return everybody_patched() && __atomic_load_n(&during_commit, __ATOMIC_RELAXED) &&
	       __atomic_load_n(&on_patcher, __ATOMIC_RELAXED) && now.traps_in_mce > at_start.traps_in_mce &&
	       now.mces_in_trap > at_start.mces_in_trap && now.faults_off > at_start.faults_off;
}

static void run(enum xp_policy policy)
{
	static const struct rotation what = {.mixed = true, .gates = true, .enough = enough, .each_pass = inject};
	struct machine_counts now;

	during_commit = on_patcher = asked = 0;
	at_start = machine_counts_sum();
	machine_on_mce = on_mce;
	machine_on_inject = on_point;
	rotation_run(&what, policy);
	/* The last one that was asked for still comes. */
	while (machine_counts_sum().mces - at_start.mces < asked)
		__builtin_ia32_pause();
	machine_on_inject = NULL;
	machine_on_mce = NULL;
	now = machine_counts_sum();
	XP_TEST_NOTE("machine checks %llu: during a commit %llu, on the patcher %llu, inside a trap %llu",
		     (unsigned long long)(now.mces - at_start.mces), (unsigned long long)during_commit,
		     (unsigned long long)on_patcher, (unsigned long long)(now.mces_in_trap - at_start.mces_in_trap));
	XP_TEST_NOTE("traps inside a machine check %llu, sites of gates that faulted %llu, in machine checks %llu",
		     (unsigned long long)(now.traps_in_mce - at_start.traps_in_mce),
		     (unsigned long long)(now.faults - at_start.faults - now.faults_off + at_start.faults_off),
		     (unsigned long long)(now.faults_off - at_start.faults_off));
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
