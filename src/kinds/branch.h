/* SPDX-License-Identifier: MIT */
/* The sites of static keys: operations of their kind. */
#ifndef XP_KINDS_BRANCH_H
#define XP_KINDS_BRANCH_H

#include "core/kind.h"

bool xp__branch_as_built(const struct xp__request *request, const struct xp__group *group);
void xp__branch_count(const struct xp__request *request, const struct xp__group *group, struct xp__size *size);
int xp__branch_site(const struct xp__group *group, size_t i, struct xp__site *site);
int xp__branch_form(const struct xp__request *request, const struct xp__site *site, const uint8_t *text,
		    enum xp__which which, unsigned n, struct xp__form *form, struct xp_diag *diag);

/* xp__branch_emit - a key may have a million sites: all of one group at once. */
int xp__branch_emit(const struct xp__request *request, const struct xp__group *group, struct xp__commit *commit,
		    struct xp_diag *diag);

#endif
