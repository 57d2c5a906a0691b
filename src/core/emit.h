/* SPDX-License-Identifier: MIT */
/* From requests to one commit: what each site's text is, what it has to become, and by which writers. */
#ifndef XP_CORE_EMIT_H
#define XP_CORE_EMIT_H

#include "core/kind.h"

/*
 * A commit is made of requests, for all sites of their objects; or of groups whose module comes, whose sites are brought to
 * the state of their objects. One of the two is NULL.
 */
struct xp__work {
	const struct xp__request *requests;
	const struct xp__group *groups;
	size_t nr;
	enum xp__which from; /* of the groups' sites */
	bool async;          /* of requests: no sync follows */
};

/* xp__emit_commit - builds the commit and runs it. Context: text lock. Errors: as xp_batch_commit(). */
int xp__emit_commit(const struct xp__work *work, struct xp_diag *diag);

/*
 * xp__emit_sites - adds to @commit what @request changes at the sites of @group, or NULL, one by one as their kind's site() and
 * form() say. A kind's emit() takes its place. Errors: a code, told to @diag.
 */
int xp__emit_sites(const struct xp__request *request, const struct xp__group *group, struct xp__commit *commit,
		   struct xp_diag *diag);

/* xp__emit_attach_locked - brings the sites of @nr groups to the state of their objects. */
int xp__emit_attach_locked(const struct xp__group *groups, size_t nr, enum xp__which from, struct xp_diag *diag);

/* xp__request_patches - whether the request changes text: another one may do it in its place, or it is so already. */
bool xp__request_patches(const struct xp__request *request);

/* xp__request_state - the request that says what the object of @group is now. */
struct xp__request xp__request_state(const struct xp__group *group, enum xp__which from);

/*
 * xp__form_find - the first of the forms that @which says which @text is: 1, and @form is it; 0: none is. Errors: those of
 * form(), told to @diag.
 */
int xp__form_find(const struct xp__request *request, const struct xp__site *site, const uint8_t *text,
		  enum xp__which which, struct xp__form *form, struct xp_diag *diag);

/* xp__emit_change - what takes a site from @text to @form. Valid as long as both are. */
struct xp__change xp__emit_change(const struct xp__site *site, const uint8_t *text, const struct xp__form *form,
				  struct xp__insn *insn);

#endif
