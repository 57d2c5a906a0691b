// SPDX-License-Identifier: MIT
/* A bystander executes every site after every step, from every view that the rules allow: see bystander.h. */
#include "bystander.h"
#include "scenario.h"
#include "xp_test.h"

static void commit_watched(const struct scenario *s)
{
	unsigned failures = xp_test_state.failures;
	struct xp_diag diag;

	scenario_start(s);
	bystander_start();
	bystander_check(BY_OLD);
	CHECK_EQ(scenario_commit(s, &diag), 0);
	CHECK(scenario_is(s, true));
	bystander_check(BY_NEW);
	CHECK(bystander_counts.views > 0);
	CHECK_EQ(bystander_counts.traps > 0, (rec.prepared & XP_NEED_TRAP) != 0);
	scenario_end(s);
	if (xp_test_state.failures != failures)
		XP_TEST_NOTE("in scenario %s", s->name);
}

XP_TEST(undisturbed_commits)
{
	for (size_t i = 0; i < nr_scenarios; i++)
		commit_watched(&scenarios[i]);
}

/* The same at every offset of a cache line and across a page. */
static void at_every_offset(const char *name)
{
	struct scenario s = *scenario_find(name);

	for (size_t offset = 4096 - 64; offset < 4096; offset++) {
		s.site[0].offset = offset;
		commit_watched(&s);
	}
}

XP_TEST(every_offset)
{
	at_every_offset("flip");
	at_every_offset("breakpoint to jmp");
	at_every_offset("breakpoint to nop");
	at_every_offset("word"); /* where it does not fit, shortjmp or breakpoint */
	at_every_offset("shortjmp to nop");
	at_every_offset("shortjmp to call");
}

/* Sites next to each other, written by one call, each fetched on its own. */
XP_TEST(adjacent_sites)
{
	struct scenario s = *scenario_find("breakpoint to jmp");

	s.repeat = 100;
	s.stride = 5;
	commit_watched(&s);
}

/* A site with the longest tail that a breakpoint can cover: 2^15 mixtures. */
XP_TEST(sixteen_bytes)
{
	struct scenario s = *scenario_find("breakpoint, resume");

	s.site[0].len = 16;
	for (unsigned i = 0; i < 16; i++) {
		s.site[0].old[i] = (uint8_t)(0xb8 + (i ? i : 0));
		s.site[0].new[i] = (uint8_t)(0xb8 - i);
	}
	s.site[0].old[0] = 0x05; /* no instruction that the engine knows */
	s.site[0].new[0] = 0x0d;
	commit_watched(&s);
}

static void back_and_forth(const struct scenario *s)
{
	struct scenario back = *s;

	for (int i = 0; i < SCENARIO_MAX_SITES; i++) {
		memcpy(back.site[i].old, s->site[i].new, XP_MAX_LEN);
		memcpy(back.site[i].new, s->site[i].old, XP_MAX_LEN);
	}
	commit_watched(s);
	commit_watched(&back);
}

XP_TEST(the_way_back)
{
	static const char *const names[] = {"flip",
					    "word",
					    "shortjmp to jmp",
					    "shortjmp to call",
					    "breakpoint to jmp",
					    "breakpoint call to call",
					    "breakpoint nop to call",
					    "breakpoint jcc to jcc",
					    "breakpoint ret to jmp",
					    "breakpoint nop to test",
					    "breakpoint, resume",
					    "breakpoint, first byte",
					    "breakpoint, last byte",
					    "mixed, all methods"};

	for (size_t i = 0; i < sizeof(names) / sizeof(names[0]); i++)
		back_and_forth(scenario_find(names[i]));
}

/* The bystander itself must be able to fail. */
XP_TEST(a_torn_store_is_noticed)
{
	const struct scenario *s = scenario_find("breakpoint to jmp");
	unsigned wrong = 0;
	struct xp_diag diag;

	scenario_start(s);
	CHECK_EQ(scenario_commit(s, &diag), 0);
	/* As if new were stored over old at once. */
	rec_put(s->site[0].offset, s->site[0].old, s->site[0].len);
	bystander_start();
	rec_put(s->site[0].offset, s->site[0].new, s->site[0].len);
	bystander_wrong = &wrong;
	rec.step(&(struct rec_step){.op = REC_WRITE});
	bystander_wrong = NULL;
	CHECK_EQ(wrong, 32 - 2 - 3); /* all mixtures but old, new, and three nops with another displacement */
	scenario_end(s);
}

XP_TEST_MAIN()
