// SPDX-License-Identifier: MIT
/* What a commit does to one site, step by step: the same list as at the top of src/core/poke.c. */
#include "verify/schedule.h"

#include <string.h>

struct xp__event *xp__schedule_add(struct xp__schedule *schedule, enum xp__event_kind kind)
{
	struct xp__event *event;

	if (schedule->nr_events == XP__MAX_EVENTS)
		return NULL;
	event = &schedule->event[schedule->nr_events++];
	memset(event, 0, sizeof(*event));
	event->kind = (uint8_t)kind;
	return event;
}

static void add_store(struct xp__schedule *schedule, const struct xp__store *store, const uint8_t *bytes)
{
	struct xp__event *event = xp__schedule_add(schedule, XP__EVENT_STORE);

	event->off = store->off;
	event->len = store->len;
	/* One byte is one store, whatever writes it. */
	event->single = store->len == 1 || store->flags & XP_WRITE_SINGLE;
	memcpy(event->bytes, bytes, store->len);
}

/* Phases @fail…0 undone. */
static void roll_back(struct xp__schedule *schedule, const struct xp__plan *plan, unsigned fail, bool syncs)
{
	for (unsigned i = fail + 1; i-- > 0;) {
		uint8_t before[XP_MAX_LEN];

		xp__commit_plan_before(plan, i, before);
		add_store(schedule, &plan->store[i], before);
		if (syncs)
			xp__schedule_add(schedule, XP__EVENT_SYNC);
	}
}

static void add_commit(struct xp__schedule *schedule, const struct xp__plan *plan, unsigned fail)
{
	/*
	 * EARLY: one processor runs, and modifies what it executes itself later. Every model lets a processor see its
	 * own stores after the jump that the library's return is, so to the site it is as if it were parked.
	 */
	bool apart = plan->method == XP__METHOD_QUIESCE || plan->method == XP__METHOD_EARLY;

	if (plan->traps) {
		xp__schedule_add(schedule, XP__EVENT_PUBLISH);
		xp__schedule_add(schedule, XP__EVENT_RAISE);
	}
	if (apart)
		xp__schedule_add(schedule, XP__EVENT_PARK)->looks = !plan->single;
	for (unsigned i = 0; i < plan->nr_stores && (i == 0 || i - 1 != fail); i++) {
		add_store(schedule, &plan->store[i], plan->store[i].bytes);
		if (!apart && i != fail)
			xp__schedule_add(schedule, XP__EVENT_SYNC);
	}
	if (fail < plan->nr_stores)
		roll_back(schedule, plan, fail, !apart);
	if (apart)
		xp__schedule_add(schedule, XP__EVENT_UNPARK);
	xp__schedule_add(schedule, XP__EVENT_RETURN);
	if (plan->traps) {
		xp__schedule_add(schedule, XP__EVENT_RETIRE);
		xp__schedule_add(schedule, XP__EVENT_RECLAIM);
	}
}

void xp__schedule_of_plan(struct xp__schedule *schedule, const struct xp__plan *plan, unsigned fail)
{
	memset(schedule, 0, sizeof(*schedule));
	schedule->mode = XP__CODE_BITS;
	schedule->len = plan->len;
	schedule->resume = plan->resume ? XP__RESUME_OUT : XP__RESUME_EMULATE;
	schedule->reclaim_waits = true;
	memcpy(schedule->old, plan->old, plan->len);
	memcpy(schedule->new, plan->new, plan->len);
	add_commit(schedule, plan, fail);
}

void xp__schedule_continue(struct xp__schedule *schedule, const struct xp__plan *plan, unsigned fail)
{
	memcpy(xp__schedule_add(schedule, XP__EVENT_COMMIT)->bytes, plan->new, plan->len);
	add_commit(schedule, plan, fail);
}

void xp__schedule_final(const struct xp__schedule *schedule, uint8_t bytes[XP_MAX_LEN])
{
	memcpy(bytes, schedule->old, XP_MAX_LEN);
	for (unsigned i = 0; i < schedule->nr_events; i++)
		if (schedule->event[i].kind == XP__EVENT_STORE)
			memcpy(bytes + schedule->event[i].off, schedule->event[i].bytes, schedule->event[i].len);
}
