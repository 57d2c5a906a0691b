// SPDX-License-Identifier: MIT
/*
 * Carries out requests, and keeps those of public batches.
 *
 * I1  Of several requests for one object the last one counts, or stands for all where their kind adds them up.
 * I2  Every request that was begun is ended, done or undone.
 */
#include "core/batch.h"

#include "core/commit.h"
#include "core/deps.h"
#include "core/drift.h"
#include "core/emit.h"
#include "core/poke.h"
#include "core/reclaim.h"
#include "core/share.h"
#include "core/site.h"
#include "core/state.h"
#include "core/ticket.h"

/* Text was not what it had to be. It may be of another form that the site may have, which can be mended. */
static int explain(const struct xp__request *requests, size_t nr, struct xp_diag *diag)
{
	struct xp_diag why = {0};

	for (size_t i = 0; i < nr; i++)
		if (xp__request_patches(&requests[i]) && requests[i].object &&
		    xp__drift_check(requests[i].object->groups, NULL, &why) == -XP_E_DRIFTED) {
			if (diag)
				*diag = why;
			return -XP_E_DRIFTED;
		}
	return -XP_E_MISMATCH;
}

/* If the request changes one site by one store (xp__kind.single), does it: true, its result in @error. False: it needs a commit. */
static inline bool patch_single(const struct xp__request *request, struct xp_diag *diag, int *error)
{
	struct xp__plan *plan = NULL;
	uintptr_t site;

	if (request->kind->single && !request->skip && !request->merged && request->from == XP__FROM_STATE &&
	    !request->early && !request->async && !xp__owed())
		plan = request->kind->single(request, &site);
	if (plan)
		*error = xp__poke_single(plan, site, diag);
	return plan;
}

static int patch_commit(const struct xp__request *requests, size_t nr, struct xp_diag *diag)
{
	const struct xp__work work = {.requests = requests, .nr = nr, .async = nr > 0 && requests->async};
	int error = xp__emit_commit(&work, diag);

	return error == -XP_E_MISMATCH ? explain(requests, nr, diag) : error;
}

int xp__batch_patch(const struct xp__request *requests, size_t nr, struct xp_diag *diag)
{
	int error;

	return nr == 1 && patch_single(requests, diag, &error) ? error : patch_commit(requests, nr, diag);
}

/* Marks all but the last request for each object. */
static void skip_superseded(struct xp__request *requests, size_t nr)
{
	for (size_t i = nr; i-- > 0;) {
		bool again = requests[i].object && requests[i].object->scratch != 0;

		requests[i].skip = again && !requests[i].kind->cumulative;
		requests[i].merged = again && requests[i].kind->cumulative;
		if (requests[i].object)
			requests[i].object->scratch = 1;
	}
	for (size_t i = 0; i < nr; i++)
		if (requests[i].object)
			requests[i].object->scratch = 0;
}

/* ---- modules that are not registered ---- */

struct requested {
	const struct xp__request *requests;
	size_t nr;
};

static bool same_name(const char *a, const char *b)
{
	while (a && b && *a && *a == *b) {
		a++;
		b++;
	}
	return a && b && *a == *b;
}

/* The requests' objects are marked. A handle that is led to its object by name has only the name before it is registered. */
static bool is_requested(const struct xp_object *object, unsigned kind, const void *data)
{
	const struct requested *requested = data;

	if (object->scratch || !xp__kind_of(kind)->by_name || object->real)
		return object->scratch;
	for (size_t i = 0; i < requested->nr; i++)
		if (requested->requests[i].kind == xp__kind_of(kind) &&
		    same_name(requested->requests[i].object->name, object->name))
			return true;
	return false;
}

static bool batch_concerns(const struct xp_module *module, const void *data)
{
	const struct requested *requested = data;
	bool yes;

	for (size_t i = 0; i < requested->nr; i++)
		if (requested->requests[i].object)
			requested->requests[i].object->scratch = 1;
	yes = xp__module_names(module, is_requested, requested);
	for (size_t i = 0; i < requested->nr; i++)
		if (requested->requests[i].object)
			requested->requests[i].object->scratch = 0;
	return yes;
}

int xp__batch_settle_modules(const struct xp__request *requests, size_t nr, struct xp_diag *diag)
{
	struct requested requested = {requests, nr};

	return xp__modules_retry(batch_concerns, &requested, diag);
}

static void batch_end(struct xp__request *requests, size_t nr, bool done)
{
	for (size_t i = 0; i < nr; i++)
		if (!requests[i].skip && requests[i].kind->end)
			requests[i].kind->end(&requests[i], done);
}

/* Begins a request that is not skipped. On an error it is as if it had not been begun. */
static int batch_begin(struct xp__request *request, struct xp_diag *diag)
{
	const bool superseded = request->skip;
	int error = 0;

	/* ordering: (TS1) pairs with (TS2) */
	if (request->object)
		xp__tell(&request->object->scratch, __ATOMIC_RELEASE);
	if (!superseded && request->kind->begin)
		error = request->kind->begin(request);
	if (error) {
		if (diag && request->object)
			diag->key = request->object->name;
		return xp__fail(diag, error, XP_PHASE_VALIDATE, NULL, NULL);
	}
	/* It is so already, if its sites are. */
	return !superseded && request->skip ? xp__drift_check(request->object->groups, NULL, diag) : 0;
}

/* Whether a sync is owed to sites that one of the requests found to be so already. */
static bool batch_owed(const struct xp__request *requests, size_t nr)
{
	for (size_t i = 0; i < nr && xp__owed(); i++)
		if (xp__owed_by(requests[i].object))
			return true;
	return false;
}

/* The sync of requests whose text is as they say, before they are ended: done if one is owed, or owed if they are @async. */
static int batch_sync(const struct xp__request *requests, size_t nr, bool async, struct xp_diag *diag)
{
	if (!async)
		return batch_owed(requests, nr) ? xp__settle(diag) : 0;
	for (size_t i = 0; i < nr; i++)
		if (xp__request_patches(&requests[i]))
			xp__owe(requests[i].object);
	return 0;
}

static int refuse_async(const struct xp__request *requests, size_t nr, struct xp_diag *diag)
{
	for (size_t i = 0; i < nr; i++)
		if (!requests[i].kind->asynchronous) {
			if (diag)
				diag->key = requests[i].object->name;
			return xp__fail(diag, -XP_E_NEEDS_SYNC, XP_PHASE_VALIDATE, NULL,
					"what such an object was is given back after the change");
		}
	return 0;
}

static int batch_apply(struct xp__request *requests, size_t nr, bool async, struct xp_diag *diag)
{
	int error = async ? refuse_async(requests, nr, diag) : 0;

	error = error ? error : xp__batch_settle_modules(requests, nr, diag);
	if (error)
		return error;
	skip_superseded(requests, nr);
	for (size_t i = 0; i < nr; i++)
		requests[i].async = async;
	for (size_t i = 0; i < nr; i++) {
		error = batch_begin(&requests[i], diag);
		if (error) {
			batch_end(requests, i, false);
			return error;
		}
	}
	error = xp__batch_patch(requests, nr, diag);
	error = error ? error : batch_sync(requests, nr, async, diag);
	batch_end(requests, nr, error == 0);
	return error;
}

int xp__batch_apply_locked(struct xp__request *requests, size_t nr, struct xp_diag *diag)
{
	return batch_apply(requests, nr, false, diag);
}

/*
 * xp__batch_apply_locked() of one request that may change one site by one store, where no sync is owed, in as few frames as can be
 * (sync_membarrier.h).
 */
static inline int apply_single(struct xp__request *request, struct xp_diag *diag)
{
	int error = batch_begin(request, diag);

	if (error)
		return error;
	if (!patch_single(request, diag, &error))
		error = patch_commit(request, 1, diag);
	batch_end(request, 1, error == 0);
	return error;
}

int xp__batch_apply(struct xp__request *request, struct xp_diag *diag)
{
	int error;

	/* A thread that finds the lock free: each frame around the sync costs time (sync_membarrier.h). */
	if (request->kind->single) {
		error = xp__lock_or(diag, NULL);
		if (error < 0)
			return error;
		if (error == 0) {
			if (!xp__share_waits() && !xp__modules_wait() && !xp__owed())
				error = apply_single(request, diag);
			else
				error = xp__share_lead(request, xp__batch_apply_locked, diag);
			xp__unlock();
			return error;
		}
	}
	if (request->kind->asynchronous)
		return xp__share(request, xp__batch_apply_locked, diag);
	error = xp__lock(diag);
	if (error)
		return error;
	xp__share_disband();
	error = xp__batch_apply_locked(request, 1, diag);
	xp__unlock();
	return error;
}

int xp__batch_apply_async(struct xp__request *request, struct xp_ticket *ticket)
{
	int error = ticket ? xp__lock(NULL) : -XP__EINVAL;

	if (error)
		return error;
	xp__share_disband();
	error = batch_apply(request, 1, true, NULL);
	if (!error)
		*ticket = xp__ticket();
	xp__unlock();
	return error;
}

int xp__batch_apply_listed(size_t (*list)(struct xp__request *requests))
{
	int error = xp__lock(NULL);
	struct xp__request *requests;
	size_t nr;

	if (error)
		return error;
	xp__share_disband();
	nr = list(NULL);
	if (nr > 0) {
		requests = xp__reclaim_port(nr * sizeof(*requests));
		error = -XP__ENOMEM;
		if (requests) {
			list(requests);
			error = xp__batch_apply_locked(requests, nr, NULL);
			xp__port->release(requests, nr * sizeof(*requests));
		}
	}
	xp__unlock();
	return error;
}

/* ---- the public batch ---- */

#define POKES_MIN 64u

/* Pokes of one request. They stay where they are: a million of them are not copied as the batch grows. */
struct pokes {
	struct pokes *next;
	size_t room;
	struct xp__poke at[];
};

struct xp_batch {
	struct xp__request *requests;
	size_t nr, room;
	struct pokes *pokes;    /* all pieces; kept for the next commit */
	struct pokes **filling; /* where the piece stands, or is to stand, that more pokes go to */
	size_t filled;          /* the request that has its pokes: number + 1; 0: none yet */
};

struct xp_batch *xp_batch_new(void)
{
	struct xp_batch *batch;

	if (xp__lock(NULL))
		return NULL;
	batch = xp__reclaim_port(sizeof(*batch));
	xp__unlock();
	if (batch)
		batch->filling = &batch->pokes;
	return batch;
}

/* The batch is empty, or about to go. Context: no lock held: a shared object that is not needed may go away with it. */
static void drop_requests(struct xp_batch *batch)
{
	for (size_t i = 0; i < batch->nr; i++)
		if (batch->requests[i].kind->drop)
			batch->requests[i].kind->drop(&batch->requests[i]);
	batch->nr = 0;
	batch->filling = &batch->pokes;
	batch->filled = 0;
}

static size_t size_of_pokes(size_t room)
{
	return sizeof(struct pokes) + room * sizeof(struct xp__poke);
}

void xp_batch_free(struct xp_batch *batch)
{
	if (batch)
		drop_requests(batch);
	/* Also in a wedged engine: memory is no patching. */
	if (batch == NULL || xp__port->lock())
		return;
	if (batch->requests)
		xp__port->release(batch->requests, batch->room * sizeof(*batch->requests));
	for (struct pokes *pokes = batch->pokes, *next; pokes; pokes = next) {
		next = pokes->next;
		xp__port->release(pokes, size_of_pokes(pokes->room));
	}
	xp__port->release(batch, sizeof(*batch));
	xp__port->unlock();
}

/* Room for one more request; false: no memory, batch as before. */
static bool grow(struct xp_batch *batch)
{
	size_t more = batch->room ? batch->room * 2 : 64;
	struct xp__request *larger;

	if (batch->nr < batch->room)
		return true;
	if (xp__lock(NULL))
		return false;
	larger = xp__reclaim_port(more * sizeof(*larger));
	if (larger && batch->requests) {
		memcpy(larger, batch->requests, batch->nr * sizeof(*larger));
		xp__port->release(batch->requests, batch->room * sizeof(*larger));
	}
	xp__unlock();
	if (larger == NULL)
		return false;
	batch->requests = larger;
	batch->room = more;
	return true;
}

int xp__batch_add(struct xp_batch *batch, const struct xp__request *request)
{
	if (batch == NULL)
		return -XP__EINVAL;
	if (!grow(batch))
		return -XP__ENOMEM;
	batch->requests[batch->nr++] = *request;
	return 0;
}

/* A piece for more pokes than there were, where the last one was full. False: no memory. */
static bool grow_pokes(struct xp_batch *batch, size_t room)
{
	if (*batch->filling)
		return true;
	if (xp__lock(NULL))
		return false;
	*batch->filling = xp__reclaim_port(size_of_pokes(room));
	xp__unlock();
	if (*batch->filling)
		(*batch->filling)->room = room;
	return *batch->filling != NULL;
}

struct xp__poke *xp__batch_poke(struct xp_batch *batch, const struct xp__kind *kind)
{
	struct xp__request *request = batch->filled ? &batch->requests[batch->filled - 1] : NULL;
	struct xp__request another = {.kind = kind};
	size_t room = POKES_MIN;

	if (request && request->pokes.nr == (*batch->filling)->room) {
		room = 2 * request->pokes.nr;
		batch->filling = &(*batch->filling)->next;
		batch->filled = 0;
	}
	if (!batch->filled) {
		if (!grow_pokes(batch, room))
			return NULL;
		another.pokes.at = (*batch->filling)->at;
		if (xp__batch_add(batch, &another))
			return NULL;
		batch->filled = batch->nr;
	}
	return &(*batch->filling)->at[batch->requests[batch->filled - 1].pokes.nr++];
}

/* @ticket: NULL, or the commit is asynchronous. */
static int batch_commit(struct xp_batch *batch, struct xp_ticket *ticket, struct xp_diag *diag)
{
	int error;

	if (batch == NULL) {
		if (diag)
			memset(diag, 0, sizeof(*diag));
		return xp__fail(diag, -XP__EINVAL, XP_PHASE_VALIDATE, NULL, NULL);
	}
	error = xp__lock(diag);
	if (error)
		return error;
	xp__share_disband();
	error = batch_apply(batch->requests, batch->nr, ticket != NULL, diag);
	if (!error && ticket)
		*ticket = xp__ticket();
	xp__unlock();
	if (!error)
		drop_requests(batch);
	return error;
}

int xp_batch_commit(struct xp_batch *batch, struct xp_diag *diag)
{
	return batch_commit(batch, NULL, diag);
}

int xp_batch_commit_async(struct xp_batch *batch, struct xp_ticket *ticket, struct xp_diag *diag)
{
	return batch_commit(ticket ? batch : NULL, ticket, diag);
}
