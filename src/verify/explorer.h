/* SPDX-License-Identifier: MIT */
/* The inside of the explorer, for the files that it consists of: explore.c, states.c, fetch.c, execute.c, handler.c. */
#ifndef XP_VERIFY_EXPLORER_H
#define XP_VERIFY_EXPLORER_H

#include "verify/decode.h"
#include "verify/model.h"
#include "verify/result.h"
#include "verify/schedule.h"

#define MAX_TRACE 13
#define MAX_EFFECTS 64
#define MAX_TRACES 32
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
	const struct xp__schedule *schedule;
	const struct xp__model *model;
	struct xp__result *result;
	int error;
	size_t nr_fetches;
	unsigned nr_stores, len;
	unsigned nr_changing;                          /* stores, up to the last that changes a byte */
	uint8_t image[XP__MAX_EVENTS + 1][XP_MAX_LEN]; /* after so many stores */
	uint16_t changed[XP__MAX_EVENTS + 1];          /* bytes that store s changes; the first is store 0 */
	bool single[XP__MAX_EVENTS + 1];
	uint16_t piece[XP__MAX_EVENTS][XP_MAX_LEN]; /* the piece of store s that byte i belongs to */
	uint8_t now[XP__MAX_EVENTS + 1];            /* stores among the first t events */
	bool apart[XP__MAX_EVENTS + 1];             /* bystanders parked after t events */
	uint8_t raised[XP__MAX_EVENTS + 1];         /* the generation after t events */
	uint8_t record[XP__MAX_EVENTS + 1];         /* whose record the handler finds then, from 1; 0: none */
	uint16_t block[XP_MAX_LEN];                 /* the granule that byte i belongs to */
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

#endif
