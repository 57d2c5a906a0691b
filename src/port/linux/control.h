/* SPDX-License-Identifier: MIT */
/* Operation from outside. */
#ifndef XP_LINUX_CONTROL_H
#define XP_LINUX_CONTROL_H

void xp__control_wake(void);
void xp__control_fork(void); /* in the child: it serves nobody */

#endif
