/* SPDX-License-Identifier: MIT */
/* Whether a module is what its file says. */
#ifndef XP_LINUX_MOVED_H
#define XP_LINUX_MOVED_H

int xp__moved_check(const void *header);

#endif
