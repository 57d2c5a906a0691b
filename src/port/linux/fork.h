/* SPDX-License-Identifier: MIT */
/* fork while others patch. */
#ifndef XP_LINUX_FORK_H
#define XP_LINUX_FORK_H

#include <stdint.h>

int xp__fork_start(void);
/* xp__fork_lock, xp__fork_lock_or - the text lock, for all that commits: in a child the parent's is given up before. Errors: as xp__text_lock(). */
int xp__fork_lock(void);
int xp__fork_lock_or(const uint32_t *done);

#endif
