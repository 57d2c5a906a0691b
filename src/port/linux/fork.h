/* SPDX-License-Identifier: MIT */
/* fork while others patch. */
#ifndef XP_LINUX_FORK_H
#define XP_LINUX_FORK_H

int xp__fork_start(void);
/* xp__fork_lock - the text lock, for all that commits: in a child the parent's is given up before. Errors: as xp__text_lock(). */
int xp__fork_lock(void);

#endif
