// SPDX-License-Identifier: MIT
/*
 * Looks whether the text of sites is what their objects say, and brings it there.
 *
 * I1  A site is right, or has a form that it may have: that of another state of its object, or the one that the compiler left.
 *     So has one whose first byte alone is another form's: that is all that a probe writes back when it goes. Text of no
 *     such form is never written to, nor is a foreign breakpoint.
 * I2  A repair is a commit like any other: breakpoints or single stores, and syncs. Text that is not one instruction, as a form
 *     with the first byte of another, is repaired while all other threads are parked outside of it.
 * I3  Each site is brought to what its object is, whatever becomes of the others: so a repair needs no memory for all of
 *     them, and one that fails half-way leaves nothing to be undone.
 */
#include "core/drift.h"

#include "core/commit.h"
#include "core/deps.h"
#include "core/emit.h"
#include "core/poke.h"
#include "core/site.h"
#include "core/state.h"

#define SITES_AT_ONCE 512u

enum verdict { RIGHT, DRIFTED, MIXED, HELD, FOREIGN, HIDDEN };

/* A site, what its text is, and what a repair makes of it. */
struct finding {
	struct xp__site site;
	enum verdict verdict;
	uint8_t text[XP_MAX_LEN];
	struct xp__form right;
	bool has_right;
};

/* The first byte of one form, and the rest of one that is right: what a probe makes of a site when it goes. */
static bool is_mixed(const struct xp__request *request, struct finding *finding)
{
	const struct xp__site *site = &finding->site;

	for (unsigned n = 0;; n++) {
		struct xp__form right = {0}, any;
		uint8_t mixed[XP_MAX_LEN];

		if (request->kind->form(request, site, finding->text, XP__RIGHT, n, &right, NULL) <= 0)
			return false;
		memcpy(mixed, right.bytes, site->len);
		for (unsigned k = 0;; k++) {
			memset(&any, 0, sizeof(any));
			if (request->kind->form(request, site, finding->text, XP__FROM_ANY, k, &any, NULL) <= 0)
				break;
			mixed[0] = any.bytes[0];
			if (memcmp(mixed, finding->text, site->len) == 0) {
				finding->right = right;
				return true;
			}
		}
	}
}

static enum verdict drift_judge(const struct xp__request *request, struct finding *finding, uintptr_t *page)
{
	const struct xp__site *site = &finding->site;
	struct xp__form form;

	if (!xp__text_readable(page, site->code, site->len))
		return HIDDEN;
	memcpy(finding->text, (const void *)site->code, site->len);
	memset(&finding->right, 0, sizeof(finding->right));
	finding->has_right = request->kind->form(request, site, finding->text, XP__RIGHT, 0, &finding->right, NULL) > 0;
	if (xp__form_find(request, site, finding->text, XP__RIGHT, &form, NULL) > 0 && form.word == NULL)
		return RIGHT;
	if (xp__is_trap(finding->text))
		return HELD;
	if (!finding->has_right)
		return FOREIGN;
	if (xp__form_find(request, site, finding->text, XP__FROM_ANY, &form, NULL) > 0)
		return DRIFTED;
	return is_mixed(request, finding) ? MIXED : FOREIGN;
}

/* Looks at site @i of the group. False: there are no more. */
static bool drift_look(const struct xp__request *request, const struct xp__group *group, size_t i, uintptr_t *page,
		       struct finding *finding)
{
	int there = request->kind->form ? request->kind->site(group, i, &finding->site) : -1;

	if (there >= 0)
		finding->verdict = there ? drift_judge(request, finding, page) : RIGHT;
	return there >= 0;
}

static int fail(const struct finding *finding, const struct xp_object *object, struct xp_diag *diag)
{
	static const char held[] = "a debugger or probe has a breakpoint there";
	static const char older[] =
		"another program wrote an older form back, as probes do that go; xp_repair() mends it";
	const struct xp__site *site = &finding->site;
	enum verdict verdict = finding->verdict;
	int error = verdict == HELD ? -XP__EBUSY : verdict == FOREIGN ? -XP_E_MISMATCH : -XP_E_DRIFTED;

	if (diag)
		diag->key = object->name;
	if (verdict == HIDDEN)
		return xp__fail_unreadable(diag, site->code);
	if (diag) {
		diag->len = finding->has_right ? site->len : 0;
		memcpy(diag->expected, finding->right.bytes, diag->len);
		memcpy(diag->found, finding->text, diag->len);
		diag->detail = NULL;
	}
	return xp__fail(diag, error, XP_PHASE_VALIDATE, (const void *)site->code,
			verdict == HELD      ? held
			: verdict == FOREIGN ? NULL
					     : older);
}

int xp__drift_check(const struct xp__group *groups, size_t *nr, struct xp_diag *diag)
{
	struct finding finding;
	int error = 0;

	if (nr)
		*nr = 0;
	for (const struct xp__group *group = groups; group; group = group->next) {
		struct xp__request request = xp__request_state(group, XP__FROM_BUILT);
		uintptr_t page = 0;

		for (size_t i = 0; drift_look(&request, group, i, &page, &finding); i++) {
			if (finding.verdict == RIGHT)
				continue;
			if (!error)
				error = fail(&finding, group->object, diag);
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

	return result || !XP__HAS_ENTRIES ? result : xp__functions_each(visit, data);
}

/* ---- repair ---- */

struct repair {
	struct xp_diag *diag; /* of the first error */
	int error, nr;
};

static void drift_note(struct repair *repair, int error, const struct xp_diag *diag)
{
	if (repair->error == 0 && repair->diag)
		*repair->diag = *diag;
	repair->error = repair->error ? repair->error : error;
}

static int repair_site(struct xp__commit *commit, const struct finding *finding, struct xp_diag *diag)
{
	struct xp__insn insn;
	struct xp__change change = xp__emit_change(&finding->site, finding->text, &finding->right, &insn);
	int error = xp__commit_change(commit, &change, 0, diag);

	commit->known = commit->known && finding->site.record;
	/* The text may be right, and the word that it jumps through not. */
	if (!error && finding->right.word)
		xp__commit_pointer(commit, finding->right.word, finding->right.word_to);
	return error;
}

/* A commit of as many drifted sites as there is room for; @parked: by the quiesce policy. NULL and 0: there are none. */
static int drift_build(const struct xp__group *groups, bool parked, struct xp__commit **result, struct xp_diag *diag)
{
	const struct xp__size size = {.sites = SITES_AT_ONCE, .plans = SITES_AT_ONCE, .pointers = SITES_AT_ONCE};
	struct xp__commit *commit = xp__commit_new(&size);
	struct finding finding;
	int error = 0;

	*result = NULL;
	if (commit == NULL)
		return xp__fail(diag, -XP__ENOMEM, XP_PHASE_VALIDATE, NULL, NULL);
	if (parked)
		commit->policy = XP_POLICY_QUIESCE;
	for (const struct xp__group *group = groups; group && !error; group = group->next) {
		struct xp__request request = xp__request_state(group, XP__FROM_BUILT);
		uintptr_t page = 0;

		for (size_t i = 0; !error && commit->nr < SITES_AT_ONCE; i++) {
			if (!drift_look(&request, group, i, &page, &finding))
				break;
			if (finding.verdict == MIXED && !parked)
				error = -XP_E_MULTI;
			else if (finding.verdict == DRIFTED || finding.verdict == MIXED)
				error = repair_site(commit, &finding, diag);
		}
	}
	if (!error && commit->nr > 0)
		*result = commit;
	else
		xp__commit_free(commit);
	return error;
}

/* Mends what can be, of as many sites as had to be at first: another program may go on writing. What is left is an error. */
static int repair_object(const struct xp__group *groups, void *data)
{
	struct repair *repair = data;
	struct xp_diag diag = {0};
	struct xp__commit *commit;
	size_t left, nr;
	int error = 0;

	if (xp__drift_check(groups, &left, NULL) == 0)
		return 0;
	for (; left > 0; left -= nr < left ? nr : left) {
		memset(&diag, 0, sizeof(diag));
		error = drift_build(groups, false, &commit, &diag);
		/* The text is no single instruction, or a thread that meets a breakpoint could not finish it. */
		if (error == -XP_E_MULTI || error == -XP_E_EMULATE || error == -XP_E_SHADOW_STACK)
			error = drift_build(groups, true, &commit, &diag);
		if (!error && commit == NULL)
			break;
		nr = error ? 0 : commit->nr;
		error = error ? error : xp__poke_run(commit, &diag);
		if (error)
			break;
		repair->nr += (int)nr;
	}
	if (!error)
		error = xp__drift_check(groups, NULL, &diag);
	if (error) {
		diag.key = groups->object->name;
		drift_note(repair, error, &diag);
	}
	return xp_state() == XP_STATE_WEDGED;
}

int xp__drift_repair_locked(struct xp_diag *diag)
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
	result = xp__drift_repair_locked(diag);
	xp__unlock();
	return result;
}
