/* SPDX-License-Identifier: MIT */
/* The states that the explorer has come to. */
#ifndef XP_VERIFY_STATES_H
#define XP_VERIFY_STATES_H

#include "verify/explorer.h"

/* xp__states_add - @state, to which @step led from the node @parent, unless it was there before. Sets the explorer's error. */
void xp__states_add(struct xp__explorer *x, const struct state *state, uint32_t parent, const struct xp__step *step);
/* xp__states_violation - @step, from the node @at, is wrong: the counterexample, unless there is one. */
void xp__states_violation(struct xp__explorer *x, uint32_t at, const struct xp__step *step, const char *why);

#endif
