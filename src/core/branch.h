/* SPDX-License-Identifier: MIT */
/* The sites of static keys: from "this key on" to changes of a commit. The kind's measure() and add(). */
#ifndef XP_CORE_BRANCH_H
#define XP_CORE_BRANCH_H

#include "core/kind.h"

void xp__branch_measure(const struct xp__request *request, const struct xp__group *group, struct xp__size *size);
int xp__branch_add(const struct xp__request *request, const struct xp__group *group, struct xp__commit *commit,
		   struct xp_diag *diag);

int xp__branch_look(const struct xp__request *request, const struct xp__group *group, size_t i, struct xp__look *look);

#endif
