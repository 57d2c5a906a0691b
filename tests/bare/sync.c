// SPDX-License-Identifier: MIT
/*
 * That the sync is one: the emulator would not show a missing serialization by its effect, so the machine counts the
 * serializing instructions of each processor (machine.c), and these cases ask for them where they are due.
 */
#include "xp_test.h"
#include "xp_text.h"

#include "core/inject.h"
#include "port/bare/port.h"

#include <crosspatch/crosspatch.h>

XP_DEFINE_STATIC_KEY_FALSE(key);
XP_DEFINE_STATIC_KEY_FALSE(other_key);

static __attribute__((noinline)) bool site(void)
{
	return xp_static_branch_unlikely(&key);
}

static __attribute__((noinline)) bool other_site(void)
{
	return xp_static_branch_unlikely(&other_key);
}

static bool flag(const bool *at)
{
	return __atomic_load_n(at, __ATOMIC_ACQUIRE);
}

static void set(bool *at)
{
	__atomic_store_n(at, true, __ATOMIC_RELEASE);
}

static void await(const bool *at)
{
	while (!flag(at))
		__builtin_ia32_pause();
}

static void dawdle(void)
{
	for (unsigned i = 0; i < 20000; i++)
		__builtin_ia32_pause();
}

/* ---- every processor serializes between the stores of a phase and its end ---- */

static bool leave;
static uint64_t serialized[MACHINE_CPUS_MAX];
static unsigned phases, missing;

static void spin(void *unused)
{
	(void)unused;
	await(&leave);
}

static void note_serialized(int point)
{
	for (unsigned i = 0; i < machine_nr_cpus(); i++) {
		uint64_t now = __atomic_load_n(&machine_counts[i].serialized, __ATOMIC_ACQUIRE);

		if (point == XP__POINT_SYNCED)
			missing += now == serialized[i];
		if (point == XP__POINT_STORED)
			serialized[i] = now;
	}
	phases += point == XP__POINT_SYNCED;
}

static void count_syncs(enum xp_policy policy, unsigned expected)
{
	struct xp_bare_stats before, after;

	phases = missing = 0;
	CHECK_EQ(xp_set_policy(policy), 0);
	xp_bare_stats_read(&before);
	machine_on_inject = note_serialized;
	CHECK_EQ(xp_static_branch_enable(&key), 0);
	CHECK_EQ(xp_static_branch_disable(&key), 0);
	machine_on_inject = NULL;
	xp_bare_stats_read(&after);
	CHECK_EQ(phases, 2 * expected);
	CHECK_EQ(missing, 0);
	CHECK_EQ(after.rounds - before.rounds, 2 * expected);
	CHECK_EQ(after.ipis - before.ipis, 2 * expected * (machine_nr_cpus() - 1));
	CHECK_EQ(after.answers - before.answers, 2 * expected * (machine_nr_cpus() - 1));
}

XP_TEST(each_processor_serializes_in_each_phase)
{
	leave = false;
	for (unsigned i = 1; i < machine_nr_cpus(); i++)
		machine_run(i, spin, NULL);
	count_syncs(XP_POLICY_AUTO, 1);
	count_syncs(XP_POLICY_BREAKPOINT, 2);
	set(&leave);
	for (unsigned i = 1; i < machine_nr_cpus(); i++)
		machine_wait(i);
}

/* ---- a processor that has answered a sync is still in its interrupt when a park begins: it is not parked by it ---- */

static bool watching, in_between;

/* Right behind the store of the answer. */
static void await_park(struct xp_bare_frame *frame)
{
	(void)frame;
	if (in_between)
		return;
	in_between = true;
	while (!xp_bare_parked())
		__builtin_ia32_pause();
}

static void spin_watched(void *unused)
{
	uint64_t watch = 1 | 1 << 16 | 3 << 18; /* DR0, enabled, writes, 4 bytes */

	__asm__ volatile("movq %0, %%dr0" : : "r"(&machine_bare.cpus[machine_cpu()].answered));
	__asm__ volatile("movq %0, %%dr7" : : "r"(watch));
	set(&watching);
	spin(unused);
	__asm__ volatile("movq %0, %%dr7" : : "r"(0ul));
}

XP_TEST(park_follows_a_sync)
{
	leave = false;
	machine_on_debug = await_park;
	machine_run(1, spin_watched, NULL);
	await(&watching);
	CHECK_EQ(xp_set_policy(XP_POLICY_AUTO), 0);
	CHECK_EQ(xp_static_branch_enable(&key), 0);
	CHECK_EQ(xp_set_policy(XP_POLICY_QUIESCE), 0);
	CHECK_EQ(xp_static_branch_disable(&key), 0);
	CHECK(in_between);
	set(&leave);
	machine_wait(1);
	machine_on_debug = NULL;
	CHECK_EQ(xp_set_policy(XP_POLICY_AUTO), 0);
}

/* ---- a commit waits for a processor that has interrupts off ---- */

static bool off, storing, returned, early_return;

static void without_interrupts(void *unused)
{
	(void)unused;
	__asm__ volatile("cli" : : : "memory");
	set(&off);
	await(&storing);
	dawdle(); /* the interrupt is there by now */
	early_return = flag(&returned);
	__asm__ volatile("sti" : : : "memory");
}

static void note_storing(int point)
{
	if (point == XP__POINT_STORED)
		set(&storing);
}

static void watch_the_held(void *unused)
{
	(void)unused;
	await(&storing);
	await(&machine_stopped[1]);
	/* Long, since the host may be busy: a commit that has an answer too early must have the time to return. */
	for (unsigned i = 0; i < 50 && !early_return; i++) {
		dawdle();
		early_return = flag(&returned);
	}
	__atomic_store_n(&machine_held[1], false, __ATOMIC_RELEASE);
}

XP_TEST(commit_waits_until_all_have_serialized)
{
	CHECK_EQ(xp_set_policy(XP_POLICY_AUTO), 0);
	storing = returned = early_return = leave = false;
	machine_run(1, spin, NULL);
	machine_run(2, watch_the_held, NULL);
	machine_stopped[1] = false;
	machine_held[1] = true;
	machine_on_inject = note_storing;
	CHECK_EQ(xp_static_branch_enable(&key), 0);
	set(&returned);
	machine_on_inject = NULL;
	machine_wait(2);
	CHECK(!early_return);
	set(&leave);
	machine_wait(1);
	CHECK_EQ(xp_static_branch_disable(&key), 0);
}

XP_TEST(commit_waits_for_interrupts_off)
{
	CHECK_EQ(xp_set_policy(XP_POLICY_AUTO), 0);
	off = storing = returned = early_return = false;
	machine_run(1, without_interrupts, NULL);
	await(&off);
	machine_on_inject = note_storing;
	CHECK_EQ(xp_static_branch_enable(&key), 0);
	set(&returned);
	machine_on_inject = NULL;
	machine_wait(1);
	CHECK(!early_return);
	CHECK_EQ(xp_static_branch_disable(&key), 0);
}

/* ---- a processor that waits for the lock with interrupts off answers the one that has it ---- */

static int locked_error;
static bool asking;

static void patch_without_interrupts(void *unused)
{
	(void)unused;
	await(&storing);
	__asm__ volatile("cli" : : : "memory");
	set(&asking);
	locked_error = xp_static_branch_enable(&other_key);
	__asm__ volatile("sti" : : : "memory");
}

static void hold_the_lock(int point)
{
	if (point != XP__POINT_STORED || flag(&storing))
		return;
	set(&storing);
	await(&asking);
	dawdle();
}

XP_TEST(lock_with_interrupts_off)
{
	storing = asking = false;
	locked_error = 1;
	machine_run(1, patch_without_interrupts, NULL);
	machine_on_inject = hold_the_lock;
	CHECK_EQ(xp_static_branch_enable(&key), 0);
	machine_wait(1);
	machine_on_inject = NULL;
	CHECK_EQ(locked_error, 0);
	CHECK(site());
	CHECK(other_site());
	CHECK_EQ(xp_static_branch_disable(&key), 0);
	CHECK_EQ(xp_static_branch_disable(&other_key), 0);
}

/* ---- processors that go and come ---- */

static bool down, come_back;
static bool saw_new;
static uint64_t answers_down;
static struct xp_bare_stats stats_down;

static void go_down(void *unused)
{
	(void)unused;
	CHECK_EQ(xp_bare_cpu_down(), 0);
	__asm__ volatile("cli" : : : "memory");
	set(&down);
	await(&come_back);
	xp_bare_stats_read(&stats_down);
	xp_bare_poll(); /* not asked; were it parked, none would let it go */
	answers_down = stats_down.answers;
	xp_bare_stats_read(&stats_down);
	answers_down = stats_down.answers - answers_down;
	CHECK_EQ(xp_bare_cpu_up(), 0);
	__asm__ volatile("sti" : : : "memory");
	saw_new = site();
}

XP_TEST(processor_down_and_up)
{
	struct xp_bare_stats before, after;
	uint64_t serialized_before = machine_counts[2].serialized;

	down = come_back = saw_new = false;
	machine_run(2, go_down, NULL);
	await(&down);
	xp_bare_stats_read(&before);
	CHECK_EQ(xp_static_branch_enable(&key), 0); /* would hang if it were asked */
	xp_bare_stats_read(&after);
	CHECK_EQ(after.ipis - before.ipis, machine_nr_cpus() - 2);
	set(&come_back);
	machine_wait(2);
	CHECK(saw_new);
	CHECK_EQ(answers_down, 0);
	CHECK(machine_counts[2].serialized > serialized_before);
	CHECK_EQ(xp_static_branch_disable(&key), 0);
}

/* ---- text and window ---- */

static bool window_was_open, text_was_writable;

static void look_at_window(int point)
{
	(void)point;
	window_was_open = window_was_open || !machine_store_faults(machine_window);
	text_was_writable = text_was_writable || !machine_store_faults((const void *)(uintptr_t)site);
}

XP_TEST(text_stays_read_only)
{
	CHECK(!machine_store_faults(&window_was_open)); /* the test itself can tell */
	window_was_open = text_was_writable = false;
	look_at_window(0);
	machine_on_inject = look_at_window;
	CHECK_EQ(xp_static_branch_enable(&key), 0);
	CHECK_EQ(xp_static_branch_disable(&key), 0);
	machine_on_inject = NULL;
	look_at_window(0);
	CHECK(!window_was_open);
	CHECK(!text_was_writable);
}

XP_TEST(data_is_no_text)
{
	static uint8_t data[2] = {0x66, 0x90};
	static const uint8_t jmp[2] = {0xeb, 0x00};
	const struct xp_poke poke = {.addr = data, .expect = data, .replace = jmp, .len = 2};

	CHECK_EQ(xp_text_poke(&poke, NULL), -XP_E_NOT_TEXT);
	CHECK_EQ(data[0], 0x66);
}

/* ---- text that comes and goes, as with a module ---- */

XP_TEST(text_comes_and_goes)
{
	static const uint8_t code[2] = {0x66, 0x90}, jmp[2] = {0xeb, 0x00};
	const struct xp_range *image = machine_bare.text;
	struct xp_bare_stats before, after;
	struct xp_poke poke = {.expect = code, .replace = jmp, .len = 2};
	struct xp_text text;
	struct xp_range both[2];

	REQUIRE(xp_text_make(&text, code, sizeof(code)));
	poke.addr = text.base;
	both[0] = image[0];
	both[1] = (struct xp_range){(uintptr_t)text.base, (uintptr_t)text.base + sizeof(code)};
	CHECK_EQ(xp_bare_text_set(NULL, 0), -22);
	xp_bare_stats_read(&before);
	CHECK_EQ(xp_bare_text_set(image, 1), 0);
	xp_bare_stats_read(&after);
	CHECK_EQ(after.answers - before.answers, machine_nr_cpus() - 1); /* the old ranges are not looked at any more */
	CHECK_EQ(xp_text_poke(&poke, NULL), -XP_E_NOT_TEXT);
	CHECK_EQ(xp_bare_text_set(both, 2), 0);
	CHECK_EQ(xp_text_poke(&poke, NULL), 0);
	CHECK_EQ(xp_bare_text_set(image, machine_bare.nr_text), 0);
	xp_text_free(&text);
}

/* ---- interrupt stacks ---- */

static void refuse_gate(unsigned vector, unsigned ist)
{
	unsigned before = machine_set_stack(vector, ist);

	CHECK_EQ(xp_static_branch_enable(&key), -XP_E_NO_METHOD);
	machine_set_stack(vector, before);
	CHECK(!site());
}

XP_TEST(gates_without_stacks_are_refused)
{
	CHECK_EQ(xp_set_policy(XP_POLICY_BREAKPOINT), 0);
	refuse_gate(3, 0);
	refuse_gate(2, 0);
	refuse_gate(18, 0);
	refuse_gate(3, machine_set_stack(2, 2)); /* that of NMI */
	refuse_gate(18, 1);
	CHECK_EQ(xp_static_branch_enable(&key), 0);
	CHECK(site());
	CHECK_EQ(xp_static_branch_disable(&key), 0);
}

/* ---- an interrupt that came in the middle of a commit of its own processor ---- */

static int error_inside;
static unsigned held, held_inside, holds;

static void hold(void)
{
	held++;
	holds++;
}

static void let_go(void)
{
	held--;
}

static void patch_again(int point)
{
	if (point == XP__POINT_STORED) {
		error_inside = xp_static_branch_enable(&other_key);
		held_inside = held;
	}
}

XP_TEST(own_commit_is_refused)
{
	CHECK_EQ(xp_set_policy(XP_POLICY_AUTO), 0);
	machine_bare.preempt_disable = hold;
	machine_bare.preempt_enable = let_go;
	machine_on_inject = patch_again;
	CHECK_EQ(xp_static_branch_enable(&key), 0);
	machine_on_inject = NULL;
	machine_bare.preempt_disable = machine_bare.preempt_enable = NULL;
	CHECK_EQ(error_inside, -XP_E_REENTRANT);
	CHECK_EQ(held_inside, 1);
	CHECK_EQ(held, 0); /* the one that was refused included */
	CHECK_EQ(holds, 2);
	CHECK(!other_site());
	CHECK_EQ(xp_static_branch_disable(&key), 0);
}

struct xp_test_state xp_test_state;
int main(int argc, char **argv)
{
	return xp_test_main(argc, argv);
}
