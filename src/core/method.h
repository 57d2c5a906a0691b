/* SPDX-License-Identifier: MIT */
/* Methods: how one site gets from old to new. A pure function; no state, no port. */
#ifndef XP_CORE_METHOD_H
#define XP_CORE_METHOD_H

#include "arch/x86/insn.h"

#include <crosspatch/error.h>
#include <crosspatch/port.h>
#include <crosspatch/text_poke.h>
#include <stdbool.h>
#include <stdint.h>

enum xp__method {
	XP__METHOD_NONE, /* old and new are equal */
	XP__METHOD_FLIP,
	XP__METHOD_WORD,
	XP__METHOD_SHORTJMP,
	XP__METHOD_BREAKPOINT,
	XP__METHOD_QUIESCE,
	XP__METHOD_EARLY,
	XP__METHOD_BYPASS, /* breakpoint, the new instruction out of line */
};

#define XP__NR_METHODS 8

/*
 * What a processor may fetch while text changes. doc/models.md describes each and names its source; src/verify defines
 * them (model.c, in this order). 0 is what a change is planned for unless it says otherwise.
 */
enum xp__fetch {
	XP__FETCH_AMD,        /* an aligned quadword as it was at one instant; instants only go forward */
	XP__FETCH_AMD_REREAD, /* the same, read anew for each byte */
	XP__FETCH_BYTE,       /* every byte from any instant since the last sync */
	XP__FETCH_LINE64,     /* an aligned 64 bytes as they were at one instant */
	XP__FETCH_INTEL_SDM,  /* nothing that is executed between its change and a sync */
};

#define XP__NR_FETCHES 5

#define XP__MAX_STORES 3

struct xp__store {
	uint8_t off;
	uint8_t len;
	uint8_t flags; /* XP_WRITE_SINGLE */
	uint8_t bytes[XP_MAX_LEN];
};

/*
 * A plan: validated, immutable. The same plan serves every site with the same bytes; it holds no address but the
 * resume address that a caller gave.
 */
struct xp__plan {
	uint8_t method;    /* enum xp__method */
	uint8_t len;       /* of the site */
	uint8_t known;     /* leading bytes of old and new that are given; the others stay as they are in the text */
	uint8_t nr_stores; /* one per phase; a sync follows each, but for quiesce and early */
	uint8_t needs;     /* enum xp_need */
	bool traps;        /* a bystander may meet our breakpoint */
	bool single;       /* old is one instruction: no program counter rests inside */
	bool one_way;      /* a site that is new stays new when its commit is undone */
	uint8_t old[XP_MAX_LEN];
	uint8_t new[XP_MAX_LEN];
	struct xp__store store[XP__MAX_STORES];
	struct xp__insn insn;  /* what a trapped bystander executes, unless */
	uintptr_t resume;      /* not 0: where it continues; method bypass: in the copy, whose place is added later */
};

struct xp__change {
	uintptr_t addr;
	const uint8_t *old;
	const uint8_t *new;
	uint8_t len;   /* 1…XP_MAX_LEN */
	uint8_t known; /* as in the plan; len, but for branch sites, whose displacement stays */
	enum xp_resume resume;
	uintptr_t resume_at;
	enum xp_policy policy;
	unsigned can; /* what the port can serve, enum xp_need */
	/*
	 * Not NULL: old is code that the decoder does not know, and new may be, in segments; this is what whoever meets a
	 * breakpoint executes in the place of new, of the same length. Old is one instruction.
	 */
	const struct xp__insn *as;
	/*
	 * Who fetches old late is brought to new by a handler, so nothing has to be undone once new is there: new may be
	 * several instructions.
	 */
	bool one_way;
	enum xp__fetch fetch; /* a method that this model does not prove is not chosen */
};

/*
 * xp__method_proven - whether every plan of @method is proven under @fetch, at every alignment at which it is offered,
 * rollback included. The tests hold the explorer against each cell, in both directions.
 */
bool xp__method_proven(enum xp__method method, enum xp__fetch fetch);

/* xp__plan_build - 0, or -XP_E_MULTI, -XP_E_EMULATE, -XP_E_SHADOW_STACK, -XP_E_NO_METHOD, with *@detail set to the reason. */
int xp__plan_build(const struct xp__change *change, struct xp__plan *plan, const char **detail);

/* xp__plan_before - the bytes that the @phase-th store of @plan covers, as they were before it. */
void xp__plan_before(const struct xp__plan *plan, unsigned phase, uint8_t *bytes);

#endif
