// SPDX-License-Identifier: MIT
/*
 * The code segments that were made known.
 *
 * I1  A handler that runs in a segment finds it: it was there before the segment's first site was executed, and the
 *     caller that removes it guarantees that no thread executes there.
 *
 * Ordering. (E1) stores the base before the selector, (E2) reads the selector first: a thread that finds a selector finds
 * its base.
 */
#include "arch/x86/far/segment.h"

#define NR_SEGMENTS 64
#define OF_LDT 4 /* the table indicator of a selector */

static struct {
	uint32_t selector; /* 0: free */
	uint32_t base;
} segments[NR_SEGMENTS];

bool xp__segment_add(uint16_t selector, uint32_t base)
{
	for (unsigned i = 0; i < NR_SEGMENTS; i++) {
		if (__atomic_load_n(&segments[i].selector, __ATOMIC_RELAXED) == 0) {
			__atomic_store_n(&segments[i].base, base, __ATOMIC_RELAXED);
			/* ordering: (E1) pairs with (E2) */
			__atomic_store_n(&segments[i].selector, selector, __ATOMIC_RELEASE);
			return true;
		}
	}
	return false;
}

void xp__segment_remove(uint16_t selector)
{
	for (unsigned i = 0; i < NR_SEGMENTS; i++)
		if (__atomic_load_n(&segments[i].selector, __ATOMIC_RELAXED) == selector)
			__atomic_store_n(&segments[i].selector, 0, __ATOMIC_RELAXED);
}

bool xp__segment_base(uint16_t cs, uintptr_t *base)
{
	*base = 0;
	if (!(cs & OF_LDT))
		return true;
	for (unsigned i = 0; i < NR_SEGMENTS; i++) {
		/* ordering: (E2) pairs with (E1) */
		if (__atomic_load_n(&segments[i].selector, __ATOMIC_ACQUIRE) == cs) {
			*base = __atomic_load_n(&segments[i].base, __ATOMIC_RELAXED);
			return true;
		}
	}
	return false;
}
