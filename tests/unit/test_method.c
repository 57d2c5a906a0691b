// SPDX-License-Identifier: MIT
/* Which method is chosen for what, at every offset of a cache line; and that every plan leads from old to new and back. */
#include "arch/arch.h"
#include "xp_test.h"

#define LINE 64u
#define PLAIN (XP_NEED_SYNC | XP_NEED_TRAP | XP_NEED_PARK | XP_NEED_ALONE | XP_NEED_CALL)
#define SINGLE (PLAIN | XP_NEED_SINGLE)

static const uint8_t nop5[5] = {0x0f, 0x1f, 0x44, 0x00, 0x00};
static const uint8_t jmp[5] = {0xe9, 0x11, 0x22, 0x33, 0x04};
static const uint8_t jmp_elsewhere[5] = {0xe9, 0x71, 0x62, 0x53, 0x08};
static const uint8_t jmp_near_it[5] = {0xe9, 0x11, 0x66, 0x77, 0x04};
static const uint8_t jmp_last_byte[5] = {0xe9, 0x11, 0x22, 0x33, 0x05};
static const uint8_t test[5] = {0xa9, 0x11, 0x22, 0x33, 0x04};
static const uint8_t call[5] = {0xe8, 0x71, 0x62, 0x53, 0x08};
static const uint8_t ret[5] = {0xc3, 0x90, 0x90, 0x90, 0x90};
static const uint8_t add[5] = {0x05, 0x55, 0x66, 0x77, 0x08};
static const uint8_t je[6] = {0x0f, 0x84, 0x11, 0x22, 0x33, 0x04};
static const uint8_t jne[6] = {0x0f, 0x85, 0x71, 0x62, 0x53, 0x08};
static const uint8_t short_jmp[2] = {0xeb, 0x20};
static const uint8_t nop2[2] = {0x66, 0x90};
static const uint8_t nops5x1[5] = {0x90, 0x90, 0x90, 0x90, 0x90};

static char letter(const struct xp__plan *plan)
{
	return "-fwsbqe"[plan->method];
}

static void apply(const struct xp__plan *plan, unsigned phase, uint8_t *text)
{
	memcpy(text + plan->store[phase].off, plan->store[phase].bytes, plan->store[phase].len);
}

/* Whatever the method, the stores lead from old to new, and what was before each of them is known. */
static void check_stores(const struct xp__change *c, const struct xp__plan *plan)
{
	uint8_t text[XP_MAX_LEN], before[XP_MAX_LEN];

	CHECK_EQ(plan->len, c->len);
	CHECK_EQ(plan->known, c->known);
	CHECK(plan->nr_stores <= XP__MAX_STORES);
	CHECK_EQ(plan->nr_stores == 0, plan->method == XP__METHOD_NONE);
	memcpy(text, c->old, c->known);
	for (unsigned phase = 0; phase < plan->nr_stores; phase++) {
		const struct xp__store *store = &plan->store[phase];
		uintptr_t first = c->addr + store->off, last = first + store->len - 1;

		REQUIRE(store->len > 0 && store->off + store->len <= c->known);
		if (store->flags & XP_WRITE_SINGLE)
			CHECK(first / 8 == last / 8);
		xp__commit_plan_before(plan, phase, before);
		CHECK_MEM(before, text + store->off, store->len);
		apply(plan, phase, text);
	}
	CHECK_MEM(text, c->new, c->known);
}

static void check_needs(const struct xp__plan *plan)
{
	static const unsigned wanted[] = {
		[XP__METHOD_NONE] = 0,
		[XP__METHOD_FLIP] = XP_NEED_SYNC,
		[XP__METHOD_WORD] = XP_NEED_SYNC | XP_NEED_SINGLE,
		[XP__METHOD_SHORTJMP] = XP_NEED_SYNC | XP_NEED_SINGLE,
		[XP__METHOD_BREAKPOINT] = XP_NEED_SYNC | XP_NEED_TRAP,
		[XP__METHOD_BYPASS] = XP_NEED_SYNC | XP_NEED_TRAP,
		[XP__METHOD_QUIESCE] = XP_NEED_PARK,
		[XP__METHOD_EARLY] = XP_NEED_ALONE,
	};

	CHECK_EQ(plan->needs, wanted[plan->method]);
	CHECK_EQ(plan->traps, plan->method == XP__METHOD_BREAKPOINT || plan->method == XP__METHOD_BYPASS);
}

/* The methods at offsets 0 to 63; '!' where none is offered. */
static void methods(struct xp__change c, char *found)
{
	for (unsigned offset = 0; offset < LINE; offset++) {
		const char *detail = NULL;
		struct xp__plan plan;
		int error;

		c.addr = 0x400000 + offset;
		error = xp__plan_build(&c, &plan, &detail);
		CHECK_EQ(error != 0, detail != NULL);
		if (!error) {
			check_stores(&c, &plan);
			check_needs(&plan);
		}
		found[offset] = error ? '!' : letter(&plan);
	}
	found[LINE] = '\0';
}

/* @pattern is that of a quadword, and repeats. */
static void choose(const uint8_t *old, const uint8_t *new, uint8_t len, enum xp_policy policy, unsigned can,
		   const char *pattern)
{
	struct xp__change c = {.old = old, .new = new, .len = len, .known = len, .policy = policy, .can = can};
	char found[LINE + 1], wanted[LINE + 1];

	for (unsigned i = 0; i < LINE; i++)
		wanted[i] = pattern[i % strlen(pattern)];
	wanted[LINE] = '\0';
	methods(c, found);
	CHECK_STR(found, wanted);
}

XP_TEST(one_byte_flips_anywhere)
{
	choose(test, jmp, 5, XP_POLICY_AUTO, SINGLE, "f");
	choose(jmp, test, 5, XP_POLICY_AUTO, PLAIN, "f");
	choose(jmp, jmp_last_byte, 5, XP_POLICY_AUTO, PLAIN, "f");
	choose(jmp, jmp_last_byte, 5, XP_POLICY_AUTO, XP_NEED_SYNC, "f");
}

XP_TEST(a_word_is_stored_where_it_fits)
{
	/* All five bytes differ: offsets 0 to 3. The second and third of jmp_near_it: wherever 2 and 3 are together. */
	choose(nop5, jmp, 5, XP_POLICY_AUTO, SINGLE, "wwwwsbsb");
	choose(jmp, nop5, 5, XP_POLICY_AUTO, SINGLE, "wwwwsbsb");
	choose(jmp, jmp_elsewhere, 5, XP_POLICY_AUTO, SINGLE, "wwwwbbbw");
	choose(jmp, jmp_near_it, 5, XP_POLICY_AUTO, SINGLE, "wwwwwbww");
	choose(call, nop5, 5, XP_POLICY_AUTO, SINGLE, "wwwwsbsb");
	choose(nop5, call, 5, XP_POLICY_AUTO, SINGLE, "wwwwsbsb");
	choose(call, jmp, 5, XP_POLICY_AUTO, SINGLE, "wwwwbbbb");
	choose(jmp, call, 5, XP_POLICY_AUTO, SINGLE, "wwwwbbbb");
	choose(je, jne, 6, XP_POLICY_AUTO, SINGLE, "wwwbbbbw");
	choose(nop2, short_jmp, 2, XP_POLICY_AUTO, SINGLE, "wwwwwwwb");
	choose(add, jmp_elsewhere, 5, XP_POLICY_AUTO, SINGLE, "wwwwwbbb"); /* the last byte is the same */
}

XP_TEST(without_single_stores_a_breakpoint)
{
	choose(nop5, jmp, 5, XP_POLICY_AUTO, PLAIN, "b");
	choose(jmp, jmp_elsewhere, 5, XP_POLICY_AUTO, PLAIN, "b");
	choose(ret, jmp, 5, XP_POLICY_AUTO, PLAIN, "b");
}

XP_TEST(without_a_trap_what_is_left)
{
	choose(nop5, jmp, 5, XP_POLICY_AUTO, XP_NEED_SYNC | XP_NEED_SINGLE, "wwwws!s!");
	choose(nop5, jmp, 5, XP_POLICY_AUTO, XP_NEED_SYNC, "!");
	choose(test, jmp, 5, XP_POLICY_BREAKPOINT, XP_NEED_SYNC, "!");
}

XP_TEST(the_policy_decides)
{
	choose(test, jmp, 5, XP_POLICY_BREAKPOINT, SINGLE, "b");
	choose(nop5, jmp, 5, XP_POLICY_BREAKPOINT, SINGLE, "b");
	choose(test, jmp, 5, XP_POLICY_QUIESCE, SINGLE, "q");
	choose(nops5x1, jmp, 5, XP_POLICY_QUIESCE, 0, "q");
	choose(test, jmp, 5, XP_POLICY_EARLY, SINGLE, "e");
	choose(nops5x1, jmp, 5, XP_POLICY_EARLY, 0, "e");
}

XP_TEST(nothing_to_do)
{
	static const enum xp_policy policies[] = {XP_POLICY_AUTO, XP_POLICY_BREAKPOINT, XP_POLICY_QUIESCE,
						  XP_POLICY_EARLY};

	for (size_t i = 0; i < sizeof(policies) / sizeof(policies[0]); i++) {
		choose(jmp, jmp, 5, policies[i], SINGLE, "-");
		choose(nops5x1, nops5x1, 5, policies[i], 0, "-");
	}
}

XP_TEST(what_a_fetch_model_does_not_prove_is_not_chosen)
{
	struct xp__change c = {.old = nop5,
			       .new = jmp,
			       .len = 5,
			       .known = 5,
			       .policy = XP_POLICY_AUTO,
			       .can = SINGLE,
			       .fetch = XP__FETCH_BYTE};
	char found[LINE + 1];

	methods(c, found);
	CHECK_EQ(strspn(found, "b"), LINE);
	c.fetch = XP__FETCH_INTEL_SDM;
	methods(c, found);
	CHECK_EQ(strspn(found, "!"), LINE);
	c.policy = XP_POLICY_QUIESCE;
	methods(c, found);
	CHECK_EQ(strspn(found, "q"), LINE);
}

/* ---- the stores of each ---- */

static struct xp__plan plan_of(const uint8_t *old, const uint8_t *new, uint8_t len, enum xp_policy policy)
{
	struct xp__change c = {
		.addr = 0x400005, .old = old, .new = new, .len = len, .known = len, .policy = policy, .can = PLAIN};
	const char *detail = NULL;
	struct xp__plan plan;

	CHECK_EQ(xp__plan_build(&c, &plan, &detail), 0);
	return plan;
}

static void check_store(const struct xp__plan *plan, unsigned phase, unsigned off, unsigned len)
{
	CHECK_EQ(plan->store[phase].off, off);
	CHECK_EQ(plan->store[phase].len, len);
	CHECK_EQ(plan->store[phase].flags, 0);
}

XP_TEST(breakpoints_cover_what_changes)
{
	struct xp__plan plan = plan_of(nop5, jmp, 5, XP_POLICY_BREAKPOINT);

	CHECK_EQ(plan.nr_stores, 3);
	check_store(&plan, 0, 0, 1);
	CHECK_EQ(plan.store[0].bytes[0], 0xcc);
	check_store(&plan, 1, 1, 4);
	check_store(&plan, 2, 0, 1);
	plan = plan_of(test, jmp, 5, XP_POLICY_BREAKPOINT);
	CHECK_EQ(plan.nr_stores, 2);
	plan = plan_of(jmp, jmp_last_byte, 5, XP_POLICY_BREAKPOINT);
	CHECK_EQ(plan.nr_stores, 3);
	check_store(&plan, 1, 4, 1);
	plan = plan_of(jmp, jmp_near_it, 5, XP_POLICY_BREAKPOINT);
	check_store(&plan, 1, 2, 2);
}

XP_TEST(who_may_be_found_inside)
{
	CHECK(plan_of(nop5, jmp, 5, XP_POLICY_QUIESCE).single);
	CHECK(!plan_of(nops5x1, jmp, 5, XP_POLICY_QUIESCE).single);
	CHECK(!plan_of(add, jmp, 5, XP_POLICY_QUIESCE).single); /* the engine does not know it */
}

/* Of a branch site only the first byte is given; the displacement stays, whatever it is. */
XP_TEST(branch_sites)
{
	static const uint8_t test_only[5] = {0xa9}, jmp_only[5] = {0xe9};
	struct xp__change c = {.old = test_only, .new = jmp_only, .len = 5, .known = 1, .can = SINGLE};
	char found[LINE + 1];

	methods(c, found);
	CHECK_EQ(strspn(found, "f"), LINE);
	c.policy = XP_POLICY_BREAKPOINT;
	methods(c, found);
	CHECK_EQ(strspn(found, "b"), LINE);
	c.policy = XP_POLICY_QUIESCE;
	methods(c, found);
	CHECK_EQ(strspn(found, "q"), LINE);
}

/* ---- resume ---- */

XP_TEST(a_resume_address_replaces_emulation)
{
	struct xp__change c = {.addr = 0x400005,
			       .old = nop5,
			       .new = add,
			       .len = 5,
			       .known = 5,
			       .policy = XP_POLICY_AUTO,
			       .can = PLAIN & ~(unsigned)XP_NEED_CALL,
			       .resume = XP_RESUME_AT,
			       .resume_at = 0x1234};
	const char *detail = NULL;
	struct xp__plan plan;

	CHECK_EQ(xp__plan_build(&c, &plan, &detail), 0);
	CHECK_EQ(plan.resume, 0x1234);
	c.new = call;
	CHECK_EQ(xp__plan_build(&c, &plan, &detail), 0);
	c.resume = XP_RESUME_EMULATE;
	CHECK_EQ(xp__plan_build(&c, &plan, &detail), -XP_E_SHADOW_STACK);
	CHECK(detail != NULL);
	c.new = add;
	CHECK_EQ(xp__plan_build(&c, &plan, &detail), -XP_E_EMULATE);
	c.new = jmp;
	CHECK_EQ(xp__plan_build(&c, &plan, &detail), 0);
	CHECK_EQ(plan.resume, 0);
	CHECK_EQ(plan.insn.kind, XP__INSN_JMP);
}

XP_TEST_MAIN()
