/* SPDX-License-Identifier: MIT */
/* The explorer: every execution of a site that a fetch model allows while a schedule runs. Hosted. */
#ifndef XP_VERIFY_EXPLORE_H
#define XP_VERIFY_EXPLORE_H

#include "verify/model.h"
#include "verify/result.h"
#include "verify/schedule.h"

struct xp__explorer;

/* xp__explorer_new - NULL if there is no memory. One thread at a time; reuse it, it remembers decoded instructions. */
struct xp__explorer *xp__explorer_new(void);
void xp__explorer_free(struct xp__explorer *explorer);

/*
 * xp__explore - @schedule at a site whose first byte stands at address @addr, under @model. The result depends on @addr
 * only through the granule boundaries inside the site (tests/model/test_verify.c shows it).
 * Returns 0, -ENOMEM, or -E2BIG if there are more states than any sensible schedule has.
 */
int xp__explore(struct xp__explorer *explorer, const struct xp__schedule *schedule, unsigned addr,
		const struct xp__model *model, struct xp__result *result);

/* xp__boundaries - bit i: byte i of a site at @addr is the first of its granule; bit 0 is not set. */
unsigned xp__boundaries(unsigned addr, unsigned len, unsigned granule);

#endif
