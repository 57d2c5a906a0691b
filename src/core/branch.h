/* SPDX-License-Identifier: MIT */
/* The sites of static keys: from "this key on" to changes of a commit. The front's measure() and add(). */
#ifndef XP_CORE_BRANCH_H
#define XP_CORE_BRANCH_H

#include "core/front.h"

void xp__branch_measure(const struct xp__item *item, const struct xp__use *use, struct xp__size *size);
int xp__branch_add(const struct xp__item *item, const struct xp__use *use, struct xp__commit *commit,
		   struct xp_diag *diag);

int xp__branch_look(const struct xp__item *item, const struct xp__use *use, size_t i, struct xp__look *look);

#endif
