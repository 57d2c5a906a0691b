// SPDX-License-Identifier: MIT
/* Asks xp__plan_build() for every plan it can be brought to make, and the explorer for its opinion of each. */
#include "verify/matrix.h"

#include "arch/x86/method.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

const char *const xp__method_names[XP__NR_METHODS] = {
	"none", "flip", "word", "shortjmp", "breakpoint", "quiesce", "early", "bypass",
};

#define RESUME XP__KIND_RESUME
#define SEVERAL XP__KIND_SEVERAL
#define REX XP__KIND_REX
#define BYPASS XP__KIND_BYPASS

/*
 * The one table of what the library may do to a site: a new change that the selection knows is added here, in both
 * directions, and everything else (crosspatch verify --all, the tests, doc/matrix.md) follows. All bytes that change differ
 * in every kind but the flips: the hardest case. Kinds that can follow each other at one site (new bytes of one are the
 * old bytes of another) are also tried one after the other.
 */
#define DISP1 0x11, 0x22, 0x33, 0x44
#define DISP2 0x95, 0xa6, 0xb7, 0xc8
#define DISP3 0x59, 0x6a, 0x7b, 0x8c
#define SIGNATURE 0x58, 0x50
#define PROLOGUE 0x55, 0x48, 0x89, 0xe5, 0x48, 0x83, 0xec, 0x10
#define NOP2 0x66, 0x90
#define NOP3 0x0f, 0x1f, 0x00
#define NOP4 0x0f, 0x1f, 0x40, 0x00
#define NOP5 0x0f, 0x1f, 0x44, 0x00, 0x00
#define NOP6 0x66, 0x0f, 0x1f, 0x44, 0x00, 0x00
#define NOP9 0x66, 0x0f, 0x1f, 0x84, 0x00, 0x00, 0x00, 0x00, 0x00

const struct xp__kind xp__kinds[] = {
	{"static branch: test to jmp", 5, 1, 0, {0xa9, DISP1}, {0xe9, DISP1}},
	{"static branch: jmp to test", 5, 1, 0, {0xe9, DISP1}, {0xa9, DISP1}},
	{"test8 to jmp8", 2, 2, 0, {0xa8, 0x11}, {0xeb, 0x11}},
	{"jcc8 to jmp8", 2, 2, 0, {0x74, 0x11}, {0xeb, 0x11}},
	{"nop5 to jmp", 5, 5, 0, {NOP5}, {0xe9, DISP1}},
	{"jmp to nop5", 5, 5, 0, {0xe9, DISP1}, {NOP5}},
	{"jmp to another jmp", 5, 5, 0, {0xe9, DISP1}, {0xe9, DISP2}},
	{"jmp to a third jmp", 5, 5, 0, {0xe9, DISP2}, {0xe9, DISP3}},
	{"nop5 to call", 5, 5, 0, {NOP5}, {0xe8, DISP1}},
	{"call to nop5", 5, 5, 0, {0xe8, DISP1}, {NOP5}},
	{"entry: nop5 to test", 5, 5, 0, {NOP5}, {0xa9, DISP1}},
	{"entry: test to call", 5, 1, 0, {0xa9, DISP1}, {0xe8, DISP1}},
	{"entry: call to test", 5, 1, 0, {0xe8, DISP1}, {0xa9, DISP1}},
	{"entry: test to jmp", 5, 5, 0, {0xa9, DISP1}, {0xe9, DISP2}},
	{"entry: jmp to test", 5, 5, 0, {0xe9, DISP2}, {0xa9, DISP1}},
	{"call to another call", 5, 5, 0, {0xe8, DISP1}, {0xe8, DISP2}},
	{"call to a third call", 5, 5, 0, {0xe8, DISP2}, {0xe8, DISP3}},
	{"call to jmp", 5, 5, 0, {0xe8, DISP1}, {0xe9, DISP2}},
	{"call to xor eax, eax", 5, 5, REX, {0xe8, DISP1}, {0x66, 0x66, 0x48, 0x31, 0xc0}},
	{"xor eax, eax to call", 5, 5, REX, {0x66, 0x66, 0x48, 0x31, 0xc0}, {0xe8, DISP1}},
	{"nop5 to jmp, resume given", 5, 5, RESUME, {NOP5}, {0xe9, DISP1}},
	{"nop2 to jmp8", 2, 2, 0, {NOP2}, {0xeb, 0x11}},
	{"jmp8 to nop2", 2, 2, 0, {0xeb, 0x11}, {NOP2}},
	{"jcc to another jcc", 6, 6, 0, {0x0f, 0x84, DISP1}, {0x0f, 0x85, DISP2}},
	{"nop6 to jcc", 6, 6, 0, {NOP6}, {0x0f, 0x84, DISP1}},
	{"jcc to nop6", 6, 6, 0, {0x0f, 0x84, DISP1}, {NOP6}},
	{"nop2 to two nops", 2, 2, 0, {NOP2}, {0x90, 0x90}},
	{"nop5 to jmp8 and nop3", 5, 5, 0, {NOP5}, {0xeb, 0x11, NOP3}},
	{"jmp8 and nop3 to jmp", 5, 5, 0, {0xeb, 0x11, NOP3}, {0xe9, DISP1}},
	{"nop9 to jmp and nop4", 9, 9, 0, {NOP9}, {0xe9, DISP1, NOP4}},
	{"nop9 to call and nop4", 9, 9, 0, {NOP9}, {0xe8, DISP1, NOP4}},
	{"gate: ud2 to call", 8, 8, REX, {0x0f, 0x0b, 0x2e, 0xe8, 0, 0, 0, 0}, {0x2e, 0x2e, 0x2e, 0xe8, DISP1}},
	{"gate: call to another call", 8, 8, REX, {0x2e, 0x2e, 0x2e, 0xe8, DISP1}, {0x2e, 0x2e, 0x2e, 0xe8, DISP2}},
	{"gate: ud2 to jmp", 8, 8, REX, {0x0f, 0x0b, 0x2e, 0xe9, 0, 0, 0, 0}, {0x2e, 0x2e, 0x2e, 0xe9, DISP1}},
	{"ret and nop4 to jmp", 5, 5, 0, {0xc3, NOP4}, {0xe9, DISP1}},
	{"jmp to ret and nop4", 5, 5, 0, {0xe9, DISP1}, {0xc3, NOP4}},
	{"trampoline: jmp through memory to jmp", 6, 6, RESUME, {0xff, 0x25, DISP1}, {0xe9, DISP2, 0x90}},
	{"trampoline: jmp to jmp through memory", 6, 6, RESUME, {0xe9, DISP2, 0x90}, {0xff, 0x25, DISP1}},
	{"trampoline: jmp to another jmp", 6, 6, RESUME, {0xe9, DISP1, 0x90}, {0xe9, DISP2, 0x90}},
	{"test8 immediate", 2, 2, 0, {0xa8, 0x11}, {0xa8, 0x95}},
	{"test16 immediate", 4, 4, 0, {0x66, 0xa9, 0x11, 0x22}, {0x66, 0xa9, 0x95, 0xa6}},
	{"test32 immediate", 5, 5, 0, {0xa9, DISP1}, {0xa9, DISP2}},
	{"test64 immediate", 6, 6, REX, {0x48, 0xa9, DISP1}, {0x48, 0xa9, DISP2}},
	{"mov8 immediate", 2, 2, 0, {0xb0, 0x11}, {0xb0, 0x95}},
	{"mov8 immediate with REX", 3, 3, REX, {0x41, 0xb0, 0x11}, {0x41, 0xb0, 0x95}},
	{"mov16 immediate", 4, 4, 0, {0x66, 0xb8, 0x11, 0x22}, {0x66, 0xb8, 0x95, 0xa6}},
	{"mov16 immediate with REX", 5, 5, REX, {0x66, 0x41, 0xb8, 0x11, 0x22}, {0x66, 0x41, 0xb8, 0x95, 0xa6}},
	{"mov32 immediate", 5, 5, 0, {0xb8, DISP1}, {0xb8, DISP2}},
	{"mov32 immediate with REX", 6, 6, REX, {0x41, 0xb8, DISP1}, {0x41, 0xb8, DISP2}},
	{"mov32 immediate, one byte", 5, 5, 0, {0xb8, DISP1}, {0xb8, 0x11, 0x22, 0x95, 0x44}},
	{"mov32 immediate, long form", 7, 7, REX, {0x48, 0xc7, 0xc0, DISP1}, {0x48, 0xc7, 0xc0, DISP2}},
	{"mov64 immediate", 10, 10, REX, {0x48, 0xb8, DISP1, DISP2}, {0x48, 0xb8, DISP2, DISP1}},
	{"mov64 immediate, low half", 10, 10, REX, {0x48, 0xb8, DISP1, DISP1}, {0x48, 0xb8, DISP2, DISP1}},
	{"mov32 immediate, resume given", 5, 5, RESUME, {0xb8, DISP1}, {0xb8, DISP2}},
	{"mov64 immediate, resume given", 10, 10, RESUME | REX, {0x48, 0xb8, DISP1, DISP2}, {0x48, 0xb8, DISP2, DISP1}},
	{"jmp *memory to jmp", 8, 8, RESUME, {0xff, 0x25, DISP1, SIGNATURE}, {0xe9, DISP2, 0xcc, SIGNATURE}},
	{"jmp to jmp *memory", 8, 8, RESUME, {0xe9, DISP2, 0xcc, SIGNATURE}, {0xff, 0x25, DISP1, SIGNATURE}},
	{"add32 immediate, no resume", 5, 5, 0, {0x05, DISP1}, {0x05, DISP2}},
	{"lock add to another lock add", 5, 5, BYPASS, {0xf0, 0x83, 0x47, 0x11, 0x22}, {0xf0, 0x83, 0x46, 0x95, 0xa6}},
	{"nop5 to lock add", 5, 5, BYPASS, {NOP5}, {0xf0, 0x83, 0x47, 0x11, 0x22}},
	{"addss to mulss", 8, 8, BYPASS, {0xf3, 0x0f, 0x58, 0x05, DISP1}, {0xf2, 0x0f, 0x59, 0x05, DISP2}},
	/* Several instructions. The first of each is not known to the selection but in "five nops". */
	{"five nops to jmp", 5, 5, 0, {0x90, 0x90, 0x90, 0x90, 0x90}, {0xe9, DISP1}},
	{"push, mov, sub to jmp", 8, 8, SEVERAL, {PROLOGUE}, {0xe9, DISP1, NOP3}},
	{"ud2 to call and add", 8, 8, SEVERAL, {0x0f, 0x0b, 0x34, 0x12}, {0xe8, DISP1, 0x83, 0xc0, 0x07}},
	{"call and add to ud2", 8, 8, SEVERAL, {0xe8, DISP1, 0x83, 0xc0, 0x07}, {0x0f, 0x0b, 0x34, 0x12}},
	{"jmp to push, mov, sub", 8, 8, SEVERAL, {0xe9, DISP1, NOP3}, {PROLOGUE}},
};
const unsigned xp__nr_kinds = sizeof(xp__kinds) / sizeof(xp__kinds[0]);
_Static_assert(sizeof(xp__kinds) / sizeof(xp__kinds[0]) <= XP__MAX_KINDS, "cells");

unsigned xp__address(unsigned i)
{
	return i < 64 ? i : 4096 - (i - 63);
}

/* The ports that matter: what they can do changes the choice. */
static const unsigned ports[] = {~0u, ~(unsigned)XP_NEED_SINGLE};

static const enum xp_policy policies[] = {XP_POLICY_AUTO, XP_POLICY_BREAKPOINT, XP_POLICY_QUIESCE, XP_POLICY_EARLY};

/* One or two commits, the second if it has a length. */
struct question {
	struct xp__plan plan[2];
	unsigned fail[2], model, boundaries;
};

/* The same plan at addresses that cut it at the same places has the same answer (explore.h): it is asked once. */
struct answer {
	struct question question;
	bool known, proven;
};

#define NR_ANSWERS 4096u

struct run {
	struct xp__explorer *explorer;
	const struct xp__watch *watch;
	struct xp__matrix *matrix;
	struct answer *answers;
	int error;
};

static struct answer *find_answer(struct run *run, const struct question *question)
{
	const uint8_t *bytes = (const uint8_t *)question;
	uint64_t hash = 0xcbf29ce484222325u;

	for (size_t i = 0; i < sizeof(*question); i++)
		hash = (hash ^ bytes[i]) * 0x100000001b3u;
	return &run->answers[(hash ^ hash >> 32) % NR_ANSWERS];
}

/* Whether the schedule of @question is proven at @addr. @wrong: it should be, so a counterexample is reported. */
static bool ask(struct run *run, const struct question *question, const char *name, unsigned addr, bool wrong)
{
	const struct xp__plan *plan = question->plan;
	const struct xp__model *model = &run->matrix->models[question->model];
	struct answer *answer = find_answer(run, question);
	struct xp__schedule schedule;
	struct xp__result result;
	bool known = answer->known && memcmp(&answer->question, question, sizeof(*question)) == 0;

	run->matrix->nr_asked++;
	if (known && (answer->proven || !wrong))
		return answer->proven;
	xp__schedule_of_plan(&schedule, &plan[0], question->fail[0]);
	if (plan[1].len)
		xp__schedule_continue(&schedule, &plan[1], question->fail[1]);
	snprintf(schedule.name, sizeof(schedule.name), "%s, %s%s%s%s%s", name, xp__method_names[plan[0].method],
		 question->fail[0] == XP__NO_FAILURE ? "" : " rolled back", plan[1].len ? ", then " : "",
		 plan[1].len ? xp__method_names[plan[1].method] : "",
		 plan[1].len && question->fail[1] != XP__NO_FAILURE ? " rolled back" : "");
	run->error = xp__explore(run->explorer, &schedule, addr, model, &result);
	run->matrix->nr_explored++;
	run->matrix->nr_states += result.nr_states;
	answer->question = *question;
	answer->known = run->error == 0;
	answer->proven = result.proven;
	if (wrong && !result.proven) {
		run->matrix->nr_wrong++;
		if (run->watch->wrong)
			run->watch->wrong(run->watch->data, &schedule, addr, model, &result);
	}
	return result.proven;
}

static struct question make_question(const struct run *run, const struct xp__plan *first, unsigned fail_first,
				     const struct xp__plan *second, unsigned fail_second, unsigned addr, unsigned m)
{
	struct question question;

	/* It is hashed and compared as bytes. */
	memset(&question, 0, sizeof(question));
	question.plan[0] = *first;
	question.fail[0] = fail_first;
	if (second)
		question.plan[1] = *second;
	question.fail[1] = fail_second;
	question.model = m;
	question.boundaries = xp__boundaries(addr, first->len, run->matrix->models[m].granule);
	return question;
}

static bool build(const struct xp__kind *kind, unsigned addr, enum xp_policy policy, unsigned can, enum xp__fetch fetch,
		  struct xp__plan *plan)
{
	const char *detail;
	struct xp__change change = {
		.addr = addr,
		.old = kind->old,
		.new = kind->new,
		.len = kind->len,
		.known = kind->known,
		.resume = kind->flags &RESUME   ? XP_RESUME_AT
			  : kind->flags &BYPASS ? XP_RESUME_BYPASS
						: XP_RESUME_EMULATE,
		.resume_at = kind->flags &RESUME ? 1 : 0,
		.policy = policy,
		.can = can,
		.fetch = fetch,
	};

	return xp__plan_build(&change, plan, &detail) == 0;
}

/* The plan, and each of its rollbacks. Returns how many are proven, of plan->nr_stores + 1. */
static unsigned judge(struct run *run, const struct xp__plan *plan, const char *name, unsigned addr, unsigned m,
		      bool chosen)
{
	unsigned nr_proven = 0;

	for (unsigned fail = 0; fail <= plan->nr_stores && !run->error; fail++) {
		struct question question =
			make_question(run, plan, fail < plan->nr_stores ? fail : XP__NO_FAILURE, NULL, 0, addr, m);

		nr_proven += ask(run, &question, name, addr, chosen);
	}
	return nr_proven;
}

/* Whether a caller that keeps to the contract may ask for it, in the code that the selection was compiled for. */
static bool offered(const struct xp__kind *kind, enum xp_policy policy)
{
	if (kind->flags & REX && XP__CODE_BITS != 64)
		return false;
	return !(kind->flags & SEVERAL) || policy == XP_POLICY_QUIESCE || policy == XP_POLICY_EARLY;
}

static void fill(struct run *run, unsigned k, unsigned addr, enum xp_policy policy, unsigned can, unsigned m)
{
	const struct xp__kind *kind = &xp__kinds[k];
	const struct xp__model *named = xp__model_find(run->matrix->models[m].name);
	struct xp__plan plan, choice;

	if (!offered(kind, policy))
		return;
	/* The default model lets the selection offer every method it has; which of them hold under others is judged here. */
	if (build(kind, addr, policy, can, XP__FETCH_AMD, &plan)) {
		struct xp__cell *cell = &run->matrix->cell[k][plan.method][m];

		cell->nr_plans += plan.nr_stores + 1u;
		cell->nr_proven += judge(run, &plan, kind->name, addr, m, false);
	}
	if (named && build(kind, addr, policy, can, (enum xp__fetch)(named - xp__models), &choice))
		judge(run, &choice, kind->name, addr, m, true);
}

int xp__matrix_run(struct xp__explorer *explorer, const struct xp__model *models, unsigned nr_models,
		   const struct xp__watch *watch, struct xp__matrix *matrix)
{
	struct run run = {.explorer = explorer, .watch = watch, .matrix = matrix};

	run.answers = calloc(NR_ANSWERS, sizeof(*run.answers));
	if (run.answers == NULL)
		return -ENOMEM;
	memset(matrix, 0, sizeof(*matrix));
	matrix->models = models;
	matrix->nr_models = nr_models;
	for (unsigned k = 0; k < xp__nr_kinds && !run.error; k++) {
		if (watch->progress)
			watch->progress(watch->data, k, xp__nr_kinds);
		for (unsigned a = 0; a < XP__NR_ADDRESSES; a++)
			for (unsigned p = 0; p < sizeof(policies) / sizeof(policies[0]); p++)
				for (unsigned c = 0; c < sizeof(ports) / sizeof(ports[0]); c++)
					for (unsigned m = 0; m < nr_models; m++)
						fill(&run, k, xp__address(a), policies[p], ports[c], m);
	}
	if (watch->progress)
		watch->progress(watch->data, xp__nr_kinds, xp__nr_kinds);
	free(run.answers);
	return run.error;
}

/* ---- two commits ---- */

static bool proves(const struct xp__model *model, const struct xp__plan *plan)
{
	return xp__method_proven((enum xp__method)plan->method, (enum xp__fetch)(model - xp__models));
}

/* Every @fail of the second commit after a first that did not fail; and the second after each first that did. */
static void judge_two(struct run *run, const struct xp__plan *first, const struct xp__plan *second, unsigned fail_first,
		      const char *name, unsigned addr)
{
	unsigned nr = fail_first == XP__NO_FAILURE ? second->nr_stores + 1u : 1;

	for (unsigned fail = 0; fail < nr; fail++)
		for (unsigned m = 0; m < run->matrix->nr_models && !run->error; m++) {
			const struct xp__model *model = xp__model_find(run->matrix->models[m].name);
			struct question question = make_question(run, first, fail_first, second,
								 fail + 1 < nr ? fail : XP__NO_FAILURE, addr, m);

			if (!model || !proves(model, first) || !proves(model, second))
				continue;
			run->matrix->nr_twice++;
			ask(run, &question, name, addr, true);
		}
}

/* Kind @k under one policy, then whatever may follow under another. */
static void fill_two(struct run *run, unsigned k, unsigned addr, enum xp_policy policy, unsigned can)
{
	const struct xp__kind *kind = &xp__kinds[k];
	struct xp__plan first, second;

	if (!offered(kind, policy) || !build(kind, addr, policy, can, XP__FETCH_AMD, &first))
		return;
	for (unsigned fail = 0; fail < first.nr_stores; fail++)
		judge_two(run, &first, &first, fail, kind->name, addr);
	for (unsigned j = 0; j < xp__nr_kinds; j++) {
		const struct xp__kind *next = &xp__kinds[j];

		if (next->len != kind->len || memcmp(next->old, kind->new, kind->len) != 0)
			continue;
		for (unsigned p = 0; p < sizeof(policies) / sizeof(policies[0]); p++)
			if (offered(next, policies[p]) && build(next, addr, policies[p], can, XP__FETCH_AMD, &second))
				judge_two(run, &first, &second, XP__NO_FAILURE, kind->name, addr);
	}
}

int xp__matrix_run_two(struct xp__explorer *explorer, const struct xp__watch *watch, struct xp__matrix *matrix)
{
	struct run run = {.explorer = explorer, .watch = watch, .matrix = matrix};

	run.answers = calloc(NR_ANSWERS, sizeof(*run.answers));
	if (run.answers == NULL)
		return -ENOMEM;
	for (unsigned k = 0; k < xp__nr_kinds && !run.error; k++) {
		if (watch->progress)
			watch->progress(watch->data, k, xp__nr_kinds);
		for (unsigned addr = 0; addr < 64; addr++) {
			/* Every place in a quadword, and every one that crosses a line: no others are cut differently. */
			if (addr >= 8 && addr + xp__kinds[k].len <= 64)
				continue;
			for (unsigned p = 0; p < sizeof(policies) / sizeof(policies[0]); p++)
				for (unsigned c = 0; c < sizeof(ports) / sizeof(ports[0]); c++)
					fill_two(&run, k, addr, policies[p], ports[c]);
		}
	}
	if (watch->progress)
		watch->progress(watch->data, xp__nr_kinds, xp__nr_kinds);
	free(run.answers);
	return run.error;
}
