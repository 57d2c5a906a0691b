// SPDX-License-Identifier: MIT
/*
 * Threads that change something at the same time share a commit, and so its syncs, its files, its writes.
 *
 * A thread that finds the text lock taken leaves a copy of its request in a slot and waits for the lock, or for its slot to be
 * done, whichever comes first. The thread that gets the lock, the leader, takes all slots that wait, and carries them out in one
 * commit with its own request.
 *
 *	a thread that waits                             the leader, under the text lock
 *	fill the slot
 *	(Q1) set its bit in waiting      release        (Q2) take all bits of waiting            acquire
 *	wait for the lock, or                           commit; error, diag into each slot
 *	(Q4) done?                       acquire        (Q3) done                                release
 *	                                                unlock, which wakes all
 *
 * I1  A bit of waiting is taken once: by a leader, or by its thread, which then carries out its request itself or gives up.
 *     So a request is carried out at most once.
 * I2  What a leader reads lies in the slot, never in the stack of the thread that waits: that thread may give up.
 * I3  If the commit of all fails, nothing has changed, and each request is tried alone: none fails on account of another one.
 *     If the engine was wedged, all have its error.
 * I4  Of one object there is one request in a commit: the next one is for the next commit, in the order of the slots. The leader's
 *     own comes last of all.
 * I5  A leader serves the threads that waited when it got the lock, and no others: at most one request for each slot. A thread
 *     waits for the leader that has the lock, and, if it is not itself the next, for one more; and for those commits that are not
 *     shared and came to the lock before it.
 * I6  A thread waits for a leader as long as for the lock, and if its request was taken, once more as long. The error then says
 *     that the change was begun (-XP_E_BEGUN); the slot stays the leader's, which frees it in the end.
 * I7  In the child of a fork all slots are free: the threads that had them are not there. A thread that forked in a signal handler
 *     in the middle of its wait finds by `generation` that its slot is gone, and goes on alone, unless its request was done before.
 * I8  A thread may leave its wait by a jump, and its request stays. It is never carried out after a change that began later: of
 *     a leader's requests its own comes last (I4), and a change that is not shared first sends all that wait away
 *     (xp__share_disband()). They come once more, and if that happens again they wait for the lock alone. The slot is lost.
 */
#include "core/share.h"

#include "core/deps.h"
#include "core/state.h"

#define BITS (8 * (unsigned)sizeof(unsigned long))

#define TRIES 2u /* I8 */

enum { NOT_YET, DONE, ALONE, ABANDONED }; /* of slot.done; ALONE: not carried out, by no leader ever */

struct slot {
	uint32_t done;
	int error;
	struct xp_diag diag;
	struct xp__request request;
	struct xp__poke poke; /* of the request */
} __attribute__((aligned(64)));

static struct slot slots[BITS];
static unsigned long claimed, waiting; /* a bit for each */
static uint32_t generation;            /* of the process: forks */

/* ---- the thread that waits ---- */

/* A slot that is this thread's; NULL: there is none free. */
static struct slot *share_claim(void)
{
	unsigned long seen = __atomic_load_n(&claimed, __ATOMIC_RELAXED), bit;

	do {
		if (seen == ~0ul)
			return NULL;
		bit = ~seen & (seen + 1);
		/* ordering: (Q4) pairs with (Q3): of the one that had it before */
	} while (!__atomic_compare_exchange_n(&claimed, &seen, seen | bit, false, __ATOMIC_ACQUIRE, __ATOMIC_RELAXED));
	return &slots[__builtin_ctzl(bit)];
}

static unsigned long bit_of(const struct slot *slot)
{
	return 1ul << (slot - slots);
}

static void share_free(struct slot *slot)
{
	/* ordering: (Q3) pairs with (Q4) */
	__atomic_fetch_and(&claimed, ~bit_of(slot), __ATOMIC_RELEASE);
}

static void share_publish(struct slot *slot, const struct xp__request *request)
{
	slot->request = *request;
	if (request->object == NULL) {
		slot->poke = *request->pokes.at;
		slot->request.pokes.at = &slot->poke;
	}
	__atomic_store_n(&slot->done, NOT_YET, __ATOMIC_RELAXED);
	/* ordering: (Q1) pairs with (Q2): told to a sanitizer as well */
	xp__tell(&slot->done, __ATOMIC_RELEASE);
	__atomic_fetch_or(&waiting, bit_of(slot), __ATOMIC_RELEASE);
}

/* Whether no leader has taken the slot, nor will. */
static bool share_withdraw(const struct slot *slot)
{
	return __atomic_fetch_and(&waiting, ~bit_of(slot), __ATOMIC_RELAXED) & bit_of(slot);
}

static uint32_t done_of(const struct slot *slot)
{
	/* ordering: (Q4) pairs with (Q3) */
	return __atomic_load_n(&slot->done, __ATOMIC_ACQUIRE);
}

static int share_result(struct slot *slot, struct xp_diag *diag)
{
	int error = slot->error;

	/* ordering: (Q4) pairs with (Q3): told to a sanitizer */
	xp__tell(&slot->done, __ATOMIC_ACQUIRE);
	if (diag)
		*diag = slot->diag;
	share_free(slot);
	return error;
}

/* The lock was not to be had, and a leader has the request. */
static int share_abandon(struct slot *slot, int error, struct xp_diag *diag)
{
	uint32_t seen = NOT_YET;

	/* ordering: (Q4) pairs with (Q3) */
	if (!__atomic_compare_exchange_n(&slot->done, &seen, ABANDONED, false, __ATOMIC_ACQUIRE, __ATOMIC_ACQUIRE))
		return share_result(slot, diag);
	return xp__fail(diag, error == -XP_E_HELD ? -XP_E_BEGUN : error, XP_PHASE_STORE, NULL, NULL);
}

enum outcome { ENDED, LOCKED, ON_ITS_OWN };

/* Waits. ENDED: *@error is the result. LOCKED: the thread has the text lock, and its request. ON_ITS_OWN: the request alone. */
static enum outcome share_wait(const struct xp__request *request, struct xp_diag *diag, int *error)
{
	const uint32_t born = __atomic_load_n(&generation, __ATOMIC_RELAXED);
	struct slot *slot = share_claim();
	bool mine, taken = false;

	if (slot == NULL)
		return ON_ITS_OWN;
	share_publish(slot, request);
	for (;;) {
		*error = xp__lock_or(diag, &slot->done);
		mine = __atomic_load_n(&generation, __ATOMIC_RELAXED) == born;
		if (mine && !taken && *error <= 0 && share_withdraw(slot)) {
			share_free(slot);
			return *error ? ENDED : LOCKED;
		}
		if (!mine && *error <= 0 && done_of(slot) != DONE)
			return *error ? ENDED : LOCKED;
		/* The leader that took the slot made it done before it gave the lock back. */
		if (*error == 0)
			xp__unlock();
		/* Carried out before the fork: so it is in the child's text as well. */
		if (!mine && done_of(slot) != DONE)
			return ON_ITS_OWN;
		if (done_of(slot) == ALONE) {
			share_free(slot);
			return ON_ITS_OWN;
		}
		if (done_of(slot) == DONE) {
			*error = share_result(slot, diag);
			return ENDED;
		}
		if (taken || *error != -XP_E_HELD) {
			*error = share_abandon(slot, *error, diag);
			return ENDED;
		}
		taken = true;
	}
}

/* ---- the leader ---- */

bool xp__share_waits(void)
{
	return __atomic_load_n(&waiting, __ATOMIC_RELAXED) != 0;
}

static unsigned long share_take(void)
{
	if (__atomic_load_n(&waiting, __ATOMIC_RELAXED) == 0)
		return 0;
	/* ordering: (Q2) pairs with (Q1) */
	return __atomic_exchange_n(&waiting, 0, __ATOMIC_ACQUIRE);
}

static void share_done(struct slot *slot, uint32_t done)
{
	/* ordering: (Q3) pairs with (Q4): told to a sanitizer as well */
	xp__tell(&slot->done, __ATOMIC_RELEASE);
	if (__atomic_exchange_n(&slot->done, done, __ATOMIC_ACQ_REL) == ABANDONED)
		share_free(slot);
	xp__port->told();
}

void xp__share_disband(void)
{
	for (unsigned long taken = share_take(); taken; taken &= taken - 1)
		share_done(&slots[__builtin_ctzl(taken)], ALONE);
}

/* Those that are carried out together; of each object one. */
struct round {
	struct slot *slot[BITS + 1]; /* NULL: the leader's own */
	size_t nr;
	bool last; /* with the leader's own */
};

static void share_add(struct round *round, struct slot *slot, const struct xp__request *request,
		      struct xp__request *requests)
{
	round->slot[round->nr] = slot;
	requests[round->nr++] = *request;
	if (request->object)
		request->object->scratch = 1;
}

/* Takes what fits into a round out of @taken. The leader's own request comes when no other one is left before it. */
static unsigned long share_gather(struct round *round, unsigned long taken, const struct xp__request *own,
				  struct xp__request *requests)
{
	unsigned long rest = 0;

	round->nr = 0;
	for (; taken; taken &= taken - 1) {
		struct slot *slot = &slots[__builtin_ctzl(taken)];

		if (slot->request.object && slot->request.object->scratch)
			rest |= bit_of(slot);
		else
			share_add(round, slot, &slot->request, requests);
	}
	round->last = rest == 0 && !(own->object && own->object->scratch);
	if (round->last)
		share_add(round, NULL, own, requests);
	for (size_t i = 0; i < round->nr; i++)
		if (requests[i].object)
			requests[i].object->scratch = 0;
	return rest;
}

int xp__share_lead(struct xp__request *own, xp__share_apply *apply, struct xp_diag *diag)
{
	static struct xp__request requests[BITS + 1]; /* a signal's stack is small */
	unsigned long rest = share_take();
	struct round round = {.last = false};
	int result = 0;

	if (rest == 0)
		return apply(own, 1, diag);
	/* ordering: (Q2) pairs with (Q1): told to a sanitizer */
	for (unsigned long left = rest; left; left &= left - 1)
		xp__tell(&slots[__builtin_ctzl(left)].done, __ATOMIC_ACQUIRE);
	while (!round.last) {
		struct xp_diag all = {0};
		int error;

		rest = share_gather(&round, rest, own, requests);
		error = xp_state() == XP_STATE_WEDGED ? -XP_E_WEDGED : apply(requests, round.nr, &all);
		for (size_t i = 0; i < round.nr; i++) {
			struct slot *slot = round.slot[i];
			struct xp_diag *told = slot ? &slot->diag : diag;
			int alone = error;

			if (told)
				*told = all;
			if (error && round.nr > 1 && xp_state() == XP_STATE_READY) {
				if (told)
					memset(told, 0, sizeof(*told));
				alone = apply(&requests[i], 1, told);
			}
			if (slot == NULL) {
				result = alone;
				continue;
			}
			slot->error = alone;
			share_done(slot, DONE);
		}
	}
	return result;
}

int xp__share(struct xp__request *request, xp__share_apply *apply, struct xp_diag *diag)
{
	int error = xp__lock_or(diag, NULL);

	for (unsigned tries = 0; error > 0 && tries < TRIES; tries++)
		switch (share_wait(request, diag, &error)) {
		case ENDED:
			return error;
		case LOCKED:
			break;
		case ON_ITS_OWN:
			error = tries + 1 < TRIES ? xp__lock_or(diag, NULL) : xp__lock(diag);
		}
	if (error)
		return error;
	error = xp__share_lead(request, apply, diag);
	xp__unlock();
	return error;
}

void xp_share_fork_child(void)
{
	__atomic_store_n(&waiting, 0, __ATOMIC_RELAXED);
	__atomic_store_n(&claimed, 0, __ATOMIC_RELAXED);
	__atomic_store_n(&generation, generation + 1, __ATOMIC_RELAXED);
}
