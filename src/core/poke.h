/* SPDX-License-Identifier: MIT */
/* A commit: many sites, few plans, and the protocol that carries it out. */
#ifndef XP_CORE_POKE_H
#define XP_CORE_POKE_H

#include "core/method.h"

#include <crosspatch/error.h>
#include <crosspatch/port.h>
#include <crosspatch/text_poke.h>
#include <stddef.h>

/* Handlers count themselves in and out in shards of their own: see trap.c. */
#define XP__TRAP_SHARDS 256
#define XP__TRAP_WORDS (XP__TRAP_SHARDS / 64)

/*
 * The sites of one commit, sorted by address, each with the number of its plan. Doubles as the trap table, and so
 * outlives the commit until no handler can look at it.
 */
struct xp__commit {
	size_t nr;
	size_t nr_plans;
	uintptr_t *addr;
	uint32_t *plan_of; /* NULL: all have plan 0 */
	struct xp__plan *plans;
	uintptr_t end;  /* of the last site */
	bool unordered; /* a site begins before the end of the one added before it: to be sorted and checked */
	size_t size;    /* of this block of memory */
	struct xp__commit *next;
	uint64_t waiting[XP__TRAP_WORDS]; /* shards not yet seen without a handler, once retired */
};

extern const struct xp_port *xp__port;

/* xp__start - the engine's part of xp_port_set(). */
void xp__start(const struct xp_port *port);

/* xp__lock - takes the text lock of a ready engine: -XP_E_NOT_READY, -XP_E_WEDGED, -XP_E_REENTRANT. */
int xp__lock(struct xp_diag *diag);
void xp__unlock(void);

/* xp__fail - fills @diag (may be NULL) and returns @error. */
int xp__fail(struct xp_diag *diag, int error, enum xp_phase phase, const void *site, const char *detail);

/* xp__fail_text - the same for a site whose text is not as expected: -EBUSY for a breakpoint, else -XP_E_MISMATCH. */
int xp__fail_text(struct xp_diag *diag, const void *site, const uint8_t *expected, const uint8_t *found, unsigned len);

/* xp__commit_new - room for so many sites and plans, or NULL. Context: text lock, here and below. */
struct xp__commit *xp__commit_new(size_t nr_sites, size_t nr_plans);

/* xp__commit_free - gives the memory back at once; no handler has seen it. */
void xp__commit_free(struct xp__commit *commit);

/*
 * xp__commit_run - the protocol. Sorts, refuses overlaps, prepares the port, patches; takes the commit over and frees
 * it in its time, whatever it returns.
 */
int xp__commit_run(struct xp__commit *commit, struct xp_diag *diag);

/* xp__commit_add - one more site. Its plan is built: the length tells whether order and overlap need a look. */
static inline void xp__commit_add(struct xp__commit *commit, uintptr_t addr, uint32_t plan)
{
	commit->unordered |= addr < commit->end;
	commit->end = addr + commit->plans[plan].len;
	commit->addr[commit->nr] = addr;
	if (commit->plan_of)
		commit->plan_of[commit->nr] = plan;
	commit->nr++;
}

static inline const struct xp__plan *xp__commit_plan(const struct xp__commit *commit, size_t i)
{
	return &commit->plans[commit->plan_of ? commit->plan_of[i] : 0];
}

#endif
