/* SPDX-License-Identifier: MIT */
/* The trap handler. */
#ifndef XP_VERIFY_HANDLER_H
#define XP_VERIFY_HANDLER_H

#include "verify/explorer.h"

/* xp__handler - the next step of the node @number, whose @state is in the handler or about to be. */
void xp__handler(struct xp__explorer *x, struct state state, uint32_t number);

#endif
