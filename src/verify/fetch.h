/* SPDX-License-Identifier: MIT */
/* The fetch of instructions. */
#ifndef XP_VERIFY_FETCH_H
#define XP_VERIFY_FETCH_H

#include "verify/explorer.h"

/* xp__fetch - every way to fetch and execute the next instruction of the node @number, whose state is @state. */
void xp__fetch(struct xp__explorer *x, const struct state *state, uint32_t number);

#endif
