/* SPDX-License-Identifier: MIT */
/* What runs in the threads that call traced functions, as the rest of the room sees it. */
#ifndef XP_TRACE_RUN_H
#define XP_TRACE_RUN_H

#include "arch/arch.h"
#include "core/range.h"
#include "trace/table.h"

#define XP_NO_MODULE
#include <crosspatch/function.h>

#if XP__HAS_ENTRIES

/*
 * xp__trace_frames - whether a return that is waited for leads into @ranges, sorted. Context: the others are parked.
 * xp__trace_forget - the returns that are awaited run no handlers of @module's functions any more. Context: text lock; no
 * thread comes through their entries.
 * xp__trace_busy - whether the calling thread runs a handler. What it was thrown out of by siglongjmp is made good.
 */
bool xp__trace_frames(const struct xp_range *ranges, size_t nr);
bool xp__trace_busy(void);
void xp__trace_forget(const struct xp__entries *module);
void xp__trace_count(struct xp_function_stats *stats);

#endif

#endif
