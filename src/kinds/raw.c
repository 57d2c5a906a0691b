// SPDX-License-Identifier: MIT
/* Raw pokes: bytes at an address, as the caller gave them. */
#include "core/batch.h"
#include "core/bypass.h"
#include "core/commit.h"
#include "core/deps.h"
#include "core/state.h"

static void raw_count(const struct xp__request *request, const struct xp__group *group, struct xp__size *size)
{
	(void)group;
	size->sites += request->pokes.nr;
	size->plans += request->pokes.nr;
}

/* The same change, but for the place; none that has a copy out of line. */
static inline bool same_change(const struct xp__poke *a, const struct xp__poke *b)
{
	return a->len == b->len && a->resume == b->resume && a->resume_at == b->resume_at &&
	       a->resume != XP_RESUME_BYPASS && __builtin_memcmp(a->expect, b->expect, XP_MAX_LEN) == 0 &&
	       __builtin_memcmp(a->replace, b->replace, XP_MAX_LEN) == 0; /* no calls */
}

/* The number of a new plan for the poke, or an error. */
static int raw_plan(const struct xp__poke *poke, struct xp__commit *commit, struct xp_diag *diag)
{
	const void *site = (const void *)poke->addr;
	struct xp__change change = {
		.addr = poke->addr,
		.old = poke->expect,
		.new = poke->replace,
		.len = poke->len,
		.known = poke->len,
		.resume = poke->resume,
		.resume_at = poke->resume_at,
	};
	int number = xp__commit_plan_add(commit, &change, site, diag);
	const char *detail = NULL;
	struct xp__plan *plan;
	int error;

	if (number < 0)
		return number;
	plan = &commit->plans[number];
	if (plan->method != XP__METHOD_BYPASS)
		return number;
	error = xp__bypass_slot(poke->addr, poke->replace, poke->len, &plan->resume, &detail);
	return error ? xp__fail(diag, error, XP_PHASE_VALIDATE, site, detail) : number;
}

static int raw_check(const struct xp__poke *poke, struct xp_diag *diag)
{
	const void *site = (const void *)poke->addr;
	uint8_t found[XP_MAX_LEN];
	int error;

	error = xp__port->text_check(site, poke->len);
	if (!error)
		error = xp__port->text_read(found, site, poke->len);
	if (error) {
		bool told = error == -XP_E_NOT_TEXT;

		if (diag && !told)
			diag->system = -error;
		return xp__fail(diag, error, XP_PHASE_VALIDATE, site,
				told ? NULL : "it cannot be told what is mapped there");
	}
	if (memcmp(found, poke->expect, poke->len) != 0)
		return xp__fail_text(diag, site, poke->expect, found, poke->len);
	return 0;
}

/* Pokes that change the same bytes, at places that are alike to plans, share one: the last of each such place is remembered. */
static int raw_emit(const struct xp__request *request, const struct xp__group *group, struct xp__commit *commit,
		    struct xp_diag *diag)
{
	const struct xp__poke *last[XP__PLAN_PERIOD] = {NULL};
	int plan_of[XP__PLAN_PERIOD];

	(void)group;
	commit->known = false;
	for (size_t i = 0; i < request->pokes.nr; i++) {
		const struct xp__poke *poke = &request->pokes.at[i];
		const unsigned place = poke->addr % XP__PLAN_PERIOD;
		int error = raw_check(poke, diag);

		if (error)
			return error;
		if (last[place] == NULL || !same_change(poke, last[place])) {
			plan_of[place] = raw_plan(poke, commit, diag);
			if (plan_of[place] < 0)
				return plan_of[place];
			last[place] = poke;
		}
		xp__commit_add(commit, poke->addr, (uint32_t)plan_of[place]);
	}
	return 0;
}

const struct xp__kind xp__raw_kind = {
	.count = raw_count,
	.emit = raw_emit,
	.asynchronous = true,
};

static int check_request(const struct xp_poke *poke)
{
	uintptr_t resume_at;

	if (poke == NULL || poke->addr == NULL || poke->expect == NULL || poke->replace == NULL)
		return -XP__EINVAL;
	if (poke->len == 0 || poke->len > XP_MAX_LEN)
		return -XP_E_LENGTH;
	resume_at = (uintptr_t)poke->resume_at;
	/* Inside the site it would resume in whatever stands there at that moment. */
	if (poke->resume != XP_RESUME_EMULATE && poke->resume != XP_RESUME_BYPASS &&
	    (poke->resume != XP_RESUME_AT || resume_at == 0 || resume_at - (uintptr_t)poke->addr < poke->len))
		return -XP__EINVAL;
	return 0;
}

static void raw_fill(struct xp__poke *to, const struct xp_poke *poke)
{
	*to = (struct xp__poke){
		.addr = (uintptr_t)poke->addr,
		.resume_at = (uintptr_t)poke->resume_at,
		.len = poke->len,
		.resume = (uint8_t)poke->resume,
	};
	memcpy(to->expect, poke->expect, poke->len);
	memcpy(to->replace, poke->replace, poke->len);
}

int xp_text_poke(const struct xp_poke *poke, struct xp_diag *diag)
{
	struct xp__request request = {.kind = &xp__raw_kind};
	struct xp__poke one;
	int error = check_request(poke);

	if (error) {
		if (diag)
			memset(diag, 0, sizeof(*diag));
		return xp__fail(diag, error, XP_PHASE_VALIDATE, poke ? poke->addr : NULL, NULL);
	}
	raw_fill(&one, poke);
	request.pokes.at = &one;
	request.pokes.nr = 1;
	return xp__batch_apply(&request, diag);
}

int xp_batch_add_poke(struct xp_batch *batch, const struct xp_poke *poke)
{
	int error = batch ? check_request(poke) : -XP__EINVAL;
	struct xp__poke *to = error ? NULL : xp__batch_poke(batch, &xp__raw_kind);

	if (to)
		raw_fill(to, poke);
	return error ? error : to ? 0 : -XP__ENOMEM;
}
