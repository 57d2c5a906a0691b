// SPDX-License-Identifier: MIT
/*
 * Syncs have numbers, and an asynchronous commit leaves its own to a later one. Its ticket is the number of the next sync to
 * begin. W commits asynchronously. S is the thread that does the next sync, for a commit of its own or because it waits for
 * a ticket. Both have the text lock. T asks without it.
 *
 *	W                               S                               T
 *	store
 *	ticket = begun + 1
 *	                                n = ++begun
 *	                                sync
 *	                                tell the objects
 *	                                (Y1) ended = n      release     (Y2) ended >= ticket?    acquire
 *
 * I1  A sync of W's ticket, or of a later number, began after W's store: its number was drawn under the lock, after W's.
 *     A sync that began before has a lower one, however late it ends.
 * I2  A sync that failed ends nothing: what was owed is owed still. `ended` is a number of a sync that succeeded.
 * I3  Owed is the difference between what stands in the text and what processors fetch. Until it is settled
 *     - a site may be fetched in each version since the last sync. So a commit that would store to such a site again settles
 *       first (emit.c, may_pile()), unless all versions differ in one and the same byte: a key's. Then each is whole, however
 *       many there are;
 *     - nothing that takes several stores, or parks, begins (poke.c, xp__poke_ready());
 *     - nothing that old text leads to is given back: kinds that keep such things are not changed asynchronously, and a module
 *       that goes settles first (site.c);
 *     - nothing says "done": a change that finds its object as it should be settles before it returns 0 (batch.c), and a key's
 *       count does not say that it is on (kinds/key.c).
 * I4  Objects are on the list of what is owed by one of their groups, which the engine made; one that has none has no sites.
 */
#include "core/ticket.h"

#include "core/counter.h"
#include "core/deps.h"
#include "core/kind.h"
#include "core/state.h"

static struct xp__counter syncs;
static unsigned long begun, ended; /* numbers of syncs: wrap around */
static unsigned long owing;        /* the latest ticket of a commit */
static struct xp__group *list;     /* of the objects that are owed a sync */
static bool raw;                   /* so are bytes at addresses */

/* Whether @a comes before @b; they are less than half of all numbers apart. */
static bool is_before(unsigned long a, unsigned long b)
{
	return (long)(a - b) < 0;
}

void xp__count_parked(void)
{
	xp__count_locked(&syncs, 1);
}

uint64_t xp__syncs(void)
{
	return xp__counted(&syncs);
}

static void tell(const struct xp__group *group)
{
	group->object->flags &= ~XP__OBJECT_OWED;
	if (group->kind->synced)
		group->kind->synced(group->object);
}

int xp__sync(void)
{
	const unsigned long number = begun + 1;
	int error;

	xp__count_locked(&syncs, 1);
	__atomic_store_n(&begun, number, __ATOMIC_RELAXED);
	/* ordering: (P2) pairs with (S1) */
	error = xp__port->sync_core();
	if (error)
		return error;
	for (; list; list = list->owed)
		tell(list);
	raw = false;
	/* ordering: (Y1) pairs with (Y2) */
	__atomic_store_n(&ended, number, __ATOMIC_RELEASE);
	return 0;
}

void xp__owe(struct xp_object *object)
{
	if (object && object->groups == NULL)
		return;
	owing = begun + 1;
	if (object == NULL) {
		raw = true;
	} else if (!(object->flags & XP__OBJECT_OWED)) {
		object->flags |= XP__OBJECT_OWED;
		object->groups->owed = list;
		list = object->groups;
	}
}

bool xp__owed(void)
{
	return is_before(ended, owing);
}

bool xp__owed_by(const struct xp_object *object)
{
	return object ? object->flags & XP__OBJECT_OWED : raw;
}

void xp__owed_forget(const struct xp__group *groups, size_t nr)
{
	struct xp__group **link = &list;

	while (*link) {
		struct xp__group *group = *link;

		if ((uintptr_t)group - (uintptr_t)groups >= nr * sizeof(*groups)) {
			link = &group->owed;
			continue;
		}
		*link = group->owed;
		group->object->flags &= ~XP__OBJECT_OWED;
		if (group->object->groups)
			xp__owe(group->object);
		else
			tell(group);
	}
}

int xp__settle(struct xp_diag *diag)
{
	int error;

	if (!xp__owed())
		return 0;
	error = xp__port->prepare(0, diag);
	if (error)
		return xp__fail(diag, error, XP_PHASE_PREPARE, NULL, NULL);
	error = xp__sync();
	return error ? xp__fail_port(diag, error, XP_PHASE_SYNC, NULL) : 0;
}

/* ---- tickets ---- */

struct xp_ticket xp__ticket(void)
{
	return (struct xp_ticket){.sync = xp__owed() ? owing : ended};
}

int xp_ticket_poll(const struct xp_ticket *ticket)
{
	/* ordering: (Y2) pairs with (Y1) */
	const unsigned long done = __atomic_load_n(&ended, __ATOMIC_ACQUIRE);

	if (ticket == NULL || is_before(__atomic_load_n(&begun, __ATOMIC_RELAXED) + 1, (unsigned long)ticket->sync))
		return -XP__EINVAL;
	if (!is_before(done, (unsigned long)ticket->sync))
		return 1;
	return xp_state() == XP_STATE_WEDGED ? -XP_E_WEDGED : 0;
}

int xp_ticket_wait(const struct xp_ticket *ticket, struct xp_diag *diag)
{
	int done = xp_ticket_poll(ticket), error;

	if (done == 1 || done == -XP__EINVAL) {
		if (diag)
			memset(diag, 0, sizeof(*diag));
		return done == 1 ? 0 : xp__fail(diag, done, XP_PHASE_VALIDATE, NULL, NULL);
	}
	error = xp__lock(diag);
	if (error)
		return error;
	/* Another thread's sync may have been the ticket's meanwhile. */
	if (xp_ticket_poll(ticket) != 1)
		error = xp__settle(diag);
	xp__unlock();
	return error;
}
