/* SPDX-License-Identifier: MIT */
/* The trap table: which breakpoints are ours just now, and which handlers may still look at it. */
#ifndef XP_CORE_TRAP_H
#define XP_CORE_TRAP_H

#include "core/reclaim.h"

#include <crosspatch/port.h>
#include <crosspatch/text_poke.h>
#include <stdbool.h>
#include <stdint.h>

struct xp__commit;

/* xp__trap_publish - makes the sites of @commit known to xp_trap(). Sorted. Context: text lock. Ordering: (T1). */
void xp__trap_publish(const struct xp__commit *commit);

/*
 * xp__trap_retire - no later trap finds the table. Handlers that already run may still look at it.
 * Context: text lock. Ordering: (T3).
 */
void xp__trap_retire(void);

/* The handlers, which read tables between xp__trap_enter() and xp__trap_leave(). */
extern struct xp__domain xp__trap_domain;

/*
 * xp__trap_enter / _leave - count the handler of @number in and out: a table that it finds between them stays until then,
 * though it is replaced. Context: trap handler. Ordering: (T2), (T5).
 */
void xp__trap_enter(unsigned number);
void xp__trap_leave(unsigned number);

/* xp__trap_count - sums the shards' counters into @stats. */
void xp__trap_count(struct xp_stats *stats);

#endif
