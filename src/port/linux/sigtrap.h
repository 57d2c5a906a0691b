/* SPDX-License-Identifier: MIT */
/* The handlers of SIGTRAP, SIGILL and SIGSEGV. */
#ifndef XP_LINUX_SIGTRAP_H
#define XP_LINUX_SIGTRAP_H

#include <stdbool.h>

struct xp_diag;

int xp__sigtrap_start(struct xp_diag *diag); /* installs the handler, or finds that it still is */
int xp__sigill_start(struct xp_diag *diag);  /* likewise */
int xp__sigsegv_start(struct xp_diag *diag); /* likewise */
bool xp__in_trap(void);                      /* the caller runs inside a handler that ours passed a foreign trap to */
unsigned xp__trap_shard(void);               /* the caller's, for xp_trap() */
int xp__text_peek(const void *addr);         /* the port's text_peek(), for the handler */

#endif
