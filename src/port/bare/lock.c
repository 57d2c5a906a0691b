// SPDX-License-Identifier: MIT
/*
 * The text lock: a word that holds the owner's number plus one. It spins: commits are rare and their syncs spin too.
 *
 * A processor that waits answers the owner's rounds meanwhile, so that one that waits with interrupts off delays none.
 * The thread that has it is not preempted, from before it asks: the owner is known by its processor.
 * Refused where a wait could not end: on the owner's own processor, whose commit is what was interrupted, and in NMI,
 * machine check and trap, where the owner may wait for just this processor.
 */
#include "port/bare/port.h"

#include "arch/arch.h"

static uint32_t owner;

int xp__bare_lock(void)
{
	uint32_t self;

	xp__bare_preempt_disable();
	self = xp__bare->cpu() + 1;
	if (__atomic_load_n(&owner, __ATOMIC_RELAXED) == self || xp__bare->cpus[self - 1].depth) {
		xp__bare_preempt_enable();
		return -XP_E_REENTRANT;
	}
	for (;;) {
		uint32_t expected = 0;

		/* ordering: (BL1) pairs with (BL2): this owner sees all that the one before did */
		if (__atomic_compare_exchange_n(&owner, &expected, self, false, __ATOMIC_ACQUIRE, __ATOMIC_RELAXED))
			return 0;
		xp_bare_poll();
		xp__cpu_relax();
	}
}

void xp__bare_unlock(void)
{
	/* ordering: (BL2) pairs with (BL1): all that this owner did comes before the next one has the lock */
	__atomic_store_n(&owner, 0, __ATOMIC_RELEASE);
	xp__bare_preempt_enable();
}
