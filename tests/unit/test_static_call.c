// SPDX-License-Identifier: MIT
/* Targets, trampolines and call sites, over a port that records. */
#include "recorder.h"
#include "xp_test.h"

#include <errno.h>

/* Offsets modulo 8: the displacement of a call at 0 lies in one quadword, of one at 4 in two. */
enum { TRAMPOLINE = 0x80, STUB = 0x100, FITS = 0x200, CROSSES = 0x20c, TAIL = 0x213, SECOND = 0x800 };

#define NEAR_A ((xp__call_func *)(uintptr_t)(rec_text + 0x1000))
/* The displacements differ in several bytes: no flip. */
#define NEAR_B ((xp__call_func *)(uintptr_t)(rec_text + 0x23456))
/* In 32-bit code everything is in reach, and registration makes every trampoline direct. */
#ifdef __x86_64__
#define REGISTERED_WRITES 0
#define FAR_IN_PLACE false
#define FAR_OPCODE 0xff
#define FAR_A ((xp__call_func *)((uintptr_t)rec_text + (1ull << 40)))
#define FAR_B ((xp__call_func *)((uintptr_t)rec_text + (1ull << 41)))
#else
#define REGISTERED_WRITES 1u
#define FAR_IN_PLACE true
#define FAR_OPCODE 0xe9
#define FAR_A ((xp__call_func *)(uintptr_t)(rec_text + 0x34567))
#define FAR_B ((xp__call_func *)(uintptr_t)(rec_text + 0x45678))
#endif

enum { MAX_RECORDS = 8 };

struct made {
	struct xp_module module;
	struct xp_call_site records[MAX_RECORDS];
	size_t nr;
};

static struct xp_static_call call;
static struct made one, two;

static void module_start(struct made *made)
{
	memset(made, 0, sizeof(*made));
	made->module = (struct xp_module){.abi = XP_MODULE_ABI, .nr_tables = XP_SITE_CALL + 1};
	made->module.tables[XP_SITE_CALL].start = made->records;
}

static struct xp_call_site *module_add(struct made *made)
{
	made->module.tables[XP_SITE_CALL].end = made->records + made->nr + 1;
	return &made->records[made->nr++];
}

/* The call's module: its trampoline, and a site of each sort. */
static void make(xp__call_func *func)
{
	rec_start();
	module_start(&one);
	module_start(&two);
	rec_call(&call, module_add(&one), TRAMPOLINE, STUB, func);
	rec_call_site(module_add(&one), FITS, &call, 0);
	rec_call_site(module_add(&one), CROSSES, &call, 0);
	rec_call_site(module_add(&one), TAIL, &call, XP_SITE_TAIL);
}

static void start(xp__call_func *func)
{
	make(func);
	CHECK_EQ(xp_module_register(&one.module), 0);
	CHECK_EQ(rec.calls[REC_WRITE], REGISTERED_WRITES);
	rec_forget();
}

static void end(void)
{
	CHECK_EQ(xp_module_unregister(&one.module), 0);
	CHECK_EQ(xp_module_unregister(&two.module), 0);
	CHECK(call.object.groups == NULL);
	CHECK_EQ(call.object.scratch, 0);
}

static uintptr_t at(size_t offset)
{
	return (uintptr_t)(rec_text + offset);
}

/* Where every place of module one goes in the end, and which sites go there by themselves. */
static void check_goes(uintptr_t to, bool in_place)
{
	CHECK_EQ(rec_goes_to(TRAMPOLINE), to);
	CHECK_EQ(rec_goes_to(FITS), in_place ? to : at(TRAMPOLINE));
	CHECK_EQ(rec_goes_to(CROSSES), at(TRAMPOLINE));
	CHECK_EQ(rec_goes_to(TAIL), in_place ? to : at(TRAMPOLINE));
	CHECK_EQ(rec_text[FITS], 0xe8);
	CHECK_EQ(rec_text[TAIL], 0xe9);
	CHECK_EQ(rec_text[TRAMPOLINE + 6], 0x0f);
	CHECK_EQ(rec_text[TRAMPOLINE + 7], 0x0b);
}

static void update(xp__call_func *func)
{
	CHECK_EQ(xp__static_call_update(&call, func), 0);
	CHECK(xp__static_call_query(&call) == func);
}

XP_TEST(an_update_reaches_trampoline_and_sites)
{
	start(NEAR_A);
	check_goes((uintptr_t)NEAR_A, false);
	update(NEAR_B);
	check_goes((uintptr_t)NEAR_B, true);
	CHECK_EQ(rec_text[TRAMPOLINE], 0xe9);
	update(NEAR_A);
	check_goes((uintptr_t)NEAR_A, true);
	end();
}

XP_TEST(far_targets_go_through_the_word)
{
	start(NEAR_A);
	update(FAR_A);
	check_goes((uintptr_t)FAR_A, FAR_IN_PLACE);
	CHECK_EQ(rec_text[TRAMPOLINE], FAR_OPCODE);
	update(FAR_B);
	check_goes((uintptr_t)FAR_B, FAR_IN_PLACE);
	update(NEAR_B);
	check_goes((uintptr_t)NEAR_B, true);
	CHECK_EQ(rec_text[TRAMPOLINE], 0xe9);
	update(FAR_A); /* from direct */
	check_goes((uintptr_t)FAR_A, FAR_IN_PLACE);
	end();
	start(FAR_A);
	update(NEAR_A);
	check_goes((uintptr_t)NEAR_A, true);
	end();
}

XP_TEST(no_target_goes_to_the_stub)
{
	start(NULL);
	check_goes(at(STUB), false);
	update(NEAR_A);
	check_goes((uintptr_t)NEAR_A, true);
	update(NULL);
	check_goes(at(STUB), true);
	end();
}

/* One commit, with the syncs of its longest plan; what is so already costs none. */
XP_TEST(costs)
{
	struct xp_stats before, after;

	start(NEAR_A);
	rec.can &= ~(unsigned)XP_NEED_SINGLE;
	update(NEAR_B);
	CHECK_EQ(rec.calls[REC_PREPARE], 1);
	CHECK_EQ(rec.calls[REC_SYNC], 3);
	rec_forget();
	xp_stats_read(&before);
	update(NEAR_B);
	xp_stats_read(&after);
	CHECK_EQ(rec.calls[REC_PREPARE] + rec.calls[REC_WRITE] + rec.calls[REC_SYNC], 0);
	CHECK_EQ(after.sites, before.sites);
	rec.can |= XP_NEED_SINGLE;
	update(NEAR_A);
	xp_stats_read(&after);
	CHECK_EQ(rec.calls[REC_SYNC], 1); /* everything by words */
	CHECK_EQ(rec.calls[REC_WRITE], 3);
	CHECK_EQ(after.sites - before.sites, 3); /* the one that stays on its trampoline is none */
	rec_forget();
	update(FAR_A);
	CHECK_EQ(rec.calls[REC_SYNC], 1);
	rec_forget();
	update(FAR_B); /* in 64-bit code data alone */
	CHECK_EQ(rec.calls[REC_WRITE], FAR_IN_PLACE ? 3 : 0);
	CHECK_EQ(rec.calls[REC_SYNC], 1);
	end();
}

/* What the port is asked for, call by call: the displacements alone; the table before the first store. */
XP_TEST(traces)
{
	start(NEAR_A);
	update(NEAR_A);
#ifndef __x86_64__
	memset(rec_text + TRAMPOLINE + REC_TRAMPOLINE_LEN, 0xf4, 6); /* the address is another in every run */
#endif
	rec_forget();
	update(NEAR_B);
	CHECK_STR(rec_trace(), "lock\n"
			       "prepare SYNC SINGLE\n"
			       "write single 0x81+3: d1 33 02\n"
			       "write single 0x201+3: 51 32 02\n"
			       "write single 0x214+3: 3e 32 02\n"
			       "sync\n"
			       "unlock\n");
	rec.can &= ~(unsigned)XP_NEED_SINGLE;
	rec_forget();
	update(NEAR_A);
	CHECK_STR(rec_trace(), "lock\n"
			       "prepare SYNC TRAP\n"
			       "write 0x80+404: cc d1 33 02 00 90 0f 0b f4 f4 f4 f4 f4 f4 f4 f4 ...\n"
			       "sync\n"
			       "write 0x81+406: 7b 0f 00 00 90 0f 0b f4 f4 f4 f4 f4 f4 f4 f4 f4 ...\n"
			       "sync\n"
			       "write 0x80+404: e9 7b 0f 00 00 90 0f 0b f4 f4 f4 f4 f4 f4 f4 f4 ...\n"
			       "sync\n"
			       "unlock\n");
	end();
}

/* The present target again: sites that are still on their trampoline come in place. */
XP_TEST(an_update_to_the_same_brings_sites_in_place)
{
	start(NEAR_A);
	update(NEAR_A);
	check_goes((uintptr_t)NEAR_A, true);
	end();
}

XP_TEST(under_shadow_stacks_calls_stay_on_the_trampoline)
{
	start(NEAR_A);
	rec.can &= ~(unsigned)(XP_NEED_CALL | XP_NEED_SINGLE);
	update(NEAR_B);
	CHECK_EQ(rec_goes_to(TRAMPOLINE), (uintptr_t)NEAR_B);
	CHECK_EQ(rec_goes_to(FITS), at(TRAMPOLINE));
	CHECK_EQ(rec_goes_to(TAIL), (uintptr_t)NEAR_B); /* a jmp pushes nothing */
	rec.can |= XP_NEED_SINGLE;
	update(NEAR_A);
	check_goes((uintptr_t)NEAR_A, true);
	/* Shadow stacks turned on behind our back. */
	rec.can &= ~(unsigned)(XP_NEED_CALL | XP_NEED_SINGLE);
	CHECK_EQ(xp__static_call_update(&call, NEAR_B), -XP_E_SHADOW_STACK);
	check_goes((uintptr_t)NEAR_A, true);
	CHECK(xp__static_call_query(&call) == NEAR_A);
	end();
}

XP_TEST(policies)
{
	static const enum xp_policy policies[] = {XP_POLICY_BREAKPOINT, XP_POLICY_QUIESCE, XP_POLICY_EARLY};

	for (size_t i = 0; i < sizeof(policies) / sizeof(policies[0]); i++) {
		start(NEAR_A);
		CHECK_EQ(xp_set_policy(policies[i]), 0);
		update(NEAR_B);
		check_goes((uintptr_t)NEAR_B, true);
		update(FAR_A);
		check_goes((uintptr_t)FAR_A, FAR_IN_PLACE);
		update(FAR_B);
		check_goes((uintptr_t)FAR_B, FAR_IN_PLACE);
		update(NEAR_A);
		check_goes((uintptr_t)NEAR_A, true);
		end();
	}
}

/* ---- what must not be there ---- */

static struct xp_diag told; /* of the last one that was refused */

static void update_refused(xp__call_func *func, size_t offset, int error)
{
	struct xp_batch *batch = xp_batch_new();
	uint8_t before[0x400];

	memcpy(before, rec_text, sizeof(before));
	rec_forget();
	CHECK_EQ(xp__batch_add_call(batch, &call, func), 0);
	CHECK_EQ(xp_batch_commit(batch, &told), error);
	CHECK_EQ(told.error, error);
	CHECK(told.site == rec_text + offset);
	CHECK_STR(told.key, "call");
	CHECK_MEM(before, rec_text, sizeof(before));
	CHECK_EQ(rec.calls[REC_WRITE] + rec.calls[REC_SYNC], 0);
	CHECK(xp__static_call_query(&call) == NEAR_A);
	xp_batch_free(batch);
}

static void refused(size_t offset, int error)
{
	update_refused(NEAR_B, offset, error);
}

XP_TEST(foreign_text_is_refused)
{
	static const struct {
		size_t site, byte;
	} places[] = {{FITS, 0}, {FITS, 1},       {FITS, 4},       {CROSSES, 0},    {CROSSES, 2},
		      {TAIL, 0}, {TRAMPOLINE, 0}, {TRAMPOLINE, 3}, {TRAMPOLINE, 6}, {TRAMPOLINE, 7}};

	for (size_t i = 0; i < sizeof(places) / sizeof(places[0]); i++) {
		start(NEAR_A);
		rec_put(places[i].site + places[i].byte, &(uint8_t){0x77}, 1);
		refused(places[i].site, -XP_E_MISMATCH);
		end();
	}
}

XP_TEST(foreign_text_is_refused_in_the_direct_form)
{
	static const size_t places[] = {FITS + 2, TRAMPOLINE, TRAMPOLINE + 1, TRAMPOLINE + 5, TRAMPOLINE + 7};

	for (size_t i = 0; i < sizeof(places) / sizeof(places[0]); i++) {
		start(NEAR_B);
		update(NEAR_A);
		rec_put(places[i], &(uint8_t){0x77}, 1);
		refused(places[i] < FITS ? TRAMPOLINE : FITS, -XP_E_MISMATCH);
		end();
	}
}

/* Of several forms the one that begins so, or the first of them: for a call the one by the trampoline. */
XP_TEST(foreign_text_is_told_beside_its_form)
{
	uint8_t expected[REC_CALL_LEN];

	start(NEAR_B);
	memcpy(expected, rec_text + FITS, REC_CALL_LEN);
	update(NEAR_A);
	rec_put(FITS + 2, &(uint8_t){0x77}, 1);
	refused(FITS, -XP_E_MISMATCH);
	CHECK_EQ(told.len, REC_CALL_LEN);
	CHECK_MEM(told.expected, expected, REC_CALL_LEN);
	end();
	start(NEAR_B);
	update(NEAR_A);
	rec_put(TRAMPOLINE + 7, &(uint8_t){0x77}, 1);
	refused(TRAMPOLINE, -XP_E_MISMATCH);
	CHECK_EQ(told.expected[0], 0xe9); /* in 64-bit code the first form begins with ff */
	CHECK_EQ(told.expected[7], 0x0b);
	end();
}

XP_TEST(a_change_that_is_refused_is_told)
{
	start(NEAR_A);
	update(NEAR_A);
	rec.can &= ~(unsigned)(XP_NEED_CALL | XP_NEED_SINGLE);
	refused(FITS, -XP_E_SHADOW_STACK);
	end();
	/* The site may stay on its trampoline, but only under shadow stacks. */
	start(NEAR_A);
	rec.can &= ~(unsigned)(XP_NEED_CALL | XP_NEED_SINGLE);
	update(NEAR_A);
	CHECK_EQ(rec_goes_to(FITS), at(TRAMPOLINE));
	rec.can &= ~(unsigned)XP_NEED_TRAP;
	CHECK_EQ(xp_set_policy(XP_POLICY_AUTO), 0);
	update_refused(NEAR_A, FITS, -XP_E_NO_METHOD);
	end();
}

/* A call that goes by its trampoline, one that goes to the target itself, and a trampoline that jumps through its word. */
XP_TEST(what_is_right_is_not_repaired)
{
	start(NEAR_A);
	CHECK_EQ(xp_repair(NULL), 0);
	update(NEAR_B);
	CHECK_EQ(xp_repair(NULL), 0);
	check_goes((uintptr_t)NEAR_B, true);
	update(FAR_A);
	CHECK_EQ(xp_repair(NULL), 0);
	end();
}

/* The text is right only as long as the word is. */
XP_TEST(a_word_is_repaired)
{
	start(NEAR_A);
	update(FAR_A);
	call.slot = FAR_B;
	CHECK_EQ(xp_repair(NULL), FAR_IN_PLACE ? 0 : 1);
	check_goes((uintptr_t)FAR_A, FAR_IN_PLACE);
	CHECK_EQ(xp_repair(NULL), 0);
	end();
}

XP_TEST(a_call_of_somebody_else_is_refused)
{
	static const uint8_t elsewhere[] = {0xe8, 1, 2, 3, 0};

	start(NEAR_A);
	rec_put(FITS, elsewhere, sizeof(elsewhere));
	refused(FITS, -XP_E_MISMATCH);
	end();
}

XP_TEST(a_debuggers_breakpoint_is_refused)
{
	start(NEAR_A);
	rec_put(TRAMPOLINE, &(uint8_t){0xcc}, 1);
	refused(TRAMPOLINE, -EBUSY);
	end();
	start(NEAR_A);
	rec_put(TAIL, &(uint8_t){0xcc}, 1);
	refused(TAIL, -EBUSY);
	end();
}

XP_TEST(malformed_records_are_refused)
{
	start(NEAR_A);
	one.records[0].code++;
	refused(TRAMPOLINE + 1, -XP_E_CORRUPT);
	end();
#ifdef __x86_64__
	start(NEAR_A);
	call.trampoline = FAR_A;
	refused(FITS, -XP_E_CORRUPT);
	end();
#endif
	make(NEAR_A);
	one.records[0].code++;
	CHECK_EQ(xp_module_register(&one.module), -XP_E_CORRUPT);
	end();
}

/* ---- what is seen meanwhile, and what is left of a commit that fails ---- */

static uintptr_t old_target, new_target;

/* Where a thread comes to that calls by the site at @offset now. A breakpoint of ours: where the handler sends it. */
static uintptr_t ends_at(size_t offset)
{
	if (rec_text[offset] == 0xcc) {
		uintptr_t stack[8] = {0};
		struct xp_regs regs = {.gpr[4] = (uintptr_t)&stack[4], .ip = at(offset) + 1};

		if (xp_trap(&regs, 1) != XP_TRAP_DONE)
			return 0;
		if (offset == FITS || offset == CROSSES)
			CHECK_EQ(stack[3], at(offset) + REC_CALL_LEN); /* a real call */
		return regs.ip;
	}
	return rec_goes_to(offset);
}

static bool right(size_t offset)
{
	uintptr_t to = ends_at(offset);

	if (offset != TRAMPOLINE && to == at(TRAMPOLINE))
		to = ends_at(TRAMPOLINE);
	return to == old_target || to == new_target;
}

static void look(const struct rec_step *step)
{
	xp__call_func *func = xp__static_call_query(&call);

	CHECK(right(TRAMPOLINE) && right(FITS) && right(CROSSES) && right(TAIL));
	/* The new target is told when every site has it. */
	if (step->op != REC_UNLOCK)
		CHECK((func ? (uintptr_t)func : at(STUB)) == old_target);
}

static const struct {
	xp__call_func *first, *from, *to;
} moves[] = {
	{NEAR_A, NEAR_A, NEAR_B}, {NEAR_B, NEAR_A, NEAR_B}, {NEAR_A, NEAR_A, FAR_A},
	{NEAR_B, NEAR_A, FAR_A},  {FAR_A, FAR_A, FAR_B},    {NEAR_A, FAR_A, FAR_B},
	{FAR_A, FAR_A, NEAR_A},   {NEAR_A, NULL, NEAR_A},   {NEAR_A, NEAR_A, NULL},
};

static void start_move(size_t i, unsigned can, enum xp_policy policy)
{
	start(moves[i].first);
	update(moves[i].from);
	rec.can = can;
	CHECK_EQ(xp_set_policy(policy), 0);
	old_target = moves[i].from ? (uintptr_t)moves[i].from : at(STUB);
	new_target = moves[i].to ? (uintptr_t)moves[i].to : at(STUB);
	rec_forget();
	rec.step = look;
}

static void each_move(void (*run)(size_t, unsigned, enum xp_policy))
{
	static const struct {
		unsigned can;
		enum xp_policy policy;
	} ways[] = {
		{~0u, XP_POLICY_AUTO},       {~(unsigned)XP_NEED_SINGLE, XP_POLICY_AUTO},
		{~0u, XP_POLICY_BREAKPOINT}, {~0u, XP_POLICY_QUIESCE},
		{~0u, XP_POLICY_EARLY},
	};

	for (size_t i = 0; i < sizeof(moves) / sizeof(moves[0]); i++)
		for (size_t w = 0; w < sizeof(ways) / sizeof(ways[0]); w++)
			run(i, ways[w].can, ways[w].policy);
}

static void undisturbed(size_t i, unsigned can, enum xp_policy policy)
{
	start_move(i, can, policy);
	update(moves[i].to);
	rec.step = NULL;
	old_target = new_target;
	CHECK(right(TRAMPOLINE) && right(FITS) && right(CROSSES) && right(TAIL));
	end();
}

XP_TEST(at_every_step_old_or_new)
{
	each_move(undisturbed);
}

static void fails(size_t i, unsigned can, enum xp_policy policy)
{
	static const enum rec_op ops[] = {REC_ALLOC, REC_PREPARE, REC_WRITE, REC_SYNC, REC_PARK};

	for (size_t o = 0; o < sizeof(ops) / sizeof(ops[0]); o++)
		for (unsigned nth = 1; nth < 100; nth++) {
			int error;

			start_move(i, can, policy);
			rec_fail(ops[o], nth, 1, -EIO);
			error = xp__static_call_update(&call, moves[i].to);
			rec.step = NULL;
			if (rec.first_hit == NULL) {
				CHECK_EQ(error, 0);
				nth = 100;
			} else {
				CHECK_EQ(error, ops[o] == REC_ALLOC ? -ENOMEM : -EIO);
				CHECK(xp__static_call_query(&call) == moves[i].from);
				new_target = old_target;
				CHECK(right(TRAMPOLINE) && right(FITS) && right(CROSSES) && right(TAIL));
			}
			rec_heal();
			update(moves[i].to); /* the engine goes on */
			new_target = old_target = moves[i].to ? (uintptr_t)moves[i].to : at(STUB);
			CHECK(right(TRAMPOLINE) && right(FITS) && right(CROSSES) && right(TAIL));
			end();
		}
}

XP_TEST(a_fault_at_every_step_leaves_the_old_target)
{
	each_move(fails);
}

/* ---- shared calls: a module with a handle ---- */

static struct xp_static_call handle;
enum { ENTRY = 0x60, TRAMPOLINE_TWO = SECOND, FITS_TWO = SECOND + 0x40 };

/* The handle's trampoline goes to the entry of the shared call, a jmp to its trampoline. */
static void make_two(void)
{
	uint8_t entry[5] = {0xe9};
	int32_t displacement = (int32_t)(TRAMPOLINE - (ENTRY + 5));

	memcpy(entry + 1, &displacement, sizeof(displacement));
	rec_put(ENTRY, entry, sizeof(entry));
	rec_call(&handle, module_add(&two), TRAMPOLINE_TWO, STUB + 0x10, (xp__call_func *)at(ENTRY));
	rec_call_site(module_add(&two), FITS_TWO, &handle, 0);
	handle.object.real = &call.object;
}

XP_TEST(a_handle_is_right_before_and_after_it_is_registered)
{
	start(NEAR_A);
	update(NEAR_B);
	make_two();
	CHECK_EQ(rec_goes_to(TRAMPOLINE_TWO), at(ENTRY));
	CHECK_EQ(rec_goes_to(at(ENTRY) - at(0)), at(TRAMPOLINE));
	rec_forget();
	CHECK_EQ(xp_module_register(&two.module), 0);
	CHECK_EQ(rec.calls[REC_WRITE], REGISTERED_WRITES);
	CHECK_EQ(rec_goes_to(FITS_TWO), at(TRAMPOLINE_TWO));
	CHECK_EQ(xp__static_call_update(&handle, NEAR_A), 0);
	check_goes((uintptr_t)NEAR_A, true);
	CHECK_EQ(rec_goes_to(TRAMPOLINE_TWO), (uintptr_t)NEAR_A);
	CHECK_EQ(rec_goes_to(FITS_TWO), (uintptr_t)NEAR_A);
	CHECK(xp__static_call_query(&handle) == NEAR_A);
	update(NULL); /* each object has its own stub */
	CHECK_EQ(rec_goes_to(TRAMPOLINE), at(STUB));
	CHECK_EQ(rec_goes_to(TRAMPOLINE_TWO), at(STUB + 0x10));
	end();
}

XP_TEST(a_module_that_comes_back_is_brought_up)
{
	start(NEAR_A);
	make_two();
	CHECK_EQ(xp_module_register(&two.module), 0);
	update(NEAR_B);
	CHECK_EQ(rec_goes_to(FITS_TWO), (uintptr_t)NEAR_B);
	CHECK_EQ(xp_module_unregister(&two.module), 0);
	update(NEAR_A);
	CHECK_EQ(rec_goes_to(FITS_TWO), (uintptr_t)NEAR_B);
	CHECK_EQ(xp_module_register(&two.module), 0);
	CHECK_EQ(rec_goes_to(TRAMPOLINE_TWO), (uintptr_t)NEAR_A);
	CHECK_EQ(rec_goes_to(FITS_TWO), (uintptr_t)NEAR_A);
	update(NEAR_B); /* and is found as it was left */
	CHECK_EQ(rec_goes_to(FITS_TWO), (uintptr_t)NEAR_B);
	end();
}

/* As when its registration failed at first: the trampoline jumps through a word that was not brought up. */
XP_TEST(a_module_that_was_updated_before_it_came)
{
	make(NEAR_A);
	update(NEAR_B);
	CHECK_EQ(rec_goes_to(TRAMPOLINE), (uintptr_t)NEAR_A);
	CHECK_EQ(xp_module_register(&one.module), 0);
	CHECK_EQ(rec_goes_to(TRAMPOLINE), (uintptr_t)NEAR_B);
	update(NEAR_A);
	check_goes((uintptr_t)NEAR_A, true);
	end();
	make(NEAR_A);
	update(FAR_A);
	CHECK_EQ(xp_module_register(&one.module), 0);
	check_goes((uintptr_t)FAR_A, false);
	end();
}

/* ---- batches ---- */

static struct xp_static_key key;
static struct xp_branch_site branches[1];
static struct xp_module key_module;

XP_TEST(with_a_key_in_one_commit)
{
	struct xp_batch *batch;
	struct xp_diag diag;

	start(NEAR_A);
	key = (struct xp_static_key){.object = {.name = "key"}};
	rec_branch(branches, 0x400, 0x500, &key, 0);
	key_module = (struct xp_module){.abi = XP_MODULE_ABI, .nr_tables = 1, .tables = {{branches, branches + 1}}};
	CHECK_EQ(xp_module_register(&key_module), 0);
	rec_forget();
	batch = xp_batch_new();
	CHECK_EQ(xp__batch_add_call(batch, &call, FAR_A), 0);
	CHECK_EQ(xp_batch_add_key(batch, &key, true), 0);
	CHECK_EQ(xp__batch_add_call(batch, &call, NEAR_B), 0); /* the last one counts */
	CHECK_EQ(xp_batch_commit(batch, &diag), 0);
	CHECK_EQ(rec.calls[REC_SYNC], 1);
	check_goes((uintptr_t)NEAR_B, true);
	CHECK_EQ(rec_text[0x400], 0xe9);
	/* As a whole: the key's site is not what it should be. */
	rec_put(0x400, &(uint8_t){0x77}, 1);
	CHECK_EQ(xp__batch_add_call(batch, &call, NEAR_A), 0);
	CHECK_EQ(xp_batch_add_key(batch, &key, false), 0);
	CHECK_EQ(xp_batch_commit(batch, &diag), -XP_E_MISMATCH);
	check_goes((uintptr_t)NEAR_B, true);
	CHECK(xp__static_call_query(&call) == NEAR_B);
	xp_batch_free(batch);
	CHECK_EQ(xp_module_unregister(&key_module), 0);
	end();
}

/* Data changes before the text, and goes back with it. */
XP_TEST(a_far_target_beside_text_that_fails)
{
	static const enum xp_policy policies[] = {XP_POLICY_AUTO, XP_POLICY_BREAKPOINT, XP_POLICY_QUIESCE,
						  XP_POLICY_EARLY};
	static const uint8_t nop = 0x90, ret = 0xc3;
	struct xp_poke poke = {.addr = rec_text + 0x400, .expect = &nop, .replace = &ret, .len = 1};

	for (size_t i = 0; i < sizeof(policies) / sizeof(policies[0]); i++) {
		struct xp_batch *batch;
		struct xp_diag diag;

		start(FAR_A);
		rec_put(0x400, &nop, 1);
		batch = xp_batch_new();
		CHECK_EQ(xp__batch_add_call(batch, &call, FAR_B), 0);
		CHECK_EQ(xp_batch_add_poke(batch, &poke), 0);
		CHECK_EQ(xp_set_policy(policies[i]), 0);
		rec_fail(REC_WRITE, 1, 1, -EIO);
		CHECK_EQ(xp_batch_commit(batch, &diag), -EIO);
		CHECK_EQ(rec_goes_to(TRAMPOLINE), (uintptr_t)FAR_A);
		CHECK(xp__static_call_query(&call) == FAR_A);
		rec_heal();
		CHECK_EQ(xp_batch_commit(batch, &diag), 0);
		CHECK_EQ(rec_goes_to(TRAMPOLINE), (uintptr_t)FAR_B);
		xp_batch_free(batch);
		end();
	}
}

/* ---- what is kept mapped ---- */

static int kept_a, kept_b;

static void *keep(const void *target, const void *user)
{
	CHECK(!rec.locked);
	CHECK(user == &call);
	if (target == (const void *)(uintptr_t)FAR_A) {
		kept_a++;
		return &kept_a;
	}
	if (target == (const void *)(uintptr_t)FAR_B) {
		kept_b++;
		return &kept_b;
	}
	return NULL;
}

static void let_go(void *pin)
{
	CHECK(!rec.locked);
	CHECK(pin == &kept_a || pin == &kept_b);
	--*(int *)pin;
}

XP_TEST(targets_are_kept)
{
	struct xp_batch *batch;

	start(NEAR_A);
	kept_a = kept_b = 0;
	rec_port.pin = keep;
	rec_port.unpin = let_go;
	update(FAR_A);
	update(FAR_A);
	CHECK_EQ(kept_a, 1);
	rec_fail(REC_SYNC, 1 + rec.calls[REC_SYNC], 1, -EIO);
	CHECK_EQ(xp__static_call_update(&call, FAR_B), -EIO);
	rec_heal();
	CHECK_EQ(kept_a, 1);
	CHECK_EQ(kept_b, 0);
	update(FAR_B);
	CHECK_EQ(kept_a, 0);
	CHECK_EQ(kept_b, 1);
	batch = xp_batch_new();
	CHECK_EQ(xp__batch_add_call(batch, &call, FAR_B), 0);
	CHECK_EQ(xp__batch_add_call(batch, &call, FAR_A), 0);
	CHECK_EQ(kept_a, 1);
	CHECK_EQ(kept_b, 2);
	CHECK_EQ(xp_batch_commit(batch, NULL), 0);
	CHECK_EQ(kept_a, 1);
	CHECK_EQ(kept_b, 0);
	CHECK_EQ(xp__batch_add_call(batch, &call, FAR_B), 0);
	rec_fail(REC_ALLOC, 1 + rec.calls[REC_ALLOC], REC_FOREVER, -ENOMEM);
	for (int i = 0; i < 100; i++)
		(void)xp__batch_add_call(batch, &call, FAR_B); /* until there is no room */
	CHECK(kept_b < 100);
	rec_heal();
	xp_batch_free(batch);
	CHECK_EQ(kept_a, 1);
	CHECK_EQ(kept_b, 0);
	end(); /* the call goes away */
	CHECK_EQ(kept_a, 0);
	rec_port.pin = NULL;
	rec_port.unpin = NULL;
}

XP_TEST(a_batch_of_nothing)
{
	start(NEAR_A);
	CHECK_EQ(xp__batch_add_call(NULL, &call, NEAR_B), -EINVAL);
	end();
}

XP_TEST_MAIN()
