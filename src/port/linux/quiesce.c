// SPDX-License-Identifier: MIT
/*
 * park and unpark (S6): every other thread waits in the rendezvous' handler, outside the ranges that are to be replaced.
 *
 * I1  A program counter inside a range, or anything on a stack that could be a return address or a saved program
 *     counter into one, lets all threads go and tries again. The stack is scanned as bytes from the interrupted stack
 *     pointer to the end of its mapping: a stale word may refuse, never permit.
 * I2  No thread is parked when park() returns an error.
 */
#include "port/linux/quiesce.h"

#include "arch/arch.h"
#include "core/range.h"
#include "port/linux/diag.h"
#include "port/linux/maps.h"
#include "port/linux/sync_signal.h"
#include "port/linux/sys.h"

#include <crosspatch/error.h>
#include <crosspatch/port.h>

#include <errno.h>

#define TRIES 200
#define PAUSE_NS 1000000u

static bool stack_holds(uintptr_t sp, const struct xp_range *ranges, size_t nr)
{
	struct xp__mapping mapping;

	if (xp__maps_find(sp, &mapping))
		return true; /* I1: what cannot be looked at may hold one */
	for (const uintptr_t *at = (const uintptr_t *)(sp & ~(uintptr_t)7); (uintptr_t)at < mapping.end; at++)
		if (xp__ranges_hold(ranges, nr, *at))
			return true;
	return false;
}

int xp__quiesce_stack_check(const void *from, const struct xp_range *ranges, size_t nr, struct xp_diag *diag)
{
	if (!stack_holds((uintptr_t)from, ranges, nr))
		return 0;
	if (diag)
		diag->tid = xp__gettid();
	return xp__refuse(diag, -XP_E_IN_RANGE, 0, "the caller's own stack leads back there");
}

static int find_inside(const struct xp_range *ranges, size_t nr)
{
	const struct xp__slot *slot;

	for (uint32_t i = 0; nr > 0 && (slot = xp__rendezvous_slot(i)); i++)
		if (slot->pc && (xp__ranges_hold(ranges, nr, slot->pc) || stack_holds(slot->sp, ranges, nr)))
			return slot->tid;
	return 0;
}

int xp__rendezvous_park(const struct xp_range *ranges, size_t nr, struct xp_diag *diag)
{
	uint64_t spent = 0;

	for (int tries = 0; tries < TRIES; tries++) {
		int error = xp__rendezvous_meet(true, XP__BEFORE, &spent, diag);
		int tid;

		if (error)
			return error;
		tid = find_inside(ranges, nr);
		if (tid == 0)
			return 0;
		if (diag)
			diag->tid = tid;
		xp__rendezvous_release();
		xp__rendezvous_pause(PAUSE_NS, &spent); /* lets it run on; nothing tells when it has left */
	}
	return xp__refuse(diag, -XP_E_IN_RANGE, 0, NULL);
}

void xp__rendezvous_unpark(void)
{
	/* ordering: (S2) pairs with (P6): each thread serializes on leaving, so that it fetches what was stored */
	xp__rendezvous_release();
	/* ordering: (S3) pairs with (W1): and the caller, which wrote and was not parked */
	xp__serialize();
}
