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
 * I3  An execution is right if its trace is one that the old or the new bytes have when nobody changes them, or if it
 *     traps where the handler knows it and nothing was done before. Once the commit returned, an execution that begins
 *     must have a trace of the final bytes, and no trap. With several commits: of the bytes as the last commit that had
 *     returned left them, or of those that a later one is for; and it may trap at what the text has had since.
 * I4  A branch from elsewhere leads to the same offset whatever stands there: to the beginning of an instruction, counted
 *     from the site's first byte, in old code and new. What is compared is what they do from there.
 */
#include "verify/explore.h"

#include "verify/decode.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#define MAX_TRACE 13
#define MAX_EFFECTS 64
#define MAX_TRACES 32
#define MAX_STATES (4u << 20)
#define MAX_FETCHES (100u << 20) /* a minute; the library's own plans take some thousands */
#define NOT_SET 255
#define NO_PARENT UINT32_MAX
#define CMC 0 /* the number of its effect: known even if neither old nor new code has it, as two of them do nothing */

/*
 * BREAKPOINT, FAULT: trapped, not yet delivered. ENTERED, FOUND, MISSED, DOUBT: between the steps of decide() in
 * src/core/trap.c: it has read the generation; holds the record; found none; has read a breakpoint in the text. COPY: in
 * the copy of the old code.
 */
enum mode { RUN, BREAKPOINT, FAULT, ENTERED, FOUND, MISSED, DOUBT, COPY };

struct instant {
	uint16_t pieces; /* changed bytes of the next store that have been stored */
	uint16_t stores; /* complete */
};

/* No padding: it is hashed and compared as bytes. */
struct state {
	uint8_t time, pc, mode, trap_at;
	bool begun;         /* not before the first instruction any more */
	bool resumed;       /* by the trap handler, inside the site */
	uint8_t returned;   /* commits that had, when it began */
	uint8_t entry;      /* where it began, or will */
	uint8_t commit;     /* FOUND, COPY: whose record it is */
	uint8_t generation; /* ENTERED, MISSED, DOUBT: as it was read */
	uint8_t nr_trace;
	uint8_t trace[MAX_TRACE];
	struct instant bound;
};

struct node {
	struct state state;
	uint32_t parent;
	struct xp__step step; /* that led here */
};

/* Traces of unchanging bytes, each ended by its exit. */
struct reference {
	unsigned nr;
	struct {
		uint8_t nr;
		uint8_t trace[MAX_TRACE];
	} trace[MAX_TRACES];
};

struct commit {
	unsigned returned, reclaimed; /* so many events had happened then; NOT_SET: never */
	const uint8_t *new;           /* what it is for */
};

struct xp__explorer {
	struct xp__decoder decoder;
	struct node *nodes;
	size_t nr, room;
	uint32_t *slots; /* hash table: number of the node plus one */
	size_t nr_slots;

	/* The question. */
	const struct xp__course *course;
	const struct xp__model *model;
	struct xp__result *result;
	int error;
	size_t nr_fetches;
	unsigned nr_stores, len;
	unsigned nr_changing; /* stores, up to the last that changes a byte */
	uint8_t image[XP__MAX_EVENTS + 1][XP_MAX_LEN]; /* after so many stores */
	uint16_t changed[XP__MAX_EVENTS + 1];          /* bytes that store s changes; the first is store 0 */
	bool single[XP__MAX_EVENTS + 1];
	uint16_t piece[XP__MAX_EVENTS][XP_MAX_LEN];    /* the piece of store s that byte i belongs to */
	uint8_t now[XP__MAX_EVENTS + 1];               /* stores among the first t events */
	bool apart[XP__MAX_EVENTS + 1];                /* bystanders parked after t events */
	uint8_t raised[XP__MAX_EVENTS + 1];            /* the generation after t events */
	uint8_t record[XP__MAX_EVENTS + 1];            /* whose record the handler finds then, from 1; 0: none */
	uint16_t block[XP_MAX_LEN];                    /* the granule that byte i belongs to */
	unsigned nr_commits, freed;
	struct commit commits[XP__MAX_COMMITS];

	/* Effects that appear in references, and those. */
	struct xp__effect effects[MAX_EFFECTS];
	unsigned nr_effects;
	struct {
		struct reference old, new[XP__MAX_COMMITS], final[XP__MAX_COMMITS];
	} reference[XP_MAX_LEN]; /* of executions that begin there */
	struct reference resumed;
	struct reference *recording;
};

unsigned xp__boundaries(unsigned addr, unsigned len, unsigned granule)
{
	unsigned mask = 0;

	for (unsigned i = 1; i < len; i++)
		if ((addr + i) % granule == 0)
			mask |= 1u << i;
	return mask;
}

/* ---- states ---- */

static uint64_t hash_state(const struct state *state)
{
	const uint8_t *bytes = (const uint8_t *)state;
	uint64_t hash = 0xcbf29ce484222325u;

	for (size_t i = 0; i < sizeof(*state); i++)
		hash = (hash ^ bytes[i]) * 0x100000001b3u;
	return hash ^ hash >> 32;
}

/* The slot of @state, or the empty one where it belongs. */
static uint32_t *find_slot(struct xp__explorer *x, const struct state *state)
{
	size_t at = hash_state(state) & (x->nr_slots - 1);

	while (x->slots[at] && memcmp(&x->nodes[x->slots[at] - 1].state, state, sizeof(*state)) != 0)
		at = (at + 1) & (x->nr_slots - 1);
	return &x->slots[at];
}

static bool grow(struct xp__explorer *x)
{
	size_t room = x->room ? x->room * 2 : 1024;
	struct node *nodes = realloc(x->nodes, room * sizeof(*nodes));
	uint32_t *slots = nodes ? calloc(room * 2, sizeof(*slots)) : NULL;

	if (nodes)
		x->nodes = nodes;
	if (slots == NULL)
		return false;
	free(x->slots);
	x->slots = slots;
	x->nr_slots = room * 2;
	x->room = room;
	for (size_t i = 0; i < x->nr; i++)
		*find_slot(x, &x->nodes[i].state) = (uint32_t)i + 1;
	return true;
}

static void add(struct xp__explorer *x, const struct state *state, uint32_t parent, const struct xp__step *step)
{
	uint32_t *slot;

	if (x->nr == x->room && !grow(x)) {
		x->error = -ENOMEM;
		return;
	}
	if (x->nr == MAX_STATES) {
		x->error = -E2BIG;
		return;
	}
	slot = find_slot(x, state);
	if (*slot)
		return;
	x->nodes[x->nr].state = *state;
	x->nodes[x->nr].parent = parent;
	x->nodes[x->nr].step = *step;
	*slot = (uint32_t)++x->nr;
}

/* The way from the start to the node @at, and a last step: the first violation found is one of the shortest. */
static void violation(struct xp__explorer *x, uint32_t at, const struct xp__step *step, const char *why)
{
	struct xp__result *result = x->result;
	unsigned nr = at == NO_PARENT ? 0 : 1;

	if (!result->proven || x->recording)
		return;
	for (uint32_t i = at; at != NO_PARENT && x->nodes[i].parent != NO_PARENT; i = x->nodes[i].parent)
		nr++;
	result->proven = false;
	result->why = why;
	result->nr_steps = nr < XP__MAX_STEPS ? nr : XP__MAX_STEPS;
	for (unsigned i = nr; i-- > 0;) {
		if (i < XP__MAX_STEPS)
			result->step[i] = i + 1 == nr ? *step : x->nodes[at].step;
		if (i + 1 < nr)
			at = x->nodes[at].parent;
	}
}

/* ---- instants ---- */

static struct instant instant_of(const struct xp__explorer *x, unsigned stores, unsigned pieces)
{
	struct instant instant = {(uint16_t)pieces, (uint16_t)stores};

	if (pieces && pieces == x->changed[stores]) {
		instant.stores++;
		instant.pieces = 0;
	}
	return instant;
}

/* The earliest instant that is not before either. */
static struct instant join(const struct xp__explorer *x, struct instant a, struct instant b)
{
	if (a.stores != b.stores)
		return a.stores > b.stores ? a : b;
	return instant_of(x, a.stores, a.pieces | b.pieces);
}

/* ---- what the bystander did ---- */

static const char not_final[] = "the commit had returned, and this is not the final code";
static const char not_since[] = "a commit had returned, and this is what stood there before";

static bool has_trace(const struct reference *reference, const struct state *state)
{
	for (unsigned i = 0; i < reference->nr; i++)
		if (reference->trace[i].nr == state->nr_trace &&
		    memcmp(reference->trace[i].trace, state->trace, state->nr_trace) == 0)
			return true;
	return false;
}

static void record(struct xp__explorer *x, const struct state *state)
{
	struct reference *reference = x->recording;

	if (has_trace(reference, state))
		return;
	if (reference->nr == MAX_TRACES) {
		x->error = -E2BIG;
		return;
	}
	reference->trace[reference->nr].nr = state->nr_trace;
	memcpy(reference->trace[reference->nr++].trace, state->trace, state->nr_trace);
}

/* The execution has left the site. */
static void finish(struct xp__explorer *x, const struct state *state, uint32_t parent, const struct xp__step *step)
{
	bool old, new = false, since;

	if (x->recording) {
		record(x, state);
		return;
	}
	old = has_trace(&x->reference[state->entry].old, state);
	since = state->returned == 0 || has_trace(&x->reference[state->entry].final[state->returned - 1], state);
	for (unsigned c = 0; c < x->nr_commits; c++)
		if (has_trace(&x->reference[state->entry].new[c], state)) {
			new = true;
			since = since || c >= state->returned;
		}
	if (state->resumed && has_trace(&x->resumed, state))
		x->result->nr_trap++;
	else if (!old && !new)
		violation(x, parent, step,
			  memchr(state->trace, CMC, state->nr_trace) ?
				  "one cmc of a pair was executed: the carry flag is inverted" :
				  "the execution did what neither the old nor the new code does");
	else if (!since)
		violation(x, parent, step, state->returned == x->nr_commits ? not_final : not_since);
	else if (new)
		x->result->nr_new++;
	else
		x->result->nr_old++;
}

/* Adds @effect to the trace of @state. False: neither old nor new code has it, or no room. */
static bool trace_add(struct xp__explorer *x, struct state *state, const struct xp__effect *effect)
{
	unsigned i = 0;

	while (i < x->nr_effects && !xp__effect_same(&x->effects[i], effect))
		i++;
	if (i == x->nr_effects) {
		if (!x->recording || i == MAX_EFFECTS)
			return false;
		x->effects[x->nr_effects++] = *effect;
	}
	if (i == CMC && state->nr_trace && state->trace[state->nr_trace - 1] == CMC) {
		state->trace[--state->nr_trace] = 0;
		return true;
	}
	if (state->nr_trace == MAX_TRACE)
		return false;
	state->trace[state->nr_trace++] = (uint8_t)i;
	return true;
}

/* Continues at @target: inside the site, or out of it. */
static void go(struct xp__explorer *x, struct state state, int64_t target, uint32_t parent, const struct xp__step *step)
{
	struct xp__effect out = {.kind = XP__EFFECT_EXIT, .target = target};

	/* A jump back could go on for ever: it counts as leaving, so that the old or the new code must have it. */
	if (target > state.pc && target < x->len) {
		state.pc = (uint8_t)target;
		add(x, &state, parent, step);
	} else if (trace_add(x, &state, &out)) {
		finish(x, &state, parent, step);
	} else {
		violation(x, parent, step, "execution leaves the site to where neither the old nor the new code goes");
	}
}

static bool is_invalid(const struct xp__course *course, unsigned selector)
{
	for (unsigned i = 0; i < course->nr_invalid; i++)
		if (selector >= course->invalid[i].first && selector <= course->invalid[i].last)
			return true;
	return false;
}

static bool traps(const struct xp__course *course, const struct xp__effect *effect)
{
	if (effect->kind == XP__EFFECT_INT3)
		return true;
	return course->faults && (effect->kind == XP__EFFECT_UD2 ||
				  (effect->kind == XP__EFFECT_FARCALL && is_invalid(course, effect->selector)));
}

/* Whether every byte of the instruction has stood there at some time since commit @returned - 1 returned. */
static bool stood_since(const struct xp__explorer *x, const struct state *state, const struct xp__step *step)
{
	for (unsigned i = 0; i < step->len; i++) {
		unsigned s = x->now[x->commits[state->returned - 1].returned];

		while (s <= x->now[state->time] && x->image[s][state->pc + i] != step->bytes[i])
			s++;
		if (s > x->now[state->time])
			return false;
	}
	return true;
}

static void take_trap(struct xp__explorer *x, struct state state, const struct xp__effect *effect, uint32_t parent,
		      struct xp__step *step)
{
	if (x->recording)
		return;
	if (state.returned == x->nr_commits) {
		/* Handled it would be, but a bystander may by now block the signal that it is. */
		violation(x, parent, step, not_final);
		return;
	}
	if (state.returned && !stood_since(x, &state, step)) {
		violation(x, parent, step, not_since);
		return;
	}
	step->kind = XP__STEP_TRAP;
	/* A breakpoint leaves the program counter behind it, and the handler looks one byte before: behind any prefixes. */
	state.mode = effect->kind == XP__EFFECT_INT3 ? BREAKPOINT : FAULT;
	state.trap_at = state.mode == BREAKPOINT ? (uint8_t)(state.pc + effect->len - 1) : state.pc;
	state.bound = (struct instant){0, 0}; /* of no importance any more: the return raises it */
	add(x, &state, parent, step);
}

static void branch(struct xp__explorer *x, const struct state *from, struct xp__effect effect, uint32_t parent,
		   const struct xp__step *step)
{
	for (unsigned taken = 0; taken < 2; taken++) {
		struct state state = *from;

		effect.width = (uint8_t)taken;
		if (trace_add(x, &state, &effect))
			go(x, state, taken ? effect.target : from->pc + effect.len, parent, step);
		else
			violation(x, parent, step, "a conditional branch that neither the old nor the new code has");
	}
}

static uint8_t nr_returned(const struct xp__explorer *x, unsigned time)
{
	uint8_t nr = 0;

	for (unsigned c = 0; c < x->nr_commits; c++)
		if (time >= x->commits[c].returned)
			nr = (uint8_t)(c + 1);
	return nr;
}

/* The instruction @effect has been fetched; @state carries the bound after it. */
static void execute(struct xp__explorer *x, struct state state, const struct xp__effect *effect, uint32_t parent,
		    struct xp__step *step)
{
	if (!state.begun)
		state.returned = nr_returned(x, state.time);
	state.begun = true;
	if (traps(x->course, effect)) {
		take_trap(x, state, effect, parent, step);
		return;
	}
	switch (effect->kind) {
	case XP__EFFECT_INVALID:
		violation(x, parent, step, "the bytes fetched are no instruction");
		return;
	case XP__EFFECT_NOP:
		go(x, state, state.pc + effect->len, parent, step);
		return;
	case XP__EFFECT_JMP:
		go(x, state, effect->target, parent, step);
		return;
	case XP__EFFECT_JCC:
		branch(x, &state, *effect, parent, step);
		return;
	case XP__EFFECT_LEAVE:
	case XP__EFFECT_UD2: /* that nobody handles */
		if (trace_add(x, &state, effect))
			finish(x, &state, parent, step);
		else
			violation(x, parent, step, "an instruction that neither the old nor the new code executes");
		return;
	default:
		if (trace_add(x, &state, effect))
			go(x, state, state.pc + effect->len, parent, step);
		else
			violation(x, parent, step, "an instruction that neither the old nor the new code executes");
	}
}

/* ---- fetch ---- */

struct fetch {
	struct state state; /* before the instruction */
	struct instant seen;
	uint32_t parent;
	unsigned nr; /* bytes fetched so far */
	uint8_t bytes[XP_MAX_LEN];
	uint8_t version[XP_MAX_LEN];
};

static void fetch_more(struct xp__explorer *x, const struct fetch *fetch);

/* One block as it was at the instant of @stores and @pieces, then on. */
static void fetch_view(struct xp__explorer *x, const struct fetch *from, unsigned block, unsigned stores,
		       unsigned pieces)
{
	struct fetch fetch = *from;
	unsigned pc = fetch.state.pc;

	for (unsigned i = pc + fetch.nr; i < x->len && block >> i & 1; i++, fetch.nr++) {
		/* Bytes that a single store does not change have its version as well: they were read at the same instant. */
		unsigned version = stores + (x->single[stores] ? pieces != 0 : pieces >> i & 1);

		fetch.bytes[fetch.nr] = x->image[version][i];
		fetch.version[fetch.nr] = (uint8_t)version;
	}
	fetch.seen = join(x, fetch.seen, instant_of(x, stores, pieces));
	fetch_more(x, &fetch);
}

/* Every view of the next block: all instants from the bound to now that show something new there (I1). */
static void fetch_block(struct xp__explorer *x, const struct fetch *fetch)
{
	unsigned first = fetch->state.pc + fetch->nr, now = x->now[fetch->state.time];
	struct instant from = x->model->ascending ? fetch->seen : fetch->state.bound;
	unsigned block = x->model->reread ? 1u << first : x->block[first] & ~((1u << first) - 1);

	for (unsigned s = from.stores; s <= now && !x->error; s++) {
		unsigned list[XP_MAX_LEN], nr = 0, must = 0, stored = 0;

		for (unsigned i = first; s < now && i < x->len; i++)
			if (block & x->changed[s] & 1u << i && !(stored & 1u << i)) {
				list[nr++] = x->piece[s][i];
				stored |= x->piece[s][i];
			}
		if (s == from.stores)
			must = from.pieces & stored;
		for (unsigned subset = 0; subset < 1u << nr && !x->error; subset++) {
			unsigned pieces = 0;

			for (unsigned i = 0; i < nr; i++)
				if (subset >> i & 1)
					pieces |= list[i];
			if ((pieces & must) == must && (subset || s == from.stores))
				fetch_view(x, fetch, block, s, pieces);
		}
	}
}

/* Whether a store after the bound changes the bytes of the instruction that was fetched. */
static bool is_unsynchronized(const struct xp__explorer *x, const struct fetch *fetch, unsigned len)
{
	unsigned mask = ((1u << len) - 1) << fetch->state.pc;

	for (unsigned s = fetch->state.bound.stores; s < x->now[fetch->state.time]; s++)
		if (x->changed[s] & mask)
			return true;
	return false;
}

static void fetch_more(struct xp__explorer *x, const struct fetch *fetch)
{
	struct state state = fetch->state;
	unsigned nr = fetch->nr < 15 ? fetch->nr : 15;
	struct xp__effect effect = xp__decode(&x->decoder, fetch->bytes, nr, state.pc);
	struct xp__step step = {
		.kind = XP__STEP_EXECUTE, .time = state.time, .at = state.pc, .len = (uint8_t)fetch->nr};
	bool ends = effect.kind != XP__EFFECT_MORE;

	if (++x->nr_fetches > MAX_FETCHES)
		x->error = -E2BIG;
	if (!ends && state.pc + fetch->nr < x->len) {
		fetch_block(x, fetch);
		return;
	}
	if (effect.len)
		step.len = effect.len;
	memcpy(step.bytes, fetch->bytes, sizeof(step.bytes));
	memcpy(step.version, fetch->version, sizeof(step.version));
	if (!ends) {
		violation(x, fetch->parent, &step, "the instruction is longer than what is left of the site");
		return;
	}
	if (x->model->undefined && is_unsynchronized(x, fetch, step.len)) {
		violation(x, fetch->parent, &step, "it was changed, and this processor has not serialized since");
		return;
	}
	if (x->model->program_order)
		state.bound = join(x, state.bound, fetch->seen);
	execute(x, state, &effect, fetch->parent, &step);
}

/* ---- the trap handler ---- */

static void restart(struct xp__explorer *x, struct state state, unsigned at, uint32_t parent, struct xp__step *step)
{
	step->kind = step->kind == XP__STEP_RESUME ? XP__STEP_RESUME : XP__STEP_RESTART;
	step->at = (uint8_t)at;
	state.mode = RUN;
	state.pc = (uint8_t)at;
	state.trap_at = state.commit = state.generation = 0;
	state.begun = at != state.entry;
	state.returned = state.begun ? state.returned : 0;
	state.bound = (struct instant){0, x->now[state.time]};
	add(x, &state, parent, step);
}

/* The handler of an int3 reads the generation: src/core/trap.c. */
static void handle_breakpoint(struct xp__explorer *x, struct state state, uint32_t parent, struct xp__step *step)
{
	step->kind = XP__STEP_ENTER;
	state.mode = ENTERED;
	state.generation = x->raised[state.time];
	add(x, &state, parent, step);
}

/* It searches. */
static void handle_entered(struct xp__explorer *x, struct state state, uint32_t parent, struct xp__step *step)
{
	step->kind = XP__STEP_MISSED;
	state.mode = MISSED;
	if (state.trap_at == 0 && x->record[state.time]) {
		step->kind = XP__STEP_FOUND;
		state.mode = FOUND;
		state.commit = (uint8_t)(x->record[state.time] - 1);
		state.generation = 0;
	}
	add(x, &state, parent, step);
}

/* It reads the text. */
static void handle_missed(struct xp__explorer *x, struct state state, uint32_t parent, struct xp__step *step)
{
	if (x->image[x->now[state.time]][state.trap_at] != XP__INSN_INT3_BYTE) {
		restart(x, state, state.trap_at, parent, step);
		return;
	}
	step->kind = XP__STEP_INT3;
	state.mode = DOUBT;
	add(x, &state, parent, step);
}

/* It reads the generation again: the record of what it read in the text may have come after the search. */
static void handle_doubt(struct xp__explorer *x, struct state state, uint32_t parent, struct xp__step *step)
{
	if (state.generation == x->raised[state.time])
		violation(x, parent, step, "the trap handler has no record of this breakpoint");
	else
		handle_breakpoint(x, state, parent, step);
}

static void handle_copy(struct xp__explorer *x, const struct state *state, uint32_t parent, struct xp__step *step)
{
	step->kind = XP__STEP_COPY;
	if (state->time >= x->freed)
		violation(x, parent, step, "the copy that it executes has been freed");
	else
		x->result->nr_trap++;
}

static void handle_found(struct xp__explorer *x, struct state state, uint32_t parent, struct xp__step *step)
{
	int resume = x->course->resume;

	step->kind = XP__STEP_RESUME;
	if (state.time >= x->commits[state.commit].reclaimed) {
		violation(x, parent, step, "the trap handler uses a record whose memory was given back");
	} else if (resume == XP__RESUME_COPY) {
		step->kind = XP__STEP_COPY;
		state.mode = COPY;
		add(x, &state, parent, step);
	} else if (resume < 0 || resume >= (int)x->len) {
		x->result->nr_trap++;
	} else {
		state.resumed = true;
		restart(x, state, (unsigned)resume, parent, step);
	}
}

/* A fault that lazy binding waits for: the handler looks at the text as data. */
static void handle_fault(struct xp__explorer *x, struct state state, uint32_t parent, struct xp__step *step)
{
	unsigned now = x->now[state.time], at = state.trap_at;
	const uint8_t *text = x->image[now] + at;
	struct xp__effect effect = xp__decode(&x->decoder, text, x->len - at < 15 ? x->len - at : 15, at);
	bool nop = text[0] == 0x90;

	if (x->course->restart_on_nop ? nop : !traps(x->course, &effect))
		restart(x, state, at, parent, step);
	else if (at != state.entry)
		violation(x, parent, step, "the fault is not at the beginning of the site: no handler expects it");
	else if (now >= x->nr_changing)
		violation(x, parent, step, "the site is final, and the handler finds neither its gate nor a nop");
	else
		x->result->nr_trap++;
}

/* ---- all together ---- */

static void pass_time(struct xp__explorer *x, struct state state, uint32_t parent)
{
	const struct xp__event *event = &x->course->event[state.time];
	struct xp__step step = {.kind = XP__STEP_TIME, .time = state.time};
	bool inside = state.begun && state.mode == RUN;

	if (event->kind == XP__EVENT_PARK && (inside || state.mode != RUN) && event->looks)
		return;
	if (event->kind == XP__EVENT_RECLAIM && state.mode == FOUND && x->course->reclaim_waits &&
	    x->commits[state.commit].reclaimed == state.time + 1u)
		return;
	if (event->kind == XP__EVENT_SYNC || event->kind == XP__EVENT_UNPARK)
		if (state.mode == RUN)
			state.bound = (struct instant){0, x->now[state.time]};
	state.time++;
	add(x, &state, parent, &step);
}

static void visit(struct xp__explorer *x, uint32_t number)
{
	struct state state = x->nodes[number].state;
	struct xp__step step = {.kind = XP__STEP_TRAP, .time = state.time, .at = state.trap_at};
	struct fetch fetch = {.state = state, .parent = number, .seen = state.bound};

	if (state.time < x->course->nr_events && !x->recording)
		pass_time(x, state, number);
	if (x->apart[state.time])
		return;
	switch (state.mode) {
	case RUN:
		fetch_more(x, &fetch);
		return;
	case BREAKPOINT:
		handle_breakpoint(x, state, number, &step);
		return;
	case ENTERED:
		handle_entered(x, state, number, &step);
		return;
	case FOUND:
		handle_found(x, state, number, &step);
		return;
	case MISSED:
		handle_missed(x, state, number, &step);
		return;
	case DOUBT:
		handle_doubt(x, state, number, &step);
		return;
	case COPY:
		handle_copy(x, &state, number, &step);
		return;
	default:
		handle_fault(x, state, number, &step);
	}
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
			add(x, &start, NO_PARENT, &none);
	}
	for (size_t i = 0; i < x->nr && !x->error && x->result->proven; i++)
		visit(x, (uint32_t)i);
}

/* Everything that unchanging bytes can do from @pc, into @reference. */
static void make_reference(struct xp__explorer *x, struct reference *reference, const uint8_t *bytes, unsigned pc)
{
	uint8_t before[XP_MAX_LEN];

	memcpy(before, x->image[0], sizeof(before));
	memcpy(x->image[0], bytes, sizeof(before));
	x->recording = reference;
	explore_from(x, 1u << pc);
	x->recording = NULL;
	memcpy(x->image[0], before, sizeof(before));
}

static void add_store(struct xp__explorer *x, const struct xp__event *event)
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

static void begin_commit(struct xp__explorer *x, const uint8_t *new)
{
	if (x->nr_commits == XP__MAX_COMMITS)
		x->error = -E2BIG;
	else
		x->commits[x->nr_commits++] = (struct commit){NOT_SET, NOT_SET, new};
}

/* Whether an instruction begins at @entry, if the first begins at 0 and each where the one before ends. */
static bool begins_instruction(struct xp__explorer *x, const uint8_t *bytes, unsigned entry)
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

static void prepare(struct xp__explorer *x, unsigned addr)
{
	const struct xp__course *course = x->course;
	bool apart = false;

	x->len = course->len;
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
	begin_commit(x, course->new);
	x->raised[0] = x->record[0] = 0;
	memset(x->changed, 0, sizeof(x->changed));
	memcpy(x->image[0], course->old, XP_MAX_LEN);
	for (unsigned i = 0; i < x->len; i++) {
		x->block[i] = 0;
		for (unsigned j = 0; j < x->len; j++)
			if ((addr + i) / x->model->granule == (addr + j) / x->model->granule)
				x->block[i] |= (uint16_t)(1u << j);
	}
	x->now[0] = 0;
	x->apart[0] = false;
	for (unsigned t = 0; t < course->nr_events; t++) {
		struct commit *commit = &x->commits[x->nr_commits - 1];
		unsigned *when[XP__EVENT_COMMIT + 1] = {[XP__EVENT_RETURN] = &commit->returned,
							[XP__EVENT_RECLAIM] = &commit->reclaimed,
							[XP__EVENT_FREE] = &x->freed};
		unsigned kind = course->event[t].kind;

		if (kind == XP__EVENT_STORE)
			add_store(x, &course->event[t]);
		else if (kind == XP__EVENT_PARK || kind == XP__EVENT_UNPARK)
			apart = kind == XP__EVENT_PARK;
		else if (kind == XP__EVENT_COMMIT)
			begin_commit(x, course->event[t].bytes);
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
static bool make_references(struct xp__explorer *x, unsigned entry)
{
	bool begins = begins_instruction(x, x->course->old, entry);

	make_reference(x, &x->reference[entry].old, x->course->old, entry);
	for (unsigned c = 0; c < x->nr_commits; c++) {
		const struct commit *commit = &x->commits[c];

		begins = begins && begins_instruction(x, commit->new, entry);
		make_reference(x, &x->reference[entry].new[c], commit->new, entry);
		if (commit->returned != NOT_SET)
			make_reference(x, &x->reference[entry].final[c], x->image[x->now[commit->returned]], entry);
	}
	return begins;
}

int xp__explore(struct xp__explorer *x, const struct xp__course *course, unsigned addr, const struct xp__model *model,
		struct xp__result *result)
{
	unsigned entries = (course->entries | 1u) & ((1u << course->len) - 1);
	struct xp__step none = {.kind = XP__STEP_TIME};

	memset(result, 0, sizeof(*result));
	result->proven = true;
	x->course = course;
	x->model = model;
	x->result = result;
	xp__decoder_set(&x->decoder, course->mode);
	prepare(x, addr);
	for (unsigned i = 0; i < x->len; i++)
		if (entries >> i & 1 && !make_references(x, i))
			violation(x, NO_PARENT, &none, "a branch leads into the middle of an instruction");
	if (course->resume >= 0 && course->resume < (int)x->len) {
		make_reference(x, &x->resumed, course->old, (unsigned)course->resume);
		for (unsigned c = 0; c < x->nr_commits; c++)
			make_reference(x, &x->resumed, x->commits[c].new, (unsigned)course->resume);
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
