// SPDX-License-Identifier: MIT
/*
 * The protocol: carries out a commit.
 *
 *	1  sort; refuse overlaps. Expected bytes were checked when the sites were added. Ask the port to prepare.
 *	   Up to here a failure leaves the text untouched.
 *	2  if any plan traps: publish the trap table. Store the data that text jumps through
 *	3  for each phase k: store number k of every plan that has one; then one sync
 *	4  retire the trap table; keep its memory until no handler can look at it
 *
 * I1  Every byte that a bystander may fetch after a sync was stored before that sync.
 * I2  Number of syncs: the largest number of stores of any plan, never a function of the number of sites.
 * I3  A breakpoint stands in the text only while a published table has its site.
 * I4  After a failure the text is as before, or the engine is wedged and its table stays published.
 * I6  An asynchronous commit has no sync, and O1 holds when its ticket is done (ticket.c).
 * I5  The first byte goes from breakpoint to new only if a breakpoint is still there, and back only if it is as we
 *     stored it: what another program put there meanwhile is reported, not run over.
 * O1  On success, no processor executes old text when xp__poke_run() returns.
 * O2  On failure without wedge, none executes new text.
 *
 * Why each step, for one site (P: this file, B: a bystander):
 *
 *	P                                     B may execute until the next sync
 *	(P1) publish table                    old
 *	store CC at byte 0                    old | trap
 *	(P2) sync                             trap            without it: B fetches old head with new tail
 *	store tail                            trap
 *	(P2) sync                             trap            without it: B fetches new head with old tail
 *	store head                            trap | new
 *	(P2) sync                             new             without it: B runs old after the commit returned, or
 *	                                                      a breakpoint with no table
 *	(P5) retire table                     new; a trap taken before may still be on its way: trap.c, I2
 *
 * A failure in phase k goes back through the same states: what phase k stored is set to what it was, sync; then k-1.
 *
 * Data that text jumps through (the word behind the trampoline of a static call) changes by one store. Text that jumps
 * through it before the commit goes to the old or the new target from that store on; text that begins to jump through
 * it in this commit finds the new one (C1). The last sync covers it: the load behind a jmp is done before its processor
 * serializes.
 */
#include "core/poke.h"

#include "core/bypass.h"
#include "core/counter.h"
#include "core/deps.h"
#include "core/inject.h"
#include "core/reclaim.h"
#include "core/state.h"
#include "core/ticket.h"
#include "core/trap.h"

#define SPAN_MAX (64u << 10) /* the kernel copies a page at a time; more saves no time (bench/commit) */
#define PAGE ((uintptr_t)4096)
#define SPAN_GAP 1024u /* bytes that cost less to rewrite than another call; within a page any gap is joined */

static uint8_t small_buffer[256]; /* for few sites: the first commit of a program needs no more */
static uint8_t *span_buffer;
static struct {
	struct xp__counter commits, rollbacks, writes, sites;
} counters;

void xp__poke_count(struct xp_stats *stats)
{
	stats->commits = xp__counted(&counters.commits);
	stats->rollbacks = xp__counted(&counters.rollbacks);
	stats->syncs = xp__syncs();
	stats->writes = xp__counted(&counters.writes);
	stats->sites = xp__counted(&counters.sites);
}

/* ---- stores ---- */

/* Sites whose stores of one phase go into one write: [from, to), but those that have no store in that phase. */
struct span {
	size_t from, to;
	uintptr_t start, end; /* of the text, from the first byte stored to the last; empty if equal */
	unsigned flags;       /* XP_WRITE_SINGLE: one site */
};

/*
 * Whether the site has anything to store in the phase. @back: to give back, in a rollback; sites that the failure came
 * before are left alone: they have nothing to undo, and a write that was refused may be refused again. A tail may have
 * been written in part; the byte of a breakpoint is ours or not (I5).
 */
static inline bool has_store(const struct xp__plan *plan, unsigned phase, bool back, uintptr_t addr)
{
	const struct xp__store *store = &plan->store[phase];
	const uint8_t *text = (const uint8_t *)(addr + store->off);
	uint8_t before[XP_MAX_LEN];

	if (phase >= plan->nr_stores || !back)
		return phase < plan->nr_stores;
	/* A thread may rest on the second of the new instructions. */
	if (plan->one_way && memcmp((const void *)addr, plan->new, plan->len) == 0)
		return false;
	if (plan->traps && store->off == 0)
		return memcmp(text, store->bytes, store->len) == 0;
	xp__commit_plan_before(plan, phase, before);
	return memcmp(text, before, store->len) != 0;
}

/* The span that begins at site @i or behind it. */
static struct span next_span(const struct xp__commit *c, unsigned phase, bool back, size_t i)
{
	struct span span = {i, i, 0, 0, 0};

	for (; i < c->nr; i++) {
		const struct xp__plan *plan = xp__commit_plan(c, i);
		const struct xp__store *store = &plan->store[phase];
		uintptr_t start = c->addr[i] + store->off, end = start + store->len;

		if (!has_store(plan, phase, back, c->addr[i]))
			continue;
		if (span.start == span.end) {
			span.from = i;
			span.start = start;
			span.flags = store->flags;
		} else if ((span.flags | store->flags) & XP_WRITE_SINGLE || end - span.start > SPAN_MAX ||
			   (start - span.end > SPAN_GAP && start / PAGE != (span.end - 1) / PAGE)) {
			break;
		}
		span.end = end;
	}
	span.to = i;
	return span;
}

/* I5. Whether the store of @phase must find our breakpoint, read as data: a store that this thread made would look like it. */
static inline bool wants_trap(const struct xp__plan *plan, unsigned phase)
{
	return plan->traps && phase + 1 == plan->nr_stores;
}

static int fail_lost(struct xp_diag *diag, uintptr_t site)
{
	return xp__fail(diag, -XP__EBUSY, XP_PHASE_STORE, (const void *)site,
			"something replaced our breakpoint during the commit");
}

/*
 * Puts the stores of the span's sites into a copy of its text. The text between them is copied with them, by one call
 * for the whole span: a call per gap costs more than all the rest of a phase (bench/commit).
 */
static int fill_span(const struct xp__commit *c, unsigned phase, bool back, const struct span *span,
		     struct xp_diag *diag)
{
	uint8_t *const buffer = span_buffer;

	memcpy(buffer, (const void *)span->start, span->end - span->start);
	for (size_t i = span->from; i < span->to; i++) {
		const struct xp__plan *plan = xp__commit_plan(c, i);
		const struct xp__store *store = &plan->store[phase];
		uint8_t *at = buffer + (c->addr[i] + store->off - span->start);
		uint8_t before[XP_MAX_LEN];
		const uint8_t *bytes = store->bytes;

		if (!has_store(plan, phase, back, c->addr[i]))
			continue;
		if (back) {
			xp__commit_plan_before(plan, phase, before);
			bytes = before;
		} else if (wants_trap(plan, phase) && !xp__is_trap(at)) {
			return fail_lost(diag, c->addr[i]);
		}
		if (store->len == 1)
			*at = *bytes; /* no call */
		else
			memcpy(at, bytes, store->len);
	}
	return 0;
}

/*
 * Finds the span that begins at site @i, as next_span() does, and fills it, where all sites have plan 0 and store one
 * byte: a key's, of which there may be a million. Both at once, a page after the other: its addresses, its text and its
 * piece of the copy are then in the first-level cache (bench/commit).
 */
static int fill_bytes(const struct xp__commit *c, unsigned phase, size_t i, struct span *span, struct xp_diag *diag)
{
	const struct xp__store *store = &c->plans->store[phase];
	const bool trap = wants_trap(c->plans, phase);
	const uint8_t byte = store->bytes[0];
	const uintptr_t *site = c->addr + i, *const last = c->addr + c->nr;
	const uintptr_t start = *site + store->off;
	const uintptr_t shift = (uintptr_t)span_buffer + store->off - start;
	uintptr_t end = start; /* of what was copied */

	while (site < last) {
		const uintptr_t at = *site + store->off;
		const uintptr_t page_end = (at | (PAGE - 1)) + 1;
		const uintptr_t limit = page_end - start > SPAN_MAX ? start + SPAN_MAX : page_end;
		const uintptr_t *to = site;

		if (at >= limit || (at - end > SPAN_GAP && site > c->addr + i))
			break;
		while (last - to > 8 && to[8] + store->off < limit)
			to += 8;
		while (to < last && *to + store->off < limit)
			to++;
		memcpy(span_buffer + (end - start), (const void *)end, to[-1] + store->off + 1 - end);
		end = to[-1] + store->off + 1;
		for (; site < to; site++) {
			uint8_t *copy = (uint8_t *)(*site + shift);

			if (trap && !xp__is_trap(copy))
				return fail_lost(diag, *site);
			*copy = byte;
		}
	}
	*span = (struct span){i, (size_t)(site - c->addr), start, end, store->flags};
	return 0;
}

static int write_span(const struct xp__commit *c, const struct span *span, const void *bytes, bool back, bool last,
		      struct xp_diag *diag)
{
	unsigned flags = span->flags;
	int error;

	xp__count_locked(&counters.writes, 1);
	if (last && span->to == c->nr)
		flags |= XP_WRITE_LAST;
	if (c->known)
		flags |= XP_WRITE_KNOWN;
	if (back)
		flags |= XP_WRITE_UNDO;
	error = xp__port->text_write((void *)span->start, bytes, span->end - span->start, flags);
	return error ? xp__fail_port(diag, error, XP_PHASE_STORE, (const void *)c->addr[span->from]) : 0;
}

/* The one store of a commit that has one site: nothing lies between two, so its own bytes do. */
static int store_single(const struct xp__commit *c, struct xp_diag *diag)
{
	const struct xp__store *store = c->plans->store;
	const uintptr_t start = c->addr[0] + store->off;
	const struct span span = {0, 1, start, start + store->len, store->flags};

	return write_span(c, &span, store->bytes, false, true, diag);
}

/*
 * The stores of one phase from site @i on, one byte each, made here where the port opens the text to this thread: nothing
 * between the sites is read or written. Returns the number of the first site that is left. It ends at a site whose breakpoint
 * is gone (I5); the commit is then undone, the sites before it too.
 */
static size_t store_window(const struct xp__commit *c, unsigned phase, size_t i, struct xp_diag *diag, int *error)
{
	const struct xp__store *store = &c->plans->store[phase];
	const uint8_t byte = store->bytes[0];
	const uintptr_t *site = c->addr + i, *last = c->addr + c->nr;
	const bool trap = wants_trap(c->plans, phase);
	const uintptr_t end = xp__port->text_window((const void *)(*site + store->off));
	bool lost = false;

	if (end == 0)
		return i;
	for (; site < last && *site + store->off < end; site++) {
		uint8_t *at = (uint8_t *)(*site + store->off);

		lost = trap && !xp__is_trap(at);
		if (lost)
			break;
		/* ordering: (W1) pairs with (S1) */
		__atomic_store_n(at, byte, __ATOMIC_RELAXED);
	}
	xp__port->text_close();
	xp__count_locked(&counters.writes, 1);
	if (lost)
		*error = fail_lost(diag, *site);
	return (size_t)(site - c->addr);
}

/*
 * The stores of one phase, grouped into as few writes as their distance allows. @back: the bytes from before the
 * phase instead, in a rollback. @last: nothing is stored after this phase.
 */
static int store_phase(const struct xp__commit *c, unsigned phase, bool back, bool last, struct xp_diag *diag)
{
	const bool bytes = c->plan_of == NULL && !back && phase < c->plans->nr_stores &&
			   c->plans->store[phase].len == 1 && !(c->plans->store[phase].flags & XP_WRITE_SINGLE);
	struct span span;

	for (size_t i = 0; i < c->nr; i = span.to) {
		int error = 0;

		if (bytes && c->known && xp__port->text_window) {
			span.to = store_window(c, phase, i, diag, &error);
			if (error)
				return error;
			if (span.to > i)
				continue;
		}
		if (bytes) {
			error = fill_bytes(c, phase, i, &span, diag);
		} else {
			span = next_span(c, phase, back, i);
			if (span.start < span.end)
				error = fill_span(c, phase, back, &span, diag);
		}
		if (error)
			return error;
		if (span.start == span.end)
			continue;
		error = write_span(c, &span, span_buffer, back, last, diag);
		if (error)
			return error;
	}
	return 0;
}

static inline __attribute__((always_inline)) int sync_phase(struct xp_diag *diag)
{
	int error = xp__sync();

	return error ? xp__fail_port(diag, error, XP_PHASE_SYNC, NULL) : 0;
}

/* ---- the three ways to run a commit ---- */

static void wedge(struct xp_diag *diag)
{
	xp__wedge();
	if (diag)
		diag->phase = XP_PHASE_ROLLBACK;
}

static void store_pointers(const struct xp__commit *c, bool back)
{
	for (size_t i = 0; i < c->nr_pointers; i++) {
		const struct xp__pointer *pointer = &c->pointers[i];

		/* ordering: (C1) pairs with (C2) */
		__atomic_store_n(pointer->at, back ? pointer->old : pointer->new, __ATOMIC_RELEASE);
	}
}

/*
 * Undoes phases @phase…0. Of the last, part or all may not have happened: if there is nothing to undo, no thread can
 * have fetched any of it, and the sync before it still holds.
 */
static void poke_roll_back(const struct xp__commit *c, unsigned phase, struct xp_diag *diag)
{
	xp__count_locked(&counters.rollbacks, 1);
	do {
		unsigned long writes = counters.writes.low;

		if (store_phase(c, phase, true, false, NULL) || (counters.writes.low != writes && sync_phase(NULL))) {
			wedge(diag);
			return;
		}
	} while (phase-- > 0);
	store_pointers(c, true);
	if (c->nr_pointers > 0 && sync_phase(NULL))
		wedge(diag);
}

static int run_phases(const struct xp__commit *c, unsigned nr_phases, struct xp_diag *diag)
{
	store_pointers(c, false);
	for (unsigned phase = 0; phase < nr_phases; phase++) {
		int error = store_phase(c, phase, false, phase + 1 == nr_phases, diag);

		if (!error) {
			XP__INJECT(XP__POINT_STORED);
			/* P2. An asynchronous commit has one phase, and leaves its sync to a later one (ticket.c). */
			error = c->async ? 0 : sync_phase(diag);
		}
		if (error) {
			poke_roll_back(c, phase, diag);
			return error;
		}
		XP__INJECT(XP__POINT_SYNCED);
	}
	return 0;
}

/* One pass of stores, every other thread parked or not there. */
static int run_at_once(const struct xp__commit *c, struct xp_diag *diag)
{
	int error;

	store_pointers(c, false);
	error = store_phase(c, 0, false, true, diag);
	if (!error)
		return 0;
	xp__count_locked(&counters.rollbacks, 1);
	if (store_phase(c, 0, true, false, NULL))
		wedge(diag);
	else
		store_pointers(c, true);
	return error;
}

/*
 * No sync follows: the writer serializes itself. The port may have stored to another address of the page, and a
 * processor notices stores to the instructions that it executes by their linear address only.
 */
static int run_early(const struct xp__commit *c, struct xp_diag *diag)
{
	int error = run_at_once(c, diag);

	/* ordering: (S3) pairs with (W1) */
	xp__serialize();
	return error;
}

/* run_at_once() while every other thread is parked. */
static int run_parked(const struct xp__commit *c, struct xp_diag *diag)
{
	struct xp_range *const ranges = c->scratch;
	size_t nr = 0;
	int error = 0;

	/* No program counter rests inside a single instruction, and one that rests before it executes the new one. */
	for (size_t i = 0; i < c->nr; i++) {
		const struct xp__plan *plan = xp__commit_plan(c, i);

		if (!plan->single && xp__bypass_returns_into(c->addr[i], c->addr[i] + plan->len)) {
			error = xp__fail(diag, -XP_E_IN_RANGE, XP_PHASE_PREPARE, (const void *)c->addr[i],
					 "a copy out of line leads back to one of the instructions");
		} else if (!plan->single) {
			ranges[nr].start = c->addr[i] + 1;
			ranges[nr++].end = c->addr[i] + plan->len;
		}
	}
	if (!error)
		error = xp__port->park(ranges, nr, diag);
	if (error) {
		xp__fail(diag, error, XP_PHASE_PREPARE, diag ? diag->site : NULL, NULL);
	} else {
		error = run_at_once(c, diag);
		xp__count_parked();
		/* ordering: (P6) pairs with (S2) */
		xp__port->unpark();
	}
	return error;
}

static int run_trapping(struct xp__commit *c, unsigned nr_phases, struct xp_diag *diag)
{
	int error = xp__bypass_fill(diag);

	if (error) {
		xp__commit_free(c);
		return error;
	}
	/* ordering: (P1) pairs with (T4); the barriers are trap.c's */
	xp__trap_publish(c);
	XP__INJECT(XP__POINT_PUBLISHED);
	error = run_phases(c, nr_phases, diag);
	if (xp_state() == XP_STATE_WEDGED)
		return error; /* breakpoints may stand in the text: the table stays, and its memory */
	/* ordering: (P5) pairs with (T4) */
	xp__trap_retire();
	XP__INJECT(XP__POINT_RETIRED);
	xp__reclaim_retire(&xp__trap_domain, &c->block);
	xp__reclaim();
	return error;
}

/* What the commit needs of the port, enum xp_need; and how many phases it has. */
static unsigned needs_of(const struct xp__commit *c, unsigned *nr_phases)
{
	unsigned needs = c->plans_need;

	*nr_phases = c->plans_phases;
	/* Shared plans that no site needed are none. */
	if (c->nr == 0)
		*nr_phases = needs = 0;
	/* Data alone has one phase without a store of text. */
	if (*nr_phases == 0 && c->nr_pointers > 0) {
		*nr_phases = 1;
		needs = XP_NEED_SYNC;
	}
	return needs;
}

/* Memory for all commits, which is kept. The sites are in order. */
static int make_buffer(const struct xp__commit *c, struct xp_diag *diag)
{
	const bool small = c->nr == 0 || c->addr[c->nr - 1] - c->addr[0] <= sizeof(small_buffer) - XP_MAX_LEN;

	if (span_buffer == NULL || (span_buffer == small_buffer && !small))
		span_buffer = small ? small_buffer : xp__reclaim_port(SPAN_MAX);
	return span_buffer ? 0 : xp__fail(diag, -XP__ENOMEM, XP_PHASE_PREPARE, NULL, NULL);
}

static int poke_prepare(unsigned needs, struct xp_diag *diag)
{
	int error = xp__port->prepare(needs, diag);

	return error ? xp__fail(diag, error, XP_PHASE_PREPARE, diag ? diag->site : NULL, NULL) : 0;
}

unsigned xp__poke_needs(const struct xp__commit *c)
{
	unsigned nr_phases;

	return needs_of(c, &nr_phases);
}

static const char *why_not_private(int error)
{
	switch (error) {
	case -XP_E_NO_METHOD:
		return "the text is mapped shared, and other processes would execute it half-changed";
	case -XP_E_NOT_TEXT:
		return "a signal handler could not read it, which has none of the thread's rights to protection keys";
	default:
		return "it cannot be told what is mapped there";
	}
}

/*
 * Text that other processes execute too. They have no table of ours, and are neither synchronized nor parked: only what is
 * one store goes there. Likewise text that the handler of a trap cannot read. Sites are in order, so each mapping is asked about once.
 */
static int check_private(const struct xp__commit *c, struct xp_diag *diag)
{
	uintptr_t end = 0;

	for (size_t i = 0; i < c->nr && xp__port->text_private; i++) {
		const struct xp__plan *plan = xp__commit_plan(c, i);
		uintptr_t last;

		if (c->addr[i] + XP_MAX_LEN <= end)
			continue; /* without a look at its plan, of which there may be a million */
		last = c->addr[i] + plan->len - 1;
		if (plan->nr_stores < 2 && !(plan->needs & XP_NEED_PARK))
			continue;
		for (uintptr_t at = c->addr[i]; end <= last; at = end) {
			int error = xp__port->text_private((const void *)(end > at ? end : at), &end);

			if (error)
				return xp__fail(diag, error, XP_PHASE_PREPARE, (const void *)c->addr[i],
						why_not_private(error));
		}
	}
	return 0;
}

/* What stands between the commit and its first store on account of syncs: its own, and one that is owed (ticket.c, I3). */
static int check_syncs(const struct xp__commit *c, struct xp_diag *diag)
{
	const bool waits = c->nr_phases > 1 || c->needs & (XP_NEED_TRAP | XP_NEED_PARK);

	if (c->async && waits)
		return xp__fail(diag, -XP_E_NEEDS_SYNC, XP_PHASE_VALIDATE, NULL,
				"under the policy and the writer in force it takes more than one store");
	return c->nr_phases == 0 || (c->piles && !waits) ? 0 : xp__settle(diag);
}

int xp__poke_ready(struct xp__commit *c, struct xp_diag *diag)
{
	int error;

	if (c->ready)
		return 0;
	c->needs = needs_of(c, &c->nr_phases);
	error = xp__commit_order(c, diag);
	error = error ? error : make_buffer(c, diag);
	error = error ? error : check_private(c, diag);
	error = error ? error : check_syncs(c, diag);
	if (!error && c->nr_phases > 0) {
		error = poke_prepare(c->needs, diag);
		c->refused = error != 0;
	}
	c->ready = error == 0;
	return error;
}

int xp__poke_run(struct xp__commit *c, struct xp_diag *diag)
{
	int error = xp__poke_ready(c, diag);
	const unsigned needs = c->needs, nr_phases = c->nr_phases;
	bool parked, early;

	if (error || nr_phases == 0) {
		xp__commit_free(c);
		return error;
	}

	xp__count_locked(&counters.commits, 1);
	parked = needs & XP_NEED_PARK;
	early = needs & XP_NEED_ALONE;
	if (needs & XP_NEED_TRAP) {
		size_t nr = c->nr;

		error = run_trapping(c, nr_phases, diag);
		if (!error)
			xp__count_locked(&counters.sites, nr);
		return error;
	}
	error = parked ? run_parked(c, diag) : early ? run_early(c, diag) : run_phases(c, nr_phases, diag);
	if (!error)
		xp__count_locked(&counters.sites, c->nr);
	xp__commit_free(c);
	return error;
}

int xp__poke_single(struct xp__plan *plan, uintptr_t addr, struct xp_diag *diag)
{
	static uintptr_t site;
	static struct xp__commit one = {.nr = 1, .nr_plans = 1, .addr = &site, .known = true};
	int error;

	site = addr;
	one.plans = plan;
	error = make_buffer(&one, diag); /* for a rollback */
	error = error ? error : poke_prepare(plan->needs, diag);
	if (error)
		return error;
	xp__count_locked(&counters.commits, 1);
	error = store_single(&one, diag);
	if (!error) {
		XP__INJECT(XP__POINT_STORED);
		error = sync_phase(diag);
	}
	if (error) {
		poke_roll_back(&one, 0, diag);
		return error;
	}
	XP__INJECT(XP__POINT_SYNCED);
	xp__count_locked(&counters.sites, 1);
	return 0;
}
