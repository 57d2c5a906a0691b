// SPDX-License-Identifier: MIT
/* Raw pokes: bytes at an address, as the caller gave them. */
#include "core/batch.h"
#include "core/bypass.h"
#include "core/commit.h"
#include "core/deps.h"
#include "core/state.h"

static int raw_emit(const struct xp__request *request, const struct xp__group *group, struct xp__commit *commit,
		    struct xp_diag *diag)
{
	const struct xp__poke *poke = &request->poke;
	const void *site = (const void *)poke->addr;
	uint8_t found[XP_MAX_LEN];
	struct xp__change change = {
		.addr = poke->addr,
		.old = poke->expect,
		.new = poke->replace,
		.len = poke->len,
		.known = poke->len,
		.resume = poke->resume,
		.resume_at = poke->resume_at,
	};
	const char *detail = NULL;
	int error, number = (int)commit->nr_plans;
	struct xp__plan *plan;

	(void)group;
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
	error = xp__commit_change(commit, &change, XP__PLAN_OWN, diag);
	if (error)
		return error;
	plan = &commit->plans[number];
	if (plan->method == XP__METHOD_BYPASS)
		error = xp__bypass_slot(poke->addr, poke->replace, poke->len, &plan->resume, &detail);
	return error ? xp__fail(diag, error, XP_PHASE_VALIDATE, site, detail) : 0;
}

const struct xp__kind xp__raw_kind = {
	.emit = raw_emit,
};

static int raw_fill(struct xp__request *request, const struct xp_poke *poke)
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
	memset(request, 0, sizeof(*request));
	request->kind = &xp__raw_kind;
	request->poke.addr = (uintptr_t)poke->addr;
	request->poke.len = poke->len;
	request->poke.resume = (uint8_t)poke->resume;
	request->poke.resume_at = resume_at;
	memcpy(request->poke.expect, poke->expect, poke->len);
	memcpy(request->poke.replace, poke->replace, poke->len);
	return 0;
}

int xp_text_poke(const struct xp_poke *poke, struct xp_diag *diag)
{
	struct xp__request request;
	int error = raw_fill(&request, poke);

	if (error) {
		if (diag)
			memset(diag, 0, sizeof(*diag));
		return xp__fail(diag, error, XP_PHASE_VALIDATE, poke ? poke->addr : NULL, NULL);
	}
	return xp__apply(&request, diag);
}

int xp_batch_add_poke(struct xp_batch *batch, const struct xp_poke *poke)
{
	struct xp__request request;
	int error = batch ? raw_fill(&request, poke) : -XP__EINVAL;

	return error ? error : xp__batch_add(batch, &request);
}
