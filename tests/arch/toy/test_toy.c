// SPDX-License-Identifier: MIT
/*
 * The core on an architecture that it does not know: tests/arch/toy, over the port that records. Keys, calls and values; a
 * processor of the toy's fetches at every step, under the toy's model, what it may fetch then, and does old or new.
 */
#include "arch/arch.h"
#include "recorder.h"
#include "xp_test.h"

#include <errno.h>

enum {
	SITE = 0x100,
	OTHER = 0x208,
	TRAMPOLINE = 0x300,
	CALLER = 0x404,
	STUB = 0x500,
	FIRST = 0x1000,
	SECOND = 0x2000,
	FAR = 64 << 20, /* out of a branch's reach */
};

static uintptr_t at(size_t offset)
{
	return (uintptr_t)rec_text + offset;
}

static xp__call_func *function(size_t offset)
{
	return (xp__call_func *)at(offset);
}

static uint32_t word_at(size_t offset)
{
	return toy_word(rec_text + offset);
}

static void put(size_t offset, uint32_t word)
{
	const uint8_t bytes[4] = {(uint8_t)word, (uint8_t)(word >> 8), (uint8_t)(word >> 16), (uint8_t)(word >> 24)};

	rec_put(offset, bytes, sizeof(bytes));
}

static uint32_t to(enum toy_kind kind, size_t from, size_t target)
{
	return toy_insn(kind, 0, (int32_t)(target - from));
}

static int32_t relative(const void *field, uintptr_t value)
{
	return (int32_t)(value - (uintptr_t)field);
}

/* ---- the processor ---- */

/* The words of one site since the last sync: it may fetch any of them, in any order. */
static struct {
	size_t offset;
	uint32_t old, new;
	uint32_t word[16];
	unsigned nr;
	unsigned done; /* traps that a handler finished */
	bool was_old, was_new;
} seen;

static struct xp_regs after(uint32_t word)
{
	struct xp_regs regs = {.link = 0x1234, .gpr = {1, 2, 3, 4}};
	struct xp__insn insn;
	uint8_t bytes[4] = {(uint8_t)word, (uint8_t)(word >> 8), (uint8_t)(word >> 16), (uint8_t)(word >> 24)};

	xp__insn_decode(bytes, sizeof(bytes), &insn);
	if (toy_execute(&insn, at(seen.offset), &regs) || insn.kind != TOY_TRAP)
		return regs;
	switch (xp_trap(&regs, 0)) {
	case XP_TRAP_DONE:
		seen.done++;
		if (regs.ip >= at(REC_TEXT_SIZE - REC_EXEC_SIZE) && regs.ip < at(REC_TEXT_SIZE)) {
			/* In a slot: the copy, and the way back. */
			for (int i = 0; i < 2; i++) {
				xp__insn_decode((const uint8_t *)(uintptr_t)regs.ip, 4, &insn);
				CHECK(toy_execute(&insn, (uintptr_t)regs.ip, &regs));
			}
		}
		return regs;
	case XP_TRAP_RETRY:
		CHECK_EQ(regs.ip, at(seen.offset));
		CHECK(word_at(seen.offset) >> 24 != TOY_TRAP);
		return after(word_at(seen.offset));
	default:
		CHECK(!"a trap of ours called foreign");
		return regs;
	}
}

static bool same(const struct xp_regs *a, uint32_t word)
{
	const struct xp_regs b = after(word);

	return memcmp(a, &b, sizeof(b)) == 0;
}

static void look(void)
{
	seen.was_old = seen.was_new = false;
	for (unsigned i = 0; i < seen.nr; i++) {
		const struct xp_regs regs = after(seen.word[i]);
		bool is_old = same(&regs, seen.old), is_new = same(&regs, seen.new);

		CHECK(is_old || is_new);
		seen.was_old |= is_old;
		seen.was_new |= is_new;
	}
}

static void step(const struct rec_step *done)
{
	if (done->op == REC_SYNC && done->result == 0)
		seen.nr = 0;
	if (seen.nr == 0 || seen.word[seen.nr - 1] != word_at(seen.offset)) {
		REQUIRE(seen.nr < sizeof(seen.word) / sizeof(seen.word[0]));
		seen.word[seen.nr++] = word_at(seen.offset);
	}
	look();
}

static void watch(size_t offset, uint32_t new)
{
	memset(&seen, 0, sizeof(seen));
	seen.offset = offset;
	seen.old = seen.word[0] = word_at(offset);
	seen.nr = 1;
	seen.new = new;
	rec.step = step;
}

/* After a commit: only @word is there, and no processor does anything else. */
static void check_only(uint32_t word)
{
	rec.step = NULL;
	CHECK_EQ(word_at(seen.offset), word);
	look();
	CHECK(word == seen.new ? !seen.was_old : !seen.was_new);
}

/* ---- sites ---- */

static struct xp_module module, later;

static void fill(struct xp_module *which, unsigned kind, const void *start, size_t size)
{
	*which = (struct xp_module){.abi = XP_MODULE_ABI, .nr_tables = XP_NR_SITE_KINDS};
	which->tables[kind] = (struct xp_site_table){start, (const uint8_t *)start + size};
}

static struct xp_static_key key;
static struct xp_branch_site branches[2], late_branch;

static void branch(struct xp_branch_site *site, size_t offset, size_t target, unsigned flags)
{
	bool jumps = ((flags & XP_SITE_TRUE) != 0) != ((flags & XP_SITE_LIKELY) != 0);

	put(offset, jumps ? to(TOY_BRANCH, offset, target) : toy_insn(TOY_NOP, 0, 0));
	site->code = relative(&site->code, at(offset));
	site->target = relative(&site->target, at(target));
	site->key = relative(&site->key, (uintptr_t)&key | flags);
}

static void begin_key(void)
{
	rec_start();
	key = (struct xp_static_key){.object = {.name = "key"}};
	branch(&branches[0], SITE, FIRST, 0);
	branch(&branches[1], OTHER, SECOND, XP_SITE_LIKELY);
	fill(&module, XP_SITE_BRANCH, branches, sizeof(branches));
	CHECK_EQ(xp_module_register(&module), 0);
	rec_forget();
}

static void end_module(void)
{
	rec.step = NULL;
	rec_heal();
	CHECK_EQ(xp_module_unregister(&module), 0);
	CHECK_EQ(xp_set_policy(XP_POLICY_AUTO), 0);
}

static struct xp_static_call call;
static struct xp_call_site calls[2];

static void begin_call(void)
{
	rec_start();
	call = (struct xp_static_call){
		.object = {.name = "call"},
		.func = function(FIRST),
		.slot = function(FIRST),
		.trampoline = function(TRAMPOLINE),
		.stub = function(STUB),
	};
	put(TRAMPOLINE, toy_insn(TOY_THROUGH, 0, (int32_t)((uintptr_t)&call.slot - at(TRAMPOLINE))));
	put(CALLER, to(TOY_CALL, CALLER, TRAMPOLINE));
	for (int i = 0; i < 2; i++) {
		calls[i].code = relative(&calls[i].code, at(i ? CALLER : TRAMPOLINE));
		calls[i].call = relative(&calls[i].call, (uintptr_t)&call | (i ? 0 : XP_SITE_TRAMPOLINE));
	}
	fill(&module, XP_SITE_CALL, calls, sizeof(calls));
	CHECK_EQ(xp_module_register(&module), 0);
}

static uint16_t number;
static struct xp_imv value;
static struct xp_imv_site load;

static void begin_value(void)
{
	rec_start();
	number = 0;
	value = (struct xp_imv){.object = {.name = "value"}, .value = &number, .size = sizeof(number)};
	put(SITE, toy_insn(TOY_LOAD, 2, 0));
	load = (struct xp_imv_site){.len = 4, .size = sizeof(number)};
	load.code = relative(&load.code, at(SITE));
	load.imv = relative(&load.imv, (uintptr_t)&value);
	fill(&module, XP_SITE_IMV, &load, sizeof(load));
	CHECK_EQ(xp_module_register(&module), 0);
}

/* ---- what it must show ---- */

XP_TEST(a_key_goes_on_and_off_by_single_stores)
{
	const uint32_t nop = toy_insn(TOY_NOP, 0, 0), jump = to(TOY_BRANCH, SITE, FIRST);

	begin_key();
	watch(SITE, jump);
	CHECK_EQ(xp_static_key_enable(&key), 0);
	check_only(jump);
	CHECK_EQ(word_at(OTHER), nop);
	CHECK(strstr(rec_trace(), "prepare SYNC SINGLE\n"
				  "write single 0x100+4: c0 03 00 02\n"
				  "write single 0x208+4: 00 00 00 01\n"
				  "sync\n") != NULL);
	watch(SITE, nop);
	CHECK_EQ(xp_static_key_disable(&key), 0);
	check_only(nop);
	CHECK_EQ(word_at(OTHER), to(TOY_BRANCH, OTHER, SECOND));
	end_module();
}

XP_TEST(a_key_goes_on_behind_a_trap)
{
	begin_key();
	CHECK_EQ(xp_set_policy(XP_POLICY_BREAKPOINT), 0);
	watch(SITE, to(TOY_BRANCH, SITE, FIRST));
	CHECK_EQ(xp_static_key_enable(&key), 0);
	CHECK_EQ(rec.calls[REC_SYNC], 2);
	CHECK(seen.done > 0);
	check_only(to(TOY_BRANCH, SITE, FIRST));
	end_module();
}

XP_TEST(a_call_goes_direct_and_by_its_trampoline)
{
	const uint32_t by_trampoline = to(TOY_CALL, CALLER, TRAMPOLINE);

	begin_call();
	watch(CALLER, to(TOY_CALL, CALLER, SECOND));
	CHECK_EQ(xp__static_call_update(&call, function(SECOND)), 0);
	check_only(to(TOY_CALL, CALLER, SECOND));
	CHECK_EQ(after(word_at(CALLER)).ip, at(SECOND));
	CHECK_EQ(after(word_at(CALLER)).link, at(CALLER + 4));
	CHECK_EQ(word_at(TRAMPOLINE), to(TOY_BRANCH, TRAMPOLINE, SECOND));
	/* Out of reach: by the trampoline, and that by its word. */
	watch(CALLER, by_trampoline);
	CHECK_EQ(xp__static_call_update(&call, function(FAR)), 0);
	check_only(by_trampoline);
	CHECK_EQ(word_at(TRAMPOLINE) >> 24, TOY_THROUGH);
	CHECK_EQ((uintptr_t)call.slot, at(FAR));
	CHECK_EQ(after(word_at(CALLER)).ip, at(TRAMPOLINE));
	/* And nowhere. */
	CHECK_EQ(xp__static_call_update(&call, NULL), 0);
	CHECK_EQ(word_at(CALLER), to(TOY_CALL, CALLER, STUB));
	end_module();
}

XP_TEST(a_value_stands_in_its_instruction)
{
	uint16_t bits = 0xbeef;
	uint32_t wide = 1;

	begin_value();
	watch(SITE, toy_insn(TOY_LOAD, 2, bits));
	CHECK_EQ(xp__imv_set(&value, &bits, sizeof(bits)), 0);
	check_only(toy_insn(TOY_LOAD, 2, bits));
	CHECK_EQ(number, bits);
	CHECK_EQ(xp__imv_set(&value, &wide, sizeof(wide)), -EINVAL); /* it has no such loads */
	end_module();
}

XP_TEST(a_trap_is_late_or_foreign)
{
	struct xp_regs regs = {.ip = at(SITE)};

	begin_key();
	CHECK_EQ(xp_set_policy(XP_POLICY_BREAKPOINT), 0);
	CHECK_EQ(xp_static_key_enable(&key), 0);
	CHECK_EQ(xp_trap(&regs, 0), XP_TRAP_RETRY);
	CHECK_EQ(regs.ip, at(SITE));
	put(CALLER, toy_insn(TOY_TRAP, 0, 0));
	regs.ip = at(CALLER);
	CHECK_EQ(xp_trap(&regs, 0), XP_TRAP_FOREIGN);
	CHECK_EQ(regs.ip, at(CALLER));
	end_module();
}

/* Each write and each sync fails once: the text is as before, and at every moment old or new was executed. */
XP_TEST(what_fails_is_rolled_back)
{
	static const enum rec_op ops[] = {REC_WRITE, REC_SYNC};
	const uint32_t nop = toy_insn(TOY_NOP, 0, 0);

	for (int policy = 0; policy < 2; policy++) {
		for (size_t i = 0; i < 2; i++) {
			for (unsigned nth = 1; nth <= (i ? 1u : 2u) * (policy ? 2 : 1); nth++) {
				begin_key();
				CHECK_EQ(xp_set_policy(policy ? XP_POLICY_BREAKPOINT : XP_POLICY_AUTO), 0);
				watch(SITE, to(TOY_BRANCH, SITE, FIRST));
				rec_fail(ops[i], nth, 1, -EIO);
				CHECK_EQ(xp_static_key_enable(&key), -EIO);
				CHECK_EQ(xp_state(), XP_STATE_READY);
				CHECK_EQ(key.count, 0);
				check_only(nop);
				CHECK_EQ(word_at(OTHER), to(TOY_BRANCH, OTHER, SECOND));
				end_module();
			}
		}
	}
}

XP_TEST(other_text_is_refused)
{
	begin_key();
	put(OTHER, toy_insn(TOY_ADD, 1, 5));
	CHECK_EQ(xp_static_key_enable(&key), -XP_E_MISMATCH);
	CHECK_EQ(word_at(SITE), toy_insn(TOY_NOP, 0, 0));
	put(OTHER, to(TOY_BRANCH, OTHER, FIRST)); /* elsewhere */
	CHECK_EQ(xp_static_key_enable(&key), -XP_E_MISMATCH);
	put(OTHER, toy_insn(TOY_TRAP, 0, 0));
	CHECK_EQ(xp_static_key_enable(&key), -EBUSY);
	CHECK_EQ(rec.calls[REC_WRITE], 0);
	put(OTHER, to(TOY_BRANCH, OTHER, SECOND));
	CHECK_EQ(xp_static_key_enable(&key), 0);
	end_module();
}

XP_TEST(sites_that_come_are_brought)
{
	static struct xp_imv_site late_load;
	uint16_t bits = 77;

	begin_key();
	CHECK_EQ(xp_static_key_enable(&key), 0);
	branch(&late_branch, CALLER, FIRST, 0);
	fill(&later, XP_SITE_BRANCH, &late_branch, sizeof(late_branch));
	CHECK_EQ(xp_module_register(&later), 0);
	CHECK_EQ(word_at(CALLER), to(TOY_BRANCH, CALLER, FIRST));
	CHECK_EQ(xp_module_unregister(&later), 0);
	end_module();

	begin_value();
	CHECK_EQ(xp__imv_set(&value, &bits, sizeof(bits)), 0);
	put(OTHER, toy_insn(TOY_LOAD, 1, 0));
	late_load = load;
	late_load.code = relative(&late_load.code, at(OTHER));
	late_load.imv = relative(&late_load.imv, (uintptr_t)&value);
	fill(&later, XP_SITE_IMV, &late_load, sizeof(late_load));
	CHECK_EQ(xp_module_register(&later), 0);
	CHECK_EQ(word_at(OTHER), toy_insn(TOY_LOAD, 1, bits));
	CHECK_EQ(xp_module_unregister(&later), 0);
	end_module();
}

XP_TEST(kinds_without_forms_are_refused)
{
	static const unsigned kinds[] = {XP_SITE_SWITCH, XP_SITE_GATE, XP_SITE_FAR, XP_SITE_ENTRY, XP_SITE_PATCHABLE};
	static const int32_t record[4];

	rec_start();
	for (size_t i = 0; i < sizeof(kinds) / sizeof(kinds[0]); i++) {
		fill(&module, kinds[i], record, sizeof(record));
		CHECK_EQ(xp_module_register(&module), -XP_E_NO_METHOD);
		CHECK_EQ(xp_module_unregister(&module), 0);
	}
	CHECK_EQ(rec.calls[REC_WRITE], 0);
}

static int poke(uint32_t old, uint32_t new, enum xp_resume resume)
{
	const struct xp_poke poke = {
		.addr = rec_text + SITE, .expect = &old, .replace = &new, .len = 4, .resume = resume};

	rec_start();
	put(SITE, old);
	CHECK_EQ(xp_set_policy(XP_POLICY_BREAKPOINT), 0);
	watch(SITE, new);
	return xp_text_poke(&poke, NULL);
}

XP_TEST(what_is_not_emulated_is_executed_out_of_line)
{
	const uint32_t old = toy_insn(TOY_ADD, 1, 5), new = toy_insn(TOY_ADD, 1, 7);

	CHECK_EQ(poke(old, new, XP_RESUME_EMULATE), -XP_E_EMULATE);
	CHECK_EQ(poke(old, new, XP_RESUME_BYPASS), 0);
	CHECK(seen.done > 0);
	check_only(new);
	CHECK_EQ(xp_set_policy(XP_POLICY_AUTO), 0);
}

XP_TEST_MAIN()
