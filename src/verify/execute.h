/* SPDX-License-Identifier: MIT */
/* The execution of instructions. */
#ifndef XP_VERIFY_EXECUTE_H
#define XP_VERIFY_EXECUTE_H

#include "verify/explorer.h"

/* xp__execute - the instruction @effect has been fetched; @state carries the bound after it. */
void xp__execute(struct xp__explorer *x, struct state state, const struct xp__effect *effect, uint32_t parent,
		 struct xp__step *step);
/* xp__execute_traps - whether the instruction does, under this schedule. */
bool xp__execute_traps(const struct xp__schedule *schedule, const struct xp__effect *effect);

#endif
