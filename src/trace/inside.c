// SPDX-License-Identifier: MIT
/*
 * Threads that are in the thunk of a traced function, and when all that were there have left.
 *
 * I1  A shard's counters only grow, and left never passes entered. What a thread counts in a shard of its own is known
 *     exactly at every instruction; where threads share a shard, a signal between the two instructions of a count leaves
 *     "it is inside" behind, for ever, never "it is not".
 *
 * Ordering. The whole argument is core/reclaim.c's: F3 and F4 count in and out, F5 looks. Here are two counters in the
 * place of one, so that a thread with a shard of its own needs no locked instruction to leave: left, read first, equal to
 * entered, read after it: at the moment of the first reading no thread was inside.
 */
#include "trace/inside.h"

#if XP__HAS_TRACING

struct xp__inside xp__inside_shards[XP__SHARDS];

bool xp__inside_quiescent(unsigned long waiting[XP__SHARD_WORDS])
{
	bool quiescent = true;

	for (unsigned i = 0; i < XP__SHARDS; i++) {
		unsigned long bit = 1ul << (i % XP__SHARD_BITS), *word = &waiting[i / XP__SHARD_BITS];
		unsigned long left;

		if (!(*word & bit))
			continue;
		/* ordering: (F5) pairs with (F3), (F4) */
		left = __atomic_load_n(&xp__inside_shards[i].left, __ATOMIC_SEQ_CST);
		/* ordering: (F5) pairs with (F3), (F4) */
		if (__atomic_load_n(&xp__inside_shards[i].entered, __ATOMIC_SEQ_CST) == left)
			*word &= ~bit;
		else
			quiescent = false;
	}
	return quiescent;
}

void xp__inside_fork_child(const struct xp_function_thread *self)
{
	for (unsigned i = 0; i < XP__SHARDS; i++) {
		struct xp__inside *shard = &xp__inside_shards[i];

		if (shard != xp__inside_shard(self))
			shard->left = shard->entered;
		else if (!xp__inside_owns(self))
			shard->left = shard->entered - self->inside;
	}
}

void xp__inside_stats(struct xp_function_stats *stats)
{
	for (unsigned i = 0; i < XP__SHARDS; i++) {
		const struct xp__inside *shard = &xp__inside_shards[i];
		unsigned long returns = __atomic_load_n(&shard->returns, __ATOMIC_RELAXED);

		stats->calls += __atomic_load_n(&shard->entered, __ATOMIC_RELAXED) - returns;
		stats->returns += returns;
		stats->missed_calls += __atomic_load_n(&shard->missed_calls, __ATOMIC_RELAXED);
		stats->missed_returns += __atomic_load_n(&shard->missed_returns, __ATOMIC_RELAXED);
		stats->abandoned += __atomic_load_n(&shard->abandoned, __ATOMIC_RELAXED);
		stats->left_behind += __atomic_load_n(&shard->left_behind, __ATOMIC_RELAXED);
	}
}

#elif XP__HAS_ENTRIES

bool xp__inside_quiescent(unsigned long waiting[XP__SHARD_WORDS])
{
	(void)waiting;
	return true;
}

#endif

#if XP__HAS_ENTRIES

struct xp__domain xp__inside_domain = {.quiescent = xp__inside_quiescent};

#endif
