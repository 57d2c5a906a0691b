// SPDX-License-Identifier: MIT
/*
 * Commits that there is too little memory for: refused before anything is touched, and xp_memory_needed() says how much would
 * do. With just that much they are made.
 */
#include "recorder.h"
#include "xp_test.h"

#include "core/reclaim.h"

#include <crosspatch/function.h>
#include <crosspatch/gate.h>
#include <errno.h>

enum { NR = 6, SITE = 0x41, STRIDE = 64, TARGET = 0x4000 };

static const uint8_t nop[5] = {0x0f, 0x1f, 0x44, 0x00, 0x00}, jmp[5] = {0xe9, 0x11, 0x22, 0x33, 0x04};
static uint8_t before[REC_TEXT_SIZE];
static struct xp_module module;

static void begin(unsigned kind, const void *first, const void *end)
{
	module = (struct xp_module){.abi = XP_MODULE_ABI, .nr_tables = XP_NR_SITE_KINDS};
	module.tables[kind] = (struct xp_site_table){first, end};
	CHECK_EQ(xp_module_register(&module), 0);
}

/*
 * Makes the change with as little memory as it takes: each block that is refused changes nothing, and then there may be as
 * much as it needed. @change returns its error. Some commits take one block more for each object, so a few steps are right.
 */
static void grows(int (*change)(void))
{
	enum { STEPS = 4 };
	size_t most = 64;
	int error = -ENOMEM;

	memcpy(before, rec_text, sizeof(before));
	for (int step = 0; step < STEPS && error == -ENOMEM; step++) {
		rec_bound(most);
		rec_forget();
		error = change();
		if (error != -ENOMEM)
			break;
		CHECK_EQ(rec.calls[REC_WRITE] + rec.calls[REC_SYNC] + rec.calls[REC_PARK], 0);
		CHECK_MEM(rec_text, before, sizeof(before));
		CHECK(xp_memory_needed() > most);
		most = xp_memory_needed();
	}
	CHECK_EQ(error, 0);
	CHECK(most > 64 + NR * sizeof(void *));
	CHECK(rec.calls[REC_WRITE] > 0);
	CHECK_EQ(xp_state(), XP_STATE_READY);
	rec_bound(0);
}

/* ---- pokes: in ascending order, in none, and parked ---- */

static struct xp_batch *batch;

static int commit(void)
{
	return xp_batch_commit(batch, NULL);
}

static void pokes(enum xp_policy policy, const size_t *order)
{
	rec_start();
	CHECK_EQ(xp_set_policy(policy), 0);
	batch = xp_batch_new();
	REQUIRE(batch);
	for (unsigned i = 0; i < NR; i++) {
		struct xp_poke poke = {
			.addr = rec_text + SITE + order[i] * STRIDE,
			.expect = nop,
			.replace = jmp,
			.len = 5,
		};

		rec_put(SITE + order[i] * STRIDE, nop, 5);
		CHECK_EQ(xp_batch_add_poke(batch, &poke), 0);
	}
	grows(commit);
	for (unsigned i = 0; i < NR; i++)
		CHECK_MEM(rec_text + SITE + order[i] * STRIDE, jmp, 5);
	xp_batch_free(batch);
}

XP_TEST(pokes_in_any_order)
{
	static const size_t ascending[NR] = {0, 1, 2, 3, 4, 5}, mixed[NR] = {5, 1, 4, 0, 3, 2};

	pokes(XP_POLICY_BREAKPOINT, ascending);
	pokes(XP_POLICY_BREAKPOINT, mixed);
	pokes(XP_POLICY_QUIESCE, mixed);
}

/* ---- objects ---- */

static struct xp_static_key key;

static int enable(void)
{
	int error = xp_static_key_enable(&key);

	CHECK_EQ(key.count, error == 0);
	return error;
}

XP_TEST(keys)
{
	static struct xp_branch_site sites[NR];

	rec_start();
	key = (struct xp_static_key){.object = {.name = "key"}};
	for (unsigned i = 0; i < NR; i++)
		rec_branch(&sites[i], SITE + i * STRIDE, TARGET, &key, i % 2 ? XP_SITE_LIKELY : 0);
	begin(XP_SITE_BRANCH, sites, sites + NR);
	grows(enable);
	CHECK(xp_memory_needed() < 1024);
	rec_bound(xp_memory_needed());
	CHECK_EQ(xp_static_key_disable(&key), 0);
	rec_bound(xp_memory_needed() - 1);
	CHECK_EQ(xp_static_key_enable(&key), -ENOMEM);
	CHECK_EQ(key.count, 0);
	rec_bound(0);
	CHECK_EQ(xp_module_unregister(&module), 0);
}

/* A commit that left a block too small for this one: the port is asked once more when that has been given back. */
XP_TEST(what_is_kept_is_given_back_first)
{
	static struct xp_branch_site sites[NR];

	rec_start();
	key = (struct xp_static_key){.object = {.name = "key"}};
	for (unsigned i = 0; i < NR; i++)
		rec_branch(&sites[i], SITE + i * STRIDE, TARGET, &key, 0);
	begin(XP_SITE_BRANCH, sites, sites + NR);
	rec_bound(1 << 20);
	rec_forget();
	rec_fail(REC_ALLOC, 1, 1, -ENOMEM);
	CHECK_EQ(xp_static_key_enable(&key), 0);
	rec_heal();
	CHECK_EQ(key.count, 1);
	rec_bound(0);
	CHECK_EQ(xp_module_unregister(&module), 0);
}

static struct xp_static_call call;

static int update(void)
{
	xp__call_func *func = (xp__call_func *)(uintptr_t)(rec_text + 0x23456);
	int error = xp__static_call_update(&call, func);

	CHECK_EQ(call.func == func, error == 0);
	return error;
}

XP_TEST(calls)
{
	static const size_t at[] = {0x80, 0x200, 0x20c, 0x218, 0x220};
	static struct xp_call_site sites[5];

	rec_start();
	rec_call(&call, &sites[0], at[0], 0x100, (xp__call_func *)(uintptr_t)(rec_text + 0x1000));
	for (unsigned i = 1; i < 5; i++)
		rec_call_site(&sites[i], at[i], &call, i == 4 ? XP_SITE_TAIL : 0);
	begin(XP_SITE_CALL, sites, sites + 5);
	grows(update);
	CHECK_EQ(xp_module_unregister(&module), 0);
}

static struct xp_static_switch three;
static uint32_t variable;
static struct xp_imv value = {.object.name = "value", .value = &variable, .size = sizeof(variable)};

static int choose(void)
{
	int error = xp__static_switch_set(&three, 2);

	CHECK_EQ(three.choice, error ? 0 : 2);
	return error;
}

static int set(void)
{
	const uint32_t new = 0x11223344;
	int error = xp__imv_set(&value, &new, sizeof(new));

	CHECK_EQ(variable, error ? 0 : new);
	return error;
}

static struct xp_switch_site switches[NR];
static struct xp_imv_site movs[NR];

static void make_sites(void)
{
	static const uint8_t mov[5] = {0xb8};
	static int32_t targets[NR][5];

	rec_start();
	three = (struct xp_static_switch){.object = {.name = "three"}, .nr = 3};
	variable = 0;
	value.object.groups = NULL;
	for (unsigned i = 0; i < NR; i++) {
		rec_targets(targets[i], 3, 0, 3, TARGET, 0x111);
		rec_switch(&switches[i], SITE + i * STRIDE, &three, targets[i] + 1);
		rec_mov(&movs[i], 0x400 + i * 16 + i % 8, mov, sizeof(mov), &value);
	}
}

XP_TEST(switches_and_values)
{
	make_sites();
	begin(XP_SITE_SWITCH, switches, switches + NR);
	grows(choose);
	CHECK_EQ(xp_module_unregister(&module), 0);
	begin(XP_SITE_IMV, movs, movs + NR);
	grows(set);
	CHECK_EQ(xp_module_unregister(&module), 0);
}

static int come(void)
{
	return xp_module_register(&module);
}

/* Its sites are not as their objects are by now. */
XP_TEST(modules)
{
	make_sites();
	three.choice = 1;
	variable = 7;
	module = (struct xp_module){.abi = XP_MODULE_ABI, .nr_tables = XP_NR_SITE_KINDS};
	module.tables[XP_SITE_SWITCH] = (struct xp_site_table){switches, switches + NR};
	module.tables[XP_SITE_IMV] = (struct xp_site_table){movs, movs + NR};
	grows(come);
	CHECK_EQ(xp_module_unregister(&module), 0);
}

/* ---- each block is asked for again, and its refusal is told ---- */

enum { UNTOLD = 12345 };

struct refusal {
	void (*make)(void); /* the text */
	int (*change)(void);
	unsigned nth, count; /* blocks that the port refuses */
	bool *struck;
};

/* Once refused, a block is asked for again, and then is there; refused twice, its size is told. */
static void refuse(const void *argument)
{
	const struct refusal *refusal = argument;
	int error;

	rec_start();
	refusal->make();
	rec_bound(1 << 20);
	CHECK_EQ(rec_port.lock(), 0);
	rec_fail(REC_ALLOC, 1, REC_FOREVER, -ENOMEM);
	CHECK(xp__reclaim_port(UNTOLD) == NULL);
	rec_heal();
	rec_port.unlock();
	CHECK_EQ(xp_memory_needed(), UNTOLD);
	rec_forget();
	rec_fail(REC_ALLOC, refusal->nth, refusal->count, -ENOMEM);
	error = refusal->change();
	*refusal->struck = rec.fault[0].hits == refusal->count;
	if (error != -ENOMEM || refusal->count == 1)
		CHECK_EQ(error, 0);
	if (*refusal->struck && refusal->count > 1)
		CHECK(xp_memory_needed() != UNTOLD);
}

static void each_block(void (*make)(void), int (*change)(void), unsigned at_least)
{
	struct refusal refusal = {.make = make, .change = change, .struck = rec_shared(sizeof(bool))};
	unsigned nth = 0;

	do {
		refusal.nth = ++nth;
		refusal.count = 2;
		rec_isolated(refuse, &refusal);
		refusal.count = 1;
		rec_isolated(refuse, &refusal);
	} while (*refusal.struck);
	CHECK(nth > at_least);
}

static int make_batch(void)
{
	struct xp_batch *new = xp_batch_new();

	if (new == NULL)
		return -ENOMEM;
	xp_batch_free(new);
	return 0;
}

static const uint8_t lock_add[5] = {0xf0, 0x83, 0x47, 0x11, 0x22};

static int poke_out_of_line(void)
{
	struct xp_poke poke = {
		.addr = rec_text + SITE,
		.expect = nop,
		.replace = lock_add,
		.len = 5,
		.resume = XP_RESUME_BYPASS,
	};

	return xp_text_poke(&poke, NULL);
}

static void make_nothing(void) {}

static void make_nop(void)
{
	rec.can &= ~(unsigned)XP_NEED_SINGLE;
	rec_put(SITE, nop, sizeof(nop));
}

/* Not all in ascending order. */
static void make_module(void)
{
	make_sites();
	rec_mov(&movs[0], 0x700, (const uint8_t[5]){0xb8}, 5, &value);
	module = (struct xp_module){.abi = XP_MODULE_ABI, .nr_tables = XP_NR_SITE_KINDS};
	module.tables[XP_SITE_SWITCH] = (struct xp_site_table){switches, switches + NR};
	module.tables[XP_SITE_IMV] = (struct xp_site_table){movs, movs + NR};
}

XP_TEST(blocks_of_modules_batches_and_slots)
{
	each_block(make_module, come, 2);
	each_block(make_nothing, make_batch, 1);
	each_block(make_nop, poke_out_of_line, 2);
}

static int prepare_all(void)
{
	int nr = xp_function_prepare("*", NULL);

	return nr == 1 ? 0 : nr;
}

static int wait_for_calls(void)
{
	xp__any_function *const fn = (xp__any_function *)(uintptr_t)(rec_text + SITE);

	return xp_function_quiesce(&fn, 1, NULL);
}

static void make_function(void)
{
	static const uint8_t nops[5] = {0x90, 0x90, 0x90, 0x90, 0x90};
	static struct xp_entry_site entry;

	rec_put(SITE, nops, sizeof(nops));
	entry.code = (int32_t)((uintptr_t)(rec_text + SITE) - (uintptr_t)&entry.code);
	entry.size = STRIDE << 8;
	begin(XP_SITE_ENTRY, &entry, &entry + 1);
}

XP_TEST(blocks_of_functions)
{
	each_block(make_function, prepare_all, 2);
	each_block(make_function, wait_for_calls, 1);
}

XP_TEST_MAIN()
