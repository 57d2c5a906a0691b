// SPDX-License-Identifier: MIT
/*
 * Builds commits from items, and keeps the items of public batches.
 *
 * I1  Everything that can be refused is refused while a commit is built or in the port's prepare(), before the first
 *     store.
 * I2  Of several items for one object the last one counts, or stands for all where their front adds them up.
 * I3  Every item that was started is finished, done or undone.
 * I4  Breakpoints that a thread's mask forbids. The commit is built once more, of stores that need none, for which the port may
 *     have another writer than the one in force. If one site cannot be changed so, the commit is refused as it was, and nothing
 *     was stored.
 */
#include "core/batch.h"

#include "core/deps.h"
#include "core/drift.h"
#include "core/engine.h"
#include "core/poke.h"

static void measure(const struct xp__item *item, struct xp__size *size)
{
	if (item->object == NULL)
		item->front->measure(item, NULL, size);
	else
		for (const struct xp__use *use = item->object->uses; use; use = use->next)
			use->front->measure(item, use, size);
}

static int add(const struct xp__item *item, struct xp__commit *commit, struct xp_diag *diag)
{
	int error = 0;

	if (item->object == NULL)
		return item->front->add(item, NULL, commit, diag);
	for (const struct xp__use *use = item->object->uses; use && !error; use = use->next)
		error = use->front->add(item, use, commit, diag);
	return error;
}

static void settle(const struct xp__item *item, const struct xp__use *use)
{
	if (use->front->settled)
		use->front->settled(item, use);
}

/* A commit with room for @size; NULL, told to @diag, if there is no memory. */
static struct xp__commit *new_commit(const struct xp__size *size, struct xp_diag *diag)
{
	struct xp__commit *commit = xp__commit_new(size);

	if (commit == NULL)
		xp__fail(diag, -XP__ENOMEM, XP_PHASE_VALIDATE, NULL, NULL);
	return commit;
}

static bool patches(const struct xp__item *item)
{
	return !item->skip && !item->added_to;
}

/* ---- commits that a thread's mask forbids breakpoints (I4) ---- */

/* What makes a commit: items, or what the sites of a module that comes lack. */
struct wanted {
	const struct xp__item *items;
	size_t nr_items;
	const struct xp__use *uses; /* not NULL: in the place of items */
	size_t nr_uses;
	enum xp__goal goal;
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

/* The item that says what the object of @use is now. */
static struct xp__item current(const struct xp__use *use, enum xp__goal goal)
{
	struct xp__item item = {.front = use->front, .object = use->object, .goal = (uint8_t)goal};

	use->front->current(&item);
	return item;
}

static void measure_uses(const struct xp__use *uses, size_t nr, enum xp__goal goal, struct xp__size *size)
{
	for (size_t i = 0; i < nr; i++) {
		struct xp__item item = current(&uses[i], goal);

		item.front->measure(&item, &uses[i], size);
	}
}

/* What the sites of the uses lack. */
static int add_uses(const struct xp__use *uses, size_t nr, enum xp__goal goal, struct xp__commit *commit,
		    struct xp_diag *diag)
{
	int error = 0;

	for (size_t i = 0; i < nr && !error; i++) {
		struct xp__item item = current(&uses[i], goal);

		error = item.front->add(&item, &uses[i], commit, diag);
	}
	return error;
}

static int add_all(const struct wanted *wanted, struct xp__commit *commit, struct xp_diag *diag)
{
	int error = add_uses(wanted->uses, wanted->nr_uses, wanted->goal, commit, diag);

	for (size_t i = 0; i < wanted->nr_items && !error; i++)
		if (patches(&wanted->items[i]))
			error = add(&wanted->items[i], commit, diag);
	return error;
}

/* Text was not what it had to be. It may be of another form that the site may have, which can be mended. */
static int explain(const struct xp__item *items, size_t nr, struct xp_diag *diag)
{
	struct xp_diag why = {0};

	for (size_t i = 0; i < nr; i++)
		if (patches(&items[i]) && items[i].object &&
		    xp__drift_check(items[i].object->uses, NULL, &why) == -XP_E_DRIFTED) {
			if (diag)
				*diag = why;
			return -XP_E_DRIFTED;
		}
	return -XP_E_MISMATCH;
}

int xp__patch_locked(const struct xp__item *items, size_t nr, struct xp_diag *diag)
{
	struct xp__size size = {0};
	const struct wanted wanted = {.items = items, .nr_items = nr, .size = &size};
	struct xp__commit *commit;
	int error;

	for (size_t i = 0; i < nr; i++)
		if (patches(&items[i]))
			measure(&items[i], &size);
	if (size.sites == 0)
		return 0;
	commit = new_commit(&size, diag);
	if (commit == NULL)
		return -XP__ENOMEM;
	error = add_all(&wanted, commit, diag);
	if (error) {
		xp__commit_free(commit);
		return error == -XP_E_MISMATCH ? explain(items, nr, diag) : error;
	}
	error = run(commit, &wanted, diag);
	for (size_t i = 0; i < nr && !error; i++)
		if (patches(&items[i]) && items[i].object)
			for (const struct xp__use *use = items[i].object->uses; use; use = use->next)
				settle(&items[i], use);
	return error == -XP_E_MISMATCH ? explain(items, nr, diag) : error;
}

/* A commit with what the sites of the uses lack; NULL if they lack nothing. */
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

int xp__attach_locked(const struct xp__use *uses, size_t nr, enum xp__goal goal, struct xp_diag *diag)
{
	struct xp__size size = {0};
	const struct wanted wanted = {.uses = uses, .nr_uses = nr, .goal = goal, .size = &size};
	struct xp__commit *commit;
	int error;

	measure_uses(uses, nr, goal, &size);
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
		struct xp__item item = current(&uses[i], goal);

		settle(&item, &uses[i]);
	}
	return error;
}

/* Marks all but the last item for each object. */
static void skip_superseded(struct xp__item *items, size_t nr)
{
	for (size_t i = nr; i-- > 0;) {
		bool again = items[i].object && items[i].object->scratch != 0;

		items[i].skip = again && !items[i].front->cumulative;
		items[i].added_to = again && items[i].front->cumulative;
		if (items[i].object)
			items[i].object->scratch = 1;
	}
	for (size_t i = 0; i < nr; i++)
		if (items[i].object)
			items[i].object->scratch = 0;
}

/* ---- modules that are not registered ---- */

struct wishes {
	const struct xp__item *items;
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

/* The items' objects are marked. The handle of a gate is led to its gate when it is registered: before it has the name only. */
static bool is_wished(const struct xp_object *object, unsigned kind, const void *data)
{
	const struct wishes *wishes = data;

	if (object->scratch || kind != XP_SITE_GATE || object->real)
		return object->scratch;
	for (size_t i = 0; i < wishes->nr; i++)
		if (wishes->items[i].front == &xp__gate_front && same_name(wishes->items[i].object->name, object->name))
			return true;
	return false;
}

static bool concerns(const struct xp_module *module, const void *data)
{
	const struct wishes *wishes = data;
	bool yes;

	for (size_t i = 0; i < wishes->nr; i++)
		if (wishes->items[i].object)
			wishes->items[i].object->scratch = 1;
	yes = xp__module_names(module, is_wished, wishes);
	for (size_t i = 0; i < wishes->nr; i++)
		if (wishes->items[i].object)
			wishes->items[i].object->scratch = 0;
	return yes;
}

int xp__settle_modules(const struct xp__item *items, size_t nr, struct xp_diag *diag)
{
	struct wishes wishes = {items, nr};

	return xp__modules_retry(concerns, &wishes, diag);
}

static void finish(struct xp__item *items, size_t nr, bool done)
{
	for (size_t i = 0; i < nr; i++)
		if (!items[i].skip && items[i].front->finish)
			items[i].front->finish(&items[i], done);
}

int xp__apply_locked(struct xp__item *items, size_t nr, struct xp_diag *diag)
{
	int error = xp__settle_modules(items, nr, diag);

	if (error)
		return error;
	skip_superseded(items, nr);
	for (size_t i = 0; i < nr; i++) {
		bool superseded = items[i].skip;

		/* ordering: (TS1) pairs with (TS2) */
		if (items[i].object)
			xp__tell(&items[i].object->scratch, __ATOMIC_RELEASE);
		if (!superseded && items[i].front->start)
			error = items[i].front->start(&items[i]);
		if (error) {
			finish(items, i, false);
			if (diag)
				diag->key = items[i].object->name;
			return xp__fail(diag, error, XP_PHASE_VALIDATE, NULL, NULL);
		}
		/* It is so already, if its sites are. */
		if (!superseded && items[i].skip)
			error = xp__drift_check(items[i].object->uses, NULL, diag);
		if (error) {
			finish(items, i, false);
			return error;
		}
	}
	error = xp__patch_locked(items, nr, diag);
	finish(items, nr, error == 0);
	return error;
}

int xp__apply(struct xp__item *item, struct xp_diag *diag)
{
	int error = xp__lock(diag);

	if (error)
		return error;
	error = xp__apply_locked(item, 1, diag);
	xp__unlock();
	return error;
}

int xp__apply_listed(size_t (*list)(struct xp__item *items))
{
	int error = xp__lock(NULL);
	struct xp__item *items;
	size_t nr;

	if (error)
		return error;
	nr = list(NULL);
	if (nr > 0) {
		items = xp__commit_alloc(nr * sizeof(*items));
		error = -XP__ENOMEM;
		if (items) {
			list(items);
			error = xp__apply_locked(items, nr, NULL);
			xp__port->release(items, nr * sizeof(*items));
		}
	}
	xp__unlock();
	return error;
}

/* ---- the public batch ---- */

struct xp_batch {
	struct xp__item *items;
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
static void drop_items(struct xp_batch *batch)
{
	for (size_t i = 0; i < batch->nr; i++)
		if (batch->items[i].front->drop)
			batch->items[i].front->drop(&batch->items[i]);
	batch->nr = 0;
}

void xp_batch_free(struct xp_batch *batch)
{
	if (batch)
		drop_items(batch);
	/* Also in a wedged engine: memory is no patching. */
	if (batch == NULL || xp__port->lock())
		return;
	if (batch->items)
		xp__port->release(batch->items, batch->room * sizeof(*batch->items));
	xp__port->release(batch, sizeof(*batch));
	xp__port->unlock();
}

/* Room for one more item; false: no memory, batch as before. */
static bool grow(struct xp_batch *batch)
{
	size_t more = batch->room ? batch->room * 2 : 64;
	struct xp__item *larger;

	if (batch->nr < batch->room)
		return true;
	if (xp__lock(NULL))
		return false;
	larger = xp__commit_alloc(more * sizeof(*larger));
	if (larger && batch->items) {
		memcpy(larger, batch->items, batch->nr * sizeof(*larger));
		xp__port->release(batch->items, batch->room * sizeof(*larger));
	}
	xp__unlock();
	if (larger == NULL)
		return false;
	batch->items = larger;
	batch->room = more;
	return true;
}

int xp__batch_add(struct xp_batch *batch, const struct xp__item *item)
{
	if (batch == NULL)
		return -XP__EINVAL;
	if (!grow(batch))
		return -XP__ENOMEM;
	batch->items[batch->nr++] = *item;
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
	error = xp__apply_locked(batch->items, batch->nr, diag);
	xp__unlock();
	if (!error)
		drop_items(batch);
	return error;
}
