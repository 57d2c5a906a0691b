// SPDX-License-Identifier: MIT
/*
 * Looks whether the text of sites is what their objects say, and brings it there.
 *
 * I1  A site is right, or has a form that it may have: that of another state of its object, or the one that the compiler left.
 *     So has one whose first byte alone is another form's: that is all that a probe writes back when it goes. Text of no
 *     such form is never written to, nor is somebody's breakpoint.
 * I2  A repair is a commit like any other: breakpoints or single stores, and syncs. What is not one instruction, as a form
 *     with the first byte of another, is repaired while all other threads are parked outside of it.
 * I3  Each site is brought to what its object is, whatever becomes of the others: so a repair needs no memory for all of
 *     them, and one that fails half-way leaves nothing to be undone.
 */
#include "core/drift.h"

#include "core/batch.h"
#include "core/deps.h"
#include "core/engine.h"
#include "core/function.h"
#include "core/poke.h"

#define SITES_AT_ONCE 512u

enum verdict { RIGHT, DRIFTED, MIXED, HELD, FOREIGN, HIDDEN };

bool xp__look_at(struct xp__look *look, uintptr_t code, size_t len)
{
	look->code = code;
	look->len = (uint8_t)len;
	look->hidden = !xp__text_readable(&look->page, code, len);
	return !look->hidden;
}

/* look() of the kind, for site @i of the group. */
static int look_at_next(const struct xp__request *request, const struct xp__group *group, size_t i,
			struct xp__look *look)
{
	*look = (struct xp__look){.page = look->page};
	return group->kind->look(request, group, i, look);
}

static enum verdict judge(const struct xp__look *look)
{
	const uint8_t *text = (const uint8_t *)look->code;

	if (look->hidden)
		return HIDDEN;
	if (look->known && memcmp(text, look->wanted, look->len) == 0)
		return RIGHT;
	if (text[0] == XP__INSN_INT3_BYTE)
		return HELD;
	if (!look->known)
		return FOREIGN;
	if (look->form)
		return DRIFTED;
	if (memcmp(text + 1, look->wanted + 1, look->len - 1u) == 0)
		for (unsigned i = 0; i < sizeof(look->first); i++)
			if (look->first[i] && text[0] == look->first[i])
				return MIXED;
	return FOREIGN;
}

static int fail(const struct xp__look *look, enum verdict verdict, const struct xp_object *object, struct xp_diag *diag)
{
	static const char held[] = "a debugger or probe has a breakpoint there";
	static const char older[] = "somebody wrote an older form back, as probes do that go; xp_repair() mends it";
	int error = verdict == HELD ? -XP__EBUSY : verdict == FOREIGN ? -XP_E_MISMATCH : -XP_E_DRIFTED;

	if (diag)
		diag->key = object->name;
	if (verdict == HIDDEN)
		return xp__fail_unreadable(diag, look->code);
	if (diag) {
		diag->len = look->known ? look->len : 0;
		memcpy(diag->expected, look->wanted, diag->len);
		memcpy(diag->found, (const void *)look->code, diag->len);
		diag->detail = NULL;
	}
	return xp__fail(diag, error, XP_PHASE_VALIDATE, (const void *)look->code,
			verdict == HELD      ? held
			: verdict == FOREIGN ? NULL
					     : older);
}

/* What the object is, as a wish. */
static struct xp__request state_of(const struct xp__group *group)
{
	struct xp__request request = {.kind = group->kind, .object = group->object, .from = XP__FROM_BUILT};

	if (group->kind->current)
		group->kind->current(&request);
	return request;
}

int xp__drift_check(const struct xp__group *groups, size_t *nr, struct xp_diag *diag)
{
	int error = 0;

	if (nr)
		*nr = 0;
	for (const struct xp__group *group = groups; group; group = group->next) {
		struct xp__request request = state_of(group);
		struct xp__look look = {.page = 0};
		int there;

		for (size_t i = 0; group->kind->look; i++) {
			enum verdict verdict;

			there = look_at_next(&request, group, i, &look);
			if (there < 0)
				break;
			verdict = there ? judge(&look) : RIGHT;
			if (verdict == RIGHT)
				continue;
			if (!error)
				error = fail(&look, verdict, group->object, diag);
			if (nr)
				++*nr;
			else
				return error;
		}
	}
	return error;
}

int xp__drift_each(int (*visit)(const struct xp__group *groups, void *data), void *data)
{
	int result = xp__objects_each(visit, data);

	return result ? result : xp__functions_each(visit, data);
}

/* ---- repair ---- */

struct repair {
	struct xp_diag *diag; /* of the first error */
	int error, nr;
};

static void note(struct repair *repair, int error, const struct xp_diag *diag)
{
	if (repair->error == 0 && repair->diag)
		*repair->diag = *diag;
	repair->error = repair->error ? repair->error : error;
}

static int add(struct xp__commit *commit, const struct xp__look *look, struct xp_diag *diag)
{
	uint8_t old[XP_MAX_LEN];
	struct xp__change change = {
		.addr = look->code,
		.old = old,
		.new = look->wanted,
		.len = look->len,
		.known = look->len,
		.resume = look->resume_at ? XP_RESUME_AT : XP_RESUME_EMULATE,
		.resume_at = look->resume_at,
	};
	int error;

	memcpy(old, (const void *)look->code, look->len);
	error = xp__commit_change(commit, &change, 0, diag);
	return error < 0 ? error : 0;
}

/* A commit of as many drifted sites as there is room for; @parked: by the quiesce policy. NULL and 0: there are none. */
static int build(const struct xp__group *groups, bool parked, struct xp__commit **result, struct xp_diag *diag)
{
	const struct xp__size size = {.sites = SITES_AT_ONCE, .plans = SITES_AT_ONCE};
	struct xp__commit *commit = xp__commit_new(&size);
	int error = 0;

	*result = NULL;
	if (commit == NULL)
		return xp__fail(diag, -XP__ENOMEM, XP_PHASE_VALIDATE, NULL, NULL);
	if (parked)
		commit->policy = XP_POLICY_QUIESCE;
	for (const struct xp__group *group = groups; group && !error; group = group->next) {
		struct xp__request request = state_of(group);
		struct xp__look look = {.page = 0};
		int there = group->kind->look ? 0 : -1;

		for (size_t i = 0; there >= 0 && !error && commit->nr < SITES_AT_ONCE; i++) {
			enum verdict verdict;

			there = look_at_next(&request, group, i, &look);
			verdict = there > 0 ? judge(&look) : RIGHT;
			if (verdict == DRIFTED || verdict == MIXED)
				error = verdict == MIXED && !parked ? -XP_E_MULTI : add(commit, &look, diag);
		}
	}
	if (!error && commit->nr > 0)
		*result = commit;
	else
		xp__commit_free(commit);
	return error;
}

static int repair_object(const struct xp__group *groups, void *data)
{
	struct repair *repair = data;
	struct xp_diag diag = {0};
	struct xp__commit *commit;
	size_t nr;
	int error = xp__drift_check(groups, &nr, &diag);

	if (error && error != -XP_E_DRIFTED)
		note(repair, error, &diag);
	while (nr > 0) {
		memset(&diag, 0, sizeof(diag));
		error = build(groups, false, &commit, &diag);
		/* What is no single instruction, or cannot be finished by who meets a breakpoint. */
		if (error == -XP_E_MULTI || error == -XP_E_EMULATE || error == -XP_E_SHADOW_STACK)
			error = build(groups, true, &commit, &diag);
		if (!error && commit == NULL)
			break;
		nr = error ? 0 : commit->nr;
		error = error ? error : xp__commit_run(commit, &diag);
		if (error) {
			diag.key = groups->object->name;
			note(repair, error, &diag);
			break;
		}
		repair->nr += (int)nr;
	}
	return xp_state() == XP_STATE_WEDGED;
}

int xp__repair_locked(struct xp_diag *diag)
{
	struct repair repair = {.diag = diag};

	(void)xp__drift_each(repair_object, &repair);
	return repair.error ? repair.error : repair.nr;
}

int xp_repair(struct xp_diag *diag)
{
	int result = xp__lock(diag);

	if (result)
		return result;
	result = xp__repair_locked(diag);
	xp__unlock();
	return result;
}
