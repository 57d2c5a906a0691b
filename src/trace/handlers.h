/* SPDX-License-Identifier: MIT */
/* Lists of handlers. */
#ifndef XP_TRACE_HANDLERS_H
#define XP_TRACE_HANDLERS_H

#include "core/kind.h"
#include "core/reclaim.h"
#include "trace/inside.h"

#define XP_NO_MODULE
#include <crosspatch/function.h>

#if XP__HAS_ENTRIES

#define XP__NR_COUNTERS                                                                                                \
	(sizeof(((struct xp_function_counter *)0)->shard) / sizeof(((struct xp_function_counter *)0)->shard[0]))

/* xp__counter_add - one more. Context: any. */
static inline XP__GENERAL_REGS void xp__counter_add(struct xp_function_counter *counter,
						    const struct xp_function_thread *thread)
{
	unsigned long *nr = &counter->shard[xp__inside_number(thread, XP__NR_COUNTERS)].nr;

	if (thread->shard < XP__OWN_SHARDS(XP__NR_COUNTERS))
		xp__own_increment(nr);
	else
		__atomic_fetch_add(nr, 1, __ATOMIC_RELAXED);
}

/*
 * What calls of one function run: the handlers, in their order, and the replacement. Immutable: another takes its place, in
 * one store, so that each call finds both as they were at one moment.
 */
struct xp__handlers {
	struct xp__block block;
	uintptr_t redirect; /* 0: the function itself */
	uint64_t number;    /* of this list: later ones have higher ones */
	size_t users;       /* functions that have it, or will have it after the commit under way */
	uint32_t nr;
	uint32_t nr_leave;
	bool general; /* all are XP_FUNCTION_GENERAL_REGS */
	bool counts;  /* all are xp_function_counting()'s, of which there is one at least */
	struct xp__handler {
		const struct xp_function_handler *handler;
		void *data;
		uint64_t since; /* the number of the first list that it was in */
		uint8_t word;   /* of the call's words, if it has a `leave` */
	} handler[];
};

/* xp__handlers_has - whether @list, which may be NULL, has the handler with its data. */
static inline bool xp__handlers_has(const struct xp__handlers *list, const struct xp_function_handler *handler,
				    const void *data)
{
	for (uint32_t i = 0; list && i < list->nr; i++)
		if (list->handler[i].handler == handler && list->handler[i].data == data)
			return true;
	return false;
}

/*
 * xp__handlers_with, _without, _redirected - what @request makes of @list, which may be NULL and stays as it is: a list that
 * is new, or NULL where nothing is left of it. Errors: -ENOMEM, or why @request cannot be.
 */
int xp__handlers_with(struct xp__handlers **result, const struct xp__handlers *list, const struct xp__request *request);
int xp__handlers_without(struct xp__handlers **result, const struct xp__handlers *list,
			 const struct xp__request *request);
int xp__handlers_redirected(struct xp__handlers **result, const struct xp__handlers *list,
			    const struct xp__request *request);

/* xp__handlers_count - adds one to the counter of each handler of @list, which counts. Context: any, XP__GENERAL_REGS. */
static inline XP__GENERAL_REGS void xp__handlers_count(const struct xp__handlers *list,
						       const struct xp_function_thread *thread)
{
	for (uint32_t i = 0; i < list->nr; i++)
		xp__counter_add(list->handler[i].data, thread);
}

/*
 * xp__handlers_drop - one function has @list, which may be NULL, no more, or will not have it after all. True: none has, and the
 * caller gives it back.
 */
static inline bool xp__handlers_drop(struct xp__handlers *list)
{
	return list && --list->users == 0;
}

#endif

#endif
