// SPDX-License-Identifier: MIT
/*
 * Branch sites.
 *
 * I1  Where the architecture has forms for it (XP__BRANCH_SHARED), the sites of all keys share two plans, to jump and not to:
 *     what differs between sites, the displacement, stays.
 */
#include "kinds/branch.h"

#include "core/commit.h"
#include "core/deps.h"
#include "core/state.h"

#define PAGE 4096

enum { LIKELY, TRUE }; /* of xp__group.nr_flag */

/* Whether the site jumps when its key is @on. */
static inline bool jumps(const struct xp_branch_site *site, bool on)
{
	return on != ((xp__site_flags(&site->key) & XP_SITE_LIKELY) != 0);
}

/* What stands at a branch site that must agree with its record: whether it jumps, and where. */
static inline bool branch_is(const struct xp_branch_site *site, bool jumps)
{
	return xp__branch_is(xp__relative(&site->code), xp__relative(&site->target), jumps);
}

static int fail_branch(const struct xp_branch_site *site, bool to_jmp, struct xp_diag *diag)
{
	uintptr_t code = xp__relative(&site->code);
	uint8_t expected[XP__BRANCH_LEN] = {0};

	(void)xp__form_branch(expected, code, xp__relative(&site->target), !to_jmp);
	return xp__fail_site(diag, xp__site_object(&site->key), code, expected, XP__BRANCH_LEN);
}

bool xp__branch_as_built(const struct xp__request *request, const struct xp__group *group)
{
	return group->nr_flag[TRUE] == (request->on ? group->nr : 0);
}

void xp__branch_count(const struct xp__request *request, const struct xp__group *group, struct xp__size *size)
{
	uint32_t nr_to_jmp = request->on ? group->nr - group->nr_flag[LIKELY] : group->nr_flag[LIKELY];

	size->sites += group->nr;
	if (!XP__BRANCH_SHARED) {
		size->plans += group->nr;
		return;
	}
	if (nr_to_jmp > 0 && !size->to_jmp) {
		size->to_jmp = true;
		size->plans++;
	}
	if (nr_to_jmp < group->nr && !size->to_test) {
		size->to_test = true;
		size->plans++;
	}
}

/*
 * The number of the plan that all sites share which go that way. It is the same in every commit under the same policy
 * and port, so it is built once: that is a quarter of all instructions of a commit of one site (bench/toggle).
 */
static int shared_plan(struct xp__commit *commit, bool to_jmp, struct xp_diag *diag)
{
	static struct {
		struct xp__plan plan;
		enum xp_policy policy;
		unsigned can;
		bool built;
	} last[2];
	uint32_t *shared = to_jmp ? &commit->to_jmp : &commit->to_test;
	bool known = last[to_jmp].built && last[to_jmp].policy == commit->policy && last[to_jmp].can == commit->can;
	uint8_t old[XP__BRANCH_LEN], new[XP__BRANCH_LEN];
	struct xp__change change = {.old = old, .new = new, .len = XP__BRANCH_LEN, .known = XP__BRANCH_SHARED};
	int number;

	if (*shared)
		return (int)*shared - 1;
	if (known) {
		number = (int)commit->nr_plans++;
		memcpy(&commit->plans[number], &last[to_jmp].plan, sizeof(struct xp__plan));
	} else {
		(void)xp__form_branch(old, 0, XP__BRANCH_LEN, !to_jmp);
		(void)xp__form_branch(new, 0, XP__BRANCH_LEN, to_jmp);
		number = xp__commit_plan_add(commit, &change, NULL, diag);
		if (number < 0)
			return number;
		last[to_jmp].plan = commit->plans[number];
		last[to_jmp].policy = commit->policy;
		last[to_jmp].can = commit->can;
		last[to_jmp].built = true;
	}
	*shared = (uint32_t)number + 1;
	return number;
}

/* Plans that no site of the group needs are not built: number -1. */
static int shared_plans(const struct xp__request *request, const struct xp__group *group, struct xp__commit *commit,
			int plan[2], struct xp_diag *diag)
{
	struct xp__size size = {0};

	xp__branch_count(request, group, &size);
	plan[false] = size.to_test ? shared_plan(commit, false, diag) : 0;
	plan[true] = size.to_jmp ? shared_plan(commit, true, diag) : 0;
	return plan[false] < 0 ? plan[false] : plan[true] < 0 ? plan[true] : 0;
}

/*
 * Adds the first sites of a group whose records stand in a row and whose sites all go one way, up to one whose text is not
 * as it must be. A key may have a million sites: this loop keeps all it needs in registers. Returns how many.
 */
static uint32_t add_row(struct xp__commit *commit, const struct xp_branch_site *site, uint32_t nr, bool jumps,
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
		if (!branch_is(site, jumps))
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

int xp__branch_emit(const struct xp__request *request, const struct xp__group *group, struct xp__commit *commit,
		    struct xp_diag *diag)
{
	const struct xp_branch_site *sites = group->records;
	const bool change = request->from == XP__FROM_STATE, on = request->on;
	uint32_t i = 0;
	int plan[2], error;

	error = shared_plans(request, group, commit, plan, diag);
	if (error)
		return error;
	if (group->numbers[group->nr - 1] - group->numbers[0] == group->nr - 1 &&
	    (group->nr_flag[LIKELY] == 0 || group->nr_flag[LIKELY] == group->nr)) {
		bool to_jmp = jumps(&sites[group->numbers[0]], on);

		i = add_row(commit, &sites[group->numbers[0]], group->nr, !to_jmp, (uint32_t)plan[to_jmp]);
	}
	for (; i < group->nr; i++) {
		const struct xp_branch_site *site = &sites[group->numbers[i]];
		bool to_jmp = jumps(site, on);

		if (!xp__commit_readable(commit, xp__relative(&site->code), XP__BRANCH_LEN)) {
			if (diag)
				diag->key = xp__site_object(&site->key)->name;
			return xp__fail_unreadable(diag, xp__relative(&site->code));
		}
		if (branch_is(site, !to_jmp))
			xp__commit_add(commit, xp__relative(&site->code), (uint32_t)plan[to_jmp]);
		else if (change || !branch_is(site, to_jmp))
			return fail_branch(site, to_jmp, diag);
	}
	return 0;
}

int xp__branch_site(const struct xp__group *group, size_t i, struct xp__site *site)
{
	const struct xp_branch_site *record;

	if (i >= group->nr)
		return -1;
	record = (const struct xp_branch_site *)group->records + group->numbers[i];
	*site = (struct xp__site){.code = xp__relative(&record->code), .record = record, .len = XP__BRANCH_LEN};
	return 1;
}

int xp__branch_form(const struct xp__request *request, const struct xp__site *site, const uint8_t *text,
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
