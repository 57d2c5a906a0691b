/* SPDX-License-Identifier: MIT */
/* Threads that are in the thunk of a traced function: how they count themselves in and out. */
#ifndef XP_TRACE_INSIDE_H
#define XP_TRACE_INSIDE_H

#include "arch/arch.h"
#include "core/reclaim.h"

#define XP_NO_MODULE
#include <crosspatch/function.h>
#include <crosspatch/port.h>

#if XP__HAS_ENTRIES

/*
 * Counters of threads, sharded in @nr: the first three quarters have one thread each, the first that came, which needs no
 * locked instruction there; the others share the rest. Numbers are not given again when a thread ends.
 */
#define XP__OWN_SHARDS(nr) ((nr) / 4 * 3)

static inline XP__GENERAL_REGS size_t xp__inside_number(const struct xp_function_thread *thread, size_t nr)
{
	size_t own = XP__OWN_SHARDS(nr);

	return thread->shard < own ? thread->shard : own + thread->shard % (nr - own);
}

/*
 * xp__inside_domain - what threads inside may read: lists of handlers, and the table of functions.
 * xp__inside_quiescent - whether all that were inside when @waiting had all bits set have left: as xp__domain.quiescent().
 */
extern struct xp__domain xp__inside_domain;
bool xp__inside_quiescent(unsigned long waiting[XP__SHARD_WORDS]);

#if XP__HAS_TRACING

struct xp__inside {
	unsigned long entered, left;
	unsigned long returns, missed_calls, missed_returns, abandoned, left_behind;
} __attribute__((aligned(64)));

extern struct xp__inside xp__inside_shards[XP__SHARDS] __attribute__((visibility("hidden")));

static inline XP__GENERAL_REGS struct xp__inside *xp__inside_shard(const struct xp_function_thread *thread)
{
	return &xp__inside_shards[xp__inside_number(thread, XP__SHARDS)];
}

static inline XP__GENERAL_REGS bool xp__inside_owns(const struct xp_function_thread *thread)
{
	return thread->shard < XP__OWN_SHARDS(XP__SHARDS);
}

/* xp__inside_count - adds one to a counter in this thread's shard, release. */
static inline XP__GENERAL_REGS void xp__inside_count(const struct xp_function_thread *thread, unsigned long *counter)
{
	/* ordering: (F4) pairs with (F5) */
	if (xp__inside_owns(thread))
		xp__own_increment(counter);
	else
		__atomic_fetch_add(counter, 1, __ATOMIC_RELEASE);
}

/*
 * xp__inside_enter - counts the thread in. xp__inside_leave - counts it out, of a call inside another's handler.
 * xp__inside_leave_all - counts the thread out of all its thunks, and of those that it left by siglongjmp. Its signal handlers
 * may count meanwhile. Context: the thread. Ordering: (F3), (F4).
 */
static inline XP__GENERAL_REGS void xp__inside_enter(struct xp_function_thread *thread)
{
	/* ordering: (F3) pairs with (F5) */
	__atomic_fetch_add(&xp__inside_shard(thread)->entered, 1, __ATOMIC_SEQ_CST);
	if (!xp__inside_owns(thread))
		xp__own_add(&thread->inside, 1);
}

static inline XP__GENERAL_REGS void xp__inside_leave(struct xp_function_thread *thread)
{
	if (!xp__inside_owns(thread))
		xp__own_add(&thread->inside, -1);
	xp__inside_count(thread, &xp__inside_shard(thread)->left);
}

static inline XP__GENERAL_REGS void xp__inside_leave_all(struct xp_function_thread *thread)
{
	struct xp__inside *shard = xp__inside_shard(thread);
	unsigned long entered;

	if (!xp__inside_owns(thread)) {
		entered = __atomic_exchange_n(&thread->inside, 0, __ATOMIC_RELAXED);
		/* ordering: (F4) pairs with (F5) */
		__atomic_fetch_add(&shard->left, entered, __ATOMIC_RELEASE);
		return;
	}
	do {
		entered = __atomic_load_n(&shard->entered, __ATOMIC_RELAXED);
		/* ordering: (F4) pairs with (F5) */
		__atomic_store_n(&shard->left, entered, __ATOMIC_RELEASE);
		__asm__ volatile("" ::: "memory");
	} while (__atomic_load_n(&shard->entered, __ATOMIC_RELAXED) != entered);
}

/* xp__inside_fork_child - the other threads are not there: @self alone may be inside. Context: the child, alone. */
void xp__inside_fork_child(const struct xp_function_thread *self);

/* xp__inside_stats - sums the shards' counters into @stats. */
void xp__inside_stats(struct xp_function_stats *stats);

#endif

#endif

#endif
