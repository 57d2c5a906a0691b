/* SPDX-License-Identifier: MIT */
/* What runs in the threads that call traced functions, as the rest of the room sees it. */
#ifndef XP_TRACE_RUN_H
#define XP_TRACE_RUN_H

#include "arch/arch.h"
#include "core/range.h"
#include "core/reclaim.h"

#define XP_NO_MODULE
#include <crosspatch/function.h>

#if XP__HAS_ENTRIES

/*
 * Counters of threads, sharded in @nr: the first three quarters have one thread each, the first that came, which needs no
 * locked instruction there; the others share the rest. Numbers are not given again when a thread ends.
 */
#define XP__OWN_SHARDS(nr) ((nr) / 4 * 3)

static inline XP__GENERAL_REGS size_t xp__shard(const struct xp_function_thread *thread, size_t nr)
{
	size_t own = XP__OWN_SHARDS(nr);

	return thread->shard < own ? thread->shard : own + thread->shard % (nr - own);
}

/*
 * xp__trace_domain - the threads that are in a thunk, and what they may read: lists of handlers, the table of functions.
 * xp__trace_quiescent - whether all that were in a thunk when @waiting had all bits set have left: as xp__domain.quiescent().
 * xp__trace_frames - whether a return that is waited for leads into @ranges, sorted. Context: the others are parked.
 * xp__trace_busy - whether the calling thread runs a handler. What it was thrown out of by siglongjmp is made good.
 */
extern struct xp__domain xp__trace_domain;
bool xp__trace_quiescent(unsigned long waiting[XP__SHARD_WORDS]);
bool xp__trace_frames(const struct xp_range *ranges, size_t nr);
bool xp__trace_busy(void);
void xp__trace_count(struct xp_function_stats *stats);

#endif

#endif
