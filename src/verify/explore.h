/* SPDX-License-Identifier: MIT */
/* The explorer: every execution of a site that a fetch model allows while a schedule runs. Hosted. */
#ifndef XP_VERIFY_EXPLORE_H
#define XP_VERIFY_EXPLORE_H

#include "verify/schedule.h"
#include "verify/model.h"

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

struct xp__explorer;

/* xp__explorer_new - NULL if there is no memory. One thread at a time; reuse it, it remembers decoded instructions. */
struct xp__explorer *xp__explorer_new(void);
void xp__explorer_free(struct xp__explorer *explorer);

/*
 * xp__explore - @schedule at a site whose first byte stands at address @addr, under @model. The result depends on @addr
 * only through the granule boundaries inside the site (tests/model/test_verify.c shows it).
 * Returns 0, -ENOMEM, or -E2BIG if there are more states than any sensible schedule has.
 */
int xp__explore(struct xp__explorer *explorer, const struct xp__schedule *schedule, unsigned addr,
		const struct xp__model *model, struct xp__result *result);

/* xp__boundaries - bit i: byte i of a site at @addr is the first of its granule; bit 0 is not set. */
unsigned xp__boundaries(unsigned addr, unsigned len, unsigned granule);

#endif
