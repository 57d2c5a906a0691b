// SPDX-License-Identifier: MIT
/*
 * Keys, raw pokes of every form, a call, a gate, a switch and an immediate value in one commit: while it runs each site is old or
 * new, after it all are new. The number of syncs is that of the slowest method, whatever the number of sites.
 */
#define XP_SITES_KEY sites_key
#include "xp_pokes.h"
#include "xp_sites.h"

#include <crosspatch/gate.h>
#include <crosspatch/imv.h>
#include <crosspatch/static_call.h>
#include <crosspatch/static_switch.h>

XP_DEFINE_STATIC_KEY_TRUE(other_key);
/* In its odd states all bytes differ from those of the even ones. */
#define VALUE_EVEN 0x11223344
#define VALUE_ODD 0x55667708
XP_DEFINE_IMV(int, value, VALUE_EVEN);

static __attribute__((noinline)) int even(void)
{
	return 0;
}

static __attribute__((noinline)) int odd(void)
{
	return 1;
}

XP_DEFINE_STATIC_CALL(call, even);
XP_DEFINE_STATIC_SWITCH(choice, 2, 0);
XP_DECLARE_GATE_FALLBACK(int, gate, (void), even); /* provided in the odd states */

#define NR_OTHERS 5 /* a key, a value, a switch, a gate, with one site each; a trampoline */

static struct poke_site pokes[NR_POKES];
static struct xp_batch *batch;
static unsigned wrong, max_syncs;

static __attribute__((noinline)) bool other_site(void)
{
	return xp_static_branch_likely(&other_key);
}

static __attribute__((noinline)) int value_site(void)
{
	return xp_imv_read(value);
}

static __attribute__((noinline)) int call_site(void)
{
	return xp_static_call(call)();
}

/* Something to do after it: it is a call. */
static __attribute__((noinline)) int gate_site(void)
{
	int found = xp_gate(gate)();

	__asm__ volatile("" : "+r"(found));
	return found;
}

static __attribute__((noinline)) int choice_site(void)
{
	switch (xp_static_switch(&choice)) {
	case 0:
		return 0;
	default:
		return 1;
	}
}

/* Whether a site that says which state it is in says what it may. */
static bool is_wrong(int (*site)(void))
{
	uint32_t before = xp_epoch_read(&xp_sites_epoch);
	int found = site();

	return !xp_epoch_allows(before, xp_epoch_read(&xp_sites_epoch), 2, (uint32_t)found);
}

/* The sites of one epoch: on in its odd states, as the key of xp_sites.h; other_key is off then. */
static uint64_t execute(void *context, uint64_t *random)
{
	unsigned nr_wrong = poke_sites_execute(pokes, random);
	uint32_t before, after;
	int found;
	bool on;

	before = xp_epoch_read(&xp_sites_epoch);
	on = other_site();
	after = xp_epoch_read(&xp_sites_epoch);
	nr_wrong += !xp_epoch_allows(before, after, 2, !on);
	before = xp_epoch_read(&xp_sites_epoch);
	found = value_site();
	after = xp_epoch_read(&xp_sites_epoch);
	nr_wrong +=
		(found != VALUE_EVEN && found != VALUE_ODD) || !xp_epoch_allows(before, after, 2, found == VALUE_ODD);
	nr_wrong += (unsigned)is_wrong(call_site) + (unsigned)is_wrong(choice_site) + (unsigned)is_wrong(gate_site);
	if (nr_wrong)
		__atomic_add_fetch(&wrong, nr_wrong, __ATOMIC_RELAXED);
	return NR_POKES + 5 + xp_sites_execute(context, random);
}

static int patch(void *context, uint64_t *random, struct xp_diag *diag)
{
	uint32_t state = xp_epoch_state(xp_sites_epoch);
	bool on = state % 2 == 0;
	struct xp_stats before, after;
	int error = 0;

	(void)context;
	/* In an order of its own each time: the library sorts. */
	for (unsigned n = NR_POKES, at = (unsigned)xp_test_random(random) % NR_POKES; n-- > 0; at += 5) {
		struct xp_poke poke = poke_site_step(&pokes[at % NR_POKES], state);

		error = error ? error : xp_batch_add_poke(batch, &poke);
	}
	/* Wished off and on: the last wish counts. */
	error = error ? error : xp_batch_add_key(batch, &sites_key.key, !on);
	error = error ? error : xp_batch_add_key(batch, &other_key.key, !on);
	error = error ? error : xp_batch_add_key(batch, &sites_key.key, on);
	error = error ? error : xp_batch_add_imv(batch, value, on ? VALUE_ODD : VALUE_EVEN);
	error = error ? error : xp_batch_add_call(batch, call, on ? odd : even);
	error = error ? error : xp_batch_add_switch(batch, &choice, on);
	error = error ? error : xp_batch_add_gate(batch, "gate", on ? odd : NULL);
	if (error)
		return error;
	xp_stats_read(&before);
	xp_epoch_begin(&xp_sites_epoch);
	error = xp_batch_commit(batch, diag);
	if (error)
		return error;
	xp_epoch_end(&xp_sites_epoch);
	xp_stats_read(&after);
	CHECK_EQ(after.sites - before.sites, NR_POKES + XP_NR_SITES + NR_OTHERS);
	if (after.syncs - before.syncs > max_syncs)
		max_syncs = (unsigned)(after.syncs - before.syncs);
	CHECK_EQ(xp_static_key_enabled(&sites_key), on);
	CHECK_EQ(xp_static_key_enabled(&other_key), !on);
	return 0;
}

static void run(enum xp_policy policy, enum xp_writer writer, enum xp_sync sync)
{
	/* As in pokes.c: a rendezvous with more threads than processors takes long. */
	struct xp_torture torture = {
		.execute = execute,
		.patch = patch,
		.nr_threads = sync == XP_SYNC_SIGNAL ? 1 : 3,
		.traps = XP_TRAPS_SOME,
	};
	struct xp_text text;

	_Static_assert(NR_POKES % 5 != 0, "the stride visits every poke");
	if (!xp_torture_set(policy, writer, sync))
		return;
	REQUIRE(poke_sites_make(&text, pokes, &xp_sites_epoch));
	batch = xp_batch_new();
	REQUIRE(batch != NULL);
	max_syncs = 0;
	/* Fresh text is in state 0; so must be the keys. */
	CHECK_EQ(xp_static_branch_disable(&sites_key), 0);
	CHECK_EQ(xp_static_branch_enable(&other_key), 0);
	CHECK_EQ(xp_imv_set(value, VALUE_EVEN), 0);
	CHECK_EQ(xp_static_call_update(call, even), 0);
	CHECK_EQ(xp_static_switch_set(&choice, 0), 0);
	/* Executed, the gate's site is known, and changes in every commit. */
	CHECK(xp_batch_add_gate(batch, "gate", odd) == 0 && xp_batch_commit(batch, NULL) == 0);
	CHECK_EQ(gate_site(), 1);
	CHECK(xp_batch_add_gate(batch, "gate", NULL) == 0 && xp_batch_commit(batch, NULL) == 0);
	xp_sites_epoch = 0;
	xp_torture_run(&torture);
	CHECK_EQ(max_syncs, 3);
	CHECK_EQ(__atomic_load_n(&wrong, __ATOMIC_RELAXED), 0);
	xp_sites_check_right();
	xp_batch_free(batch);
	xp_text_free(&text);
}

XP_TORTURE_CASE(auto_procmem, AUTO, PROCMEM, MEMBARRIER)
XP_TORTURE_CASE(auto_mprotect_signal, AUTO, MPROTECT, SIGNAL)
XP_TORTURE_CASE(breakpoint_procmem, BREAKPOINT, PROCMEM, MEMBARRIER)
XP_TORTURE_CASE(auto_pkey, AUTO, PKEY, MEMBARRIER)

XP_TORTURE_MAIN()
