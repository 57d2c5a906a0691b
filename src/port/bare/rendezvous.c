// SPDX-License-Identifier: MIT
/*
 * Rounds: the writer asks every other processor by interrupt to serialize, or to park.
 *
 *	writer                                   another processor
 *	(BS1) meeting = round and kind
 *	ipi to each that is online               interrupt, or xp_bare_poll():
 *	                                         (BS2) read meeting
 *	                                         keep pc and sp; serialize
 *	(BS4) wait: answered == round            (BS3) answered = round
 *	parked: look at pc and stack, store text parked: wait for released == round
 *	(BS5) released = round                   (BS6) see it; serialize
 *	(BS8) wait: left == round                (BS7) left = round
 *
 * I1  One round at a time, under the text lock; the next begins when all have answered, and left, this one.
 * I2  A processor answers a round once. An interrupt that comes late finds its round answered, or answers the next.
 * I3  The writer takes part in no round of its own but serializes itself.
 * I4  No processor is parked when park returns an error.
 * I5  The writer has interrupts off from the beginning of a park to its end: a handler of its own could wait for a processor
 *     that is parked.
 * I6  A processor that is not online takes part in no round: the writer would not wait until it has left one.
 * I7  The kind is a bit of the round's number: a processor that has answered reads nothing more of the round, since the next may be on.
 */
#include "port/bare/port.h"

#include "arch/arch.h"
#include "core/deps.h"
#include "core/range.h"

#define TRIES 200
#define PAUSE 2000 /* turns of a loop in which the others run on; nothing tells when one has left */

#define ROUND_PARK 1u /* in the number of a round; the next is the next multiple of ROUND, with or without */
#define ROUND 2u

static uint32_t meeting, released;
static uint64_t irq_before_park;
static bool parking; /* from before a park to after its end: for handlers that may not execute sites meanwhile */

static void answer(uintptr_t pc, uintptr_t sp)
{
	struct xp_bare_cpu *self = xp__bare_self();
	/* ordering: (BS2) pairs with (BS1): the stores before the round are seen when this processor serializes */
	uint32_t mine = __atomic_load_n(&meeting, __ATOMIC_ACQUIRE);

	if (!self->online || self->answered == mine)
		return;
	__atomic_fetch_add(&xp__bare_stats.answers, 1, __ATOMIC_RELAXED);
	self->pc = pc;
	self->sp = sp;
	xp__serialize();
	/* ordering: (BS3) pairs with (BS4): the answer comes after the registers and the serialization */
	__atomic_store_n(&self->answered, mine, __ATOMIC_RELEASE);
	if (!(mine & ROUND_PARK))
		return;
	/* ordering: (BS6) pairs with (BS5): a processor that sees the release sees all stores of text */
	while (__atomic_load_n(&released, __ATOMIC_ACQUIRE) != mine)
		xp__cpu_relax();
	xp__serialize();
	/* ordering: (BS7) pairs with (BS8): it says that it leaves after it has serialized */
	__atomic_store_n(&self->left, mine, __ATOMIC_RELEASE);
}

void xp_bare_ipi(struct xp_bare_frame *frame)
{
	answer(frame->ip, frame->sp);
	xp__bare->done();
}

void xp_bare_poll(void)
{
	uint64_t irq = xp__bare_irq_save();

	/* Not interrupted, but on its way: what it returns to is on the stack. */
	answer((uintptr_t)__builtin_return_address(0), (uintptr_t)__builtin_frame_address(0));
	xp__bare_irq_restore(irq);
}

static bool asked(unsigned cpu)
{
	return cpu != xp__bare->cpu() && __atomic_load_n(&xp__bare->cpus[cpu].online, __ATOMIC_RELAXED);
}

static void meet(bool park)
{
	uint32_t round = (meeting & ~ROUND_PARK) + ROUND + (park ? ROUND_PARK : 0);

	parking = park;
	xp__bare_stats.rounds++;
	/* The full barrier also puts the stores of text before the interrupts. ordering: (BS1) pairs with (BS2), (BW1) */
	__atomic_store_n(&meeting, round, __ATOMIC_SEQ_CST);
	for (unsigned i = 0; i < xp__bare->nr_cpus; i++) {
		if (asked(i)) {
			xp__bare_stats.ipis++;
			xp__bare->ipi(i);
		}
	}
	for (unsigned i = 0; i < xp__bare->nr_cpus; i++)
		/* ordering: (BS4) pairs with (BS3): the registers are read after the answer */
		while (asked(i) && __atomic_load_n(&xp__bare->cpus[i].answered, __ATOMIC_ACQUIRE) != round)
			xp__cpu_relax();
	xp__serialize();
}

int xp__bare_sync(void)
{
	meet(false);
	return 0;
}

/* A stale word on a stack may refuse, never permit. */
static bool stack_inside(uintptr_t sp, const struct xp_range *ranges, size_t nr)
{
	uintptr_t end = xp__bare->stack_end(sp);

	for (uintptr_t at = sp & ~(uintptr_t)7; at + sizeof(uintptr_t) <= end; at += sizeof(uintptr_t))
		if (xp__ranges_hold(ranges, nr, *(const uintptr_t *)at))
			return true;
	return false;
}

/* Whether another processor rests in the ranges or returns there. */
static bool any_inside(const struct xp_range *ranges, size_t nr)
{
	for (unsigned i = 0; i < xp__bare->nr_cpus; i++) {
		const struct xp_bare_cpu *cpu = &xp__bare->cpus[i];

		if (asked(i) && (xp__ranges_hold(ranges, nr, cpu->pc) || stack_inside(cpu->sp, ranges, nr)))
			return true;
	}
	return false;
}

int xp__bare_park(const struct xp_range *ranges, size_t nr, struct xp_diag *diag)
{
	if (nr > 0 && stack_inside((uintptr_t)__builtin_frame_address(0), ranges, nr))
		return xp__bare_refuse(diag, -XP_E_IN_RANGE,
				       "the caller's own stack holds an address inside the range");
	for (int tries = 0; tries < TRIES; tries++) {
		bool inside, asleep;

		irq_before_park = xp__bare_irq_save();
		meet(true);
		inside = nr > 0 && any_inside(ranges, nr);
		asleep = nr > 0 && !inside && xp__bare->sleepers && xp__bare->sleepers(ranges, nr);
		if (!inside && !asleep)
			return 0;
		xp__bare_stats.retries++;
		xp__bare_unpark();
		if (asleep) /* no time that passes here lets it run */
			return xp__bare_refuse(diag, -XP_E_IN_RANGE,
					       "a thread that no processor runs rests inside the range");
		for (int i = 0; i < PAUSE; i++)
			xp__cpu_relax();
	}
	return xp__bare_refuse(diag, -XP_E_IN_RANGE, NULL);
}

void xp__bare_unpark(void)
{
	uint32_t round = meeting;

	/* ordering: (BS5) pairs with (BS6): all stores of text come before any processor leaves */
	__atomic_store_n(&released, round, __ATOMIC_SEQ_CST);
	for (unsigned i = 0; i < xp__bare->nr_cpus; i++)
		/* ordering: (BS8) pairs with (BS7): what the caller does next comes after each has serialized */
		while (asked(i) && __atomic_load_n(&xp__bare->cpus[i].left, __ATOMIC_ACQUIRE) != round)
			xp__cpu_relax();
	xp__serialize();
	parking = false;
	xp__bare_irq_restore(irq_before_park);
}

bool xp_bare_parked(void)
{
	return *(volatile bool *)&parking;
}
