/* SPDX-License-Identifier: MIT */
/* What an exploration finds: a proof, or a counterexample step by step. */
#ifndef XP_VERIFY_RESULT_H
#define XP_VERIFY_RESULT_H

#include "verify/schedule.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum xp__step_kind {
	XP__STEP_TIME,    /* the schedule's next event */
	XP__STEP_EXECUTE, /* one instruction */
	XP__STEP_TRAP, /* an instruction that traps: fetched, not yet delivered; without bytes: its fault is handled */
	XP__STEP_RESUME,  /* the handler is done */
	XP__STEP_RESTART, /* the handler found nothing to do: execute again */
	XP__STEP_ENTER,   /* the handler of a breakpoint begins */
	XP__STEP_FOUND,   /* it found the record */
	XP__STEP_MISSED,  /* it found none */
	XP__STEP_INT3,    /* and reads a breakpoint in the text */
	XP__STEP_COPY,    /* it is done: execution goes on in the copy of the old code */
};

/* One step of a counterexample. */
struct xp__step {
	uint8_t kind; /* enum xp__step_kind */
	uint8_t time; /* events that have happened before it */
	uint8_t at;   /* EXECUTE, TRAP: offset; RESTART, RESUME: where to */
	uint8_t len;  /* EXECUTE, TRAP: bytes of the instruction, or as many as were fetched */
	uint8_t bytes[XP_MAX_LEN];
	uint8_t version[XP_MAX_LEN]; /* of each of those bytes: the number of stores it had seen */
};

#define XP__MAX_STEPS 64

struct xp__result {
	bool proven;
	size_t nr_states;
	size_t nr_old, nr_new, nr_trap; /* distinct ways an execution ended */
	/* of a counterexample: */
	const char *why;
	unsigned nr_steps;
	struct xp__step step[XP__MAX_STEPS];
};

#endif
