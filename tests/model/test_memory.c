// SPDX-License-Identifier: MIT
/*
 * Commits that there is too little memory for: refused before anything is touched, and xp_memory_needed() says how much would
 * do. With just that much they are made.
 */
#include "recorder.h"
#include "xp_test.h"

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

XP_TEST_MAIN()
