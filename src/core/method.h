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
};

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
	uint8_t old[XP_MAX_LEN];
	uint8_t new[XP_MAX_LEN];
	struct xp__store store[XP__MAX_STORES];
	struct xp__insn insn;  /* what a trapped bystander executes, unless */
	uintptr_t resume;      /* not 0: where it continues */
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
};

/* xp__plan_build - 0, or -XP_E_MULTI, -XP_E_EMULATE, -XP_E_SHADOW_STACK, -XP_E_NO_METHOD with *@detail set to the reason. */
int xp__plan_build(const struct xp__change *change, struct xp__plan *plan, const char **detail);

/* xp__plan_before - the bytes that the @phase-th store of @plan covers, as they were before it. */
void xp__plan_before(const struct xp__plan *plan, unsigned phase, uint8_t *bytes);

#endif
