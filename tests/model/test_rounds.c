// SPDX-License-Identifier: MIT
/*
 * Commits that there is not memory enough for, made in rounds: nothing changes if any round must be refused, what was
 * changed is taken back if a later one fails, and what an object says of itself follows the last. Faults at every call,
 * and a bystander, are test_fault.c's and test_bystander.c's: scenarios "rounds, …".
 */
#include "recorder.h"
#include "xp_test.h"

#include <crosspatch/gate.h>
#include <errno.h>

enum { NR = 6, SITE = 0x41, STRIDE = 64, TARGET = 0x4000 };

static const uint8_t nop[5] = {0x0f, 0x1f, 0x44, 0x00, 0x00}, nops[5] = {0x90, 0x90, 0x90, 0x90, 0x90},
		     jmp[5] = {0xe9, 0x11, 0x22, 0x33, 0x04};
static const uint8_t add[5] = {0x05, 0x11, 0x22, 0x33, 0x04}; /* the engine cannot emulate it */
static struct xp_diag diag;

static void start(const uint8_t *old)
{
	rec_start();
	for (unsigned i = 0; i < NR; i++)
		rec_put(SITE + i * STRIDE, old, 5);
}

/* In rounds of @round sites, one batch with a poke of each site at @offsets. */
static int commit(const size_t *offsets, unsigned nr, unsigned round, const uint8_t *old, enum xp_resume resume)
{
	struct xp_batch *batch = xp_batch_new();
	int error = batch ? 0 : -ENOMEM;

	for (unsigned i = 0; i < nr && !error; i++) {
		struct xp_poke poke = {
			.addr = rec_text + offsets[i],
			.expect = old,
			.replace = resume == XP_RESUME_BYPASS ? add : jmp,
			.len = 5,
			.resume = resume,
		};

		error = xp_batch_add_poke(batch, &poke);
	}
	rec_bound(round, round + 2);
	rec_forget();
	error = error ? error : xp_batch_commit(batch, &diag);
	rec_bound(0, 0);
	xp_batch_free(batch);
	return error;
}

static void check_untouched(int error, int expected, size_t site)
{
	CHECK_EQ(error, expected);
	CHECK_EQ(diag.error, expected);
	CHECK_EQ(diag.phase, XP_PHASE_VALIDATE);
	if (site)
		CHECK_EQ((const uint8_t *)diag.site - rec_text, site);
	CHECK_EQ(rec.calls[REC_WRITE] + rec.calls[REC_SYNC] + rec.calls[REC_PARK], 0);
	CHECK_EQ(xp_state(), XP_STATE_READY);
}

static const size_t ascending[NR] = {SITE, SITE + 64, SITE + 128, SITE + 192, SITE + 256, SITE + 320};

XP_TEST(every_size_of_a_round)
{
	for (unsigned round = 1; round < NR - 1; round++) {
		struct xp_stats before, after;

		start(nop);
		CHECK_EQ(xp_set_policy(XP_POLICY_BREAKPOINT), 0);
		xp_stats_read(&before);
		CHECK_EQ(commit(ascending, NR, round, nop, XP_RESUME_EMULATE), 0);
		xp_stats_read(&after);
		for (unsigned i = 0; i < NR; i++)
			CHECK_MEM(rec_text + ascending[i], jmp, 5);
		CHECK_EQ(after.sites - before.sites, NR);
		CHECK(after.commits - before.commits > 1);
		CHECK_EQ(rec.calls[REC_SYNC], 3 * (after.commits - before.commits));
		CHECK_EQ(rec.calls[REC_PREPARE], 1);
	}
}

XP_TEST(a_bad_site_in_any_round_changes_nothing)
{
	for (unsigned i = 0; i < NR; i++) {
		start(nop);
		rec_put(ascending[i], nops, 1);
		check_untouched(commit(ascending, NR, 1, nop, XP_RESUME_EMULATE), -XP_E_MISMATCH, ascending[i]);
		CHECK_EQ(diag.found[0], 0x90);
	}
}

/* Of what is prefixes and one nop, five bytes may be taken anywhere. */
XP_TEST(sites_of_two_rounds_overlap)
{
	static const size_t overlapping[NR] = {SITE + 4, SITE + 64, SITE + 128, SITE + 192, SITE + 256, SITE};
	static const size_t twice[NR] = {SITE + 64, SITE + 128, SITE + 192, SITE + 256, SITE + 320, SITE + 128};

	for (unsigned round = 1; round < NR; round++) {
		start(nop);
		CHECK_EQ(xp_set_policy(XP_POLICY_EARLY), 0);
		memset(rec_text + SITE, 0x90, NR * STRIDE);
		check_untouched(commit(overlapping, NR, round, nops, XP_RESUME_EMULATE), -XP_E_OVERLAP, 0);
		check_untouched(commit(twice, NR, round, nops, XP_RESUME_EMULATE), -XP_E_OVERLAP, 0);
	}
}

/* The order alone is no reason. */
XP_TEST(sites_in_any_order)
{
	static const size_t mixed[NR] = {SITE + 320, SITE + 64, SITE + 256, SITE, SITE + 192, SITE + 128};

	for (unsigned round = 1; round < NR; round++) {
		start(nop);
		CHECK_EQ(commit(mixed, NR, round, nop, XP_RESUME_EMULATE), 0);
		for (unsigned i = 0; i < NR; i++)
			CHECK_MEM(rec_text + mixed[i], jmp, 5);
	}
}

/* Who rests between two new instructions could not be brought back; a copy out of line takes memory. */
XP_TEST(what_cannot_be_undone_is_refused)
{
	start(nops);
	CHECK_EQ(xp_set_policy(XP_POLICY_QUIESCE), 0);
	check_untouched(commit(ascending, NR, 2, nops, XP_RESUME_EMULATE), -ENOMEM, ascending[0]);
	CHECK(diag.detail != NULL);
	start(nop);
	CHECK_EQ(xp_set_policy(XP_POLICY_BREAKPOINT), 0);
	check_untouched(commit(ascending, NR, 2, nop, XP_RESUME_BYPASS), -ENOMEM, ascending[0]);
	CHECK_EQ(rec.calls[REC_EXEC_ALLOC], 0);
}

/* ---- objects: all are as before if a later round fails ---- */

static struct xp_module module;

static void begin(unsigned kind, const void *first, const void *end)
{
	module = (struct xp_module){.abi = XP_MODULE_ABI, .nr_tables = XP_NR_SITE_KINDS};
	module.tables[kind] = (struct xp_site_table){first, end};
	CHECK_EQ(xp_module_register(&module), 0);
	rec_forget();
}

/* The last write of @writes fails: round after round was complete by then. */
static void fail_last_write(unsigned writes)
{
	rec_forget();
	rec_fail(REC_WRITE, writes, 1, -EIO);
}

static struct xp_static_key key;
static int counts[4]; /* how often the key's count was 0, 1 after a step */

static void watch_count(const struct rec_step *step)
{
	if (step->op == REC_WRITE || step->op == REC_SYNC)
		counts[key.count]++;
}

XP_TEST(keys)
{
	static struct xp_branch_site sites[NR];
	uint8_t before[NR * STRIDE];

	rec_start();
	key = (struct xp_static_key){.object = {.name = "key"}};
	for (unsigned i = 0; i < NR; i++)
		rec_branch(&sites[i], SITE + i * STRIDE, TARGET, &key, i % 2 ? XP_SITE_LIKELY : 0);
	memcpy(before, rec_text + SITE, sizeof(before));
	begin(XP_SITE_BRANCH, sites, sites + NR);
	rec_bound(1, 2);
	memset(counts, 0, sizeof(counts));
	rec.step = watch_count;
	CHECK_EQ(xp_static_key_enable(&key), 0);
	rec.step = NULL;
	CHECK_EQ(counts[0], 2 * NR); /* a store and a sync in each round, to the end of the last one */
	CHECK_EQ(counts[1], 0);
	CHECK_EQ(key.count, 1);
	CHECK_EQ(xp_static_key_disable(&key), 0);
	CHECK_MEM(rec_text + SITE, before, sizeof(before));
	fail_last_write(NR);
	CHECK_EQ(xp_static_key_enable(&key), -EIO);
	rec_heal();
	CHECK_EQ(key.count, 0);
	CHECK_MEM(rec_text + SITE, before, sizeof(before));
	CHECK_EQ(xp_static_key_inc(&key), 0);
	CHECK_EQ(key.count, 1);
	CHECK_EQ(xp_static_key_dec(&key), 0);
	rec_bound(0, 0);
	CHECK_EQ(xp_module_unregister(&module), 0);
}

static struct xp_static_call call;

static void check_calls(const size_t *sites, unsigned nr, uintptr_t to)
{
	for (unsigned i = 0; i < nr; i++) {
		uintptr_t found = rec_goes_to(sites[i]);

		CHECK_EQ(found == (uintptr_t)rec_text + 0x80 ? rec_goes_to(0x80) : found, to);
	}
}

XP_TEST(calls)
{
	/* Modulo 8: the displacement of the second lies in two quadwords, that of the others in one. */
	static const size_t at[] = {0x80, 0x200, 0x20c, 0x218, 0x220};
	static struct xp_call_site sites[5];
	xp__call_func *a = (xp__call_func *)(uintptr_t)(rec_text + 0x1000);
	xp__call_func *b = (xp__call_func *)(uintptr_t)(rec_text + 0x23456);
	xp__call_func *c = (xp__call_func *)(uintptr_t)(rec_text + 0x34567);
	unsigned writes;

	rec_start();
	rec_call(&call, &sites[0], at[0], 0x100, a);
	for (unsigned i = 1; i < 5; i++)
		rec_call_site(&sites[i], at[i], &call, i == 4 ? XP_SITE_TAIL : 0);
	begin(XP_SITE_CALL, sites, sites + 5);
	for (unsigned round = 1; round < 4; round++) {
		rec_bound(round, round + 3);
		/* From the trampoline, and from direct. */
		rec_forget();
		CHECK_EQ(xp__static_call_update(&call, b), 0);
		check_calls(at, 5, (uintptr_t)b);
		writes = rec.calls[REC_WRITE];
		for (unsigned nth = 1; nth <= writes; nth++) {
			rec_forget();
			rec_fail(REC_WRITE, nth, 1, -EIO);
			CHECK_EQ(xp__static_call_update(&call, c), -EIO);
			rec_heal();
			CHECK_EQ(xp_state(), XP_STATE_READY);
			CHECK(call.func == b);
			check_calls(at, 5, (uintptr_t)b);
		}
		CHECK_EQ(xp__static_call_update(&call, c), 0);
		check_calls(at, 5, (uintptr_t)c);
		rec_bound(0, 0);
	}
#ifdef __x86_64__
	/* The word beside the trampoline would have to change. */
	rec_bound(2, 5);
	rec_forget();
	CHECK_EQ(xp__static_call_update(&call, (xp__call_func *)((uintptr_t)rec_text + (1ull << 40))), -ENOMEM);
	CHECK_EQ(rec.calls[REC_WRITE], 0);
	check_calls(at, 5, (uintptr_t)c);
	rec_bound(0, 0);
#endif
	CHECK_EQ(xp_module_unregister(&module), 0);
}

XP_TEST(first_update_of_a_call_is_undone)
{
	static const size_t at[] = {0x80, 0x200, 0x208};
	static struct xp_call_site sites[3];
	xp__call_func *a = (xp__call_func *)(uintptr_t)(rec_text + 0x1000);
	xp__call_func *b = (xp__call_func *)(uintptr_t)(rec_text + 0x23456);

	rec_start();
	rec_call(&call, &sites[0], at[0], 0x100, a);
	rec_call_site(&sites[1], at[1], &call, 0);
	rec_call_site(&sites[2], at[2], &call, 0);
	begin(XP_SITE_CALL, sites, sites + 3);
	rec_bound(1, 4);
	for (unsigned nth = 1; nth <= 3; nth++) {
		rec_forget();
		rec_fail(REC_WRITE, nth, 1, -EIO);
		CHECK_EQ(xp__static_call_update(&call, b), -EIO);
		rec_heal();
		check_calls(at, 3, (uintptr_t)a);
		CHECK_EQ(rec_goes_to(at[1]), (uintptr_t)rec_text + at[0]);
	}
	CHECK_EQ(xp__static_call_update(&call, b), 0);
	check_calls(at, 3, (uintptr_t)b);
	rec_bound(0, 0);
	CHECK_EQ(xp_module_unregister(&module), 0);
}

XP_TEST(switches)
{
	static struct xp_static_switch three;
	static struct xp_switch_site sites[NR];
	static int32_t targets[NR][5];
	uint8_t before[NR * STRIDE];
	unsigned writes;

	rec_start();
	three = (struct xp_static_switch){.object = {.name = "three"}, .nr = 3};
	for (unsigned i = 0; i < NR; i++) {
		rec_targets(targets[i], 3, 0, 3, TARGET, 0x111);
		rec_switch(&sites[i], SITE + i * STRIDE, &three, targets[i] + 1);
	}
	begin(XP_SITE_SWITCH, sites, sites + NR);
	rec_bound(2, 4);
	CHECK_EQ(xp__static_switch_set(&three, 2), 0);
	writes = rec.calls[REC_WRITE];
	memcpy(before, rec_text + SITE, sizeof(before));
	for (unsigned nth = 1; nth <= writes; nth++) {
		rec_forget();
		rec_fail(REC_WRITE, nth, 1, -EIO);
		CHECK_EQ(xp__static_switch_set(&three, 1), -EIO);
		rec_heal();
		CHECK_EQ(three.choice, 2);
		CHECK_MEM(rec_text + SITE, before, sizeof(before));
	}
	CHECK_EQ(xp__static_switch_set(&three, 1), 0);
	CHECK_EQ(three.choice, 1);
	rec_bound(0, 0);
	CHECK_EQ(xp_module_unregister(&module), 0);
}

/* ---- a module that comes: some of its sites are as they have to be, as they were built ---- */

enum { MOVS_AT = 0x400, SWITCHES_AT = 0x600, NR_KINDS = 3 };

static uint32_t variable;
static struct xp_imv value = {.object.name = "value", .value = &variable, .size = sizeof(variable)};

static void comes(struct xp_static_switch *three)
{
	static const uint8_t mov[5] = {0xb8};
	static struct xp_branch_site branches[NR];
	static struct xp_imv_site movs[NR];
	static struct xp_switch_site switches[NR];
	static int32_t targets[NR][5];

	CHECK_EQ(xp_module_unregister(&module), 0); /* it waits, if it was refused */
	rec_start();
	key = (struct xp_static_key){.object = {.name = "key"}, .count = 1};
	*three = (struct xp_static_switch){.object = {.name = "three"}, .nr = 3, .choice = 2};
	variable = 0x11223344;
	value.object.uses = NULL;
	for (unsigned i = 0; i < NR; i++) {
		rec_branch(&branches[i], SITE + i * STRIDE, TARGET, &key,
			   (i % 2 ? XP_SITE_LIKELY : 0) | (i % 3 ? 0 : XP_SITE_TRUE));
		rec_mov(&movs[i], MOVS_AT + i * 16 + i % 8, mov, sizeof(mov), &value);
		rec_targets(targets[i], 3, 0, 3, TARGET, 0x111);
		rec_switch(&switches[i], SWITCHES_AT + i * 16 + i % 8, three, targets[i] + 1);
	}
	module = (struct xp_module){.abi = XP_MODULE_ABI, .nr_tables = XP_NR_SITE_KINDS};
	module.tables[XP_SITE_BRANCH] = (struct xp_site_table){branches, branches + NR};
	module.tables[XP_SITE_IMV] = (struct xp_site_table){movs, movs + NR};
	module.tables[XP_SITE_SWITCH] = (struct xp_site_table){switches, switches + NR};
}

/* The key and the switch change their sites, so the text was right: what stands there is looked at. */
static void check_came(struct xp_static_switch *three)
{
	for (unsigned i = 0; i < NR; i++)
		CHECK_MEM(rec_text + MOVS_AT + i * 16 + i % 8 + 1, &variable, sizeof(variable));
	CHECK_EQ(xp_static_key_disable(&key), 0);
	CHECK_EQ(xp__static_switch_set(three, 0), 0);
}

static void module_comes(bool alone)
{
	static struct xp_static_switch three;
	uint8_t before[SWITCHES_AT + 16 * NR];
	int error = -EIO;

	for (unsigned nth = 1; error && nth < 100; nth++) {
		comes(&three);
		memcpy(before, rec_text, sizeof(before));
		rec_bound(3, 5);
		rec_forget();
		if (!alone)
			rec_fail(REC_PREPARE, 1, 1, -XP_E_NOT_EARLY);
		rec_fail(REC_WRITE, nth, 1, -EIO);
		error = xp_module_register(&module);
		rec_heal();
		rec_bound(0, 0);
		CHECK_EQ(xp_state(), XP_STATE_READY);
		if (error) {
			CHECK_EQ(error, -EIO);
			CHECK_MEM(rec_text, before, sizeof(before));
		}
	}
	CHECK_EQ(error, 0);
	CHECK_EQ(rec.calls[REC_SYNC] == 0, alone);
	CHECK(rec.calls[REC_WRITE] > NR_KINDS);
	check_came(&three);
	CHECK_EQ(xp_module_unregister(&module), 0);
	/* What it was, now, nobody knows. */
	CHECK_EQ(xp_static_key_enable(&key), 0);
	rec_bound(3, 5);
	rec_forget();
	CHECK_EQ(xp_module_register(&module), -ENOMEM);
	CHECK_EQ(rec.calls[REC_WRITE], 0);
	CHECK_EQ(xp_module_unregister(&module), 0);
	rec_bound(0, 0);
}

XP_TEST(module_comes_while_others_run)
{
	module_comes(false);
}

XP_TEST(module_comes_while_nobody_runs)
{
	module_comes(true);
}

/* ---- gates: one that two shared objects call, and another; sites of all forms, the last one without a record ---- */

enum { STUB = 0x800, FALLBACK = 0x900, PROVIDER = 0x23456, OTHER = 0x34567, GATE_SITES = 8, UD2_LEN = 8 };

/* Modulo 8: 0, or where the displacement lies in two quadwords. */
static const size_t gate_at[GATE_SITES] = {0x200, 0x20c, 0x218, 0x226, 0x240, 0x24c, 0x258, 0x26b};
static struct xp_gate handles[3];
static struct xp_gate_site gate_sites[GATE_SITES + 3]; /* the stubs in front of the last two, and behind them */
static struct xp_module second;

void *xp__gate_resolve(struct xp_object *object, uintptr_t return_address);

static bool has_ud2_form(unsigned i)
{
	return gate_at[i] % 8 == 0;
}

static unsigned handle_at(unsigned i)
{
	return i < 3 ? 0 : i < 6 ? 1 : 2;
}

static xp__gate_func *text_at(size_t offset)
{
	return (xp__gate_func *)(uintptr_t)(rec_text + offset);
}

static void gate_record(unsigned i, size_t code, unsigned handle, unsigned flags)
{
	gate_sites[i].code = (int32_t)((uintptr_t)(rec_text + code) - (uintptr_t)&gate_sites[i].code);
	gate_sites[i].gate = (int32_t)((uintptr_t)&handles[handle] + flags - (uintptr_t)&gate_sites[i].gate);
}

static void start_gates(void)
{
	static const uint8_t ud2[UD2_LEN] = {0x0f, 0x0b, 0x2e, 0xe8};
	uint8_t bytes[5];

	rec_start();
	memset(handles, 0, sizeof(handles));
	for (unsigned h = 0; h < 3; h++) {
		handles[h].object.name = h == 1 ? "two" : "one";
		handles[h].through = handles[h].fallback = text_at(FALLBACK);
		handles[h].stub = text_at(STUB + 16 * h);
		gate_record(h < 2 ? 6 + h : 10, STUB + 16 * h, h, XP_SITE_STUB);
	}
	for (unsigned i = 0; i < GATE_SITES; i++) {
		gate_record(i < 6 ? i : 15 - i, gate_at[i], handle_at(i), has_ud2_form(i) ? XP_SITE_UD2 : 0);
		REQUIRE(xp_text_gen_insn(bytes, 0xe8, rec_text + gate_at[i], rec_text + STUB + 16 * handle_at(i)) == 0);
		rec_put(gate_at[i], has_ud2_form(i) ? ud2 : bytes, has_ud2_form(i) ? UD2_LEN : sizeof(bytes));
	}
	begin(XP_SITE_GATE, gate_sites, gate_sites + 8);
	second = (struct xp_module){.abi = XP_MODULE_ABI, .nr_tables = XP_NR_SITE_KINDS};
	second.tables[XP_SITE_GATE] = (struct xp_site_table){gate_sites + 9, gate_sites + 11};
	CHECK_EQ(xp_module_register(&second), 0);
}

static void stop_gates(void)
{
	rec_bound(0, 0);
	(void)xp_gate_withdraw("one");
	(void)xp_gate_withdraw("two");
	CHECK_EQ(xp_module_unregister(&module), 0);
	CHECK_EQ(xp_module_unregister(&second), 0);
}

/* Where a call of site @i ends: a call of the stub, or a fault, where the handle leads it. */
static uintptr_t gate_goes_to(unsigned i)
{
	struct xp_gate *handle = &handles[handle_at(i)];
	const struct xp_gate *real = (const struct xp_gate *)handle->object.real;
	uintptr_t to = rec_goes_to(gate_at[i] + (has_ud2_form(i) ? 3 : 0));

	if (rec_text[gate_at[i]] != 0x0f && to != (uintptr_t)handle->stub)
		return to;
	return (uintptr_t)(handle->through == handle->fallback ? handle->fallback : real->placed);
}

static void check_gate(const char *name, size_t to)
{
	for (unsigned i = 0; i < GATE_SITES; i++)
		if (strcmp(handles[handle_at(i)].object.name, name) == 0)
			CHECK_EQ(gate_goes_to(i), (uintptr_t)rec_text + to);
}

static unsigned nr_bound(void)
{
	unsigned nr = 0;

	for (unsigned i = 0; i < GATE_SITES; i++)
		nr += rec_text[gate_at[i]] != 0x0f && rec_goes_to(gate_at[i] + (has_ud2_form(i) ? 3 : 0)) !=
							      (uintptr_t)handles[handle_at(i)].stub;
	return nr;
}

/* Both gates, in one batch, in rounds of @round sites; 0: without provider. */
static int lead_gates(unsigned round, size_t one, size_t two)
{
	struct xp_batch *batch = xp_batch_new();
	int error;

	CHECK_EQ(xp__batch_add_gate(batch, "one", one ? text_at(one) : NULL), 0);
	CHECK_EQ(xp__batch_add_gate(batch, "two", two ? text_at(two) : NULL), 0);
	rec_bound(round, round + 2);
	rec_forget();
	error = xp_batch_commit(batch, &diag);
	rec_bound(0, 0);
	xp_batch_free(batch);
	return error;
}

static void bind_first(unsigned i)
{
	(void)xp__gate_resolve(&handles[handle_at(i)].object, (uintptr_t)(rec_text + gate_at[i] + 5));
}

/* Each write fails in turn: both gates lead where they led. Then none does. */
static void gates_are_undone(unsigned round, size_t one, size_t two, size_t after_one, size_t after_two)
{
	int error = -EIO;

	for (unsigned nth = 1; error && nth < 100; nth++) {
		rec_fail(REC_WRITE, nth, 1, -EIO);
		error = lead_gates(round, after_one, after_two);
		rec_heal();
		CHECK_EQ(xp_state(), XP_STATE_READY);
		if (error) {
			CHECK_EQ(error, -EIO);
			check_gate("one", one ? one : FALLBACK);
			check_gate("two", two ? two : FALLBACK);
		}
	}
	CHECK_EQ(error, 0);
	check_gate("one", after_one ? after_one : FALLBACK);
	check_gate("two", after_two ? after_two : FALLBACK);
}

XP_TEST(gates)
{
	static const enum xp_policy policies[] = {XP_POLICY_AUTO, XP_POLICY_BREAKPOINT, XP_POLICY_QUIESCE};

	for (unsigned i = 0; i < 3 * 4; i++) {
		struct xp_stats before, after;
		unsigned round = 1 + i % 4;

		start_gates();
		CHECK_EQ(xp_set_policy(policies[i / 4]), 0);
		xp_stats_read(&before);
		CHECK_EQ(lead_gates(round, PROVIDER, OTHER), 0);
		xp_stats_read(&after);
		CHECK_EQ(after.sites - before.sites, GATE_SITES - 1);
		CHECK(after.commits - before.commits >= (GATE_SITES - 1) / round);
		CHECK_EQ(nr_bound(), GATE_SITES - 1);
		bind_first(GATE_SITES - 1);
		CHECK_EQ(nr_bound(), GATE_SITES);
		check_gate("one", PROVIDER);
		check_gate("two", OTHER);
		gates_are_undone(round, PROVIDER, OTHER, OTHER, PROVIDER);
		gates_are_undone(round, OTHER, PROVIDER, 0, OTHER);
		gates_are_undone(round, 0, OTHER, PROVIDER, PROVIDER);
		stop_gates();
	}
}

/* As the compiler left them, but for one: it stays bound, and those that were not may fault no more. */
XP_TEST(first_lead_of_a_gate_is_undone)
{
	for (unsigned nth = 1; nth < GATE_SITES; nth++) {
		start_gates();
		CHECK_EQ(xp__gate_provide("one", text_at(PROVIDER)), 0);
		bind_first(1);
		CHECK_EQ(nr_bound(), 1);
		rec_fail(REC_WRITE, nth, 1, -EIO);
		CHECK_EQ(lead_gates(1, OTHER, OTHER), -EIO);
		rec_heal();
		check_gate("one", PROVIDER);
		check_gate("two", FALLBACK);
		CHECK_EQ(rec_goes_to(gate_at[1]), (uintptr_t)rec_text + PROVIDER);
		stop_gates();
	}
}

/* What was bound when a round fails stays so: nobody may say that a site that was bound before is not. */
XP_TEST(all_gates_are_bound)
{
	unsigned bound = 1;

	start_gates();
	CHECK_EQ(xp__gate_provide("one", text_at(PROVIDER)), 0);
	CHECK_EQ(xp__gate_provide("two", text_at(OTHER)), 0);
	bind_first(GATE_SITES - 1);
	rec_bound(1, 3);
	for (unsigned nth = 1; nth <= 3; nth++) {
		rec_forget();
		rec_fail(REC_WRITE, nth, 1, -EIO);
		CHECK_EQ(xp_gate_bind_all(), -EIO);
		rec_heal();
		CHECK(nr_bound() >= bound);
		bound = nr_bound();
		CHECK(bound < GATE_SITES);
		check_gate("one", PROVIDER);
		check_gate("two", OTHER);
	}
	CHECK_EQ(xp_gate_bind_all(), 0);
	CHECK_EQ(nr_bound(), GATE_SITES);
	check_gate("one", PROVIDER);
	check_gate("two", OTHER);
	stop_gates();
}

/*
 * Bound by one byte, from unbound: it is not taken back to the provider before, which would take a breakpoint, for which the
 * port was not asked to prepare.
 */
XP_TEST(undone_by_what_was_prepared)
{
	size_t near;

	start_gates();
	near = (size_t)(rec_goes_to(gate_at[3]) - (uintptr_t)rec_text) ^ 0x10;
	CHECK_EQ(xp__gate_provide("two", text_at(PROVIDER)), 0);
	rec_fail(REC_WRITE, 3, 1, -EIO);
	CHECK_EQ(lead_gates(1, 0, near), -EIO);
	rec_heal();
	CHECK(!(rec.prepared & XP_NEED_TRAP));
	check_gate("two", PROVIDER);
	CHECK_EQ(rec_goes_to(gate_at[3]), (uintptr_t)handles[1].stub);
	stop_gates();
}

XP_TEST_MAIN()
