// SPDX-License-Identifier: MIT
/* Commits: their plans, the order of their sites. */
#include "core/commit.h"

#include "core/deps.h"
#include "core/state.h"

#define PAGE ((uintptr_t)4096)
#define PAGES_MAX 8192u /* remembered as readable: sites of a commit on 32 MiB of text */

/* ---- memory ---- */

/* Places for the pages of @sites sites: one for each four. A few sites are asked about one by one. */
static size_t pages_for(size_t sites)
{
	size_t nr = 8;

	if (xp__port->data_read == NULL || sites < 4 * nr)
		return 0;
	while (nr < PAGES_MAX && nr < sites / 4)
		nr *= 2;
	return nr;
}

bool xp__commit_readable(struct xp__commit *c, uintptr_t addr, size_t len)
{
	const uintptr_t page = addr & ~(PAGE - 1);
	uintptr_t *place;

	if (page == c->page && addr - page <= PAGE - len)
		return true;
	if (addr - page <= PAGE - len && xp__text_is_known(addr, len)) {
		c->page = page;
		return true;
	}
	if (c->nr_pages == 0 || page == 0 || addr - page > PAGE - len)
		return xp__text_readable(&c->page, addr, len);
	place = &c->pages[page / PAGE & (c->nr_pages - 1)];
	if (*place != page) {
		if (!xp__text_readable(&c->page, addr, len))
			return false;
		*place = page;
	}
	c->page = page;
	return true;
}

struct xp__commit *xp__commit_new(const struct xp__size *room)
{
	size_t nr_pages = pages_for(room->sites), pages_size = nr_pages * sizeof(uintptr_t);
	size_t addr_size = room->sites * sizeof(uintptr_t);
	size_t plan_of_size = room->plans > 1 ? room->sites * sizeof(uint32_t) : 0;
	size_t plans_size = room->plans * sizeof(struct xp__plan);
	size_t pointers_size = room->pointers * sizeof(struct xp__pointer);
	size_t scratch_size = room->sites * sizeof(struct xp_range);
	size_t size = sizeof(struct xp__commit) + addr_size + plans_size + pages_size + pointers_size + scratch_size +
		      plan_of_size;
	struct xp__commit *commit;
	uint8_t *at;

	commit = (struct xp__commit *)xp__reclaim_whole(size);
	if (commit == NULL)
		return NULL;
	memset(&commit->block + 1, 0, sizeof(*commit) - sizeof(commit->block));
	commit->known = true;
	commit->can = xp__port->can(~0u);
	commit->policy = xp_policy();
	at = (uint8_t *)(commit + 1);
	commit->addr = (uintptr_t *)at;
	at += addr_size;
	commit->pages = (uintptr_t *)at;
	commit->nr_pages = nr_pages;
	commit->page = (uintptr_t)commit & ~(PAGE - 1); /* which can be read; 0 would be one, too */
	memset(commit->pages, 0, pages_size);
	at += pages_size;
	commit->plans = (struct xp__plan *)at;
	at += plans_size;
	commit->pointers = (struct xp__pointer *)at;
	at += pointers_size;
	commit->scratch = at;
	at += scratch_size;
	if (plan_of_size)
		commit->plan_of = (uint32_t *)at;
	return commit;
}

/* ---- plans ---- */

/* The number of the plan that was just filled in. Its needs are noted here: to ask a million plans later takes ten milliseconds. */
static int take_plan(struct xp__commit *commit)
{
	const struct xp__plan *plan = &commit->plans[commit->nr_plans];

	commit->plans_need |= plan->needs;
	if (plan->nr_stores > commit->plans_phases)
		commit->plans_phases = plan->nr_stores;
	return (int)commit->nr_plans++;
}

int xp__commit_plan_add(struct xp__commit *commit, struct xp__change *change, const void *site, struct xp_diag *diag)
{
	const char *detail = NULL;
	int error;

	change->policy = commit->policy;
	change->can = commit->can;
	error = xp__plan_build(change, &commit->plans[commit->nr_plans], &detail);
	if (error)
		return xp__fail(diag, error, XP_PHASE_VALIDATE, site, detail);
	return take_plan(commit);
}

static struct {
	struct xp__plan plan;
	enum xp_policy policy;
	unsigned can;
	bool built;
} last_way[XP__NR_WAYS];

static bool way_holds(enum xp__way way, enum xp_policy policy, unsigned port_can)
{
	return last_way[way].built && last_way[way].policy == policy && last_way[way].can == port_can;
}

struct xp__plan *xp__commit_way_plan(enum xp__way way)
{
	return way_holds(way, xp_policy(), xp__port->can(~0u)) ? &last_way[way].plan : NULL;
}

int xp__commit_way(struct xp__commit *commit, enum xp__way way)
{
	if (commit->way[way] == 0 && way_holds(way, commit->policy, commit->can)) {
		memcpy(&commit->plans[commit->nr_plans], &last_way[way].plan, sizeof(struct xp__plan));
		commit->way[way] = (uint32_t)take_plan(commit) + 1;
	}
	return (int)commit->way[way] - 1;
}

int xp__commit_new_way(struct xp__commit *commit, enum xp__way way, struct xp__change *change, struct xp_diag *diag)
{
	int number = xp__commit_plan_add(commit, change, NULL, diag);

	if (number < 0)
		return number;
	last_way[way].plan = commit->plans[number];
	last_way[way].policy = commit->policy;
	last_way[way].can = commit->can;
	last_way[way].built = true;
	commit->way[way] = (uint32_t)number + 1;
	return number;
}

int xp__commit_change(struct xp__commit *commit, struct xp__change *change, size_t first, struct xp_diag *diag)
{
	int number = xp__commit_plan_add(commit, change, (const void *)change->addr, diag);
	size_t last = first < SIZE_MAX - XP__PLAN_SHARE ? first + XP__PLAN_SHARE : 0;

	if (number < 0)
		return number;
	/* Padding may tell two equal plans apart: they are then two. */
	for (size_t i = first; i < last && i < (size_t)number; i++) {
		if (memcmp(&commit->plans[i], &commit->plans[number], sizeof(commit->plans[i])) == 0) {
			commit->nr_plans--;
			number = (int)i;
			break;
		}
	}
	xp__commit_add(commit, change->addr, (uint32_t)number);
	return 0;
}

void xp__commit_plan_before(const struct xp__plan *plan, unsigned phase, uint8_t *bytes)
{
	const struct xp__store *store = &plan->store[phase];
	uint8_t state[XP_MAX_LEN];

	memcpy(state, plan->old, sizeof(state));
	for (unsigned i = 0; i < phase; i++)
		memcpy(state + plan->store[i].off, plan->store[i].bytes, plan->store[i].len);
	memcpy(bytes, state + store->off, store->len);
}

void xp__commit_pointer(struct xp__commit *commit, void (**at)(void), void (*new)(void))
{
	commit->pointers[commit->nr_pointers++] = (struct xp__pointer){.at = at, .old = *at, .new = new};
}

/* ---- order ---- */

static void merge(struct xp__commit *c, size_t low, size_t middle, size_t high, uintptr_t *addr, uint32_t *plan_of)
{
	size_t a = low, b = middle;

	for (size_t i = low; i < high; i++) {
		bool left = b == high || (a < middle && c->addr[a] <= c->addr[b]);
		size_t from = left ? a++ : b++;

		addr[i] = c->addr[from];
		if (plan_of)
			plan_of[i] = c->plan_of[from];
	}
	memcpy(c->addr + low, addr + low, (high - low) * sizeof(*addr));
	if (plan_of)
		memcpy(c->plan_of + low, plan_of + low, (high - low) * sizeof(*plan_of));
}

/* The end of the ascending run that starts at @at. */
static size_t commit_run_end(const struct xp__commit *c, size_t at)
{
	if (at < c->nr)
		at++;
	while (at < c->nr && c->addr[at - 1] <= c->addr[at])
		at++;
	return at;
}

/* Natural merge sort: the sites of a key come in ascending order, and usually all of them do. */
static void commit_sort(struct xp__commit *c)
{
	uintptr_t *scratch = c->scratch;

	while (commit_run_end(c, 0) < c->nr) {
		for (size_t low = 0; low < c->nr;) {
			size_t middle = commit_run_end(c, low);
			size_t high = commit_run_end(c, middle);

			if (middle < high)
				merge(c, low, middle, high, scratch, c->plan_of ? (uint32_t *)(scratch + c->nr) : NULL);
			low = high;
		}
	}
}

int xp__commit_order(struct xp__commit *c, struct xp_diag *diag)
{
	if (!c->unordered)
		return 0;
	commit_sort(c);
	for (size_t i = 1; i < c->nr; i++)
		if (c->addr[i] - c->addr[i - 1] < xp__commit_plan(c, i - 1)->len)
			return xp__fail(diag, -XP_E_OVERLAP, XP_PHASE_VALIDATE, (const void *)c->addr[i], NULL);
	return 0;
}
