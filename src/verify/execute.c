// SPDX-License-Identifier: MIT
/* What an instruction that was fetched does: on inside the site, out of it (and whether that is right: I3), or into a trap. */
#include "verify/execute.h"

#include "verify/states.h"

#include <errno.h>
#include <string.h>

static const char not_final[] = "the commit had returned, and this is not the final code";
static const char not_since[] = "a commit had returned, and this is what stood there before";

/* ---- what the bystander did ---- */

static bool execute_has_trace(const struct reference *reference, const struct state *state)
{
	for (unsigned i = 0; i < reference->nr; i++)
		if (reference->trace[i].nr == state->nr_trace &&
		    memcmp(reference->trace[i].trace, state->trace, state->nr_trace) == 0)
			return true;
	return false;
}

static void execute_record(struct xp__explorer *x, const struct state *state)
{
	struct reference *reference = x->recording;

	if (execute_has_trace(reference, state))
		return;
	if (reference->nr == MAX_TRACES) {
		x->error = -E2BIG;
		return;
	}
	reference->trace[reference->nr].nr = state->nr_trace;
	memcpy(reference->trace[reference->nr++].trace, state->trace, state->nr_trace);
}

/* The execution has left the site. */
static void execute_finish(struct xp__explorer *x, const struct state *state, uint32_t parent,
			   const struct xp__step *step)
{
	bool old, new = false, since;

	if (x->recording) {
		execute_record(x, state);
		return;
	}
	old = execute_has_trace(&x->reference[state->entry].old, state);
	since = state->returned == 0 ||
		execute_has_trace(&x->reference[state->entry].final[state->returned - 1], state);
	for (unsigned c = 0; c < x->nr_commits; c++)
		if (execute_has_trace(&x->reference[state->entry].new[c], state)) {
			new = true;
			since = since || c >= state->returned;
		}
	if (state->resumed && execute_has_trace(&x->resumed, state))
		x->result->nr_trap++;
	else if (!old && !new)
		xp__states_violation(x, parent, step,
				     memchr(state->trace, CMC, state->nr_trace)
					     ? "one cmc of a pair was executed: the carry flag is inverted"
					     : "the execution did what neither the old nor the new code does");
	else if (!since)
		xp__states_violation(x, parent, step, state->returned == x->nr_commits ? not_final : not_since);
	else if (new)
		x->result->nr_new++;
	else
		x->result->nr_old++;
}

/* Adds @effect to the trace of @state. False: neither old nor new code has it, or no room. */
static bool execute_trace_add(struct xp__explorer *x, struct state *state, const struct xp__effect *effect)
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

/* ---- where it goes ---- */

/* Continues at @target: inside the site, or out of it. */
static void execute_go(struct xp__explorer *x, struct state state, int64_t target, uint32_t parent,
		       const struct xp__step *step)
{
	struct xp__effect out = {.kind = XP__EFFECT_EXIT, .target = target};

	/* A jump back could go on for ever: it counts as leaving, so that the old or the new code must have it. */
	if (target > state.pc && target < x->len) {
		state.pc = (uint8_t)target;
		xp__states_add(x, &state, parent, step);
	} else if (execute_trace_add(x, &state, &out)) {
		execute_finish(x, &state, parent, step);
	} else {
		xp__states_violation(x, parent, step,
				     "execution leaves the site to where neither the old nor the new code goes");
	}
}

static bool execute_is_invalid(const struct xp__schedule *schedule, unsigned selector)
{
	for (unsigned i = 0; i < schedule->nr_invalid; i++)
		if (selector >= schedule->invalid[i].first && selector <= schedule->invalid[i].last)
			return true;
	return false;
}

bool xp__execute_traps(const struct xp__schedule *schedule, const struct xp__effect *effect)
{
	if (effect->kind == XP__EFFECT_INT3)
		return true;
	return schedule->faults && (effect->kind == XP__EFFECT_UD2 || (effect->kind == XP__EFFECT_FARCALL &&
								       execute_is_invalid(schedule, effect->selector)));
}

/* Whether every byte of the instruction has stood there at some time since commit @returned - 1 returned. */
static bool execute_stood_since(const struct xp__explorer *x, const struct state *state, const struct xp__step *step)
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

static void execute_trap(struct xp__explorer *x, struct state state, const struct xp__effect *effect, uint32_t parent,
			 struct xp__step *step)
{
	if (x->recording)
		return;
	if (state.returned == x->nr_commits) {
		/* Handled it would be, but a bystander may by now block the signal that it is. */
		xp__states_violation(x, parent, step, not_final);
		return;
	}
	if (state.returned && !execute_stood_since(x, &state, step)) {
		xp__states_violation(x, parent, step, not_since);
		return;
	}
	step->kind = XP__STEP_TRAP;
	/* A breakpoint leaves the program counter behind it, and the handler looks one byte before: behind any prefixes. */
	state.mode = effect->kind == XP__EFFECT_INT3 ? BREAKPOINT : FAULT;
	state.trap_at = state.mode == BREAKPOINT ? (uint8_t)(state.pc + effect->len - 1) : state.pc;
	state.bound = (struct instant){0, 0}; /* of no importance any more: the return raises it */
	xp__states_add(x, &state, parent, step);
}

static void execute_branch(struct xp__explorer *x, const struct state *from, struct xp__effect effect, uint32_t parent,
			   const struct xp__step *step)
{
	for (unsigned taken = 0; taken < 2; taken++) {
		struct state state = *from;

		effect.width = (uint8_t)taken;
		if (execute_trace_add(x, &state, &effect))
			execute_go(x, state, taken ? effect.target : from->pc + effect.len, parent, step);
		else
			xp__states_violation(x, parent, step,
					     "a conditional branch that neither the old nor the new code has");
	}
}

static uint8_t execute_nr_returned(const struct xp__explorer *x, unsigned time)
{
	uint8_t nr = 0;

	for (unsigned c = 0; c < x->nr_commits; c++)
		if (time >= x->commits[c].returned)
			nr = (uint8_t)(c + 1);
	return nr;
}

/* The instruction @effect has been fetched; @state carries the bound after it. */
void xp__execute(struct xp__explorer *x, struct state state, const struct xp__effect *effect, uint32_t parent,
		 struct xp__step *step)
{
	if (!state.begun)
		state.returned = execute_nr_returned(x, state.time);
	state.begun = true;
	if (xp__execute_traps(x->schedule, effect)) {
		execute_trap(x, state, effect, parent, step);
		return;
	}
	switch (effect->kind) {
	case XP__EFFECT_INVALID:
		xp__states_violation(x, parent, step, "the bytes fetched are no instruction");
		return;
	case XP__EFFECT_NOP:
		execute_go(x, state, state.pc + effect->len, parent, step);
		return;
	case XP__EFFECT_JMP:
		execute_go(x, state, effect->target, parent, step);
		return;
	case XP__EFFECT_JCC:
		execute_branch(x, &state, *effect, parent, step);
		return;
	case XP__EFFECT_LEAVE:
	case XP__EFFECT_UD2: /* that no handler knows */
		if (execute_trace_add(x, &state, effect))
			execute_finish(x, &state, parent, step);
		else
			xp__states_violation(x, parent, step,
					     "an instruction that neither the old nor the new code executes");
		return;
	default:
		if (execute_trace_add(x, &state, effect))
			execute_go(x, state, state.pc + effect->len, parent, step);
		else
			xp__states_violation(x, parent, step,
					     "an instruction that neither the old nor the new code executes");
	}
}
