// SPDX-License-Identifier: MIT
/*
 * Every call of the port fails once, twice, or from then on, at every place where a commit makes it. Each time: the
 * code and the phase are right, the site at fault is named, a bystander finds nothing torn at any step, and afterwards
 * either all is as before and the engine goes on, or it is wedged and says so, and the breakpoints left are served.
 *
 * Each fault runs in a child process: a wedged engine stays wedged, and memory is counted from a fresh start.
 */
#include "arch/x86/insn.h"
#include "bystander.h"
#include "scenario.h"
#include "xp_test.h"

#include <errno.h>

struct kind {
	enum rec_op op;
	int error;
	enum xp_phase phase;
	const char *name;
};

/* A failed allocation may be noticed while validating or while preparing: NONE stands for either. */
static const struct kind kinds[] = {
	{REC_ALLOC, -ENOMEM, XP_PHASE_NONE, "alloc"},
	{REC_PREPARE, -XP_E_NO_SYNC, XP_PHASE_PREPARE, "prepare"},
	{REC_CHECK, -XP_E_NOT_TEXT, XP_PHASE_VALIDATE, "check"},
	{REC_READ, -XP_E_NOT_TEXT, XP_PHASE_VALIDATE, "read"},
	{REC_WRITE, -EIO, XP_PHASE_STORE, "write"},
	{REC_SYNC, -ENOSYS, XP_PHASE_SYNC, "sync"},
	{REC_PARK, -XP_E_IN_RANGE, XP_PHASE_PREPARE, "park"},
};

struct trial {
	const struct scenario *scenario;
	const struct kind *kind, *second; /* second: another fault, in the rollback; or NULL */
	unsigned nth, count, second_nth;
	size_t live; /* blocks of memory that an undisturbed commit leaves with the engine */
};

static void note(const struct trial *t)
{
	printf("# in scenario %s: %s %u fails", t->scenario->name, t->kind->name, t->nth);
	if (t->count > 1)
		printf(" %s", t->count == REC_FOREVER ? "and all later ones" : "and the next");
	if (t->second)
		printf(", then %s %u and all later ones", t->second->name, t->second_nth);
	putchar('\n');
}

/* A breakpoint of another program: ours if a table still has it. */
static bool table_has(const struct scenario *s)
{
	uint8_t *site = rec_text + s->site[0].offset, saved = *site;
	uint64_t stack[4] = {0};
	struct xp_regs regs = {.ip = (uintptr_t)site + 1, .gpr[4] = (uintptr_t)&stack[2]};
	enum xp_trap_verdict verdict;

	*site = XP__INSN_INT3_BYTE;
	verdict = xp_trap(&regs, 0);
	*site = saved;
	return verdict != XP_TRAP_FOREIGN;
}

static bool may_wedge(const struct trial *t)
{
	return t->kind->op == REC_WRITE || t->kind->op == REC_SYNC;
}

static void check_diag(const struct trial *t, const struct xp_diag *diag, bool wedged)
{
	if (t->kind->phase == XP_PHASE_NONE)
		CHECK(diag->phase == XP_PHASE_VALIDATE || diag->phase == XP_PHASE_PREPARE ||
		      diag->phase == XP_PHASE_NONE);
	else
		CHECK_EQ(diag->phase, wedged ? XP_PHASE_ROLLBACK : t->kind->phase);
	if (diag->phase != XP_PHASE_NONE)
		CHECK_EQ(diag->error, t->kind->error);
	if (t->kind->op == REC_WRITE || t->kind->op == REC_CHECK || t->kind->op == REC_READ)
		CHECK(scenario_has(t->scenario, diag->site));
	if (t->kind->op == REC_WRITE) {
		const uint8_t *site = diag->site;

		/* Inside the write, or begun before it: the write may be of a site's tail. */
		CHECK(site + XP_MAX_LEN > rec.failed && site < rec.failed + rec.failed_len);
	}
}

/* The same commit again, with nothing in its way. */
static void check_usable(const struct trial *t)
{
	const struct scenario *s = t->scenario;
	struct xp_diag diag;

	bystander_check(BY_OLD);
	CHECK_EQ(scenario_commit(s, &diag), 0);
	CHECK_EQ(diag.error, 0);
	CHECK(scenario_is(s, true));
	bystander_check(BY_NEW);
	CHECK_EQ(rec.live, t->live);
}

static void check_undone(const struct trial *t)
{
	CHECK_EQ(xp_state(), XP_STATE_READY);
	CHECK(scenario_is(t->scenario, false));
	if (t->scenario->site[0].len)
		CHECK(!table_has(t->scenario));
	check_usable(t);
}

static void check_wedged(const struct trial *t)
{
	static const uint8_t nop = 0x90;
	struct xp_poke poke = {.addr = rec_text + 0x100, .expect = &nop, .replace = &nop, .len = 1};
	struct xp_diag diag;

	CHECK_EQ(xp_state(), XP_STATE_WEDGED);
	rec_put(0x100, &nop, 1);
	rec_forget();
	CHECK_EQ(xp_text_poke(&poke, &diag), -XP_E_WEDGED);
	CHECK_EQ(diag.error, -XP_E_WEDGED);
	CHECK_EQ(scenario_commit(t->scenario, &diag), -XP_E_WEDGED);
	CHECK_EQ(rec.calls[REC_WRITE] + rec.calls[REC_SYNC], 0);
	CHECK(scenario_counts_are(t->scenario, false));
	bystander_check(BY_OLD | BY_NEW | BY_TRAP);
	if (rec.prepared & XP_NEED_TRAP)
		CHECK(table_has(t->scenario));
}

static void run_trial(const void *argument)
{
	const struct trial *t = argument;
	struct xp_diag diag;
	bool wedged;
	int error;

	scenario_start(t->scenario);
	bystander_start();
	rec_fail(t->kind->op, t->nth, t->count, t->kind->error);
	if (t->second)
		rec_fail(t->second->op, t->second_nth, REC_FOREVER, t->second->error);
	error = scenario_commit(t->scenario, &diag);
	if (rec.first_hit != &rec.fault[0])
		return;
	CHECK_EQ(error, t->kind->error);
	/* A rollback that has nothing to write does not fail of it: what strikes twice struck in the rollback. */
	wedged = may_wedge(t) && (t->second ? rec.fault[1].hits > 0 : rec.fault[0].hits > 1);
	CHECK_EQ(xp_state() == XP_STATE_WEDGED, wedged);
	check_diag(t, &diag, wedged);
	rec_heal();
	if (wedged)
		check_wedged(t);
	else
		check_undone(t);
	CHECK(bystander_counts.views > 0);
	scenario_end(t->scenario);
	if (xp_test_state.failures)
		note(t);
}

/* What an undisturbed commit does, found out in a child, like the trials. */
struct outcome {
	unsigned calls[REC_NR_OPS];
	size_t live;
};

struct rehearsal {
	const struct scenario *scenario;
	struct outcome *outcome; /* shared with the parent */
};

static void run_rehearsal(const void *argument)
{
	const struct rehearsal *r = argument;
	struct xp_diag diag;

	scenario_start(r->scenario);
	CHECK_EQ(scenario_commit(r->scenario, &diag), 0);
	memcpy(r->outcome->calls, rec.calls, sizeof(rec.calls));
	r->outcome->live = rec.live;
	scenario_end(r->scenario);
}

static const struct outcome *rehearse(const struct scenario *s)
{
	static struct outcome *outcome;

	if (outcome == NULL)
		outcome = rec_shared(sizeof(*outcome));
	rec_isolated(run_rehearsal, &(struct rehearsal){s, outcome});
	return outcome;
}

static void every_call(const struct scenario *s, const struct kind *kind)
{
	static const unsigned counts[] = {1, 2, REC_FOREVER};
	const struct outcome *outcome = rehearse(s);
	struct trial t = {.scenario = s, .kind = kind, .live = outcome->live};

	for (t.nth = 1; t.nth <= outcome->calls[kind->op]; t.nth++)
		for (size_t c = 0; c < sizeof(counts) / sizeof(counts[0]); c++) {
			t.count = counts[c];
			rec_isolated(run_trial, &t);
		}
}

static void every_scenario(enum rec_op op)
{
	for (size_t k = 0; k < sizeof(kinds) / sizeof(kinds[0]); k++)
		for (size_t i = 0; i < nr_scenarios && kinds[k].op == op; i++)
			every_call(&scenarios[i], &kinds[k]);
}

XP_TEST(alloc)
{
	every_scenario(REC_ALLOC);
}

XP_TEST(prepare)
{
	every_scenario(REC_PREPARE);
}

XP_TEST(text_check)
{
	every_scenario(REC_CHECK);
}

XP_TEST(text_read)
{
	every_scenario(REC_READ);
}

XP_TEST(text_write)
{
	every_scenario(REC_WRITE);
}

XP_TEST(sync_core)
{
	every_scenario(REC_SYNC);
}

XP_TEST(park)
{
	every_scenario(REC_PARK);
}

/*
 * The rollback itself fails, at every one of its steps: half undone, nothing may be torn. A second fault that comes before
 * the first is a trial of the cases above, one that comes after the end is none.
 */
static void rollback_fails(const struct kind *first, const struct kind *second)
{
	for (size_t i = 0; i < nr_scenarios; i++) {
		const struct outcome *outcome = rehearse(&scenarios[i]);
		struct trial t = {
			.scenario = &scenarios[i], .kind = first, .count = 1, .second = second, .live = outcome->live};

		for (t.nth = 1; t.nth <= outcome->calls[first->op]; t.nth++)
			for (t.second_nth = 1; t.second_nth <= 2 * outcome->calls[second->op]; t.second_nth++)
				rec_isolated(run_trial, &t);
	}
}

static const struct kind *find_kind(enum rec_op op)
{
	size_t k = 0;

	while (kinds[k].op != op)
		k++;
	return &kinds[k];
}

XP_TEST(write_then_sync_of_the_rollback)
{
	rollback_fails(find_kind(REC_WRITE), find_kind(REC_SYNC));
}

XP_TEST(sync_then_write_of_the_rollback)
{
	rollback_fails(find_kind(REC_SYNC), find_kind(REC_WRITE));
}

XP_TEST(write_then_write_of_the_rollback)
{
	rollback_fails(find_kind(REC_WRITE), find_kind(REC_WRITE));
}

XP_TEST(sync_then_sync_of_the_rollback)
{
	rollback_fails(find_kind(REC_SYNC), find_kind(REC_SYNC));
}

XP_TEST_MAIN()
