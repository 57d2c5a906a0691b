/* SPDX-License-Identifier: MIT */
/* What one commit changes: many sites, few plans. Built by the kinds, carried out by poke.c. */
#ifndef XP_CORE_COMMIT_H
#define XP_CORE_COMMIT_H

#include "arch/arch.h"
#include "core/reclaim.h"

#include <crosspatch/error.h>
#include <stddef.h>

/* Plans that many sites of a commit share, those of all keys and of all functions: which way a site goes. */
enum xp__way { XP__TO_TEST, XP__TO_JMP, XP__TO_OFF, XP__TO_CALL, XP__NR_WAYS };

/* How much room the changes of a commit take at most, found out before there is any. */
struct xp__size {
	size_t sites;
	size_t plans;
	size_t pointers;
	bool way[XP__NR_WAYS]; /* the plan that sites share which go that way is counted in */
};

static inline void xp__size_way(struct xp__size *size, enum xp__way way)
{
	size->plans += !size->way[way];
	size->way[way] = true;
}

/*
 * Data that text jumps through. It belongs to the commit like its sites: stored before the first store of text, given
 * back after the last of a rollback.
 */
struct xp__pointer {
	void (**at)(void);
	void (*old)(void), (*new)(void);
};

/*
 * The sites of one commit, sorted by address, each with the number of its plan. Doubles as the trap table, and so
 * outlives the commit until no handler can look at it.
 */
struct xp__commit {
	struct xp__block block;
	size_t nr;
	size_t nr_plans;
	unsigned plans_need, plans_phases; /* what any of them needs, enum xp_need; the most stores that one has */
	uintptr_t *addr;
	uint32_t *plan_of; /* NULL: all have plan 0 */
	struct xp__plan *plans;
	struct xp__pointer *pointers;
	size_t nr_pointers;
	uintptr_t end;  /* of the last site */
	bool unordered; /* a site begins before the end of the one added before it: to be sorted and checked */
	unsigned
		can; /* what the port can serve, enum xp_need: as the port says, or the builder, which may try without breakpoints */
	enum xp_policy policy;     /* that in force, or the builder's */
	uint32_t way[XP__NR_WAYS]; /* the shared plans: number + 1, 0 as long as there is none */
	void *scratch; /* a struct xp_range for each site: to sort them, and to say where no thread may rest */
	bool async;    /* no sync follows its only phase */
	bool piles;    /* its stores are right also where a sync is owed: ticket.c, I3 */
	bool ready;    /* xp__poke_ready() was asked, and found nothing */
	bool refused;  /* it was asked, and the port refused */
	bool known;    /* all sites are of records: XP_WRITE_KNOWN */
	unsigned needs, nr_phases; /* of one that is ready */
	uintptr_t page;            /* that can be read, xp__commit_readable() */
	uintptr_t *pages;          /* more of them, each where its number says */
	size_t nr_pages;           /* places for them, a power of two, or 0 */
};

/* xp__commit_new - room for so many sites and plans, or NULL. Context: text lock, here and below. */
struct xp__commit *xp__commit_new(const struct xp__size *size);

/*
 * xp__commit_readable - whether [addr, addr + len) can be read, as xp__text_readable() says. Remembers its answer for each page
 * as long as there is room: the sites of keys that are changed together lie on the same pages.
 */
bool xp__commit_readable(struct xp__commit *commit, uintptr_t addr, size_t len);

/* xp__commit_free - gives the memory back at once; no handler has seen it. */
static inline void xp__commit_free(struct xp__commit *commit)
{
	xp__reclaim_keep(&commit->block);
}

/*
 * xp__commit_plan_add - builds the plan of @change, whose policy and port are the commit's, into the next place.
 * Returns its number, or an error of xp__plan_build(), told to @diag for @site.
 */
int xp__commit_plan_add(struct xp__commit *commit, struct xp__change *change, const void *site, struct xp_diag *diag);

/*
 * xp__commit_way - the number of the plan that all sites share which go that way; -1: it is not known, and xp__commit_new_way()
 * has it built of @change, which is the same each time. It is the same in every commit under the same policy and port, so it is
 * built once: to build it takes a quarter of all instructions of a commit of one site (bench/toggle). Errors: as above.
 */
int xp__commit_way(struct xp__commit *commit, enum xp__way way);
/* xp__commit_way_plan - that plan, under the policy and the port of now; NULL: it is not known. */
struct xp__plan *xp__commit_way_plan(enum xp__way way);
int xp__commit_new_way(struct xp__commit *commit, enum xp__way way, struct xp__change *change, struct xp_diag *diag);

/*
 * xp__commit_change - adds a site with what changes at it. Sites with equal plans share one, looked for among those
 * from number @first on: the caller's own, which bounds the search. Errors: as above.
 */
#define XP__PLAN_OWN SIZE_MAX /* no other site has a plan like this */
#define XP__PLAN_SHARE 128u   /* plans that a new one is compared with */
int xp__commit_change(struct xp__commit *commit, struct xp__change *change, size_t first, struct xp_diag *diag);

/* xp__commit_pointer - adds data: *@at becomes @new. */
void xp__commit_pointer(struct xp__commit *commit, void (**at)(void), void (*new)(void));

/* xp__commit_order - sorts the sites. Errors: -XP_E_OVERLAP. */
int xp__commit_order(struct xp__commit *commit, struct xp_diag *diag);

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
