// SPDX-License-Identifier: MIT
/*
 * Builds commits from requests, and keeps the requests of public batches.
 *
 * I1  Everything that can be refused is refused while a commit is built or in the port's prepare(), before the first
 *     store.
 * I2  Of several requests for one object the last one counts, or stands for all where their kind adds them up.
 * I3  Every request that was started is finished, done or undone.
 * I4  Breakpoints that a thread's mask forbids. The commit is built once more, of stores that need none, for which the port may
 *     have another writer than the one in force. If one site cannot be changed so, the commit is refused as it was, and nothing
 *     was stored.
 */
#include "core/batch.h"

#include "core/deps.h"
#include "core/drift.h"
#include "core/engine.h"
#include "core/poke.h"

static void measure(const struct xp__request *request, struct xp__size *size)
{
	if (request->object == NULL)
		request->kind->measure(request, NULL, size);
	else
		for (const struct xp__group *group = request->object->groups; group; group = group->next)
			group->kind->measure(request, group, size);
}

static int add(const struct xp__request *request, struct xp__commit *commit, struct xp_diag *diag)
{
	int error = 0;

	if (request->object == NULL)
		return request->kind->add(request, NULL, commit, diag);
	for (const struct xp__group *group = request->object->groups; group && !error; group = group->next)
		error = group->kind->add(request, group, commit, diag);
	return error;
}

static void settle(const struct xp__request *request, const struct xp__group *group)
{
	if (group->kind->settled)
		group->kind->settled(request, group);
}

/* A commit with room for @size; NULL, told to @diag, if there is no memory. */
static struct xp__commit *new_commit(const struct xp__size *size, struct xp_diag *diag)
{
	struct xp__commit *commit = xp__commit_new(size);

	if (commit == NULL)
		xp__fail(diag, -XP__ENOMEM, XP_PHASE_VALIDATE, NULL, NULL);
	return commit;
}

static bool patches(const struct xp__request *request)
{
	return !request->skip && !request->added_to;
}

/* ---- commits that a thread's mask forbids breakpoints (I4) ---- */

/* What makes a commit: requests, or what the sites of a module that comes lack. */
struct wanted {
	const struct xp__request *requests;
	size_t nr_requests;
	const struct xp__group *groups; /* not NULL: in the place of requests */
	size_t nr_groups;
	enum xp__from from;
	const struct xp__size *size;
};

static int add_all(const struct wanted *wanted, struct xp__commit *commit, struct xp_diag *diag);

/* What the port can serve of a commit that it refused, if it refused the breakpoints; 0: it did not, or there is no way. */
static unsigned without_traps(const struct xp__commit *commit, int error)
{
	if (error != -XP__EBUSY || commit->policy != XP_POLICY_AUTO || !(xp__commit_needs(commit) & XP_NEED_TRAP))
		return 0;
	/* It may have been something else: the port is asked for breakpoints alone. */
	return xp__port->prepare(XP_NEED_TRAP, NULL) == -XP__EBUSY ? xp__port->can(~(unsigned)XP_NEED_TRAP) : 0;
}

/* The same changes without breakpoints, ready to be run; NULL: not all of them are possible, and @diag says nothing. */
static struct xp__commit *rebuild(const struct wanted *wanted, unsigned can, struct xp_diag *diag)
{
	struct xp__commit *commit = xp__commit_new(wanted->size);

	if (commit == NULL)
		return NULL;
	commit->can = can;
	if (diag)
		memset(diag, 0, sizeof(*diag));
	if (add_all(wanted, commit, NULL) == 0 && xp__commit_ready(commit, diag) == 0)
		return commit;
	xp__commit_free(commit);
	if (diag)
		memset(diag, 0, sizeof(*diag));
	return NULL;
}

/* Runs the commit, or the same changes without breakpoints, where those are dear or forbidden. */
static int run(struct xp__commit *commit, const struct wanted *wanted, struct xp_diag *diag)
{
	bool dear = commit->policy == XP_POLICY_AUTO && xp__commit_needs(commit) & XP_NEED_TRAP &&
		    !xp__port->can(XP_NEED_TRAP);
	struct xp__commit *other = dear ? rebuild(wanted, xp__port->can(~(unsigned)XP_NEED_TRAP), diag) : NULL;
	int error = other ? 0 : xp__commit_ready(commit, diag);
	unsigned can = error ? without_traps(commit, error) : 0;
	struct xp_diag refused;

	if (can) {
		if (diag)
			refused = *diag;
		other = rebuild(wanted, can, diag);
		if (other == NULL && diag)
			*diag = refused;
	}
	if (other || error)
		xp__commit_free(commit);
	if (other)
		return xp__commit_run(other, diag);
	return error ? error : xp__commit_run(commit, diag);
}

/* The request that says what the object of @group is now. */
static struct xp__request current(const struct xp__group *group, enum xp__from from)
{
	struct xp__request request = {.kind = group->kind, .object = group->object, .from = (uint8_t)from};

	group->kind->current(&request);
	return request;
}

static void measure_groups(const struct xp__group *groups, size_t nr, enum xp__from from, struct xp__size *size)
{
	for (size_t i = 0; i < nr; i++) {
		struct xp__request request = current(&groups[i], from);

		request.kind->measure(&request, &groups[i], size);
	}
}

/* What the sites of the groups lack. */
static int add_groups(const struct xp__group *groups, size_t nr, enum xp__from from, struct xp__commit *commit,
		      struct xp_diag *diag)
{
	int error = 0;

	for (size_t i = 0; i < nr && !error; i++) {
		struct xp__request request = current(&groups[i], from);

		error = request.kind->add(&request, &groups[i], commit, diag);
	}
	return error;
}

static int add_all(const struct wanted *wanted, struct xp__commit *commit, struct xp_diag *diag)
{
	int error = add_groups(wanted->groups, wanted->nr_groups, wanted->from, commit, diag);

	for (size_t i = 0; i < wanted->nr_requests && !error; i++)
		if (patches(&wanted->requests[i]))
			error = add(&wanted->requests[i], commit, diag);
	return error;
}

/* Text was not what it had to be. It may be of another form that the site may have, which can be mended. */
static int explain(const struct xp__request *requests, size_t nr, struct xp_diag *diag)
{
	struct xp_diag why = {0};

	for (size_t i = 0; i < nr; i++)
		if (patches(&requests[i]) && requests[i].object &&
		    xp__drift_check(requests[i].object->groups, NULL, &why) == -XP_E_DRIFTED) {
			if (diag)
				*diag = why;
			return -XP_E_DRIFTED;
		}
	return -XP_E_MISMATCH;
}

int xp__patch_locked(const struct xp__request *requests, size_t nr, struct xp_diag *diag)
{
	struct xp__size size = {0};
	const struct wanted wanted = {.requests = requests, .nr_requests = nr, .size = &size};
	struct xp__commit *commit;
	int error;

	for (size_t i = 0; i < nr; i++)
		if (patches(&requests[i]))
			measure(&requests[i], &size);
	if (size.sites == 0)
		return 0;
	commit = new_commit(&size, diag);
	if (commit == NULL)
		return -XP__ENOMEM;
	error = add_all(&wanted, commit, diag);
	if (error) {
		xp__commit_free(commit);
		return error == -XP_E_MISMATCH ? explain(requests, nr, diag) : error;
	}
	error = run(commit, &wanted, diag);
	for (size_t i = 0; i < nr && !error; i++)
		if (patches(&requests[i]) && requests[i].object)
			for (const struct xp__group *group = requests[i].object->groups; group; group = group->next)
				settle(&requests[i], group);
	return error == -XP_E_MISMATCH ? explain(requests, nr, diag) : error;
}

/* A commit with what the sites of the groups lack; NULL if they lack nothing. */
static int build_attach(const struct wanted *wanted, bool early, struct xp__commit **result, struct xp_diag *diag)
{
	struct xp__commit *commit;
	int error;

	*result = NULL;
	if (wanted->size->sites == 0)
		return 0;
	commit = new_commit(wanted->size, diag);
	if (commit == NULL)
		return -XP__ENOMEM;
	if (early)
		commit->policy = XP_POLICY_EARLY;
	error = add_all(wanted, commit, diag);
	if (error)
		xp__commit_free(commit);
	else
		*result = commit;
	return error;
}

static bool traps(const struct xp__commit *commit)
{
	for (size_t i = 0; i < commit->nr_plans; i++)
		if (commit->plans[i].traps)
			return true;
	return false;
}

int xp__attach_locked(const struct xp__group *groups, size_t nr, enum xp__from from, struct xp_diag *diag)
{
	struct xp__size size = {0};
	const struct wanted wanted = {.groups = groups, .nr_groups = nr, .from = from, .size = &size};
	struct xp__commit *commit;
	int error;

	measure_groups(groups, nr, from, &size);
	error = build_attach(&wanted, false, &commit, diag);

	/*
	 * Breakpoints ask for a handler and that no thread blocks its signal. A program that begins, alone, shall not have
	 * to do with that because it has a value that does not begin as 0.
	 */
	if (!error && commit && traps(commit) && xp__port->prepare(XP_NEED_ALONE, NULL) == 0) {
		xp__commit_free(commit);
		error = build_attach(&wanted, true, &commit, diag);
	}
	if (!error && commit == NULL)
		return 0;
	error = error ? error : run(commit, &wanted, diag);
	for (size_t i = 0; i < nr && !error; i++) {
		struct xp__request request = current(&groups[i], from);

		settle(&request, &groups[i]);
	}
	return error;
}

/* Marks all but the last request for each object. */
static void skip_superseded(struct xp__request *requests, size_t nr)
{
	for (size_t i = nr; i-- > 0;) {
		bool again = requests[i].object && requests[i].object->scratch != 0;

		requests[i].skip = again && !requests[i].kind->cumulative;
		requests[i].added_to = again && requests[i].kind->cumulative;
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

/* The requests' objects are marked. The handle of a gate is led to its gate when it is registered: before it has the name only. */
static bool is_requested(const struct xp_object *object, unsigned kind, const void *data)
{
	const struct requested *requested = data;

	if (object->scratch || kind != XP_SITE_GATE || object->real)
		return object->scratch;
	for (size_t i = 0; i < requested->nr; i++)
		if (requested->requests[i].kind == &xp__gate_kind &&
		    same_name(requested->requests[i].object->name, object->name))
			return true;
	return false;
}

static bool concerns(const struct xp_module *module, const void *data)
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

int xp__settle_modules(const struct xp__request *requests, size_t nr, struct xp_diag *diag)
{
	struct requested requested = {requests, nr};

	return xp__modules_retry(concerns, &requested, diag);
}

static void finish(struct xp__request *requests, size_t nr, bool done)
{
	for (size_t i = 0; i < nr; i++)
		if (!requests[i].skip && requests[i].kind->finish)
			requests[i].kind->finish(&requests[i], done);
}

int xp__apply_locked(struct xp__request *requests, size_t nr, struct xp_diag *diag)
{
	int error = xp__settle_modules(requests, nr, diag);

	if (error)
		return error;
	skip_superseded(requests, nr);
	for (size_t i = 0; i < nr; i++) {
		bool superseded = requests[i].skip;

		/* ordering: (TS1) pairs with (TS2) */
		if (requests[i].object)
			xp__tell(&requests[i].object->scratch, __ATOMIC_RELEASE);
		if (!superseded && requests[i].kind->start)
			error = requests[i].kind->start(&requests[i]);
		if (error) {
			finish(requests, i, false);
			if (diag)
				diag->key = requests[i].object->name;
			return xp__fail(diag, error, XP_PHASE_VALIDATE, NULL, NULL);
		}
		/* It is so already, if its sites are. */
		if (!superseded && requests[i].skip)
			error = xp__drift_check(requests[i].object->groups, NULL, diag);
		if (error) {
			finish(requests, i, false);
			return error;
		}
	}
	error = xp__patch_locked(requests, nr, diag);
	finish(requests, nr, error == 0);
	return error;
}

int xp__apply(struct xp__request *request, struct xp_diag *diag)
{
	int error = xp__lock(diag);

	if (error)
		return error;
	error = xp__apply_locked(request, 1, diag);
	xp__unlock();
	return error;
}

int xp__apply_listed(size_t (*list)(struct xp__request *requests))
{
	int error = xp__lock(NULL);
	struct xp__request *requests;
	size_t nr;

	if (error)
		return error;
	nr = list(NULL);
	if (nr > 0) {
		requests = xp__commit_alloc(nr * sizeof(*requests));
		error = -XP__ENOMEM;
		if (requests) {
			list(requests);
			error = xp__apply_locked(requests, nr, NULL);
			xp__port->release(requests, nr * sizeof(*requests));
		}
	}
	xp__unlock();
	return error;
}

/* ---- the public batch ---- */

struct xp_batch {
	struct xp__request *requests;
	size_t nr, room;
};

struct xp_batch *xp_batch_new(void)
{
	struct xp_batch *batch;

	if (xp__lock(NULL))
		return NULL;
	batch = xp__port->alloc(sizeof(*batch));
	xp__unlock();
	return batch;
}

/* The batch is empty, or about to go. Context: no lock held: a shared object that nobody needs may go away with it. */
static void drop_requests(struct xp_batch *batch)
{
	for (size_t i = 0; i < batch->nr; i++)
		if (batch->requests[i].kind->drop)
			batch->requests[i].kind->drop(&batch->requests[i]);
	batch->nr = 0;
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
	larger = xp__commit_alloc(more * sizeof(*larger));
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

int xp_batch_commit(struct xp_batch *batch, struct xp_diag *diag)
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
	error = xp__apply_locked(batch->requests, batch->nr, diag);
	xp__unlock();
	if (!error)
		drop_requests(batch);
	return error;
}
