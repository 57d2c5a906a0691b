// SPDX-License-Identifier: MIT
/*
 * Static switches: one of five choices and one of thirty (two asms where GCC compiles it), with several sites each,
 * three threads executing, one choosing, under each policy and writer. Each site is the choice before or the new one
 * while a commit runs, and never a third.
 */
#include "xp_torture.h"

#include <crosspatch/static_switch.h>

#define FIVE 5
#define THIRTY 30

static XP_DEFINE_STATIC_SWITCH(five, FIVE, 0);
static XP_DEFINE_STATIC_SWITCH(thirty, THIRTY, 0);

static uint32_t epoch;
static unsigned wrong;

/* A block of its own for each choice, so long that the displacements of two differ in more than a byte. */
#define CASE(i)                                                                                                        \
	case i:                                                                                                        \
		__asm__ volatile(".skip 260, 0x90" : : "i"(i) : "memory");                                             \
		return i;

__attribute__((noinline)) static unsigned pick_five(void)
{
	switch (xp_static_switch(&five)) {
		CASE(0)
		CASE(1)
		CASE(2)
		CASE(3)
		CASE(4)
	}
	return FIVE;
}

/* As a value, without blocks of the program's own. */
__attribute__((noinline)) static unsigned value_of_five(void)
{
	return (unsigned)xp_static_switch(&five);
}

__attribute__((noinline)) static unsigned pick_thirty(void)
{
	switch (xp_static_switch(&thirty)) {
		CASE(0)
		CASE(1)
		CASE(7)
		CASE(23)
		CASE(24)
		CASE(29)
	default:
		return THIRTY;
	}
}

static const unsigned of_thirty[] = {0, 1, 7, 23, 24, 29};
#define NR_OF_THIRTY (sizeof(of_thirty) / sizeof(of_thirty[0]))

static void look(unsigned (*site)(void), const unsigned *choices, unsigned nr)
{
	uint32_t before = xp_epoch_read(&epoch);
	unsigned found = site(), i = 0;
	uint32_t after = xp_epoch_read(&epoch);

	while (choices && i < nr && choices[i] != found)
		i++;
	if (!xp_epoch_allows(before, after, nr, choices ? i : found))
		__atomic_add_fetch(&wrong, 1, __ATOMIC_RELAXED);
}

static uint64_t execute(void *context, uint64_t *random)
{
	(void)context;
	(void)random;
	look(pick_five, NULL, FIVE);
	look(value_of_five, NULL, FIVE);
	look(pick_thirty, of_thirty, NR_OF_THIRTY);
	return 3;
}

/* One commit for both. */
static int patch(void *context, uint64_t *random, struct xp_diag *diag)
{
	uint32_t state = xp_epoch_state(epoch) + 1;
	struct xp_batch *batch = xp_batch_new();
	int error = batch ? 0 : -XP_E_WEDGED;

	(void)context;
	(void)random;
	error = error ? error : xp_batch_add_switch(batch, &five, (int)(state % FIVE));
	error = error ? error : xp_batch_add_switch(batch, &thirty, (int)of_thirty[state % NR_OF_THIRTY]);
	xp_epoch_begin(&epoch);
	error = error ? error : xp_batch_commit(batch, diag);
	if (!error) {
		xp_epoch_end(&epoch);
		CHECK_EQ(xp_static_switch_choice(&five), state % FIVE);
	}
	xp_batch_free(batch);
	return error;
}

static void run(enum xp_policy policy, enum xp_writer writer, enum xp_sync sync, enum xp_torture_traps traps)
{
	struct xp_torture torture = {.execute = execute, .patch = patch, .nr_threads = 3, .traps = traps};

	CHECK_EQ(xp_module_error(), 0);
	if (!xp_torture_set(policy, writer, sync))
		return;
	CHECK_EQ(xp_static_switch_set(&five, 0), 0);
	CHECK_EQ(xp_static_switch_set(&thirty, 0), 0);
	epoch = 0;
	xp_torture_run(&torture);
	CHECK_EQ(__atomic_load_n(&wrong, __ATOMIC_RELAXED), 0);
}

XP_TORTURE_CASE(auto_procmem, AUTO, PROCMEM, MEMBARRIER, XP_TRAPS_SOME)
XP_TORTURE_CASE(auto_mprotect, AUTO, MPROTECT, MEMBARRIER, XP_TRAPS_NONE)
XP_TORTURE_CASE(auto_mprotect_signal, AUTO, MPROTECT, SIGNAL, XP_TRAPS_NONE)
XP_TORTURE_CASE(breakpoint_mprotect, BREAKPOINT, MPROTECT, MEMBARRIER, XP_TRAPS_SOME)
XP_TORTURE_CASE(quiesce, QUIESCE, PROCMEM, SIGNAL, XP_TRAPS_NONE)
XP_TORTURE_CASE(auto_pkey, AUTO, PKEY, MEMBARRIER, XP_TRAPS_NONE)

XP_TORTURE_MAIN()
