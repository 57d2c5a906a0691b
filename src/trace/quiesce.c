// SPDX-License-Identifier: MIT
/*
 * Waits: for handlers that run, and for calls that are still in functions.
 *
 * I1  No wait is without a bound.
 * I2  While the writer looks for threads in a range, all others are parked, and its own stack does not change.
 */
#include "core/deps.h"
#include "core/reclaim.h"
#include "core/state.h"
#include "trace/entries.h"
#include "trace/inside.h"
#include "trace/match.h"
#include "trace/run.h"

#if XP__HAS_ENTRIES

int xp_function_synchronize(void)
{
	enum { TRIES = 2000 };
	unsigned long asked[XP__SHARD_WORDS];

	if (xp_state() == XP_STATE_NO_PORT)
		return -XP_E_NOT_READY;
	if (xp__trace_busy())
		return -XP_E_REENTRANT;
	memset(asked, 0xff, sizeof(asked));
	for (int i = 0; i < TRIES; i++) {
		if (xp__inside_quiescent(asked))
			return 0;
		if (xp__port->wait)
			xp__port->wait();
	}
	return -XP__EBUSY;
}

/* The ranges of a function: its own, and those of its parts. Returns how many; @ranges may be NULL. */
static size_t ranges_of(const struct xp__function *function, struct xp_range *ranges)
{
	const struct xp__entries *module = function->module;
	size_t nr = 0;

	for (uint32_t i = 0; module->site && i < module->nr; i++) {
		uintptr_t code = xp__record_code(module, i);
		bool own = code == function->code;

		if (!own && !(xp__record_flags(module, i) & XP_SITE_PART &&
			      xp__match_same(xp__record_name(module, i), function->object.name)))
			continue;
		if (ranges) {
			/* A thread that rests before the entry, or on it, goes where it leads now. */
			ranges[nr].start = own ? code + XP__ENTRY_LEN : code;
			ranges[nr].end = code - (own ? function->before : 0) + xp__record_size(module, i);
		}
		nr++;
	}
	return nr;
}

static void sort_ranges(struct xp_range *ranges, size_t nr)
{
	for (size_t i = 1; i < nr; i++) {
		struct xp_range range = ranges[i];
		size_t at = i;

		for (; at > 0 && ranges[at - 1].start > range.start; at--)
			ranges[at] = ranges[at - 1];
		ranges[at] = range;
	}
}

static int wait_until_left(const void *from, const struct xp_range *ranges, size_t nr, struct xp_diag *diag)
{
	enum { TRIES = 200 };
	int error = xp__port->prepare(XP_NEED_PARK, diag);

	for (int i = 0; i < TRIES && !error; i++) {
		bool waited_for;

		/* Of our own stack nothing will change while we look. */
		error = xp__port->stack_check ? xp__port->stack_check(from, ranges, nr, diag) : 0;
		if (!error)
			error = xp__port->park(ranges, nr, diag);
		if (error)
			return error;
		waited_for = xp__trace_frames(ranges, nr);
		xp__port->unpark();
		if (!waited_for)
			return 0;
		if (xp__port->wait)
			xp__port->wait();
	}
	return error ? error : -XP_E_IN_RANGE;
}

static int quiesce_locked(const void *from, xp__any_function *const *fns, size_t nr, struct xp_diag *diag)
{
	struct xp_range *ranges;
	size_t nr_ranges = 0;
	int error = 0;

	for (size_t i = 0; i < nr; i++) {
		const struct xp__function *function = xp__match_function(fns[i], &error);

		if (!error && function->size == 0)
			error = xp__entry_refuse(function, -XP__EINVAL,
						 "its record does not tell how long the function is", diag);
		if (error)
			return xp__fail(diag, error, XP_PHASE_VALIDATE, (const void *)(uintptr_t)fns[i], NULL);
		nr_ranges += ranges_of(function, NULL);
	}
	ranges = xp__reclaim_port(nr_ranges * sizeof(*ranges));
	if (ranges == NULL)
		return xp__fail(diag, -XP__ENOMEM, XP_PHASE_VALIDATE, NULL, NULL);
	for (size_t i = 0, at = 0; i < nr; i++)
		at += ranges_of(xp__match_function(fns[i], &error), ranges + at);
	sort_ranges(ranges, nr_ranges);
	error = wait_until_left(from, ranges, nr_ranges, diag);
	xp__port->release(ranges, nr_ranges * sizeof(*ranges));
	return error ? xp__fail(diag, error, XP_PHASE_PREPARE, NULL, NULL) : 0;
}

int xp_function_quiesce(xp__any_function *const *fns, size_t nr, struct xp_diag *diag)
{
	int error = xp__lock(diag);

	if (error || nr == 0) {
		if (!error)
			xp__unlock();
		return error;
	}
	/* Our own frames hold these addresses. */
	error = quiesce_locked(__builtin_frame_address(0), fns, nr, diag);
	xp__unlock();
	return error;
}

#endif
