// SPDX-License-Identifier: MIT
/*
 * Breadth first over all states of one bystander. More bystanders add nothing: they share only the text and the trap
 * table, and change neither.
 *
 * Memory is a sequence of versions, one per store. A store that the model does not show at once falls into pieces:
 * granule by granule, or byte by byte if it is no single store. Pieces of one store happen in any order, stores in
 * program order. An instant is therefore (s, A): s stores complete, and the pieces A of the next. All instants form a
 * partial order; "(s, A) is not after (t, B)" if s < t, or s = t and A within B.
 *
 * A bystander's state: how many events have happened; where it executes, or rests in the trap handler; the earliest
 * instant it may still fetch (its bound); where it entered the site, and what it has done since (its trace). It may rest
 * before any instruction for any number of events, so a saved program counter inside the site is a state like any other.
 *
 * I1  Of two fetches of the same bytes the one from the earlier instant allows more, later. So of each view of a block
 *     only the earliest instant that shows it is followed.
 * I2  A sync raises the bound to now. So does a return from a trap: IRET serializes.
 * I3  An execution is right if its trace is one that the old or the new bytes have when nothing changes them, or if it
 *     traps where the handler knows it and nothing was done before. Once the commit returned, an execution that begins
 *     must have a trace of the final bytes, and no trap. With several commits: of the bytes as the last commit that had
 *     returned left them, or of those that a later one is for; and it may trap at what the text has had since.
 * I4  A branch from elsewhere leads to the same offset whatever stands there: to the beginning of an instruction, counted
 *     from the site's first byte, in old code and new. What is compared is what they do from there.
 *
 * Here: the question, what executions of unchanging bytes do, and the search. states.c has the states, fetch.c and execute.c
 * what a bystander does in the code, handler.c what it does in the trap handler.
 */
#include "verify/explore.h"

#include "verify/explorer.h"
#include "verify/fetch.h"
#include "verify/handler.h"
#include "verify/states.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

unsigned xp__boundaries(unsigned addr, unsigned len, unsigned granule)
{
	unsigned mask = 0;

	for (unsigned i = 1; i < len; i++)
		if ((addr + i) % granule == 0)
			mask |= 1u << i;
	return mask;
}

/* ---- the search ---- */

static void explore_pass_time(struct xp__explorer *x, struct state state, uint32_t parent)
{
	const struct xp__event *event = &x->schedule->event[state.time];
	struct xp__step step = {.kind = XP__STEP_TIME, .time = state.time};
	bool inside = state.begun && state.mode == RUN;

	if (event->kind == XP__EVENT_PARK && (inside || state.mode != RUN) && event->looks)
		return;
	if (event->kind == XP__EVENT_RECLAIM && state.mode == FOUND && x->schedule->reclaim_waits &&
	    x->commits[state.commit].reclaimed == state.time + 1u)
		return;
	if (event->kind == XP__EVENT_SYNC || event->kind == XP__EVENT_UNPARK)
		if (state.mode == RUN)
			state.bound = (struct instant){0, x->now[state.time]};
	state.time++;
	xp__states_add(x, &state, parent, &step);
}

static void explore_visit(struct xp__explorer *x, uint32_t number)
{
	struct state state = x->nodes[number].state;

	if (state.time < x->schedule->nr_events && !x->recording)
		explore_pass_time(x, state, number);
	if (x->apart[state.time])
		return;
	if (state.mode == RUN)
		xp__fetch(x, &state, number);
	else
		xp__handler(x, state, number);
}

/* From the beginnings of executions that are the bits of @entries. */
static void explore_from(struct xp__explorer *x, unsigned entries)
{
	struct xp__step none = {.kind = XP__STEP_TIME};

	x->nr = 0;
	if (x->slots)
		memset(x->slots, 0, x->nr_slots * sizeof(*x->slots));
	for (unsigned i = 0; i < x->len; i++) {
		struct state start;

		memset(&start, 0, sizeof(start));
		start.pc = start.entry = (uint8_t)i;
		if (entries >> i & 1)
			xp__states_add(x, &start, NO_PARENT, &none);
	}
	for (size_t i = 0; i < x->nr && !x->error && x->result->proven; i++)
		explore_visit(x, (uint32_t)i);
}

/* ---- the question ---- */

/* Everything that unchanging bytes can do from @pc, into @reference. */
static void explore_reference(struct xp__explorer *x, struct reference *reference, const uint8_t *bytes, unsigned pc)
{
	uint8_t before[XP_MAX_LEN];

	memcpy(before, x->image[0], sizeof(before));
	memcpy(x->image[0], bytes, sizeof(before));
	x->recording = reference;
	explore_from(x, 1u << pc);
	x->recording = NULL;
	memcpy(x->image[0], before, sizeof(before));
}

static void explore_add_store(struct xp__explorer *x, const struct xp__event *event)
{
	unsigned s = x->nr_stores++, covered = ((1u << event->len) - 1) << event->off;

	x->single[s] = event->single;
	memcpy(x->image[s + 1], x->image[s], XP_MAX_LEN);
	memcpy(x->image[s + 1] + event->off, event->bytes, event->len);
	for (unsigned i = 0; i < x->len; i++)
		if (x->image[s][i] != x->image[s + 1][i])
			x->changed[s] |= (uint16_t)(1u << i);
	for (unsigned i = 0; i < x->len; i++)
		x->piece[s][i] = x->changed[s] & (event->single ? x->block[i] & covered : 1u << i);
}

static void explore_begin_commit(struct xp__explorer *x, const uint8_t *new)
{
	if (x->nr_commits == XP__MAX_COMMITS)
		x->error = -E2BIG;
	else
		x->commits[x->nr_commits++] = (struct commit){NOT_SET, NOT_SET, new};
}

/* Whether an instruction begins at @entry, if the first begins at 0 and each where the one before ends. */
static bool explore_begins_instruction(struct xp__explorer *x, const uint8_t *bytes, unsigned entry)
{
	unsigned at = 0;

	while (at < entry) {
		struct xp__effect effect = xp__decode(&x->decoder, bytes + at, x->len - at < 15 ? x->len - at : 15, at);

		if (effect.kind == XP__EFFECT_MORE || effect.kind == XP__EFFECT_INVALID)
			return false;
		at += effect.len;
	}
	return at == entry;
}

static void explore_prepare(struct xp__explorer *x, unsigned addr)
{
	const struct xp__schedule *schedule = x->schedule;
	bool apart = false;

	x->len = schedule->len;
	x->error = 0;
	x->nr_fetches = 0;
	x->nr_stores = x->nr_changing = 0;
	x->nr_effects = 1;
	memset(&x->effects[CMC], 0, sizeof(x->effects[CMC]));
	x->effects[CMC].kind = XP__EFFECT_CMC;
	for (unsigned i = 0; i < x->len; i++) {
		x->reference[i].old.nr = 0;
		for (unsigned c = 0; c < XP__MAX_COMMITS; c++)
			x->reference[i].new[c].nr = x->reference[i].final[c].nr = 0;
	}
	x->resumed.nr = 0;
	x->nr_commits = 0;
	x->freed = NOT_SET;
	explore_begin_commit(x, schedule->new);
	x->raised[0] = x->record[0] = 0;
	memset(x->changed, 0, sizeof(x->changed));
	memcpy(x->image[0], schedule->old, XP_MAX_LEN);
	for (unsigned i = 0; i < x->len; i++) {
		x->block[i] = 0;
		for (unsigned j = 0; j < x->len; j++)
			if ((addr + i) / x->model->granule == (addr + j) / x->model->granule)
				x->block[i] |= (uint16_t)(1u << j);
	}
	x->now[0] = 0;
	x->apart[0] = false;
	for (unsigned t = 0; t < schedule->nr_events; t++) {
		struct commit *commit = &x->commits[x->nr_commits - 1];
		unsigned *when[XP__EVENT_COMMIT + 1] = {[XP__EVENT_RETURN] = &commit->returned,
							[XP__EVENT_RECLAIM] = &commit->reclaimed,
							[XP__EVENT_FREE] = &x->freed};
		unsigned kind = schedule->event[t].kind;

		if (kind == XP__EVENT_STORE)
			explore_add_store(x, &schedule->event[t]);
		else if (kind == XP__EVENT_PARK || kind == XP__EVENT_UNPARK)
			apart = kind == XP__EVENT_PARK;
		else if (kind == XP__EVENT_COMMIT)
			explore_begin_commit(x, schedule->event[t].bytes);
		else if (when[kind] && *when[kind] == NOT_SET)
			*when[kind] = t + 1;
		x->now[t + 1] = (uint8_t)x->nr_stores;
		x->apart[t + 1] = apart;
		x->record[t + 1] = kind == XP__EVENT_PUBLISH  ? (uint8_t)x->nr_commits
				   : kind == XP__EVENT_RETIRE ? 0
							      : x->record[t];
		if (kind == XP__EVENT_STORE && x->changed[x->nr_stores - 1])
			x->nr_changing = x->nr_stores;
		x->raised[t + 1] = (uint8_t)(x->raised[t] + (kind == XP__EVENT_RAISE));
	}
}

/* What executions that begin at @entry may do. False: in some code there is no instruction that begins there. */
static bool explore_references(struct xp__explorer *x, unsigned entry)
{
	bool begins = explore_begins_instruction(x, x->schedule->old, entry);

	explore_reference(x, &x->reference[entry].old, x->schedule->old, entry);
	for (unsigned c = 0; c < x->nr_commits; c++) {
		const struct commit *commit = &x->commits[c];

		begins = begins && explore_begins_instruction(x, commit->new, entry);
		explore_reference(x, &x->reference[entry].new[c], commit->new, entry);
		if (commit->returned != NOT_SET)
			explore_reference(x, &x->reference[entry].final[c], x->image[x->now[commit->returned]], entry);
	}
	return begins;
}

int xp__explore(struct xp__explorer *x, const struct xp__schedule *schedule, unsigned addr,
		const struct xp__model *model, struct xp__result *result)
{
	unsigned entries = (schedule->entries | 1u) & ((1u << schedule->len) - 1);
	struct xp__step none = {.kind = XP__STEP_TIME};

	memset(result, 0, sizeof(*result));
	result->proven = true;
	x->schedule = schedule;
	x->model = model;
	x->result = result;
	xp__decoder_set(&x->decoder, schedule->mode);
	explore_prepare(x, addr);
	for (unsigned i = 0; i < x->len; i++)
		if (entries >> i & 1 && !explore_references(x, i))
			xp__states_violation(x, NO_PARENT, &none, "a branch leads into the middle of an instruction");
	if (schedule->resume >= 0 && schedule->resume < (int)x->len) {
		explore_reference(x, &x->resumed, schedule->old, (unsigned)schedule->resume);
		for (unsigned c = 0; c < x->nr_commits; c++)
			explore_reference(x, &x->resumed, x->commits[c].new, (unsigned)schedule->resume);
	}
	explore_from(x, entries);
	result->nr_states = x->nr;
	return x->error;
}

struct xp__explorer *xp__explorer_new(void)
{
	return calloc(1, sizeof(struct xp__explorer));
}

void xp__explorer_free(struct xp__explorer *x)
{
	if (x) {
		free(x->nodes);
		free(x->slots);
		free(x);
	}
}
