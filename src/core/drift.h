/* SPDX-License-Identifier: MIT */
/*
 * Drift: another program wrote to a site, and its text is not what its object says. A probe that goes writes back what the file
 * has; a debugger, what it found. Text that the site may have is told apart from text that it never has.
 */
#ifndef XP_CORE_DRIFT_H
#define XP_CORE_DRIFT_H

#include "core/kind.h"

/*
 * xp__drift_check - 0 if the text of each site is what the object's state says. Else the error of the first that is not, told to @diag:
 * -XP_E_DRIFTED, -EBUSY at a foreign breakpoint, -XP_E_MISMATCH for text that the site never has. @nr, if not NULL: how many
 * are not. Context: text lock.
 */
int xp__drift_check(const struct xp__group *groups, size_t *nr, struct xp_diag *diag);

/* xp__drift_repair_locked - xp_repair() under the text lock. */
int xp__drift_repair_locked(struct xp_diag *diag);

/*
 * xp__drift_each - calls @visit for each object that has sites, functions that were asked for included, as xp__objects_each()
 * does for those with records.
 */
int xp__drift_each(int (*visit)(const struct xp__group *groups, void *data), void *data);

#endif
