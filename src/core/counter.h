/* SPDX-License-Identifier: MIT */
/*
 * Counters of 64 bits out of words that every processor adds to at once: on a 32-bit one the carries are counted apart.
 * A thread that reads while others count may see an addition without its carry. Once no thread counts, nothing is missing.
 */
#ifndef XP_CORE_COUNTER_H
#define XP_CORE_COUNTER_H

#include <stdint.h>

struct xp__counter {
	unsigned long low, carries;
};

/* xp__count - adds @n. Context: any; several at once. Ordering: none. Progress: wait-free. */
static inline void xp__count(struct xp__counter *counter, unsigned long n)
{
	if (__atomic_add_fetch(&counter->low, n, __ATOMIC_RELAXED) < n)
		__atomic_add_fetch(&counter->carries, 1, __ATOMIC_RELAXED);
}

/* xp__count_locked - the same, of a counter that is added to under the text lock alone. */
static inline void xp__count_locked(struct xp__counter *counter, unsigned long n)
{
	const unsigned long low = __atomic_load_n(&counter->low, __ATOMIC_RELAXED) + n;

	__atomic_store_n(&counter->low, low, __ATOMIC_RELAXED);
	if (low < n)
		__atomic_add_fetch(&counter->carries, 1, __ATOMIC_RELAXED);
}

static inline uint64_t xp__counted(const struct xp__counter *counter)
{
	const unsigned bits = 8 * sizeof(counter->low);
	uint64_t carries = __atomic_load_n(&counter->carries, __ATOMIC_RELAXED);

	/* In two steps: a shift by all 64 bits has no meaning. */
	return carries << (bits - 1) << 1 | __atomic_load_n(&counter->low, __ATOMIC_RELAXED);
}

#endif
