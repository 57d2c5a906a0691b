// SPDX-License-Identifier: MIT
/* The trap handler of the library, step by step: decide() in src/core/trap.c. */
#include "verify/handler.h"

#include "verify/execute.h"
#include "verify/states.h"

static void handler_restart(struct xp__explorer *x, struct state state, unsigned at, uint32_t parent,
			    struct xp__step *step)
{
	step->kind = step->kind == XP__STEP_RESUME ? XP__STEP_RESUME : XP__STEP_RESTART;
	step->at = (uint8_t)at;
	state.mode = RUN;
	state.pc = (uint8_t)at;
	state.trap_at = state.commit = state.generation = 0;
	state.begun = at != state.entry;
	state.returned = state.begun ? state.returned : 0;
	state.bound = (struct instant){0, x->now[state.time]};
	xp__states_add(x, &state, parent, step);
}

/* The handler of an int3 reads the generation: src/core/trap.c. */
static void handler_breakpoint(struct xp__explorer *x, struct state state, uint32_t parent, struct xp__step *step)
{
	step->kind = XP__STEP_ENTER;
	state.mode = ENTERED;
	state.generation = x->raised[state.time];
	xp__states_add(x, &state, parent, step);
}

/* It searches. */
static void handler_entered(struct xp__explorer *x, struct state state, uint32_t parent, struct xp__step *step)
{
	step->kind = XP__STEP_MISSED;
	state.mode = MISSED;
	if (state.trap_at == 0 && x->record[state.time]) {
		step->kind = XP__STEP_FOUND;
		state.mode = FOUND;
		state.commit = (uint8_t)(x->record[state.time] - 1);
		state.generation = 0;
	}
	xp__states_add(x, &state, parent, step);
}

/* It reads the text. */
static void handler_missed(struct xp__explorer *x, struct state state, uint32_t parent, struct xp__step *step)
{
	if (x->image[x->now[state.time]][state.trap_at] != XP__INSN_INT3_BYTE) {
		handler_restart(x, state, state.trap_at, parent, step);
		return;
	}
	step->kind = XP__STEP_INT3;
	state.mode = DOUBT;
	xp__states_add(x, &state, parent, step);
}

/* It reads the generation again: the record of what it read in the text may have come after the search. */
static void handler_doubt(struct xp__explorer *x, struct state state, uint32_t parent, struct xp__step *step)
{
	if (state.generation == x->raised[state.time])
		xp__states_violation(x, parent, step, "the trap handler has no record of this breakpoint");
	else
		handler_breakpoint(x, state, parent, step);
}

static void handler_copy(struct xp__explorer *x, const struct state *state, uint32_t parent, struct xp__step *step)
{
	step->kind = XP__STEP_COPY;
	if (state->time >= x->freed)
		xp__states_violation(x, parent, step, "the copy that it executes has been freed");
	else
		x->result->nr_trap++;
}

static void handler_found(struct xp__explorer *x, struct state state, uint32_t parent, struct xp__step *step)
{
	int resume = x->schedule->resume;

	step->kind = XP__STEP_RESUME;
	if (state.time >= x->commits[state.commit].reclaimed) {
		xp__states_violation(x, parent, step, "the trap handler uses a record whose memory was given back");
	} else if (resume == XP__RESUME_COPY) {
		step->kind = XP__STEP_COPY;
		state.mode = COPY;
		xp__states_add(x, &state, parent, step);
	} else if (resume < 0 || resume >= (int)x->len) {
		x->result->nr_trap++;
	} else {
		state.resumed = true;
		handler_restart(x, state, (unsigned)resume, parent, step);
	}
}

/* A fault that lazy binding waits for: the handler looks at the text as data. */
static void handler_fault(struct xp__explorer *x, struct state state, uint32_t parent, struct xp__step *step)
{
	unsigned now = x->now[state.time], at = state.trap_at;
	const uint8_t *text = x->image[now] + at;
	struct xp__effect effect = xp__decode(&x->decoder, text, x->len - at < 15 ? x->len - at : 15, at);
	bool nop = text[0] == 0x90;

	if (x->schedule->restart_on_nop ? nop : !xp__execute_traps(x->schedule, &effect))
		handler_restart(x, state, at, parent, step);
	else if (at != state.entry)
		xp__states_violation(x, parent, step,
				     "the fault is not at the beginning of the site: no handler expects it");
	else if (now >= x->nr_changing)
		xp__states_violation(x, parent, step,
				     "the site is final, and the handler finds neither its gate nor a nop");
	else
		x->result->nr_trap++;
}

/* One step of it, or of a fault that is not delivered yet. */
void xp__handler(struct xp__explorer *x, struct state state, uint32_t number)
{
	struct xp__step step = {.kind = XP__STEP_TRAP, .time = state.time, .at = state.trap_at};

	switch (state.mode) {
	case BREAKPOINT:
		handler_breakpoint(x, state, number, &step);
		return;
	case ENTERED:
		handler_entered(x, state, number, &step);
		return;
	case FOUND:
		handler_found(x, state, number, &step);
		return;
	case MISSED:
		handler_missed(x, state, number, &step);
		return;
	case DOUBT:
		handler_doubt(x, state, number, &step);
		return;
	case COPY:
		handler_copy(x, &state, number, &step);
		return;
	default:
		handler_fault(x, state, number, &step);
	}
}
