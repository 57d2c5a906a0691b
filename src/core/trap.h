/* SPDX-License-Identifier: MIT */
/* The trap table: which breakpoints are ours just now, and which handlers may still look at it. */
#ifndef XP_CORE_TRAP_H
#define XP_CORE_TRAP_H

#include <crosspatch/port.h>
#include <crosspatch/text_poke.h>
#include <stdbool.h>
#include <stdint.h>

/* Handlers count themselves in and out in shards of their own: see trap.c. */
#define XP__TRAP_SHARDS 256
#define XP__TRAP_WORD_BITS (8 * (unsigned)sizeof(unsigned long))
#define XP__TRAP_WORDS (XP__TRAP_SHARDS / XP__TRAP_WORD_BITS)

struct xp__commit;

/* xp__trap_publish - makes the sites of @commit known to xp_trap(). Sorted. Context: text lock. Ordering: (T1). */
void xp__trap_publish(const struct xp__commit *commit);

/*
 * xp__trap_retire - no later trap finds the table. Handlers that already run may still look at it.
 * Context: text lock. Ordering: (T3).
 */
void xp__trap_retire(void);

/*
 * xp__trap_quiescent - true once each shard has been seen empty since the last table was retired.
 * @waiting has one bit per shard, all set at first, and remembers the answer so far: no handler can starve a writer.
 * Context: text lock. Progress: wait-free.
 */
bool xp__trap_quiescent(unsigned long waiting[XP__TRAP_WORDS]);

/*
 * xp__trap_enter / _leave - count the handler of @number in and out: what it looks at between them, in a table that was
 * replaced and is quiescent in xp__trap_quiescent()'s sense, is still there. Context: trap handler. Ordering: (T2), (T5).
 */
void xp__trap_enter(unsigned number);
void xp__trap_leave(unsigned number);

/* xp__trap_count - sums the shards' counters into @stats. */
void xp__trap_count(struct xp_stats *stats);

#endif
