/* SPDX-License-Identifier: MIT */
/* What the two halves of function tracing have of each other: function.c changes, run.c runs. */
#ifndef XP_TRACE_FUNCTION_H
#define XP_TRACE_FUNCTION_H

#include "arch/arch.h"
#include "core/kind.h"
#include "core/trap.h"

#define XP_NO_MODULE
#include <crosspatch/function.h>

#if XP__HAS_ENTRIES

/* A block that may be replaced while somebody reads it: what its writer keeps in it, for when it is. First in the block. */
struct xp__dead {
	struct xp__dead *next;
	size_t size;
};

/*
 * What calls of one function run: the handlers, in their order, and the replacement. Immutable: another takes its place, in
 * one store, so that each call finds both as they were at one moment.
 */
struct xp__handlers {
	struct xp__dead dead;
	uintptr_t redirect; /* 0: the function itself */
	uint64_t number;    /* of this list: later ones have higher ones */
	uint32_t nr;
	uint32_t nr_leave;
	bool general; /* all are XP_FUNCTION_GENERAL_REGS */
	struct xp__handler {
		const struct xp_function_handler *handler;
		void *data;
		uint64_t since; /* the number of the first list that it was in */
		uint8_t word;   /* of the call's words, if it has a `leave` */
	} handler[];
};

/* A function that was asked for once. It stays until its module goes. */
struct xp__function {
	struct xp_object object;
	struct xp__group group;
	struct xp__function *next; /* of the same module */
	struct xp__entries *module;
	uintptr_t code;                    /* of the entry */
	struct xp__handlers *handlers;     /* NULL: none, and no replacement */
	struct xp__handlers *new_handlers; /* what the commit under way makes of it */
	bool changes;
	void *pin;       /* of the replacement */
	uint32_t size;   /* in bytes; 0: unknown */
	uint8_t before;  /* bytes of the function before the entry */
	uint8_t text[XP__ENTRY_LEN]; /* what stands there */
};

/* By address: open addressing, at most half full. */
struct xp__functions {
	struct xp__dead dead;
	size_t nr;
	unsigned shift;
	struct xp__function *slot[];
};

extern const struct xp__functions *xp__functions;

static inline XP__GENERAL_REGS size_t xp__function_hash(uintptr_t code, unsigned shift)
{
	return (size_t)(((uint64_t)code * 0x9e3779b97f4a7c15u) >> shift);
}

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
 * xp__trace_quiescent - as xp__trap_quiescent(), for handlers of functions and what enters them: whoever could have seen
 * what was replaced before has been seen to be gone.
 * xp__trace_frames - whether a return that is waited for leads into @ranges, sorted. Context: the others are parked.
 * xp__trace_busy - whether the calling thread runs a handler. What it was thrown out of by siglongjmp is made good.
 */
bool xp__trace_quiescent(unsigned long waiting[XP__TRAP_WORDS]);
bool xp__trace_frames(const struct xp_range *ranges, size_t nr);
bool xp__trace_busy(void);
void xp__trace_count(struct xp_function_stats *stats);

#endif

#endif
