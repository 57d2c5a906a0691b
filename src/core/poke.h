/* SPDX-License-Identifier: MIT */
/* The protocol that carries out a commit. */
#ifndef XP_CORE_POKE_H
#define XP_CORE_POKE_H

#include "core/commit.h"

#include <crosspatch/error.h>

/*
 * xp__poke_run - the protocol. Sorts, refuses overlaps, prepares the port, patches; takes the commit over and frees
 * it in its time, whatever it returns.
 */
int xp__poke_run(struct xp__commit *commit, struct xp_diag *diag);

/* xp__poke_ready - all of it that comes before the first store. On an error the commit is still the caller's. */
int xp__poke_ready(struct xp__commit *commit, struct xp_diag *diag);

/*
 * xp__poke_single - the protocol for one site of a record, by a plan of one store that needs XP_NEED_SYNC alone, while no sync is
 * owed: does what xp__poke_run() would do with a commit of that one site.
 */
int xp__poke_single(struct xp__plan *plan, uintptr_t addr, struct xp_diag *diag);

/* xp__poke_needs - what it asks the port for, enum xp_need. */
unsigned xp__poke_needs(const struct xp__commit *commit);

/* xp__poke_count - what it did so far, into its part of @stats. Context: any. */
void xp__poke_count(struct xp_stats *stats);

#endif
