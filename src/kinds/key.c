// SPDX-License-Identifier: MIT
/*
 * The counts of static keys.
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
 *
 * The release of count (K1) pairs with the acquire of xp__static_key_count() and of the lock-free paths (K2): who sees
 * a count above zero finds the enabled text. The sync before K1 did that for the text already; K1 orders the count
 * after it, so that a second caller cannot return before the first one's text is changed.
 */
#include "core/batch.h"
#include "kinds/branch.h"
#include "core/deps.h"
#include "core/site.h"
#include "core/state.h"

#include <crosspatch/static_key.h>

#define COUNTED 1u /* xp_object.flags */

_Static_assert(_Alignof(struct xp_static_key) > XP_SITE_FLAGS, "the flags take the low bits of a key's address");

static struct xp__deferred *pending; /* deferred decrements, unsorted: there are few */

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

/* Takes a key's count out of the lock-free paths' reach, or finds that there is nothing to do. */
static int key_begin(struct xp__request *request)
{
	struct xp_static_key *key = key_of(request);
	int count = load_count(key);

	if (count > 1 || (count == 1 && (key->object.flags & COUNTED)))
		return -XP_E_COUNTED;
	request->skip = count == (int)request->on;
	if (request->skip || request->on)
		return 0;
	/* ordering: (K2) pairs with (K1) */
	if (!__atomic_compare_exchange_n(&key->count, &count, -1, false, __ATOMIC_ACQ_REL, __ATOMIC_ACQUIRE))
		return -XP_E_COUNTED; /* an inc came between */
	return 0;
}

/* Undone, the count of a key that was going off is given back. */
static void key_end(struct xp__request *request, bool done)
{
	if (done)
		store_count(key_of(request), request->on);
	else if (!request->on)
		store_count(key_of(request), 1);
}

static void key_get_state(struct xp__request *request)
{
	request->on = load_count(key_of(request)) != 0; /* -1: it is going off, and not yet */
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

	return xp__apply(&request, NULL);
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
	int count, error = xp__settle_modules(&request, 1, NULL);

	if (error)
		return error;
	if (add_above(key, 0, 1, &count))
		return 0;
	if (count == INT32_MAX)
		return -XP_E_OVERFLOW;
	/* ordering: (TS1) pairs with (TS2) */
	xp__tell(&key->object.scratch, __ATOMIC_RELEASE);
	error = xp__patch_locked(&request, 1, NULL);
	if (error)
		return error;
	key->object.flags |= COUNTED;
	store_count(key, 1);
	return 0;
}

static int dec_locked(struct xp_static_key *key)
{
	struct xp__request request = key_request_of(key, false);
	int count, error = xp__settle_modules(&request, 1, NULL);

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
	error = xp__patch_locked(&request, 1, NULL);
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
	int count, error = xp__settle_modules(&request, 1, NULL);

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
	.object_at = offsetof(struct xp_branch_site, key),
	.nr_relative = 3,
	.begin = key_begin,
	.end = key_end,
	.get_state = key_get_state,
	.parse = key_parse,
	.as_built = xp__branch_as_built,
	.count = xp__branch_count,
	.emit = XP__BRANCH_SHARED ? xp__branch_emit : NULL,
	.site = xp__branch_site,
	.form = xp__branch_form,
	.due = key_due,
	.fork_child = key_fork_child,
};
