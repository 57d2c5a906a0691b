/* SPDX-License-Identifier: MIT */
/*
 * A schedule: all that happens to one site from the first store to the last, in order, and what becomes of a bystander
 * that traps there. Made from a plan of the library, or from a plan file; judged by explore.h.
 */
#ifndef XP_VERIFY_SCHEDULE_H
#define XP_VERIFY_SCHEDULE_H

#include "arch/arch.h"

#include <stdbool.h>
#include <stdint.h>

enum xp__event_kind {
	XP__EVENT_PUBLISH, /* from here a breakpoint at the site is known to the trap handler */
	XP__EVENT_RAISE, /* the generation by which the handler notices that a record came while it looked (trap.c, T7) */
	XP__EVENT_STORE,
	XP__EVENT_SYNC,
	XP__EVENT_PARK,    /* from here no bystander executes; one that rests inside the site is waited for */
	XP__EVENT_UNPARK,  /* they go on, serialized */
	XP__EVENT_RETURN,  /* the commit returned: from here an execution that begins is new */
	XP__EVENT_RETIRE,  /* no later trap finds the record */
	XP__EVENT_RECLAIM, /* its memory is used for something else */
	XP__EVENT_FREE,    /* so is that of the old instruction's copy (XP__RESUME_COPY) */
	XP__EVENT_COMMIT,  /* another commit to the site begins; `bytes`: what that one is for */
};

struct xp__event {
	uint8_t kind; /* enum xp__event_kind */
	uint8_t off, len;
	bool single; /* STORE: one store; else byte by byte in any order */
	bool looks;  /* PARK: waits for bystanders that rest inside the site */
	uint8_t bytes[XP_MAX_LEN];
};

#define XP__MAX_EVENTS 80
#define XP__MAX_RANGES 16
#define XP__MAX_COMMITS 4
#define XP__RESUME_EMULATE (-1) /* a trapped bystander executes the new instruction */
#define XP__RESUME_OUT (-2)     /* it continues elsewhere, as the caller wants it */
#define XP__RESUME_COPY (-3)    /* it executes a copy of the old code out of line, and continues behind the site */

struct xp__schedule {
	char name[80];
	uint8_t mode; /* 16, 32, 64 */
	uint8_t len;
	uint8_t nr_events;
	uint8_t nr_invalid;
	int8_t resume;       /* offset where a bystander at the breakpoint continues, or one of the above */
	uint16_t entries;    /* bit i: a branch somewhere else leads to offset i; bit 0 need not be set */
	bool faults;         /* UD2 and far calls to invalid selectors are handled, too */
	bool restart_on_nop; /* how: the handler restarts if there is a nop; else if the instruction faults no more */
	bool reclaim_waits;  /* RECLAIM waits for handlers that use the record */
	uint8_t old[XP_MAX_LEN];
	uint8_t new[XP_MAX_LEN]; /* what the first commit is for; its last store leads there, or back to old */
	struct {
		uint16_t first, last;
	} invalid[XP__MAX_RANGES]; /* selectors that fault */
	struct xp__event event[XP__MAX_EVENTS];
};

/* xp__schedule_add - an event without bytes; NULL if there is no room. */
struct xp__event *xp__schedule_add(struct xp__schedule *schedule, enum xp__event_kind kind);

/*
 * xp__schedule_of_plan - the protocol of src/core/poke.c and src/core/trap.c for one site of @plan. @fail: the phase whose
 * sync fails, after which the commit is rolled back; XP__NO_FAILURE otherwise.
 */
void xp__schedule_of_plan(struct xp__schedule *schedule, const struct xp__plan *plan, unsigned fail);
#define XP__NO_FAILURE 255u

/*
 * xp__schedule_continue - @schedule goes on with another commit, by @plan, whose old code is what the schedule has led to. Two
 * commits or more need bystanders that resume in the same way in all.
 */
void xp__schedule_continue(struct xp__schedule *schedule, const struct xp__plan *plan, unsigned fail);

/* xp__schedule_final - the bytes after the last store. */
void xp__schedule_final(const struct xp__schedule *schedule, uint8_t bytes[XP_MAX_LEN]);

#endif
