// SPDX-License-Identifier: MIT
/*
 * Builds commits and has them run.
 *
 * I1  Everything that can be refused is refused while a commit is built or in the port's prepare(), before the first
 *     store.
 * I2  The text of a site is one of the forms that it may have before, or the commit is refused. It becomes the first form
 *     that the request wants, for which there is a plan.
 * I3  Breakpoints that the port refuses: a thread's mask forbids them, or the threads cannot be asked (no descriptor, no
 *     /proc). The commit is built once more, of stores that need none, for which the port may have another writer than the one
 *     in force. If one site cannot be changed so, the commit is refused as it was, and nothing was stored.
 * I4  Breakpoints ask for a handler, and that no thread blocks its signal. A program that begins, alone, shall not have to do
 *     with that because it has a value that does not begin as 0: a module that comes is changed by plain stores then.
 */
#include "core/emit.h"

#include "core/commit.h"
#include "core/deps.h"
#include "core/poke.h"
#include "core/state.h"
#include "core/ticket.h"

/* ---- one site ---- */

int xp__form_find(const struct xp__request *request, const struct xp__site *site, const uint8_t *text,
		  enum xp__which which, struct xp__form *form, struct xp_diag *diag)
{
	for (unsigned n = 0;; n++) {
		int there;

		memset(form, 0, sizeof(*form));
		there = request->kind->form(request, site, text, which, n, form, diag);
		if (there <= 0 || memcmp(text, form->bytes, site->len) == 0)
			return there;
	}
}

struct xp__change xp__emit_change(const struct xp__site *site, const uint8_t *text, const struct xp__form *form,
				  struct xp__insn *insn)
{
	struct xp__change change = {
		.addr = site->code,
		.old = text,
		.new = form->bytes,
		.len = form->change ? form->change : site->len,
		.resume = form->resume,
		.resume_at = form->resume_at,
	};

	change.known = change.len;
	if (form->whole) {
		xp__insn_decode(form->bytes, site->len, insn);
		change.as = insn;
	}
	return change;
}

static int fail_key(const struct xp__request *request, int error, struct xp_diag *diag)
{
	if (diag && request->object)
		diag->key = request->object->name;
	return error;
}

/* The text is none that the site may have: told beside the form that begins as it does, or the first. */
static int emit_fail_text(const struct xp__request *request, const struct xp__site *site, const uint8_t *text,
			  struct xp_diag *diag)
{
	struct xp__form expected = {0}, form;

	for (unsigned n = 0;; n++) {
		memset(&form, 0, sizeof(form));
		if (request->kind->form(request, site, text, request->from, n, &form, NULL) <= 0)
			break;
		if (n == 0 || form.bytes[0] == text[0])
			expected = form;
		if (form.bytes[0] == text[0])
			break;
	}
	return fail_key(request, xp__fail_text(diag, (const void *)site->code, expected.bytes, text, site->len), diag);
}

/* The site has its form; what the form jumps through may still have to change. */
static void emit_word(struct xp__commit *commit, const struct xp__form *form)
{
	if (form->word)
		xp__commit_pointer(commit, form->word, form->word_to);
}

/* Adds the change of a site to the form that is wanted, if there is any. */
static int emit_form(const struct xp__request *request, const struct xp__site *site, const uint8_t *text,
		     struct xp__commit *commit, size_t first, struct xp_diag *diag)
{
	struct xp__form form = {0}, stays;
	struct xp__insn insn;
	struct xp__change change;
	int there = request->kind->form(request, site, text, XP__WANTED, 0, &form, diag);
	int error;

	if (there <= 0)
		return there < 0 ? fail_key(request, there, diag) : 0;
	if (memcmp(text, form.bytes, form.change ? form.change : site->len) == 0) {
		emit_word(commit, &form);
		return 0;
	}
	change = xp__emit_change(site, text, &form, &insn);
	error = xp__commit_change(commit, &change, request->kind->own_plans ? XP__PLAN_OWN : first, diag);
	/* Under shadow stacks a call is not emulated: if that is the only way, the site stays as it is. */
	if (error == -XP_E_SHADOW_STACK && xp__form_find(request, site, text, XP__WANTED, &stays, NULL) > 0) {
		if (diag)
			memset(diag, 0, sizeof(*diag));
		form = stays;
		error = 0;
	}
	if (error)
		return fail_key(request, error, diag);
	emit_word(commit, &form);
	return 0;
}

static int emit_site(const struct xp__request *request, const struct xp__site *site, struct xp__commit *commit,
		     size_t first, struct xp_diag *diag)
{
	uint8_t text[XP_MAX_LEN];
	struct xp__form form;
	int there;

	commit->known = commit->known && site->record;
	if (!xp__commit_readable(commit, site->code, site->len))
		return fail_key(request, xp__fail_unreadable(diag, site->code), diag);
	memcpy(text, (const void *)site->code, site->len);
	there = xp__form_find(request, site, text, request->from, &form, diag);
	if (there < 0)
		return fail_key(request, there, diag);
	if (there == 0)
		return emit_fail_text(request, site, text, diag);
	return emit_form(request, site, text, commit, first, diag);
}

/* ---- the sites of a request ---- */

/* No site of the group changes when its module comes. */
static bool is_as_built(const struct xp__request *request, const struct xp__group *group)
{
	return request->from == XP__FROM_BUILT && group && group->kind->as_built &&
	       group->kind->as_built(request, group);
}

static void count_group(const struct xp__request *request, const struct xp__group *group, struct xp__size *size)
{
	if (is_as_built(request, group))
		return;
	if (request->kind->count) {
		request->kind->count(request, group, size);
		return;
	}
	size->sites += group ? group->nr : 1;
	size->plans += group ? group->nr : 1;
}

int xp__emit_sites(const struct xp__request *request, const struct xp__group *group, struct xp__commit *commit,
		   struct xp_diag *diag)
{
	const size_t first = commit->nr_plans;
	struct xp__site site = {0};
	int there = 1, error = 0;

	for (size_t i = 0; there >= 0 && !error; i++) {
		there = request->kind->site(group, i, &site);
		if (there > 0)
			error = emit_site(request, &site, commit, first, diag);
	}
	return error;
}

static int emit_group(const struct xp__request *request, const struct xp__group *group, struct xp__commit *commit,
		      struct xp_diag *diag)
{
	if (is_as_built(request, group))
		return 0;
	return (request->kind->emit ? request->kind->emit : xp__emit_sites)(request, group, commit, diag);
}

bool xp__request_patches(const struct xp__request *request)
{
	return !request->skip && !request->merged;
}

static void count_request(const struct xp__request *request, struct xp__size *size)
{
	if (request->only) {
		size->sites++;
		size->plans++;
	} else if (request->object == NULL) {
		count_group(request, NULL, size);
	} else {
		for (const struct xp__group *group = request->object->groups; group; group = group->next)
			count_group(request, group, size);
	}
}

static int emit_request(const struct xp__request *request, struct xp__commit *commit, struct xp_diag *diag)
{
	int error = 0;

	if (request->early)
		commit->policy = XP_POLICY_EARLY;
	if (request->only)
		return emit_site(request, request->only, commit, commit->nr_plans, diag);
	if (request->object == NULL)
		return emit_group(request, NULL, commit, diag);
	for (const struct xp__group *group = request->object->groups; group && !error; group = group->next)
		error = emit_group(request, group, commit, diag);
	return error;
}

struct xp__request xp__request_state(const struct xp__group *group, enum xp__which from)
{
	struct xp__request request = {.kind = group->kind, .object = group->object, .from = (uint8_t)from};

	if (group->kind->get_state)
		group->kind->get_state(&request);
	return request;
}

/* ---- all of them ---- */

static void emit_count(const struct xp__work *work, struct xp__size *size)
{
	for (size_t i = 0; i < work->nr; i++) {
		if (work->groups) {
			struct xp__request request = xp__request_state(&work->groups[i], work->from);

			count_group(&request, &work->groups[i], size);
		} else if (xp__request_patches(&work->requests[i])) {
			count_request(&work->requests[i], size);
		}
	}
}

static int emit_all(const struct xp__work *work, struct xp__commit *commit, struct xp_diag *diag)
{
	int error = 0;

	for (size_t i = 0; i < work->nr && !error; i++) {
		if (work->groups) {
			struct xp__request request = xp__request_state(&work->groups[i], work->from);

			error = emit_group(&request, &work->groups[i], commit, diag);
		} else if (xp__request_patches(&work->requests[i])) {
			error = emit_request(&work->requests[i], commit, diag);
		}
	}
	return error;
}

/* After the commit: the text is as the requests say. */
static void applied(const struct xp__request *request, const struct xp__group *group)
{
	if (group->kind->applied)
		group->kind->applied(request, group);
}

static void emit_apply(const struct xp__work *work)
{
	for (size_t i = 0; i < work->nr; i++) {
		const struct xp__request *request;

		if (work->groups) {
			struct xp__request state = xp__request_state(&work->groups[i], work->from);

			applied(&state, &work->groups[i]);
			continue;
		}
		request = &work->requests[i];
		if (!xp__request_patches(request) || request->object == NULL || request->only)
			continue;
		for (const struct xp__group *group = request->object->groups; group; group = group->next)
			applied(request, group);
	}
}

/* Whether the stores are right though a sync is owed: ticket.c, I3. What stands at addresses may be any object's site. */
static bool may_pile(const struct xp__work *work)
{
	if (work->groups || xp__owed_by(NULL))
		return !xp__owed();
	for (size_t i = 0; i < work->nr; i++) {
		const struct xp__request *request = &work->requests[i];

		if (xp__request_patches(request) &&
		    (request->object == NULL || (!request->kind->one_byte && xp__owed_by(request->object))))
			return !xp__owed();
	}
	return true;
}

/* The commit, or NULL and an error. @policy, @can: not those in force, if they are not 0. */
static struct xp__commit *emit_build(const struct xp__work *work, const struct xp__size *size, enum xp_policy policy,
				     unsigned can, int *error, struct xp_diag *diag)
{
	struct xp__commit *commit = xp__commit_new(size);

	*error = -XP__ENOMEM;
	if (commit == NULL) {
		xp__fail(diag, -XP__ENOMEM, XP_PHASE_VALIDATE, NULL, NULL);
		return NULL;
	}
	commit->policy = policy;
	if (can)
		commit->can = can;
	commit->async = work->async;
	commit->piles = may_pile(work);
	*error = emit_all(work, commit, diag);
	if (!*error)
		return commit;
	xp__commit_free(commit);
	return NULL;
}

/* ---- commits that breakpoints are forbidden, or dear (I3) ---- */

static bool traps(const struct xp__commit *commit)
{
	return commit->policy == XP_POLICY_AUTO && xp__poke_needs(commit) & XP_NEED_TRAP;
}

/* The needs that the port can serve of a commit that it refused with @error; 0: not because of breakpoints, or there is no way. */
static unsigned without_traps(const struct xp__commit *commit, int error)
{
	if (!commit->refused || !traps(commit))
		return 0;
	/* It may have been something else: the port is asked for breakpoints alone. */
	return xp__port->prepare(XP_NEED_TRAP, NULL) == error ? xp__port->can(~(unsigned)XP_NEED_TRAP) : 0;
}

/* The same changes without breakpoints, ready to be run; NULL: not all of them are possible, and @diag says nothing. */
static struct xp__commit *emit_rebuild(const struct xp__work *work, const struct xp__size *size, unsigned can,
				       struct xp_diag *diag)
{
	int error;
	struct xp__commit *commit;

	if (diag)
		memset(diag, 0, sizeof(*diag));
	commit = emit_build(work, size, XP_POLICY_AUTO, can, &error, NULL);
	if (commit && xp__poke_ready(commit, diag) == 0)
		return commit;
	if (commit)
		xp__commit_free(commit);
	if (diag)
		memset(diag, 0, sizeof(*diag));
	return NULL;
}

/* Runs the commit, or the same changes without breakpoints. */
static int emit_run(struct xp__commit *commit, const struct xp__work *work, const struct xp__size *size,
		    struct xp_diag *diag)
{
	bool dear = traps(commit) && !xp__port->can(XP_NEED_TRAP);
	struct xp__commit *other = dear ? emit_rebuild(work, size, xp__port->can(~(unsigned)XP_NEED_TRAP), diag) : NULL;
	int error = other ? 0 : xp__poke_ready(commit, diag);
	unsigned can = without_traps(commit, error);
	struct xp_diag refused;

	if (can) {
		if (diag)
			refused = *diag;
		other = emit_rebuild(work, size, can, diag);
		if (other == NULL && diag)
			*diag = refused;
	}
	if (other || error)
		xp__commit_free(commit);
	if (other)
		return xp__poke_run(other, diag);
	return error ? error : xp__poke_run(commit, diag);
}

int xp__emit_commit(const struct xp__work *work, struct xp_diag *diag)
{
	struct xp__size size = {0};
	struct xp__commit *commit;
	int error = 0;

	emit_count(work, &size);
	if (size.sites > 0) {
		commit = emit_build(work, &size, xp_policy(), 0, &error, diag);
		/* I4 */
		if (commit && work->groups && xp__poke_needs(commit) & XP_NEED_TRAP &&
		    xp__port->prepare(XP_NEED_ALONE, NULL) == 0) {
			xp__commit_free(commit);
			commit = emit_build(work, &size, XP_POLICY_EARLY, 0, &error, diag);
		}
		if (commit)
			error = emit_run(commit, work, &size, diag);
	}
	if (!error)
		emit_apply(work);
	return error;
}

int xp__emit_attach_locked(const struct xp__group *groups, size_t nr, enum xp__which from, struct xp_diag *diag)
{
	const struct xp__work work = {.groups = groups, .nr = nr, .from = from};

	return xp__emit_commit(&work, diag);
}
