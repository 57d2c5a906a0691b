/* SPDX-License-Identifier: MIT */
/* Operation from outside. */
#ifndef XP_LINUX_CONTROL_H
#define XP_LINUX_CONTROL_H

/* xp__control_wake - its thread looks again, and sets its mask. Context: text lock. */
void xp__control_wake(void);

#endif
