/* SPDX-License-Identifier: MIT */
/* Threads that wait while text changes, and their stacks. */
#ifndef XP_LINUX_QUIESCE_H
#define XP_LINUX_QUIESCE_H

#include <crosspatch/port.h>

int xp__rendezvous_park(const struct xp_range *ranges, size_t nr, struct xp_diag *diag);
void xp__rendezvous_unpark(void);
int xp__quiesce_stack_check(const void *from, const struct xp_range *ranges, size_t nr, struct xp_diag *diag);

#endif
