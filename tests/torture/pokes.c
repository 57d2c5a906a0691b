// SPDX-License-Identifier: MIT
/*
 * Raw pokes of every form at every offset of a cache line and across a page boundary, three threads executing, one
 * patching; under each policy and writer. The test predicts the method from form, address, policy and writer, and the
 * number of syncs must agree; where a method without traps is predicted, none may be taken.
 */
#include "xp_pokes.h"

enum { NR_LINE = 64, NR_CROSSING = XP_MAX_LEN, NR_PLACES = NR_LINE + NR_CROSSING };
enum method { FLIP, WORD, SHORTJMP, BREAKPOINT, NR_METHODS };

static struct poke_site places[NR_PLACES];
static struct poke_site *sites[NR_PLACES]; /* those of the present run */
static unsigned nr_sites, next;
static unsigned wrong;
static unsigned used[NR_METHODS];
static enum xp_policy policy;
static bool single; /* the writer's */

/* One place per offset of a line; then, each on pages of its own, 1 to 15 bytes before the end of a page. */
static bool make_places(struct xp_text *text, const struct form *form)
{
	if (!xp_text_alloc(text, NR_LINE * 256 + NR_CROSSING * 2 * XP_TEXT_PAGE))
		return false;
	for (unsigned i = 0; i < NR_LINE; i++)
		poke_site_make(&places[i], form, text->base + i * 256 + 64 + i);
	for (unsigned i = 0; i < NR_CROSSING; i++)
		poke_site_make(&places[NR_LINE + i], form,
			       text->base + NR_LINE * 256 + (2 * i + 1) * XP_TEXT_PAGE - 1 - i % XP_MAX_LEN);
	return xp_text_seal(text);
}

static unsigned first_difference(const struct form *form)
{
	unsigned at = 0;

	while (form->variants[0].bytes[at] == form->variants[1].bytes[at])
		at++;
	return at;
}

static unsigned last_difference(const struct form *form)
{
	unsigned at = form->len - 1u;

	while (form->variants[0].bytes[at] == form->variants[1].bytes[at])
		at--;
	return at;
}

/* What design.md's table of methods says. */
static enum method predict(const struct poke_site *site)
{
	const struct form *form = site->form;
	uintptr_t addr = (uintptr_t)site->addr;
	unsigned first = first_difference(form), last = last_difference(form);
	bool nop_jmp = !strncmp(form->name, "nop5_jmp", 8);
	bool one_insn = strcmp(form->name, "jmp_padded") != 0 && strcmp(form->name, "nop15_jmp") != 0;

	if (policy != XP_POLICY_AUTO)
		return BREAKPOINT;
	if (first == last)
		return FLIP;
	if (single && one_insn && (addr + first) / 8 == (addr + last) / 8)
		return WORD;
	if (single && nop_jmp && addr % 2 == 0)
		return SHORTJMP;
	return BREAKPOINT;
}

static unsigned predict_syncs(const struct poke_site *site, enum method method)
{
	switch (method) {
	case FLIP:
	case WORD:
		return 1;
	case SHORTJMP:
		return 3;
	default:
		return last_difference(site->form) == 0 ? 2 : 3;
	}
}

static uint64_t execute(void *context, uint64_t *random)
{
	unsigned flag = (unsigned)xp_test_random(random) & 1;

	(void)context;
	for (unsigned i = 0; i < nr_sites; i++)
		if (!poke_site_execute(sites[i], flag))
			__atomic_add_fetch(&wrong, 1, __ATOMIC_RELAXED);
	return nr_sites;
}

static int patch(void *context, uint64_t *random, struct xp_diag *diag)
{
	struct poke_site *site = sites[next++ % nr_sites];
	struct xp_poke poke = poke_site_step(site, xp_epoch_state(*site->epoch));
	enum method method = predict(site);
	struct xp_stats before, after;
	int error;

	(void)context;
	(void)random;
	xp_stats_read(&before);
	xp_epoch_begin(site->epoch);
	error = xp_text_poke(&poke, diag);
	if (!error)
		xp_epoch_end(site->epoch);
	xp_stats_read(&after);
	CHECK_EQ(after.syncs - before.syncs, predict_syncs(site, method));
	used[method]++;
	return error;
}

/* The places of @form whose predicted method traps, or those whose does not. */
static void select_sites(bool traps)
{
	nr_sites = next = 0;
	for (unsigned i = 0; i < NR_PLACES; i++)
		if ((predict(&places[i]) == BREAKPOINT) == traps)
			sites[nr_sites++] = &places[i];
}

static void run_form(const struct form *form, unsigned nr_threads)
{
	struct xp_torture torture = {.execute = execute, .patch = patch, .nr_threads = nr_threads};
	struct xp_text text;

	REQUIRE(make_places(&text, form));
	XP_TEST_NOTE("form %s", form->name);
	for (int traps = 0; traps < 2; traps++) {
		select_sites(traps);
		if (nr_sites == 0)
			continue;
		torture.seconds = xp_torture_seconds / NR_FORMS / 2;
		/* Whether one site out of many is hit in so short a time is chance; the case as a whole must trap. */
		torture.traps = traps ? XP_TRAPS_ANY : XP_TRAPS_NONE;
		CHECK(xp_torture_run(&torture) > 0);
	}
	CHECK_EQ(__atomic_load_n(&wrong, __ATOMIC_RELAXED), 0);
	xp_text_free(&text);
}

static void run(enum xp_policy with, enum xp_writer writer, enum xp_sync sync)
{
	struct xp_stats before, after;

	if (!xp_torture_set(with, writer, sync))
		return;
	policy = with;
	single = writer != XP_WRITER_PROCMEM;
	wrong = 0;
	memset(used, 0, sizeof(used));
	xp_stats_read(&before);
	/* Once more where no form met a trap, as in xp_torture_run(). */
	for (unsigned times = 0; times < 10 && !xp_torture_trapped(&before); times++)
		for (unsigned i = 0; i < NR_FORMS; i++)
			/*
			 * The rendezvous waits for each thread to get a processor: with more threads than those,
			 * milliseconds.
			 */
			run_form(&forms[i], sync == XP_SYNC_SIGNAL ? 1 : 3);
	xp_stats_read(&after);
	XP_TEST_NOTE("flip %u, word %u, shortjmp %u, breakpoint %u", used[FLIP], used[WORD], used[SHORTJMP],
		     used[BREAKPOINT]);
	CHECK(used[BREAKPOINT] > 0);
	CHECK(after.traps > before.traps);
	if (policy == XP_POLICY_AUTO) {
		CHECK(used[FLIP] > 0);
		CHECK_EQ(used[WORD] > 0, single);
		CHECK_EQ(used[SHORTJMP] > 0, single);
	}
}

XP_TORTURE_CASE(auto_procmem, AUTO, PROCMEM, MEMBARRIER)
XP_TORTURE_CASE(auto_mprotect, AUTO, MPROTECT, MEMBARRIER)
XP_TORTURE_CASE(breakpoint_procmem, BREAKPOINT, PROCMEM, MEMBARRIER)
XP_TORTURE_CASE(breakpoint_mprotect_signal, BREAKPOINT, MPROTECT, SIGNAL)
XP_TORTURE_CASE(auto_pkey, AUTO, PKEY, MEMBARRIER)
XP_TORTURE_CASE(breakpoint_pkey, BREAKPOINT, PKEY, MEMBARRIER)

XP_TORTURE_MAIN()
