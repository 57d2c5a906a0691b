// SPDX-License-Identifier: MIT
/*
 * Static keys: their sites, and their counts.
 *
 *	count    meaning
 *	 n > 0   on; every site says so (stored with release after the commit returned)
 *	 0       off, or on its way from off to on
 *	-1       on its way from on to off: no lock-free inc may join
 *
 * I1  The count goes above zero only after the text does, and leaves one only through -1, under the text lock.
 * I2  Above one, and from one up, it changes by compare-and-swap without the lock: the text stays as it is.
 * I3  COUNTED is set while the base count of one comes from inc, so that enable and disable can refuse.
 * I4  After an error the count is what it was.
 * I5  Where the architecture has forms for it (XP__BRANCH_SHARED), the sites of all keys share two plans, to jump and not to:
 *     what differs between sites, the displacement, stays.
 * I6  A key that an asynchronous commit switched on is PENDING, and its count 0, until a sync (core/ticket.c): so what I1 says
 *     of counts is true of it too, and the lock-free paths do not join. Under the lock it is on. Off needs no such mark:
 *     a count of 0 promises nothing of text, and a change that finds the key off settles first.
 *
 * The release of count (K1) pairs with the acquire of xp__static_key_count() and of the lock-free paths (K2): who sees
 * a count above zero finds the enabled text. The sync before K1 did that for the text already; K1 orders the count
 * after it, so that a second caller cannot return before the first one's text is changed.
 */
#include "core/batch.h"
#include "core/commit.h"
#include "core/deps.h"
#include "core/share.h"
#include "core/site.h"
#include "core/state.h"
#include "core/ticket.h"

#include <crosspatch/static_key.h>

#define PAGE 4096
#define COUNTED XP__OBJECT_COUNTED /* xp_object.flags */
#define PENDING XP__OBJECT_PENDING

enum { LIKELY, TRUE }; /* of xp__group.nr_flag */

_Static_assert(_Alignof(struct xp_static_key) > XP_SITE_FLAGS, "the flags take the low bits of a key's address");

static struct xp__deferred *pending; /* deferred decrements, unsorted: there are few */

/* ---- sites ---- */

/* Whether the site jumps when its key is @on. */
static inline bool jumps(const struct xp_branch_site *site, bool on)
{
	return on != ((xp__site_flags(&site->key) & XP_SITE_LIKELY) != 0);
}

/* What stands at a branch site that must agree with its record: whether it jumps, and where. */
static inline bool key_site_is(const struct xp_branch_site *site, bool jumps)
{
	return xp__branch_is(xp__relative(&site->code), xp__relative(&site->target), jumps);
}

static int key_fail(const struct xp_branch_site *site, bool to_jmp, struct xp_diag *diag)
{
	uintptr_t code = xp__relative(&site->code);
	uint8_t expected[XP__BRANCH_LEN] = {0};

	(void)xp__form_branch(expected, code, xp__relative(&site->target), !to_jmp);
	return xp__fail_site(diag, xp__site_object(&site->key), code, expected, XP__BRANCH_LEN);
}

static bool key_as_built(const struct xp__request *request, const struct xp__group *group)
{
	return group->nr_flag[TRUE] == (request->on ? group->nr : 0);
}

static void key_count(const struct xp__request *request, const struct xp__group *group, struct xp__size *size)
{
	uint32_t nr_to_jmp = request->on ? group->nr - group->nr_flag[LIKELY] : group->nr_flag[LIKELY];

	size->sites += group->nr;
	if (!XP__BRANCH_SHARED) {
		size->plans += group->nr;
		return;
	}
	if (nr_to_jmp > 0)
		xp__size_way(size, XP__TO_JMP);
	if (nr_to_jmp < group->nr)
		xp__size_way(size, XP__TO_TEST);
}

/* The number of the plan that all sites share which go that way. */
static int key_plan(struct xp__commit *commit, bool to_jmp, struct xp_diag *diag)
{
	uint8_t old[XP__BRANCH_LEN], new[XP__BRANCH_LEN];
	struct xp__change change = {.old = old, .new = new, .len = XP__BRANCH_LEN, .known = XP__BRANCH_SHARED};
	enum xp__way way = to_jmp ? XP__TO_JMP : XP__TO_TEST;
	int number = xp__commit_way(commit, way);

	if (number >= 0)
		return number;
	(void)xp__form_branch(old, 0, XP__BRANCH_LEN, !to_jmp);
	(void)xp__form_branch(new, 0, XP__BRANCH_LEN, to_jmp);
	return xp__commit_new_way(commit, way, &change, diag);
}

/* Plans that no site of the group needs are not built: number -1. */
static int key_plans(const struct xp__request *request, const struct xp__group *group, struct xp__commit *commit,
		     int plan[2], struct xp_diag *diag)
{
	struct xp__size size = {0};

	key_count(request, group, &size);
	plan[false] = size.way[XP__TO_TEST] ? key_plan(commit, false, diag) : 0;
	plan[true] = size.way[XP__TO_JMP] ? key_plan(commit, true, diag) : 0;
	return plan[false] < 0 ? plan[false] : plan[true] < 0 ? plan[true] : 0;
}

/*
 * Adds the first sites of a group whose records stand in a row and whose sites all go one way, up to one whose text is not
 * as it must be. A key may have a million sites: this loop keeps all it needs in registers. Returns how many.
 */
static uint32_t key_add_row(struct xp__commit *commit, const struct xp_branch_site *site, uint32_t nr, bool jumps,
			    uint32_t plan)
{
	const struct xp_branch_site *const first = site, *const last = site + nr;
	uintptr_t *addr = commit->addr + commit->nr;
	uintptr_t end = commit->end;
	bool unordered = commit->unordered;

	for (; site < last; site++) {
		uintptr_t code = xp__relative(&site->code);

		/* What cannot be read is left to the caller, which says so. */
		if (code - commit->page > PAGE - XP__BRANCH_LEN && !xp__commit_readable(commit, code, XP__BRANCH_LEN))
			break;
		if (!key_site_is(site, jumps))
			break;
		unordered |= code < end;
		end = code + XP__BRANCH_LEN;
		*addr++ = code;
	}
	nr = (uint32_t)(site - first);
	for (uint32_t i = 0; commit->plan_of && i < nr; i++)
		commit->plan_of[commit->nr + i] = plan;
	commit->nr += nr;
	commit->end = end;
	commit->unordered = unordered;
	return nr;
}

static int key_emit(const struct xp__request *request, const struct xp__group *group, struct xp__commit *commit,
		    struct xp_diag *diag)
{
	const struct xp_branch_site *sites = group->records;
	const bool change = request->from == XP__FROM_STATE, on = request->on;
	uint32_t i = 0;
	int plan[2], error;

	error = key_plans(request, group, commit, plan, diag);
	if (error)
		return error;
	if (group->numbers[group->nr - 1] - group->numbers[0] == group->nr - 1 &&
	    (group->nr_flag[LIKELY] == 0 || group->nr_flag[LIKELY] == group->nr)) {
		bool to_jmp = jumps(&sites[group->numbers[0]], on);

		i = key_add_row(commit, &sites[group->numbers[0]], group->nr, !to_jmp, (uint32_t)plan[to_jmp]);
	}
	for (; i < group->nr; i++) {
		const struct xp_branch_site *site = &sites[group->numbers[i]];
		bool to_jmp = jumps(site, on);

		if (!xp__commit_readable(commit, xp__relative(&site->code), XP__BRANCH_LEN)) {
			if (diag)
				diag->key = xp__site_object(&site->key)->name;
			return xp__fail_unreadable(diag, xp__relative(&site->code));
		}
		if (key_site_is(site, !to_jmp))
			xp__commit_add(commit, xp__relative(&site->code), (uint32_t)plan[to_jmp]);
		else if (change || !key_site_is(site, to_jmp))
			return key_fail(site, to_jmp, diag);
	}
	return 0;
}

static struct xp__plan *key_single(const struct xp__request *request, uintptr_t *addr)
{
	const struct xp__group *group = request->object->groups;
	const struct xp_branch_site *site;
	struct xp__plan *plan;
	bool to_jmp;

	if (group == NULL || group->next || group->nr != 1)
		return NULL;
	site = (const struct xp_branch_site *)group->records + group->numbers[0];
	to_jmp = jumps(site, request->on);
	*addr = xp__relative(&site->code);
	plan = xp__commit_way_plan(to_jmp ? XP__TO_JMP : XP__TO_TEST);
	if (plan == NULL || plan->nr_stores != 1 || plan->needs != XP_NEED_SYNC ||
	    !xp__text_is_known(*addr, XP__BRANCH_LEN) || !key_site_is(site, !to_jmp))
		return NULL;
	return plan;
}

static int key_form(const struct xp__request *request, const struct xp__site *site, const uint8_t *text,
		    enum xp__which which, unsigned n, struct xp__form *form, struct xp_diag *diag)
{
	const struct xp_branch_site *record = site->record;
	bool was = which == XP__FROM_STATE || n > 0;

	(void)text;
	if (n > (which == XP__FROM_BUILT || which == XP__FROM_ANY))
		return 0;
	if (!xp__form_branch(form->bytes, site->code, xp__relative(&record->target), jumps(record, request->on) != was))
		return xp__fail(diag, -XP_E_CORRUPT, XP_PHASE_VALIDATE, (const void *)site->code,
				"a branch out of reach of its target");
	return 1;
}

/* ---- the count ---- */

static struct xp_static_key *real_key(struct xp_static_key *key)
{
	return (struct xp_static_key *)xp__real(&key->object);
}

static int load_count(const struct xp_static_key *key)
{
	/* ordering: (K2) pairs with (K1) */
	return __atomic_load_n(&key->count, __ATOMIC_ACQUIRE);
}

static void store_count(struct xp_static_key *key, int count)
{
	/* ordering: (K1) pairs with (K2) */
	__atomic_store_n(&key->count, count, __ATOMIC_RELEASE);
}

/* Adds @step to a count that is above @floor, without the lock. False: it is not; @count says what it is. */
static bool add_above(struct xp_static_key *key, int floor, int step, int *count)
{
	*count = load_count(key);
	/* ordering: (K2) pairs with (K1) */
	while (*count > floor && !(step > 0 && *count == INT32_MAX))
		if (__atomic_compare_exchange_n(&key->count, count, *count + step, false, __ATOMIC_ACQ_REL,
						__ATOMIC_ACQUIRE))
			return true;
	return false;
}

static struct xp_static_key *key_of(const struct xp__request *request)
{
	return (struct xp_static_key *)request->object;
}

static bool is_pending(const struct xp_static_key *key)
{
	return key->object.flags & PENDING;
}

/* The sync that stands between the key's text and its count, if one does. */
static int key_settle(const struct xp_static_key *key)
{
	return is_pending(key) ? xp__settle(NULL) : 0;
}

static void key_synced(struct xp_object *object)
{
	struct xp_static_key *key = (struct xp_static_key *)object;

	if (is_pending(key)) {
		object->flags &= ~PENDING;
		store_count(key, 1);
	}
}

/* The key is on. Its count says so when its sites do. */
static void key_is_on(struct xp_static_key *key)
{
	if (xp__owed_by(&key->object))
		key->object.flags |= PENDING;
	else
		store_count(key, 1);
}

/* Takes a key's count out of the lock-free paths' reach, or finds that there is nothing to do. */
static int key_begin(struct xp__request *request)
{
	struct xp_static_key *key = key_of(request);
	int count = load_count(key);

	if (count > 1 || (count == 1 && (key->object.flags & COUNTED)))
		return -XP_E_COUNTED;
	request->skip = (count == 1 || is_pending(key)) == request->on;
	if (request->skip || request->on)
		return 0;
	if (is_pending(key)) {
		key->object.flags &= ~PENDING;
		return 0;
	}
	/* ordering: (K2) pairs with (K1) */
	if (!__atomic_compare_exchange_n(&key->count, &count, -1, false, __ATOMIC_ACQ_REL, __ATOMIC_ACQUIRE))
		return -XP_E_COUNTED; /* an inc came between */
	return 0;
}

/* Undone, a key that was going off is on, and one that was going on is off. */
static void key_end(struct xp__request *request, bool done)
{
	if (done != request->on)
		store_count(key_of(request), 0);
	else
		key_is_on(key_of(request));
}

static void key_get_state(struct xp__request *request)
{
	/* -1: it is going off, and not yet */
	request->on = load_count(key_of(request)) != 0 || is_pending(key_of(request));
}

static struct xp__request key_request_of(struct xp_static_key *key, bool on)
{
	return (struct xp__request){.kind = &xp__key_kind, .object = xp__real(&key->object), .on = on};
}

static int key_parse(struct xp__request *request, struct xp_object *object, uint64_t value)
{
	*request = key_request_of((struct xp_static_key *)object, value);
	return value > 1 ? -XP__EINVAL : 0;
}

static int switch_key(struct xp_static_key *key, bool on)
{
	struct xp__request request = key_request_of(key, on);

	return xp__batch_apply(&request, NULL);
}

int xp_batch_add_key(struct xp_batch *batch, struct xp_static_key *key, bool on)
{
	struct xp__request request;

	if (key == NULL)
		return -XP__EINVAL;
	request = key_request_of(key, on);
	return xp__batch_add(batch, &request);
}

int xp_static_key_enable(struct xp_static_key *key)
{
	return switch_key(key, true);
}

int xp_static_key_disable(struct xp_static_key *key)
{
	return switch_key(key, false);
}

int xp_static_key_set_async(struct xp_static_key *key, bool on, struct xp_ticket *ticket)
{
	struct xp__request request = key_request_of(key, on);

	return xp__batch_apply_async(&request, ticket);
}

/*
 * The same, unless there are sites that the library cannot change, or the engine is wedged: then what the count says of the
 * text need not be so, and who holds the lock finds out.
 */
static bool add_unlocked(struct xp_static_key *key, int floor, int step)
{
	int count;

	return xp_state() == XP_STATE_READY && !xp__modules_wait() && add_above(key, floor, step, &count);
}

static int inc_locked(struct xp_static_key *key)
{
	struct xp__request request = key_request_of(key, true);
	int count, error = xp__batch_settle_modules(&request, 1, NULL);

	error = error ? error : key_settle(key);
	if (error)
		return error;
	if (add_above(key, 0, 1, &count))
		return 0;
	if (count == INT32_MAX)
		return -XP_E_OVERFLOW;
	/* ordering: (TS1) pairs with (TS2) */
	xp__tell(&key->object.scratch, __ATOMIC_RELEASE);
	error = xp__batch_patch(&request, 1, NULL);
	if (error)
		return error;
	key->object.flags |= COUNTED;
	store_count(key, 1);
	return 0;
}

static int dec_locked(struct xp_static_key *key)
{
	struct xp__request request = key_request_of(key, false);
	int count, error = xp__batch_settle_modules(&request, 1, NULL);

	error = error ? error : key_settle(key);
	while (!error) {
		if (add_above(key, 1, -1, &count))
			return 0;
		if (count == 0)
			return -XP_E_UNDERFLOW;
		/* ordering: (K2) pairs with (K1) */
		if (__atomic_compare_exchange_n(&key->count, &count, -1, false, __ATOMIC_ACQ_REL, __ATOMIC_ACQUIRE))
			break;
	}
	if (error)
		return error;
	/* ordering: (TS1) pairs with (TS2) */
	xp__tell(&key->object.scratch, __ATOMIC_RELEASE);
	error = xp__batch_patch(&request, 1, NULL);
	if (error) {
		store_count(key, 1);
		return error;
	}
	key->object.flags &= ~COUNTED;
	store_count(key, 0);
	return 0;
}

static int with_lock(int (*change)(struct xp_static_key *), struct xp_static_key *key)
{
	int error = xp__lock(NULL);

	if (error)
		return error;
	xp__share_disband();
	error = change(key);
	xp__unlock();
	return error;
}

int xp_static_key_inc(struct xp_static_key *key)
{
	key = real_key(key);
	return add_unlocked(key, 0, 1) ? 0 : with_lock(inc_locked, key);
}

int xp_static_key_dec(struct xp_static_key *key)
{
	key = real_key(key);
	return add_unlocked(key, 1, -1) ? 0 : with_lock(dec_locked, key);
}

/* ---- deferred keys ---- */

static int arm(void)
{
	uint64_t first = UINT64_MAX;

	for (struct xp__deferred *d = pending; d; d = d->next)
		if (d->deadline_ms < first)
			first = d->deadline_ms;
	return pending && xp__port->defer ? xp__port->defer(first) : 0;
}

static void drop(struct xp__deferred *deferred)
{
	struct xp__deferred **link = &pending;

	while (*link != deferred)
		link = &(*link)->next;
	*link = deferred->next;
	deferred->pending = 0;
}

/* The decrement itself. If the key went off by itself meanwhile, it has nothing left to do, and is not kept either. */
static int carry_out(struct xp__deferred *deferred)
{
	int error = dec_locked(deferred->key);

	if (!error || error == -XP_E_UNDERFLOW)
		drop(deferred);
	return error;
}

static int dec_deferred_locked(struct xp_static_key *key, struct xp__deferred *deferred)
{
	struct xp__request request = key_request_of(key, false);
	int count, error = xp__batch_settle_modules(&request, 1, NULL);

	error = error ? error : key_settle(key);
	if (error)
		return error;
	if (add_above(key, 1, -1, &count))
		return 0;
	if (count == 0 || deferred->pending)
		return -XP_E_UNDERFLOW;
	if (xp__port->defer == NULL || deferred->delay_ms == 0)
		return dec_locked(key);
	deferred->key = key;
	deferred->deadline_ms = xp__port->clock_ms() + deferred->delay_ms;
	deferred->pending = 1;
	deferred->next = pending;
	pending = deferred;
	if (xp__port->defer(deferred->deadline_ms) == 0)
		return 0;
	drop(deferred);
	return dec_locked(key);
}

/* There is no thread: the decrements happen now. An error is @own's (may be NULL), whose key is as before. */
static int carry_out_all(const struct xp__deferred *own)
{
	struct xp__deferred *next;
	int error = xp__lock(NULL);

	if (error)
		return error;
	for (struct xp__deferred *d = pending; d; d = next) {
		int result;

		next = d->next;
		result = carry_out(d);
		if (result && d == own && d->pending) {
			drop(d);
			error = result;
		}
	}
	xp__unlock();
	return error;
}

/* After defer(), without the lock, under which no thread is made. */
static int start_thread(const struct xp__deferred *own)
{
	return xp__port->defer_start && xp__port->defer_start() ? carry_out_all(own) : 0;
}

int xp__static_key_dec_deferred(struct xp_static_key *key, struct xp__deferred *deferred)
{
	int error = xp__lock(NULL);
	bool waits;

	if (error)
		return error;
	xp__share_disband();
	error = dec_deferred_locked(real_key(key), deferred);
	waits = deferred->pending;
	xp__unlock();
	return error || !waits ? error : start_thread(deferred);
}

int xp__static_key_deferred_flush(struct xp__deferred *deferred)
{
	int error = xp__lock(NULL);

	if (error)
		return error;
	xp__share_disband();
	if (deferred->pending)
		error = carry_out(deferred);
	xp__unlock();
	return error;
}

int xp__static_key_rate_limit(struct xp__deferred *deferred, uint32_t delay_ms)
{
	int error = xp__lock(NULL);

	if (error)
		return error;
	deferred->delay_ms = delay_ms;
	xp__unlock();
	return 0;
}

static void key_due(void)
{
	struct xp__deferred *next;
	uint64_t now;

	if (xp__lock(NULL))
		return;
	now = xp__port->clock_ms();
	for (struct xp__deferred *d = pending; d; d = next) {
		next = d->next;
		if (d->deadline_ms <= now && carry_out(d) && d->pending)
			d->deadline_ms = now + d->delay_ms;
	}
	(void)arm();
	xp__unlock();
}

static void key_fork_child(void)
{
	if (pending)
		(void)(arm() ? carry_out_all(NULL) : start_thread(NULL));
}

const struct xp__kind xp__key_kind = {
	.record_size = sizeof(struct xp_branch_site),
	.object_size = sizeof(struct xp_static_key),
	.object_at = offsetof(struct xp_branch_site, key),
	.nr_relative = 3,
	.asynchronous = true,
	.one_byte = XP__BRANCH_SHARED == 1,
	.site_len = XP__BRANCH_LEN,
	.begin = key_begin,
	.end = key_end,
	.get_state = key_get_state,
	.parse = key_parse,
	.as_built = key_as_built,
	.count = key_count,
	.emit = XP__BRANCH_SHARED ? key_emit : NULL,
	.single = XP__BRANCH_SHARED ? key_single : NULL,
	.site = xp__group_site,
	.form = key_form,
	.due = key_due,
	.fork_child = key_fork_child,
	.synced = key_synced,
};
